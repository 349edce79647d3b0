"""Pieces of files as small files of their own: from the next record's start to the one after.

A WARC, WAT or ARC file is entered at the next member (or zstd frame) that unpacks to the start of a
record, or in a plain file at the next head; a Parquet table at a row; a text table at the next
line, its header put before. A file that is one gzip member from end to end, and a packed text
table, can be read from its start only: it gives its first bytes, as many as its pieces have.
"""

from __future__ import annotations

import contextlib
import io
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from pipeline.forecast.frame import READERS, Frame, Piece
from pipeline.sources import Source
from pipeline.sources.columns import choose_columns
from pipeline.sources.members import (
    DICTIONARY,
    GZIP,
    LOOKED_AT,
    RECORD_START,
    RESCAN,
    ZSTD,
    begin_gzip,
    begin_zstd,
    zstd_packer,
)
from pipeline.sources.text_tables import BATCH_ROWS, BLOCK, LINE
from pipeline.sources.web import WEB, open_source
from wit import storage
from wit.errors import UserError

TAIL = 256 * 1024  # bytes after a piece in which its last record's end is looked for at first
FARTHEST = 16 * 2**20  # bytes after which a file is taken to have no further record to enter at
# The head of a WARC record, or of one in an ARC file: URL, address, date, type, length.
_HEAD = re.compile(
    rb"(?<=\n)(?:WARC/[01]\.[0-9]|[a-z][a-z0-9+.-]{1,15}:[^ \n]{1,8192} [0-9a-fA-F.:-]{1,45} "
    rb"[0-9]{8,18} [^ \n]{1,255} [^\n]{0,255}[0-9]\r?\n)"
)


class Part(NamedTuple):
    """What was read of a piece.

    Attributes:
        data: a file with the records that begin in the piece; empty where none does.
        size: bytes that these take in the file it is from.
        source: how `data` is to be read, but for its path.
        added: whether a row of the table's start was put before, which is none of the piece's.
    """

    data: bytes
    size: float
    source: Source
    added: bool = False


def join_streams(frame: Frame, pieces: list[Piece]) -> list[Piece]:
    """Returns the pieces, those of a file that can be read from its start only as one."""
    paths = {p.source for p in pieces if p.start > 0 or p.end < frame.sizes[p.source]}
    with ThreadPoolExecutor(READERS) as threads:
        found = threads.map(lambda s: _is_stream(frame.sources[s], int(frame.sizes[s])), paths)
        streams = {source for source, is_one in zip(paths, found, strict=True) if is_one}
    joined = [piece for piece in pieces if piece.source not in streams]
    for source in streams:
        own = [piece for piece in pieces if piece.source == source]
        end = sum(piece.end - piece.start for piece in own)
        joined.append(Piece(source, own[0].chunk, 0, end, stream=True))
    return sorted(joined, key=lambda piece: (piece.chunk, piece.source))


def _is_stream(source: Source, size: int) -> bool:
    """Whether a packed file has no place but its start where it can be entered."""
    if source.format == "parquet":
        return False
    head = read_range(source.path, 0, min(size, 8))
    if source.kind == "table":
        return head.startswith((GZIP, ZSTD))
    look = TAIL
    while True:
        data = read_range(source.path, 0, min(size, look))
        if record_start(data, 1, head, _dictionary(data)) is not None:
            return False
        if look >= min(size, FARTHEST):
            return True
        look *= 4


def _dictionary(data: bytes) -> bytes:
    """Returns the frame with the dictionary of a .warc.zst that starts with one; else nothing."""
    size = int.from_bytes(data[4:8], "little") + 8 if data.startswith(DICTIONARY) else 0
    return data[: min(size, RESCAN)]


def read_piece(frame: Frame, piece: Piece) -> Part:
    """Reads a piece; over a network little more than its own bytes.

    Raises:
        UserError: if its file cannot be read.
    """
    source = frame.sources[piece.source]
    size = int(frame.sizes[piece.source])
    if source.kind != "table":
        return _read_crawl(source, size, piece)
    if source.format == "parquet":
        return _read_rows(source, size, piece)
    return _read_lines(source, size, piece)


def read_range(path: str, start: int, end: int) -> bytes:
    """Returns the bytes [start, end) of a file of the inputs, local or remote."""
    if path.startswith(WEB):
        with open_source(path) as file:
            file.seek(start)
            return file.read(end - start)
    return storage.read_bytes(path, start, end)


# --- WARC, WAT, ARC ---------------------------------------------------------------------------


