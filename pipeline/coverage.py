"""The last stage: what became of every query and of every candidate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from pipeline import balance, lanes, unique, waves
from pipeline.balance import FAILED, FETCHED, UNKNOWN
from pipeline.dedupe import load_cap, load_counts, read_array, read_pairs, write_array
from pipeline.queries import LIST, load_query_hashes
from pipeline.run import Run
from wit import storage
from wit.pairs import COVERAGE

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
    write_array(run.path("coverage", f"{group:04d}.npy"), counts)


def write_coverage(run: Run) -> tuple[pa.Table, dict[str, int]]:
    """Writes coverage.parquet; returns it, and how many candidates met each of FATES."""
    total = sum(read_array(run.path("coverage", f"{g:04d}.npy")) for g in range(len(run.groups)))
    queries = storage.read_table(run.path(LIST), ["query_id", "query"])
    matched, distinct = load_counts(run.out)
    present, drawn = total[0, : len(queries)], total[1, : len(queries)]
    columns = [
        *(queries["query_id"], queries["query"]),
        *(pa.array(c) for c in (matched, distinct, drawn, present)),
        pa.array(np.minimum(distinct, load_cap(run.out)) - drawn),
    ]
    table = pa.table(columns, schema=COVERAGE)
    storage.write_table(run.path("coverage.parquet"), table)
    return table, dict(zip(FATES, total[2, : len(FATES)].tolist(), strict=True))
