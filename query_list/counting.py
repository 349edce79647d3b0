"""Words counted: in a split with a table of its own, over all splits by merging.

A split leaves two things: its words with their counts, and the stream of its words' numbers, from
which bigrams are counted once it is known which words can have one.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from query_list.kernels_count import BREAK
from wit import kernels_loader, text
from wit.hashing import hash64, slots_of

WORDS = pa.schema(
    [
        pa.field("word", pa.large_string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("number", pa.int32(), nullable=False),  # in the split's stream
    ]
)
VOCABULARY = pa.schema([WORDS.field("word"), WORDS.field("count")])
FEW = 1 << 20  # words that wait, at least, before they are added up


class Counted(NamedTuple):
    """What a split's text was counted to.

    Attributes:
        words: WORDS, in the order of their first occurrence.
        stream: int32, the words' numbers as they stand in the text; BREAK ends a segment.
    """

    words: pa.Table
    stream: np.ndarray

    @property
    def tokens(self) -> int:
        """How many words stand in the text."""
        return int(np.count_nonzero(self.stream != BREAK))


class WordCounter:
    """Counts words of segments, `add`ed in order."""

    def __init__(self, words: int = 1 << 16) -> None:
        """Makes room for so many words at first; a power of two."""
        self.kernels = kernels_loader.load("query_list.kernels_count")
        self.slots = np.full(2 * words, -1, np.int32)
        self.hashes = np.zeros(words, np.uint64)
        self.starts = np.zeros(words + 1, np.int64)
        self.counts = np.zeros(words, np.int64)
        self.arena = np.zeros(8 * words, np.uint8)
        self.state = np.zeros(3, np.int64)
        self.streams: list[np.ndarray] = []

    def add(self, segments: pa.Array) -> None:
        """Counts the words of segments: a space between each two, as `segments` writes them."""
        source = text.Buffers.of(segments.cast(pa.large_string()))
        count = len(segments)
        used = int(source.offsets[-1] - source.offsets[0])
        longest = int(np.diff(source.offsets).max(initial=0))
        stream = np.empty(used // 2 + 2 * count + 2, np.int32)
        self.state[2] = 0
        done = 0
        while True:
            done = self.kernels["count_words"](
                source.data, source.offsets, done, count, self.slots, len(self.slots),
                self.hashes, self.starts, self.counts, len(self.hashes), self.arena,
                len(self.arena), stream, len(stream), self.state,
            )  # fmt: skip
            if done == count:
                break
            self._grow(longest)
        self.streams.append(stream[: self.state[2]].copy())

    def _grow(self, longest: int) -> None:
        """Doubles what is short of room for a row of so many bytes."""
        if self.state[0] + longest // 2 + 1 > len(self.hashes):
            words = 2 * max(len(self.hashes), 1 << longest.bit_length())
            self.hashes = _grown(self.hashes, words)
            self.starts = _grown(self.starts, words + 1)
            self.counts = _grown(self.counts, words)
            self.slots = np.full(2 * words, -1, np.int32)
            self.kernels["rehash"](self.hashes, int(self.state[0]), self.slots, len(self.slots))
        if self.state[1] + longest > len(self.arena):
            self.arena = _grown(self.arena, 2 * max(len(self.arena), longest))

    def finish(self) -> Counted:
        """What was counted."""
        known, used = int(self.state[0]), int(self.state[1])
        offsets, data = self.starts[: known + 1].copy(), self.arena[:used].copy()
        words = pa.Array.from_buffers(
            pa.large_string(), known, [None, pa.py_buffer(offsets), pa.py_buffer(data)]
        )
        columns = [words, pa.array(self.counts[:known]), pa.array(np.arange(known, dtype=np.int32))]
        stream = np.concatenate(self.streams) if self.streams else np.empty(0, np.int32)
        return Counted(pa.table(columns, schema=WORDS), stream)


def _grown(array: np.ndarray, size: int) -> np.ndarray:
    grown = np.zeros(size, array.dtype)
    grown[: len(array)] = array
    return grown


def by_bucket(words: pa.Table, buckets: int) -> list[pa.Table]:
    """A split's words in the buckets of their hashes, each in the split's order."""
    bucket = slots_of(hash64(words["word"]), buckets)
    order = np.argsort(bucket, kind="stable")
    ends = np.searchsorted(bucket[order], np.arange(buckets + 1))
    ordered = words.take(pa.array(order))
    return [ordered.slice(a, b - a) for a, b in pairwise(ends)]


def merge(parts: Iterable[pa.Table], least: int) -> tuple[pa.Table, int]:
    """(words that occur at least so often with their counts, sorted; how many words there are).

    Each part has the columns word and count. Parts are added up a few at a time, so memory goes
    with the distinct words and not with the parts.
    """
    total, waiting, rows = None, [], 0
    for part in parts:
        waiting.append(part.select(["word", "count"]))
        rows += len(part)
        if rows > 2 * (0 if total is None else len(total)) + FEW:
            total, waiting, rows = _added(total, waiting), [], 0
    total = _added(total, waiting)
    kept = total.filter(pc.greater_equal(total["count"], least))
    return kept.sort_by("word").combine_chunks(), len(total)


def _added(total: pa.Table | None, parts: list[pa.Table]) -> pa.Table:
    tables = [*([] if total is None else [total]), *parts]
    if not tables:
        return pa.table(
            {"word": pa.array([], pa.large_string()), "count": pa.array([], pa.int64())}
        )
    grouped = pa.concat_tables(tables).group_by("word", use_threads=False)
    summed = grouped.aggregate([("count", "sum")])
    return summed.rename_columns({"count_sum": "count"}).select(VOCABULARY.names).cast(VOCABULARY)
