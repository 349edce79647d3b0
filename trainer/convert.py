"""Weights in and out: OpenAI's archives, open_clip, Hugging Face, and our own files.

A state is a dict of tensors with OpenAI's keys, floats in fp32, every key and shape asserted. The
kind of GELU travels with the weights and is checked: quick for exact changes no shape, and no
error would say so. Paths are local or anything fsspec reaches.
"""

import hashlib
import io
import json
import pickle
import warnings
import zipfile
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from trainer import hugging_face
from trainer.clip import CLIP
from trainer.zoo import MEAN, STD, Gelu, Model, ViTConfig
from wit import storage
from wit.errors import UserError

State = dict[str, Tensor]

# Of the archives that OpenAI published, as their addresses in openai/CLIP, clip/clip.py say.
OPENAI_SHA256 = {
    "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762": "RN50",
    "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599": "RN101",
    "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd": "RN50x4",
    "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa": "RN50x16",
    "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c": "RN50x64",
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af": "ViT-B/32",
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f": "ViT-B/16",
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836": "ViT-L/14",
    "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02": "ViT-L/14@336px",
}
SAFETENSORS_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.int64: "I64"}
OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")
OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
OPEN_CLIP_OLD_WEIGHTS = "open_clip_pytorch_model.bin"
HUGGING_FACE_CONFIG, HUGGING_FACE_WEIGHTS = "config.json", "model.safetensors"


class WeightsError(UserError):
    """Weights that are not what the model needs, or that are not safe to open."""


# --- reading ----------------------------------------------------------------------------------


def load_weights(path: str, model: Model, gelu: Gelu | None = None, resize: bool = False) -> State:
    """The weights of a file or folder for `model`, whoever wrote them.

    A folder is one of `export`, open_clip or Hugging Face. A file is safetensors, one of OpenAI's
    nine TorchScript archives, or a state dict of `torch.save` (open_clip's checkpoints too). Where
    nothing records the GELU, `gelu` has to say it. `resize` interpolates a vision transformer's
    positions to the model's resolution. Raises WeightsError.
    """
    if gelu is not None:
        check_gelu(path, gelu, model)
    if storage.is_folder(path):
        if OPEN_CLIP_CONFIG in storage.list_names(path):
            return from_open_clip(path, model, resize)
        return from_hugging_face(path, model, resize)
    state, recorded = read_file(path)
    if recorded is None and gelu is None:
        raise WeightsError(
            f"{path}: does not record its GELU; say which it was trained with: quick (OpenAI's) "
            "or exact"
        )
    if recorded is not None:
        check_gelu(path, recorded, model)
    return fit(path, state, model, resize)


def from_open_clip(folder: str, model: Model, resize: bool = False) -> State:
    """The weights of a folder that open_clip loads as `local-dir:`. Raises WeightsError.

    What in its configuration changes the numbers and perhaps no shape is compared too.
    """
    path = storage.join(folder, OPEN_CLIP_CONFIG)
    theirs, ours = storage.read_json(path).get("model_cfg", {}), to_open_clip(model)["model_cfg"]
    check_gelu(path, "quick" if theirs.get("quick_gelu", False) else "exact", model)
    for tower, default in (("vision_cfg", {"head_width": 64}), ("text_cfg", {"heads": 8})):
        for option, value in (default | theirs.get(tower, {})).items():
            if option == "image_size" and resize:
                continue
            check_option(path, f"{tower}.{option}", value, ours[tower].get(option))
    weights = storage.join(folder, OPEN_CLIP_WEIGHTS)
    if not storage.exists(weights):
        weights = storage.join(folder, OPEN_CLIP_OLD_WEIGHTS)
    state, recorded = read_file(weights)
    if recorded is not None:
        check_gelu(weights, recorded, model)
    return fit(weights, state, model, resize)


def from_hugging_face(folder: str, model: Model, resize: bool = False) -> State:
    """The weights of a folder that CLIPModel.save_pretrained wrote. Raises WeightsError.

    What in its configuration changes the numbers and no shape is compared too.
    """
    keys, ours = hugging_face.keys_of(model), hugging_face.config(model)
    path = storage.join(folder, HUGGING_FACE_CONFIG)
    config = storage.read_json(path)
    gelus = {theirs: gelu for gelu, theirs in hugging_face.GELU.items()}
    for tower, defaults in hugging_face.DEFAULTS.items():
        said = defaults | (config.get(tower) or {})
        check_gelu(path, gelus.get(said["hidden_act"], said["hidden_act"]), model)
        for option in defaults:
            check_option(path, f"{tower}.{option}", said[option], ours[tower][option])
    theirs = read_hugging_face(folder)
    state: State = {}
    for key, parts in keys.items():
        missing = [part for part in parts if part not in theirs]
        if missing:
            raise WeightsError(f"{folder}: no weight {missing[0]} (our {key}): not {model.name}")
        pieces = [theirs.pop(part) for part in parts]
        whole = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
        state[key] = whole.T if key in hugging_face.TRANSPOSED else whole
    # What is left is an error of `fit`, but for constants that older versions wrote.
    state |= {k: t for k, t in theirs.items() if not k.endswith("embeddings.position_ids")}
    return fit(folder, state, model, resize)


