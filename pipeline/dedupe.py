"""Stages 2 and 3, unique and count: duplicates by hash bucket, then exact counts by query."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow.parquet as pq

from pipeline import balance
from pipeline.balance import Pairs, counting_order
from pipeline.run import Run, read_many
from pipeline.unique import KEY, LOSER, URL_SLOTS, judge
from wit import blocks, storage
from wit.hashing import pair_hashes

BUCKET_ROWS = 4_000_000  # pairs that are sorted in memory at a time, about 0.5 GB
CAPS = 96  # points of t at which the size of a selection is estimated
SOLVE_SAMPLE = 2_000_000  # pairs from which it is estimated


# --- unique: a task is a bucket of URL hashes -------------------------------------------------


def index_candidates(run: Run) -> None:
    """Writes candidates/index.npy: int64 [sources, 2], each source's rows and key files."""
    paths = (run.candidates(source, ".json") for source in range(len(run.config.sources)))
    index = np.array([[f["rows"], f["parts"]] for f in read_many(paths)], np.int64)
    write_array(run.path("candidates", "index.npy"), index)


@functools.lru_cache(maxsize=1)
def load_index(out: str) -> np.ndarray:
    """Returns int64 [sources, 2], rows and key files; once a process."""
    return read_array(storage.join(out, "candidates", "index.npy"))


def bucket_count(run: Run) -> int:
    """Returns into how many buckets the pairs are cut, from their number alone."""
    return min(URL_SLOTS, max(1, math.ceil(int(load_index(run.out)[:, 0].sum()) / BUCKET_ROWS)))


def find_duplicates(run: Run, bucket: int, progress: Callable[[int, int], None]) -> None:
    """Writes unique/B.losers: the rows of each source that lost, with the reason."""
    buckets = bucket_count(run)
    first, last = bucket * URL_SLOTS // buckets, (bucket + 1) * URL_SLOTS // buckets
    parts, origin = [np.empty(0, KEY)], [np.empty(0, np.int32)]
    for source, (_, key_files) in enumerate(load_index(run.out).tolist()):
        for part in range(key_files):
            path = run.candidates(source, f".{part:04d}.keys")
            parts.append(blocks.read(path, first, last))
            origin.append(np.full(len(parts[-1]), source, np.int32))
        progress(source, len(run.config.sources))
    keys, source = np.concatenate(parts), np.concatenate(origin)
    del parts, origin
    verdict = judge(
        np.ascontiguousarray(keys["url"]),
        np.ascontiguousarray(keys["text"]),
        run.config.texts_per_image,
    )
    lost = np.flatnonzero(verdict)
    lost = lost[counting_order(source[lost], len(run.config.sources))]
    losers = np.empty(len(lost), LOSER)
    losers["row"], losers["reason"] = keys["row"][lost], verdict[lost]
    path = run.path("unique", f"{bucket:04d}.losers")
    blocks.write(path, losers, source[lost], len(run.config.sources))


# --- count: a task is a group of sources ------------------------------------------------------


def count(run: Run, group: int, progress: Callable[[int, int], None]) -> None:
    """Writes the verdicts of a group's sources, and counts/G.npy: int64 [2, queries].

    Row 0 counts the candidates that match each query, row 1 those of them that are unique.
    """
    queries = run.config.queries["queries"]
    counts = np.zeros((2, queries), np.int64)
    sources = run.groups[group]
    verdicts = [np.zeros(rows, np.uint8) for rows in load_index(run.out)[sources, 0]]
    for bucket in range(bucket_count(run)):
        path = run.path("unique", f"{bucket:04d}.losers")
        each = blocks.read_each(path, sources.start, sources.stop)
        for verdict, losers in zip(verdicts, each, strict=True):
            verdict[losers["row"]] = losers["reason"]
    for source, verdict in zip(sources, verdicts, strict=True):
        storage.write_bytes(run.verdicts(source), verdict.tobytes())
        for pairs, _ in read_pairs(run, source):
            counts[0] += balance.count_queries(pairs, np.ones(len(pairs.verdict), bool), queries)
            counts[1] += balance.count_queries(pairs, pairs.verdict == 0, queries)
        progress(source - sources.start + 1, len(sources))
    write_array(run.path("counts", f"{group:04d}.npy"), counts)


