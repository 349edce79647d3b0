"""Tables that are text: CSV, TSV and JSON lines, plain or packed."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import threading
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv as pv

from pipeline.sources.columns import Rows, choose_columns, choose_numbers, listed, to_strings
from pipeline.sources.members import Piece, Progress, read_pieces
from pipeline.sources.source import Source
from pipeline.tally import Tally
from wit.errors import UserError

BATCH_ROWS = 16 * 1024
BLOCK = 2**20  # bytes of text parsed at a time, of which Arrow reads 32 ahead; the longest row
SAMPLE = 64 * 1024  # bytes in which the first row ends
LOOKED_AT = 100  # rows of JSON whose keys are the columns
LINES_WITHOUT_ROW = 1000  # after so many lines, none of them an object, a file is no JSON lines
DELIMITERS = {"csv": ",", "tsv": "\t"}
BOM = "\ufeff".encode()
WIDE_BOM = "\ufffd\ufffd".encode()  # what is left of UTF-16's
LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


class _Text(io.RawIOBase):
    """What a file holds, unpacked, as good UTF-8. Damage ends it, after `cut_end`.

    Of a cut file that is all that can be unpacked of it. In gzip, damage may be noticed late, even
    only at the end of the member: rows that were unpacked up to there may be wrong.

    Arrow tells of a bad row only if it is good UTF-8, so U+FFFD is put in before it parses.

    Attributes:
        broken: whether damage ended it, once its end was seen.
    """

    def __init__(self, pieces: Iterator[Piece], cut_end: bytes) -> None:
        self._pieces, self._cut_end = pieces, cut_end
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = b""
        self._ended = False
        self.broken = False

    def peek(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        while len(self._held) < size and not self._ended:
            piece = next(self._pieces, None)
            self.broken = piece is not None and (piece.cut or piece.data is None)
            self._ended = piece is None or self.broken
            data = (piece.data or piece.rest) if piece else b""
            self._held += self._decoder.decode(data, final=self._ended).encode()
            if self.broken:
                self._held += self._cut_end
        return self._held[:size]

    def read(self, size: int = -1) -> bytes:
        data = self.peek(size)
        self._held = self._held[len(data) :]
        return data

    def readinto(self, buffer: memoryview) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readable(self) -> bool:
        return True


def read_text(source: Source, file: BinaryIO, tally: Tally, progress: Progress) -> Iterator[Rows]:
    """Yields the rows of a CSV or TSV file, or of JSON lines; counts those that cannot be read.

    Raises:
        UserError: if the file is no such table, or lacks the columns.
    """
    # Arrow reads ahead in a thread of its own: what the file tells while it is read waits here.
    faults, done = Tally(), [0]
    pieces = read_pieces(file, source.path, faults, lambda n: done.__setitem__(0, n))
    if source.format == "jsonl":
        batches = _read_lines(source, _Text(pieces, b""), tally)
    else:
        delimiter = DELIMITERS[source.format or "csv"]
        # In quotes or not, a row that the file's damage cuts gets too many fields.
        ending = b'x"' + delimiter.encode() * SAMPLE
        batches = _read_delimited(source, _Text(pieces, ending), delimiter, tally)
    for rows in batches:
        yield rows
        progress(done[0])
    progress(done[0])
    tally.merge(faults)


class _BadRows:
    """The numbers of the rows that cannot be read; Arrow tells them from threads of its own."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._lock = threading.Lock()
        self._runs: list[list[int]] = []  # the first, how many; those yet to be passed
        self.next = 0  # the number of the next row, if that can be read

    def skip(self, invalid: pv.InvalidRow) -> str:
        """Notes a row; Arrow counts from 1."""
        number = invalid.number - 1
        with self._lock:
            self._tally.fault(number, "bad_row")
            if self._runs and sum(self._runs[-1]) == number:
                self._runs[-1][1] += 1
            else:
                self._runs.append([number, 1])
        return "skip"

    def take(self, n: int) -> np.ndarray:
        """Returns int64 [n]: the numbers of the next rows that can be read."""
        with self._lock:
            starts, lengths = np.array(self._runs, np.int64).reshape(-1, 2).T
            passed = np.concatenate([[0], np.cumsum(lengths)])
            good = np.arange(n)
            before = np.searchsorted(starts - self.next - passed[:-1], good, "right")
            numbers = self.next + good + passed[before]
            self.next += n + int(passed[before[-1]])
            del self._runs[: before[-1]]
        return numbers


