"""How many different words and pairs of words a longer text has, and which words make it so.

Heaps' law, V(n) = factor * n ** exponent, is fitted to the distinct words and the distinct pairs of
neighbours in nested prefixes of real articles, in shuffled order. A longer text repeats the
articles with some words exchanged for draws from a Pitman-Yor process (Goldwater, Griffiths and
Johnson 2011): a made-up word so often that the distinct words stay on their curve, else a word
seen before, with a probability that goes with how often it was seen, less the discount (the
exponent: the process itself grows as n ** discount). The share of words that are exchanged is
steered so that the distinct pairs stay on theirs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SHUFFLES = 20
POINTS = 12  # of the curve, a factor apart, from a tenth of the text on: further back it is steeper
SAMPLED = 64  # one pair in so many is held, chosen by its hash, and stands for the others
SCATTER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio
MOST, FEWEST, FIRST = 0.9, 0.01, 0.4  # share of words that are exchanged
CONSONANTS, VOWELS, END = "bdfgklmnprstvwz", "aeiou", "q"
PAIRED = [a + b + c + d for a in CONSONANTS for b in VOWELS for c in CONSONANTS for d in VOWELS]
STEP = 11_234_567  # without a factor of 3 or 5, so that each number has a word of its own


class Heaps(NamedTuple):
    """V(n) = factor * n ** exponent, and how far off the measured points it is at most, a share."""

    factor: float
    exponent: float
    deviation: float

    def at(self, tokens: float) -> float:
        """How many are distinct in a text of so many words."""
        return self.factor * tokens**self.exponent


class Fit(NamedTuple):
    """The curves of a text: distinct words, distinct pairs of neighbours."""

    words: Heaps
    pairs: Heaps


class Exchange(NamedTuple):
    """Which words of a copy are exchanged: rows of the slots, ascending, and words instead."""

    rows: np.ndarray
    words: np.ndarray


def pair_keys(stream: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where pairs end in a stream of words' numbers (negative: none), and uint64 keys of them."""
    ends = np.flatnonzero((stream[1:] >= 0) & (stream[:-1] >= 0)) + 1
    first, second = stream[ends - 1].astype(np.uint64), stream[ends].astype(np.uint64)
    return ends, first << np.uint64(32) | second


def fit_curves(articles: list[np.ndarray], seed: int) -> Fit:
    """Fits both curves to articles, each a stream of words' numbers."""
    tokens = sum(int((article >= 0).sum()) for article in articles)
    grid = np.geomspace(tokens / 10, tokens, POINTS)
    rng = np.random.default_rng(seed)
    curves: list[list[np.ndarray]] = [[], []]
    for _ in range(SHUFFLES):
        stream = np.concatenate([articles[i] for i in rng.permutation(len(articles))])
        seen = np.cumsum(stream >= 0)
        said = np.flatnonzero(stream >= 0)
        for curve, (places, keys) in zip(
            curves, ((said, stream[said]), pair_keys(stream)), strict=True
        ):
            new = np.zeros(len(stream), np.int64)
            new[places[np.unique(keys, return_index=True)[1]]] = 1
            curve.append(np.interp(grid, seen, np.cumsum(new)))
    return Fit(*(_line(grid, np.mean(np.log(curve), axis=0)) for curve in curves))


def _line(grid: np.ndarray, logs: np.ndarray) -> Heaps:
    exponent, height = np.polyfit(np.log(grid), logs, 1)
    off = np.abs(np.expm1(logs - height - exponent * np.log(grid))).max()
    return Heaps(float(np.exp(height)), float(exponent), float(off))


class Growth:
    """Chooses copy after copy which words are exchanged, and counts what is distinct.

    Attributes:
        tokens: words of all copies so far.
        words: how many of them are distinct.
    """

    def __init__(
        self, stream: np.ndarray, slots: np.ndarray, drawn: np.ndarray, fit: Fit, seed: int
    ) -> None:
        """Begins with the articles as they are.

        Args:
            stream: int32, the numbers of the articles' words; negative: a segment's end.
            slots: places in the stream where a word may be exchanged.
            drawn: bool, by number, which words may stand there.
            fit: the curves to follow.
            seed: of all draws.
        """
        self.stream, self.slots, self.fit = stream, slots, fit
        self.own = np.bincount(stream[stream >= 0], minlength=len(drawn))
        self.counts = self.own * drawn
        self.drawn = drawn
        self.words = len(drawn)
        self.length = int(self.own.sum())
        self.tokens = self.length
        self.share = FIRST
        self.rng = np.random.default_rng(seed)
        self.pairs_seen = np.empty(0, np.uint64)
        self._see(stream)

    @property
    def pairs(self) -> int:
        """How many pairs are distinct, estimated from those that are held."""
        return len(self.pairs_seen) * SAMPLED

    def next(self) -> Exchange:
        """The words that the next copy exchanges."""
        after = self.tokens + self.length
        rows = np.flatnonzero(self.rng.random(len(self.slots)) < self.share)
        fresh = min(max(0, round(self.fit.words.at(after)) - self.words), len(rows))
        words = self._draw(len(rows))
        words[self.rng.choice(len(rows), fresh, replace=False)] = self.words + np.arange(fresh)
        self.words += fresh
        stream = self.stream.copy()
        stream[self.slots[rows]] = words
        counts = np.bincount(stream[stream >= 0], minlength=self.words)
        counts[: len(self.drawn)] *= self.drawn
        counts[: len(self.counts)] += self.counts
        self.counts, self.tokens = counts, after
        found = self._see(stream)
        lacking = self.fit.pairs.at(after + self.length) - self.pairs
        self.share = min(max(self.share * lacking / max(found, 1), FEWEST), MOST)
        return Exchange(rows.astype(np.int32), words.astype(np.int32))

    def _draw(self, size: int) -> np.ndarray:
        """Words seen before, each with a probability that goes with its count less the discount."""
        weights = np.cumsum(np.maximum(self.counts - self.fit.words.exponent, 0))
        return np.searchsorted(weights, self.rng.random(size) * weights[-1], side="right")

    def _see(self, stream: np.ndarray) -> int:
        """Adds a copy's pairs; how many of them are new."""
        keys = pair_keys(stream)[1]
        keys = np.unique(keys[(keys * SCATTER) < np.uint64(2**64 // SAMPLED)])
        places = np.searchsorted(self.pairs_seen, keys)
        known = np.append(self.pairs_seen, np.uint64(0))[places] == keys
        self.pairs_seen = np.insert(self.pairs_seen, places[~known], keys[~known])
        return int((~known).sum()) * SAMPLED


def made_up(number: int) -> str:
    """A word of nine letters for each number below 31 million, as no language has."""
    first, second = divmod(number * STEP % len(PAIRED) ** 2, len(PAIRED))
    return PAIRED[first] + PAIRED[second] + END