def read_pairs(
    run: Run, source: int, status: np.ndarray | None = None
) -> Iterator[tuple[Pairs, int]]:
    """Yields a source's candidates in batches, each with the row at which it starts.

    Args:
        run: the run.
        source: its index.
        status: uint8 [rows], what is known of the pictures; none is known where it is not given.
    """
    verdict = np.frombuffer(storage.read_bytes(run.verdicts(source)), np.uint8)
    if status is None:
        status = np.zeros(len(verdict), np.uint8)
    start = 0
    with storage.open_read(run.candidates(source, ".parquet")) as file:
        parquet = pq.ParquetFile(file)
        for i in range(parquet.num_row_groups):
            table = parquet.read_row_group(i, columns=["pair_id", "query_ids"])
            lists = table["query_ids"].combine_chunks()
            url, text = pair_hashes(table["pair_id"])
            end = start + len(table)
            offsets = lists.offsets.to_numpy().astype(np.int64)
            yield (
                Pairs(
                    verdict=verdict[start:end],
                    status=status[start:end],
                    offsets=offsets - offsets[0],
                    query_ids=lists.flatten().to_numpy(),
                    url=url,
                    text=text,
                ),
                start,
            )
            start = end


def write_array(path: str, array: np.ndarray) -> None:
    """Writes a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    storage.write_bytes(path, buffer.getvalue())


def read_array(path: str) -> np.ndarray:
    """Reads a .npy file; pickled objects are refused."""
    return np.load(io.BytesIO(storage.read_bytes(path)), allow_pickle=False)


@functools.lru_cache(maxsize=1)
def load_counts(out: str) -> np.ndarray:
    """Returns int64 [2, queries], matched and unique, of all sources; once a process."""
    return read_array(storage.join(out, "counts", "total.npy"))


def sum_counts(run: Run) -> None:
    """Writes counts/total.npy, the sum over the groups."""
    total = sum(read_array(run.path("counts", f"{g:04d}.npy")) for g in range(len(run.groups)))
    write_array(run.path("counts", "total.npy"), total)


# --- target: t from the number of pairs asked for ---------------------------------------------


def estimate(run: Run, group: int, progress: Callable[[int, int], None]) -> None:
    """Writes counts/G.sizes.npy: float64 [CAPS], the selection's expected size at each t."""
    counts = load_counts(run.out)[1]
    rows = int(load_index(run.out)[:, 0].sum())
    share = min(1.0, SOLVE_SAMPLE / max(rows, 1))
    bound = np.uint64(min(share * 2.0**64, 2.0**64 - 2048))
    expected = np.zeros(CAPS)
    for source in run.groups[group]:
        for pairs, _ in read_pairs(run, source):
            sampled = pairs.text * np.uint64(0x9E3779B97F4A7C15) <= bound
            verdict = np.where(sampled, pairs.verdict, 1).astype(np.uint8)
            chosen = Pairs(
                verdict, pairs.status, pairs.offsets, pairs.query_ids, pairs.url, pairs.text
            )
            shared = run.config.sampling == "shared"
            expected += balance.expected_pairs(chosen, counts, caps_of(counts), shared)
        progress(source - run.groups[group].start + 1, len(run.groups[group]))
    write_array(run.path("counts", f"{group:04d}.sizes.npy"), expected / share)


def caps_of(counts: np.ndarray) -> np.ndarray:
    """Returns int64 [CAPS]: values of t from 1 to the largest count, evenly in their logarithm."""
    largest = max(int(counts.max(initial=1)), 1)
    return np.round(np.geomspace(1, largest, CAPS)).astype(np.int64)


def solve_target(run: Run) -> None:
    """Writes target.json: the cap t, given or solved from the number of pairs asked for."""
    if run.config.pairs is None:
        storage.write_json(run.path("target.json"), {"per_query": run.config.per_query})
        return
    caps = caps_of(load_counts(run.out)[1])
    sizes = sum(
        read_array(run.path("counts", f"{g:04d}.sizes.npy")) for g in range(len(run.groups))
    )
    cap = max(1, round(float(np.interp(run.config.pairs, sizes, caps))))
    expected = round(float(np.interp(cap, caps, sizes)))
    storage.write_json(run.path("target.json"), {"per_query": cap, "expected_pairs": expected})


@functools.lru_cache(maxsize=1)
def load_cap(out: str) -> int:
    """Returns t."""
    return storage.read_json(storage.join(out, "target.json"))["per_query"]
