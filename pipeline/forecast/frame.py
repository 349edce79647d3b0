"""Which bytes of the inputs are sampled: one chunk a stratum of all files laid end to end.

The bytes of all files, in the order of their paths, are one line; it is cut into as many equal
strata as there are chunks, and a chunk begins at a seeded random place of each (stratified random
sampling: Cochran, Sampling Techniques, 1977, chapter 5). So every record has the same chance,
whichever file it stands in and wherever, and no file is favoured for being the first.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pipeline.forecast.estimate import Interval, mean_total
from pipeline.sources import Source
from pipeline.sources.web import WEB, open_source
from wit import storage

LEAST, MOST = 64_000_000, 1_000_000_000  # bytes of a sample, where its share is not asked for
SHARE = 0.001
CHUNK = 512 * 1024  # bytes, of small samples
CHUNKS = 256  # of large ones
LEAST_CHUNK = 32 * 1024
ASKED = 64  # files whose sizes are asked for, where they are not known
READERS = 16


@dataclass(frozen=True)
class Frame:
    """The files that are sampled from.

    Attributes:
        sources: of known size.
        sizes: int64 [sources], bytes.
        weights: float64 [sources]: how many files of the inputs each stands for.
        files: in the inputs.
        total: bytes of the inputs.
    """

    sources: list[Source]
    sizes: np.ndarray
    weights: np.ndarray
    files: int
    total: Interval


@dataclass(frozen=True)
class Piece:
    """A part of a file: its records that begin in [start, end).

    Attributes:
        source: index in Frame.sources.
        chunk: of which chunk it is a part.
        start, end: bytes.
        stream: whether it stands for all of the file's, which can be read from its start only.
    """

    source: int
    chunk: int
    start: int
    end: int
    stream: bool = False


def make_frame(sources: list[Source], seed: int) -> Frame:
    """Returns the frame; of files whose size is not known, ASKED are asked for theirs."""
    known = [source for source in sources if source.size is not None]
    unknown = [source for source in sources if source.size is None]
    rng = np.random.default_rng(seed)
    asked = [unknown[i] for i in strata(len(unknown), min(ASKED, len(unknown)), rng)]
    with ThreadPoolExecutor(READERS) as pool:
        found = np.array(list(pool.map(size_of, asked)), np.int64)
    sizes = np.concatenate([np.array([s.size for s in known], np.int64), found])
    weight = len(unknown) / max(1, len(asked))
    weights = np.concatenate([np.ones(len(known)), np.full(len(asked), weight)])
    total = Interval.exact(float(sizes[: len(known)].sum()))
    total += mean_total(found.astype(float), len(unknown))
    return Frame([*known, *asked], sizes, weights, len(sources), total)


def strata(n: int, count: int, rng: np.random.Generator) -> list[int]:
    """Returns `count` of n indices, one of each of so many equal ranges, ascending."""
    places = (np.arange(count) + rng.random(count)) * n / max(1, count)
    return np.minimum(places.astype(np.int64), n - 1).tolist()


def size_of(source: Source) -> int:
    """Returns a file's bytes, asked of its store or server."""
    if source.path.startswith(WEB):
        with open_source(source.path) as file:
            return file.seek(0, io.SEEK_END)
    return storage.size(source.path)


def sample_bytes(total: float, share: float | None) -> int:
    """Returns how many bytes are sampled: the share asked for, or SHARE within [LEAST, MOST]."""
    if share is None:
        return int(min(total, max(LEAST, min(MOST, SHARE * total))))
    return int(min(total, max(1, share * total)))


def choose(frame: Frame, wanted: int, seed: int) -> list[Piece]:
    """Returns the pieces of a sample of about `wanted` bytes; all bytes, where that is all."""
    lengths = frame.sizes * frame.weights
    line = float(lengths.sum())
    most = max(1, int(wanted / LEAST_CHUNK))
    chunks = min(most, max(32, min(CHUNKS, round(wanted / CHUNK))))
    edges = np.linspace(0, line, chunks + 1)
    size = min(line, wanted) / chunks
    rng = np.random.default_rng([seed, 1])
    free = np.maximum(np.diff(edges) - size, 0.0)
    starts = edges[:-1] + rng.random(chunks) * free
    stops = np.where(free < 1, edges[1:], starts + size)
    ends = np.concatenate([[0.0], np.cumsum(lengths)])
    pieces = []
    for chunk, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        source = max(0, int(np.searchsorted(ends, start, "right")) - 1)
        while source < len(lengths) and ends[source] < stop:
            # A file that stands for several has its part of the line that much longer.
            weight, own = float(frame.weights[source]), int(frame.sizes[source])
            first = int(max(0.0, start - ends[source]) / weight)
            last = min(own, int((stop - ends[source]) / weight))
            if weight > 1:
                limit = int((edges[chunk + 1] - ends[source]) / weight)
                last = min(own, max(last, min(first + round(stop - start), limit)))
            if chunk == chunks - 1 and free[chunk] < 1:
                last = own
            if last > first:
                pieces.append(Piece(source, chunk, first, last))
            source += 1
    return pieces
