"""The batches of a run, one rank's part of each, read ahead of the training step by threads.

Where a run stands in its data is (epoch, step); with the order's parameters and the sha256 of the
index that is the whole state of the loader.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.cache import Cache
from trainer.order import NEVER, Order
from trainer.reader import Reader, Sample
from wit.errors import UserError

PIECE = 64  # samples that a thread reads at a time
READERS, BRINGERS = 8, 4  # threads
MEMORY = 1 << 30  # bytes of pictures read ahead
STEPS = 8  # read ahead at most


@dataclass(frozen=True)
class Batch:
    """One rank's part of a step: `values` of its samples in position order.

    positions: int64 [b], of the samples within the epoch: step * batch size + place in the batch.
    """

    epoch: int
    step: int
    positions: np.ndarray
    values: list[Any]


def unchanged(epoch: int, position: int, sample: Sample) -> Sample:
    """What `Loader` makes of a sample if nothing else is asked."""
    return sample


class Loader:
    """Batches of one rank from (order's epoch, step) on, to the end of epoch `epochs` - 1.

    `waited` is how many seconds `next` has waited for data so far. The values and their order do
    not depend on the number of threads, the memory, or what is cached.

    lanes: the rank's; node_lanes: of all ranks that share the cache's folder.
    make: called in the reading threads for each sample with (epoch, position, sample), to decode.
    memory: bytes of what is made ahead of the step, of sample_bytes each (pictures as stored).
    """

    def __init__(
        self,
        cache: Cache,
        order: Order,
        step: int,
        batch_size: int,
        epochs: int,
        *,
        lanes: range | None = None,
        node_lanes: Sequence[int] | None = None,
        make: Callable[[int, int, Sample], Any] = unchanged,
        threads: int = READERS,
        memory: int = MEMORY,
        sample_bytes: float | None = None,
    ) -> None:
        order.steps(batch_size)  # raises for fewer samples than a batch
        self.lanes = range(order.lanes) if lanes is None else lanes
        self.node_lanes = self.lanes if node_lanes is None else node_lanes
        self.batch_size, self.epochs, self.make, self.cache = batch_size, epochs, make, cache
        self.waited = 0.0
        self.reader = Reader(cache, len(self.lanes) / order.lanes)
        each = sample_bytes or cache.index.total_bytes / order.total
        self._a_step = -(-order.per_lane(batch_size) * len(self.lanes) // PIECE)  # pieces
        self.ahead = max(threads, min(STEPS * self._a_step, int(memory / (each * PIECE))))
        self._plan = self._pieces(order, step)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="reader")
        self._started: deque[tuple[_Piece, Future[list[Any]]]] = deque()
        self._followed: tuple[int, int] | None = None
        self._first = True
        self._follow(order, step)
        cache.start(BRINGERS)

    def __iter__(self) -> Iterator[Batch]:
        """The loader."""
        return self

    def __next__(self) -> Batch:
        """The next step's batch; what went wrong in a thread is raised here."""
        values: list[Any] = []
        positions = []
        while True:
            # Nothing is in the way of the first batch, for which a run waits.
            self._start(self._a_step - len(positions) if self._first else self.ahead)
            if not self._started:
                raise StopIteration
            piece, future = self._started.popleft()
            if not values:
                self._follow(piece.order, piece.step)
            began = time.perf_counter()
            values += future.result()
            self.waited += time.perf_counter() - began
            positions.append(piece.positions)
            if piece.last:
                break
        if self._first:
            self._first = False
            self._start(self.ahead)
        return Batch(piece.order.epoch, piece.step, np.concatenate(positions), values)

    def _start(self, pieces: int) -> None:
        while len(self._started) < pieces and (piece := next(self._plan, None)):
            self._started.append((piece, self._pool.submit(self._read, piece)))

    def close(self) -> None:
        """Ends the threads, and those of the cache, which is not to be used again."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.cache.close()
        self._pool.shutdown(wait=True)

    def _pieces(self, order: Order, step: int) -> Iterator["_Piece"]:
        """What is to be read, in the order in which it is given out."""
        while order.epoch < self.epochs:
            per_lane = order.per_lane(self.batch_size)
            for number in range(step, order.steps(self.batch_size)):
                shards, samples = order.batch(number, self.batch_size, self.lanes)
                first = number * self.batch_size + self.lanes.start * per_lane
                for start in range(0, len(shards), PIECE):
                    end = min(start + PIECE, len(shards))
                    positions = np.arange(first + start, first + end)
                    cut = slice(start, end)
                    last = end == len(shards)
                    yield _Piece(order, number, positions, shards[cut], samples[cut], last)
            order, step = order.after(), 0

    def _read(self, piece: "_Piece") -> list[Any]:
        found = self.reader.read(piece.shards, piece.samples)
        return [
            self.make(piece.order.epoch, position, sample)
            for position, sample in zip(piece.positions.tolist(), found, strict=True)
        ]

    def _follow(self, order: Order, step: int) -> None:
        """Tells the cache what is needed from this step on, whenever a lane is at a new window."""
        position = step * order.per_lane(self.batch_size)
        now = (order.epoch, position // max(1, order.window // order.lanes))
        if now == self._followed:
            return
        self._followed = now
        after = order.after() if order.epoch + 1 < self.epochs else None
        self.cache.follow(
            *(_needed(order, position, lanes, after) for lanes in (self.lanes, self.node_lanes))
        )


@dataclass(frozen=True)
class _Piece:
    """Some samples of a step, read by one thread at once."""

    order: Order
    step: int
    positions: np.ndarray
    shards: np.ndarray
    samples: np.ndarray
    last: bool  # of its step


def _needed(order: Order, position: int, lanes: Sequence[int], after: Order | None) -> np.ndarray:
    """When some lanes need each shard (int64 [S]); the next epoch's positions go on from this's."""
    need = order.needed(lanes, position)
    if after is None:
        return need
    later = after.needed(lanes, 0)
    return np.minimum(need, np.where(later == NEVER, NEVER, later + order.lane_length))


# --- the state --------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """Where a run stands in its data, and what the order there depends on."""

    epoch: int
    step: int  # the next one of this epoch
    index: str  # sha256 of the index
    seed: int
    lanes: int
    window: int
    batch_size: int


def check_state(saved: State, given: State) -> None:
    """Raises a UserError if a run cannot go on from `saved` with what is given now.

    In the middle of an epoch all but epoch and step must be equal; at its start (step 0) they may
    have changed.
    """
    if saved.step == 0:
        return
    if saved.index != given.index:
        raise UserError(
            "the shards have changed since the checkpoint, which is at step "
            f"{saved.step:,} of epoch {saved.epoch + 1} (their sha256 was {saved.index[:12]}, is "
            f"{given.index[:12]}); "
            "give the same shards, or go on from a checkpoint at the start of an epoch"
        )
    for name in ("seed", "lanes", "window", "batch_size"):
        before, now = getattr(saved, name), getattr(given, name)
        if before != now:
            raise UserError(
                f"the checkpoint is at step {saved.step:,} of epoch {saved.epoch + 1} with "
                f"{name} {before:,}, now it is {now:,}; give the same, or go on "
                "from a checkpoint at the start of an epoch"
            )
