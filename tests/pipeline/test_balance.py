"""The draw equals a brute-force oracle, waves with random failures included."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import balance, unique
from pipeline.balance import ALL, FAILED, FETCHED, UNKNOWN

MASK = 2**64 - 1


def mix(value: int) -> int:
    """splitmix64's finaliser in Python's integers."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def place(seed: int, url: int, text: int, query_hash: int) -> tuple[int, int, int]:
    return mix(mix(mix(mix(seed) ^ url) ^ text) ^ mix(query_hash)), url, text


def make_pairs(matches: list[list[int]], seed: int, status: np.ndarray | None = None):
    rng = np.random.default_rng(seed)
    ids = [sorted(set(m)) for m in matches]
    return balance.Pairs(
        verdict=np.zeros(len(ids), np.uint8),
        status=np.zeros(len(ids), np.uint8) if status is None else status,
        offsets=np.cumsum([0, *map(len, ids)]).astype(np.int64),
        query_ids=np.array([q for m in ids for q in m], np.int32),
        url=rng.integers(0, 40, len(ids)).astype(np.uint64),
        text=np.arange(len(ids)).astype(np.uint64),
    )


def oracle(pairs, seed, hashes, cap) -> tuple[set[int], set[int]]:
    """The pairs to fetch now, and all that lie in some query's drawn prefix, by sorting."""
    wanted, prefix = set(), set()
    for q, query_hash in enumerate(hashes):
        rows = [
            i
            for i in range(len(pairs.verdict))
            if q in pairs.query_ids[pairs.offsets[i] : pairs.offsets[i + 1]]
        ]
        key = {i: place(seed, int(pairs.url[i]), int(pairs.text[i]), int(query_hash)) for i in rows}
        rows.sort(key=key.get)
        drawn = 0
        for i in rows if len(rows) <= cap else rows[: balance.RESERVE * cap]:
            if drawn == cap:
                break
            prefix.add(i)
            drawn += pairs.status[i] != FAILED
            if pairs.status[i] == UNKNOWN:
                wanted.add(i)
    return wanted, prefix


def select(pairs, seed, hashes, cap):
    """What the stages do, in one piece."""
    counts = balance.count_queries(pairs, np.ones(len(pairs.verdict), bool), len(hashes))
    wanted = (counts > cap).astype(np.uint8)
    bound = balance.priority_bounds(counts, cap)
    entries = balance.collect(pairs, seed, hashes, wanted, bound)
    found = np.zeros(len(hashes), balance.THRESHOLD)
    found["priority"] = found["url"] = found["text"] = ALL
    half = len(hashes) // 2  # two buckets
    for first, last in ((0, half), (half, len(hashes))):
        part = entries[(entries["query"] >= first) & (entries["query"] < last)]
        made = balance.thresholds(part, counts[first:last], cap, first)
        head = counts[first:last] > cap
        found[first:last][head] = made[head]
    assert not found["short"].any()
    return balance.draw(pairs, seed, hashes, found), found


matches = st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=5), min_size=1, max_size=120)


modes = st.sampled_from(["independent", "shared"])


@settings(max_examples=150)
@given(matches, st.integers(1, 6), st.integers(0, 2**32), modes)
def test_draws_equal_the_oracle_through_waves_with_failures(matches, cap, seed, sampling):
    rng = np.random.default_rng(seed)
    hashes = balance.order_hashes(rng.integers(1, 2**63, 8).astype(np.uint64), sampling)
    pairs = make_pairs(matches, seed)
    alive = rng.random(len(matches)) < 0.6
    for _ in range(5):
        drawn, _ = select(pairs, seed, hashes, cap)
        wanted, prefix = oracle(pairs, seed, hashes, cap)
        assert set(np.flatnonzero(drawn.drawn)) == prefix
        fetch = drawn.drawn & (pairs.status == UNKNOWN)
        assert set(np.flatnonzero(fetch)) == wanted
        fetch &= rng.random(len(matches)) < 0.8  # some are deferred to the next wave
        pairs.status[fetch] = np.where(alive[fetch], FETCHED, FAILED)
    for q in range(8):  # the cap is exact among pictures that could be fetched
        rows = [i for i in range(len(matches)) if q in matches[i]]
        taken = [
            i
            for i in np.flatnonzero(drawn.drawn)
            if q in drawn.by[drawn.offsets[i] : drawn.offsets[i + 1]] and pairs.status[i] == FETCHED
        ]
        assert len(taken) <= cap
        if len(rows) <= cap:
            assert set(taken) == {i for i in rows if pairs.status[i] == FETCHED}


