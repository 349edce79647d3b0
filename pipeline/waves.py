"""Stages 4 to 6 of a wave: entries of the queries above their cap, thresholds, and the draw."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import balance
from pipeline.balance import ENTRY, QUERY_SLOTS, THRESHOLD, UNKNOWN
from pipeline.dedupe import load_cap, load_counts, load_index, read_array, read_pairs, write_array
from pipeline.queries import load_query_hashes
from pipeline.run import Run
from wit import blocks, storage
from wit.hashing import hash64, slots_of
from wit.pairs import SELECTION

BUCKET_ENTRIES = 4_000_000  # sorted in memory at a time, about 0.4 GB
PART_ENTRIES = 4_000_000  # written to one file at a time
RESULT = np.dtype([("source", "<i4"), ("row", "<u4"), ("status", "u1")])


# --- collect: a task is a group of sources ----------------------------------------------------


def statuses(run: Run, wave: int, group: int) -> dict[int, np.ndarray]:
    """Returns uint8 [rows] for each source of a group: what earlier waves found out."""
    rows = load_index(run.out)[:, 0]
    known = {source: np.zeros(rows[source], np.uint8) for source in run.groups[group]}
    for earlier in range(1, wave):
        for lane in range(run.config.lanes):
            path = run.wave_path("fetched", earlier, f"{lane:04d}.results")
            for source, found in split_by_source(blocks.read(path, group, group + 1)):
                known[source][found["row"]] = found["status"]
    return known


def split_by_source(results: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Returns (source, its records) of records sorted by source."""
    sources, start = np.unique(results["source"], return_index=True)
    return (
        list(zip(sources.tolist(), np.split(results, start[1:]), strict=True)) if len(start) else []
    )


def unsettled(run: Run, wave: int) -> np.ndarray:
    """Returns bool [queries]: those above their cap with something left to draw."""
    wanted = load_counts(run.out)[1] > load_cap(run.out)
    return wanted & (load_thresholds(run.out, wave - 1)["settled"] == 0) if wave > 1 else wanted


def collect(run: Run, wave: int, group: int, progress: Callable[[int, int], None]) -> None:
    """Writes balance/W/G.P.entries: what thresholds are found from; G.json, last, counts P."""
    bound = balance.priority_bounds(load_counts(run.out)[1], load_cap(run.out))
    _collect(run, wave, group, unsettled(run, wave), bound, "", progress)


def collect_again(run: Run, wave: int, group: int, progress: Callable[[int, int], None]) -> None:
    """Collects all entries of the queries whose bound let too few through."""
    short = np.zeros(run.config.queries["queries"], bool)
    short[short_queries(run, wave)] = True
    bound = np.full(len(short), balance.ALL, np.uint64)
    _collect(run, wave, group, short, bound, "again.", progress)


def _collect(
    run: Run,
    wave: int,
    group: int,
    wanted: np.ndarray,
    bound: np.ndarray,
    prefix: str,
    progress: Callable[[int, int], None],
) -> None:
    hashes = balance.order_hashes(load_query_hashes(run.out), run.config.sampling)
    known = statuses(run, wave, group)
    queries, parts, held = len(hashes), 0, []

    def flush() -> None:
        nonlocal parts, held
        entries = np.concatenate(held)
        held = []
        slot = query_slots(entries["query"], queries)
        order = balance.counting_order(slot, QUERY_SLOTS)
        path = run.wave_path("balance", wave, f"{prefix}{group:04d}.{parts:04d}.entries")
        blocks.write(path, entries[order], slot[order], QUERY_SLOTS)
        parts += 1

    for source in run.groups[group]:
        for pairs, _ in read_pairs(run, source, known[source]):
            flags = wanted.astype(np.uint8)
            held.append(balance.collect(pairs, run.config.seed, hashes, flags, bound))
            if sum(len(entries) for entries in held) >= PART_ENTRIES:
                flush()
        progress(source - run.groups[group].start + 1, len(run.groups[group]))
    if any(len(entries) for entries in held):
        flush()
    storage.write_json(
        run.wave_path("balance", wave, f"{prefix}{group:04d}.json"), {"parts": parts}
    )


