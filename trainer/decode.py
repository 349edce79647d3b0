"""Pictures from a stranger's bytes: JPEG, PNG or WebP in, a square of uint8 out, or the reason.

For training (`random_crop`) the part of the picture that the crop shows is brought to its size by
one antialiased bicubic. A JPEG is decoded at 1/2, 1/4 or 1/8 of its size (DCT scaling) where that
leaves the crop as large as it is wanted. The other eighths that libjpeg-turbo offers have no vector
instructions: 3/8 takes as long as 4/8, and 5/8 to 7/8 longer than the whole. The pixels are then
about as far from a bicubic of the whole picture as a bilinear is (35 to 47 dB where the decoded
crop is hardly larger than wanted). `python -m benchmarks.decode` measures both.

For evaluation (`centre_crop`) Pillow decodes in full and resizes: open_clip's pixels, byte by byte.

As in open_clip, colours become what Pillow's `convert("RGB")` makes of them (transparency is lost,
profiles are not applied), and EXIF orientation is not looked at: our shards hold upright pictures.
The decoders and the resizing release the GIL. No torch here.
"""

import functools
import io
import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from trainer.order import GOLDEN, MASK, mix_one
from wit import kernels_loader

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 64_000_000
PARTS = (8, 4, 2)
RATIO, LEAST_AREA, TRIES = (3 / 4, 4 / 3), 0.9, 10  # of RandomResizedCrop
KERNELS = "trainer.kernels_resize"
ROWS = 4  # the kernel's unit of rows

Box = tuple[float, float, float, float]  # left, top, width, height in pixels
Place = Callable[[int, int, int, int], Box]  # (width, height, side, key) -> where the crop lies


class Unusable(Exception):
    """Ends a picture with a reason, inside this file."""


# --- where to crop ----------------------------------------------------------------------------


def uniform(key: int) -> Iterator[float]:
    """Numbers in [0, 1), one after another: splitmix64's sequence from a 64-bit key."""
    while True:
        yield (mix_one(key) >> 11) * 2.0**-53
        key = (key + GOLDEN) & MASK


def square_box(width: int, height: int, side: int, key: int) -> Box:
    """The paper's: the shorter side is resized to `side`, then a square is taken anywhere."""
    short, long = sorted((width, height))
    resized = int(side * long / short)  # as torchvision rounds it
    step = long / resized
    start, extent = int(next(uniform(key)) * (resized - side + 1)) * step, side * step
    return (start, 0, extent, height) if width > height else (0, start, width, extent)


def resized_box(
    width: int, height: int, side: int, key: int, least_area: float = LEAST_AREA
) -> Box:
    """OpenAI's code: torchvision's RandomResizedCrop of 0.9 (`least_area`) to 1 of the area."""
    draws = uniform(key)
    for _ in range(TRIES):
        area, ratio, top, left = itertools.islice(draws, 4)
        area = width * height * (least_area + area * (1 - least_area))
        ratio = math.exp(math.log(RATIO[0]) + ratio * math.log(RATIO[1] / RATIO[0]))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(left * (width - w + 1)), int(top * (height - h + 1)), w, h
    w = min(width, round(height * RATIO[1]))
    h = min(height, round(width / RATIO[0]))
    return (width - w) // 2, (height - h) // 2, w, h


def placing(crop: str, least_area: float = LEAST_AREA) -> Place:
    """Where crops lie: "square", or "resized" of at least this share of the area."""
    return square_box if crop == "square" else functools.partial(resized_box, least_area=least_area)


# --- decoding ---------------------------------------------------------------------------------


def random_crop(
    data: bytes, side: int, key: int, place: Place = square_box, out: np.ndarray | None = None
) -> np.ndarray | str:
    """A picture for training, uint8 [side, side, 3], written to `out` if given; or the reason.

    `place` says where it lies. That depends on the 64-bit `key` and the picture's size alone,
    so a key of (seed, epoch, position) gives the same on every worker.
    """
    of_size = functools.partial(place, side=side, key=key)
    try:
        pixels, box = jpeg_part(data, side, of_size) or whole(data, of_size)
    except Unusable as reason:
        return str(reason)
    return resize(pixels, box, side, out)


