"""Weights in and out: whoever wrote them, the same numbers, or an error that says why not."""

# ruff: noqa: E402 (what follows needs torch)

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="no torch in this environment")
open_clip = pytest.importorskip("open_clip", reason="no open_clip in this environment")
transformers = pytest.importorskip("transformers", reason="no transformers in this environment")

import safetensors.torch
from open_clip.model import resize_pos_embed
from safetensors import safe_open

from benchmarks import models as peers
from trainer import convert, hugging_face
from trainer.clip import CLIP, empty
from trainer.convert import WeightsError
from trainer.evaluate.weights import load_model
from trainer.zoo import MODELS, PAPER, ViTConfig
from wit.errors import UserError

VIT, RESNET = MODELS["cpu-ViT-tiny/32"], MODELS["cpu-RN-tiny"]
EXACT = replace(VIT, gelu="exact")
both = pytest.mark.parametrize("config", [VIT, EXACT, RESNET], ids=["quick", "exact", "ResNet"])


def random_model(config, seed=0) -> CLIP:
    model = empty(config)
    peers.randomise(model, seed)
    return model


def logits(config, state):
    model = empty(config)
    model.load_state_dict(state)
    return peers.our_logits(model, *peers.inputs(config, 0))


def same(first, second) -> bool:
    return list(first) == list(second) and all(torch.equal(first[k], second[k]) for k in first)


def close(first, second) -> None:
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)


@pytest.fixture
def exported(tmp_path):
    """Exports a random model of a configuration: (folder, its state)."""

    def make(config):
        state = random_model(config).state_dict()
        convert.export(str(tmp_path / "export"), state, config)
        return tmp_path / "export", state

    return make


# --- out --------------------------------------------------------------------------------------


@both
def test_open_clip_opens_an_export_and_gives_its_logits(config, exported):
    folder, state = exported(config)
    theirs = open_clip.create_model(f"local-dir:{folder}")
    close(peers.our_logits(theirs, *peers.inputs(config, 0)), logits(config, state))
    mean, std = theirs.visual.preprocess_cfg["mean"], theirs.visual.preprocess_cfg["std"]
    assert (tuple(mean), tuple(std)) == (convert.MEAN, convert.STD)


