"""JPEG by libjpeg-turbo (simplejpeg): decoded in half of Pillow's time, at a part of its size.

Decodes only what it has nothing to object to: damage, an unusual sampling or a header that Pillow
reads otherwise are left to Pillow, which decides whether there is a picture.
"""

import numpy as np
import simplejpeg

DCT_MARGIN = 1.5  # the size decoded to, in sizes wanted, is at least this
PARTS = (8, 4, 2)
COLOURS = {"RGB": ("RGB", "420"), "L": ("GRAY", "Gray")}  # mode -> names of simplejpeg


def part_of(full: tuple[int, int], wanted: tuple[int, int] | None) -> int:
    """How many times smaller (1, 2, 4, 8) a picture that is to be made smaller may be decoded."""
    if wanted is None:
        return 1
    least = min(side / (DCT_MARGIN * small) for side, small in zip(full, wanted, strict=True))
    return next((part for part in PARTS if part <= least), 1)


def decode(data: bytes, full: tuple[int, int], mode: str, part: int) -> np.ndarray | None:
    """Pixels (uint8, height x width, x 3 if RGB) at 1/part of the size, rounded up.

    `full` is the size (width, height) and `mode` RGB or L, as Pillow read them. None where only
    Pillow can tell what this is.
    """
    width, height = full
    try:
        # The number of pixels was checked for this size, so no other may be decoded.
        if simplejpeg.decode_jpeg_header(data)[:2] != (height, width):
            return None
        least = {"min_width": -(-width // part), "min_height": -(-height // part)}
        pixels = simplejpeg.decode_jpeg(data, COLOURS[mode][0], **least)
    except (ValueError, LookupError):  # the latter for sampling factors that it has no name for
        return None
    if pixels.shape[:2] != (least["min_height"], least["min_width"]):
        return None
    return pixels if mode == "RGB" else pixels[:, :, 0]


def encode(pixels: np.ndarray, quality: int) -> bytes:
    """A baseline JPEG of RGB (4:2:0) or grey pixels; ValueError where it cannot hold them."""
    colours, sampling = COLOURS["RGB" if pixels.ndim == 3 else "L"]
    pixels = np.ascontiguousarray(pixels if pixels.ndim == 3 else pixels[:, :, None])
    return simplejpeg.encode_jpeg(pixels, quality, colours, sampling)
