"""One picture: bytes from a stranger in, bytes for the dataset out, or the reason why not.

Pillow reads all headers and decodes all formats; of a JPEG in grey or colour the pixels come from
libjpeg-turbo (`pipeline.fetch.jpeg`), unless that finds a fault. A JPEG is decoded at 1/2, 1/4 or
1/8 of its size where that leaves at least 1.5 times the size wanted (DCT scaling). Downscaling is
by area, as img2dataset's (`pipeline.fetch.resize`), upscaling Lanczos. Sizes, padding and cropping
are img2dataset's to the pixel.

EXIF orientation is applied; sizes are those of the upright picture. Colours are brought to sRGB
from an embedded ICC profile; CMYK, palettes and 16 bit become 8-bit RGB or grey; transparency is
matted on white (`pipeline.fetch.colours`). Of animations the first frame counts. The result carries
no metadata: it is encoded anew, or stripped losslessly where the original bytes are kept. The
perceptual hash (`pipeline.fetch.phash`) is that of the upright picture, not padded and not cropped.

`decode_resize` is a pure function of its arguments. It trusts nothing, but native code can still
crash or hang on hostile bytes: `pipeline.fetch.pool` runs it in a process of its own.
"""

import hashlib
import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, features

from pipeline.fetch import colours, exif, jpeg, phash, resize
from pipeline.fetch.formats import DECODED, sniff, strip, webp_size
from pipeline.fetch.policy import FetchPolicy
from wit.errors import UserError
from wit.outcomes import SUCCESS

THIN = 16  # sides of the square that is cut out
SAVE = {"png": "PNG", "webp": "WEBP"}
ANIMATED = ("gif", "webp", "png", "avif")  # the pages of a TIFF, the views of a JPEG are no motion
# Of a damaged one libtiff leaves rows as they lay in memory, and says nothing.
FAX = ("tiff_ccitt", "group3", "group4")
STORED = {"jpg": "jpeg", "png": "png", "webp": "webp"}  # extension -> name in formats.DECODED
UPRIGHT = {  # EXIF orientation -> rows and columns as they are to be seen
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
    7: lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1],
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}