def query_slots(query: np.ndarray, queries: int) -> np.ndarray:
    """Returns int32 [n] in [0, QUERY_SLOTS): equal ranges of query ids."""
    return (query.astype(np.int64) * QUERY_SLOTS // queries).astype(np.int32)


# --- thresholds: a task is a range of queries -------------------------------------------------


def query_buckets(run: Run) -> int:
    """Returns into how many ranges the queries are cut, from the counts alone."""
    return len(bucket_limits(load_counts(run.out)[1], load_cap(run.out))) - 1


def bucket_limits(counts: np.ndarray, cap: int) -> np.ndarray:
    """Returns int64 [buckets + 1], slots: bucket b is [limits[b], limits[b + 1]).

    A bucket has about BUCKET_ENTRIES entries, also where the list has its frequent queries together
    (a list sorted by count).
    """
    entries = np.where(counts > cap, np.minimum(counts, balance.RESERVE * cap) * 11 // 10, 0)
    slot = query_slots(np.arange(len(counts)), len(counts))
    before = np.cumsum(entries) - entries
    first = np.searchsorted(slot, np.arange(QUERY_SLOTS))  # a slot's first query
    bucket = np.append(before, entries.sum())[first] // BUCKET_ENTRIES
    return np.concatenate([[0], np.flatnonzero(np.diff(bucket)) + 1, [QUERY_SLOTS]])


def query_range(slots: tuple[int, int], queries: int) -> tuple[int, int]:
    """Returns the query ids [first, last) whose slot lies in [slots)."""
    first, last = (-(-slot * queries // QUERY_SLOTS) for slot in slots)
    return first, last


def find_thresholds(
    run: Run, wave: int, bucket: int, progress: Callable[[int, int], None], prefix: str = ""
) -> None:
    """Writes balance/W/B.thresholds.npy: THRESHOLD [queries of the bucket]."""
    counts, cap = load_counts(run.out)[1], load_cap(run.out)
    limits = bucket_limits(counts, cap)
    slots = int(limits[bucket]), int(limits[bucket + 1])
    first, last = query_range(slots, len(counts))
    parts = [np.empty(0, ENTRY)]
    for group in range(len(run.groups)):
        made = storage.read_json(run.wave_path("balance", wave, f"{prefix}{group:04d}.json"))
        for part in range(made["parts"]):
            path = run.wave_path("balance", wave, f"{prefix}{group:04d}.{part:04d}.entries")
            parts.append(blocks.read(path, *slots))
        progress(group + 1, len(run.groups))
    found = balance.thresholds(np.concatenate(parts), counts[first:last], cap, first)
    write_array(run.wave_path("balance", wave, f"{prefix}{bucket:04d}.thresholds.npy"), found)


def find_thresholds_again(
    run: Run, wave: int, bucket: int, progress: Callable[[int, int], None]
) -> None:
    """Does the same for the queries that were short."""
    find_thresholds(run, wave, bucket, progress, "again.")


def short_queries(run: Run, wave: int) -> np.ndarray:
    """Returns int64 [m]: the queries whose bound let too few entries through."""
    made = read_bucket_thresholds(run, wave, "")
    return np.flatnonzero(unsettled(run, wave) & (made["short"] == 1))


def read_bucket_thresholds(run: Run, wave: int, prefix: str) -> np.ndarray:
    """Returns THRESHOLD [queries], the buckets' tables joined."""
    paths = [
        run.wave_path("balance", wave, f"{prefix}{bucket:04d}.thresholds.npy")
        for bucket in range(query_buckets(run))
    ]
    return np.concatenate([read_array(path) for path in paths])


def join_thresholds(run: Run, wave: int) -> None:
    """Writes balance/W/thresholds.npy for all queries; below their cap they draw all."""
    wanted = unsettled(run, wave)
    if wave > 1:
        table = load_thresholds(run.out, wave - 1).copy()
    else:
        table = np.zeros(len(wanted), THRESHOLD)
        for name in ("priority", "url", "text"):
            table[name] = balance.ALL
        table["settled"] = 1
    made = read_bucket_thresholds(run, wave, "")
    table[wanted] = made[wanted]
    short = short_queries(run, wave)
    if len(short):
        table[short] = read_bucket_thresholds(run, wave, "again.")[short]
    table["short"] = 0
    write_array(run.wave_path("balance", wave, "thresholds.npy"), table)


@functools.lru_cache(maxsize=4)
def load_thresholds(out: str, wave: int) -> np.ndarray:
    """Returns THRESHOLD [queries] of a wave."""
    return read_array(storage.join(out, "balance", f"{wave:02d}", "thresholds.npy"))


# --- select: a task is a group of sources -----------------------------------------------------


def select(run: Run, wave: int, group: int, progress: Callable[[int, int], None]) -> None:
    """Writes selection/W/G.parquet, a row group a lane slot, and G.hosts.parquet with their counts.

    A pair's lane slot is its hostname's hash cut into L; the row groups' slots stand in the file's
    metadata under `slots`.
    """
    hashes = balance.order_hashes(load_query_hashes(run.out), run.config.sampling)
    threshold = load_thresholds(run.out, wave)
    known = statuses(run, wave, group)
    tables = []
    for source in run.groups[group]:
        with storage.open_read(run.candidates(source, ".parquet")) as file:
            parquet = pq.ParquetFile(file)
            for i, (pairs, start) in enumerate(read_pairs(run, source, known[source])):
                drawn = balance.draw(pairs, run.config.seed, hashes, threshold)
                rows = np.flatnonzero(drawn.drawn & (pairs.status == UNKNOWN))
                if len(rows):
                    chosen = parquet.read_row_group(i).take(pa.array(rows))
                    tables.append(selected(chosen, drawn, rows, source, start, wave))
        progress(source - run.groups[group].start + 1, len(run.groups[group]))
    table = pa.concat_tables(tables) if tables else SELECTION.empty_table()
    slot = slots_of(hash64(hostnames(table["host"])), run.config.lanes)
    order = balance.counting_order(slot, run.config.lanes)
    write_by_slot(
        run.wave_path("selection", wave, f"{group:04d}.parquet"),
        table.take(pa.array(order)),
        slot[order],
    )
    hosts = table.group_by("host").aggregate([([], "count_all")]).rename_columns(["host", "pairs"])
    hosts = hosts.sort_by("host")
    storage.write_table(run.wave_path("selection", wave, f"{group:04d}.hosts.parquet"), hosts)


def selected(
    table: pa.Table, drawn: balance.Drawn, rows: np.ndarray, source: int, start: int, wave: int
) -> pa.Table:
    """Returns the SELECTION rows of a batch of candidates, of which `table` are the drawn."""
    lists = pa.ListArray.from_arrays(
        pa.array(drawn.offsets.astype(np.int32)), pa.array(drawn.by, pa.int32())
    )
    added = {
        "source": pa.array(np.full(len(rows), source, np.int32)),
        "row": pa.array((rows + start).astype(np.int32)),
        "drawn_by": lists.take(pa.array(rows)),
        "priority": pa.array(drawn.priority[rows]),
        "wave": pa.array(np.full(len(rows), wave, np.int8)),
        "host": origins(table["url"]),
    }
    columns = [added[f.name] if f.name in added else table[f.name] for f in SELECTION]
    return pa.table(columns, schema=SELECTION)


def origins(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns string [n]: scheme and authority of WHATWG-normalised http(s) URLs."""
    return pc.replace_substring_regex(urls, r"^(https?://)(?:[^/?#]*@)?([^/?#]*).*$", r"\1\2")


def hostnames(hosts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns string [n]: the names in `scheme://name:port`."""
    return pc.replace_substring_regex(hosts, r"^https?://(\[[^\]]*\]|[^:]*).*$", r"\1")


def write_by_slot(path: str, table: pa.Table, slot: np.ndarray) -> None:
    """Writes rows sorted by slot as Parquet with a row group a slot."""
    present, start = np.unique(slot, return_index=True)
    text = ",".join(map(str, present.tolist()))
    schema = table.schema.with_metadata({"slots": text})
    ends = [*start[1:].tolist(), len(table)][: len(start)]
    with (
        storage.open_write(path) as file,
        pq.ParquetWriter(file, schema, compression="zstd") as out,
    ):
        for begin, end in zip(start.tolist(), ends, strict=True):
            part = table.slice(begin, end - begin).replace_schema_metadata(schema.metadata)
            out.write_table(part, row_group_size=max(len(part), 1))


def read_slots(path: str, slots: set[int]) -> list[pa.Table]:
    """Reads the row groups of the given slots."""
    with storage.open_read(path) as file:
        parquet = pq.ParquetFile(file)
        named = (parquet.schema_arrow.metadata or {}).get(b"slots", b"").decode()
        groups = [i for i, slot in enumerate(filter(None, named.split(","))) if int(slot) in slots]
        return [parquet.read_row_group(i) for i in groups]
