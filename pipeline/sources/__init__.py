"""What a harvest reads: `expand` finds the files, `read` gives their links as Arrow batches."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from pipeline.sources.crawl import read_crawl
from pipeline.sources.expand import expand
from pipeline.sources.members import Progress
from pipeline.sources.source import Source
from pipeline.sources.tables import read_table
from pipeline.sources.web import open_source
from pipeline.tally import Tally

__all__ = ["Source", "expand", "read"]


def read(
    source: Source, tally: Tally, progress: Progress = lambda done: None
) -> Iterator[pa.RecordBatch]:
    """Yields a source's links as LINKS; a bad record is counted, and the file goes on.

    Args:
        source: the file.
        tally: gets what became of every link, and the file's faults.
        progress: is told the bytes read.

    Raises:
        UserError: if the file is not what it says at all.
    """
    if source.kind == "table":
        yield from read_table(source, tally, progress)
        return
    with open_source(source.path) as file:
        yield from read_crawl(file, source.path, tally, progress)