@settings(max_examples=50)
@given(matches, st.integers(1, 4), st.integers(0, 2**32))
def test_draws_do_not_depend_on_the_order_or_cut_of_the_batches(matches, cap, seed):
    hashes = np.arange(1, 9).astype(np.uint64)
    pairs = make_pairs(matches, seed)
    whole, found = select(pairs, seed, hashes, cap)
    order = np.random.default_rng(seed).permutation(len(matches))
    shuffled = balance.Pairs(
        verdict=pairs.verdict[order],
        status=pairs.status[order],
        offsets=np.concatenate([[0], np.cumsum(np.diff(pairs.offsets)[order])]).astype(np.int64),
        query_ids=np.concatenate(
            [pairs.query_ids[pairs.offsets[i] : pairs.offsets[i + 1]] for i in order]
        ),
        url=pairs.url[order],
        text=pairs.text[order],
    )
    again, found_again = select(shuffled, seed, hashes, cap)
    assert np.array_equal(found, found_again)
    assert np.array_equal(again.drawn, whole.drawn[order])


def test_pairs_of_equal_priority_are_ordered_by_pair_id():
    entries = np.zeros(6, balance.ENTRY)
    entries["priority"] = [5, 5, 5, 5, 1, 9]
    entries["url"], entries["text"] = [3, 1, 2, 1, 7, 0], [0, 9, 0, 4, 0, 0]
    for order in (np.arange(6), np.arange(6)[::-1]):
        found = balance.thresholds(entries[order], np.array([6]), 3, 0)[0]
        assert (found["priority"], found["url"], found["text"]) == (5, 1, 9)


def test_the_bound_lets_the_reserve_through_but_not_much_more():
    counts = np.array([10, 100_000, 10_000_000])
    bounds = balance.priority_bounds(counts, 1000)
    expected = bounds.astype(float) / 2.0**64 * counts
    assert bounds[0] == ALL
    assert np.all((expected[1:] > 4000) & (expected[1:] < 4500))


def test_a_query_whose_bound_let_too_few_through_is_marked_short():
    entries = np.zeros(3, balance.ENTRY)
    found = balance.thresholds(entries, np.array([100]), 2, 0)
    assert found["short"][0] == 1


def test_shared_sampling_fills_the_caps_with_fewer_pairs():
    rng = np.random.default_rng(3)
    matches = [list(rng.integers(0, 8, 4)) for _ in range(4000)]
    hashes = np.arange(1, 9).astype(np.uint64)
    pairs = make_pairs(matches, 3)
    size = {
        mode: select(pairs, 1, balance.order_hashes(hashes, mode), 200)[0].drawn.sum()
        for mode in ("independent", "shared")
    }
    assert size["shared"] < 0.75 * size["independent"]


def test_the_expected_size_of_a_selection_is_the_size_it_gets():
    rng = np.random.default_rng(4)
    matches = [list(rng.zipf(1.6, 5) % 8) for _ in range(20_000)]
    hashes = np.arange(1, 9).astype(np.uint64)
    pairs = make_pairs(matches, 4)
    counts = balance.count_queries(pairs, np.ones(len(matches), bool), 8)
    for shared in (False, True):
        mode = balance.order_hashes(hashes, "shared" if shared else "independent")
        for cap in (100, 1000):
            expected = balance.expected_pairs(pairs, counts, np.array([cap]), shared)[0]
            drawn = select(pairs, 9, mode, cap)[0].drawn.sum()
            assert abs(drawn - expected) < 5 * np.sqrt(expected)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), max_size=60), st.integers(1, 3))
def test_of_equal_pairs_the_first_survives_and_of_an_images_texts_the_lowest_hashes(rows, keep):
    url = np.array([u for u, _ in rows], np.uint64)
    text = np.array([t for _, t in rows], np.uint64)
    verdict = unique.judge(url, text, keep)
    seen: set[tuple[int, int]] = set()
    for i, row in enumerate(rows):
        allowed = sorted({t for u, t in rows if u == row[0]})[:keep]
        expected = (
            unique.DUPLICATE_PAIR
            if row in seen
            else unique.SURVIVES
            if row[1] in allowed
            else unique.OTHER_TEXT
        )
        assert verdict[i] == expected
        seen.add(row)
