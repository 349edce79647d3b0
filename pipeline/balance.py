"""The exact per-query cap: each query draws the first t pairs in its order that can be fetched.

A query orders its pairs by (priority, pair_id), the priority a seeded hash of query and pair. Those
with at most t pairs draw them all. For the others a bound on the priority, from the exact counts,
keeps the lowest 4t (the reserve) and a margin; of these the t-th that did not fail is the query's
threshold, and a pair is drawn when it lies at or below the threshold of one of its queries. Wave
after wave the thresholds are found anew from what has failed, so a wave draws exactly the shortfall
and pairs that are present through other queries count at their turn.

`t / max(count, t)` as a probability is MetaCLIP's balancing (Xu et al. 2023, algorithm 1); here the
cap is exact, the sample repeatable, and the same on every machine and in every order.
"""

import math
from dataclasses import dataclass

import numpy as np
from numba import njit, types

from wit.hashing import SHARED_QUERY, pair_key, priority
from wit.kernel_types import F64, I32, I64, U8, U64, writable

UNKNOWN, FETCHED, FAILED = 0, 1, 2  # what is known of a pair's picture
RESERVE = 4  # a query may look at this many times t pairs for t that can be fetched
QUERY_SLOTS = 4096
ALL = np.iinfo(np.uint64).max
ENTRY = np.dtype(
    [("query", "<i4"), ("priority", "<u8"), ("url", "<u8"), ("text", "<u8"), ("status", "u1")]
)
THRESHOLD = np.dtype(
    [
        ("priority", "<u8"),  # a pair at or below (priority, url, text) is drawn
        ("url", "<u8"),
        ("text", "<u8"),
        ("settled", "u1"),  # every pair drawn has been asked for: nothing is left to do
        ("short", "u1"),  # the bound let too few entries through: collect again without it
    ]
)


@dataclass(frozen=True)
class Pairs:
    """A batch of candidates, as the kernels read it.

    Attributes:
        verdict: uint8 [n] of pipeline.unique.
        status: uint8 [n], UNKNOWN, FETCHED or FAILED.
        offsets: int64 [n + 1] into query_ids.
        query_ids: int32 [matches], sorted within a pair.
        url, text: uint64 [n], the pair's hashes.
    """

    verdict: np.ndarray
    status: np.ndarray
    offsets: np.ndarray
    query_ids: np.ndarray
    url: np.ndarray
    text: np.ndarray


def order_hashes(query_hash: np.ndarray, sampling: str) -> np.ndarray:
    """Returns uint64 [queries]: what seeds each query's order, the same for all under `shared`."""
    return query_hash if sampling == "independent" else np.full_like(query_hash, SHARED_QUERY)


def priority_bounds(counts: np.ndarray, cap: int) -> np.ndarray:
    """Returns uint64 [queries]: a priority below which a query's reserve lies, but for bad luck.

    Six standard deviations beyond the expected number; a query that misses it all the same is
    marked short and collected again in full.
    """
    reserve = RESERVE * cap
    wanted = reserve + 6 * math.sqrt(reserve) + 16
    share = wanted / np.maximum(counts, 1)
    bounds = np.full(len(counts), ALL, np.uint64)
    cut = share < 1
    bounds[cut] = (share[cut] * 2.0**64).astype(np.uint64)
    return bounds


@njit(
    types.int64(
        *(U8, U8, I64, I32, U64, U64, types.uint64, U64, U8, U64),
        *(writable(I32), writable(U64), writable(I64)),
    ),
    cache=True,
    nogil=True,
)
def _collect(
    verdict, status, offsets, query_ids, url, text, seed, query_hash, wanted, bound, query, at, row
):
    found = 0
    for i in range(len(verdict)):
        if verdict[i] != 0:
            continue
        key = pair_key(seed, url[i], text[i])
        for j in range(offsets[i], offsets[i + 1]):
            q = query_ids[j]
            if wanted[q] != 0:
                place = priority(key, query_hash[q])
                if place <= bound[q]:
                    query[found], at[found], row[found] = q, place, i
                    found += 1
    return found


