"""Bigrams counted in bounded memory, and their pointwise mutual information.

Only pairs of vocabulary words are counted, for a bigram cannot be more frequent than its words. A
table of fixed size takes them; when it is nearly full, what it holds is written as a run, sorted by
a hash of the pair, and the table starts anew. A partition, a range of that hash, is then added up
over all runs by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from query_list.kernels_count import FACTOR_1, FACTOR_2, LEFT_OUT, SHIFT_1, SHIFT_2
from wit import kernels_loader, text
from wit.hashing import slots_of

TABLE = 1 << 24  # places, of 12 bytes each; a full one takes 1 GB while it is sorted
FULL = 0.7  # of the places
RUN = np.dtype([("key", "<u8"), ("count", "<u4")])  # key: (first + 1) << 32 | second + 1
BIGRAMS = pa.schema(
    [
        pa.field("query", pa.large_string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("pmi", pa.float64(), nullable=False),  # bits
    ]
)


Sorted = tuple[np.ndarray, np.ndarray]  # RUN records and their partitions, ascending


class PairCounter:
    """Counts pairs of the words of streams, `add`ed one after the other."""

    def __init__(self, partitions: int, places: int = TABLE) -> None:
        """A table of so many places (a power of two) for pairs that go to so many partitions."""
        self.kernel = kernels_loader.load("query_list.kernels_count")["count_pairs"]
        self.partitions = partitions
        self.keys = np.zeros(places, np.uint64)
        self.counts = np.zeros(places, np.uint32)
        self.state = np.zeros(1, np.int64)

    def add(
        self, stream: np.ndarray, lookup: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Counts a stream's pairs; yields a run each time the table is full.

        Args:
            stream: int32, words' numbers in a split (`counting.Counted`).
            lookup: int32, the vocabulary's row of each number, LEFT_OUT where it has none.
        """
        most = int(FULL * len(self.keys))
        at = 0
        while at < len(stream):
            at = self.kernel(
                stream, at, len(stream), lookup, self.keys, self.counts, len(self.keys), most,
                self.state,
            )  # fmt: skip
            if at < len(stream):
                yield self.drain()

    def drain(self) -> Sorted:
        """All that is in the table, which is empty from then on."""
        places = np.flatnonzero(self.keys)
        order = np.argsort(_scattered(self.keys[places]))
        records = np.empty(len(places), RUN)
        records["key"] = self.keys[places[order]]
        records["count"] = self.counts[places[order]]
        self.keys[:] = 0
        self.state[0] = 0
        return records, slots_of(_scattered(records["key"]), self.partitions)


def _scattered(keys: np.ndarray) -> np.ndarray:
    """uint64: the kernel's hash of pairs, by which partitions are cut."""
    value = (keys ^ (keys >> np.uint64(SHIFT_1))) * np.uint64(FACTOR_1)
    value = (value ^ (value >> np.uint64(SHIFT_2))) * np.uint64(FACTOR_2)
    return value ^ (value >> np.uint64(31))


def find_lookup(words: pa.Table, vocabulary: pa.Array, rows: pa.Array) -> np.ndarray:
    """What a split's words are in the vocabulary, by their numbers.

    Args:
        words: counting.WORDS.
        vocabulary: the words that a bigram may have.
        rows: int32, the row by which pairs name each of these.

    Returns: int32 [words], LEFT_OUT where a word is none of them.
    """
    found = pc.fill_null(rows.take(pc.index_in(words["word"], vocabulary)), LEFT_OUT)
    lookup = np.full(len(words), LEFT_OUT, np.int32)
    lookup[words["number"].to_numpy()] = found.to_numpy()
    return lookup


def add_runs(parts: Iterable[np.ndarray], least: int) -> pa.Table:
    """The pairs of one partition that occur at least so often over all runs: key, count int64."""
    records = np.concatenate([np.empty(0, RUN), *parts])
    keys = np.ascontiguousarray(records["key"])
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], records["count"][order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    sums = np.add.reduceat(counts, starts, dtype=np.int64) if len(keys) else np.empty(0, np.int64)
    often = sums >= least
    return pa.table({"key": keys[starts[often]], "count": sums[often]})


def with_pmi(pairs: pa.Table, vocabulary: pa.Table, tokens: int) -> pa.Table:
    """BIGRAMS, sorted by query: PMI = log2(count * tokens / (count of first * count of second)).

    Church and Hanks 1990, as NLTK's BigramAssocMeasures.pmi; counts of words are over the whole
    text. Two words of a script without spaces are written without one, as `wit.text` does.
    """
    keys = pairs["key"].to_numpy()
    first = (keys >> np.uint64(32)).astype(np.int64) - 1
    second = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64) - 1
    counts = vocabulary["count"].to_numpy().astype(np.float64)
    together = pairs["count"].to_numpy().astype(np.float64)
    pmi = np.log2(together * tokens / (counts[first] * counts[second]))
    words = vocabulary["word"].combine_chunks()
    blank = pa.scalar(" ", pa.large_string())
    spaced = pc.binary_join_element_wise(*(words.take(pa.array(i)) for i in (first, second)), blank)
    queries = text.normalise(spaced).cast(pa.large_string())
    return pa.table([queries, pairs["count"], pa.array(pmi)], schema=BIGRAMS).sort_by("query")
