"""Which sample stands where in an epoch: a pure function of (seed, epoch, position).

An epoch permutes the shards by a keyed hash and lays their samples in one line, a ring that is
opened at a hashed place. The line is cut into L equal lanes; each lane is permuted within windows
of W samples. A step takes batch / L samples from every lane, so the world size is nowhere in it: a
rank owns some lanes, reads their shards and no others (a shard at a lane's border is read by two).

Windows of different lanes begin at different times, W / L apart, or all lanes would want the shards
of their next window at once. A set of at most W samples is one window: all of it is shuffled, and
every rank reads all of it. What is left when whole batches are taken stands at the ends of the
lanes, which are others each epoch.

Only integer arithmetic and a sort of distinct integers: equal with every numpy and machine.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from wit.errors import UserError

LANES = 64
WINDOW = 131_072  # samples
NEVER = np.iinfo(np.int64).max

SHARDS, START, INSIDE = range(3)  # what a key is for
MASK = (1 << 64) - 1
GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mix(values: np.ndarray) -> np.ndarray:
    """uint64 [n]: splitmix64 (Steele, Lea, Flood 2014), a bijection in which all bits matter."""
    values = values + np.uint64(GOLDEN)
    values ^= values >> np.uint64(30)
    values *= np.uint64(FIRST)
    values ^= values >> np.uint64(27)
    values *= np.uint64(SECOND)
    values ^= values >> np.uint64(31)
    return values


def mix_one(value: int) -> int:
    """`mix` of a single number from 0 to 2^64 - 1, which numpy takes twenty times as long for."""
    value = (value + GOLDEN) & MASK
    value = ((value ^ value >> 30) * FIRST) & MASK
    value = ((value ^ value >> 27) * SECOND) & MASK
    return value ^ value >> 31


def key_of(*parts: int) -> int:
    """A 64-bit key of integers (taken modulo 2^64), each of which changes all of it."""
    key = 0
    for part in parts:
        key = mix_one(key ^ mix_one(part & MASK))
    return key


def keyed_permutation(n: int, key: int) -> np.ndarray:
    """uint32 [n], a permutation of 0..n-1: the order of their keyed hashes (n below 2^31).

    A number stands in its hash's low bits, so a plain sort does, three times as fast as argsort.
    """
    low = np.uint64((1 << max(1, (n - 1).bit_length())) - 1)
    numbers = np.arange(n, dtype=np.uint64)
    hashes = mix(numbers ^ np.uint64(key)) & ~low
    return (np.sort(hashes | numbers) & low).astype(np.uint32)


@dataclass(frozen=True)
class Windows:
    """The windows of some lanes, int64 [n] each: lane, first position in it, and one past it."""

    lane: np.ndarray
    start: np.ndarray
    end: np.ndarray


class Order:
    """The order of one epoch over shards of `counts` samples (int64 [S], zeros allowed).

    `lane_length` is in samples, `total` all there are. A position is within a lane.
    """

    def __init__(
        self,
        counts: np.ndarray,
        seed: int,
        epoch: int,
        lanes: int = LANES,
        window: int = WINDOW,
    ) -> None:
        self.counts = np.asarray(counts, np.int64)
        self.seed, self.epoch, self.lanes, self.window = seed, epoch, lanes, window
        self.total = int(self.counts.sum())
        if lanes < 1 or not 1 <= window < 1 << 31:
            raise UserError(
                f"{lanes:,} lanes with windows of {window:,} samples: both must be at least 1, "
                "and a window below 2^31"
            )
        if self.total == 0:
            raise UserError("the shards hold no samples; check which folders are given")
        self.lane_length = self.total // lanes
        self.shards = keyed_permutation(len(self.counts), key_of(seed, epoch, SHARDS))
        self._ends = np.cumsum(self.counts[self.shards])
        self.start = key_of(seed, epoch, START) % self.total
        self._kept: dict[int, tuple[int, np.ndarray]] = {}

    def after(self) -> "Order":
        """The order of the next epoch."""
        return Order(self.counts, self.seed, self.epoch + 1, self.lanes, self.window)

    # --- steps --------------------------------------------------------------------------------

    def per_lane(self, batch_size: int) -> int:
        """How many samples a step takes from each lane."""
        if batch_size < 1 or batch_size % self.lanes:
            raise UserError(
                f"a batch of {batch_size:,} cannot be taken evenly from {self.lanes} lanes; choose "
                "a multiple of the lanes, or fewer lanes"
            )
        return batch_size // self.lanes

    def steps(self, batch_size: int) -> int:
        """Steps of the epoch, at least one; fewer samples than a batch are a UserError."""
        steps = self.lane_length // self.per_lane(batch_size)
        if steps == 0:
            raise UserError(
                f"the shards hold {self.total:,} samples, fewer than one batch of {batch_size:,}; "
                "choose a smaller batch, or add shards"
            )
        return steps

    def dropped(self, batch_size: int) -> int:
        """Samples that this epoch leaves out, fewer than a batch."""
        return self.total - self.steps(batch_size) * batch_size

    def lanes_of(self, rank: int, world: int) -> range:
        """The lanes of a rank, one after another."""
        if self.lanes % world:
            raise UserError(
                f"{self.lanes} lanes cannot be shared by {world} ranks; choose lanes that are a "
                "multiple of the ranks (at the start of an epoch), or other ranks"
            )
        each = self.lanes // world
        return range(rank * each, (rank + 1) * each)

    def batch(
        self, step: int, batch_size: int, lanes: range | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(shard, sample) int32 [B], in position order: lane 0's samples, lane 1's, and so on.

        lanes: only these; then it is the rank's contiguous part of the global batch.
        """
        per_lane = self.per_lane(batch_size)
        if not 0 <= step < self.steps(batch_size):
            raise IndexError(f"step {step} of an epoch of {self.steps(batch_size)} steps")
        lanes = range(self.lanes) if lanes is None else lanes
        first = step * per_lane
        lines = [self.line_of(lane, first, first + per_lane) for lane in lanes]
        line = np.concatenate(lines) if lines else np.empty(0, np.int64)
        return self.samples_at(line)

    def samples_at(self, line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(shard, sample) int32 [n] of places in the line, int64 [n]."""
        line = (line + self.start) % self.total
        place = np.searchsorted(self._ends, line, side="right")
        shard = self.shards[place]
        begin = self._ends[place] - self.counts[shard]
        return shard.astype(np.int32), (line - begin).astype(np.int32)

    def line_of(self, lane: int, first: int, last: int) -> np.ndarray:
        """Places in the line, int64, of a lane's positions [first, last)."""
        if self.total <= self.window:
            begin = lane * self.lane_length
            return self._inside(-1, 0, self.total)[begin + first : begin + last].astype(np.int64)
        parts = []
        while first < last:
            number, start, end = self._window_at(lane, first)
            inside = self._inside(lane, number, end - start)[first - start : last - start]
            parts.append(inside.astype(np.int64) + (lane * self.lane_length + start))
            first = end
        return np.concatenate(parts)

    def _inside(self, lane: int, number: int, size: int) -> np.ndarray:
        """The permutation inside a window; the last one of each lane is kept."""
        kept = self._kept.get(lane)
        if kept is None or kept[0] != number:
            key = key_of(self.seed, self.epoch, INSIDE, lane, number)
            kept = self._kept[lane] = (number, keyed_permutation(size, key))
        return kept[1]

    # --- windows ------------------------------------------------------------------------------

    def _first_end(self, lane: int) -> int:
        """Where a lane's first window ends; the later ones have `window` samples each."""
        if self.lane_length <= self.window:
            return self.lane_length
        return max(1, self.window * (lane + 1) // self.lanes)

    def _window_at(self, lane: int, position: int) -> tuple[int, int, int]:
        """(number, start, end) of the window in which a position stands."""
        first = self._first_end(lane)
        if position < first:
            return 0, 0, first
        number = (position - first) // self.window
        start = first + number * self.window
        return number + 1, start, min(start + self.window, self.lane_length)

    def windows(self, lanes: Sequence[int]) -> Windows:
        """All windows of some lanes; in a set that is one window, one for each of its lanes."""
        starts, ends, of = [], [], []
        for lane in lanes:
            first = self._first_end(lane)
            start = np.r_[0, np.arange(first, self.lane_length, self.window)]
            starts.append(start)
            ends.append(np.r_[start[1:], self.lane_length])
            of.append(np.full(len(start), lane))
        return Windows(*(np.concatenate(parts).astype(np.int64) for parts in (of, starts, ends)))

    def needed(self, lanes: Sequence[int], position: int) -> np.ndarray:
        """int64 [S]: the position from which some lanes need each shard, NEVER if no more.

        At or after `position`; a shard counts as needed from its window's start to the window's
        end. What is downloaded first and what can be evicted follows from this.
        """
        need = np.full(len(self.counts), NEVER)
        if not lanes or position >= self.lane_length:
            return need
        if self.total <= self.window:
            need[self.counts > 0] = position
            return need
        found = self.windows(lanes)
        ahead = found.end > position
        lane, start, end = found.lane[ahead], found.start[ahead], found.end[ahead]
        line = lane * self.lane_length + self.start
        first = np.searchsorted(self._ends, (line + start) % self.total, side="right")
        last = np.searchsorted(self._ends, (line + end - 1) % self.total, side="right")
        wraps = (line + start) % self.total > (line + end - 1) % self.total
        for i in np.argsort(start, kind="stable")[::-1]:
            when = max(position, int(start[i]))
            if wraps[i]:
                need[self.shards[first[i] :]] = when
                need[self.shards[: last[i] + 1]] = when
            else:
                need[self.shards[first[i] : last[i] + 1]] = when
        need[self.counts == 0] = NEVER
        return need


def neighbour_distance(order: Order, windows: int = 8) -> float:
    """How many samples are trained, on average, between two that are neighbours in their shard.

    From at most so many windows, evenly spread. 1 without a shuffle, total / 3 with a perfect one,
    lanes x window / 3 in a large set.
    """
    distances = [
        np.abs(np.diff(placed))[same] * order.lanes for placed, same in _placed(order, windows)
    ]
    found = np.concatenate(distances)
    return float(found.mean()) if len(found) else 0.0


def _placed(order: Order, windows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For stretches of the line: positions in their lanes, and whether the next is of the shard."""
    if order.total <= order.window:
        line = np.concatenate([order.line_of(lane, 0, order.lane_length) for lane in _all(order)])
        spans = [(line, np.tile(np.arange(order.lane_length), order.lanes))]
    else:
        found = order.windows(_all(order))
        chosen = np.unique(np.linspace(0, len(found.lane) - 1, windows).astype(int))
        spans = []
        for lane, start, end in zip(
            found.lane[chosen], found.start[chosen], found.end[chosen], strict=True
        ):
            line = order.line_of(int(lane), int(start), int(end))
            spans.append((line, np.arange(start, end)))
    for line, position in spans:
        along = np.argsort(line, kind="stable")
        shard, sample = order.samples_at(line[along])
        yield position[along], (np.diff(shard) == 0) & (np.diff(sample) == 1)


def _all(order: Order) -> range:
    return range(order.lanes)
