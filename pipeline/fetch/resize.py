"""Pictures as arrays made smaller: each output pixel is the mean of the area that it covers.

This is OpenCV's INTER_AREA, which img2dataset uses (the same but for one grey level in rare
pixels), in a third of its time. A JPEG that was decoded at a part of its size is measured in pixels
of the whole: where its sides are no multiples, the last row and column stand for less than others.

Pixels are uint8, height x width (grey) or height x width x channels; sizes are (width, height).
"""

import math

import numpy as np
from PIL import Image

from wit import kernels_loader

KERNELS = "pipeline.fetch.kernels_area"
WHITE = 255
LOBES = 4  # input pixels on each side of an output pixel that Lanczos may look at, enlarging


def load_kernels() -> None:
    """Compile what `shrink` runs, where this machine has not done so before."""
    kernels_loader.load(KERNELS)


def fit(
    pixels: np.ndarray, mode: str, size: tuple[int, int], full: tuple[int, int], part: int
) -> np.ndarray:
    """Bring to a size: by area where both sides get smaller or stay, else by Lanczos.

    `pixels`, of Pillow's `mode`, show a picture of the size `full` at 1/part of it, rounded up.
    """
    height, width = pixels.shape[:2]
    if size[0] <= width and size[1] <= height:
        return shrink(pixels, size, full, part)
    picture = Image.fromarray(pixels, mode)
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS))


def middle(pixels: np.ndarray, mode: str, size: tuple[int, int], side: int) -> np.ndarray:
    """What `crop` leaves of a picture enlarged to `size`; only that is enlarged.

    Some pixels are a few grey levels off those of `fit`, whose sums are rounded elsewhere.
    """
    cut, box = [], []
    for whole, grown in zip(pixels.shape[1::-1], size, strict=True):
        first = (grown - side) // 2
        start, end = first * whole / grown, (first + side) * whole / grown
        cut.append(slice(max(0, int(start) - LOBES), math.ceil(end) + LOBES))
        box.append((start - cut[-1].start, end - cut[-1].start))
    (left, right), (top, bottom) = box
    picture = Image.fromarray(pixels[cut[1], cut[0]], mode)
    found = picture.resize((side, side), Image.Resampling.LANCZOS, (left, top, right, bottom))
    return np.asarray(found)


def shrink(
    pixels: np.ndarray, size: tuple[int, int], full: tuple[int, int], part: int = 1
) -> np.ndarray:
    """Return the picture of the size `full`, given at 1/part of it, at a smaller size."""
    height, width = pixels.shape[:2]
    (new_width, new_height), (full_width, full_height) = size, full
    if (-(-full_width // part), -(-full_height // part)) != (width, height):
        raise ValueError(f"{width}x{height} pixels are not {full_width}x{full_height} at 1/{part}")
    if not (0 < new_width <= width and 0 < new_height <= height):
        raise ValueError(f"{width}x{height} pixels do not get smaller to {new_width}x{new_height}")
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    target = np.empty((new_height, new_width, *pixels.shape[2:]), np.uint8)
    taps = (full_width - 1) // (part * new_width) + 2
    kernels_loader.load(KERNELS)["shrink"](
        np.ascontiguousarray(pixels, np.uint8),
        width,
        channels,
        full_height,
        full_width,
        part,
        taps,
        np.empty(new_width, np.int32),
        np.empty(taps * new_width, np.float32),
        np.zeros((width + taps) * channels, np.float32),
        np.empty(channels * new_width + 1, np.float32),
        target,
        new_height,
        new_width,
    )
    return target


def pad(pixels: np.ndarray, side: int) -> np.ndarray:
    """Put on a white square; an odd pixel goes below and to the right."""
    height, width = pixels.shape[:2]
    if (height, width) == (side, side):
        return pixels
    square = np.full((side, side, *pixels.shape[2:]), WHITE, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


def crop(pixels: np.ndarray, side: int) -> np.ndarray:
    """Take a square from the middle; an odd pixel is left out below and to the right."""
    height, width = pixels.shape[:2]
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]
