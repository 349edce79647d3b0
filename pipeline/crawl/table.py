"""The crawl as tables: every URL that was met with what became of it, every host, and the sums."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.crawl.config import Config
from pipeline.crawl.outcomes import (
    ALL,
    NAMES,
    OVER_BYTES,
    OVER_HOST_PAGES,
    OVER_PAGES,
    WAITING,
)
from pipeline.crawl.plan import choose, is_over
from pipeline.crawl.state import NOT_VISITED, QUEUED, State, robots_table
from pipeline.crawl.warc import file_name
from wit import storage
from wit.hashing import hash64

PAGES = pa.schema(
    [
        pa.field("url", pa.string(), nullable=False),
        pa.field("depth", pa.int32(), nullable=False),  # links from a seed
        pa.field("parent", pa.string()),  # the page, redirect or sitemap that led there
        pa.field("outcome", pa.string(), nullable=False),  # of pipeline.crawl.outcomes.ALL
        pa.field("message", pa.string()),
        pa.field("status", pa.int32()),
        pa.field("content_type", pa.string()),
        pa.field("bytes", pa.int64()),  # of the body as sent; null where its turn did not come
        pa.field("warc", pa.string()),  # the file with its records; null where none was kept
        pa.field("offset", pa.int64()),  # of the response record in it
    ]
)


def outcome_of_waiting(state: State, config: Config) -> np.ndarray:
    """Returns object [n]: of each queued URL that was not asked, the reason."""
    if is_over(state, config):
        over = OVER_PAGES if state.fetched >= config.max_pages else OVER_BYTES
    else:
        over = WAITING
    reasons = np.full(len(state.queue), over, object)
    if config.max_host_pages is not None:
        full = state.fetched_of >= config.max_host_pages
        reasons[full[state.queue.host]] = OVER_HOST_PAGES
    return reasons


def write_tables(out: str, state: State, config: Config) -> dict[str, Any]:
    """Writes OUT/pages.parquet, hosts.parquet and, last, crawl.json; returns what that says."""
    counts: Counter[str] = Counter()
    with (
        storage.open_write(storage.join(out, "pages.parquet")) as file,
        contextlib.closing(pq.ParquetWriter(file, PAGES, compression="zstd")) as writer,
    ):
        for table in _pages(state, config):
            counts.update(table["outcome"].to_pylist())
            if len(table):
                writer.write_table(table, row_group_size=storage.ROW_GROUP)
    storage.write_table(storage.join(out, "hosts.parquet"), robots_table(state.rules))
    facts = {
        "complete": not len(choose(state, config)),
        "urls": counts.total(),
        "outcomes": {name: counts[name] for name in ALL if counts[name]},
        "hosts": len(state.rules),
        "bytes": state.received,
        "warc_files": state.place.number + 1 if state.place.length else 0,
        "config": asdict(config),
    }
    storage.write_json(storage.join(out, "crawl.json"), facts)
    return facts


def _pages(state: State, config: Config) -> Iterator[pa.Table]:
    """The rows of PAGES, a round's findings at a time, in the order of discovery."""
    visits = _Visits(state)
    reasons = outcome_of_waiting(state, config)
    first = 0
    for number in range(state.rounds):
        found = storage.read_table(state.path(".found", number))
        kinds = found["kind"].to_numpy(zero_copy_only=False)
        queued = kinds == QUEUED
        # What was passed over when it was met first, and queued or kept later, has its row there.
        hashes = hash64(found["url"])
        later = ~queued & (kinds != "duplicate") & state.identities.contains(hashes)
        places = np.arange(first, first + int(queued.sum()))
        first += len(places)
        codes = state.queue.outcome[places]
        asked = codes != NOT_VISITED
        outcomes = kinds.copy()
        names = np.array([*NAMES, *[""] * (256 - len(NAMES))], object)
        outcomes[queued] = np.where(asked, names[codes], reasons[places])
        rows = np.full(len(found), -1)
        rows[queued] = np.where(asked, visits.row[places], -1)
        about = visits.take(rows)
        table = pa.table(
            [
                found["url"],
                found["depth"],
                found["parent"],
                pa.array(outcomes, pa.string()),
                *about,
            ],
            schema=PAGES,
        )
        yield table.filter(pa.array(~later))


class _Visits:
    """All visits of a crawl, found by place."""

    def __init__(self, state: State) -> None:
        names = ["place", "message", "status", "content_type", "bytes", "warc", "offset"]
        tables = [
            storage.read_table(state.path(".visits", number), names)
            for number in range(state.rounds)
        ]
        self._table = pa.concat_tables(tables).combine_chunks()
        self.row = np.full(len(state.queue), -1)
        self.row[self._table["place"].to_numpy()] = np.arange(len(self._table))

    def take(self, rows: np.ndarray) -> list[pa.ChunkedArray | pa.Array]:
        """The columns of PAGES from `message` on, for rows of visits; nulls for -1."""
        some = self._table.take(pa.array(rows, mask=rows < 0))
        files = [None if n is None else file_name(n) for n in some["warc"].to_pylist()]
        columns = [some[name] for name in ("message", "status", "content_type", "bytes")]
        return [*columns, pa.array(files, pa.string()), some["offset"]]
