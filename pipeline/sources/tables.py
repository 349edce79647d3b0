"""Pairs out of tables of (url, text), as Conceptual Captions, COYO and LAION publish them.

Parquet, CSV, TSV and JSON lines, the last three also in gzip or zstd. A row that cannot be read is
a fault of its table; every other row is one link with one outcome. Rows are numbered from 0, those
that cannot be read too, headers and empty lines not.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.extract import urls
from pipeline.extract.strings import tidy_all
from pipeline.sources.columns import Rows, choose_columns, listed, to_strings
from pipeline.sources.members import Progress
from pipeline.sources.source import Source
from pipeline.sources.text_tables import BATCH_ROWS, read_text
from pipeline.sources.web import open_source
from pipeline.tally import Tally
from wit.errors import UserError
from wit.pairs import LINKS


def read_table(source: Source, tally: Tally, progress: Progress) -> Iterator[pa.RecordBatch]:
    """Yields a table's pairs as LINKS: record_offset is the row, attribute is `caption`.

    Raises:
        UserError: if the file is no such table, or lacks the columns.
    """
    with open_source(source.path) as file:
        if source.format == "parquet":
            batches = _read_parquet(source, file, tally, progress)
        else:
            batches = read_text(source, file, tally, progress)
        for rows in batches:
            tally.see("records", len(rows.raw))
            tally.see("images", len(rows.raw))
            yield _links(rows, tally)


def check_table(source: Source) -> None:
    """Opens a table as far as its columns.

    Raises:
        UserError: as `read_table` does.
    """
    for _ in read_table(source, Tally(), lambda done: None):
        return


def _links(rows: Rows, tally: Tally) -> pa.RecordBatch:
    """Returns the rows with a text and a normal URL as LINKS, and counts all."""
    texts = tidy_all(rows.texts.fill_null(""))
    empty = pc.equal(texts, "").to_numpy(zero_copy_only=False)
    tally.add("no_text", int(empty.sum()))
    keep = pa.array(~empty)
    raw = rows.raw.fill_null("").filter(keep)
    found, outcomes = urls.normalise(raw, np.zeros(len(raw), np.int64), [urls.Base()])
    counts = np.bincount(outcomes, minlength=len(urls.OUTCOMES)).tolist()
    for outcome, count in zip(urls.OUTCOMES, counts, strict=True):
        tally.add(outcome, count)
    fine = pa.array(outcomes == urls.EXTRACTED)
    n = counts[urls.EXTRACTED]
    columns = [
        found.filter(fine),
        texts.filter(keep).filter(fine),
        pa.nulls(n, pa.string()),
        pa.repeat("caption", n),
        pa.array(rows.numbers).filter(keep).filter(fine),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=LINKS)


def _read_parquet(
    source: Source, file: BinaryIO, tally: Tally, progress: Progress
) -> Iterator[Rows]:
    try:
        size = source.size or file.seek(0, io.SEEK_END)
        parquet = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"{source.path}: not a Parquet file ({said}); check the file") from error
    schema, metadata = parquet.schema_arrow, parquet.metadata
    names = [schema.names[i] for i in choose_columns(source, schema.names)]
    for name in names:
        if not _holds_text(schema.field(name).type):
            raise UserError(
                f"{source.path}: column {name!r} holds {schema.field(name).type}, not text; it has "
                f"{listed(schema.names)}; name another with --url-column or --text-column"
            )
    end = 0
    for group in range(metadata.num_row_groups):
        row, end = end, end + metadata.row_group(group).num_rows
        try:
            for batch in parquet.iter_batches(
                BATCH_ROWS, row_groups=[group], columns=names, use_threads=False
            ):
                raw, texts = (to_strings(batch.column(name)) for name in names)
                yield Rows(np.arange(row, row + len(batch)), raw, texts)
                row += len(batch)
                progress(size * row // metadata.num_rows)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk or the network, not of what the file holds
            tally.fault(row, "bad_block")
    progress(size)


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
