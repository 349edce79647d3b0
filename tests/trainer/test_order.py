"""The order of an epoch: each sample once, equal batches at any world size, well shuffled."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.order import NEVER, Order, keyed_permutation, mix, mix_one, neighbour_distance
from wit.errors import UserError

counts_of_shards = st.one_of(
    st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(sum),
    st.integers(1, 300).map(lambda n: [n]),
    st.integers(1, 60).map(lambda n: [1] * n),
)


@st.composite
def orders(draw) -> tuple[Order, int]:
    """An order, and a size of batch of which it has at least one."""
    counts = draw(counts_of_shards)
    lanes = draw(st.sampled_from([lanes for lanes in (1, 2, 4, 8) if lanes <= sum(counts)]))
    window = draw(st.integers(1, 400))
    order = Order(
        np.array(counts), draw(st.integers(0, 2**64)), draw(st.integers(0, 9)), lanes, window
    )
    return order, lanes * draw(st.integers(1, max(1, order.lane_length)))


def samples_of(order: Order, batch_size: int) -> list[tuple[int, int]]:
    parts = [order.batch(step, batch_size) for step in range(order.steps(batch_size))]
    return [
        pair
        for shard, sample in parts
        for pair in zip(shard.tolist(), sample.tolist(), strict=True)
    ]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_a_number_alone_is_mixed_as_among_others(values):
    assert [mix_one(value) for value in values] == mix(np.array(values, np.uint64)).tolist()


@given(orders())
def test_an_epoch_has_every_sample_once_but_a_tail_shorter_than_a_batch(made):
    order, batch_size = made
    found = samples_of(order, batch_size)
    assert len(set(found)) == len(found)
    assert all(0 <= sample < order.counts[shard] for shard, sample in found)
    assert order.total - len(found) == order.dropped(batch_size) < batch_size


@given(orders(), st.data())
def test_the_parts_of_1_2_or_4_ranks_make_the_same_global_batch(made, data):
    order, batch_size = made
    step = data.draw(st.integers(0, order.steps(batch_size) - 1))
    whole = np.stack(order.batch(step, batch_size))
    for world in (world for world in (1, 2, 4) if order.lanes % world == 0):
        again = Order(order.counts, order.seed, order.epoch, order.lanes, order.window)
        parts = [
            np.stack(again.batch(step, batch_size, again.lanes_of(rank, world)))
            for rank in range(world)
        ]
        assert np.array_equal(np.concatenate(parts, axis=1), whole)


@given(orders(), st.data())
def test_a_batch_does_not_depend_on_those_taken_before_it(made, data):
    order, batch_size = made
    step = data.draw(st.integers(0, order.steps(batch_size) - 1))
    for before in range(step):
        order.batch(before, batch_size)
    fresh = Order(order.counts, order.seed, order.epoch, order.lanes, order.window)
    assert np.array_equal(order.batch(step, batch_size), fresh.batch(step, batch_size))


def test_the_order_is_the_one_it_was_when_this_was_written():
    order = Order(np.array([5, 0, 7, 3, 40]), seed=2021, epoch=3, lanes=2, window=8)
    shard, sample = order.batch(4, 8)
    assert shard.tolist() == GOLDEN[0]
    assert sample.tolist() == GOLDEN[1]
    assert keyed_permutation(12, 7).tolist() == GOLDEN[2]


GOLDEN = (
    [4, 4, 4, 4, 4, 0, 0, 4],
    [5, 4, 7, 10, 35, 1, 0, 36],
    [4, 2, 0, 9, 3, 8, 6, 11, 5, 1, 10, 7],
)


def test_a_shard_is_read_by_one_rank_and_the_shards_at_borders_by_two():
    counts = np.random.default_rng(0).integers(50, 400, 200)
    order = Order(counts, seed=1, epoch=0, lanes=16, window=512)
    readers: dict[int, set[int]] = {}
    for rank in range(4):
        for step in range(order.steps(64)):
            for shard in order.batch(step, 64, order.lanes_of(rank, 4))[0].tolist():
                readers.setdefault(shard, set()).add(rank)
    several = [ranks for ranks in readers.values() if len(ranks) > 1]
    assert all(len(ranks) == 2 for ranks in several)
    assert 0 < len(several) <= 4  # between the ranks, and where the ring is opened


def test_epochs_differ_and_so_do_seeds():
    counts = np.array([500, 300])
    batches = [
        tuple(map(bytes, Order(counts, seed, epoch).batch(0, 64)))
        for seed in (1, 2)
        for epoch in (0, 1)
    ]
    assert len(set(batches)) == 4


@pytest.mark.parametrize(("counts", "window"), [([1000], 100_000), ([1000], 32), ([7] * 143, 32)])
def test_another_tail_is_left_out_each_epoch(counts, window):
    left = []
    for epoch in range(8):
        order = Order(np.array(counts), 5, epoch, 8, window)
        everything = {(s, i) for s, count in enumerate(counts) for i in range(count)}
        left.append(frozenset(everything - set(samples_of(order, 120))))
        assert len(left[-1]) == order.dropped(120) > 0
    assert len(set(left)) == len(left)
    assert not frozenset.intersection(*left)


def test_a_small_set_is_shuffled_as_a_whole():
    order = Order(np.array([7498]), seed=0, epoch=0)
    assert neighbour_distance(order) == pytest.approx(7498 / 3, rel=0.03)
    # Where a sample stands in an epoch says nothing of where it stands in the next.
    of_sample = np.empty((2, 7498))
    for epoch in (0, 1):
        found = samples_of(Order(np.array([7498]), 0, epoch), 64)
        of_sample[epoch] = np.nan
        of_sample[epoch][[sample for _, sample in found]] = np.arange(len(found))
    both = ~np.isnan(of_sample).any(axis=0)
    assert abs(np.corrcoef(of_sample[:, both])[0, 1]) < 0.05


def test_neighbours_in_a_large_set_are_a_third_of_the_windows_apart():
    order = Order(np.full(3000, 1000), seed=0, epoch=0, lanes=16, window=8192)
    assert neighbour_distance(order) == pytest.approx(16 * 8192 / 3, rel=0.05)


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_a_keyed_permutation_has_every_number_once(n, key):
    assert np.array_equal(np.sort(keyed_permutation(n, key)), np.arange(n))


def test_all_numbers_are_equally_likely_at_all_places_of_a_permutation():
    places = np.zeros((10, 10))
    for key in range(5000):
        places[np.arange(10), keyed_permutation(10, key)] += 1
    chi_squared = ((places - 500) ** 2 / 500).sum()  # 81 degrees of freedom
    assert 40 < chi_squared < 140


@given(orders(), st.data())
def test_a_shard_is_needed_when_it_is_read(made, data):
    order, _ = made
    lane = data.draw(st.integers(0, order.lanes - 1))
    position = data.draw(st.integers(0, order.lane_length - 1))
    shard, _ = order.samples_at(order.line_of(lane, position, position + 1))
    lanes = range(lane, lane + 1)
    assert order.needed(lanes, position)[shard[0]] == position
    assert order.needed(lanes, 0)[shard[0]] <= position
    later = [
        int(order.samples_at(order.line_of(lane, p, p + 1))[0][0])
        for p in range(position, order.lane_length)
    ]
    need = order.needed(lanes, position)
    assert set(later) <= set(np.flatnonzero(need < NEVER).tolist())


def test_lanes_come_to_new_windows_at_different_times():
    order = Order(np.full(1000, 1000), seed=0, epoch=0, lanes=64, window=4096)
    windows = order.windows(range(64))
    begins = windows.start[windows.start > 0] % 4096
    assert np.bincount(begins).max() <= 4  # one lane a time, each 3 or 4 times


def test_the_order_of_400_million_samples_is_known_in_100_ms():
    counts = np.random.default_rng(0).integers(5000, 11_001, 50_000)
    times, lane_times = [], []
    for epoch in range(3):
        began = time.perf_counter()
        order = Order(counts, 0, epoch)
        times.append(time.perf_counter() - began)
        step = order.steps(32_768) // 2
        began = time.perf_counter()
        order.batch(step, 32_768, range(7, 8))
        lane_times.append(time.perf_counter() - began)
    assert order.total > 399_000_000
    assert min(times) < 0.1
    assert min(lane_times) < 0.1


def test_what_cannot_be_ordered_is_said():
    order = Order(np.array([60, 30]), 0, 0, lanes=8)
    with pytest.raises(UserError, match="90 samples, fewer than one batch of 96"):
        order.steps(96)
    with pytest.raises(UserError, match="a batch of 100 cannot be taken evenly from 8 lanes"):
        order.batch(0, 100)
    with pytest.raises(UserError, match="8 lanes cannot be shared by 3 ranks"):
        order.lanes_of(0, 3)
    with pytest.raises(UserError, match="no samples"):
        Order(np.array([0, 0]), 0, 0)
    with pytest.raises(UserError, match="0 lanes"):
        Order(np.array([5]), 0, 0, lanes=0)
    with pytest.raises(IndexError):
        order.batch(11, 8)