def collect(
    pairs: Pairs, seed: int, query_hash: np.ndarray, wanted: np.ndarray, bound: np.ndarray
) -> np.ndarray:
    """Returns ENTRY [m]: the (query, pair)s of wanted queries at or below their bounds.

    Args:
        pairs: the candidates with their verdicts and what is known of their pictures.
        seed: the run's seed.
        query_hash: uint64 [queries]; all SHARED_QUERY where queries share one priority a pair.
        wanted: uint8 [queries], 1 for queries that need an order.
        bound: uint64 [queries].
    """
    most = len(pairs.query_ids)
    query, place, row = (
        np.empty(most, np.int32),
        np.empty(most, np.uint64),
        np.empty(most, np.int64),
    )
    found = _collect(
        *(pairs.verdict, pairs.status, pairs.offsets, pairs.query_ids, pairs.url, pairs.text),
        *(np.uint64(seed), query_hash, wanted, bound, query, place, row),
    )
    entries, row = np.empty(found, ENTRY), row[:found]
    entries["query"], entries["priority"] = query[:found], place[:found]
    entries["url"], entries["text"] = pairs.url[row], pairs.text[row]
    entries["status"] = pairs.status[row]
    return entries


@njit(writable(I64)(I32, types.int64), cache=True, nogil=True)
def _counting_order(value, values):
    start = np.zeros(values + 1, np.int64)
    for v in value:
        start[v + 1] += 1
    for v in range(values):
        start[v + 1] += start[v]
    order = np.empty(len(value), np.int64)
    for i in range(len(value)):
        order[start[value[i]]] = i
        start[value[i]] += 1
    return order


def counting_order(value: np.ndarray, values: int) -> np.ndarray:
    """Returns int64 [n]: the stable order that sorts value, int [n] in [0, values), in O(n)."""
    return _counting_order(np.ascontiguousarray(value, np.int32), values)


@njit(cache=True, nogil=True)
def _before(a, b, at, url, text):
    if at[a] != at[b]:
        return at[a] < at[b]
    if url[a] != url[b]:
        return url[a] < url[b]
    return text[a] < text[b]


@njit(
    types.void(
        *(I64, I32, U64, U64, U64, U8, I64, types.int64, types.int64, types.int64),
        *(writable(U64), writable(U64), writable(U64), writable(U8), writable(U8)),
    ),
    cache=True,
    nogil=True,
)
def _thresholds(
    order,
    query,
    at,
    url,
    text,
    status,
    counts,
    cap,
    reserve,
    first,
    t_at,
    t_url,
    t_text,
    settled,
    short,
):
    start = 0
    while start < len(order):
        q = query[order[start]]
        end = start + 1
        while end < len(order) and query[order[end]] == q:
            end += 1
        run = order[start:end]
        places = np.empty(len(run), np.uint64)
        for i in range(len(run)):
            places[i] = at[run[i]]
        run = run[np.argsort(places)]
        for i in range(1, len(run)):  # equal priorities: by pair_id
            j = i
            while j > 0 and _before(run[j], run[j - 1], at, url, text):
                run[j], run[j - 1] = run[j - 1], run[j]
                j -= 1
        drawn, unknown = 0, 0
        for i in range(min(len(run), reserve)):
            pair = run[i]
            t_at[q - first], t_url[q - first], t_text[q - first] = at[pair], url[pair], text[pair]
            if status[pair] != FAILED:
                drawn += 1
            if status[pair] == UNKNOWN:
                unknown += 1
            if drawn == cap:
                break
        settled[q - first] = unknown == 0
        short[q - first] = len(run) < min(reserve, counts[q - first])
        start = end


def thresholds(entries: np.ndarray, counts: np.ndarray, cap: int, first: int) -> np.ndarray:
    """Returns THRESHOLD [queries of a bucket]: how far each query's order is drawn.

    Args:
        entries: ENTRY [m] of the queries [first, first + len(counts)), in any order.
        counts: int64 [queries], each query's unique pairs.
        cap: t, the pairs a query may draw.
        first: the bucket's first query.
    """
    found = np.zeros(len(counts), THRESHOLD)
    columns = [np.zeros(len(counts), np.uint64) for _ in range(3)]
    nothing_found = (counts > 0).astype(np.uint8)  # until an entry of the query is seen
    flags = [np.zeros(len(counts), np.uint8), nothing_found]
    query, at, url, text, status = (np.ascontiguousarray(entries[name]) for name in ENTRY.names)
    order = counting_order(query - np.int32(first), len(counts))
    _thresholds(
        *(order, query, at, url, text, status, counts, cap, RESERVE * cap, first),
        *columns,
        *flags,
    )
    for name, column in zip(THRESHOLD.names, [*columns, *flags], strict=True):
        found[name] = column
    return found


