"""Stages 2 to 4, keys, unique and count: duplicates by hash bucket, then exact counts by query."""

from __future__ import annotations

import functools
import io
import math
import threading
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pyarrow.parquet as pq

from pipeline import balance
from pipeline.balance import Pairs, counting_order
from pipeline.run import Run, read_many
from pipeline.unique import KEY, LOSER, URL_SLOTS, judge
from wit import blocks, storage
from wit.errors import UserError
from wit.hashing import pair_hashes, slots_of

KEY_ROWS = 24_000_000  # pairs whose hashes stand in one file, about 1 GB while they are sorted
BUCKET_ROWS = 4_000_000  # pairs that are judged in memory at a time, about 0.5 GB
# numpy reads a header by `ast`, which two threads at a time break ("recursion depth mismatch").
_PARSING = threading.Lock()
MOST_ROWS = 2**32  # of a group: its rows are numbered in 32 bits
CAPS = 96  # points of t at which the size of a selection is estimated
SOLVE_SAMPLE = 2_000_000  # pairs from which it is estimated


# --- keys: a task is a group of sources -------------------------------------------------------


def index_candidates(run: Run) -> None:
    """Writes candidates/index.npy of the last crawl: int64 [all sources], the rows of each."""
    paths = (run.candidates(source, ".json") for source in range(len(run.config.sources)))
    index = np.array([found["rows"] for found in read_many(paths)], np.int64)
    for group in run.groups:
        if index[group].sum() > MOST_ROWS:
            raise UserError(
                f"{run.config.sources[group.start]['path']} and the {len(group) - 1} inputs after "
                f"it: {index[group].sum():,} pairs, more than {MOST_ROWS:,}; cut them into more "
                "files and choose another --out"
            )
    write_array(run.own("candidates", "index.npy"), index)


@functools.lru_cache(maxsize=1)
def load_index(base: str) -> np.ndarray:
    """Returns int64 [sources], their rows; once a process. `base` is Run.base, as below."""
    return read_array(storage.join(base, "candidates", "index.npy"))


def first_rows(run: Run, group: int) -> np.ndarray:
    """Returns int64 [sources + 1]: where each source's rows begin in its group, and their end."""
    return np.concatenate([[0], np.cumsum(load_index(run.base)[run.groups[group]])])


def key_files(run: Run, group: int) -> list[str]:
    """Returns the paths of a group's key files, of KEY_ROWS rows each but the last."""
    count = max(1, math.ceil(int(first_rows(run, group)[-1]) / KEY_ROWS))
    return [run.path("unique", f"{group:04d}.{part:02d}.keys") for part in range(count)]


def gather_keys(run: Run, group: int, progress: Callable[[int, int], None]) -> None:
    """Writes unique/G.P.keys: the hashes of a group's pairs by URL slot, rows counted over it.

    So a bucket of URLs reads a file a group, however many sources there are.
    """
    paths, rows = key_files(run, group), int(first_rows(run, group)[-1])
    keys = np.empty(min(rows, KEY_ROWS), KEY)
    part = held = 0

    def flush() -> None:
        slot = slots_of(keys["url"][:held], URL_SLOTS)
        blocks.write(paths[part], keys[:held], slot, URL_SLOTS, counting_order(slot, URL_SLOTS))

    for url, text in read_hashes(run, group, progress):
        start = 0
        while start < len(url):
            if held == KEY_ROWS:
                flush()
                part, held = part + 1, 0
            take = slice(start, min(len(url), start + KEY_ROWS - held))
            into = keys[held : held + take.stop - start]
            into["url"], into["text"] = url[take], text[take]
            into["row"] = np.arange(len(into)) + (part * KEY_ROWS + held)
            start, held = take.stop, held + len(into)
    flush()


