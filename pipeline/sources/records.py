"""The records of a WARC (WAT, WET) or ARC file, from its first to its last byte, damaged or not.

WARC: ISO 28500 (versions 0.17 to 1.1), also with line feeds alone as older crawlers wrote it. ARC:
versions 1 and 2. Where a record's length is wrong, the head of the next one says where it ends;
where a head is none, reading goes on at the next that is one.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.sources.members import Progress, read_pieces
from pipeline.sources.tape import Tape
from pipeline.tally import Tally
from wit.errors import UserError

LARGEST_HEAD = 2**16  # bytes
LARGEST_BLOCK = 64 * 2**20  # bytes of a record that is of use
HELD_BLOCK = 8 * 2**20  # bytes of a record of no use up to which its length is checked
SEARCHED = 16 * 2**20  # bytes in which a file's first record has to start

_WARC_VERSION = re.compile(rb"WARC/[01]\.[0-9]+[ \t\r]*\n")
_NEXT_WARC = re.compile(rb"(?<![^\n])WARC/[01]\.[0-9]+[ \t\r]*\n")
_ARC_LINE = re.compile(rb"[a-zA-Z][a-zA-Z0-9+.-]{1,15}:[^\n]{3,8192}\n")
_NEXT_ARC = re.compile(rb"(?<![^\n])" + _ARC_LINE.pattern)
_ARC_ADDRESS = re.compile(rb"[0-9a-fA-F.:]+$|-$")
_LONGEST_LINE = 8192 + 32
_FIELD = re.compile(
    rb"^(WARC-Type|WARC-Target-URI|Content-Type|Content-Length)[ \t]*:([^\r\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_USUAL = tuple(
    (name.lower(), b"\n" + name + b": ")
    for name in (b"WARC-Type", b"WARC-Target-URI", b"Content-Type", b"Content-Length")
)
_SPACE = re.compile(rb"[\r\n \t\0]*")
_HEAD_END = re.compile(rb"\n\r*\n")


@dataclass(slots=True)
class Record:
    """One record.

    Attributes:
        offset: byte in the file as stored: of its member, of itself in a plain file.
        kind: its WARC-Type in lower case; `arc` for those of an ARC file.
        url: its target, without angle brackets; empty where it has none.
        content_type: in lower case, without parameters.
        block: what it holds.
    """

    offset: int
    kind: str
    url: str
    content_type: str
    block: memoryview


@dataclass(slots=True)
class _Head:
    kind: str
    url: str
    content_type: str
    length: int  # below 0 where the record does not say
    size: int  # of the head itself


def read_records(
    file: BinaryIO,
    name: str,
    tally: Tally,
    progress: Progress = lambda _: None,
    wanted: Callable[[str, str], bool] = lambda kind, content_type: True,
) -> Iterator[Record]:
    """Yields the records of use; counts all, and faults with their offset.

    Args:
        file: opened to read bytes, seekable.
        name: of the file, for errors.
        tally: counts records and faults.
        progress: is told the bytes read.
        wanted: whether a record of (kind, content_type) is of use; others are passed.

    Raises:
        UserError: if there is no record in the file (or its first 16 MiB).
    """
    tape = Tape(read_pieces(file, name, tally, progress))
    tape.grow()
    opening = bytes(tape.data[:512])
    is_warc: bool | None = None
    while True:
        _pass_space(tape)
        if not tape.left:
            if tape.at_void:
                tape.pass_void()
                continue
            break
        offset = tape.offset
        head = _parse_warc(tape) if is_warc is not False else None
        if head is None and not is_warc:
            head = _parse_arc(tape)
        if head is None:
            cut = tape.at_end and tape.left < LARGEST_HEAD and _is_cut_head(tape, is_warc is False)
            if not (cut and tape.cut):
                tally.fault(offset, "cut_record" if cut else "bad_record")
            dialects = (True, False) if is_warc is None else (is_warc,)
            if cut or not _find_head(tape, dialects, SEARCHED if is_warc is None else None):
                break
            continue
        is_warc = head.kind != "arc"
        tape.at += head.size
        tally.see("records")
        use = wanted(head.kind, head.content_type)
        block = _read_block(tape, head, use, is_warc, offset, tally)
        if use and block is not None:
            yield Record(offset, head.kind, head.url, head.content_type, block)
    if is_warc is None:
        raise UserError(_describe(name, opening))


def _pass_space(tape: Tape) -> None:
    while True:
        if tape.at < len(tape.data):
            tape.at = _SPACE.match(tape.data, tape.at).end()
        if tape.at < len(tape.data) or not tape.grow():
            return


def _parse_warc(tape: Tape) -> _Head | None:
    """The head at `at`; None if there is none, or only a part of one at the file's end."""
    if tape.left < 16:
        tape.fill(16)
    version = _WARC_VERSION.match(tape.data, tape.at)
    if version is None:
        return None
    end = tape.data.find(b"\r\n\r\n", tape.at, tape.at + LARGEST_HEAD) + 4
    while end == 3 or not version[0].endswith(b"\r\n"):
        blank = _HEAD_END.search(tape.data, version.end() - 1, tape.at + LARGEST_HEAD)
        if blank:
            end = blank.end()
            break
        if tape.left >= LARGEST_HEAD or not tape.grow():
            return None
        version = _WARC_VERSION.match(tape.data, tape.at)
    fields = _read_fields(tape.data, version.end(), end)
    length = fields.get(b"content-length", b"")
    if not length.isdigit() or len(length) > 18:
        return None
    url = fields.get(b"warc-target-uri", b"").decode("utf-8", "replace").strip()
    if url.startswith("<") and url.endswith(">"):
        url = url[1:-1]
    return _Head(
        kind=_type_of(fields.get(b"warc-type", b"")),
        url=url,
        content_type=_type_of(fields.get(b"content-type", b"")),
        length=int(length),
        size=end - tape.at,
    )