@njit(
    types.int64(
        *(U8, I64, I32, U64, U64, types.uint64, U64, U64, U64, U64),
        *(writable(U8), writable(U64), writable(I64), writable(I32)),
    ),
    cache=True,
    nogil=True,
)
def _draw(
    verdict, offsets, query_ids, url, text, seed,
    query_hash, t_at, t_url, t_text, drawn, lowest, drawn_offsets, drawn_by,
):  # fmt: skip
    total = 0
    for i in range(len(verdict)):
        drawn_offsets[i] = total
        drawn[i] = 0
        lowest[i] = ALL
        if verdict[i] != 0:
            continue
        key = pair_key(seed, url[i], text[i])
        for j in range(offsets[i], offsets[i + 1]):
            q = query_ids[j]
            place = priority(key, query_hash[q])
            if place > t_at[q]:
                continue
            if place == t_at[q] and (
                url[i] > t_url[q] or (url[i] == t_url[q] and text[i] > t_text[q])
            ):
                continue
            drawn[i] = 1
            lowest[i] = min(lowest[i], place)
            drawn_by[total] = q
            total += 1
    drawn_offsets[len(verdict)] = total
    return total


@dataclass(frozen=True)
class Drawn:
    """Which pairs of a batch are drawn, and by which queries.

    Attributes:
        drawn: bool [n].
        priority: uint64 [n], the lowest among the drawing queries' orders.
        offsets: int64 [n + 1] into by.
        by: int32 [draws], the drawing queries.
    """

    drawn: np.ndarray
    priority: np.ndarray
    offsets: np.ndarray
    by: np.ndarray


def draw(pairs: Pairs, seed: int, query_hash: np.ndarray, threshold: np.ndarray) -> Drawn:
    """Returns the pairs at or below the threshold (THRESHOLD [queries]) of one of their queries."""
    n = len(pairs.verdict)
    drawn, lowest = np.empty(n, np.uint8), np.empty(n, np.uint64)
    offsets, by = np.empty(n + 1, np.int64), np.empty(len(pairs.query_ids), np.int32)
    total = _draw(
        *(pairs.verdict, pairs.offsets, pairs.query_ids, pairs.url, pairs.text),
        *(np.uint64(seed), query_hash),
        *(np.ascontiguousarray(threshold[name]) for name in ("priority", "url", "text")),
        *(drawn, lowest, offsets, by),
    )
    return Drawn(drawn.astype(bool), lowest, offsets, by[:total])


def count_queries(pairs: Pairs, rows: np.ndarray, queries: int) -> np.ndarray:
    """Returns int64 [queries]: how many of the chosen rows (bool [n]) match each query."""
    matches = np.repeat(rows, np.diff(pairs.offsets))
    return np.bincount(pairs.query_ids[matches], minlength=queries)


@njit(
    types.void(U8, I64, I32, I64, F64, types.boolean, writable(F64)),
    cache=True,
    nogil=True,
)
def _expected(verdict, offsets, query_ids, counts, caps, shared, expected):
    for i in range(len(verdict)):
        if verdict[i] != 0:
            continue
        for c in range(len(caps)):
            missed = 1.0
            for j in range(offsets[i], offsets[i + 1]):
                share = 1.0 - min(1.0, caps[c] / counts[query_ids[j]])
                missed = min(missed, share) if shared else missed * share
                if missed == 0.0:
                    break
            expected[c] += 1.0 - missed


def expected_pairs(pairs: Pairs, counts: np.ndarray, caps: np.ndarray, shared: bool) -> np.ndarray:
    """Returns float64 [caps]: how many pairs each cap is expected to select from a batch."""
    expected = np.zeros(len(caps), np.float64)
    _expected(
        *(pairs.verdict, pairs.offsets, pairs.query_ids, counts, caps.astype(np.float64)),
        *(shared, expected),
    )
    return expected
