"""What a file really is, by its first bytes, and pictures without their metadata, byte for byte.

Nothing is decoded here. Unknown bytes are told apart as far as a person reading the report wants
to know: `html` is an error page, `svg` a picture that is not decoded.
"""

import re

DECODED = {
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "gif": "GIF",
    "avif": "AVIF",
    "bmp": "BMP",
    "tiff": "TIFF",
}  # name here -> Pillow's name

MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"\0\0\1\0", "ico"),
    (b"\0\0\2\0", "cur"),
    (b"\xff\x0a", "jxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    (b"8BPS", "psd"),
    (b"qoif", "qoi"),
    (b"farbfeld", "farbfeld"),
    (b"#?RADIANCE", "hdr"),
    (b"#?RGBE", "hdr"),
    (b"v/1\x01", "exr"),
    (b"DDS ", "dds"),
    (b"icns", "icns"),
    (b"%PDF", "pdf"),
    (b"%!PS", "postscript"),
    (b"PK\3\4", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"FWS", "flash"),
    (b"CWS", "flash"),
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"OggS", "ogg"),
    (b"wOFF", "font"),
    (b"wOF2", "font"),
)
BRANDS: tuple[tuple[bytes, str], ...] = (
    (b"avif", "avif"),
    (b"avis", "avif"),
    (b"heic", "heic"),
    (b"heix", "heic"),
    (b"heim", "heic"),
    (b"heis", "heic"),
    (b"hevc", "heic"),
    (b"hevx", "heic"),
    (b"jxl ", "jxl"),
    (b"mif1", "heif"),
    (b"msf1", "heif"),
)
SVG = re.compile(rb"<(?:[a-z]{1,10}:)?svg[\s>]", re.IGNORECASE)
HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body|title|meta|script|div|p|h1)[\s>]", re.I)
PNM = re.compile(rb"P[1-7fF]\s")
LOOKED_AT = 1024  # bytes


def sniff(data: bytes) -> str:
    """Name what the bytes are: a key of DECODED or the name of something that is not decoded."""
    if data[:4] == b"RIFF":
        return {b"WEBP": "webp", b"AVI ": "avi", b"WAVE": "wav"}.get(data[8:12], "riff")
    if data[4:8] == b"ftyp":
        return _brand(data)
    for magic, name in MAGIC:
        if data.startswith(magic):
            return name
    if PNM.match(data):
        return "pnm"
    head = data[:LOOKED_AT].removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head:
        return "empty" if not data else "blank"
    if head.startswith(b"<"):
        return "svg" if SVG.search(head) else "html" if HTML.search(head) else "xml"
    if b"\0" in head or sum(byte < 9 or 13 < byte < 32 for byte in head) > len(head) // 20:
        return "unknown"
    return "json" if head[:1] in b"{[" else "text"


def _brand(data: bytes) -> str:
    """Name an ISO base media file by its major brand, else by the compatible ones."""
    size = min(int.from_bytes(data[:4]), 256)
    brands = [data[8:12]] + [data[at : at + 4] for at in range(16, size, 4)]
    named = [name for brand in brands for known, name in BRANDS if brand == known]
    generic = [name for name in named if name != "heif"]
    return generic[0] if generic else named[0] if named else "mp4"


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a WebP header announces, None where there is no such header.

    Needed because the decoder reserves the whole canvas when it is opened.
    """
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if chunk == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if chunk == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        size = int.from_bytes(body[6:8], "little"), int.from_bytes(body[8:10], "little")
        return size[0] & 0x3FFF, size[1] & 0x3FFF
    if chunk == b"VP8L" and body[:1] == b"\x2f":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def strip(data: bytes, name: str) -> bytes | None:
    """Return the same picture without metadata, not a pixel changed; None where that cannot be.

    JPEG: application segments other than JFIF's and Adobe's (which decide the colours), comments
    and whatever follows the picture go. PNG: only the chunks that make the pixels stay. WebP: only
    the bitstream stays. EXIF, XMP, ICC profiles, thumbnails, texts and appended files are gone;
    orientation and colour profile must have been looked at before.
    """
    if name == "jpeg":
        return _strip_jpeg(data)
    if name == "png":
        return _strip_png(data)
    if name == "webp":
        return _strip_webp(data)
    return None


BASELINE = (0xC0, 0xC1, 0xC2)  # Huffman-coded, sequential or progressive: every reader has these
SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def _strip_jpeg(data: bytes) -> bytes | None:
    kept = [b"\xff\xd8"]
    at = 2
    while True:
        while data[at : at + 2] == b"\xff\xff":
            at += 1
        if len(data) < at + 4 or data[at] != 0xFF:
            return None
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4])
        segment = data[at:end]
        if 0xC0 <= marker <= 0xCF and marker not in (*BASELINE, 0xC4):
            return None
        if marker == 0xDA:
            found = SCAN_END.search(data, end)
            if found is None:
                return None
            kept.append(data[at : found.start()])
            at = found.start()
            if data[at + 1] == 0xD9:
                kept.append(b"\xff\xd9")
                return b"".join(kept)
            continue
        jfif = marker == 0xE0 and segment[4:9] == b"JFIF\0"
        adobe = marker == 0xEE and segment[4:9] == b"Adobe"
        if jfif:
            # The thumbnail that may follow the 14 bytes of JFIF is dropped.
            segment = b"\xff\xe0\0\x10" + segment[4:16] + b"\0\0"
            if len(segment) != 18:
                return None
        if jfif or adobe or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(segment)
        at = end


PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")


def _strip_png(data: bytes) -> bytes | None:
    kept = [data[:8]]
    at = 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        kind = data[at + 4 : at + 8]
        if kind in PIXEL_CHUNKS:
            kept.append(data[at:end])
        if kind == b"IEND":
            return b"".join(kept)
        at = end
    return None


def _strip_webp(data: bytes) -> bytes | None:
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + size + size % 2
        if data[at : at + 4] in (b"VP8 ", b"VP8L"):
            chunk = data[at : at + 8 + size] + b"\0" * (size % 2)
            return b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk
        at = end
    return None