def read_hashes(
    run: Run, group: int, progress: Callable[[int, int], None]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the URL and text hashes, uint64 [n] each, of a group's candidates in their order."""
    sources = run.groups[group]
    for source in sources:
        with storage.open_read(run.candidates(source, ".parquet")) as file:
            parquet = pq.ParquetFile(file)
            for i in range(parquet.num_row_groups):
                yield pair_hashes(parquet.read_row_group(i, columns=["pair_id"])["pair_id"])
        progress(source - sources.start + 1, len(sources))


# --- unique: a task is a bucket of URL hashes -------------------------------------------------


def bucket_count(run: Run) -> int:
    """Returns into how many buckets the pairs are cut, from their number alone."""
    return min(URL_SLOTS, max(1, math.ceil(int(load_index(run.base).sum()) / BUCKET_ROWS)))


def find_duplicates(run: Run, bucket: int, progress: Callable[[int, int], None]) -> None:
    """Writes unique/B.losers: the rows of each group that lost, with the reason.

    What earlier crawls have won or lost stays: only the last crawl's groups have losers here.
    """
    buckets = bucket_count(run)
    first, last = bucket * URL_SLOTS // buckets, (bucket + 1) * URL_SLOTS // buckets
    groups = len(run.groups)
    paths = [(group, path) for group in range(groups) for path in key_files(run, group)]
    read = read_many((path for _, path in paths), partial(blocks.read, first=first, last=last))
    parts, origin = [np.empty(0, KEY)], [np.empty(0, np.int32)]
    for (group, _), part in zip(paths, read, strict=True):
        parts.append(part)
        origin.append(np.full(len(part), group, np.int32))
        progress(group + 1, groups)
    keys, group_of = np.concatenate(parts), np.concatenate(origin)
    del parts, origin
    begins = np.array([group.start for group in run.groups])
    crawl = np.searchsorted(run.config.crawls, begins, side="right").astype(np.int32)
    verdict = judge(
        np.ascontiguousarray(keys["url"]),
        np.ascontiguousarray(keys["text"]),
        run.config.texts_per_image,
        crawl[group_of],
    )
    lost = np.flatnonzero((verdict != 0) & (group_of >= run.new_groups.start))
    losers = np.empty(len(lost), LOSER)
    losers["row"], losers["reason"] = keys["row"][lost], verdict[lost]
    blocks.write(run.own("unique", f"{bucket:04d}.losers"), losers, group_of[lost], groups)


# --- count: a task is a group of sources ------------------------------------------------------


def count(run: Run, group: int, progress: Callable[[int, int], None]) -> None:
    """Writes unique/G.state, a verdict a row, and counts/G.npy: int64 [2, queries].

    Row 0 counts the candidates that match each query, row 1 those of them that are unique.
    """
    queries = run.config.queries["queries"]
    counts = np.zeros((2, queries), np.int64)
    sources = run.groups[group]
    verdict = np.zeros(first_rows(run, group)[-1], np.uint8)
    paths = (run.own("unique", f"{bucket:04d}.losers") for bucket in range(bucket_count(run)))
    for losers in read_many(paths, partial(blocks.read, first=group, last=group + 1)):
        verdict[losers["row"]] = losers["reason"]
    storage.write_bytes(run.verdicts(group), verdict.tobytes())
    for source in sources:
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
    group = run.group_of[source]
    place = source - run.groups[group].start
    first, last = first_rows(run, group)[place : place + 2].tolist()
    verdict = np.frombuffer(storage.read_bytes(run.verdicts(group), first, last), np.uint8)
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
    data = io.BytesIO(storage.read_bytes(path))
    with _PARSING:
        return np.load(data, allow_pickle=False)


@functools.lru_cache(maxsize=1)
def load_counts(base: str) -> np.ndarray:
    """Returns int64 [2, queries], matched and unique, of all sources; once a process."""
    return read_array(storage.join(base, "counts", "total.npy"))


def sum_counts(run: Run) -> None:
    """Writes counts/total.npy, the sum over the groups."""
    total = sum(read_array(run.path("counts", f"{g:04d}.npy")) for g in range(len(run.groups)))
    write_array(run.own("counts", "total.npy"), total)


# --- target: t from the number of pairs asked for ---------------------------------------------


def estimate(run: Run, group: int, progress: Callable[[int, int], None]) -> None:
    """Writes counts/G.sizes.npy: float64 [CAPS], the selection's expected size at each t."""
    counts = load_counts(run.base)[1]
    rows = int(load_index(run.base).sum())
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
    write_array(run.own("counts", f"{group:04d}.sizes.npy"), expected / share)


def caps_of(counts: np.ndarray) -> np.ndarray:
    """Returns int64 [CAPS]: values of t from 1 to the largest count, evenly in their logarithm."""
    largest = max(int(counts.max(initial=1)), 1)
    return np.round(np.geomspace(1, largest, CAPS)).astype(np.int64)


def solve_target(run: Run) -> None:
    """Writes target.json: the cap t, given or solved from the number of pairs asked for."""
    if run.config.pairs is None:
        storage.write_json(run.own("target.json"), {"per_query": run.config.per_query})
        return
    caps = caps_of(load_counts(run.base)[1])
    sizes = sum(read_array(run.own("counts", f"{g:04d}.sizes.npy")) for g in range(len(run.groups)))
    cap = max(1, round(float(np.interp(run.config.pairs, sizes, caps))))
    expected = round(float(np.interp(cap, caps, sizes)))
    storage.write_json(run.own("target.json"), {"per_query": cap, "expected_pairs": expected})


@functools.lru_cache(maxsize=1)
def load_cap(base: str) -> int:
    """Returns t."""
    return storage.read_json(storage.join(base, "target.json"))["per_query"]
