"""Files changed a little, by chance: what a fuzz run without coverage feeds its targets."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence

MOST = 256 * 1024  # bytes of a changed file
NUMBERS = (0, 1, 2, 3, 7, 8, 9, 16, 31, 32, 64, 100, 127, 128, 255, 256, 511, 1000, 1024, 4096)
NUMBERS += (32767, 32768, 65535, 65536, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1)
TOKENS: dict[str, tuple[bytes, ...]] = {
    "extract": (
        *(b"<img src=", b" alt='", b'" srcset="', b"<base href=", b"<!--", b"-->", b"<script>"),
        *(b"</script>", b"<noscript>", b"<figure><figcaption>", b"<picture><source srcset="),
        *(b"<svg>", b"<![CDATA[", b"]]>", b"<template>", b"<plaintext>", b"&#x110000;", b"&nbsp"),
        *(b"data:,", b"//", b"http://[::1]/", b"\xef\xbb\xbf", b"\xff\xfe", b"\x1b$B", b"\0"),
        *(b"WARC/1.0\r\n", b"\r\n\r\n", b"Content-Length: ", b"HTTP/1.1 200 OK\r\n", b"\n"),
        *(b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: br\r\n", b"charset=utf-16"),
        *(b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b'{"path":"IMG@/src","url":"', b'"alt":"', b"\\u"),
        *(b'","', b'"\n"', b"\t", b'{"url": "http://a.bc/", "text": "a"}\n', b"\xed\xa0\x80"),
    ),
    "pictures": (
        *(b"\xff\xd8\xff\xe0", b"\xff\xc0", b"\xff\xc2", b"\xff\xc4", b"\xff\xda", b"\xff\xd9"),
        *(b"\xff\xe1", b"Exif\0\0II*\0", b"MM\0*", b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"iCCP"),
        *(b"acTL", b"IEND", b"RIFF", b"WEBP", b"VP8X", b"VP8L", b"VP8 ", b"ALPH", b"ANIM"),
        *(b"GIF89a", b"\x21\xf9\x04", b"\x2c", b"\x3b", b"BM", b"ftypavif", b"meta", b"ispe"),
        *(b"Adobe", b"JFIF\0", b"ICC_PROFILE\0\1\1", b"\xff\xff\xff\xff", b"\0\0\0\0"),
    ),
    "responses": (
        *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 301 Moved\r\n", b"HTTP/1.0 429 X\r\n", b"\r\n\r\n"),
        *(b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"\r\n0\r\n\r\n", b"\r\n"),
        *(b"Content-Encoding: gzip\r\n", b"Content-Encoding: deflate\r\n", b"\x1f\x8b\x08\0"),
        *(b"Location: ", b"//fuzz.test/", b"http://169.254.169.254/", b"Retry-After: ", b"-1"),
        *(b"X-Robots-Tag: ", b"noai", b"unavailable_after: ", b"TDM-Reservation: 1\r\n", b"\0"),
        *(b"User-agent: *\n", b"Disallow: /", b"Allow: ", b"Crawl-delay: ", b"*", b"$", b"%2e"),
        *(b'[{"location": "/", "tdm-reservation": 1}]', b"Content-Signal: ai-train=no\n"),
        *(b"HTTP/1.1 100 Continue\r\n\r\n", b"\xff", b"\r", b"Connection: keep-alive\r\n"),
    ),
}


def mutate(seeds: Sequence[bytes], chance: random.Random, tokens: Sequence[bytes]) -> bytes:
    """One of the seeds, changed in one to eight places; PNGs mostly with their checksums right."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4, 8))):
        chance.choice(CHANGES)(data, chance, seeds, tokens)
        del data[MOST:]
    if data.startswith(b"\x89PNG") and chance.random() < 0.8:
        mend_png(data)
    return bytes(data)


def mend_png(data: bytearray) -> None:
    """Sets the checksums of a PNG's chunks, without which no decoder looks into them."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if end + 4 > len(data):
            return
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4)
        at = end + 4


Change = Callable[[bytearray, random.Random, Sequence[bytes], Sequence[bytes]], None]


def _span(data: bytearray, chance: random.Random) -> slice:
    start = chance.randrange(len(data) + 1)
    return slice(start, min(len(data), start + int(2 ** chance.uniform(0, 12))))


def _flip(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.randrange(256)


def _number(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    size, order = chance.choice((1, 2, 4)), chance.choice(("big", "little"))
    at = chance.randrange(len(data) + 1)
    value = chance.choice(NUMBERS) % 256**size
    data[at : at + size] = value.to_bytes(size, order)


def _digits(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = str(chance.choice(NUMBERS)).encode()


def _delete(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    del data[_span(data, chance)]


def _repeat(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    part = data[_span(data, chance)] * chance.choice((1, 1, 2, 10, 100))
    at = chance.randrange(len(data) + 1)
    data[at:at] = part[:MOST]


def _cut(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _noise(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    span = _span(data, chance)
    data[span] = chance.randbytes(min(64, span.stop - span.start + 1))


def _splice(
    data: bytearray, chance: random.Random, seeds: Sequence[bytes], tokens: Sequence[bytes]
) -> None:
    other = bytearray(chance.choice(seeds))
    data[_span(data, chance)] = other[_span(other, chance)]


def _token(
    data: bytearray, chance: random.Random, seeds: Sequence[bytes], tokens: Sequence[bytes]
) -> None:
    at, token = chance.randrange(len(data) + 1), chance.choice(tokens)
    data[at : at + chance.choice((0, 0, len(token)))] = token


CHANGES: tuple[Change, ...] = (_flip, _set, _number, _number, _digits, _delete, _repeat, _cut)
CHANGES += (_noise, _splice, _token, _token)