def _read_fields(data: bytes, start: int, end: int) -> dict[bytes, bytes]:
    """The fields of a head that matter, by lower-case names; of equal names the first."""
    fields = {}
    for name, written in _USUAL:
        at = data.find(written, start - 1, end)
        if at < 0:
            break
        at += len(written)
        fields[name] = bytes(data[at : data.find(b"\n", at, end)].strip())
    else:
        return fields
    fields = {}
    for key, value in _FIELD.findall(data[start:end]):
        fields.setdefault(key.lower(), value.strip())
    return fields


def _parse_arc(tape: Tape) -> _Head | None:
    """The head (one line) at `at`; None if there is none."""
    while tape.left < _LONGEST_LINE and b"\n" not in tape.data[tape.at :] and tape.grow():
        pass
    line = _ARC_LINE.match(tape.data, tape.at)
    return _arc_head(line[0]) if line else None


def _arc_head(line: bytes) -> _Head | None:
    """`URL address date type length`, or version 2's with five more fields before the length."""
    fields = line.strip().split(b" ")
    for url_end in (len(fields) - 4, len(fields) - 9):
        if (
            url_end > 0
            and _ARC_ADDRESS.match(fields[url_end])
            and fields[url_end + 1].isdigit()
            and 8 <= len(fields[url_end + 1]) <= 18
            and fields[-1].removeprefix(b"-").isdigit()
            and len(fields[-1]) <= 18
        ):
            return _Head(
                kind="arc",
                url=b" ".join(fields[:url_end]).decode("utf-8", "replace"),
                content_type=_type_of(fields[url_end + 2]),
                length=int(fields[-1]),
                size=len(line),
            )
    return None


@functools.lru_cache(1024)
def _type_of(value: bytes) -> str:
    return value.partition(b";")[0].strip().decode("latin-1").lower()


def _is_cut_head(tape: Tape, is_arc: bool) -> bool:
    """Whether the rest of the file is the start of a head."""
    rest = tape.data[tape.at : tape.at + LARGEST_HEAD]
    if is_arc:
        return b"\n" not in rest
    return b"WARC/".startswith(rest[:5]) and not _HEAD_END.search(rest)


