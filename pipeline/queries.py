"""The query list as a run uses it: checked, and copied into the run with its matcher."""

from __future__ import annotations

import functools
import hashlib
import json
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.run import Run
from wit import storage, text
from wit.columns import cast
from wit.errors import UserError
from wit.hashing import hash64
from wit.matching import Matcher, unmatchable
from wit.pairs import QUERIES

LIST = "queries/queries.parquet"
MATCHER = "queries/matcher.bin"
SAID = {"repeated": "repeated", "unmatchable": "that no text can match"}


class QueryList(NamedTuple):
    """A list as a run uses it.

    Attributes:
        table: QUERIES.
        left_out: how many entries of the file are not in it: `repeated` (as another one, once both
            are normalised) and `unmatchable` (no text can include them).
        examples: of each that is not 0, an entry as it was written.
    """

    table: pa.Table
    left_out: dict[str, int]
    examples: dict[str, str]

    def told(self, path: str) -> str:
        """Returns the list in a line for a person."""
        line = f"{len(self.table):,} queries of {path}"
        parts = [
            f"{count:,} {SAID[reason]}, as {self.examples[reason]!r}"
            for reason, count in self.left_out.items()
            if count
        ]
        return f"{line}; left out: {'; '.join(parts)}" if parts else line


def read_list(path: str, match: str) -> QueryList:
    """Reads a query list: our Parquet, a JSON list of strings (MetaCLIP's), or a text file.

    Left out are queries that repeat an earlier one and those that no text can match. In the default
    mode queries are normalised first; in mode `metaclip` each stays as it is.

    Raises:
        UserError: where the file is missing, is of no such kind, or holds no query.
    """
    if not storage.exists(path):
        raise UserError(
            f"{path}: no such query list; make one: wit queries starter --out queries.parquet"
        )
    if path.endswith(".parquet"):
        table = storage.read_table(path)
        names = {"query"} - set(table.column_names)
        if names:
            raise UserError(f"{path}: no column 'query'; it has {', '.join(table.column_names)}")
    else:
        table = pa.table({"query": _read_text(path)})
    written = cast(path, table, QUERIES.field("query")).combine_chunks()
    queries = text.normalise(written) if match == "default" else written
    fine = pc.fill_null(pc.not_equal(queries, ""), False).to_numpy(zero_copy_only=False)
    if match != "default":
        fine = np.ones(len(queries), bool)
        fine[unmatchable(queries, match)["index"].to_numpy()] = False
    rows = np.flatnonzero(fine)
    usable = queries.take(pa.array(rows))
    place = pc.index_in(usable, pc.unique(usable)).to_numpy(zero_copy_only=False)
    first = np.unique(place, return_index=True)[1]
    again = np.setdiff1d(np.arange(len(rows)), first)
    left = {"repeated": rows[again], "unmatchable": np.flatnonzero(~fine)}
    keep = pa.array(rows[np.sort(first)])
    if len(keep) == 0:
        raise UserError(f"{path}: no query in it that could match a text")
    queries, kept = queries.take(keep), table.take(keep)
    columns = []
    for field in QUERIES:
        if field.name == "query_id":
            columns.append(pa.array(np.arange(len(keep), dtype=np.int32)))
        elif field.name == "query":
            columns.append(queries)
        elif field.name == "query_hash":
            columns.append(pa.array(hash64(queries)))
        else:
            columns.append(cast(path, kept, field))
    return QueryList(
        pa.table(columns, schema=QUERIES),
        {reason: len(found) for reason, found in left.items()},
        {reason: str(written[int(found[0])]) for reason, found in left.items() if len(found)},
    )


def _read_text(path: str) -> pa.Array:
    try:
        content = storage.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    if path.endswith(".json"):
        try:
            entries = json.loads(content)
        except ValueError as error:
            raise UserError(f"{path}: not JSON ({error})") from error
        if not isinstance(entries, list) or not all(isinstance(e, str) for e in entries):
            raise UserError(f"{path}: a JSON list of strings was expected")
        try:
            return pa.array(entries, pa.string())
        except UnicodeEncodeError as error:
            raise UserError(f"{path}: half a surrogate pair in {error.object!a}") from error
    lines = [line.strip() for line in content.splitlines()]
    return pa.array([line for line in lines if line], pa.string())


def fingerprint(table: pa.Table) -> dict[str, str | int]:
    """Returns what identifies a list in run.json: its size and the SHA-256 of its queries."""
    digest = hashlib.sha256()
    digest.update(table["query_hash"].to_numpy().astype("<u8").tobytes())
    return {"queries": len(table), "sha256": digest.hexdigest()}


def install(run: Run, table: pa.Table) -> None:
    """Puts the list and its matcher into the run's folder, where workers find them."""
    if not storage.exists(run.path(LIST)):
        storage.write_table(run.path(LIST), table)
    if not storage.exists(run.path(MATCHER)):
        matcher = Matcher.build(table["query"].combine_chunks(), run.config.match)
        matcher.save(run.path(MATCHER))


@functools.lru_cache(maxsize=1)
def load_matcher(run_out: str) -> Matcher:
    """Loads the run's matcher, once a process."""
    return Matcher.load(storage.join(run_out, MATCHER))


@functools.lru_cache(maxsize=1)
def load_query_hashes(run_out: str) -> np.ndarray:
    """Returns uint64 [queries], once a process."""
    table = storage.read_table(storage.join(run_out, LIST), ["query_hash"])
    return table["query_hash"].to_numpy()