@pytest.mark.parametrize("config", [VIT, EXACT], ids=["quick", "exact"])
def test_transformers_opens_an_export_and_gives_its_logits(config, exported):
    folder, state = exported(config)
    theirs, report = transformers.CLIPModel.from_pretrained(
        folder, local_files_only=True, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    close(peers.hugging_face_logits(theirs, *peers.inputs(config, 0)), logits(config, state))
    processor = transformers.CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
    assert processor.crop_size["height"] == config.vision.resolution
    assert tuple(processor.image_mean) == convert.MEAN


@both
def test_an_export_comes_back_bit_for_bit(config, exported):
    folder, state = exported(config)
    assert same(convert.load_weights(str(folder), config), state)
    file = folder / convert.OPEN_CLIP_WEIGHTS
    assert same(convert.load_weights(str(file), config), state)
    if isinstance(config.vision, ViTConfig):
        (folder / convert.OPEN_CLIP_CONFIG).unlink()
        assert same(convert.load_weights(str(folder), config), state)


def test_equal_weights_export_equal_bytes_that_say_what_they_are(exported, tmp_path):
    folder, state = exported(EXACT)
    convert.export(str(tmp_path / "again"), dict(reversed(state.items())), EXACT)
    names = sorted(os.listdir(folder))
    assert names == sorted(os.listdir(tmp_path / "again"))
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    with safe_open(folder / convert.OPEN_CLIP_WEIGHTS, "pt") as file:
        assert file.metadata() == {"format": "pt", "gelu": "exact", "model": "cpu-ViT-tiny/32"}


def test_every_tensor_of_a_file_lies_aligned_whatever_the_order_given(tmp_path):
    state = random_model(RESNET).state_dict()
    files = [tmp_path / "one", tmp_path / "two"]
    convert.write_weights(str(files[0]), state, RESNET)
    convert.write_weights(str(files[1]), dict(reversed(state.items())), RESNET)
    data = files[0].read_bytes()
    assert data == files[1].read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert (8 + length) % 8 == 0
    for key, tensor in state.items():
        assert header[key]["data_offsets"][0] % tensor.itemsize == 0, key


def test_weights_in_half_precision_and_any_memory_format_are_exported_in_fp32(tmp_path):
    model = random_model(RESNET).to(torch.bfloat16).to(memory_format=torch.channels_last)
    convert.export(str(tmp_path), model.state_dict(), RESNET)
    expected = {
        key: tensor.float() if tensor.is_floating_point() else tensor
        for key, tensor in model.state_dict().items()
    }
    found = convert.load_weights(str(tmp_path), RESNET)
    assert same(found, expected)


def test_hugging_face_has_no_resnets(exported):
    folder, _ = exported(RESNET)
    assert not (folder / convert.HUGGING_FACE_CONFIG).exists()
    with pytest.raises(UserError, match=r"^cpu-RN-tiny: Hugging Face's CLIPModel has no ResNets"):
        hugging_face.keys_of(RESNET)


# --- in ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [VIT, EXACT], ids=["quick", "exact"])
def test_what_transformers_saves_is_imported(config, tmp_path):
    theirs = transformers.CLIPModel(transformers.CLIPConfig(**hugging_face.config(config)))
    peers.randomise(theirs, 1)
    theirs.save_pretrained(tmp_path, max_shard_size="8MB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    state = convert.load_weights(str(tmp_path), config)
    expected = peers.hugging_face_logits(theirs, *peers.inputs(config, 0))
    close(logits(config, state), expected)


@both
@pytest.mark.parametrize("form", ["checkpoint", "distributed", "state dict", "old", "safetensors"])
def test_what_open_clip_saves_is_imported(config, form, tmp_path):
    path = tmp_path / "model"
    (path_config := tmp_path / convert.OPEN_CLIP_CONFIG).write_text(
        json.dumps(convert.to_open_clip(config))
    )
    theirs = open_clip.create_model(f"local-dir:{tmp_path}")
    path_config.unlink()
    peers.randomise(theirs, 1)
    state = theirs.state_dict()
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    elif form == "distributed":
        state = {f"module.{key}": tensor for key, tensor in state.items()}
        torch.save({"epoch": 3, "state_dict": state}, path)
    elif form == "checkpoint":
        torch.save({"epoch": 3, "name": "run", "state_dict": state}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form != "old")
    found = convert.load_weights(str(path), config, gelu=config.gelu)
    close(logits(config, found), peers.our_logits(theirs, *peers.inputs(config, 0)))


def test_a_folder_of_older_open_clip_is_imported(exported):
    folder, state = exported(VIT)
    (folder / convert.OPEN_CLIP_WEIGHTS).unlink()
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    assert same(convert.load_weights(str(folder), VIT), state)


# --- OpenAI's archives ------------------------------------------------------------------------


def archive(path: Path, state) -> str:
    """A TorchScript archive with the weights in fp16, as OpenAI's; its sha256."""
    root = torch.nn.Module()
    for key, tensor in state.items():
        *folders, name = key.split(".")
        module = root
        for folder in folders:
            if folder not in dict(module.named_children()):
                module.add_module(folder, torch.nn.Module())
            module = module.get_submodule(folder)
        half = tensor.half() if tensor.is_floating_point() else tensor
        module.register_buffer(name, half)
    for name in ("input_resolution", "context_length", "vocab_size"):
        root.register_buffer(name, torch.tensor(77))
    torch.jit.script(root).save(str(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_an_archive_of_openai_is_known_by_its_sha256(tmp_path, monkeypatch):
    path, state = tmp_path / "RN.pt", random_model(RESNET).state_dict()
    sha256 = archive(path, state)
    monkeypatch.setitem(convert.OPENAI_SHA256, sha256, "cpu-RN-tiny")
    expected = {k: t.half().float() if t.is_floating_point() else t for k, t in state.items()}
    assert same(convert.load_weights(str(path), RESNET), expected)
    model, facts = load_model(str(path))  # which need not be told the model
    assert model.config == RESNET
    assert facts["gelu"] == "quick"
    assert same(model.state_dict(), expected)
    with pytest.raises(WeightsError, match="trained with the quick GELU"):
        convert.load_weights(str(path), replace(RESNET, gelu="exact"))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_another_archive_is_not_opened(tmp_path, monkeypatch):
    path = tmp_path / "RN.pt"
    archive(path, {"a": torch.zeros(1)})
    monkeypatch.setattr(torch.jit, "load", lambda *_a, **_k: pytest.fail("it was opened"))
    with pytest.raises(WeightsError, match=r"RN\.pt: none of OpenAI's nine TorchScript"):
        convert.load_weights(str(path), RESNET, gelu="quick")


def test_the_nine_archives_are_the_nine_models():
    assert list(convert.OPENAI_SHA256.values()) == [config.name for config in PAPER]


# --- 336 px from 224 px -----------------------------------------------------------------------


def test_positions_are_interpolated_as_open_clip_does(tmp_path):
    large = replace(VIT, vision=replace(VIT.vision, resolution=160))
    state = random_model(VIT).state_dict()
    convert.export(str(tmp_path), state, VIT)
    theirs = {key: tensor.clone() for key, tensor in state.items()}
    config = convert.to_open_clip(large)["model_cfg"]
    model = open_clip.model.CLIP(**config)
    resize_pos_embed(theirs, model)
    model.load_state_dict(theirs)
    for source in (tmp_path, tmp_path / convert.OPEN_CLIP_WEIGHTS):
        found = convert.load_weights(str(source), large, resize=True)
        for key in found:
            torch.testing.assert_close(found[key], theirs[key], atol=1e-6, rtol=0)
    (tmp_path / convert.OPEN_CLIP_CONFIG).unlink()
    assert same(convert.load_weights(str(tmp_path), large, resize=True), found)
    close(logits(large, found), peers.our_logits(model, *peers.inputs(large, 0)))
    with pytest.raises(WeightsError, match=r"visual\.positional_embedding is \(5, 64\), .* \(26, "):
        convert.load_weights(str(tmp_path / convert.OPEN_CLIP_WEIGHTS), large)


# --- what is refused --------------------------------------------------------------------------


def test_another_gelu_is_an_error_wherever_it_is_recorded(exported):
    folder, _ = exported(VIT)
    said = "trained with the quick GELU, cpu-ViT-tiny/32 is set to the exact one"
    file = str(folder / convert.OPEN_CLIP_WEIGHTS)
    for path in (file, str(folder)):
        with pytest.raises(WeightsError, match=said):
            convert.load_weights(path, EXACT)
    with pytest.raises(WeightsError, match=said):
        convert.from_hugging_face(str(folder), EXACT)
    with pytest.raises(WeightsError, match="trained with the exact GELU"):
        convert.load_weights(file, VIT, gelu="exact")


def test_a_file_that_records_no_gelu_asks_for_it(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(random_model(VIT).state_dict(), path)
    with pytest.raises(WeightsError, match=r"weights\.pt: does not record its GELU; say which"):
        convert.load_weights(str(path), VIT)


@pytest.mark.parametrize(
    ("name", "tower", "option", "value"),
    [
        (convert.HUGGING_FACE_CONFIG, "vision_config", "num_attention_heads", 4),
        (convert.HUGGING_FACE_CONFIG, "text_config", "layer_norm_eps", 1e-6),
        (convert.OPEN_CLIP_CONFIG, "text_cfg", "heads", 4),
        (convert.OPEN_CLIP_CONFIG, "vision_cfg", "head_width", 16),
        (convert.OPEN_CLIP_CONFIG, "text_cfg", "pool_type", "last"),
    ],
)
def test_a_setting_that_changes_numbers_and_no_shape_is_an_error(
    exported, name, tower, option, value
):
    folder, _ = exported(VIT)
    settings = json.loads((folder / name).read_text())
    settings.get("model_cfg", settings)[tower][option] = value
    (folder / name).write_text(json.dumps(settings))
    read = convert.from_open_clip
    if name == convert.HUGGING_FACE_CONFIG:
        read = convert.from_hugging_face
    with pytest.raises(WeightsError, match=rf"{name}: {tower}\.{option} is {value!r}, the model"):
        read(str(folder), VIT)


def test_every_key_and_shape_is_checked_by_name():
    state = random_model(VIT).state_dict()
    missing = {key: tensor for key, tensor in state.items() if key != "ln_final.bias"}
    with pytest.raises(WeightsError, match=r"^F: no weight ln_final\.bias \(64,\): not cpu-ViT"):
        convert.fit("F", missing, VIT)
    with pytest.raises(WeightsError, match=r"^F: other \(2,\) is no weight of cpu-ViT-tiny/32"):
        convert.fit("F", state | {"other": torch.zeros(2)}, VIT)
    wrong = state | {"visual.proj": torch.zeros(64, 32)}
    with pytest.raises(WeightsError, match=r"^F: visual\.proj is \(64, 32\), .* has \(64, 64\)"):
        convert.fit("F", wrong, VIT)
    whole = state | {"visual.proj": torch.zeros(64, 64, dtype=torch.int64)}
    with pytest.raises(WeightsError, match=r"visual\.proj is torch\.int64, .* torch\.float32"):
        convert.fit("F", whole, VIT)


def test_a_hugging_face_folder_of_another_model_is_refused_by_key(exported):
    folder, _ = exported(VIT)
    deeper = replace(VIT, vision=replace(VIT.vision, layers=3))
    with pytest.raises(WeightsError, match=r"no weight vision_model\.encoder\.layers\.2\."):
        convert.from_hugging_face(str(folder), deeper)
    shallower = replace(VIT, vision=replace(VIT.vision, layers=1))
    with pytest.raises(WeightsError, match=r"vision_model\.encoder\.layers\.1\..* is no weight of"):
        convert.from_hugging_face(str(folder), shallower)


class Command:
    """What runs a command when a careless reader unpickles it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_runs_code_is_refused_unrun(tmp_path):
    path, made = tmp_path / "weights.pt", tmp_path / "made"
    for zipped in (True, False):
        torch.save({"state_dict": Command(made)}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(WeightsError, match=r"weights\.pt: not a file of tensors alone"):
            convert.load_weights(str(path), VIT, gelu="quick")
    assert not made.exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "absent", "text", "numbers"])
def test_a_damaged_file_is_one_line_that_names_it(exported, damage):
    folder, _ = exported(VIT)
    path = folder / convert.OPEN_CLIP_WEIGHTS
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:100_000])
    elif damage == "absent":
        path = folder / "other.safetensors"
    elif damage == "numbers":
        torch.save([1, 2], path)
    else:
        path.write_text("" if damage == "empty" else "not weights at all")
    with pytest.raises(WeightsError) as caught:
        convert.load_weights(str(path), VIT, gelu="quick")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
