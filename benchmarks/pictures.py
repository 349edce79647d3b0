"""Real photographs as a web server has them, in two sizes.

The sources are the CC0 photographs of clothes and the JPEGs of the near-duplicate collections in
../shared/data; each picture is written as its source was: with its quantisation tables, its colour
sampling, baseline or progressive (2 % are). About 500 pixels: a whole photograph, resampled. About
1,600 pixels: photographs side by side at their own resolution, since one blown up to that size
would have none of the detail whose decoding takes the time.
"""

from __future__ import annotations

import io
import random
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, JpegImagePlugin

from benchmarks.common import SHARED

ARCHIVES = ("images/clothing_cc0_300.tar", "images/near_duplicates.tar.gz")
LEAST = 240  # pixels of a source's shorter side, and the height of a row
SHAPES = ((1.0, 0.75), (1.0, 0.667), (0.75, 1.0), (0.667, 1.0))


@dataclass
class Source:
    """A photograph and how its file was written: Pillow's options."""

    picture: Image.Image
    options: dict[str, Any]


def sources() -> list[Source]:
    """Returns the real photographs, RGB."""
    found = []
    for archive in ARCHIVES:
        with tarfile.open(SHARED / archive) as tar:
            members = [m for m in tar if m.isfile() and m.name.endswith((".jpg", ".jpeg"))]
            for member in sorted(members, key=lambda m: m.name):
                file = tar.extractfile(member)
                if file is None or "corrupt" in member.name:
                    continue
                opened = Image.open(io.BytesIO(file.read()))
                if min(opened.size) < LEAST or opened.mode != "RGB":
                    continue
                options = {
                    "qtables": opened.quantization,
                    "subsampling": max(0, JpegImagePlugin.get_sampling(opened)),
                    "progressive": bool(opened.info.get("progressive")),
                }
                found.append(Source(opened.convert("RGB"), options))
    return found


def write_pictures(folder: Path, side: int, number: int, progressive: float) -> list[Path]:
    """Writes pictures whose longer side is `side` give or take 2 %; their paths.

    A share of `progressive` is made so, whatever the source was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:05d}.jpg" for index in range(number)]
    photographs = sources()
    chance = random.Random(side)
    for path in paths:
        longest = round(side * chance.uniform(0.98, 1.02))
        source = chance.choice(photographs)
        if side <= 640:
            picture = _resampled(source.picture, longest)
        else:
            picture = _side_by_side(photographs, longest, chance)
        forced = {"progressive": True} if chance.random() < progressive else {}
        picture.save(path, "JPEG", **(source.options | forced))
    return paths


def _resampled(picture: Image.Image, longest: int) -> Image.Image:
    scale = longest / max(picture.size)
    size = round(picture.width * scale), round(picture.height * scale)
    return picture.resize(size, Image.Resampling.LANCZOS)


def _side_by_side(photographs: list[Source], longest: int, chance: random.Random) -> Image.Image:
    shape = chance.choice(SHAPES)
    picture = Image.new("RGB", (round(longest * shape[0]), round(longest * shape[1])))
    for top in range(0, picture.height, LEAST):
        left = 0
        while left < picture.width:
            part = chance.choice(photographs).picture
            picture.paste(part.crop((0, 0, part.width, LEAST)), (left, top))
            left += part.width
    return picture