def centre_crop(data: bytes, side: int, out: np.ndarray | None = None) -> np.ndarray | str:
    """A picture for evaluation, uint8 [side, side, 3], written to `out` if given; or the reason.

    What open_clip's `image_transform(side, is_train=False)` makes of it before `ToTensor`.
    """
    try:
        picture = rgb(data)
        width, height = picture.size
        short = min(width, height)
        size = int(side * width / short), int(side * height / short)
        check_pixels(*size)
    except Unusable as reason:
        return str(reason)
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    out = square_array(side) if out is None else out
    out[:] = picture.crop((left, top, left + side, top + side))
    return out


def jpeg_part(
    data: bytes, side: int, place: Callable[[int, int], Box]
) -> tuple[np.ndarray, Box] | None:
    """A JPEG's pixels, uint8 [H, W, 3], perhaps at a part of its size, and the crop's box in them.

    None for what is no JPEG, or damaged, or CMYK: Pillow decides whether there is a picture.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "Gray"):
            return None
        check_pixels(width, height)
        box = place(width, height)
        enlarged = min(box[2:]) / side
        part = next((part for part in PARTS if part <= enlarged), 1)
        shape = -(-height // part), -(-width // part)
        # What is made smaller afterwards needs no smooth upsampling of the colours before.
        pixels = simplejpeg.decode_jpeg(
            data, "RGB", fastupsample=enlarged >= 1, min_height=shape[0], min_width=shape[1]
        )
    except (ValueError, LookupError):  # the latter for sampling factors that it has no name for
        return None
    if pixels.shape[:2] != shape:
        return None
    left, top, box_width, box_height = box
    return pixels, (left / part, top / part, box_width / part, box_height / part)


def whole(data: bytes, place: Callable[[int, int], Box]) -> tuple[np.ndarray, Box]:
    """Any picture's pixels, uint8 [H, W, 3], and the crop's box in them."""
    picture = rgb(data)
    return np.asarray(picture), place(*picture.size)


def rgb(data: bytes) -> Image.Image:
    """A picture as Pillow decodes it, of mode RGB; Unusable with the reason."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            check_pixels(*opened.size)
            return opened.convert("RGB")
    except Unusable:
        raise
    except UnidentifiedImageError:
        raise Unusable("no JPEG, PNG or WebP") from None
    except Image.DecompressionBombError as error:
        raise Unusable(f"too many pixels ({error})") from None
    except Exception as error:
        # Pillow's parsers raise whatever their arithmetic trips over.
        raise Unusable(f"undecodable ({type(error).__name__}: {error})") from None


def check_pixels(width: int, height: int) -> None:
    """Unusable if a picture of this size is not to be held in memory."""
    if width * height > MAX_PIXELS:
        raise Unusable(f"too many pixels ({width}x{height}, at most {MAX_PIXELS:,} are decoded)")


# --- resizing ---------------------------------------------------------------------------------


def square_array(side: int) -> np.ndarray:
    """Room for a picture, uint8 [side, side, 3]."""
    return np.empty((side, side, 3), np.uint8)


def resize(pixels: np.ndarray, box: Box, side: int, out: np.ndarray | None = None) -> np.ndarray:
    """The box of a picture (uint8 [H, W, 3]) as a square, uint8 [side, side, 3], in `out` if given.

    Pillow's `resize(..., BICUBIC, box)` but for rounding: a few grey levels at hard edges.
    """
    height, width = pixels.shape[:2]
    left, top, box_width, box_height = box
    if not (
        0 <= left < left + box_width < width + 1e-6 and 0 <= top < top + box_height < height + 1e-6
    ):
        raise ValueError(f"the box {box} is not in a picture of {width}x{height}")
    out = square_array(side) if out is None else out
    if out.shape != (side, side, 3) or out.dtype != np.uint8:
        raise ValueError(f"{out.dtype} {out.shape} is no room for {side}x{side} pixels")
    taps_x, taps_y = (int(4 * max(1, extent / side)) + 1 for extent in (box_width, box_height))
    taps_y = -(-taps_y // ROWS) * ROWS
    kernels_loader.load(KERNELS)["resize"](
        np.ascontiguousarray(pixels, np.uint8),
        height,
        width,
        np.array(box, np.float64),
        side,
        taps_y,
        taps_x,
        np.empty(side, np.int64),
        np.empty(side * taps_y, np.float32),
        np.empty(side, np.int64),
        np.empty(side * taps_x, np.float32),
        np.empty(3 * (width + taps_x) + 1, np.float32),
        np.empty(3 * side + 1, np.float32),
        out,
    )
    return out
