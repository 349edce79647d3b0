"""The models: the paper's sizes, open_clip's numbers, and what training asks of them."""

# ruff: noqa: E402 (what follows needs torch)

import copy
import math
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="no torch in this environment")
open_clip = pytest.importorskip("open_clip", reason="no open_clip in this environment")
transformers = pytest.importorskip("transformers", reason="no transformers in this environment")

from torch.nn import functional as F
from transformers.initialization import no_init_weights

from benchmarks import models as peers
from tests.trainer.made_models import (
    TINY_RESNET,
    TINY_VIT,
    equal,
    random_model,
    tiny_models,
)
from trainer import convert, hugging_face
from trainer.block import LayerNorm
from trainer.clip import CLIP, create, set_checkpointing
from trainer.text import real_places
from trainer.zoo import MODELS, PAPER, SMALL, ResNetConfig, ViTConfig

# --- sizes and numbers ------------------------------------------------------------------------


@pytest.mark.parametrize("config", PAPER, ids=lambda config: config.name)
def test_the_nine_models_have_the_published_sizes(config):
    side = config.vision.resolution
    with torch.device("meta"):
        model = CLIP(config)
        images, tokens = torch.zeros(2, 3, side, side), torch.zeros(2, 9, dtype=torch.int64)
        image_features, text_features, scale = model(images, tokens, None, torch.arange(2 * 9))
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert round(millions, 1) == peers.PARAMETERS[config.name]
    assert image_features.shape == text_features.shape == (2, config.embed)
    assert scale.shape == ()


def test_the_model_of_20_million_parameters_has_about_that():
    with torch.device("meta"):
        model = CLIP(MODELS["cpu-ViT-20M/16"])
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(
        20e6, rel=0.05
    )


@pytest.mark.parametrize("config", PAPER, ids=lambda config: config.name)
def test_the_nine_models_have_the_keys_and_shapes_of_open_clip(config):
    with torch.device("meta"):
        theirs = open_clip.create_model(peers.open_clip_name(config), device="meta").state_dict()
    ours = convert.expected_state(config)
    assert {k: t.shape for k, t in ours.items()} == {k: t.shape for k, t in theirs.items()}


@pytest.mark.parametrize("name", ["RN50", "ViT-B/32"])
def test_random_weights_give_the_logits_of_open_clip_and_hugging_face(name):
    config = MODELS[name]
    images, tokens = peers.inputs(config, 0, batch=2)
    ours = random_model(config)
    logits = peers.our_logits(ours, images, tokens)
    assert logits.std() > 0.1
    with no_init_weights():
        theirs = open_clip.create_model(peers.open_clip_name(config))
    theirs.load_state_dict(ours.state_dict())
    expected = peers.our_logits(theirs, images, tokens)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    assert equal(convert.fit("theirs", theirs.state_dict(), config), ours.state_dict())
    if isinstance(config.vision, ViTConfig):
        with no_init_weights():
            peer = transformers.CLIPModel(transformers.CLIPConfig(**hugging_face.config(config)))
        peer.load_state_dict(hugging_face.to_theirs(ours.state_dict(), config))
        expected = peers.hugging_face_logits(peer, images, tokens)
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_exact_gelu_is_another_model():
    exact = replace(TINY_VIT, gelu="exact")
    quick_model, exact_model = random_model(TINY_VIT), random_model(exact)
    images, tokens = peers.inputs(TINY_VIT, 0)
    difference = quick_model(images, tokens)[0] - exact_model(images, tokens)[0]
    assert difference.abs().max() > 1e-4


# --- texts and images -------------------------------------------------------------------------


def test_texts_of_any_length_have_the_features_of_texts_padded_to_77():
    model = random_model(TINY_VIT)
    _, tokens = peers.inputs(TINY_VIT, 0)
    tokens = tokens[:2]  # 5 and 20 tokens
    padded = model.encode_text(tokens)
    for length in (20, 21, 24, 40, 76):
        features = model.encode_text(tokens[:, :length])
        torch.testing.assert_close(features, padded, atol=1e-6, rtol=1e-5)


