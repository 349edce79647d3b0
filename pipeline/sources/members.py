"""A file's bytes as stored: plain, in gzip members or in zstd frames, unpacked piece by piece.

Common Crawl packs each record in a member of its own, so that it can be read from its offset;
others pack a whole file in one. A damaged member costs what it holds: reading goes on at the next
place where a member starts that unpacks to the start of a record. Nothing is unpacked further than
asked for, so a bomb costs time, never memory.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, NamedTuple

import deflate

from pipeline.tally import Tally
from wit.errors import UserError

BLOCK = 2**20  # bytes read at once
CHUNK = 2**20  # bytes unpacked before they are handed on
WHOLE = 4 * 2**20  # bytes of a gzip member that is unpacked at once; to at most four times as many
RESCAN = 64 * 2**20  # bytes of damaged members that are searched for another member's start
LOOKED_AT = 132 * 1024  # bytes of a zstd frame in which its first block is
LONGEST_LINE = 8192 + 32  # bytes of an ARC record's head

GZIP, ZSTD, LZ4 = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"
ZSTD_SKIP = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
DICTIONARY = b"\x5d\x2a\x4d\x18"  # a skippable frame with the dictionary of a .warc.zst
RECORD_START = re.compile(
    rb"\s*(?:WARC/[01]\.|[a-z][a-z0-9+.-]*:[^\n]* [0-9]{12,14} [^\n]* -?[0-9]+\r?\n)"
)

Progress = Callable[[int], None]


class Packing(NamedTuple):
    """How a file is packed.

    Attributes:
        magic: with which its members (gzip) or frames (zstd) start.
        new: makes a decompressor.
        step: bytes given to it at once; at most 32 MiB come of them.
        looked_at: bytes at most that are needed to see how a member begins.
        begin: unpacks the beginning of a member, LONGEST_LINE bytes at most.
    """

    magic: bytes
    new: Callable[[], Any]
    step: int
    looked_at: int
    begin: Callable[[Any], bytes]


class Piece(NamedTuple):
    """Unpacked bytes that follow each other.

    Attributes:
        offset: in the file as stored: of the member, of the first byte in plain files.
        data: the bytes; None where a member is damaged and what it had begun is void.
        first: whether they are the first of their member.
        plain: whether the file is not packed.
        cut: whether the file ends within the member.
        rest: of a damaged member, what was unpacked before the damage and is not handed on yet: for
            those to whom the member is no unit.
    """

    offset: int
    data: bytes | None
    first: bool = False
    plain: bool = False
    cut: bool = False
    rest: bytes = b""


class Stored:
    """A file read in blocks, of which any part can be looked at again."""

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self.block = b""
        self.start = 0  # of the block, in the file
        self.at = 0  # in the block

    @property
    def offset(self) -> int:
        """Where the next byte stands in the file."""
        return self.start + self.at

    def more(self) -> bool:
        """Makes sure there is a byte at `at`; False at the file's end."""
        while self.at >= len(self.block):
            self.start, self.at = self.start + len(self.block), self.at - len(self.block)
            self.block = self._file.read(BLOCK)
            if not self.block:
                self.at = 0
                return False
            self._progress(self.start + len(self.block))
        return True

    def peek(self, n: int) -> bytes:
        """The next n bytes, fewer at the file's end."""
        return bytes(self.view(n))

    def view(self, n: int) -> memoryview:
        """The same without a copy."""
        while len(self.block) - self.at < n:
            more = self._file.read(max(BLOCK, n - len(self.block) + self.at))
            if not more:
                break
            self.block = self.block[self.at :] + more
            self.start, self.at = self.start + self.at, 0
            self._progress(self.start + len(self.block))
        return memoryview(self.block)[self.at : self.at + n]

    def go_to(self, offset: int) -> None:
        """Goes to a place that was passed."""
        if offset >= self.start:
            self.at = offset - self.start
            return
        self._file.seek(offset)
        self.block, self.start, self.at = b"", offset, 0

    def find(self, magic: bytes) -> bool:
        """Goes to the next place where `magic` stands; False if there is none."""
        while True:
            found = self.block.find(magic, self.at)
            if found >= 0:
                self.at = found
                return True
            self.at = max(self.at, len(self.block) - len(magic) + 1)
            tail = self.block[self.at :]
            if len(self.peek(len(tail) + 1)) <= len(tail):
                self.at = len(self.block)
                return False


def read_pieces(file: BinaryIO, name: str, tally: Tally, progress: Progress) -> Iterator[Piece]:
    """Yields the file's pieces in order; counts damage with its offset.

    Raises:
        UserError: if the file is empty or packed with LZ4.
    """
    stored = Stored(file, progress)
    magic = stored.peek(4)
    if not magic:
        raise UserError(f"{name}: is empty; download or write it again")
    if magic == LZ4:
        raise UserError(
            f"{name}: LZ4 is not read; repack it: lz4 -dc FILE | zstd > FILE.zst (or gzip)"
        )
    if magic.startswith(GZIP):
        step = 16 * 1024
        return _read_members(stored, tally, Packing(GZIP, _gzip, step, step, begin_gzip))
    if magic == ZSTD or ZSTD_SKIP.match(magic):
        packer = _zstd(stored, name)
        begin = partial(begin_zstd, packer)
        packing = Packing(ZSTD, packer.decompressobj, 1024, LOOKED_AT, begin)
        return _read_members(stored, tally, packing)
    return _read_plain(stored)