def read_hugging_face(folder: str) -> State:
    """The tensors of `model.safetensors`, or of the files that its index lists."""
    index = storage.join(folder, f"{HUGGING_FACE_WEIGHTS}.index.json")
    if not storage.exists(index):
        return read_file(storage.join(folder, HUGGING_FACE_WEIGHTS))[0]
    state: State = {}
    for name in sorted(set(storage.read_json(index)["weight_map"].values())):
        state |= read_file(storage.join(folder, name))[0]
    return state


def read_file(path: str) -> tuple[State, Gelu | None]:
    """(state as it stands in a file, its GELU where recorded); nothing in it is executed, but for
    the archives whose sha256 is known. Raises WeightsError.
    """
    data = read_bytes(path)
    if data[8:9] == b"{":
        return read_safetensors(path, data)
    if is_torchscript(data):
        return read_torchscript(path, data)[1], "quick"
    return read_pickled(path, data), None


def read_bytes(path: str) -> bytes:
    """A whole file; one that is absent is a WeightsError."""
    try:
        return storage.read_bytes(path)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file of weights; check the path") from error


def read_safetensors(path: str, data: bytes) -> tuple[State, Gelu | None]:
    """A safetensors file: its tensors, and the GELU of its metadata."""
    try:
        state = safetensors.torch.load(data)
    except (SafetensorError, KeyError) as error:
        raise WeightsError(
            f"{path}: not readable as safetensors ({error}); copy or export it again"
        ) from error
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return state, header.get("__metadata__", {}).get("gelu")


def is_torchscript(data: bytes) -> bool:
    """Whether a file is a TorchScript archive; `torch.save` writes no constants."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def read_pickled(path: str, data: bytes) -> State:
    """A state dict of `torch.save`, alone or as the `state_dict` of a checkpoint, through torch's
    restricted unpickler.
    """
    try:
        value = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        said = " ".join(str(error).split())[:120]
        raise WeightsError(
            f"{path}: not a file of tensors alone ({said}); save its state dict as safetensors"
        ) from error
    if isinstance(value, dict):
        value = value.get("state_dict", value)
    named = isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if not named or not all(isinstance(tensor, Tensor) for tensor in value.values()):
        raise WeightsError(f"{path}: holds no state dict; save model.state_dict()")
    if all(key.startswith("module.") for key in value):  # written from within DDP
        value = {key.removeprefix("module."): tensor for key, tensor in value.items()}
    return value


def read_torchscript(path: str, data: bytes) -> tuple[str, State]:
    """(name of the model, its state) of one of OpenAI's archives, known by its sha256.

    A TorchScript archive is a program: no other is opened.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 not in OPENAI_SHA256:
        raise WeightsError(
            f"{path}: none of OpenAI's nine TorchScript archives (sha256 {sha256}); download it "
            "again, or convert it to safetensors where you trust it"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.load(io.BytesIO(data), map_location="cpu").state_dict()
    state = {key: t.clone() for key, t in scripted.items() if key not in OPENAI_EXTRAS}
    return OPENAI_SHA256[sha256], state


# --- checking ---------------------------------------------------------------------------------


def check_gelu(path: str, recorded: str, model: Model) -> None:
    """Raises WeightsError where the weights were trained with another GELU than the model's."""
    if recorded != model.gelu:
        raise WeightsError(
            f"{path}: trained with the {recorded} GELU, {model.name} is set to the {model.gelu} "
            f"one; set its GELU to {recorded}"
        )


def check_option(path: str, option: str, theirs: Any, ours: Any) -> None:
    """Raises WeightsError where a configuration says other than the model."""
    if theirs != ours:
        raise WeightsError(f"{path}: {option} is {theirs!r}, the model here has {ours!r}")


def expected_state(model: Model) -> State:
    """The model's state dict without memory behind it: keys, shapes and types."""
    with torch.device("meta"):
        return CLIP(model).state_dict()


def fit(path: str, state: State, model: Model, resize: bool = False) -> State:
    """The state, checked against the model; floats in fp32, contiguous, in the model's order.

    Raises WeightsError that names the key and both shapes.
    """
    expected = expected_state(model)
    counters = [key for key in expected if key.endswith("num_batches_tracked")]
    # Files of the first torch versions have none, and torch too begins at 0 then.
    state = {key: torch.zeros((), dtype=torch.int64) for key in counters} | state
    if resize:
        state = resize_positions(state, model)
    for key, wanted in expected.items():
        shape = tuple(wanted.shape)
        if key not in state:
            raise WeightsError(f"{path}: no weight {key} {shape}: not {model.name}")
        found = state[key]
        if found.shape != wanted.shape:
            raise WeightsError(f"{path}: {key} is {tuple(found.shape)}, {model.name} has {shape}")
        if found.is_floating_point() != wanted.is_floating_point():
            raise WeightsError(f"{path}: {key} is {found.dtype}, {model.name} has {wanted.dtype}")
    extra = [key for key in state if key not in expected]
    if extra:
        shape = tuple(state[extra[0]].shape)
        raise WeightsError(f"{path}: {extra[0]} {shape} is no weight of {model.name}")
    return {key: state[key].to(wanted.dtype).contiguous() for key, wanted in expected.items()}


def resize_positions(state: State, model: Model) -> State:
    """A state whose grid of visual positions has the model's size, as 336 px from 224 px.

    Bicubic and antialiased, the class token's left alone: open_clip's numbers. A ResNet's state,
    and one that fits already, pass unchanged.
    """
    key = "visual.positional_embedding"
    if not isinstance(model.vision, ViTConfig) or key not in state:
        return state
    old, grid = state[key].float(), model.vision.resolution // model.vision.patch
    old_grid = round((len(old) - 1) ** 0.5)
    if old_grid == grid or old_grid**2 + 1 != len(old):
        return state
    image = old[1:].reshape(1, old_grid, old_grid, -1).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=(grid, grid), mode="bicubic", antialias=True)
    return state | {key: torch.cat([old[:1], image[0].flatten(1).T])}