def test_a_model_finds_the_tokens_of_texts_where_it_is_not_told_them():
    model = random_model(TINY_VIT)
    images, tokens = peers.inputs(TINY_VIT, 0)
    told = model(images, tokens, None, real_places(tokens))
    assert all(map(torch.equal, told, model(images, tokens)))


def test_what_follows_the_end_of_a_text_changes_nothing():
    model = random_model(TINY_VIT)
    _, tokens = peers.inputs(TINY_VIT, 0)
    other = tokens.clone()
    other[0, 5:] = 7
    assert torch.equal(model.encode_text(tokens), model.encode_text(other))


def test_a_text_beyond_the_context_is_refused():
    with pytest.raises(ValueError, match="78 tokens: this model takes at most 77"):
        random_model(TINY_VIT).encode_text(torch.zeros(1, 78, dtype=torch.int64))


@tiny_models
def test_images_of_another_size_are_refused(config):
    with pytest.raises(ValueError, match="96 x 96 pixels: this model takes 64 x 64"):
        random_model(config).encode_image(torch.zeros(1, 3, 96, 96))


def test_keeping_every_patch_in_any_order_is_no_patch_dropout():
    model, (images, _) = random_model(TINY_VIT), peers.inputs(TINY_VIT, 0)
    kept = torch.tensor([[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]])
    torch.testing.assert_close(model.encode_image(images, kept), model.encode_image(images))


def test_a_dropped_patch_is_not_seen():
    model, (images, _) = random_model(TINY_VIT), peers.inputs(TINY_VIT, 0)
    kept = torch.tensor([[0, 3], [1, 3], [1, 0]])  # patches of 32 px, two a row
    features = model.encode_image(images, kept)
    images[0, :, :32, 32:] = 5.0  # patch 1 of the first
    images[1, :, 32:, :32] = 5.0  # patch 2 of the second
    assert torch.equal(model.encode_image(images, kept), features)
    images[2, :, :32, :32] = 5.0  # patch 0 of the third, which is kept
    changed = (model.encode_image(images, kept) != features).any(dim=1)
    assert changed.tolist() == [False, False, True]


def test_features_have_norm_one_and_the_scale_stays_within_1_and_100():
    model = random_model(TINY_VIT)
    image_features, text_features, scale = model(*peers.inputs(TINY_VIT, 0))
    for features in (image_features, text_features):
        torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    assert scale == model.logit_scale.exp()
    for value, clamped in ((-1.0, 0.0), (2.0, 2.0), (9.0, math.log(100))):
        torch.nn.init.constant_(model.logit_scale, value)
        model.clamp_logit_scale()
        assert model.logit_scale.item() == pytest.approx(clamped)


def test_channels_last_gives_the_same_features_and_keeps_its_format():
    config = TINY_RESNET
    model, (images, _) = random_model(config), peers.inputs(config, 0)
    seen = []
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    other.visual.layer4.register_forward_hook(lambda _m, _i, out: seen.append(out))
    for one, two in ((model, other), (model.eval(), other.eval())):
        features = two.encode_image(images.to(memory_format=torch.channels_last))
        torch.testing.assert_close(features, one.encode_image(images), atol=1e-4, rtol=1e-4)
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out in seen)


