"""Stages 4 to 6 of a wave: entries of the queries above their cap, thresholds, and the draw."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import balance
from pipeline.balance import ENTRY, QUERY_SLOTS, THRESHOLD, UNKNOWN
from pipeline.dedupe import first_rows, load_cap, load_counts, read_array, read_pairs, write_array
from pipeline.queries import load_query_hashes
from pipeline.run import Run, read_many
from wit import blocks, storage
from wit.hashing import hash64, slots_of
from wit.pairs import HOSTS, SELECTION

BUCKET_ENTRIES = 4_000_000  # sorted in memory at a time, about 0.4 GB
PART_ENTRIES = 4_000_000  # written to one file at a time
PART_ROWS = 1_000_000  # drawn rows held at a time, about 1 GB while they are sorted
HOST_BUCKETS = 64
HOST_PAIRS = pa.schema([HOSTS.field("host"), HOSTS.field("pairs")])
RESULT = np.dtype([("source", "<i4"), ("row", "<u4"), ("status", "u1")])


def is_open(run: Run, wave: int) -> bool:
    """Returns whether the wave has something to do."""
    return storage.read_json(run.wave_path("lanes", wave, "open.json"))["open"]


def open_waves(run: Run, before: int) -> list[int]:
    """Returns the waves before a wave that had something to do, those of earlier crawls too."""
    return [wave for wave in range(1, before) if is_open(run, wave)]


# --- collect: a task is a group of sources ----------------------------------------------------


def statuses(run: Run, wave: int, group: int) -> dict[int, np.ndarray]:
    """Returns uint8 [rows] for each source of a group: what earlier waves found out."""
    sources, first = run.groups[group], first_rows(run, group)
    known = np.zeros(first[-1], np.uint8)
    paths = (
        run.wave_path("fetched", earlier, f"{lane:04d}.results")
        for earlier in open_waves(run, wave)
        for lane in range(run.config.lanes)
    )
    for found in read_many(paths, partial(blocks.read, first=group, last=group + 1)):
        known[first[found["source"] - sources.start] + found["row"]] = found["status"]
    return dict(zip(sources, np.split(known, first[1:-1]), strict=True))


def unsettled(run: Run, wave: int) -> np.ndarray:
    """Returns bool [queries]: those above their cap with something left to draw."""
    wanted = load_counts(run.base)[1] > load_cap(run.base)
    if run.is_first(wave):  # other counts than an earlier crawl's, other orders
        return wanted
    return wanted & (load_thresholds(run.out, wave - 1)["settled"] == 0)


def collect(run: Run, wave: int, group: int, progress: Callable[[int, int], None]) -> None:
    """Writes balance/W/G.P.entries: what thresholds are found from; G.json, last, counts P."""
    bound = balance.priority_bounds(load_counts(run.base)[1], load_cap(run.base))
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
        blocks.write(path, entries, slot, QUERY_SLOTS, order)
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
    return len(bucket_limits(load_counts(run.base)[1], load_cap(run.base))) - 1


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
    counts, cap = load_counts(run.base)[1], load_cap(run.base)
    limits = bucket_limits(counts, cap)
    slots = int(limits[bucket]), int(limits[bucket + 1])
    first, last = query_range(slots, len(counts))
    groups = [f"{prefix}{group:04d}" for group in range(len(run.groups))]
    made = read_many(run.wave_path("balance", wave, f"{group}.json") for group in groups)
    paths = [
        run.wave_path("balance", wave, f"{group}.{part:04d}.entries")
        for group, facts in zip(groups, made, strict=True)
        for part in range(facts["parts"])
    ]
    parts = [np.empty(0, ENTRY)]
    for part in read_many(paths, partial(blocks.read, first=slots[0], last=slots[1])):
        parts.append(part)
        progress(len(parts) - 1, len(paths))
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
    return np.concatenate(list(read_many(paths, read_array)))


def join_thresholds(run: Run, wave: int) -> None:
    """Writes balance/W/thresholds.npy for all queries; below their cap they draw all."""
    wanted = unsettled(run, wave)
    if not run.is_first(wave):
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
    """Writes selection/W/G.parquet, by lane slot, G.hosts.parquet, by bucket of hosts, and G.json.

    A pair's lane slot is its hostname's hash cut into L. No more than PART_ROWS pairs are held, so
    a slot has a row group for each part of a group that draws more. G.json, last, has the number
    of pairs and the buckets of their hosts.
    """
    hashes = balance.order_hashes(load_query_hashes(run.out), run.config.sampling)
    threshold = load_thresholds(run.out, wave)
    known = statuses(run, wave, group)
    sources, total = run.groups[group], 0
    held: list[pa.Table] = []
    counted = [HOST_PAIRS.empty_table()]
    path = run.wave_path("selection", wave, f"{group:04d}.parquet")
    with open_by_slot(path, SELECTION, run.config.lanes) as write:

        def flush() -> None:
            nonlocal total
            table = pa.concat_tables(held)
            held.clear()
            write(table, hash64(hostnames(table["host"])))
            hosts = table.group_by("host").aggregate([([], "count_all")])
            counted.append(hosts.rename_columns(HOST_PAIRS.names).cast(HOST_PAIRS))
            total += len(table)

        for source in sources:
            with storage.open_read(run.candidates(source, ".parquet")) as file:
                parquet = pq.ParquetFile(file)
                for i, (pairs, start) in enumerate(read_pairs(run, source, known[source])):
                    drawn = balance.draw(pairs, run.config.seed, hashes, threshold)
                    rows = np.flatnonzero(drawn.drawn & (pairs.status == UNKNOWN))
                    if len(rows):
                        chosen = parquet.read_row_group(i).take(pa.array(rows))
                        held.append(selected(chosen, drawn, rows, source, start, wave))
                    if sum(map(len, held)) >= PART_ROWS:
                        flush()
            progress(source - sources.start + 1, len(sources))
        if held:
            flush()
    buckets = write_hosts(run, wave, group, add_pairs(pa.concat_tables(counted)))
    facts = {"pairs": total, "host_buckets": buckets}
    storage.write_json(run.wave_path("selection", wave, f"{group:04d}.json"), facts)


def write_hosts(run: Run, wave: int, group: int, hosts: pa.Table) -> list[int]:
    """Writes selection/W/G.hosts.parquet, HOST_PAIRS by bucket; returns the buckets with a host."""
    hashes = hash64(hostnames(hosts["host"]))
    path = run.wave_path("selection", wave, f"{group:04d}.hosts.parquet")
    with open_by_slot(path, HOST_PAIRS, HOST_BUCKETS) as write:
        write(hosts.cast(HOST_PAIRS), hashes)
    return np.unique(slots_of(hashes, HOST_BUCKETS)).tolist()


def read_hosts(run: Run, wave: int, bucket: int) -> pa.Table:
    """Returns HOST_PAIRS of a bucket of hosts, summed over all groups, sorted by host."""
    paths = (
        run.wave_path("selection", wave, f"{g:04d}.hosts.parquet") for g in range(len(run.groups))
    )
    return add_pairs(read_slots(paths, {bucket}))


def add_pairs(hosts: pa.Table) -> pa.Table:
    """Returns HOST_PAIRS with a row a host, sorted."""
    hosts = hosts.group_by("host").aggregate([("pairs", "sum")])
    return hosts.rename_columns(HOST_PAIRS.names).cast(HOST_PAIRS).sort_by("host")


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
    """Returns string [n]: the names in `scheme://name:port`, without `www.` as rates go by them."""
    return pc.replace_substring_regex(hosts, r"^https?://(?:www\.)?(\[[^\]]*\]|[^:]*).*$", r"\1")


@contextlib.contextmanager
def open_by_slot(
    path: str, schema: pa.Schema, slots: int
) -> Iterator[Callable[[pa.Table, np.ndarray], None]]:
    """Opens a Parquet file whose row groups have the rows of one slot each.

    What it gives is called with a table and its rows' hashes, uint64 [n], whose slots (`slots_of`)
    are written as row groups; once for each part. Which slot a row group has stands in the file's
    metadata under `slots`.
    """
    named: list[int] = []
    with (
        storage.open_write(path) as file,
        pq.ParquetWriter(file, schema, compression="zstd", write_statistics=False) as out,
    ):

        def write(table: pa.Table, hashes: np.ndarray) -> None:
            slot = slots_of(hashes, slots)
            table = table.take(pa.array(balance.counting_order(slot, slots)))
            start = 0
            for number, rows in enumerate(np.bincount(slot, minlength=slots).tolist()):
                if rows:
                    out.write_table(table.slice(start, rows), row_group_size=rows)
                    named.append(number)
                    start += rows

        yield write
        out.add_key_value_metadata({"slots": ",".join(map(str, named))})


def read_slots(paths: Iterable[str], slots: set[int]) -> pa.Table:
    """Returns the rows of the given slots out of files that `open_by_slot` wrote."""
    return pa.concat_tables(read_many(paths, partial(_read_slots, slots=slots)))


def _read_slots(path: str, slots: set[int]) -> pa.Table:
    with storage.open_read(path) as file:
        parquet = pq.ParquetFile(file)
        named = (parquet.metadata.metadata or {}).get(b"slots", b"").decode()
        groups = [i for i, slot in enumerate(filter(None, named.split(","))) if int(slot) in slots]
        return parquet.read_row_groups(groups)