def _read_crawl(source: Source, size: int, piece: Piece) -> Part:
    if piece.stream:
        data = read_range(source.path, 0, piece.end)
        return Part(data, float(len(data)), source)
    head = read_range(source.path, 0, min(size, 8))
    dictionary = b""
    if head.startswith(DICTIONARY):
        length = int.from_bytes(head[4:8], "little") + 8
        dictionary = read_range(source.path, 0, min(size, length, RESCAN))
    begin = max(0, piece.start - 1)  # in a plain file a head is known by the line end before it
    tail = TAIL
    while True:
        stop = min(size, piece.end + tail)
        data = read_range(source.path, begin, stop)
        first = record_start(data, piece.start - begin, head, dictionary) if piece.start else 0
        last = record_start(data, piece.end - begin, head, dictionary)
        last = len(data) if piece.end == size else last
        if (first is not None and last is not None) or stop == size or tail >= FARTHEST:
            break
        tail *= 4
    last = len(data) if last is None else last
    found = data[last if first is None else first : last]
    before = dictionary if piece.start else b""
    return Part(before + found if found else b"", float(len(found)), source)


def record_start(data: bytes, at: int, head: bytes, dictionary: bytes = b"") -> int | None:
    """Returns the place, from `at` on, where a record can be entered; None if there is none.

    Args:
        data: a part of a WARC, WAT or ARC file.
        at: from where on.
        head: the file's first bytes, by which it is known how it is packed.
        dictionary: the skippable frame with which a packed file starts, if it does.
    """
    packed = GZIP if head.startswith(GZIP) else ZSTD if head[:4] in (ZSTD, DICTIONARY) else b""
    if not packed:
        found = _HEAD.search(data, at)
        return found.start() if found else None
    start_of = begin_gzip if packed is GZIP else partial(begin_zstd, zstd_packer(dictionary[8:]))
    place = data.find(packed, at)
    while place >= 0:
        with contextlib.suppress(zlib.error, zstandard.ZstdError):
            if RECORD_START.match(start_of(data[place : place + LOOKED_AT])):
                return place
        place = data.find(packed, place + 1)
    return None


# --- tables -----------------------------------------------------------------------------------


def _read_rows(source: Source, size: int, piece: Piece) -> Part:
    """Reads the rows of a Parquet table that lie where the piece does, if rows are equally long."""
    with open_source(source.path) as file:
        try:
            parquet = pq.ParquetFile(file, buffer_size=2**20)
            names = parquet.schema_arrow.names
            columns = [names[i] for i in choose_columns(source, names)]
            rows = parquet.metadata.num_rows
            first, last = (-(-place * rows // size) for place in (piece.start, piece.end))
            held, row = [], 0
            for group in range(parquet.metadata.num_row_groups):
                end = row + parquet.metadata.row_group(group).num_rows
                if end > first and row < last:
                    at = row
                    for batch in parquet.iter_batches(
                        BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False
                    ):
                        begin, stop = max(first - at, 0), min(last - at, len(batch))
                        if begin < stop:
                            held.append(batch.slice(begin, stop - begin))
                        at += len(batch)
                        if at >= last:
                            break
                row = end
        except (pa.ArrowException, OSError) as error:
            said = " ".join(str(error).split())
            raise UserError(f"{source.path}: cannot be sampled ({said}); check the file") from error
    if not held:
        return Part(b"", 0.0, source)
    stored = io.BytesIO()
    pq.write_table(pa.Table.from_batches(held), stored)
    return Part(stored.getvalue(), (last - first) * size / rows, source)


def _read_lines(source: Source, size: int, piece: Piece) -> Part:
    if piece.stream:
        data = read_range(source.path, 0, piece.end)
        return Part(data, float(len(data)), source)
    begin = max(0, piece.start - 1)  # so that a line that begins at the piece's start is its own
    data = read_range(source.path, begin, min(size, piece.end + BLOCK))
    first = _next_line(data, 0) if piece.start else 0
    last = len(data) if piece.end >= size else _next_line(data, piece.end - 1 - begin)
    found = data[first:last]
    if not piece.start or not found or source.format == "jsonl":
        return Part(found, float(len(found)), source)
    line = LINE.match(read_range(source.path, 0, min(size, 64 * 1024)))
    start = line[0] if line else b""
    asked = [name for name in (source.url_column, source.text_column) if name is not None]
    headless = b"http://" in start or b"https://" in start
    headless |= bool(asked) and all(name.isdecimal() for name in asked)
    return Part(start + found, float(len(found)), source, added=headless)


def _next_line(data: bytes, at: int) -> int:
    found = data.find(b"\n", at)
    return found + 1 if found >= 0 else len(data)


def first_record(part: Part) -> Part:
    """Returns a part with its first record or rows alone: what a file costs however small it is."""
    if part.source.kind != "table":
        end = record_start(part.data, 1, part.data[:8])
        return part._replace(data=part.data[:end], size=float(end or len(part.data)))
    if part.source.format == "parquet":
        table = pq.read_table(io.BytesIO(part.data)).slice(0, 1)
        stored = io.BytesIO()
        pq.write_table(table, stored)
        return part._replace(data=stored.getvalue(), size=part.size)
    if part.data.startswith((GZIP, ZSTD)):
        return part
    end = _next_line(part.data, _next_line(part.data, 0))
    return part._replace(data=part.data[:end], size=float(end))


def written(part: Part, path: str) -> Source:
    """Writes a part's data to a local file; how it is read."""
    storage.write_bytes(path, part.data)
    return replace(part.source, path=path, size=len(part.data))