# --- precision, compiling ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_layer_norm_computes_in_fp32(dtype):
    norm = LayerNorm(64).to(dtype)
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    x = (300 * torch.randn(8, 64) + 1000).to(dtype)
    expected = F.layer_norm(x.float(), (64,), norm.weight.float(), norm.bias.float())
    out = norm(x)
    assert out.dtype == dtype
    assert torch.equal(out, expected.to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert norm.float()(x.float()).dtype == torch.float32


@tiny_models
def test_autocast_gives_features_in_fp32_near_those_of_fp32(config):
    model, (images, tokens) = random_model(config).eval(), peers.inputs(config, 0)
    exact = model(images, tokens)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(images, tokens)
    for one, two in zip(exact[:2], rounded[:2], strict=True):
        assert two.dtype == torch.float32
        assert (one * two).sum(dim=1).min() > 0.995


def test_a_model_compiles_whole_with_checkpointing_and_patch_dropout():
    images, tokens = peers.inputs(TINY_VIT, 0)
    kept = torch.tensor([[0, 3], [1, 3], [1, 0]])
    model = random_model(TINY_VIT)
    set_checkpointing(model, True)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    inputs = (images, tokens, kept, real_places(tokens))
    for one, two in zip(model(*inputs), compiled(*inputs), strict=True):
        assert torch.equal(one, two)


# --- fresh weights ----------------------------------------------------------------------------


def deviations(config) -> dict[str, tuple[float, float]]:
    """Of each kind of weight: the standard deviation wanted."""
    text = config.text
    wanted = {
        "token_embedding.weight": 0.02,
        "positional_embedding": 0.01,
        "text_projection": text.width**-0.5,
    }
    towers = [("transformer.resblocks.0", text.width, text.layers)]
    if isinstance(config.vision, ResNetConfig):
        width = 32 * config.vision.width
        wanted["visual.attnpool.positional_embedding"] = width**-0.5
        wanted |= {f"visual.attnpool.{part}_proj.weight": width**-0.5 for part in "qkvc"}
        wanted["visual.conv2.weight"] = (3 * 9 * config.vision.width / 2) ** -0.5
    else:
        width = config.vision.width
        wanted |= {"visual.positional_embedding": width**-0.5, "visual.proj": width**-0.5}
        wanted |= {"visual.class_embedding": width**-0.5}
        towers.append(("visual.transformer.resblocks.0", width, config.vision.layers))
    for name, width, layers in towers:
        wanted[f"{name}.attn.in_proj_weight"] = width**-0.5
        wanted[f"{name}.attn.out_proj.weight"] = width**-0.5 * (2 * layers) ** -0.5
        wanted[f"{name}.mlp.c_fc.weight"] = (2 * width) ** -0.5
        wanted[f"{name}.mlp.c_proj.weight"] = width**-0.5 * (2 * layers) ** -0.5
    return wanted


@pytest.mark.parametrize("config", SMALL, ids=lambda config: config.name)
def test_fresh_weights_have_the_papers_deviations(config):
    state = create(config, seed=0).state_dict()
    for name, wanted in deviations(config).items():
        tensor = state[name]
        # Five standard errors of a standard deviation.
        slack = 5 * wanted * (2 * tensor.numel()) ** -0.5
        assert tensor.std().item() == pytest.approx(wanted, abs=slack), name
    assert state["logit_scale"].item() == pytest.approx(math.log(1 / 0.07))


def test_blocks_of_a_fresh_resnet_add_nothing_to_their_shortcut():
    model = create(TINY_RESNET, seed=0)
    block = model.visual.layer2[1]
    x = torch.rand(2, 64, 8, 8)
    assert torch.equal(block(x), x)


@tiny_models
def test_fresh_weights_are_a_function_of_the_seed_and_leave_nothing_unset(config):
    first, second, other = create(config, 1), create(config, 1), create(config, 2)
    assert equal(first.state_dict(), second.state_dict())
    assert not torch.equal(first.text_projection, other.text_projection)
    with torch.no_grad():
        for tensor in [*other.parameters(), *other.buffers()]:
            tensor.fill_(math.nan if tensor.is_floating_point() else -1)
    other.initialise(torch.Generator().manual_seed(1))
    assert equal(dict(first.named_buffers()), dict(other.named_buffers()))
    assert equal(first.state_dict(), other.state_dict())