# --- writing ----------------------------------------------------------------------------------


def export(folder: str, state: State, model: Model) -> None:
    """Writes a folder that open_clip (`local-dir:FOLDER`), transformers' CLIPModel (vision
    transformers) and `load_weights` open without a network. Raises WeightsError.

    `open_clip_model.safetensors` has OpenAI's keys, `model.safetensors` Hugging Face's.
    """
    state = fit(folder, {key: tensor.detach().cpu() for key, tensor in state.items()}, model)
    write_weights(storage.join(folder, OPEN_CLIP_WEIGHTS), state, model)
    storage.write_json(storage.join(folder, OPEN_CLIP_CONFIG), to_open_clip(model))
    if isinstance(model.vision, ViTConfig):
        theirs = hugging_face.to_theirs(state, model)
        write_weights(storage.join(folder, HUGGING_FACE_WEIGHTS), theirs, model)
        processor = storage.join(folder, "preprocessor_config.json")
        storage.write_json(processor, hugging_face.processor(model.vision))
        for name, value in hugging_face.tokenizer(model.text).items():
            data = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            storage.write_bytes(storage.join(folder, name), data.encode())
        storage.write_json(storage.join(folder, HUGGING_FACE_CONFIG), hugging_face.config(model))


def write_weights(path: str, state: State, model: Model) -> None:
    """Writes a state dict as safetensors whose metadata record the model's name and GELU.

    Equal weights give equal bytes: the library itself would write metadata in any order, and hold
    the file in memory.
    """
    header: dict[str, Any] = {
        "__metadata__": {"format": "pt", "gelu": model.gelu, "model": model.name}
    }
    # The widest type first, so that every tensor lies aligned.
    keys, end = sorted(state, key=lambda key: (-state[key].itemsize, key)), 0
    for key in keys:
        start, end = end, end + state[key].nbytes
        dtype = SAFETENSORS_TYPES[state[key].dtype]
        shape = list(state[key].shape)
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with storage.open_write(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key in keys:
            file.write(state[key].contiguous().numpy().data)


def to_open_clip(model: Model) -> dict[str, Any]:
    """What stands in `open_clip_config.json`; open_clip's keys are OpenAI's."""
    vision, text = model.vision, model.text
    if isinstance(vision, ViTConfig):
        tower = {"layers": vision.layers, "patch_size": vision.patch}
        head_width = vision.width // vision.heads
    else:
        tower = {"layers": list(vision.layers), "patch_size": None}
        head_width = 32 * vision.width // vision.heads
    tower |= {"image_size": vision.resolution, "width": vision.width, "head_width": head_width}
    return {
        "model_cfg": {
            "embed_dim": model.embed,
            "quick_gelu": model.gelu == "quick",
            "vision_cfg": tower,
            "text_cfg": {
                "context_length": text.context,
                "vocab_size": text.vocabulary,
                "width": text.width,
                "heads": text.heads,
                "layers": text.layers,
            },
        },
        "preprocess_cfg": {"mean": list(MEAN), "std": list(STD), "interpolation": "bicubic"},
    }
