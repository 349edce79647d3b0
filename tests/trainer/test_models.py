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
from trainer import convert, hugging_face
from trainer.block import LayerNorm
from trainer.clip import CLIP, create, empty, set_checkpointing
from trainer.resnet import (
    apply_collected,
    batch_norms,
    collecting,
    still,
    take_collected,
)
from trainer.zoo import MODELS, PAPER, SMALL, ResNetConfig, ViTConfig

TINY_VIT, TINY_RESNET = MODELS["cpu-ViT-tiny/32"], MODELS["cpu-RN-tiny"]
tiny_models = pytest.mark.parametrize("config", [TINY_VIT, TINY_RESNET], ids=lambda c: c.name)


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in one order, whatever machine runs the test."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_model(config, seed=0) -> CLIP:
    model = empty(config)
    peers.randomise(model, seed)
    return model


def gradients(model, images, tokens) -> dict:
    model.zero_grad()
    image_features, text_features, scale = model(images, tokens)
    logits = scale * image_features @ text_features.T
    F.cross_entropy(logits, torch.arange(len(images))).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


# --- sizes and numbers ------------------------------------------------------------------------


@pytest.mark.parametrize("config", PAPER, ids=lambda config: config.name)
def test_the_nine_models_have_the_published_sizes(config):
    side = config.vision.resolution
    with torch.device("meta"):
        model = CLIP(config)
        images, tokens = torch.zeros(2, 3, side, side), torch.zeros(2, 9, dtype=torch.int64)
        image_features, text_features, scale = model(images, tokens)
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
    for one, two in zip(model(images, tokens, kept), compiled(images, tokens, kept), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("mode", ["update", "collect"])
def test_a_compiled_checkpointed_block_of_a_resnet_counts_its_statistics_once(mode):
    plain = random_model(TINY_RESNET).visual.layer2[0]
    for norm in batch_norms(plain):
        norm.statistics = mode
    block, x = copy.deepcopy(plain), torch.randn(4, 32, 8, 8)
    block.recompute = True
    torch._dynamo.reset()
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    compiled(x).square().sum().backward()
    plain(x).square().sum().backward()
    assert equal(dict(plain.named_buffers()), dict(block.named_buffers()))
    for one, two in zip(plain.parameters(), block.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


# --- gradient checkpointing and running statistics --------------------------------------------


@tiny_models
@pytest.mark.parametrize("mode", ["at once", "collected"])
def test_checkpointing_changes_no_gradient_and_no_running_statistic(config, mode):
    images, tokens = peers.inputs(config, 0)
    plain = random_model(config)
    frugal = copy.deepcopy(plain)
    set_checkpointing(frugal, True)
    if mode == "at once":
        found = [gradients(model, images, tokens) for model in (plain, frugal)]
    else:
        found = []
        for model in (plain, frugal):
            with collecting(model):
                found.append(gradients(model, images, tokens))
            apply_collected(model, take_collected(model))
    assert equal(*found)
    assert equal(plain.state_dict(), frugal.state_dict())
    for norm in batch_norms(frugal):
        assert norm.statistics == "update"


@tiny_models
def test_checkpointing_keeps_fewer_tensors_for_the_backward_pass(config):
    images, _ = peers.inputs(config, 0)
    model, kept = random_model(config), []
    for on in (False, True):
        set_checkpointing(model, on)
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: saved.append(t.nbytes) or t, lambda t: t
        ):
            model.encode_image(images)
        kept.append(sum(saved))
    assert kept[1] < kept[0] / 2


def test_running_statistics_move_once_a_step_by_the_mean_over_micro_batches():
    model = random_model(TINY_RESNET)
    images = [peers.inputs(TINY_RESNET, seed)[0] for seed in range(3)]
    norm = model.visual.bn1
    before_mean, before_var = norm.running_mean.clone(), norm.running_var.clone()
    steps = norm.num_batches_tracked.item()
    with collecting(model):
        for micro_batch in images:
            model.encode_image(micro_batch)
    assert torch.equal(norm.running_mean, before_mean)
    inner = [model.visual.conv1(micro_batch) for micro_batch in images]
    means = torch.stack([x.mean(dim=(0, 2, 3)) for x in inner]).mean(dim=0)
    variances = torch.stack([x.var(dim=(0, 2, 3)) for x in inner]).mean(dim=0)
    apply_collected(model, take_collected(model))
    torch.testing.assert_close(norm.running_mean, 0.9 * before_mean + 0.1 * means)
    torch.testing.assert_close(norm.running_var, 0.9 * before_var + 0.1 * variances)
    assert norm.num_batches_tracked.item() == steps + 1


def test_sums_of_two_ranks_are_the_sums_of_one():
    one, two = (random_model(TINY_RESNET) for _ in range(2))
    images = [peers.inputs(TINY_RESNET, seed)[0] for seed in range(4)]
    with collecting(one):
        for micro_batch in images:
            one.encode_image(micro_batch)
    apply_collected(one, take_collected(one))
    sums = []
    for part in (images[:2], images[2:]):
        rank = random_model(TINY_RESNET)
        with collecting(rank):
            for micro_batch in part:
                rank.encode_image(micro_batch)
        sums.append(take_collected(rank))
    apply_collected(two, sums[0] + sums[1])
    for key, tensor in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[key], tensor)


def test_one_micro_batch_collected_is_one_step_of_torchs_batch_norm():
    ours, plain = random_model(TINY_RESNET), random_model(TINY_RESNET)
    images, _ = peers.inputs(TINY_RESNET, 0)
    with collecting(ours):
        features = ours.encode_image(images)
    apply_collected(ours, take_collected(ours))
    assert torch.equal(features, plain.encode_image(images))
    for key, tensor in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], tensor)


def test_a_second_forward_and_a_dropped_step_leave_no_trace():
    model = random_model(TINY_RESNET)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    images, _ = peers.inputs(TINY_RESNET, 0)
    with collecting(model):
        first = model.encode_image(images)
        with still(model):
            second = model.encode_image(images)
    assert torch.equal(first, second)
    assert take_collected(model)[-1] == 1
    assert take_collected(model).abs().sum() == 0
    assert equal(before, model.state_dict())


def test_a_vision_transformer_has_nothing_to_collect():
    model = random_model(TINY_VIT)
    with collecting(model):
        model.encode_image(peers.inputs(TINY_VIT, 0)[0])
    sums = take_collected(model)
    assert len(sums) == 0
    apply_collected(model, sums)


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
