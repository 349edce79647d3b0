"""How many pairs queries draw at a cap t, from a sample's counts: expected, not exact.

A pair of the sample is drawn with the chance that one of its queries draws it, min(1, t / count)
each (pipeline.balance.expected_pairs), where the count is known only as far as the sample says: a
query met twice may have 500 pairs or 5,000. So each chance is the mean over the counts that a query
met so often may have, of the law that makes the sample's counts of all queries likely
(pipeline.forecast.estimate.fit); without this, caps near what one sampled pair stands for would
come out wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.balance import RESERVE
from pipeline.forecast.estimate import Interval, Law, fit

LARGE = 400  # a query met more often has as many pairs as that says
CAPS = 40  # points of t between which a cap is solved


@dataclass(frozen=True)
class Selection:
    """A sample's unique pairs with what each stands for.

    Attributes:
        offsets: int64 [n + 1] into query_ids.
        query_ids: int32 [matches].
        weights: float64 [n]: how many pairs of the whole each stands for.
        unique: their sum, how many unique pairs there are.
        queries: in the list.
        shared: whether all queries draw in one order.
    """

    offsets: np.ndarray
    query_ids: np.ndarray
    weights: np.ndarray
    unique: Interval
    queries: int
    shared: bool

    @cached_property
    def met(self) -> np.ndarray:
        """int64 [queries]: how many of the sample's unique pairs match each query."""
        return np.bincount(self.query_ids, minlength=self.queries)

    @cached_property
    def law(self) -> Law:
        """How many pairs queries have in the whole."""
        counts, things = np.unique(self.met[self.met > 0], return_counts=True)
        share = min(1.0, len(self.weights) / max(self.unique.mid, 1e-9))
        most = max(counts.max(initial=1) / share * 2, 10.0)
        return fit(counts, things.astype(float), share, most, float((self.met == 0).sum()))

    def chances(self, cap: float) -> np.ndarray:
        """Returns float64 [n]: the chance of each pair of the sample to be drawn at a cap."""
        most = int(self.met.max(initial=0))
        counts = np.arange(1, min(most, LARGE) + 1)
        share = self.law.posterior(counts) @ np.minimum(1.0, cap / np.maximum(self.law.grid, 1))
        large = np.minimum(1.0, cap * self.law.share / np.arange(len(counts) + 1, most + 1))
        of_count = np.concatenate([[0.0], share, large])
        of_match = of_count[self.met[self.query_ids]]
        if not len(of_match):
            return np.zeros(len(self.weights))
        if self.shared:
            return np.maximum.reduceat(of_match, self.offsets[:-1])
        with np.errstate(divide="ignore"):
            missed = np.add.reduceat(np.log1p(-np.minimum(of_match, 1.0)), self.offsets[:-1])
        return 1 - np.exp(missed)

    def drawn(self, cap: float) -> Interval:
        """Returns how many pairs are drawn at a cap t.

        Were there r times as many unique pairs, each query had r times as many, and t drew as many
        as t / r of these; so the interval follows from that of the unique pairs.
        """
        mid = max(self.unique.mid, 1e-9)
        low, high = self.unique.low / mid, self.unique.high / mid
        each = [
            part * float(self.weights @ self.chances(cap / part)) if part else 0.0
            for part in (low, 1.0, high)
        ]
        return Interval(min(each), each[1], max(each))

    def entries(self, cap: float) -> float:
        """Returns how many (query, pair)s the queries above their cap have in their reserve."""
        grid, wanted = self.law.grid, RESERVE * cap * 1.1 + 16
        return float(self.law.mass @ np.where(grid > cap, np.minimum(grid, wanted), 0))

    def solve(self, pairs: int) -> Interval:
        """Returns the cap t at which about so many pairs are drawn, as pipeline.dedupe does."""
        largest = max(2.0, float(self.law.grid[self.law.mass > 0].max(initial=2)))
        caps = np.geomspace(1, largest, CAPS)
        sizes = np.array([self.weights @ self.chances(cap) for cap in caps])
        mid = max(self.unique.mid, 1e-9)

        def at(part: float) -> float:
            return max(1.0, part * float(np.interp(pairs / part, sizes, caps))) if part else largest

        found = [at(self.unique.low / mid), at(1.0), at(self.unique.high / mid)]
        return Interval(min(found), found[1], max(found))
