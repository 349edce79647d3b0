"""The query list as a run uses it: checked, and copied into the run with its matcher."""

from __future__ import annotations

import functools
import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.run import Run
from wit import storage, text
from wit.errors import UserError
from wit.hashing import hash64
from wit.matching import Matcher
from wit.pairs import QUERIES

LIST = "queries/queries.parquet"
MATCHER = "queries/matcher.bin"


def read_list(path: str, match: str) -> tuple[pa.Table, dict[str, int]]:
    """Reads a query list: our Parquet, a JSON list of strings (MetaCLIP's), or a text file.

    In the default mode queries are normalised, and those that normalise to nothing or to an earlier
    one are left out; in mode `metaclip` every entry stays as it is.

    Returns:
        the QUERIES table, and the number left out by reason.

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
    unmatchable = table["query"].null_count
    table = table.filter(pc.is_valid(table["query"]))
    queries = _cast(path, table, "query", pa.string()).combine_chunks()
    if match == "default":
        queries = text.normalise(queries)
    first = pc.index_in(queries, pc.unique(queries))
    _, keep = np.unique(first.to_numpy(zero_copy_only=False), return_index=True)
    keep = np.sort(keep)
    repeated = len(table) - len(keep)
    if match == "default":
        empty = pc.equal(queries, "").to_numpy(zero_copy_only=False)
        keep = keep[~empty[keep]]
        unmatchable += int(empty.sum())
        repeated -= max(0, int(empty.sum()) - 1)
    if len(keep) == 0:
        raise UserError(f"{path}: no query in it that could match a text")
    queries = queries.take(pa.array(keep))
    kept = table.take(pa.array(keep))
    columns = []
    for field in QUERIES:
        if field.name == "query_id":
            columns.append(pa.array(np.arange(len(keep), dtype=np.int32)))
        elif field.name == "query":
            columns.append(queries)
        elif field.name == "query_hash":
            columns.append(pa.array(hash64(queries)))
        elif field.name in kept.column_names:
            columns.append(_cast(path, kept, field.name, field.type))
        else:
            columns.append(pa.nulls(len(keep), field.type))
    left_out = {"unmatchable": unmatchable, "repeated": repeated}
    return pa.table(columns, schema=QUERIES), left_out


def _cast(path: str, table: pa.Table, name: str, to: pa.DataType) -> pa.ChunkedArray:
    try:
        return table[name].cast(to)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(
            f"{path}: column {name!r} holds {table[name].type}, not {to}; correct it or drop it"
        ) from error


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
    return pa.array([line for line in content.splitlines() if line.strip()], pa.string())


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
