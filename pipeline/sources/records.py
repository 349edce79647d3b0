"""The records of a WARC (WAT, WET) or ARC file, from its first to its last byte, whatever is broken.

WARC: ISO 28500 (versions 0.17 to 1.1), also with line feeds alone as older crawlers wrote it. ARC:
versions 1 and 2. Where a record's length is wrong, the head of the next one says where it ends; where
a head is none, reading goes on at the next that is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.sources.members import Progress, read_pieces
from pipeline.sources.tape import Tape
from pipeline.tally import Tally
from wit.errors import UserError

LARGEST_HEAD = 2**16  # bytes
LARGEST_BLOCK = 256 * 2**20  # bytes of a record that is of use
HELD_BLOCK = 8 * 2**20  # bytes of a record of no use up to which its length is checked
SEARCHED = 16 * 2**20  # bytes in which a file's first record has to start

_WARC_VERSION = re.compile(rb"WARC/[01]\.[0-9]+[ \t]*\r?\n")
_ARC_HEAD = re.compile(
    rb"([a-zA-Z][a-zA-Z0-9+.-]*:[^\n]*?) [0-9a-fA-F.:-]+ [0-9]{8,18} ([^ \n]+)(?: [^\n]*?)? "
    rb"(-?[0-9]+)\r?\n"
)
_NEXT_WARC = re.compile(rb"(?:\A|\n)(WARC/[01]\.[0-9]+[ \t]*\r?\n)")
_NEXT_ARC = re.compile(rb"(?:\A|\n)(" + _ARC_HEAD.pattern + rb")")
_FIELD = re.compile(
    rb"^(WARC-Type|WARC-Target-URI|Content-Type|Content-Length)[ \t]*:[ \t]*([^\r\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_SPACE = re.compile(rb"[\r\n \t\0]*")
_HEAD_END = re.compile(rb"\r?\n\r?\n")


@dataclass(slots=True)
class Record:
    """One record.

    Attributes:
        offset: byte in the file as stored: of its member, of itself in a plain file.
        kind: its WARC-Type in lower case; `arc` for those of an ARC file.
        url: its target, without angle brackets; empty where it has none.
        content_type: in lower case, without parameters.
        block: what it holds; empty where `wanted` said that its kind is of no use.
    """

    offset: int
    kind: str
    url: str
    content_type: str
    block: bytes


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
    """Yields every record; counts faults with their offset.

    Args:
        file: opened to read bytes, seekable.
        name: of the file, for errors.
        tally: counts records and faults.
        progress: is told the bytes read.
        wanted: whether a record of (kind, content_type) is of use; the others' blocks are passed.

    Raises:
        UserError: if there is no record in the file (or its first 16 MiB).
    """
    tape = Tape(read_pieces(file, name, tally, progress))
    tape.fill(512)
    opening = tape.data[:512]
    parse: Callable[[Tape], _Head | None] | None = None
    while True:
        _pass_space(tape)
        if not tape.left:
            if tape.at_void:
                tape.pass_void()
                continue
            break
        offset = tape.offset
        head = None
        for candidate in (parse,) if parse else (_parse_warc, _parse_arc):
            head = head or candidate(tape)
            parse = candidate if head and not parse else parse
        if head is None:
            cut = tape.at_end and tape.left < LARGEST_HEAD and _is_head_start(tape)
            tally.fault(offset, "cut_record" if cut else "bad_record")
            if cut or not _find_head(tape, parse):
                break
            continue
        tape.at += head.size
        tally.see("records")
        use = wanted(head.kind, head.content_type)
        block = _read_block(tape, head, use, parse is _parse_warc, offset, tally)
        if block is not None:
            yield Record(offset, head.kind, head.url, head.content_type, block)
    if parse is None:
        raise UserError(_describe(name, opening))


def _pass_space(tape: Tape) -> None:
    while True:
        tape.at = _SPACE.match(tape.data, tape.at).end()
        if tape.left or not tape.grow():
            return


def _parse_warc(tape: Tape) -> _Head | None:
    """The head at `at`; None if there is none, or only a part of one at the file's end."""
    tape.fill(16)
    version = _WARC_VERSION.match(tape.data, tape.at)
    if version is None:
        return None
    while True:
        end = _HEAD_END.search(tape.data, tape.at, tape.at + LARGEST_HEAD)
        if end:
            break
        if tape.left >= LARGEST_HEAD or not tape.grow():
            return None
        version = _WARC_VERSION.match(tape.data, tape.at)
    fields = {}
    for key, value in _FIELD.findall(tape.data, version.end(), end.end()):
        fields.setdefault(key.lower(), value.strip())
    length = fields.get(b"content-length", b"")
    if not length.isdigit() or len(length) > 18:
        return None
    url = fields.get(b"warc-target-uri", b"").decode("utf-8", "replace").strip()
    if url.startswith("<") and url.endswith(">"):
        url = url[1:-1]
    return _Head(
        kind=fields.get(b"warc-type", b"").decode("latin-1").lower(),
        url=url,
        content_type=_type_of(fields.get(b"content-type", b"")),
        length=int(length),
        size=end.end() - tape.at,
    )


def _parse_arc(tape: Tape) -> _Head | None:
    """The head (one line) at `at`; None if there is none."""
    while b"\n" not in tape.data[tape.at : tape.at + LARGEST_HEAD]:
        if tape.left >= LARGEST_HEAD or not tape.grow():
            return None
    head = _ARC_HEAD.match(tape.data, tape.at)
    if head is None or len(head[3]) > 18:
        return None
    return _Head(
        kind="arc",
        url=head[1].decode("utf-8", "replace"),
        content_type=_type_of(head[2]),
        length=int(head[3]),
        size=len(head[0]),
    )


def _type_of(value: bytes) -> str:
    return value.partition(b";")[0].strip().decode("latin-1").lower()


def _is_head_start(tape: Tape) -> bool:
    """Whether the rest of the file is the start of a head."""
    rest = tape.data[tape.at : tape.at + 5]
    return b"WARC/".startswith(rest) or rest == b"WARC/"


def _read_block(
    tape: Tape, head: _Head, use: bool, is_warc: bool, offset: int, tally: Tally
) -> bytes | None:
    """The block after a head; passes it and what separates it from the next record.

    None where it is lost: damaged, or larger than what is kept.
    """
    if head.length > (LARGEST_BLOCK if use else HELD_BLOCK):
        if use:
            tally.fault(offset, "record_too_large")
        if not tape.skip(head.length) and not tape.at_void:
            tally.fault(offset, "cut_record" if tape.at_end else "bad_length")
        return None if use else b""
    whole = tape.fill(max(head.length, 0), stop_at_record=is_warc)
    if not whole and tape.at_void:
        tape.pass_void()
        return None
    begin = tape.at
    next_head = _NEXT_WARC if is_warc else _NEXT_ARC
    if whole and head.length >= 0 and _ends_well(tape, head.length, is_warc):
        begin = tape.at
        end = begin + head.length
    else:
        begin = tape.at
        found = next_head.search(tape.data, begin, begin + max(head.length, 0)) if begin else None
        found = found or next_head.search(tape.data[begin:])
        ...
    return b""
