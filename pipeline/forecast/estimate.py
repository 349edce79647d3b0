"""What a sample says of the whole: ratios, and numbers of distinct things, each with an interval.

Nothing here knows of pairs or pages. Intervals are of about 95 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

LEVEL = 0.975
DEVIATIONS = 2.0  # within which a count is taken to lie of what is expected of it
ROUNDS = 200  # of expectation and maximisation
SHAPES = np.linspace(1.0, 4.0, 25)  # exponents of the power laws that a fit starts from
BINS = (1, 2, 3, 4, 6, 10, 18, 34, 66, 130, 258)  # counts from which on bins of counts begin


@dataclass(frozen=True)
class Interval:
    """A number that is not known exactly: low <= mid <= high."""

    low: float
    mid: float
    high: float

    @classmethod
    def exact(cls, value: float) -> Interval:
        """Returns a number that is known."""
        return cls(value, value, value)

    def __add__(self, other: Interval) -> Interval:
        """Returns the sum; its ends are the sums of the ends, as if both erred alike."""
        return Interval(self.low + other.low, self.mid + other.mid, self.high + other.high)

    def __mul__(self, other: Interval | float) -> Interval:
        """Returns the product, of numbers not below 0; as if both erred alike."""
        if not isinstance(other, Interval):
            other = Interval.exact(other)
        return Interval(self.low * other.low, self.mid * other.mid, self.high * other.high)

    def at_most(self, bound: float) -> Interval:
        """Returns it with no end above a bound."""
        return Interval(min(self.low, bound), min(self.mid, bound), min(self.high, bound))

    def widened(self, part: float) -> Interval:
        """Returns it with its ends apart by a part of the number more."""
        return Interval(self.low * (1 - part), self.mid, self.high * (1 + part))


def _student(count: int) -> float:
    return float(stats.t.ppf(LEVEL, count - 1))


def mean_total(values: np.ndarray, number: int) -> Interval:
    """Returns the sum of `number` values of which some, float64 [n], were drawn."""
    if not len(values):
        return Interval.exact(0.0)
    mid = float(values.mean()) * number
    if len(values) == 1 or len(values) == number:
        return Interval(mid / 2, mid, mid * 2) if len(values) < number else Interval.exact(mid)
    rest = max(0.0, 1 - len(values) / number)
    error = number * float(values.std(ddof=1)) * np.sqrt(rest / len(values))
    error *= _student(len(values))
    return Interval(max(float(values.sum()), mid - error), mid, mid + error)


def ratio(values: np.ndarray, sizes: np.ndarray, share: float) -> Interval:
    """Returns sum(values) / sum(sizes) over the whole, of which chunks were drawn.

    The ratio estimator with its linearised error (Cochran 1977, 6.4), Student's quantile and the
    correction for a whole of which much was drawn. Where nothing was met, three of a chunk's size
    bound what may be there ("rule of three").

    Args:
        values: float64 [chunks], what each holds.
        sizes: float64 [chunks], its bytes, or what else the ratio is to.
        share: of the whole that was drawn.
    """
    total = float(sizes.sum())
    if total <= 0:
        return Interval.exact(0.0)
    mid = float(values.sum()) / total
    if share >= 1:
        return Interval.exact(mid)
    if not values.any():
        return Interval(0.0, 0.0, 3.0 / total)
    there = sizes > 0
    count = int(there.sum())
    if count == 1:
        return Interval(mid / 2, mid, mid * 2)
    rest = values[there] - mid * sizes[there]
    error = np.sqrt(float(rest @ rest) * count / (count - 1) * (1 - share)) / total
    error *= _student(count)
    return Interval(max(mid * share, mid - error), mid, mid + error)


# --- how many different things there are, of which a sample met some --------------------------


@dataclass(frozen=True)
class Law:
    """How often things are met in the whole, as far as a sample says.

    Attributes:
        grid: int64 [k], numbers of times.
        mass: float64 [k], how many things there are of each.
        share: the chance of each time to be in the sample.
    """

    grid: np.ndarray
    mass: np.ndarray
    share: float

    @property
    def number(self) -> float:
        """How many things there are that are met at all."""
        return float(self.mass[self.grid > 0].sum())

    def posterior(self, counts: np.ndarray) -> np.ndarray:
        """Returns float64 [n, k]: of things met counts times in the sample, the parts of each k."""
        weight = chances(counts, self.grid, self.share) * self.mass
        total = weight.sum(1, keepdims=True)
        nearest = np.abs(self.grid - counts[:, None] / self.share).argmin(1)
        alone = np.eye(len(self.grid))[nearest]
        return np.where(total > 0, weight / np.maximum(total, 1e-300), alone)

    def weights(self, counts: np.ndarray) -> np.ndarray:
        """Returns float64 [n]: how many things of the whole each met so often stands for."""
        seen = 1 - chances(np.zeros(1, np.int64), self.grid, self.share)[0]
        return (self.posterior(counts)[:, self.grid > 0] / seen[self.grid > 0]).sum(1)


def make_grid(most: float, zero: bool = False) -> np.ndarray:
    """Returns int64 [k]: 1 to at least `most`, finely at first, then evenly in the logarithm."""
    steps = int(np.ceil(np.log(max(most, 2.0)) / 0.08)) + 1
    grid = np.unique(np.round(np.exp(np.arange(steps + 1) * 0.08)).astype(np.int64))
    return np.concatenate([[0], grid]) if zero else grid


def chances(counts: np.ndarray, grid: np.ndarray, share: float) -> np.ndarray:
    """Returns float64 [n, k]: the chance of a count where a thing is there k times (binomial)."""
    return stats.binom.pmf(counts[:, None], grid[None, :], min(share, 1.0))


def fit(counts: np.ndarray, things: np.ndarray, share: float, most: float, zeros: float) -> Law:
    """Returns the law under which the counts are likely: the mixture that maximises likelihood.

    Laird (1978) by expectation and maximisation, from the likeliest power law on; where the sample
    says nothing of a difference (whether what was met once is there once or five times), the power
    law stays.

    Args:
        counts: int64 [n], how often things were met in the sample, from 1.
        things: float64 [n], how many were met so often.
        share: the chance of each time to be in the sample.
        most: times that a thing may be there.
        zeros: how many were not met; nan where that is not known.
    """
    known = not np.isnan(zeros)
    grid = make_grid(most, zero=known)
    if share >= 1:
        mass = np.bincount(np.searchsorted(grid, counts).clip(0, len(grid) - 1), things, len(grid))
        return Law(grid, mass, 1.0)
    if known:
        counts, things = np.append(0, counts), np.append(zeros, things)
    unseen = chances(np.zeros(1, np.int64), grid, share)[0]
    seen = np.ones(len(grid)) if known else np.maximum(1 - unseen, 1e-300)
    chance = chances(counts, grid, share) / seen
    steps = np.gradient(np.maximum(grid, 0.5))
    best, likeliest = np.zeros(len(grid)), -np.inf
    for shape in SHAPES:
        start = steps * np.maximum(grid, 0.5) ** -shape * seen
        start /= start.sum()
        likelihood = float(things @ np.log(np.maximum(chance @ start, 1e-300)))
        if likelihood > likeliest:
            best, likeliest = start, likelihood
    total = things.sum()
    for _ in range(ROUNDS):
        expected = np.maximum(chance @ best, 1e-300)
        best = best * (chance.T @ (things / expected)) / total
    return Law(grid, best * total / seen, share)


def bounds(
    counts: np.ndarray,
    things: np.ndarray,
    errors: np.ndarray,
    share: float,
    most: float,
    times: Interval,
) -> tuple[float, float]:
    """Returns the fewest and the most things there can be, given how often a sample met them.

    All laws are looked at under which the counts lie within DEVIATIONS errors of what was met and
    the times add up (a linear programme, as Efron and Thisted 1976 and Valiant and Valiant 2017
    have it). Where a sample is too small to tell, the bounds are far apart.

    Args:
        counts, things, share, most: as for `fit`, of things that were met.
        errors: float64 [n], standard errors of `things`.
        times: how often all things together are there.
    """
    grid = make_grid(most)
    first = np.array(BINS)
    last = np.append(first[1:] - 1, np.iinfo(np.int32).max)
    chance = stats.binom.cdf(last[:, None], grid, share) - stats.binom.cdf(
        first[:, None] - 1, grid, share
    )
    bin_of = np.searchsorted(first, counts, "right") - 1
    met = np.bincount(bin_of, things, len(first))
    error = np.sqrt(np.bincount(bin_of, errors**2, len(first)) + 1)
    for widened in (1, 2, 4, 8, 16):
        slack = widened * DEVIATIONS * error
        above = np.vstack([chance, -chance, grid, -grid.astype(float)])
        limit = np.concatenate([met + slack, slack - met, [times.high], [-times.low]])
        scale = np.abs(above).max(1)
        felt = scale > 1e-12  # a bin that no thing of the grid can reach says nothing
        above, limit = above[felt] / scale[felt, None], limit[felt] / scale[felt]
        found = [optimize.linprog(sign * np.ones(len(grid)), above, limit) for sign in (1, -1)]
        if all(answer.status == 0 for answer in found):
            return float(found[0].fun), float(-found[1].fun)
    return float(things.sum()), times.high


@dataclass(frozen=True)
class Distinct:
    """How many different things there are.

    Attributes:
        number: of them.
        weights: float64 [things met]: how many each stands for; their sum is `number`.
        apart: how many were met once those of the same chunk are counted once.
    """

    number: Interval
    weights: np.ndarray
    apart: int


def count_distinct(code: np.ndarray, chunk: np.ndarray, chunks: int, share: float) -> Distinct:
    """Returns how many different things there are, and what each thing met stands for.

    A thing counts once a chunk, since what stands together would be met together in the whole too;
    errors come from leaving out chunk after chunk (the jackknife).

    Args:
        code: int64 [n], things by number, from 0.
        chunk: int64 [n], in which chunk each was met.
        chunks: how many were drawn.
        share: of all bytes that was drawn.
    """
    met = np.unique(code.astype(np.int64) * chunks + chunk)
    thing, where = met // chunks, met % chunks
    often = np.bincount(thing)
    counts, things = np.unique(often[often > 0], return_counts=True)
    if not len(counts) or share >= 1:
        return Distinct(Interval.exact(float(things.sum())), np.ones(len(often)), len(met))
    # Without a chunk, what was met y times and in that chunk was met y - 1 times.
    in_chunk = np.zeros((chunks, counts.max() + 2))
    np.add.at(in_chunk, (where, often[thing]), 1)
    moved = in_chunk[:, 2:] - in_chunk[:, 1:-1]
    spread = moved - moved.mean(0)
    jackknife = np.sqrt((spread**2).sum(0) * (chunks - 1) / chunks)[counts - 1]
    errors = np.maximum(jackknife, np.sqrt(things))
    most = chunks / share
    law = fit(counts, things.astype(float), share, most, np.nan)
    times = ratio(np.bincount(where, minlength=chunks).astype(float), np.ones(chunks), share)
    times = times * (chunks / share)
    low, high = bounds(counts, things.astype(float), errors, share, most, times)
    low, high = max(low, float(things.sum())), min(high, times.high)
    weights = np.zeros(counts.max() + 1)
    weights[counts] = law.weights(counts)
    each = weights[often]
    number = min(max(float(each.sum()), low), high)
    each *= number / float(each.sum())
    return Distinct(Interval(min(low, number), number, max(high, number)), each, len(met))
