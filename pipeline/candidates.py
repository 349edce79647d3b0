"""Stage 1, extract and match: one source file in, its candidates and exact counts out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import filters, sources
from pipeline.queries import load_matcher
from pipeline.run import Run
from pipeline.tally import Tally
from wit import storage
from wit.hashing import hash64, pair_ids
from wit.pairs import CANDIDATES

ROW_GROUP = 128 * 1024  # rows


def extract(run: Run, index: int, progress: Callable[[int, int], None]) -> None:
    """Writes candidates/S.parquet and, last, S.json with the counts by reason.

    A bad record is counted and listed with its offset in S.json; the file goes on.
    """
    source = sources.Source.from_json(run.config.sources[index])
    tally = Tally()
    rows = 0
    held: list[pa.RecordBatch] = []
    with (
        storage.open_write(run.candidates(index, ".parquet")) as file,
        pq.ParquetWriter(file, CANDIDATES, compression="zstd") as writer,
    ):

        def flush() -> None:
            table = pa.Table.from_batches(held, CANDIDATES)
            held.clear()
            for start in range(0, len(table), ROW_GROUP):
                writer.write_table(table.slice(start, ROW_GROUP), row_group_size=ROW_GROUP)

        for links in sources.read(source, tally, lambda done: progress(done, source.size or 0)):
            batch = candidates(run, links, tally)
            rows += len(batch)
            held.append(batch)
            if sum(len(b) for b in held) >= ROW_GROUP:
                flush()
        flush()
    found = {"source": source.path, "rows": rows, **tally.to_json()}
    storage.write_json(run.candidates(index, ".json"), found)


def candidates(run: Run, links: pa.RecordBatch, tally: Tally) -> pa.RecordBatch:
    """Returns the CANDIDATES among LINKS: those of the asked length and language with a query."""
    config = run.config
    language = pa.nulls(len(links), pa.string())
    if config.identify_language or config.languages:
        language = filters.identify_languages(links["text"])
    links = links.append_column("language", language)
    keep = np.ones(len(links), bool)
    for reason, rows in filters.dropped(
        links, config.min_text, config.max_text, config.languages
    ).items():
        tally.move("extracted", reason, int(rows.sum()))
        keep &= ~rows
    links = links.filter(pa.array(keep))
    query_ids = load_matcher(run.out).match(links["text"])
    matched = pc.greater(pc.list_value_length(query_ids), 0)
    tally.move("extracted", "no_query", len(links) - int(pc.sum(matched).as_py() or 0))
    links, query_ids = links.filter(matched), query_ids.filter(matched)
    ids = pair_ids(hash64(links["url"]), hash64(links["text"]))
    columns = {"pair_id": ids, **{n: links[n] for n in links.schema.names}, "query_ids": query_ids}
    arrays = [columns[f.name].cast(f.type) for f in CANDIDATES]
    return pa.RecordBatch.from_arrays(arrays, schema=CANDIDATES)
