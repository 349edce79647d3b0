"""A run's files as explanations read them: each once, and absent ones as None."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import dedupe, lanes, waves
from pipeline.queries import LIST
from pipeline.run import Run
from wit import shards, storage
from wit.errors import UserError

KEPT = 256 << 20  # bytes of tables that are kept for the next question

Progress = Callable[[str, int, int], None]


def no_progress(what: str, done: int, total: int) -> None:
    """Shows nothing."""


class Files:
    """A run while a few questions about it are answered; what is read once is kept for a while."""

    def __init__(self, run: Run, progress: Progress = no_progress) -> None:
        self.run = run
        self.progress = progress
        self._kept: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self._size = 0

    def kept(self, key: Any, read: Callable[[], Any]) -> Any:
        """Returns what `read` does, None where its file is absent; once while there is room."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        try:
            value = read()
        except FileNotFoundError:
            return None  # an unfinished run may write it any moment
        size = getattr(value, "nbytes", 1000)
        self._kept[key] = value, size
        self._size += size
        while self._size > KEPT and len(self._kept) > 1:
            self._size -= self._kept.popitem(last=False)[1][1]
        return value

    def json(self, path: str) -> dict[str, Any] | None:
        """Returns a JSON file."""
        return self.kept(path, lambda: storage.read_json(path))

    def table(self, path: str, columns: list[str] | None = None) -> pa.Table | None:
        """Returns a Parquet file, or some columns of it."""
        key = (path, *columns) if columns else path
        return self.kept(key, lambda: storage.read_table(path, columns))

    def row_group(self, path: str, number: int) -> pa.Table | None:
        """Returns a row group of a Parquet file."""
        return self.kept((path, number), lambda: lanes.read_shard(path, number))

    def row(self, path: str, row: int) -> dict[str, Any] | None:
        """Returns a row of a Parquet file, of which its row group is read."""

        def starts() -> np.ndarray:
            with storage.open_read(path) as file:
                meta = pq.ParquetFile(file).metadata
            rows = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
            return np.cumsum([0, *rows])

        start = self.kept((path, "starts"), starts)
        if start is None or not 0 <= row < start[-1]:
            return None
        number = int(np.searchsorted(start, row, "right")) - 1
        return self.row_group(path, number).slice(row - int(start[number]), 1).to_pylist()[0]

    # --- what a run has come to ---------------------------------------------------------------

    def counts(self) -> np.ndarray | None:
        """Returns int64 [2, queries], matched and unique; None before all groups are counted."""
        return self.kept("counts", lambda: dedupe.load_counts(self.run.base))

    def cap(self) -> int | None:
        """Returns t, None before it is solved."""
        try:
            return dedupe.load_cap(self.run.base)
        except FileNotFoundError:
            return self.run.config.per_query

    def waves(self) -> list[int]:
        """Returns the waves that have drawn, in order."""
        names = storage.list_names(self.run.path("balance"))
        begun = sorted(int(name) for name in names if name.isdigit())
        return [w for w in begun if self.thresholds(w) is not None]

    def waves_of(self, source: int) -> list[int]:
        """Returns those of `waves` that could draw from a source: of its crawl and later ones."""
        first = self.run.crawl_of(source) * self.run.config.waves + 1
        return [wave for wave in self.waves() if wave >= first]

    def thresholds(self, wave: int) -> np.ndarray | None:
        """Returns THRESHOLD [queries] of a wave."""
        return self.kept(("thresholds", wave), lambda: waves.load_thresholds(self.run.out, wave))

    def is_over(self) -> bool:
        """Whether every wave that has something to do is fetched."""
        try:
            last = lanes.last_wave(self.run)
        except FileNotFoundError:
            return False
        done = set(storage.list_names(self.run.path("fetched", f"{last:02d}")))
        return all(f"{lane:04d}.results" in done for lane in range(self.run.config.lanes))

    def queries(self) -> pa.Table:
        """Returns query and sources of the list; the row number is the query's id."""
        names = ["query", "query_hash", "sources", "count", "pmi", "views"]
        path = self.run.path(LIST)
        table = self.table(path, names)
        if table is None:
            raise UserError(f"{path}: not written yet; the harvest's own command writes it")
        return table

    def query(self, query_id: int) -> str:
        """Returns a query's text."""
        return self.queries()["query"][query_id].as_py()

    def shard(self, shard_id: int) -> pa.Table | None:
        """Returns the rows of a committed shard, None where it is not."""
        folder, name = self.run.path("shards"), shards.shard_name(shard_id)
        if not storage.exists(storage.join(folder, f"{name}_stats.json")):
            return None
        return self.table(shards.final_path(folder, name, "parquet"))
