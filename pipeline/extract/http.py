"""The body of an HTTP response as archived (RFC 9112, RFC 9110), unpacked within a cap.

Crawlers keep what came over the wire, or unpack it and keep the old head; so a transfer or content
coding that the head names is undone only where the bytes bear it out.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

import brotli
import zstandard

LARGEST_HEAD = 2**20
LARGEST_PAGE = 64 * 2**20  # bytes, unpacked
STEP = 2048  # packed bytes given to a decompressor at once, of which zstd makes 64 MiB at most

_CHUNK_SIZE = re.compile(rb"[ \t\r\n]*([0-9a-fA-F]{1,12})[ \t]*(?:;[^\r\n]*)?\r?\n")
_HEAD_END = re.compile(rb"\r?\n[ \t]*\r?\n")


class TooLarge(Exception):
    """A body unpacks to more than the cap."""


def split_response(block: bytes) -> tuple[dict[str, str], bytes] | None:
    """Head fields (lower-case names; of equal ones the last) and body; None if it is none."""
    if not block.startswith((b"HTTP/", b"ICY ")):
        return None
    end = _HEAD_END.search(block, 0, LARGEST_HEAD)
    head, body = (block[: end.start()], block[end.end() :]) if end else (block[:LARGEST_HEAD], b"")
    fields = {}
    for line in head.split(b"\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            fields[name.strip().decode("latin-1").lower()] = value.strip().decode("latin-1")
    return fields, body


def decode_body(fields: dict[str, str], body: bytes, cap: int) -> tuple[bytes, list[str]]:
    """The body without its transfer and content codings, and the faults met.

    Args:
        fields: the head's.
        body: as archived.
        cap: bytes that it may unpack to.

    Returns:
        bytes, and a list of `bad_chunks` and `bad_encoding` where a coding broke off.

    Raises:
        TooLarge: if it is more than `cap` bytes.
    """
    faults = []
    if "chunked" in fields.get("transfer-encoding", "").lower():
        body, whole = _join_chunks(body)
        if not whole:
            faults.append("bad_chunks")
    codings = f"{fields.get('content-encoding', '')},{fields.get('transfer-encoding', '')}".lower()
    for coding in reversed([c.strip() for c in codings.split(",")]):
        unpacker = _unpacker(coding, body)
        if unpacker is not None:
            body, whole = _unpack(unpacker, body, cap)
            if not whole and "bad_encoding" not in faults:
                faults.append("bad_encoding")
    if len(body) > cap:
        raise TooLarge
    return body, faults


def _join_chunks(body: bytes) -> tuple[bytes, bool]:
    """The chunks' data, and whether they end as they should; a body without chunks is itself."""
    size = _CHUNK_SIZE.match(body)
    if size is None:
        return body, True
    parts = []
    while size:
        length = int(size[1], 16)
        if length == 0:
            return b"".join(parts), True
        parts.append(body[size.end() : size.end() + length])
        if size.end() + length > len(body):
            break
        size = _CHUNK_SIZE.match(body, size.end() + length)
    return b"".join(parts), False


def _unpacker(coding: str, body: bytes) -> Any:
    """What undoes a coding, like zlib.decompressobj; None where the body does not have it."""
    if coding in ("gzip", "x-gzip") and body.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31)
    if coding == "deflate" and body and body[0] & 15 == 8 and int.from_bytes(body[:2]) % 31 == 0:
        return zlib.decompressobj(15)
    if coding == "deflate" and not _is_text(body):
        return zlib.decompressobj(-15)
    if coding == "br" and not _is_text(body):
        return _Brotli()
    if coding == "zstd" and body.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj()
    return None


def _is_text(body: bytes) -> bool:
    """Whether a body starts like a page: no control characters but white space."""
    return not re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", body[:256])


class _Brotli:
    """Brotli's decompressor with the interface of zlib's; stops at LARGEST_PAGE."""

    def __init__(self) -> None:
        self._decompressor = brotli.Decompressor()
        self._size = 0

    @property
    def eof(self) -> bool:
        return self._decompressor.is_finished()

    def decompress(self, data: bytes) -> bytes:
        parts = []
        while True:
            parts.append(self._decompressor.process(data, output_buffer_limit=2**20))
            self._size += len(parts[-1])
            if self._size > LARGEST_PAGE:
                raise TooLarge
            if self.eof or self._decompressor.can_accept_more_data():
                return b"".join(parts)
            data = b""


def _unpack(unpacker: Any, body: bytes, cap: int) -> tuple[bytes, bool]:
    """The unpacked bytes, and whether nothing broke off."""
    parts = []
    size = 0
    for start in range(0, len(body), STEP):
        try:
            parts.append(unpacker.decompress(body[start : start + STEP]))
        except (zlib.error, brotli.error, zstandard.ZstdError):
            return b"".join(parts), False
        size += len(parts[-1])
        if size > cap:
            raise TooLarge
        if unpacker.eof:
            break
    return b"".join(parts), unpacker.eof
