"""EXIF: which way is up, and how the picture was taken.

Names are as exifread and so img2dataset give them. Who took the picture, where, and with which
serial number is left out: it is personal, and nothing is trained on it.
"""

import json
from typing import Any

from PIL import ExifTags, Image

ORIENTATION = 0x0112
MAX_VALUE = 200  # characters
MAX_JSON = 4096  # characters
BASIC = {
    tag: f"Image {tag.name}"
    for tag in (
        ExifTags.Base.Make,
        ExifTags.Base.Model,
        ExifTags.Base.Orientation,
        ExifTags.Base.XResolution,
        ExifTags.Base.YResolution,
        ExifTags.Base.ResolutionUnit,
        ExifTags.Base.Software,
        ExifTags.Base.DateTime,
    )
}
CAMERA = {
    tag: f"EXIF {tag.name}"
    for tag in (
        ExifTags.Base.ExposureTime,
        ExifTags.Base.FNumber,
        ExifTags.Base.ExposureProgram,
        ExifTags.Base.ISOSpeedRatings,
        ExifTags.Base.DateTimeOriginal,
        ExifTags.Base.DateTimeDigitized,
        ExifTags.Base.ExposureBiasValue,
        ExifTags.Base.MeteringMode,
        ExifTags.Base.LightSource,
        ExifTags.Base.Flash,
        ExifTags.Base.FocalLength,
        ExifTags.Base.FocalLengthIn35mmFilm,
        ExifTags.Base.ColorSpace,
        ExifTags.Base.ExifImageWidth,
        ExifTags.Base.ExifImageHeight,
        ExifTags.Base.WhiteBalance,
        ExifTags.Base.DigitalZoomRatio,
        ExifTags.Base.SceneCaptureType,
        ExifTags.Base.LensModel,
    )
}


def read(picture: Image.Image) -> Image.Exif | None:
    """The EXIF tags of an opened picture, None where there are none or they cannot be read.

    A PNG's may follow its pixels, which are decoded here: raises what Pillow does where they cannot
    be. (Pillow does not raise it a second time, but gives a picture that is black from there on.)
    """
    if picture.format == "PNG":
        picture.load()
    try:
        return picture.getexif() or None
    except Exception:  # damaged metadata is no reason to lose a picture
        return None


def orientation(tags: Image.Exif | None) -> int:
    """The turn that EXIF asks for, 1 (none) to 8."""
    value = tags.get(ORIENTATION) if tags else None
    return value if isinstance(value, int) and 2 <= value <= 8 else 1


def as_json(tags: Image.Exif | None) -> str | None:
    """How the picture was taken, as JSON of strings, None where the file does not say."""
    if tags is None:
        return None
    try:
        camera = tags.get_ifd(ExifTags.IFD.Exif)
    except Exception:  # damaged metadata is no reason to lose a picture
        camera = {}
    found = {}
    for names, values in ((BASIC, tags), (CAMERA, camera)):
        for tag, name in names.items():
            value = values.get(tag)
            if value is not None and (text := _text(value)):
                found[name] = text
    return _to_json(found)


def of_exifread(text: str | None) -> str | None:
    """The same tags out of img2dataset's column `exif`; its words for values stay."""
    try:
        tags = json.loads(text or "{}")
    except ValueError:
        return None
    names = (*BASIC.values(), *CAMERA.values())
    return _to_json({name: value for name in names if (value := _text(tags.get(name, "")))})


def _to_json(found: dict[str, str]) -> str | None:
    text = json.dumps(found)
    return text if found and len(text) <= MAX_JSON else None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    numerator, denominator = getattr(value, "numerator", None), getattr(value, "denominator", None)
    if denominator is not None and not isinstance(value, int):
        return f"{numerator}/{denominator}" if denominator not in (0, 1) else str(numerator)
    text = str(value)[: 2 * MAX_VALUE]
    return "".join(filter(str.isprintable, text)).strip()[:MAX_VALUE]
