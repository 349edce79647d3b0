"""What a run keeps out: lists of `--blocklist`, and what was taken down (`wit.takedown`).

A list may grow from one session of a run to the next, so it is no part of what run.json says: all
that was ever listed is joined in OUT/blocklist.parquet, with each file's sha256 in blocklist.json.
It decides three times: a host that is listed is not asked, not for its robots.txt nor because a
redirect leads there; a row gets its outcome where its lane is planned, and again where its shard is
begun, for lists that grew since; a picture is looked at before it is stored, for where redirects
led and for its bytes.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.run import Run
from wit import storage, takedown
from wit.blocklist import Blocklist, read_list, read_own, write_own
from wit.outcomes import SUCCESS
from wit.shard_rewrite import TAKEN_DOWN
from wit.web.rates import Share
from wit.web.robots import HostRule, HostRules

if TYPE_CHECKING:
    from pipeline.fetch.fetched import Fetched

LIST, RECORD = "blocklist.parquet", "blocklist.json"
BLOCKLISTED = "blocklisted"  # an outcome, and a host's decision in the robots table
EMPTIED = ("url", "text", "page_url")  # of rows that were taken down
_LOADING = threading.Lock()  # lanes start at the same time, and a cache alone lets each load it


def install(run: Run, paths: Sequence[str], tell: Callable[[str], None]) -> None:
    """Joins lists to those that the run has; it keeps what it had where a command names fewer.

    Raises:
        UserError: naming file and line.
    """
    if not paths:
        return
    record = run.path(RECORD)
    files = storage.read_json(record)["files"] if storage.exists(record) else {}
    found = []
    for path in paths:
        tell(f"reading {path}")
        entries, sha256 = read_list(path)
        found.append(entries)
        files[path] = {"sha256": sha256, "entries": len(entries)}
    joined = read_own(run.path(LIST)).join(found)
    write_own(run.path(LIST), joined)
    storage.write_json(record, {"files": files, "entries": joined.counts()})


def load(run: Run, session: str) -> Blocked:
    """Returns what the run keeps out; read once in a process and session."""
    with _LOADING:
        return _load(run.out, session)


@functools.lru_cache(maxsize=1)
def _load(out: str, session: str) -> Blocked:
    lists = {TAKEN_DOWN: takedown.LIST, BLOCKLISTED: LIST}
    read = {outcome: read_own(storage.join(out, name)) for outcome, name in lists.items()}
    return Blocked({outcome: found for outcome, found in read.items() if len(found)})


@dataclass(frozen=True)
class Blocked:
    """Lists by the outcome that they give, the first counts."""

    lists: dict[str, Blocklist]

    def outcomes(self, table: pa.Table) -> pa.ChunkedArray:
        """Returns string [n]: the outcome of rows that are kept out, null for the rest."""
        found = pa.chunked_array([pa.nulls(len(table), pa.string())])
        for outcome, listed in self.lists.items():
            means = pc.if_else(listed.find(table).is_valid(), outcome, None)
            found = pc.coalesce(found, means.cast(pa.string()))
        return found

    def hosts(self, origins: Sequence[str]) -> list[bool]:
        """Returns which of `scheme://host:port` are listed as hosts."""
        urls = pa.table({"url": pa.array([f"{origin}/" for origin in origins], pa.string())})
        kinds = [listed.find(urls).to_pylist() for listed in self.lists.values()]
        return ["host" in found for found in zip(*kinds, strict=True)] or [False] * len(origins)

    def mark(self, rows: pa.Table) -> pa.Table:
        """Returns LANE rows with the outcomes of those that are kept out as their presets.

        Of what was taken down, no text and no address is handed on.
        """
        if not self.lists:
            return rows
        preset = pc.coalesce(self.outcomes(rows), rows["preset"])
        gone = pc.equal(preset, TAKEN_DOWN).fill_null(False)
        columns = {"preset": preset}
        for name in EMPTIED:
            columns[name] = pc.if_else(gone, pa.scalar(None, pa.string()), rows[name])
        for name, column in columns.items():
            rows = rows.set_column(rows.column_names.index(name), name, column)
        return rows

    def refuse(self, fetched: Fetched, url: str) -> None:
        """Takes the picture from a success whose last address or whose bytes are listed.

        `url` is what was asked for, and not listed.
        """
        by_bytes = any("sha256" in listed.counts() for listed in self.lists.values())
        moved = bool(self.lists) and fetched.final_url != url
        if fetched.outcome != SUCCESS or not (by_bytes or moved):
            return
        names = ["sha256", "final_url"] if moved else ["sha256"]
        values = [pa.array([getattr(fetched, name)], pa.string()) for name in names]
        outcome = self.outcomes(pa.table(values, names))[0].as_py()
        if outcome is not None:
            fetched.outcome, fetched.message = outcome, f"{outcome}: the picture or a redirect"
            fetched.image = fetched.sha256 = fetched.phash = fetched.exif = None
            fetched.width = fetched.height = None


class UnblockedRules(HostRules):
    """A lane's rules of hosts, where a listed host that a redirect leads to is not asked either."""

    def __init__(self, rules: HostRules, kept_out: Blocked) -> None:
        self._all, self._kept_out = rules, kept_out
        self._listed: dict[str, bool] = {}

    def get(self, origin: str) -> HostRule | None:
        """The rule of a host, None where it is not in the table."""
        if origin not in self._listed:
            self._listed[origin] = self._kept_out.hosts([origin])[0]
        return HostRule(BLOCKLISTED) if self._listed[origin] else self._all.get(origin)

    def share(self, server: str) -> Share:
        """The lane's part of a server's rate."""
        return self._all.share(server)
