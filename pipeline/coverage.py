"""The last stages: what became of every query, every candidate, and pictures no longer drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import balance, lanes, unique, waves
from pipeline.balance import FAILED, FETCHED, UNKNOWN
from pipeline.dedupe import load_cap, load_counts, read_array, read_pairs, write_array
from pipeline.queries import LIST, load_query_hashes
from pipeline.run import Run, read_many
from wit import shards, storage
from wit.hashing import pair_hashes
from wit.outcomes import SUCCESS
from wit.pairs import COVERAGE, EVICTED

# How a group's candidates are counted; the order of coverage/G.npy's last row.
FATES = ("duplicate_pair", "other_text", "over_cap", "deferred", "failed", "fetched")


def cover(run: Run, group: int, progress: Callable[[int, int], None]) -> None:
    """Writes coverage/G.npy: int64 [3, queries]: present, drawn, and FATES in the third row."""
    hashes = balance.order_hashes(load_query_hashes(run.out), run.config.sampling)
    last = lanes.last_wave(run)
    threshold = waves.load_thresholds(run.out, last)
    known = waves.statuses(run, last + 1, group)
    counts = np.zeros((3, max(len(hashes), len(FATES))), np.int64)
    fate = counts[2]
    for source in run.groups[group]:
        for pairs, _ in read_pairs(run, source, known[source]):
            drawn = balance.draw(pairs, run.config.seed, hashes, threshold)
            fetched = pairs.status == FETCHED
            counts[0, : len(hashes)] += balance.count_queries(pairs, fetched, len(hashes))
            by = drawn.by[np.repeat(fetched, np.diff(drawn.offsets))]
            counts[1, : len(hashes)] += np.bincount(by, minlength=len(hashes))
            survives = pairs.verdict == unique.SURVIVES
            waiting = survives & (pairs.status == UNKNOWN)
            fate[0] += np.sum(pairs.verdict == unique.DUPLICATE_PAIR)
            fate[1] += np.sum(pairs.verdict == unique.OTHER_TEXT)
            fate[2] += np.sum(waiting & ~drawn.drawn)
            fate[3] += np.sum(waiting & drawn.drawn)
            fate[4] += np.sum(pairs.status == FAILED)
            fate[5] += np.sum(fetched)
        progress(source - run.groups[group].start + 1, len(run.groups[group]))
    write_array(run.own("coverage", f"{group:04d}.npy"), counts)


def evict(run: Run, lane: int, progress: Callable[[int, int], None]) -> None:
    """Writes evicted/L.parquet, EVICTED: the lane's pictures that no query draws any more."""
    hashes = balance.order_hashes(load_query_hashes(run.out), run.config.sampling)
    found = waves.open_waves(run, run.waves.stop)
    threshold = waves.load_thresholds(run.out, found[-1])
    tables = [EVICTED.empty_table()]
    for number, wave in enumerate(found):
        first, count = storage.read_json(run.wave_path("lanes", wave, "shards.json"))["lanes"][lane]
        for shard in range(first, first + count):
            path = shards.final_path(run.path("shards"), shards.shard_name(shard), "parquet")
            table = storage.read_table(path, [*EVICTED.names, "outcome"])
            table = table.filter(pc.equal(table["outcome"], SUCCESS))
            drawn = balance.draw(stored_pairs(table), run.config.seed, hashes, threshold).drawn
            table = table.filter(pa.array(~drawn)).select(EVICTED.names)
            tables.append(table.cast(EVICTED))
        progress(number + 1, len(found))
    storage.write_table(run.own("evicted", f"{lane:04d}.parquet"), pa.concat_tables(tables))


def stored_pairs(table: pa.Table) -> balance.Pairs:
    """Returns the pairs of SAMPLES rows with a picture, as the draw reads them."""
    lists = table["query_ids"].combine_chunks()
    url, text = pair_hashes(table["pair_id"])
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return balance.Pairs(
        verdict=np.zeros(len(table), np.uint8),
        status=np.full(len(table), FETCHED, np.uint8),
        offsets=offsets - offsets[0],
        query_ids=lists.flatten().to_numpy(),
        url=url,
        text=text,
    )


def write_evicted(run: Run) -> int:
    """Writes evicted.parquet of a run that has grown; returns how many pictures it lists."""
    if not run.crawl:
        return 0
    paths = (run.own("evicted", f"{lane:04d}.parquet") for lane in range(run.config.lanes))
    total = 0
    with (
        storage.open_write(run.path("evicted.parquet")) as file,
        pq.ParquetWriter(file, EVICTED, compression="zstd") as out,
    ):
        for table in read_many(paths, storage.read_table):
            out.write_table(table.cast(EVICTED))
            total += len(table)
    return total


def write_coverage(run: Run) -> tuple[pa.Table, dict[str, int]]:
    """Writes coverage.parquet; returns it, and how many candidates met each of FATES."""
    total = sum(read_array(run.own("coverage", f"{g:04d}.npy")) for g in range(len(run.groups)))
    queries = storage.read_table(run.path(LIST), ["query_id", "query"])
    matched, distinct = load_counts(run.base)
    present, drawn = total[0, : len(queries)], total[1, : len(queries)]
    columns = [
        *(queries["query_id"], queries["query"]),
        *(pa.array(c) for c in (matched, distinct, drawn, present)),
        pa.array(np.minimum(distinct, load_cap(run.base)) - drawn),
    ]
    table = pa.table(columns, schema=COVERAGE)
    storage.write_table(run.path("coverage.parquet"), table)
    return table, dict(zip(FATES, total[2, : len(FATES)].tolist(), strict=True))
