"""Random access to a bzip2 file: its blocks from any byte on, without an index.

A block begins with a 48-bit magic number at any bit, and is compressed by itself: with a head and
an end of our own it is a whole stream, of which the bz2 module checks the block's CRC. Nothing
depends on where streams begin, so multistream files and others are read alike. A block unpacks to
900 KB before bzip2's first run-length coding, which shortens 259 bytes to 5: to 46.7 MB at most.

A magic number also stands inside a block, by chance about once in 18 TB, or because somebody
wrote it there. What does not unpack is thus tried again with what follows, up to the next magic.

Source: J. Tsai, "BZIP2: Format Specification" (2016); Seward's bzip2 1.0.8.
"""

import bz2
import re
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from wit.errors import UserError

BLOCK = 0x314159265359  # of pi
END = 0x177245385090  # of its square root; the stream's 32-bit CRC follows
MAGIC = 48  # bits
HEAD = MAGIC + 32  # bits of a magic number and a CRC
STREAM = re.compile(rb"BZh[1-9]")  # its head; then a magic number
FIRST = [(32, True), (32, False)]  # what stands first in a file: a block, or no block at all
WINDOW = 2**20  # bytes read at once
LONGEST = 3 * 2**20  # bytes of a block: 900,001 symbols of at most 20 bits, and its tables
LARGEST = 48_000_000  # bytes that a block unpacks to
TRIES = 8  # magic numbers at which one block may end

GET_AGAIN = "get the file again"


def chunks(file: BinaryIO, name: str, start: int, end: int) -> Iterator[tuple[bytes, bool]]:
    """Yields each block's bytes and whether its magic begins at byte `end` or behind, in order.

    The first is the first whose magic begins at byte `start` or behind (bit position // 8); the
    caller stops when it has enough. Reads `file` (seekable; `name` is for messages) in windows:
    some MB are held. Splits [0, a), [a, b), ... give every block once as not beyond the end.

    Raises:
        UserError: if the file is cut, or damaged at or before what was asked for, naming the byte.
    """
    marks = _Marks(file, name, start)
    if start == 0 and (not STREAM.match(marks.bytes_at(0, 4)) or marks.mark(0) not in FIRST):
        raise UserError(f"{name}: does not begin as a bzip2 file does; {GET_AGAIN}")
    settled = start == 0  # whether the first mark is known to be no accident inside a block
    while (mark := marks.mark(0)) is not None:
        bit, begins = mark
        data, used = _block(marks) if begins else (None, _stream_end(marks))
        if not used and not settled and _is_inside(file, name, bit):
            marks.forget(1)
            continue
        if not used:
            raise _damaged(marks)
        settled = True
        if data is not None:
            yield data, bit >= 8 * end
        marks.forget(used)


