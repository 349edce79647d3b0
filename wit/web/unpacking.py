"""Bodies that come packed although `identity` was asked for: gzip and deflate, bounded."""

import zlib
from typing import Any

from wit.web.failures import Failed


def unpacker(coding: str) -> "Unpacker | None":
    """What unpacks a Content-Encoding, None where nothing is packed.

    Raises Failed(`unsupported_encoding`) for all others, named. Brotli and zstd are among them: no
    server that is asked for `identity` may send them, and few do.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return None
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise Failed("unsupported_encoding", coding[:40])
    return Unpacker()


class Unpacker:
    """gzip and deflate (with or without zlib's header), never giving more than asked for."""

    def __init__(self) -> None:
        self._inflate: Any = None
        self.finished = False

    def __call__(self, data: bytes, most: int) -> bytes:
        """The next bytes of the body, at most `most`: what is above it is too many anyway."""
        if self.finished or not data:
            return b""  # what follows the end (a second member, padding) is no part of a picture
        if self._inflate is None:
            wrapped = data[:1] == b"\x1f" or data[0] & 0x0F == 8
            self._inflate = zlib.decompressobj(wbits=47 if wrapped else -15)
        try:
            unpacked = self._inflate.decompress(data, most)
        except zlib.error:
            raise Failed("bad_content_encoding", "the packed body is damaged") from None
        self.finished = self._inflate.eof
        return unpacked
