"""Query lists as files, whoever made them, and their queries as rows for a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from query_list.run import SOURCES
from wit import storage
from wit.columns import cast
from wit.errors import UserError
from wit.hashing import hash64
from wit.pairs import QUERIES
from wit.show import clean

NUMBERS = ("count", "pmi", "views")
MOST_SOURCES = 60
LONGEST = 60  # characters of a query in a row
ABSENT = "-"


def read_list(path: str) -> pa.Table:
    """Reads a list in the columns of `wit.pairs.QUERIES`; a column that it lacks is null.

    Its rows keep their order, and `query_id` is their number; `query_hash` is made where it is
    missing.

    Raises:
        UserError: where the file is missing, no Parquet, without the column `query`, with a null
            in it, with a column of another type or sources beyond MOST_SOURCES.
    """
    if not storage.exists(path):
        raise UserError(f"{path}: no such query list; make one: wit queries build --help")
    table = storage.read_table(path)
    if "query" not in table.column_names:
        raise UserError(f"{path}: no column 'query'; it has {', '.join(table.column_names)}")
    queries = cast(path, table, QUERIES.field("query"))
    if queries.null_count:
        row = int(np.flatnonzero(queries.is_null())[0])
        raise UserError(f"{path}, row {row}: its query is null; drop the row")
    columns = {name: cast(path, table, QUERIES.field(name)) for name in ("sources", *NUMBERS)}
    hashes = cast(path, table, QUERIES.field("query_hash"))
    if hashes.null_count or len(hashes) == 0:
        hashes = pa.chunked_array([pa.array(hash64(queries))])
    columns |= {
        "query": queries,
        "query_hash": hashes,
        "query_id": pa.array(np.arange(len(table), dtype=np.int32)),
    }
    whole = pa.table([columns[name] for name in QUERIES.names], schema=QUERIES)
    if len(sources_of(whole)) > MOST_SOURCES:
        raise UserError(f"{path}: more than {MOST_SOURCES} sources; column 'sources' is not ours")
    return whole.combine_chunks()


# --- sources ----------------------------------------------------------------------------------


def sources_of(*tables: pa.Table) -> list[str]:
    """The sources that lists name: the paper's four in its order, then others by name."""
    known = {name for table in tables for name in _flat(table).unique().to_pylist()}
    return sorted(known - {None}, key=lambda name: (_place(name), name))


def _flat(table: pa.Table) -> pa.Array:
    return pc.list_flatten(table["sources"].combine_chunks())


def _place(name: str) -> int:
    return SOURCES.index(name) if name in SOURCES else len(SOURCES)


def source_codes(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """int64 [n]: the sources of each query as bits: names[i] is 1 << i; unnamed ones do not count.

    `names` are at most MOST_SOURCES.
    """
    lists = table["sources"].combine_chunks()
    place = pc.index_in(pc.list_flatten(lists), pa.array(names, pa.string()))
    known = place.is_valid().to_numpy(zero_copy_only=False)
    rows = pc.list_parent_indices(lists).to_numpy()[known]
    codes = np.zeros(len(table), np.int64)
    np.bitwise_or.at(codes, rows, np.int64(1) << place.drop_null().to_numpy().astype(np.int64))
    return codes


def names_in(code: int, names: Sequence[str]) -> list[str]:
    """The sources of a code of `source_codes`."""
    return [name for place, name in enumerate(names) if code >> place & 1]


# --- rows for a terminal ----------------------------------------------------------------------


def describe(table: pa.Table) -> list[list[str]]:
    """Each query of a table as the cells query, count, PMI, views, sources."""
    rows = table.select(["query", *NUMBERS, "sources"]).to_pylist()
    return [
        [
            shortened(row["query"]),
            ABSENT if row["count"] is None else f"{row['count']:,}",
            ABSENT if row["pmi"] is None else f"{row['pmi']:.2f}",
            ABSENT if row["views"] is None else f"{row['views']:,}",
            ", ".join(clean(name) for name in row["sources"] or []) or ABSENT,
        ]
        for row in rows
    ]


def shortened(query: str) -> str:
    """A query as a cell: in one line, without what a terminal obeys, not too long."""
    line = clean(query)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def align(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table with two spaces between its columns, numbers to the right.

    The first column is of words; another whose cells are all numbers, or ABSENT, is of numbers.
    """
    whole = [head, *rows]
    widths = [max(map(cells, column)) for column in zip(*whole, strict=True)]
    right = [all(map(_is_number, column)) for column in zip(*rows, strict=True)][1:]
    right = [False, *right] if rows else [False] * len(head)
    lines = []
    for row in whole:
        filled = [
            " " * (width - cells(cell)) + cell if number else cell + " " * (width - cells(cell))
            for cell, width, number in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(filled).rstrip())
    return lines


def cells(text: str) -> int:
    """How many places of a terminal a text takes: wide characters two, combining marks none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _is_number(cell: str) -> bool:
    return cell == ABSENT or cell.lstrip("-").replace(",", "").replace(".", "").isdecimal()