def _read_delimited(source: Source, text: _Text, delimiter: str, tally: Tally) -> Iterator[Rows]:
    width, columns = _start(source, text, delimiter)
    if not text.peek(1):
        return
    quoted = source.format == "csv"
    names = [str(i) for i in columns]
    bad = _BadRows(tally)
    options = {
        "read_options": pv.ReadOptions(
            use_threads=False, block_size=BLOCK, column_names=[str(i) for i in range(width)]
        ),
        "parse_options": pv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if quoted else False,
            newlines_in_values=quoted,
            invalid_row_handler=bad.skip,
        ),
        "convert_options": pv.ConvertOptions(
            include_columns=list(dict.fromkeys(names)),
            column_types=dict.fromkeys(names, pa.binary()),
            strings_can_be_null=False,
            check_utf8=False,
        ),
    }
    try:
        for batch in pv.open_csv(pa.PythonFile(text, mode="r"), **options):
            for begin in range(0, len(batch), BATCH_ROWS):
                part = batch.slice(begin, BATCH_ROWS)
                raw, texts = (to_strings(part.column(name)) for name in names)
                yield Rows(bad.take(len(part)), raw, texts)
    except pa.ArrowInvalid as error:
        if not bad.next:
            said = listed([str(error)])
            raise UserError(f"{source.path}: not a readable table ({said})") from error
        tally.fault(bad.next, "bad_block")


def _start(source: Source, text: _Text, delimiter: str) -> tuple[int, tuple[int, int]]:
    """Passes a header; returns how many columns there are, and the URL's and the text's."""
    sample = text.peek(SAMPLE)
    if sample.startswith(WIDE_BOM) and b"\0" in sample[:16]:
        raise UserError(f"{source.path}: is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 FILE")
    lines = LINE.findall(sample.removeprefix(BOM))
    style = csv.QUOTE_MINIMAL if source.format == "csv" else csv.QUOTE_NONE
    rows = csv.reader(
        (line.decode("utf-8", "replace") for line in lines), delimiter=delimiter, quoting=style
    )
    passed, fields = 0, []
    while not fields:
        passed = rows.line_num
        try:
            fields = next(rows)
        except (csv.Error, StopIteration):
            raise UserError(f"{source.path}: no row in its first {SAMPLE:,} bytes") from None
    if text.broken and rows.line_num == len(lines):
        raise UserError(f"{source.path}: damaged or cut off in its first row; get it again")
    columns = choose_numbers(source, fields)
    if columns is None:
        columns = choose_columns(source, [field.strip() for field in fields])
        passed = rows.line_num
    text.read(len(sample) - sum(map(len, lines[passed:])))
    return len(fields), columns


def _read_lines(source: Source, text: _Text, tally: Tally) -> Iterator[Rows]:
    columns: list[str] = []
    held: list[tuple[int, dict]] = []
    if text.peek(len(BOM)) == BOM:
        text.read(len(BOM))
    for number, line in enumerate(_lines(text)):
        row = _parse(line)
        if row is not None:
            held.append((number, row))
        else:
            tally.fault(number, "bad_row")
            if number >= LINES_WITHOUT_ROW and not columns and not held:
                break
        if not columns and len(held) == min(LOOKED_AT, BATCH_ROWS):
            columns = _keys(source, held)
        if len(held) == BATCH_ROWS:
            yield _values(held, columns)
            held = []
    if not columns:
        columns = _keys(source, held)
    if held:
        yield _values(held, columns)


def _lines(text: _Text) -> Iterator[bytes]:
    """Yields the lines that are not empty; of one longer than BLOCK its first bytes."""
    buffered = io.BufferedReader(text, BLOCK)
    while line := buffered.readline(BLOCK):
        rest = line
        while len(rest) == BLOCK and not rest.endswith(b"\n"):
            rest = buffered.readline(BLOCK)
        if not line.isspace():
            yield line


def _parse(line: bytes) -> dict | None:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:  # Python writes NaN, and halves of surrogate pairs
            row = json.loads(line.decode())
        except (ValueError, RecursionError):
            return None
    return row if isinstance(row, dict) else None


def _keys(source: Source, rows: list[tuple[int, dict]]) -> list[str]:
    """Returns the keys of the URL and the text, of all that the rows have."""
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    if not rows:
        raise UserError(f"{source.path}: no line of it is a JSON object; check the file")
    return [names[i] for i in choose_columns(source, names)]


def _values(rows: list[tuple[int, dict]], columns: list[str]) -> Rows:
    """Returns the rows' texts; null where a row has none, or something else."""
    numbers = np.array([number for number, _ in rows], np.int64)
    arrays = []
    for name in columns:
        values = [v if isinstance(v := row.get(name), str) else None for _, row in rows]
        try:
            arrays.append(pa.array(values, pa.string()))
        except UnicodeEncodeError:  # halves of surrogate pairs, which JSON can write
            whole = [v and v.encode("utf-16", "surrogatepass") for v in values]
            clean = [v and v.decode("utf-16", "replace") for v in whole]
            arrays.append(pa.array(clean, pa.string()))
    return Rows(numbers, *arrays)
