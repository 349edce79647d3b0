"""Decoding for training beside open_clip's: `python -m benchmarks.decode`.

JPEGs of quality 95, as img2dataset stores them, of the sizes that shards have; 224 pixels wanted;
one core. Theirs is what open_clip does with a sample of a WebDataset: Pillow decodes, `convert`,
then its train transform (RandomResizedCrop by bicubic, ToTensor, Normalize). Ours ends at uint8:
the bytes go to the device as they are and are normalised there, so `without ToTensor` leaves these
two out of theirs. `parts` says where the time goes, in milliseconds a picture.

The photographs: UKBench's and PDQ's of ../shared/data, brought to the size; and, because these are
few, clothes enlarged from 400 pixels, which take fewer bytes. At 400x300 the clothes as they are.

`eighths` is the measurement behind `trainer.decode.PARTS`: milliseconds to decode at n/8 of the
size. `dB` is how far pixels are from Pillow's bicubic of the whole picture: ours, and a bilinear's.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from benchmarks.common import SHARED, one_core, take_turns
from trainer import decode
from trainer.order import mix

SIDE = 224
QUALITY = 95
CLOTHES = 40
SIZES = {"512x384": 512, "640x480": 640}  # the longer side
ALIKE = ("bridge-mods", "dih", "modes")  # one photograph many times


def corpora() -> dict[str, list[bytes]]:
    """JPEGs by what they are."""
    with tarfile.open(SHARED / "images/clothing_cc0_300.tar") as archive:
        clothes = [archive.extractfile(m).read() for m in archive if m.name.endswith(".jpg")]
    with tarfile.open(SHARED / "images/near_duplicates.tar.gz") as archive:
        photographs = {
            archive.extractfile(member).read(): None
            for member in archive
            if member.name.endswith(".jpg")
            and "corrupt" not in member.name
            and Path(member.name).parent.name not in ALIKE
        }
    opened = [Image.open(io.BytesIO(data)).convert("RGB") for data in photographs]
    opened = [picture for picture in opened if max(picture.size) >= max(SIZES.values())]
    small = [data for data in clothes if sorted(size_of(data)) == [300, 400]][:CLOTHES]
    found = {"clothes, 400x300": small}
    for name, longer in SIZES.items():
        found[f"photographs, {name}"] = [jpeg(picture, longer) for picture in opened]
        enlarged = [Image.open(io.BytesIO(data)) for data in small]
        found[f"clothes enlarged, {name}"] = [jpeg(picture, longer) for picture in enlarged]
    return found


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height."""
    return Image.open(io.BytesIO(data)).size


def jpeg(picture: Image.Image, longer: int) -> bytes:
    """A picture stored with its longer side of a length."""
    scale = longer / max(picture.size)
    size = round(picture.width * scale), round(picture.height * scale)
    stored = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(stored, "JPEG", quality=QUALITY)
    return stored.getvalue()


def measure(pictures: list[bytes], rounds: int) -> dict[str, Any]:
    """Ours and open_clip's on some JPEGs."""
    from open_clip.transform import image_transform

    transform = image_transform(SIDE, is_train=True)
    crop, to_tensor = transform.transforms[0], transform.transforms[2:]
    keys = mix(np.arange(len(pictures), dtype=np.uint64)).tolist()
    out = np.empty((SIDE, SIDE, 3), np.uint8)

    def opened(data: bytes) -> Image.Image:
        return Image.open(io.BytesIO(data)).convert("RGB")

    whole = list(map(opened, pictures))
    cropped = list(map(crop, whole))
    parts = [
        decode.jpeg_part(data, SIDE, lambda w, h, key=key: decode.square_box(w, h, SIDE, key))
        for data, key in zip(pictures, keys, strict=True)
    ]

    def tensors() -> None:
        for picture in cropped:
            tensor = to_tensor[0](picture)
            to_tensor[1](tensor)

    def ours(crop: str) -> None:
        for data, key in zip(pictures, keys, strict=True):
            decode.random_crop(data, SIDE, key, decode.placing(crop), out)

    seconds = take_turns(
        {
            "ours": lambda: ours("square"),
            "ours, resized crop": lambda: ours("resized"),
            "open_clip": lambda: [transform(opened(data)) for data in pictures],
            "ours: resize": lambda: [decode.resize(*part, SIDE, out) for part in parts],
            "open_clip: decode": lambda: list(map(opened, pictures)),
            "open_clip: crop and resize": lambda: list(map(crop, whole)),
            "open_clip: ToTensor, Normalize": tensors,
            "evaluation": lambda: [decode.centre_crop(data, SIDE) for data in pictures],
        },
        rounds,
    )
    each = {name: 1000 * value / len(pictures) for name, value in seconds.items()}
    whole_time = each["open_clip"]
    return {
        "pictures": len(pictures),
        "KB each": statistics.mean(map(len, pictures)) / 1000,
        "decoded at 1/": sorted({round(w / part[0].shape[1]) for (w, _), part in zip(
            map(size_of, pictures), parts, strict=True)}),
        "ms": each,
        "pictures/s": {name: 1000 / each[name] for name in ("ours", "open_clip", "evaluation")},
        "times as fast": whole_time / each["ours"],
        "without ToTensor": (whole_time - each["open_clip: ToTensor, Normalize"]) / each["ours"],
    }  # fmt: skip


def eighths(pictures: list[bytes], rounds: int) -> dict[str, float]:
    """Milliseconds to decode a picture at n/8 of its size."""

    def at(part: int) -> None:
        for data in pictures:
            width, height = size_of(data)
            least = {"min_width": -(-width * part // 8), "min_height": -(-height * part // 8)}
            simplejpeg.decode_jpeg(data, "RGB", **least)

    seconds = take_turns({f"{n}/8": lambda n=n: at(n) for n in range(1, 9)}, rounds)
    return {name: 1000 * value / len(pictures) for name, value in seconds.items()}


def nearness(pictures: list[bytes]) -> dict[str, float]:
    """Mean dB of ours and of a bilinear, against Pillow's bicubic of the whole picture."""
    found: dict[str, list[float]] = {"ours": [], "bilinear": []}
    for data in pictures:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        left, top, width, height = decode.square_box(*picture.size, SIDE, 0)
        box = (left, top, left + width, top + height)
        bicubic, bilinear = (
            np.asarray(picture.resize((SIDE, SIDE), kernel, box)).astype(float)
            for kernel in (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR)
        )
        ours = decode.random_crop(data, SIDE, 0)
        for name, pixels in (("ours", ours), ("bilinear", bilinear)):
            found[name].append(10 * np.log10(255**2 / ((pixels - bicubic) ** 2).mean()))
    return {name: statistics.mean(values) for name, values in found.items()}


def rows(measured: dict[str, dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """The README's rows: what, measured, beside it, times."""
    return [
        (
            f"decoding and cropping JPEGs ({name}, {found['KB each']:.0f} KB) to {SIDE}, one core",
            f"{found['pictures/s']['ours']:,.0f} pictures/s",
            f"open_clip's transform: {found['pictures/s']['open_clip']:,.0f} pictures/s",
            f"{found['times as fast']:.1f}",
        )
        for name, found in measured.items()
    ]


def main() -> None:
    """Prints the figures as JSON."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    one_core()
    torch.set_num_threads(1)
    found = corpora()
    measured = {name: measure(pictures, options.rounds) for name, pictures in found.items()}
    largest = found["photographs, 640x480"]
    result = {
        "decode": measured,
        "eighths": eighths(largest, options.rounds),
        "dB": {name: nearness(pictures) for name, pictures in found.items()},
        "rows": rows(measured),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
