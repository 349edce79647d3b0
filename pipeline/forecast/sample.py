"""A sample of the inputs, taken through the harvest's own extraction and matching."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import queries
from pipeline.forecast import work
from pipeline.forecast.frame import READERS, Frame, Piece
from pipeline.forecast.pieces import Part, first_record, join_streams, read_piece, written
from pipeline.run import Config, Run
from wit import storage
from wit.errors import UserError
from wit.pairs import CANDIDATES

FIRST = 5  # pieces whose first record is extracted alone: what a file costs however small it is
TABLE = "sample.parquet"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Sample:
    """What the chunks hold.

    Attributes:
        folder: of the sample's files, with its candidates in TABLE.
        share: of the inputs' bytes that was read.
        sizes: float64 [chunks], bytes of the records that begin in each.
        links: float64 [chunks], image links and rows of tables.
        rows: float64 [chunks], candidates.
        seconds: float64 [chunks], core-seconds of their extraction beyond what a file costs.
        each: core-seconds of a file.
        row_bytes: that a candidate takes in its Parquet file.
        table: CANDIDATES, without the texts' pages.
        chunk: int64 [n], of which chunk each of these is.
        record: int64 [n], in which record or row of it.
        streams: files of which only the start could be read.
    """

    folder: str
    share: float
    sizes: np.ndarray
    links: np.ndarray
    rows: np.ndarray
    seconds: np.ndarray
    each: float
    row_bytes: float
    table: pa.Table
    chunk: np.ndarray
    streams: int

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return len(self.sizes)


def read_sample(
    frame: Frame,
    pieces: list[Piece],
    config: Config,
    query_table: pa.Table,
    folder: str,
    pool: ProcessPoolExecutor,
    processes: int,
    tell: Tell,
) -> Sample:
    """Reads the pieces, extracts and matches them in as many processes as the run will have.

    Args:
        frame: the files.
        pieces: what is read of them.
        config: of the harvest.
        query_table: QUERIES.
        folder: a temporary one.
        pool: of `processes` processes, which work at the same time, as the run's will.
        processes: how many.
        tell: is told, in a line, what is being done.

    Raises:
        UserError: if a file cannot be read.
    """
    pieces = join_streams(frame, pieces)
    tell(f"reading {len(pieces):,} pieces of {len({p.source for p in pieces}):,} files")
    chunk_of, sizes, added, streams, sources, first = [], [], [], 0, [], []
    apart = max(1, len(pieces) // FIRST)
    for number, (piece, part) in enumerate(_read_all(frame, pieces)):
        streams += piece.stream
        if not part.data:
            continue
        if number % apart == 0 and len(first) < FIRST:
            first.append(
                written(first_record(part), storage.join(folder, f"in/{number:05d}.first"))
            )
        sources.append(written(part, storage.join(folder, f"in/{number:05d}")))
        chunk_of.append(piece.chunk)
        sizes.append(part.size)
        added.append(part.added)
    if not sources:
        raise UserError(
            f"no record begins in the {len(pieces)} pieces that were sampled; take a larger "
            "--sample"
        )
    first = first or sources[:1]
    run = Run(folder, replace(config, sources=[s.to_json() for s in [*sources, *first]]))
    run.save()
    queries.install(run, query_table)
    tell(f"extracting and matching {sum(sizes) / 1e6:,.1f} MB")
    firsts = list(range(len(sources), len(sources) + len(first)))
    seconds, alone = np.zeros(len(sources)), []
    shares = [list(range(seat, len(sources), processes)) for seat in range(processes)]
    futures = [pool.submit(work.extract, folder, numbers, firsts) for numbers in shares]
    for numbers, future in zip(shares, futures, strict=True):
        taken, of_first = future.result()
        seconds[numbers] = taken
        alone += of_first
    each = float(np.median(alone))
    chunks = max(piece.chunk for piece in pieces) + 1
    return _gather(run, frame, chunks, chunk_of, sizes, added, seconds, each, streams)


def _read_all(frame: Frame, pieces: list[Piece]) -> Iterator[tuple[Piece, Part]]:
    """Yields the pieces in order with what they hold; remote ones are read many at a time."""
    if all(storage.is_local(source.path) for source in frame.sources):
        yield from ((piece, read_piece(frame, piece)) for piece in pieces)
        return
    with ThreadPoolExecutor(READERS) as threads:
        for start in range(0, len(pieces), READERS):  # so that no more of them are held
            some = pieces[start : start + READERS]
            yield from zip(some, threads.map(lambda p: read_piece(frame, p), some), strict=True)


def _gather(
    run: Run,
    frame: Frame,
    chunks: int,
    chunk_of: list[int],
    sizes: list[float],
    added: list[bool],
    seconds: np.ndarray,
    each: float,
    streams: int,
) -> Sample:
    """Returns the sample, its candidates in one table."""
    of_chunk = np.array(chunk_of)
    links, tables, chunk = np.zeros(len(sizes)), [CANDIDATES.empty_table()], []
    for number in range(len(sizes)):
        found = storage.read_json(run.candidates(number, ".json"))
        links[number] = sum(found["counts"].values()) - added[number]
        table = pq.read_table(run.candidates(number, ".parquet"), schema=CANDIDATES)
        if added[number]:
            table = table.filter(np.asarray(table["record_offset"]) > 0)
        tables.append(table)
        chunk.append(np.full(len(table), of_chunk[number]))
    table = pa.concat_tables(tables).combine_chunks()
    path = storage.join(run.out, TABLE)
    storage.write_table(path, table)
    row_bytes = os.path.getsize(path) / max(1, len(table))

    def by_chunk(values: np.ndarray) -> np.ndarray:
        return np.bincount(of_chunk, values, chunks)

    total = frame.total.mid
    return Sample(
        folder=run.out,
        share=min(1.0, sum(sizes) / total),
        sizes=by_chunk(np.array(sizes)),
        links=by_chunk(links),
        rows=np.bincount(np.concatenate(chunk), minlength=chunks).astype(float),
        seconds=by_chunk(np.maximum(seconds - each, 0.0)),
        each=each,
        row_bytes=row_bytes,
        table=table,
        chunk=np.concatenate(chunk).astype(np.int64),
        streams=streams,
    )