def _read_plain(stored: Stored) -> Iterator[Piece]:
    while stored.more():
        yield Piece(stored.start, stored.block, plain=True)
        stored.at = len(stored.block)


def _gzip() -> Any:
    return zlib.decompressobj(31)


def begin_gzip(part: Any) -> bytes:
    """What a gzip member begins with, LONGEST_LINE bytes at most; zlib.error if it is none."""
    return _gzip().decompress(part, LONGEST_LINE)


def _whole_gzip(stored: Stored) -> bytes | None:
    """Unpacks the member at `at` and passes it, if the next magic number is where it ends.

    That is twice as fast as piece by piece, because its last four bytes say how long it gets.
    """
    if not stored.block.startswith(GZIP, stored.at):
        return None
    end = stored.block.find(GZIP, stored.at + 18)
    if end < 0 and len(stored.block) - stored.at < WHOLE:
        stored.peek(WHOLE)
        end = stored.block.find(GZIP, stored.at + 18)
        if end < 0 and len(stored.block) - stored.at < WHOLE:
            end = len(stored.block)
    size = int.from_bytes(stored.block[end - 4 : end], "little") if end >= 0 else 0
    if not 0 < size <= 4 * WHOLE or size > 1100 * (end - stored.at):
        return None
    try:
        data = deflate.gzip_decompress(stored.block[stored.at : end], size)
    except deflate.DeflateError:
        return None
    if len(data) != size:
        return None
    stored.at = end
    return data


def _zstd(stored: Stored, name: str) -> Any:
    """The packer of a .warc.zst, with its dictionary if it starts with one."""
    content = b""
    if stored.peek(4) == DICTIONARY:
        size = int.from_bytes(stored.peek(8)[4:], "little")
        content = stored.peek(8 + min(size, RESCAN))[8:]
    try:
        return zstd_packer(content)
    except Exception as error:
        if not _is_damage(error):
            raise
        raise UserError(
            f"{name}: its zstd dictionary is damaged ({error}); get it again"
        ) from error


def zstd_packer(dictionary: bytes) -> Any:
    """A zstandard.ZstdDecompressor with a dictionary, packed itself or not; empty where none is.

    Raises:
        zstandard.ZstdError: if the dictionary is damaged.
    """
    import zstandard

    if dictionary.startswith(ZSTD):
        packer = zstandard.ZstdDecompressor()
        dictionary = packer.decompress(dictionary, max_output_size=RESCAN)
    shared = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
    return zstandard.ZstdDecompressor(dict_data=shared, max_window_size=2**27)


def begin_zstd(packer: Any, part: Any) -> bytes:
    """What a zstd frame begins with, LONGEST_LINE bytes at most; ZstdError if it is none."""
    return packer.stream_reader(part).read(LONGEST_LINE)


def _read_members(stored: Stored, tally: Tally, packing: Packing) -> Iterator[Piece]:
    """Yields the pieces of a packed file; counts damage."""
    magic, rescanned = packing.magic, 0
    while stored.more():
        start = stored.offset
        if magic is GZIP and (whole := _whole_gzip(stored)) is not None:
            yield Piece(start, whole, True)
            continue
        if not stored.peek(len(magic)).startswith(magic):
            if magic is ZSTD and ZSTD_SKIP.match(stored.peek(4)):
                stored.at += 8 + int.from_bytes(stored.peek(8)[4:], "little")
                continue
            if not _skip_zeros(stored):
                continue
            if not stored.peek(len(magic)).startswith(magic):
                tally.fault(start, "junk")
                if not _find_member(stored, packing):
                    return
            continue
        fault = None
        first = True
        unpack = packing.new()
        held: list[bytes] = []
        size = 0
        while not unpack.eof:
            if not stored.more():
                fault = "cut_compression"
                break
            piece = stored.block[stored.at : stored.at + packing.step]
            try:
                data = unpack.decompress(piece)
            except Exception as error:
                if not _is_damage(error):
                    raise
                fault = "bad_compression"
                break
            stored.at += len(piece)
            held.append(data)
            size += len(data)
            if size >= CHUNK:
                yield Piece(start, b"".join(held), first)
                held, size, first = [], 0, False
        if fault is None:
            stored.at -= len(unpack.unused_data)
            if size or first:
                yield Piece(start, held[0] if len(held) == 1 else b"".join(held), first)
            continue
        tally.fault(start, fault)
        if fault == "cut_compression":
            yield Piece(start, b"".join(held), first, cut=True)
            return
        yield Piece(start, None, rest=b"".join(held))
        broke = stored.offset
        rescanned += broke - start
        stored.go_to(start + 1 if rescanned < RESCAN else max(broke, start + 1))
        if not _find_member(stored, packing):
            return


def _is_damage(error: Exception) -> bool:
    return isinstance(error, zlib.error) or type(error).__module__.startswith("zstandard")


def _skip_zeros(stored: Stored) -> bool:
    """Passes the zeros that may pad a file; False if nothing but zeros is left in the block."""
    rest = stored.block[stored.at :]
    stored.at += len(rest) - len(rest.lstrip(b"\0"))
    return stored.at < len(stored.block)


def _find_member(stored: Stored, packing: Packing) -> bool:
    """Goes to the next member that unpacks to the start of a record; False if there is none."""
    while stored.find(packing.magic):
        try:
            data = packing.begin(stored.view(packing.looked_at))
        except Exception as error:
            if not _is_damage(error):
                raise
            data = b""
        if RECORD_START.match(data):
            return True
        stored.at += 1
    return False
