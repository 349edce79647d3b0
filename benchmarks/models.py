"""The nine models beside open_clip's and Hugging Face's: logits, both ways, and parameter counts.

    python -m benchmarks.models [--only RN50 ViT-B/32]

Every parameter and buffer is random (gains and running statistics too). Out: ours, random, are
exported and opened by open_clip and transformers. In: theirs, random, are saved as each of them
saves, and imported. Needs torch, open_clip and transformers; up to 12 GB of memory (RN50x64) and
as much disk as two copies of the largest model.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import open_clip
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

from trainer import convert, hugging_face
from trainer.clip import CLIP, empty
from trainer.zoo import PAPER, Model, ViTConfig

# Millions, of OpenAI's released models.
PARAMETERS = {
    "RN50": 102.0,
    "RN101": 119.7,
    "RN50x4": 178.3,
    "RN50x16": 291.0,
    "RN50x64": 623.3,
    "ViT-B/32": 151.3,
    "ViT-B/16": 149.6,
    "ViT-L/14": 427.6,
    "ViT-L/14@336px": 427.9,
}
TOLERANCE = 1e-4  # of a logit, fp32


@torch.no_grad()
def randomise(module: nn.Module, seed: int) -> None:
    """Makes every parameter and buffer random, of a size that keeps activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name.endswith("num_batches_tracked"):
            tensor.random_(1, 1000, generator=generator)
        elif name.endswith("collected"):
            tensor.zero_()  # sums of the running step, no part of a state
        elif name.endswith(("attn_mask", "position_ids")):
            continue  # constants
        elif name == "logit_scale":
            tensor.uniform_(3, 4.6, generator=generator)
        elif name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.ndim == 1 or ("embedding" in name and tensor.ndim == 2):
            tensor.normal_(std=0.3, generator=generator)
        else:
            matrix = name in ("visual.proj", "text_projection")
            fan_in = len(tensor) if matrix else tensor[0].numel()
            tensor.normal_(std=fan_in**-0.5, generator=generator)


def inputs(model: Model, seed: int, batch: int = 3) -> tuple[Tensor, Tensor]:
    """Random pictures with something large in them, and random texts of several lengths."""
    generator = torch.Generator().manual_seed(seed)
    side, context = model.vision.resolution, model.text.context
    large = torch.randn(batch, 3, 4, 4, generator=generator)
    images = F.interpolate(large, size=(side, side), mode="bilinear")
    images += 0.5 * torch.randn(batch, 3, side, side, generator=generator)
    tokens = torch.zeros(batch, context, dtype=torch.int64)
    for row, length in zip(tokens, (5, 20, context), strict=False):
        row[:length] = torch.randint(1, 49406, (length,), generator=generator)
        row[0], row[length - 1] = 49406, 49407
    return images, tokens


@torch.no_grad()
def our_logits(model: nn.Module, images: Tensor, tokens: Tensor) -> Tensor:
    """Images by texts; open_clip's models answer alike."""
    image_features, text_features, scale = model.eval()(images, tokens)[:3]
    return scale * image_features @ text_features.T


@torch.no_grad()
def hugging_face_logits(model: nn.Module, images: Tensor, tokens: Tensor) -> Tensor:
    """Images by texts."""
    return model.eval()(input_ids=tokens, pixel_values=images).logits_per_image


