"""Tables written for a test, and what is read of them."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import sources
from pipeline.sources import Source
from pipeline.tally import Tally
from wit.errors import UserError
from wit.pairs import LINKS


def read(path, format, url_column=None, text_column=None):
    """Returns the links as (row, url, text), and the tally, of which the sums are right."""
    size = path.stat().st_size
    source = Source(str(path), "table", size, format, url_column, text_column)
    tally, told = Tally(), []
    batches = list(sources.read(source, tally, told.append))
    assert all(batch.schema == LINKS and batch.validate(full=True) is None for batch in batches)
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert {(row["page_url"], row["attribute"]) for row in rows} <= {(None, "caption")}
    assert tally.unaccounted == 0
    assert sum(tally.counts.values()) == tally.seen.get("records", 0)
    assert tally.counts.get("extracted", 0) == len(rows)
    assert told == sorted(told)
    assert told[-1] == size or tally.fault_total
    return [(row["record_offset"], row["url"], row["text"]) for row in rows], tally


def write(tmp_path, name, data):
    """Writes text or bytes to a file; its path."""
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def says(path, format, **columns):
    """Returns the one line that a table is refused with."""
    with pytest.raises(UserError) as caught:
        read(path, format, **columns)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def url(i):
    """The address of row i."""
    return f"https://example.org/{i}.jpg"


def links(*rows):
    """What is read of rows that the writers below were given."""
    return [(i, url(i), f"text {i}") for i in rows]


def as_parquet(rows, path):
    table = pa.table({"url": [u for u, _ in rows], "text": [t for _, t in rows]})
    pq.write_table(table, path, row_group_size=7)


def as_csv(rows, path):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([("url", "text"), *rows])


def as_tsv(rows, path):
    lines = [f"{u or ''}\t{' '.join((t or '').split())}\n" for u, t in [("url", "text"), *rows]]
    path.write_text("".join(lines), encoding="utf-8")


def as_jsonl(rows, path):
    lines = [json.dumps({"url": u, "text": t}) + "\n" for u, t in rows]
    path.write_text("".join(lines), encoding="utf-8")


WRITERS = {"parquet": as_parquet, "csv": as_csv, "tsv": as_tsv, "jsonl": as_jsonl}
