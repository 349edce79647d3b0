"""Pairs out of tables of (url, text), as Conceptual Captions, COYO and LAION publish them.

Parquet, CSV, TSV and JSON lines, the last three also in gzip or zstd. A row that cannot be read is a
fault of its table; every other row is one link with one outcome.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.parquet as pq
import zstandard

from pipeline.extract import urls
from pipeline.extract.strings import tidy_all
from pipeline.sources.members import Progress
from pipeline.sources.source import Source
from pipeline.tally import Tally
from wit import storage
from wit.errors import UserError
from wit.pairs import LINKS

BATCH_ROWS = 16 * 1024
BLOCK = 4 * 2**20  # bytes of text parsed at a time; the longest row that can be read
SAMPLE = 64 * 1024  # bytes in which the header is looked for
URL_NAMES = ("url", "image_url", "img_url", "image", "link", "src")
TEXT_NAMES = ("text", "caption", "alt", "alt_text", "title", "description")
DELIMITERS = {"csv": ",", "tsv": "\t"}
ABSENT = "it has {}; name them with --url-column and --text-column"


def read_table(source: Source, tally: Tally, progress: Progress) -> Iterator[pa.RecordBatch]:
    """Yields a table's pairs as LINKS: record_offset is the row, attribute is `caption`.

    Raises:
        UserError: if the file is no such table, or lacks the columns.
    """
    with storage.open_read(source.path) as file:
        counted = _Counted(file, progress)
        if source.format == "parquet":
            batches = _read_parquet(source, file, tally, progress)
        elif source.format == "jsonl":
            batches = _read_lines(source, _unpacked(source.path, counted), tally)
        else:
            batches = _read_delimited(source, _unpacked(source.path, counted), tally)
        row = 0
        for raw, texts in batches:
            yield _links(raw, texts, row, tally)
            row += len(raw)
    tally.see("records", row)
    tally.see("images", row)


def check_table(source: Source) -> None:
    """Opens a table as far as its columns.

    Raises:
        UserError: as `read_table` does.
    """
    for _ in read_table(source, Tally(), lambda done: None):
        return


def _links(raw: pa.Array, texts: pa.Array, first: int, tally: Tally) -> pa.RecordBatch:
    """Returns the rows with a text and a normal URL as LINKS, and counts all."""
    rows = np.arange(first, first + len(raw))
    texts = tidy_all(texts.fill_null(""))
    empty = pc.equal(texts, "").to_numpy(zero_copy_only=False)
    tally.add("no_text", int(empty.sum()))
    keep = pa.array(~empty)
    raw, texts, rows = raw.fill_null("").filter(keep), texts.filter(keep), rows[~empty]
    found, outcomes = urls.normalise(raw, np.zeros(len(raw), np.int64), [urls.Base()])
    counts = np.bincount(outcomes, minlength=len(urls.OUTCOMES)).tolist()
    for outcome, count in zip(urls.OUTCOMES, counts, strict=True):
        tally.add(outcome, count)
    fine = pa.array(outcomes == urls.EXTRACTED)
    n = int(np.sum(outcomes == urls.EXTRACTED))
    columns = [
        *(found.filter(fine), texts.filter(fine), pa.nulls(n, pa.string())),
        *(pa.array(["caption"]).take(pa.array(np.zeros(n, np.int64))), pa.array(rows).filter(fine)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=LINKS)


# --- columns ----------------------------------------------------------------------------------


def choose_columns(source: Source, names: list[str]) -> tuple[str, str]:
    """Returns the names of the URL's and the text's column: those asked for, or recognised.

    Raises:
        UserError: listing the columns that there are.
    """
    chosen = []
    for asked, known in ((source.url_column, URL_NAMES), (source.text_column, TEXT_NAMES)):
        lower = {name.lower(): name for name in reversed(names)}
        found = next((lower[name] for name in known if name in lower), None)
        name = asked if asked is not None else found
        if name is None or name not in names:
            what = f"no column {asked!r}" if asked else f"no column of {', '.join(known)}"
            raise UserError(f"{source.path}: {what}; " + ABSENT.format(", ".join(names)))
        chosen.append(name)
    return chosen[0], chosen[1]


# --- formats ----------------------------------------------------------------------------------


def _read_parquet(
    source: Source, file: BinaryIO, tally: Tally, progress: Progress
) -> Iterator[tuple[pa.Array, pa.Array]]:
    try:
        parquet = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        said = str(error).splitlines()[0]
        raise UserError(f"{source.path}: not a Parquet file ({said}); check the file") from error
    columns = choose_columns(source, parquet.schema_arrow.names)
    for group in range(parquet.num_row_groups):
        try:
            for batch in parquet.iter_batches(
                BATCH_ROWS, row_groups=[group], columns=list(columns)
            ):
                yield tuple(_strings(batch[name]) for name in columns)
        except (pa.ArrowException, OSError):
            tally.fault(group, "bad_block")
        progress(round((group + 1) / parquet.num_row_groups * (source.size or 0)))


def _read_delimited(
    source: Source, file: BinaryIO, tally: Tally
) -> Iterator[tuple[pa.Array, pa.Array]]:
    delimiter = DELIMITERS[source.format or "csv"]
    start = file.read(SAMPLE)
    quoted = source.format == "csv"
    header, names = _header(source, start, delimiter, quoted)
    columns = choose_columns(source, names)
    bad = 0

    def skip(row: pv.InvalidRow) -> str:
        nonlocal bad
        bad += 1
        tally.fault(row.number, "bad_row")
        return "skip"

    options = {
        "read_options": pv.ReadOptions(
            use_threads=False,
            block_size=BLOCK,
            column_names=None if header else names,
        ),
        "parse_options": pv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if quoted else False,
            newlines_in_values=quoted,
            invalid_row_handler=skip,
        ),
        "convert_options": pv.ConvertOptions(
            include_columns=list(columns),
            column_types=dict.fromkeys(columns, pa.binary()),
            strings_can_be_null=False,
            check_utf8=False,
        ),
    }
    try:
        reader = pv.open_csv(pa.PythonFile(_Joined(start, file), mode="r"), **options)
        for batch in reader:
            for begin in range(0, len(batch), BATCH_ROWS):
                part = batch.slice(begin, BATCH_ROWS)
                yield tuple(_strings(part[name]) for name in columns)
    except (EOFError, zlib.error, zstandard.ZstdError, gzip.BadGzipFile):
        tally.fault(None, "bad_block")
    except pa.ArrowException as error:
        said = str(error).splitlines()[0]
        raise UserError(f"{source.path}: not a readable table ({said}); check the file") from error


def _header(source: Source, start: bytes, delimiter: str, quoted: bool) -> tuple[bool, list[str]]:
    """Returns whether the first line is a header, and the columns' names.

    A line with an address in it is no header: the column that holds it is the URL's, and the text's
    is the only other, or the longest. Without a header columns may be asked for by number, from 0.
    """
    line = start.partition(b"\n")[0].decode("utf-8-sig", "replace").rstrip("\r")
    if not line.strip():
        raise UserError(
            f"{source.path}: the first line is empty; a table of (url, text) is expected"
        )
    fields = [f.strip().strip('"') if quoted else f for f in line.split(delimiter)]
    addresses = [i for i, f in enumerate(fields) if f.startswith(("http://", "https://"))]
    if not addresses:
        return True, fields
    names = [str(i) for i in range(len(fields))]
    others = [i for i in range(len(fields)) if i != addresses[0]]
    if source.url_column is None and source.text_column is None and others:
        names[addresses[0]] = "url"
        names[max(others, key=lambda i: len(fields[i]))] = "text"
    return False, names


def _read_lines(
    source: Source, file: BinaryIO, tally: Tally
) -> Iterator[tuple[pa.Array, pa.Array]]:
    columns: tuple[str, str] | None = None
    held: list[tuple[str | None, str | None]] = []
    try:
        for number, line in enumerate(io.BufferedReader(_Raw(file), BLOCK)):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                tally.fault(number, "bad_row")
                continue
            if columns is None:
                columns = choose_columns(source, list(row))
            held.append(tuple(v if isinstance(v := row.get(c), str) else None for c in columns))
            if len(held) >= BATCH_ROWS:
                yield _columns(held)
                held = []
    except (EOFError, zlib.error, zstandard.ZstdError, gzip.BadGzipFile):
        tally.fault(None, "bad_block")
    if columns is None:
        raise UserError(f"{source.path}: no line of it is a JSON object; check the file")
    yield _columns(held)


def _columns(rows: list[tuple[str | None, str | None]]) -> tuple[pa.Array, pa.Array]:
    raw, texts = zip(*rows, strict=True) if rows else ((), ())
    clean = [
        [v and v.encode("utf-8", "replace").decode() for v in column] for column in (raw, texts)
    ]
    return pa.array(clean[0], pa.string()), pa.array(clean[1], pa.string())


def _strings(values: pa.Array) -> pa.Array:
    """Returns string [n]; bytes that are not UTF-8 become U+FFFD."""
    if not (pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)):
        return values.cast(pa.string())
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        decoded = [v if v is None else v.decode("utf-8", "replace") for v in values.to_pylist()]
        return pa.array(decoded, pa.string())


# --- files ------------------------------------------------------------------------------------


class _Counted:
    """A file that says how far it was read."""

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self.file, self.progress, self.done = file, progress, 0

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.done += len(data)
        self.progress(self.done)
        return data


def _unpacked(path: str, file: _Counted) -> BinaryIO:
    """Returns the file's bytes, out of gzip or zstd where its name says so."""
    if path.endswith(".gz"):
        return gzip.GzipFile(fileobj=file)
    if path.endswith((".zst", ".zstd")):
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        return reader
    return file


class _Joined:
    """The bytes that were looked at, then the rest of the file."""

    def __init__(self, start: bytes, file: BinaryIO) -> None:
        self.start, self.file, self.closed = start, file, False

    def read(self, size: int = -1) -> bytes:
        if self.start:
            data, self.start = self.start[:size], self.start[size:]
            return data
        return self.file.read(size)

    def close(self) -> None:
        self.closed = True


class _Raw(io.RawIOBase):
    """A file with `read` as a raw stream, to be read by lines."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        data = self.file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