def open_clip_name(model: Model) -> str:
    """What open_clip calls a model of the paper, with OpenAI's GELU."""
    return model.name.replace("@336px", "-336").replace("/", "-") + "-quickgelu"


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest absolute difference of a logit."""
    return (ours - theirs).abs().max().item()


def compare_out(config: Model, folder: Path, seed: int) -> dict[str, float]:
    """Our random weights, exported: the largest differences of the logits of whoever opens them."""
    images, tokens = inputs(config, seed)
    ours = empty(config)
    randomise(ours, seed)
    convert.export(str(folder), ours.state_dict(), config)
    logits = our_logits(ours, images, tokens)
    del ours
    theirs = open_clip.create_model(f"local-dir:{folder}")
    found = {"to open_clip": largest_difference(logits, our_logits(theirs, images, tokens))}
    del theirs
    found["spread of the logits"] = logits.std().item()
    if isinstance(config.vision, ViTConfig):
        peer = transformers.CLIPModel.from_pretrained(folder, local_files_only=True)
        answer = hugging_face_logits(peer, images, tokens)
        found["to Hugging Face"] = largest_difference(logits, answer)
    return found


def compare_open_clip_in(config: Model, folder: Path, seed: int) -> float:
    """open_clip's own model, random, saved as its trainer saves: the largest difference."""
    images, tokens = inputs(config, seed)
    theirs = open_clip.create_model(open_clip_name(config))
    randomise(theirs, seed)
    path = folder / "epoch_1.pt"
    torch.save({"epoch": 1, "name": "run", "state_dict": theirs.state_dict()}, path)
    logits = our_logits(theirs, images, tokens)
    del theirs
    ours = empty(config)
    ours.load_state_dict(convert.load_weights(str(path), config, gelu="quick"))
    return largest_difference(our_logits(ours, images, tokens), logits)


def compare_hugging_face_in(config: Model, folder: Path, seed: int) -> float:
    """Hugging Face's own model, random, saved as it saves: the largest difference."""
    images, tokens = inputs(config, seed)
    settings = transformers.CLIPConfig(**hugging_face.config(config))
    theirs = transformers.CLIPModel(settings)
    randomise(theirs, seed)
    theirs.save_pretrained(folder)
    logits = hugging_face_logits(theirs, images, tokens)
    del theirs
    ours = empty(config)
    ours.load_state_dict(convert.load_weights(str(folder), config))
    return largest_difference(our_logits(ours, images, tokens), logits)


def compare(config: Model, seed: int = 0) -> dict[str, object]:
    """One model: parameters in millions, and the largest difference of a logit each way."""
    start = time.monotonic()
    with torch.device("meta"):
        count = sum(p.numel() for p in CLIP(config).parameters()) / 1e6
    result: dict[str, object] = {"model": config.name, "parameters M": round(count, 1)}
    result["published M"] = PARAMETERS[config.name]
    ways = {}
    with tempfile.TemporaryDirectory() as folder:
        ways |= compare_out(config, Path(folder), seed + 1)
    with tempfile.TemporaryDirectory() as folder:
        ways["from open_clip"] = compare_open_clip_in(config, Path(folder), seed + 2)
    if isinstance(config.vision, ViTConfig):
        with tempfile.TemporaryDirectory() as folder:
            ways["from Hugging Face"] = compare_hugging_face_in(config, Path(folder), seed + 3)
    spread = ways.pop("spread of the logits")
    result |= {"largest difference of a logit": ways, "spread of the logits": spread}
    result["equal"] = count_agrees(result) and max(ways.values()) <= TOLERANCE
    return result | {"seconds": round(time.monotonic() - start)}


def count_agrees(result: dict[str, object]) -> bool:
    """Whether the number of parameters is the published one."""
    return result["parameters M"] == result["published M"]


def main() -> None:
    """Compares the models and prints JSON; exit code 1 where one is not equal."""
    names = [config.name for config in PAPER]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    chosen = set(parser.parse_args().only)
    versions = {"torch": torch.__version__, "open_clip": open_clip.__version__}
    versions["transformers"] = transformers.__version__
    results = []
    for config in PAPER:
        if config.name in chosen:
            print(f"{config.name} ...", file=sys.stderr, flush=True)
            results.append(compare(config))
    print(json.dumps({"versions": versions, "models": results}, indent=1))
    sys.exit(0 if all(result["equal"] for result in results) else 1)


if __name__ == "__main__":
    main()
