"""Colours: what any picture holds becomes 8-bit grey, RGB or CMYK, then grey or sRGB."""

import functools
import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms

WHITE = 255
MAX_PROFILE = 4_000_000  # bytes of an ICC profile that is looked at


def flatten(picture: Image.Image) -> Image.Image:
    """Return the picture in mode L, RGB or CMYK: 8 bit, transparency matted on white."""
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
    if picture.mode in ("L", "RGB", "CMYK"):
        return picture
    return picture.convert("L" if picture.mode == "1" else "RGB")


def to_rgb(pixels: np.ndarray, mode: str, profile: bytes | None) -> np.ndarray:
    """Return grey or sRGB pixels: through the ICC profile where there is one, else as they stand.

    `mode` (L, RGB or CMYK) says what `pixels`, height x width or height x width x channels, are.
    """
    if profile is None and mode != "CMYK":
        return pixels
    picture = Image.fromarray(pixels, mode)
    if profile is not None:
        picture = _to_srgb(picture, profile)
    return np.asarray(picture if picture.mode in ("L", "RGB") else picture.convert("RGB"))


def is_foreign(profile: bytes | None, mode: str) -> bool:
    """Whether an ICC profile says other colours than sRGB."""
    return bool(profile) and not _is_srgb(profile, mode)


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
        if {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space) != mode:
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
    try:
        return ImageCms.applyTransform(picture, _transform(profile, picture.mode)) or picture
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture  # an unusable profile: the colours are taken as they stand
