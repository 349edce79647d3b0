"""What a sample says of the whole: the truth lies in the intervals, and the means are right."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import balance
from pipeline.forecast.draw import Selection
from pipeline.forecast.estimate import Interval, count_distinct, fit, mean_total, ratio

CHUNKS = 64


def sampled(times: np.ndarray, share: float, rng: np.random.Generator):
    """Spreads things over the chunks of a whole, each so many times; those of the drawn chunks."""
    chunks = round(CHUNKS / share)
    cells = [rng.choice(chunks, min(int(n), chunks), replace=False) for n in times]
    code = np.repeat(np.arange(len(times)), [len(c) for c in cells])
    place = np.full(chunks, -1)
    place[rng.choice(chunks, CHUNKS, replace=False)] = np.arange(CHUNKS)
    chunk = place[np.concatenate(cells)]
    code = np.unique(code[chunk >= 0], return_inverse=True)[1]
    return code, chunk[chunk >= 0]


KINDS = {
    "each once": lambda n, rng: np.ones(n),
    "each forty times": lambda n, rng: np.full(n // 20, 40),
    "as a power law": lambda n, rng: np.minimum(rng.zipf(2.2, n), 500),
    "most once, some often": lambda n, rng: np.where(rng.random(n) < 0.1, 30, 1),
}


@pytest.mark.parametrize("share", [0.01, 0.2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_distinct_things_lies_in_the_interval(kind, share):
    covered = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        times = KINDS[kind](4000, rng)
        found = count_distinct(*sampled(times, share, rng), CHUNKS, share)
        covered += found.number.low <= len(times) <= found.number.high
        assert found.weights.sum() == pytest.approx(found.number.mid)
    assert covered >= 17


def test_repeated_pages_are_told_from_new_ones_once_some_are_met_again():
    rng = np.random.default_rng(1)
    code, chunk = sampled(np.full(2000, 40), 0.05, rng)
    assert count_distinct(code, chunk, CHUNKS, 0.05).number.mid == pytest.approx(2000, rel=0.1)
    code, chunk = sampled(np.ones(80_000), 0.05, rng)
    assert count_distinct(code, chunk, CHUNKS, 0.05).number.mid == pytest.approx(80_000, rel=0.1)


def test_a_sample_of_everything_is_exact():
    code, chunk = np.array([0, 1, 1, 2, 2, 2]), np.array([0, 0, 1, 1, 2, 2])
    assert count_distinct(code, chunk, 3, 1.0).number == Interval.exact(3.0)
    assert ratio(np.array([1.0, 2.0]), np.array([10.0, 10.0]), 1.0) == Interval.exact(0.15)
    assert mean_total(np.array([3.0, 4.0]), 2) == Interval.exact(7.0)


def test_ratios_cover_the_truth_nineteen_times_in_twenty():
    rng = np.random.default_rng(7)
    sizes = rng.gamma(4.0, 1.0, 5000)
    values = sizes * rng.gamma(2.0, 1.0, 5000)
    truth = values.sum() / sizes.sum()
    covered = 0
    for _ in range(400):
        some = rng.choice(5000, 50, replace=False)
        found = ratio(values[some], sizes[some], 0.01)
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / 400 <= 0.99


def test_what_was_not_met_may_be_there_three_times_in_what_was_read():
    found = ratio(np.zeros(30), np.full(30, 2.0), 0.001)
    assert (found.low, found.mid, found.high) == (0.0, 0.0, 3 / 60)


@settings(max_examples=20)
@given(counts=st.lists(st.integers(1, 300), min_size=1, max_size=30), share=st.floats(0.01, 0.99))
def test_a_law_holds_as_many_things_as_were_met_and_not(counts, share):
    met, things = np.unique(counts, return_counts=True)
    law = fit(met, things.astype(float), share, max(counts) / share * 2, 10.0)
    assert law.mass.sum() == pytest.approx(len(counts) + 10)
    assert law.posterior(met).sum(1) == pytest.approx(np.ones(len(met)))


def world(rng: np.random.Generator, pairs: int, queries: int):
    """Pairs with one to four queries each, whose frequencies follow a power law."""
    many = rng.integers(1, 5, pairs)
    offsets = np.concatenate([[0], np.cumsum(many)])
    chance = 1 / np.arange(1, queries + 1)
    ids = rng.choice(queries, offsets[-1], p=chance / chance.sum()).astype(np.int32)
    return offsets, ids


def part_of(offsets, ids, rows):
    lists = [ids[offsets[row] : offsets[row + 1]] for row in rows]
    return np.concatenate([[0], np.cumsum([len(x) for x in lists])]), np.concatenate(lists)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("cap", [3, 30, 300, 3000])
def test_a_hundredth_says_how_many_pairs_a_cap_draws(cap, shared):
    rng = np.random.default_rng(cap)
    n, queries = 200_000, 5000
    offsets, ids = world(rng, n, queries)
    none = np.zeros(n, np.uint64)
    whole = balance.Pairs(np.zeros(n, np.uint8), np.zeros(n, np.uint8), offsets, ids, none, none)
    counts = np.bincount(ids, minlength=queries)
    truth = balance.expected_pairs(whole, counts, np.array([cap]), shared)[0]
    rows = np.flatnonzero(rng.random(n) < 0.02)
    weights = np.full(len(rows), n / len(rows))
    some = Selection(
        *part_of(offsets, ids, rows), weights, Interval.exact(float(n)), queries, shared
    )
    # With one order for all, the mean of a largest chance is above the largest mean.
    assert some.drawn(cap).mid == pytest.approx(truth, rel=0.15 if shared else 0.1)
    assert some.solve(int(truth)).mid == pytest.approx(cap, rel=0.2)


def test_with_everything_read_the_draw_is_that_of_the_harvest():
    rng = np.random.default_rng(3)
    n, queries = 3000, 200
    offsets, ids = world(rng, n, queries)
    none = np.zeros(n, np.uint64)
    whole = balance.Pairs(np.zeros(n, np.uint8), np.zeros(n, np.uint8), offsets, ids, none, none)
    counts = np.bincount(ids, minlength=queries)
    (truth,) = balance.expected_pairs(whole, counts, np.array([20]), False)
    found = Selection(offsets, ids, np.ones(n), Interval.exact(float(n)), queries, False)
    assert found.drawn(20).mid == pytest.approx(truth, rel=0.02)
    assert found.drawn(1e9) == Interval.exact(float(n))
