"""One picture: bytes from a stranger in, bytes for the dataset out, or the reason why not.

Pillow decodes all formats. A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that leaves at
least 1.5 times the size wanted (DCT scaling). Downscaling uses the Hamming filter, which of
Pillow's is nearest to OpenCV's INTER_AREA that img2dataset uses (52 dB at 500 pixels; the box
filter 39 dB), upscaling Lanczos. Sizes, padding and cropping are img2dataset's to the pixel.

EXIF orientation is applied; sizes are those of the upright picture. Colours are brought to sRGB
from an embedded ICC profile; CMYK, palettes and 16 bit become 8-bit RGB or grey; transparency is
matted on white. Of animations the first frame counts. The result carries no metadata: it is
encoded anew, or stripped losslessly where the original bytes are kept.

`decode_resize` is a pure function of its arguments. It trusts nothing, but native code can still
crash or hang on hostile bytes: `pipeline.fetch.pool` runs it in a process of its own.
"""

import functools
import hashlib
import io
import re
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image, ImageCms, features

from pipeline.fetch import exif
from pipeline.fetch.formats import DECODED, sniff, strip, webp_size
from pipeline.fetch.policy import FetchPolicy
from wit.errors import UserError
from wit.outcomes import SUCCESS

WHITE = 255
DCT_MARGIN = 1.5  # the size decoded to, in sizes wanted, is at least this
REDUCING_GAP = 3.0  # large pictures are first shrunk by whole factors down to this many sizes
MAX_PROFILE = 4_000_000  # bytes of an ICC profile that is looked at
SAVE = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
STORED = {"jpg": "jpeg", "png": "png", "webp": "webp"}  # extension -> name in formats.DECODED
TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(slots=True)
class Decoded:
    """What became of a picture: `image` is set where `outcome` is success."""

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

    def to_json(self) -> dict[str, Any]:
        """All fields but the bytes."""
        return {name: value for name, value in asdict(self).items() if name != "image"}


class _Rejected(Exception):
    """Ends a picture with an outcome, inside this file."""

    def __init__(self, outcome: str, message: str | None = None):
        super().__init__(outcome)
        self.outcome = outcome
        self.message = message