@dataclass(slots=True)
class Decoded:
    """What became of a picture.

    `image`, `phash` and what describes the stored picture are set where `outcome` is success;
    `animated` (the file has a second frame) wherever there were pixels.
    """

    outcome: str
    message: str | None = None
    image: bytes | None = None
    extension: str = ""
    width: int | None = None
    height: int | None = None
    original_width: int | None = None
    original_height: int | None = None
    exif: str | None = None
    sha256: str | None = None
    phash: int | None = None
    animated: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """All fields but the bytes."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "image"}


class _Rejected(Exception):
    """Ends a picture with an outcome, inside this file."""

    def __init__(self, outcome: str, message: str | None = None):
        super().__init__(outcome)
        self.outcome = outcome
        self.message = message


def check_codecs() -> None:
    """Raise UserError if the libraries here cannot decode what is promised.

    Called before the first picture: otherwise a bad installation would look like bad pictures.
    """
    for name in ("jpg", "zlib", "webp", "avif", "libtiff", "littlecms2"):
        if not features.check(name):
            raise UserError(
                f"this Pillow is built without {name}: install pillow>=12.1 from a wheel"
            )
    stored, size = io.BytesIO(), (600, 400)
    Image.new("RGB", size).save(stored, "JPEG")
    if jpeg.decode(stored.getvalue(), size, "RGB", 1) is None:
        raise UserError("simplejpeg cannot decode a JPEG that Pillow wrote: install it again")
    policy = FetchPolicy("test (test@localhost)")
    if decode_resize(stored.getvalue(), policy).outcome != SUCCESS:
        raise UserError("this Pillow cannot decode a JPEG that it wrote: install it again")


def decode_resize(data: bytes, policy: FetchPolicy) -> Decoded:
    """Decode, resize and encode one picture; never raises for what the bytes hold."""
    result = Decoded("undecodable")
    try:
        _decode_resize(data, policy, result)
        result.outcome = SUCCESS
    except _Rejected as rejected:
        result.outcome, result.message = rejected.outcome, rejected.message
    except Image.DecompressionBombError:
        result.outcome = "too_many_pixels"
    except MemoryError:
        result.outcome = "decoder_out_of_memory"
    except Exception as error:
        # Pillow's parsers raise whatever their arithmetic trips over.
        result.message = _clean(f"{type(error).__name__}: {error}")
    return result


def _decode_resize(data: bytes, policy: FetchPolicy, result: Decoded) -> None:
    name = sniff(data)
    if name not in DECODED:
        raise _Rejected("unsupported_format", name)
    if name == "webp" and (size := webp_size(data)):
        _check_pixels(*size, policy)
    with Image.open(io.BytesIO(data), formats=(DECODED[name],)) as opened:
        _check_pixels(*opened.size, policy)
        if opened.info.get("compression") in FAX:
            raise _Rejected("unsupported_format", "tiff (fax)")
        tags = exif.read(opened)
        turn = exif.orientation(tags)
        upright = opened.size[::-1] if turn > 4 else opened.size
        result.original_width, result.original_height = upright
        _check_shape(upright, policy)
        size = target_size(*upright, policy)
        if size:  # a very thin picture can grow beyond all bounds
            _check_pixels(*size, policy)
        wanted = size[::-1] if size and turn > 4 else size  # as the pixels are stored
        pixels, mode, full, part = _load(data, opened, name, wanted)
        if name == "tiff":  # Pillow turns these itself
            turn, wanted = 1, size
        profile = opened.info.get("icc_profile")
        plain = opened.mode in ("RGB", "L", "P", "1") and "transparency" not in opened.info
        result.animated = name in ANIMATED and _has_second_frame(opened)  # it may leave the first
    foreign = colours.is_foreign(profile, mode)
    result.exif = exif.as_json(tags)

    unchanged = size is None and turn == 1 and plain and not foreign
    if policy.skip_reencode and unchanged and name == STORED[policy.encode_format]:
        whole = name == "webp" and result.animated  # its first frame does not stand alone
        kept = None if whole else strip(data, name)
        if kept is not None:
            _store(result, kept, upright, phash.of_picture(pixels), policy)
            return
    profile = profile if foreign else None
    if size and policy.resize_mode == "center_crop" and _is_thin(upright, size, policy):
        pixels = UPRIGHT[turn](pixels)
        hashed = phash.of_picture(colours.to_rgb(pixels, mode, profile))
        pixels = colours.to_rgb(resize.middle(pixels, mode, size, policy.image_size), mode, profile)
        _store(result, _encode(pixels, policy), pixels.shape[1::-1], hashed, policy)
        return
    if wanted:
        pixels = resize.fit(pixels, mode, wanted, full, part)
    pixels = UPRIGHT[turn](colours.to_rgb(pixels, mode, profile))
    hashed = phash.of_picture(pixels)
    if size and policy.resize_mode == "border":
        pixels = resize.pad(pixels, policy.image_size)
    elif size and policy.resize_mode == "center_crop":
        pixels = resize.crop(pixels, policy.image_size)
    _store(result, _encode(pixels, policy), pixels.shape[1::-1], hashed, policy)


def _is_thin(upright: tuple[int, int], size: tuple[int, int], policy: FetchPolicy) -> bool:
    """Whether a picture that is enlarged would become far larger than the square cut out of it."""
    return min(upright) < policy.image_size and max(size) > THIN * policy.image_size


def _has_second_frame(opened: Image.Image) -> bool:
    """Whether another frame begins after the first; none is decoded."""
    try:
        return opened.is_animated
    except Exception:  # the parser tripped over what follows the first frame
        return False


def _load(
    data: bytes, opened: Image.Image, name: str, wanted: tuple[int, int] | None
) -> tuple[np.ndarray, str, tuple[int, int], int]:
    """Pixels, their mode (L, RGB, CMYK), the size that they show, and at which part of it."""
    part, full = 1, opened.size
    if name == "jpeg":
        part = jpeg.part_of(full, wanted)
        if opened.mode in jpeg.COLOURS:
            pixels = jpeg.decode(data, full, opened.mode, part)
            if pixels is not None:
                return pixels, opened.mode, full, part
        opened.draft(opened.mode, (full[0] // part, full[1] // part))
    picture = colours.flatten(opened)
    return np.asarray(picture), picture.mode, full if name == "jpeg" else picture.size, part


# --- sizes ------------------------------------------------------------------------------------


def target_size(width: int, height: int, policy: FetchPolicy) -> tuple[int, int] | None:
    """Size to resize to, before padding or cropping; None where the picture stays as it is.

    The arithmetic of img2dataset with albumentations 1.4: scale by the longer (border,
    keep_ratio_largest) or the shorter side, round half to even, at least one pixel.
    """
    if policy.resize_mode == "no":
        return None
    longest = policy.resize_mode in ("border", "keep_ratio_largest")
    side = max(width, height) if longest else min(width, height)
    if policy.resize_only_if_bigger and side <= policy.image_size:
        return None
    scale = policy.image_size / side
    size = max(1, round(width * scale)), max(1, round(height * scale))
    square = policy.resize_mode in ("border", "center_crop")
    if size == (width, height) and (not square or width == height):
        return None
    return size


def _check_pixels(width: int, height: int, policy: FetchPolicy) -> None:
    if width * height > policy.max_pixels:
        raise _Rejected("too_many_pixels", f"{width}x{height}")
    if width < 1 or height < 1:
        raise _Rejected("undecodable", f"{width}x{height} pixels")


def _check_shape(size: tuple[int, int], policy: FetchPolicy) -> None:
    if min(size) < policy.min_image_size:
        raise _Rejected("too_small", f"{size[0]}x{size[1]}")
    if policy.max_aspect_ratio and max(size) > policy.max_aspect_ratio * min(size):
        raise _Rejected("too_elongated", f"{size[0]}x{size[1]}")


# --- encoding ---------------------------------------------------------------------------------


def _encode(pixels: np.ndarray, policy: FetchPolicy) -> bytes:
    quality = "compress_level" if policy.encode_format == "png" else "quality"
    stored = io.BytesIO()
    try:
        if policy.encode_format == "jpg":
            return jpeg.encode(pixels, policy.encode_quality)
        picture = Image.fromarray(pixels)
        picture.save(stored, SAVE[policy.encode_format], **{quality: policy.encode_quality})
    except (OSError, ValueError) as error:
        height, width = pixels.shape[:2]
        raise _Rejected("encode_failed", f"{width}x{height}: {_clean(str(error))}") from error
    return stored.getvalue()


def _store(
    result: Decoded, image: bytes, size: tuple[int, int], hashed: int, policy: FetchPolicy
) -> None:
    result.image = image
    result.extension = policy.encode_format
    result.width, result.height = size
    result.phash = hashed
    result.sha256 = hashlib.sha256(image).hexdigest()


def _clean(message: str) -> str:
    """An error's text without addresses in memory, which differ from run to run."""
    message = re.sub(r"<[^<>]* at 0x[0-9a-f]+>", "picture", message)
    return "".join(filter(str.isprintable, message))[:200]