def _find_next(tape: Tape, start: int, is_warc: bool) -> int:
    """The place in the window, from `start` on, of the next head; -1 if there is none."""
    if is_warc:
        found = _NEXT_WARC.search(tape.data, start)
        return found.start() if found else -1
    for line in _NEXT_ARC.finditer(tape.data, start):
        if _arc_head(line[0]):
            return line.start()
    return -1


def _find_head(tape: Tape, dialects: tuple[bool, ...], most: int | None) -> bool:
    """Passes what is no head; False if none follows (in the next `most` bytes)."""
    start = tape.at + 1
    passed = 0
    while True:
        places = [place for d in dialects if (place := _find_next(tape, start, d)) >= 0]
        if places:
            tape.at = min(places)
            return True
        if tape.at_void:
            tape.pass_void()
            return True
        if tape.at_record:
            tape.at = len(tape.data)
            return True
        passed += tape.left
        if most is not None and passed > most:
            return False
        tape.at = max(tape.at, len(tape.data) - _LONGEST_LINE)
        if not tape.grow():
            return False
        start = tape.at


def _read_block(
    tape: Tape, head: _Head, use: bool, is_warc: bool, offset: int, tally: Tally
) -> memoryview | None:
    """The block after a head; None where it is lost: damaged, or larger than what is kept."""
    if head.length > (LARGEST_BLOCK if use else HELD_BLOCK):
        if use:
            tally.fault(offset, "record_too_large")
        if not tape.skip(head.length) and not tape.at_void:
            tally.fault(offset, "cut_record" if tape.at_end else "bad_length")
        return None
    whole = head.length <= tape.left or tape.fill(head.length, stop_at_record=is_warc)
    if not whole and tape.at_void:
        tape.pass_void()
        return None
    if whole and head.length >= 0 and _ends_well(tape, head.length, is_warc):
        end = tape.at + head.length
    else:
        end = _find_next(tape, tape.at, is_warc)
        while end < 0 and whole and tape.left < LARGEST_BLOCK:
            start = max(0, tape.left - _LONGEST_LINE)
            if not tape.grow():
                break
            end = _find_next(tape, tape.at + start, is_warc)
        cut = end < 0 and not whole and tape.at_end
        if not (cut and tape.cut):
            tally.fault(offset, "cut_record" if cut else "bad_length")
        if end < 0:
            end = len(tape.data)
    block = memoryview(tape.data)[tape.at : end]
    tape.at = end
    return block


def _ends_well(tape: Tape, length: int, is_warc: bool) -> bool:
    """Whether white space, then a head or the member's or file's end follow the block at `at`."""
    end = tape.at + length
    if tape.data.startswith(b"\r\n\r\n", end):
        return True  # what follows, a head or junk, stands for itself
    while True:
        end = _SPACE.match(tape.data, tape.at + length).end()
        if end < len(tape.data):
            break
        if tape.at_member or not tape.grow():
            return True
    needed = 5 if is_warc else _LONGEST_LINE
    tape.fill(end - tape.at + needed)
    end = _SPACE.match(tape.data, tape.at + length).end()
    if is_warc:
        return tape.data.startswith(b"WARC/", end)
    line = _ARC_LINE.match(tape.data, end)
    return line is not None and _arc_head(line[0]) is not None


def _describe(name: str, opening: bytes) -> str:
    """Says what a file without records seems to be."""
    start = opening.lstrip()[:15].lower()
    if not start:
        what = "nothing in it can be unpacked"
    elif start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        what = "it is an HTML or XML page (an error page of the server?)"
    elif start.startswith(b"PAR1".lower()):
        what = "it is a Parquet table; name it .parquet"
    else:
        what = f"it starts with {opening[:24]!r}"
    return f"{name}: no WARC or ARC record in it: {what}; check where it came from, get it again"
