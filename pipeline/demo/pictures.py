"""The demo's photographs, and the forms in which its hosts serve them."""

import functools
import io
import struct
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

DATA = Path(__file__).parent / "data"
GARMENTS = ("dress", "hat", "longsleeve", "outwear", "pants")
GARMENTS += ("shirt", "shoes", "shorts", "skirt", "t-shirt")
KEPT_FORMS = 1_500  # encoded forms kept in memory, about 20 kB each
ORIENTATION, MAKE, GPS = 0x0112, 0x010F, 0x8825  # EXIF tags


@dataclass(frozen=True)
class Picture:
    """One photograph. `look` is a noun phrase without its colour ("wrap dress with a tie belt")."""

    name: str
    garment: str
    colour: str
    shade: str
    look: str


@functools.cache
def _rows() -> list[list[str]]:
    lines = (DATA / "pictures.tsv").read_text("utf-8").splitlines()
    return [line.split("\t") for line in lines[1:]]


@functools.cache
def pictures() -> dict[str, Picture]:
    """All photographs by name (`dress-01`), in the order of `pictures.tsv`."""
    return {
        name: Picture(name, name.rpartition("-")[0], colour, shade, look)
        for name, _, colour, shade, look in _rows()
    }


@functools.cache
def _files() -> dict[str, bytes]:
    names = {file: name for name, file, *_ in _rows()}
    with tarfile.open(DATA / "clothing_cc0_300.tar") as tar:
        return {names[m.name]: tar.extractfile(m).read() for m in tar if m.name in names}


def original(name: str) -> bytes:
    """The photograph's JPEG file as published, longer side 400 pixels."""
    return _files()[name]


@functools.lru_cache(KEPT_FORMS)
def form(name: str, kind: str = "jpg", width: int = 0) -> bytes:
    """The photograph as `kind`, no wider than `width` pixels (0: as it is).

    Kinds: jpg, png, webp, gif, anim (a GIF of three frames), grey and cmyk (JPEG), turned (a JPEG
    whose EXIF says how to turn it upright, with a make and a position as telephones write them).
    """
    if kind == "jpg" and not width:
        return original(name)
    image = Image.open(io.BytesIO(original(name))).convert("RGB")
    if width and width < image.width:
        image = image.resize((width, round(image.height * width / image.width)), Image.LANCZOS)
    out = io.BytesIO()
    if kind == "jpg":
        image.save(out, "JPEG", quality=82)
    elif kind == "png":
        image.save(out, "PNG")
    elif kind == "webp":
        image.save(out, "WEBP", quality=80, method=2)
    elif kind == "gif":
        image.quantize(128, Image.Quantize.FASTOCTREE).save(out, "GIF")
    elif kind == "anim":
        image.thumbnail((150, 200))
        frames = [f.quantize(64, Image.Quantize.FASTOCTREE) for f in (image, image.rotate(9))]
        frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=400, loop=0)
    elif kind == "grey":
        image.convert("L").save(out, "JPEG", quality=85)
    elif kind == "cmyk":
        image.convert("CMYK").save(out, "JPEG", quality=85)
    elif kind == "turned":
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        exif[MAKE] = "Demo Camera Works"
        exif[GPS] = {1: "N", 2: (48.0, 51.0, 24.0), 3: "E", 4: (2.0, 21.0, 3.0)}
        image.transpose(Image.Transpose.ROTATE_90).save(out, "JPEG", quality=85, exif=exif)
    else:
        raise ValueError(f"{kind!r} is no form of a photograph")
    return out.getvalue()


@functools.cache
def placeholder() -> bytes:
    """The one "image not found" picture that stands under many URLs (PNG, 300 x 400)."""
    image = Image.new("L", (300, 400), 236)
    draw = ImageDraw.Draw(image)
    draw.rectangle((90, 130, 210, 220), outline=150, width=4)
    draw.line((90, 220, 135, 170, 165, 200, 185, 180, 210, 220), fill=150, width=4)
    draw.text((150, 260), "image not found", fill=110, anchor="mm", font=ImageFont.load_default(20))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@functools.cache
def logo(host: str) -> bytes:
    """A host's logo: its name on a coloured ground (PNG, 240 x 64)."""
    hue = sum(host.encode()) * 47 % 360
    image = Image.new("RGB", (240, 64), f"hsl({hue}, 45%, 35%)")
    text = host.removesuffix(".example").removeprefix("www.").replace("-", " ")
    font = ImageFont.load_default(26)
    ImageDraw.Draw(image).text((120, 32), text, fill="white", anchor="mm", font=font)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@functools.cache
def spacer() -> bytes:
    """The transparent 1x1 GIF that pages load lazily behind (also as a `data:` URL)."""
    out = io.BytesIO()
    Image.new("P", (1, 1)).save(out, "GIF", transparency=0)
    return out.getvalue()


@functools.cache
def bomb() -> bytes:
    """A whole PNG of some 100 kilobytes that holds 20,000 x 20,000 pixels (one bit each)."""
    side = 20_000
    rows = zlib.compressobj(1)
    packed = b"".join(rows.compress(bytes(125_050)) for _ in range(side * 2_501 // 125_050))
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = (b"IHDR" + header, b"IDAT" + packed + rows.flush(), b"IEND")
    framed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)