def check_codecs() -> None:
    """Raise UserError if this Pillow cannot decode what is promised.

    Called before the first picture: otherwise a bad installation would look like bad pictures.
    """
    for name in ("jpg", "zlib", "webp", "avif", "libtiff", "littlecms2"):
        if not features.check(name):
            raise UserError(
                f"this Pillow is built without {name}: install pillow>=12.1 from a wheel"
            )
    picture = io.BytesIO()
    Image.new("RGB", (16, 16)).save(picture, "JPEG")
    if decode_resize(picture.getvalue(), FetchPolicy("test (test@localhost)")).outcome != SUCCESS:
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
        tags = exif.read(opened)
        turn = exif.orientation(tags)
        upright = opened.size[::-1] if turn > 4 else opened.size
        result.original_width, result.original_height = upright
        _check_shape(upright, policy)
        size = target_size(*upright, policy)
        if size:  # a very thin picture can grow beyond all bounds
            _check_pixels(*size, policy)
        if name == "jpeg" and size:
            wanted = size[::-1] if turn > 4 else size
            opened.draft(opened.mode, tuple(-int(-side * DCT_MARGIN // 1) for side in wanted))
        moving = name == "webp" and opened.n_frames > 1
        opened.load()
        if name == "tiff":  # Pillow turns these itself
            turn = 1
        profile = opened.info.get("icc_profile")
        plain = opened.mode in ("RGB", "L", "P", "1") and "transparency" not in opened.info
        picture = _flatten(opened)
    foreign = bool(profile) and not _is_srgb(profile, picture.mode)
    result.exif = exif.as_json(tags)

    unchanged = size is None and turn == 1 and plain and not foreign
    if policy.skip_reencode and unchanged and name == STORED[policy.encode_format]:
        kept = None if moving else strip(data, name)
        if kept is not None:
            _store(result, kept, *upright, policy)
            return
    if size:
        picture = _resize(picture, size[::-1] if turn > 4 else size, upright, policy)
    if foreign:
        picture = _to_srgb(picture, profile)
    if picture.mode not in ("RGB", "L"):
        picture = picture.convert("RGB")
    if turn > 1:
        picture = picture.transpose(TRANSPOSE[turn])
    if size:
        picture = _to_square(picture, policy)
    _store(result, _encode(picture, policy), *picture.size, policy)


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


def _resize(
    picture: Image.Image, size: tuple[int, int], original: tuple[int, int], policy: FetchPolicy
) -> Image.Image:
    longest = policy.resize_mode in ("border", "keep_ratio_largest")
    smaller = (max(original) if longest else min(original)) > policy.image_size
    kernel = Image.Resampling.HAMMING if smaller else Image.Resampling.LANCZOS
    if picture.mode in ("P", "1"):
        picture = picture.convert("RGB" if picture.mode == "P" else "L")
    return picture.resize(size, kernel, reducing_gap=REDUCING_GAP)


def _to_square(picture: Image.Image, policy: FetchPolicy) -> Image.Image:
    """Pad or crop; an odd pixel goes below and to the right."""
    side = policy.image_size
    width, height = picture.size
    if policy.resize_mode == "border" and (width, height) != (side, side):
        white = WHITE if picture.mode == "L" else (WHITE,) * 3
        square = Image.new(picture.mode, (side, side), white)
        square.paste(picture, ((side - width) // 2, (side - height) // 2))
        return square
    if policy.resize_mode == "center_crop":
        left, top = (width - side) // 2, (height - side) // 2
        return picture.crop((left, top, left + side, top + side))
    return picture


# --- colours ----------------------------------------------------------------------------------


def _flatten(picture: Image.Image) -> Image.Image:
    """8 bit without transparency: mode L, RGB, CMYK, P or 1, or another that becomes RGB."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _to_8_bit(picture)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        if picture.mode == "La":
            picture = picture.convert("LA")
        seen = picture.convert("RGBA")
        matted = Image.new("RGB", seen.size, (WHITE,) * 3)
        matted.paste(seen, mask=seen.getchannel("A"))
        return matted
    picture.load()
    return (
        picture.copy() if picture.mode in ("L", "RGB", "CMYK", "P", "1") else picture.convert("RGB")
    )


def _to_8_bit(picture: Image.Image) -> Image.Image:
    """16 bit by its upper byte; other integers and fractions by their range."""
    if picture.mode.startswith("I;16"):
        return picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    low, high = picture.getextrema()
    if picture.mode == "I" and low >= 0 and high <= 65535:
        return picture.point(lambda value: value * (1 / 256)).convert("L")
    if not high > low:
        return Image.new("L", picture.size)
    scale = 255 / (high - low)
    return picture.convert("F").point(lambda value: value * scale - low * scale).convert("L")


@functools.lru_cache(maxsize=16)
def _is_srgb(profile: bytes, mode: str) -> bool:
    """Whether a profile changes nothing: sRGB by its name, or unreadable, or of another mode."""
    if len(profile) > MAX_PROFILE:
        return True
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = opened.profile.xcolor_space.strip()
        if {"RGB": ("RGB", "P"), "GRAY": ("L", "1"), "CMYK": ("CMYK",)}.get(space, ()).count(
            mode
        ) == 0:
            return True
        return "srgb" in ImageCms.getProfileDescription(opened).lower()
    except (ImageCms.PyCMSError, OSError, ValueError):
        return True


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> Any:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    srgb = ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(source, srgb, mode, "RGB")


def _to_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    if picture.mode in ("P", "1"):
        picture = picture.convert("RGB" if picture.mode == "P" else "L")
    try:
        return ImageCms.applyTransform(picture, _transform(profile, picture.mode)) or picture
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture  # an unusable profile: the colours are taken as they stand


# --- encoding ---------------------------------------------------------------------------------


def _encode(picture: Image.Image, policy: FetchPolicy) -> bytes:
    quality = "compress_level" if policy.encode_format == "png" else "quality"
    stored = io.BytesIO()
    picture.info = {}
    try:
        picture.save(stored, SAVE[policy.encode_format], **{quality: policy.encode_quality})
    except (OSError, ValueError) as error:
        width, height = picture.size
        raise _Rejected("encode_failed", f"{width}x{height}: {_clean(str(error))}") from error
    return stored.getvalue()


def _store(result: Decoded, image: bytes, width: int, height: int, policy: FetchPolicy) -> None:
    result.image = image
    result.extension = policy.encode_format
    result.width, result.height = width, height
    result.sha256 = hashlib.sha256(image).hexdigest()


def _clean(message: str) -> str:
    """An error's text without addresses in memory, which differ from run to run."""
    message = re.sub(r"<[^<>]* at 0x[0-9a-f]+>", "picture", message)
    return "".join(filter(str.isprintable, message))[:200]