def check_whole(file: BinaryIO, name: str, size: int) -> None:
    """Raises a UserError if the file of `size` bytes does not end as bzip2 files do: if it is cut.

    Reads the last bytes only, so that a day's work does not end with a file that was cut.
    """
    tail = HEAD // 8 + 1
    file.seek(max(0, size - tail))
    data = file.read(tail)
    ends = [-(-(bit + HEAD) // 8) for bit, begins in find_magics(data) if not begins]
    if len(data) not in ends:
        raise UserError(
            f"{name}: ends at byte {size:,} without bzip2's end mark: it is cut; {GET_AGAIN}"
        )


def find_magics(data: bytes) -> list[tuple[int, bool]]:
    """(bit position, whether a block begins and no stream ends) of each magic number, in order."""
    # At any bit, a magic number fills five bytes and so at least one aligned word of 16 bits.
    words = np.frombuffer(data[: len(data) // 2 * 2], np.uint16)
    candidates = np.flatnonzero(_CANDIDATES[words])
    starts = np.concatenate((2 * candidates - 2, 2 * candidates - 1))
    starts = starts[(starts >= 0) & (starts <= len(data) - MAGIC // 8)]
    padded = np.frombuffer(data + b"\0", np.uint8)
    value = np.zeros(len(starts), np.uint64)
    for i in range(7):
        value = value << np.uint64(8) | padded[starts + i]
    found = {}
    for shift in range(8):
        shifted = value >> np.uint64(8 - shift) & np.uint64(2**MAGIC - 1)
        for magic in (BLOCK, END):
            bits = 8 * starts[shifted == np.uint64(magic)] + shift
            found |= dict.fromkeys(bits[bits + MAGIC <= 8 * len(data)].tolist(), magic == BLOCK)
    return sorted(found.items())


def _candidates() -> np.ndarray:
    """Returns bool [65536]: the aligned words that may stand in a magic number."""
    table = np.zeros(2**16, bool)
    for magic in (BLOCK, END):
        for shift in range(8):
            whole = (magic << (8 - shift)).to_bytes(7, "big")
            for first in (1, 2):  # where it begins at an odd byte, at an even one
                table[np.frombuffer(whole[first : first + 2], np.uint16)] = True
    return table


_CANDIDATES = _candidates()


class _Marks:
    """The magic numbers of a file from a byte on, and the bytes from the first of them on."""

    def __init__(self, file: BinaryIO, name: str, start: int) -> None:
        self.file, self.name = file, name
        self.base = start  # of `data` in the file
        self.data = b""
        self.ended = False
        self._found: list[tuple[int, bool]] = []  # (bit in the file, whether a block begins)

    def mark(self, i: int) -> tuple[int, bool] | None:
        """The mark `i` behind the first one kept; None if the file or a block's length ends."""
        while len(self._found) <= i and self._more():
            pass
        return self._found[i] if i < len(self._found) else None

    def forget(self, count: int) -> None:
        """Drops the first marks."""
        del self._found[:count]

    def bytes_at(self, start: int, count: int) -> bytes:
        """Bytes of the file behind the first mark kept, fewer where it ends."""
        while self.base + len(self.data) < start + count and self._more():
            pass
        return self.data[start - self.base : start - self.base + count]

    def _more(self) -> bool:
        here = self.base + len(self.data)
        # Without a mark only the bytes are kept in which one may have begun.
        keep = self._found[0][0] // 8 if self._found else max(self.base, here - MAGIC // 8)
        if self.ended or here - keep > LONGEST:
            return False
        self.file.seek(here)
        more = self.file.read(WINDOW)
        self.ended = not more
        self.data = self.data[keep - self.base :] + more
        self.base = keep
        fresh = max(keep, here - MAGIC // 8)
        for bit, begins in find_magics(self.data[fresh - keep :]):
            if 8 * fresh + bit > 8 * here - MAGIC:  # else it was whole in the last window
                self._found.append((8 * fresh + bit, begins))
        return not self.ended


def _block(marks: _Marks) -> tuple[bytes | None, int]:
    """What the block at the first mark unpacks to, and how many marks it covers; (None, 0)."""
    first, _ = marks.mark(0)
    for i in range(1, TRIES + 1):
        mark = marks.mark(i)
        if mark is None:
            break
        data = _unpack(marks.data, first - 8 * marks.base, mark[0] - 8 * marks.base)
        if data is not None:
            return data, i
    return None, 0


def _unpack(data: bytes, first: int, last: int) -> bytes | None:
    """What the block of bits [first, last) of the data unpacks to, None if it is none."""
    count = last - first
    if count <= HEAD:
        return None
    stop = -(-last // 8)
    bits = int.from_bytes(data[first // 8 : stop], "big") >> (8 * stop - last)
    bits &= (1 << count) - 1
    crc = bits >> (count - HEAD) & 0xFFFFFFFF
    padding = -count % 8
    stream = ((bits << MAGIC | END) << 32 | crc) << padding  # of one block: its CRC is the stream's
    decompressor = bz2.BZ2Decompressor()
    try:
        unpacked = decompressor.decompress(
            b"BZh9" + stream.to_bytes((count + HEAD + padding) // 8, "big"), LARGEST
        )
    except OSError:
        return None
    return unpacked if decompressor.eof else None


def _stream_end(marks: _Marks) -> int:
    """1 if behind the first mark, a stream's end, the next stream begins or the file ends; or 0."""
    after = -(-(marks.mark(0)[0] + HEAD) // 8)
    head = marks.bytes_at(after, len(b"BZh9"))
    if not head:
        return int(marks.base + len(marks.data) == after)
    following = marks.mark(1)
    return int(
        STREAM.fullmatch(head) is not None
        and following is not None
        and following[0] == 8 * (after + len(head))
    )


def _is_inside(file: BinaryIO, name: str, bit: int) -> bool:
    """Whether the magic number at a bit of the file stands inside a block that unpacks."""
    marks = _Marks(file, name, max(0, bit // 8 - LONGEST))
    while (mark := marks.mark(0)) is not None and mark[0] < bit:
        _, used = _block(marks) if mark[1] else (None, 0)
        if used and marks.mark(used)[0] > bit:
            return True
        marks.forget(max(1, used))
    return False


def _damaged(marks: _Marks) -> UserError:
    """The error of a first mark behind which the file is not as it should be."""
    (bit, begins), following = marks.mark(0), marks.mark(1)
    at = f"{marks.name}: byte {bit // 8:,}"
    if not begins:
        return UserError(
            f"{at}: a bzip2 stream ends here, but neither does the file nor does another stream "
            f"follow: it is cut or damaged; {GET_AGAIN}"
        )
    if following is None and marks.ended:
        return UserError(
            f"{at}: the file ends inside the bzip2 block that begins here: it is cut; {GET_AGAIN}"
        )
    return UserError(f"{at}: the bzip2 block that begins here is damaged; {GET_AGAIN}")
