"""Lists of what is blocked, as people write them: an entry a line.

    url https://example.org/picture.jpg      or the bare address
    host example.org                         or the bare name; *.example.org is the same
    page-host example.org
    sha256 HEX                               64 digits, or the bare digits
    pair HEX                                 32 digits, a pair_id
    # a comment, also after an entry

Values are brought into one form: URLs and hosts as the WHATWG URL Standard says, digits in lower
case. Lines that are in it already, nearly all of a long list, are recognised a block at a time; the
others are read one by one.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

import ada_url
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wit.errors import UserError

KINDS = ("url", "host", "page-host", "sha256", "pair")
BLOCK = 16 << 20  # bytes read at a time; no line is longer
GZIP = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"

# What the standard's algorithm surely leaves as it is: of a host, labels of ASCII of which the last
# begins with a letter (so it is no IPv4 address); of a path, segments that begin with no dot or
# percent sign (so none is a dot segment).
_LABEL = "[a-z0-9_-]+"
_HOST = rf"(?:{_LABEL}\.)+[a-z][a-z0-9_-]*"
_PATH = r"A-Za-z0-9_~!$&()*+,;=:@|\[\]'-"
_QUERY = r"A-Za-z0-9_~!$&()*+,;=:@%|\[\]./?{}`^-"
NORMAL_HOST = f"^{_HOST}$"
NORMAL_URL = rf"^https?://{_HOST}(?:/(?:[{_PATH}][{_PATH}.%]*)?)+(?:\?[{_QUERY}]*)?$"
PUNYCODE = "xn--"  # may be wrong; the standard checks it
NORMAL = {
    "url": NORMAL_URL,
    "host": NORMAL_HOST,
    "page-host": NORMAL_HOST,
    "sha256": "^[0-9a-f]{64}$",
    "pair": "^[0-9a-f]{32}$",
}
BARE = ("url", "host", "sha256")
WANTED = {
    "url": "http or https address",
    "host": "host name (with a dot, without port or path)",
    "page-host": "host name (with a dot, without port or path)",
    "sha256": "sha256 (64 hexadecimal digits)",
    "pair": "pair_id (32 hexadecimal digits)",
}
COMMENT = re.compile(r"(^|\s)#.*$")
HOSTNAME = r"^https?://(?:[^/?#]*@)?(\[[^\]]*\]|[^:/?#]*?)\.?(?:[:/?#].*)?$"


def normal_urls(urls: pa.Array) -> pa.Array:
    """Returns string [n]: URLs in WHATWG form without fragment; what is no URL stays as it is."""
    urls = urls.cast(pa.string())
    unsure = np.flatnonzero(~_is_normal("url", urls))
    if not len(unsure):
        return urls
    texts = urls.take(pa.array(unsure)).to_pylist()
    mended = pa.array([normal_url(text) or text for text in texts], pa.string())
    mask = np.zeros(len(urls), bool)
    mask[unsure] = True
    return pc.replace_with_mask(urls, pa.array(mask), mended)


def normal_url(text: str) -> str | None:
    """Returns an http(s) URL in WHATWG form without its fragment; None for anything else."""
    try:
        url = ada_url.URL(text).href.partition("#")[0]
    except (ValueError, UnicodeEncodeError):
        return None
    return url if url.startswith(("http://", "https://")) else None


def normal_host(text: str) -> str | None:
    """Returns a host name as it stands in URLs; None for what is none, or names more than one site.

    A name has a dot: `com` alone would be everybody.
    """
    name = text.removeprefix("*").removeprefix(".")
    if not name or re.search(r"[\s/\\?#@]", name) or (":" in name and not name.startswith("[")):
        return None
    try:
        host = ada_url.URL(f"http://{name}/").hostname.removesuffix(".")
    except (ValueError, UnicodeEncodeError):
        return None
    return host if "." in host or host.startswith("[") else None


def hostname_of(urls: pa.Array) -> pa.Array:
    """Returns string [n]: the hosts of URLs in WHATWG form, without a dot at the end."""
    return pc.replace_substring_regex(urls, HOSTNAME, r"\1")


def parse_entry(kind: str, text: str) -> str | None:
    """Returns the normal form of a value of a kind; None where it is none."""
    if kind == "url":
        return normal_url(text)
    if kind in ("host", "page-host"):
        return normal_host(text)
    return text.lower() if re.fullmatch(NORMAL[kind], text.lower()) else None


def parse_line(line: str) -> tuple[str, str] | None:
    """Returns kind and normal value of a line, None for an empty one; or ValueError."""
    line = COMMENT.sub("", line).strip()
    if not line:
        return None
    kind, *value = re.split(r"\s+", line, maxsplit=1)
    kind = kind.lower()
    if kind in KINDS and value:
        value = value[0]
        found = parse_entry(kind, value)
        if found is None:
            raise ValueError(f"{value[:100]!r} is no {WANTED[kind]}")
        return kind, found
    for bare in BARE:
        found = parse_entry(bare, line)
        if found is not None:
            return bare, found
    raise ValueError(f"{line[:100]!r} is neither `KIND VALUE` nor a bare URL, host or sha256")


class HashingReader:
    """A file being read whose sha256 is known at the end."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Reads from the file."""
        data = self.file.read(size)
        self.sha256.update(data)
        return data


def read_lines(path: str, file: IO[bytes] | HashingReader) -> Iterator[tuple[str, pa.Array]]:
    """Yields kinds with string [n], values in normal form, of a list that is open for reading.

    Raises:
        UserError: naming file and line.
    """
    done = 0
    for block in _blocks(path, file):
        try:
            text = block.decode("utf-8")
        except UnicodeDecodeError as error:
            line = done + 1 + block.count(b"\n", 0, error.start)
            raise UserError(f"{path}, line {line:,}: not UTF-8; save the list as UTF-8") from error
        if "\0" in text:
            line = done + 1 + text.count("\n", 0, text.index("\0"))
            raise UserError(f"{path}, line {line:,}: not a text file; a list has an entry a line")
        yield from _read_block(path, block, done)
        done += block.count(b"\n")


def _blocks(path: str, file: IO[bytes] | HashingReader) -> Iterator[bytes]:
    """Yields the bytes in whole lines, the last one too with an end."""
    head = file.read(len(BOM))
    source = cast(IO[bytes], _Joined(head, file))
    if head.startswith(GZIP):
        source = cast(IO[bytes], gzip.GzipFile(fileobj=source))
    rest, mark = b"", BOM
    try:
        while data := source.read(BLOCK):
            data, mark = rest + data.removeprefix(mark), b""
            end = data.rfind(b"\n") + 1
            if not end and len(data) > BLOCK:
                raise UserError(f"{path}: a line of more than {BLOCK:,} bytes; is this a list?")
            rest = data[end:]
            if end:
                yield data[:end]
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}); fetch the list again") from error
    if rest:
        yield rest + b"\n"


class _Joined:
    """Bytes that were read already, and the file they are from."""

    def __init__(self, head: bytes, file: Any) -> None:
        self.head, self.file = head, file

    def read(self, size: int = -1) -> bytes:
        if not self.head:
            return self.file.read(size)
        end = len(self.head) if size < 0 else size
        head, self.head = self.head[:end], self.head[end:]
        return head


def _read_block(path: str, block: bytes, done: int) -> Iterator[tuple[str, pa.Array]]:
    """Yields what `read_lines` does for whole lines, of which `done` stand before them."""
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(block)]
    lines = pc.ascii_trim_whitespace(pa.StringArray.from_buffers(len(ends), *buffers[1:]))
    left = np.flatnonzero(pc.not_equal(lines, "").to_numpy(zero_copy_only=False))
    for kind in KINDS:
        for prefix in (f"{kind} ", "") if kind in BARE else (f"{kind} ",):
            if not len(left):
                return
            some = lines.take(pa.array(left))
            values = some
            if prefix:
                has = pc.starts_with(some, prefix).to_numpy(zero_copy_only=False)
                if not has.any():
                    continue
                values = pc.utf8_slice_codeunits(some.filter(pa.array(has)), len(prefix))
                rows = np.flatnonzero(has)
            else:
                rows = np.arange(len(some))
            normal = _is_normal(kind, values)
            if normal.any():
                yield kind, values.filter(pa.array(normal))
                left = np.delete(left, rows[normal])
    found: dict[str, list[str]] = {}
    for row in left.tolist():
        try:
            entry = parse_line(lines[row].as_py())
        except ValueError as error:
            raise UserError(
                f"{path}, line {done + row + 1:,}: {error}; write `url https://...`, "
                "`host example.org`, `page-host example.org`, `sha256 HEX` or `pair HEX`"
            ) from error
        if entry is not None:
            found.setdefault(entry[0], []).append(entry[1])
    for kind, values in found.items():
        yield kind, pa.array(values, pa.string())


def _is_normal(kind: str, values: pa.Array) -> np.ndarray:
    """Returns bool [n]: whether values of a kind are surely in normal form; nulls are not."""
    normal = pc.match_substring_regex(values, NORMAL[kind])
    if kind not in ("sha256", "pair"):
        normal = pc.and_(normal, pc.invert(pc.match_substring(values, PUNYCODE)))
    return normal.fill_null(False).to_numpy(zero_copy_only=False)
