"""A crawl's state: which URLs were met, which wait, what became of the others. It survives SIGKILL.

A crawl goes in rounds. Each leaves files in OUT/.crawl/, N being its number:

    N.found    Parquet: URLs met for the first time, in order (FOUND)
    N.visits   Parquet: what became of those that were asked for, in planned order (VISITS)
    N.hosts    Parquet: robots.txt of the hosts that it entered (`wit.web.robots.ROBOTS`)
    N.json     written last: the round counts from then on; where the WARC files end

A URL that may be asked for is queued; its place is its number among all queued ones, in the order
of discovery. URLs are told apart by 64 bits of their hash, as in a harvest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.crawl.outcomes import CODES, FETCHED
from pipeline.crawl.scope import host_of
from pipeline.crawl.warc import Place
from wit import storage
from wit.hashing import hash64
from wit.web.robots import ROBOTS, HostRule

FOLDER = ".crawl"
QUEUED = "queued"
FOUND = pa.schema(
    [
        pa.field("url", pa.string(), nullable=False),  # normal form
        pa.field("host", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # queued, or the outcome that it has
        pa.field("depth", pa.int32(), nullable=False),  # links from a seed
        pa.field("hops", pa.int32(), nullable=False),  # redirects that led there
        pa.field("parent", pa.string()),  # the page or sitemap that led there; null for seeds
    ]
)
VISITS = pa.schema(
    [
        pa.field("place", pa.int64(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),  # of pipeline.crawl.outcomes.ALL
        pa.field("message", pa.string()),
        pa.field("status", pa.int32()),  # HTTP
        pa.field("content_type", pa.string()),
        pa.field("bytes", pa.int64(), nullable=False),  # of the body as sent
        pa.field("warc", pa.int32()),  # number of the file; null where nothing was kept
        pa.field("offset", pa.int64()),  # of the response record
    ]
)
NOT_VISITED = 255


@dataclass(slots=True)
class Queue:
    """All queued URLs by place, in columns that grow; the URLs themselves stand in N.found.

    Attributes:
        round: int32 [n], of the N.found that has the URL.
        row: int32 [n], in there.
        depth: int32 [n].
        hops: int32 [n].
        host: int32 [n], indices of `State.hosts`.
        outcome: uint8 [n], `outcomes.CODES` of those visited, NOT_VISITED else.
    """

    round: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    row: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    depth: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    hops: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    host: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    outcome: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))

    def __len__(self) -> int:
        return len(self.row)


class Hashes:
    """A set of uint64, sorted."""

    def __init__(self) -> None:
        self.values = np.empty(0, np.uint64)

    def contains(self, hashes: np.ndarray) -> np.ndarray:
        """Returns bool [n]: which of n hashes are in the set."""
        if not len(self.values):
            return np.zeros(len(hashes), bool)
        at = np.minimum(np.searchsorted(self.values, hashes), len(self.values) - 1)
        return self.values[at] == hashes

    def add(self, hashes: np.ndarray) -> None:
        """Adds hashes; those that are in it already change nothing."""
        new = np.unique(hashes)
        new = new[~self.contains(new)]
        at = np.searchsorted(self.values, new)
        self.values = np.insert(self.values, at, new)


class State:
    """The state of the crawl in a folder, as of its last finished round.

    Attributes:
        rounds: how many are finished.
        place: how far the WARC files are written.
        queue: the URLs that were queued.
        pending: by depth, places that wait (int64, ascending).
        identities: hashes of queued URLs, and of canonical ones of pages that were kept.
        aside: hashes of the others that were met: off site, nofollow, too deep.
        hosts: host names, in the order in which they were met.
        rules: robots.txt by origin.
        fetched: pages kept, in all.
        fetched_of: the same for each host, int64.
        received: bytes of bodies kept, in all.
    """

    def __init__(self, out: str) -> None:
        self.folder = storage.join(out, FOLDER)
        self.rounds = 0
        self.place = Place()
        self.queue = Queue()
        self.pending: dict[int, np.ndarray] = {}
        self.identities, self.aside = Hashes(), Hashes()
        self.hosts: list[str] = []
        self._host_numbers: dict[str, int] = {}
        self.rules: dict[str, HostRule] = {}
        self.fetched = self.received = 0
        self.fetched_of = np.empty(0, np.int64)
        self._urls: dict[int, pa.ChunkedArray] = {}
        while storage.exists(self.path(".json")):
            self._advance()
        self._index()

    def path(self, suffix: str, number: int | None = None) -> str:
        """The file of a round; of the next one unless a number is given."""
        return storage.join(self.folder, f"{self.rounds if number is None else number:06d}{suffix}")

    def commit(
        self, found: pa.Table, visits: pa.Table, rules: dict[str, HostRule], place: Place
    ) -> None:
        """Makes a round part of the state, and durable: FOUND, VISITS, new hosts' robots.txt."""
        storage.write_table(self.path(".found"), found)
        storage.write_table(self.path(".visits"), visits)
        storage.write_table(self.path(".hosts"), robots_table(rules))
        facts = {"number": place.number, "length": place.length, "content": place.content}
        storage.write_json(self.path(".json"), {"warc": facts})
        pending, first = self.pending, len(self.queue)
        self._advance()
        visited = self.queue.outcome != NOT_VISITED
        for depth in list(pending):
            pending[depth] = pending[depth][~visited[pending[depth]]]
        self._add_pending(np.arange(first, len(self.queue)))

    def _advance(self) -> None:
        """Takes in the next round's files."""
        number = self.rounds
        found = storage.read_table(self.path(".found"))
        visits = storage.read_table(self.path(".visits"))
        hosts = storage.read_table(self.path(".hosts"))
        self.place = Place(**storage.read_json(self.path(".json"))["warc"])
        kinds = found["kind"].to_numpy(zero_copy_only=False)
        hashes = hash64(found["url"])
        queued = kinds == QUEUED
        identity = queued | (kinds == "duplicate")
        self.identities.add(hashes[identity])
        self.aside.add(hashes[~identity])
        rows = np.flatnonzero(queued).astype(np.int32)
        names = found["host"].take(pa.array(rows)).to_pylist()
        new = Queue(
            np.full(len(rows), number, np.int32),
            rows,
            found["depth"].to_numpy()[rows].astype(np.int32),
            found["hops"].to_numpy()[rows].astype(np.int32),
            np.fromiter(map(self._number_of, names), np.int32, len(rows)),
            np.full(len(rows), NOT_VISITED, np.uint8),
        )
        for name in Queue.__slots__:
            old = getattr(self.queue, name)
            setattr(self.queue, name, np.concatenate([old, getattr(new, name)]))
        self._take_visits(visits)
        for row in hosts.to_pylist():
            origin = row.pop("host")
            self.rules[origin] = HostRule(**row)
        self.rounds += 1

    def _take_visits(self, visits: pa.Table) -> None:
        places = visits["place"].to_numpy()
        outcomes = visits["outcome"].to_pylist()
        codes = np.fromiter((CODES[name] for name in outcomes), np.uint8, len(outcomes))
        self.queue.outcome[places] = codes
        fetched = codes == CODES[FETCHED]
        more = np.bincount(self.queue.host[places[fetched]], minlength=len(self.hosts))
        self.fetched_of = np.pad(self.fetched_of, (0, len(self.hosts) - len(self.fetched_of)))
        self.fetched_of += more
        self.fetched += int(fetched.sum())
        kept = visits["warc"].is_valid().to_numpy()
        self.received += int(visits["bytes"].to_numpy()[kept].sum())

    def _number_of(self, host: str) -> int:
        number = self._host_numbers.setdefault(host, len(self.hosts))
        if number == len(self.hosts):
            self.hosts.append(host)
        return number

    def _index(self) -> None:
        """Finds what waits after a start."""
        self._add_pending(np.flatnonzero(self.queue.outcome == NOT_VISITED))

    def _add_pending(self, places: np.ndarray) -> None:
        depths = self.queue.depth[places]
        for depth in np.unique(depths).tolist():
            old = self.pending.get(depth, np.empty(0, np.int64))
            self.pending[depth] = np.concatenate([old, places[depths == depth]])

    @property
    def waiting(self) -> int:
        """How many URLs wait."""
        return sum(map(len, self.pending.values()))

    def urls_of(self, places: np.ndarray) -> list[str]:
        """The URLs at places."""
        urls: list[str] = [""] * len(places)
        rounds, rows = self.queue.round[places], self.queue.row[places]
        for number in np.unique(rounds).tolist():
            column = self._urls.get(number)
            if column is None:
                while len(self._urls) >= 16:
                    del self._urls[next(iter(self._urls))]
                column = storage.read_table(self.path(".found", number), ["url"])["url"]
                self._urls[number] = column
            at = np.flatnonzero(rounds == number)
            for i, url in zip(at, column.take(pa.array(rows[at])).to_pylist(), strict=True):
                urls[i] = url
        return urls


def robots_table(rules: Mapping[str, HostRule]) -> pa.Table:
    """The rules of hosts, by origin, as `wit.web.robots.ROBOTS`."""
    rows = [{"host": origin, **asdict(rule)} for origin, rule in rules.items()]
    return pa.Table.from_pylist(rows, schema=ROBOTS)


@dataclass(slots=True)
class Findings:
    """URLs that a round meets, against what the crawl knows: gathers the rows of N.found.

    Attributes:
        state: what was known before.
        max_depth: what lies deeper is not queued; None for no limit.
        rows: (url, kind, depth, hops, parent).
    """

    state: State
    max_depth: int | None
    rows: list[tuple[str, str, int, int, str | None]] = field(default_factory=list)
    _identities: set[int] = field(default_factory=set)
    _aside: set[int] = field(default_factory=set)

    def add(
        self, urls: list[str], kind: str, depth: int, parent: str | None, hops: int = 0
    ) -> None:
        """Adds those of some URLs that are new, or that were met but not queued and now are."""
        if not urls:
            return
        hashes = hash64(pa.array(urls, pa.string()))
        known = self.state.identities.contains(hashes)
        if kind == QUEUED and self.max_depth is not None and depth > self.max_depth:
            kind = "over_depth"
        is_identity = kind in (QUEUED, "duplicate")
        if not is_identity:
            known |= self.state.aside.contains(hashes)
        for i in np.flatnonzero(~known).tolist():
            value = int(hashes[i])
            if value in self._identities or (not is_identity and value in self._aside):
                continue
            (self._identities if is_identity else self._aside).add(value)
            self.rows.append((urls[i], kind, depth, hops, parent))

    def knows(self, url: str) -> bool:
        """Whether a URL was queued, or is the canonical one of a page that was kept."""
        value = hash64(pa.array([url]))
        return bool(self.state.identities.contains(value)[0]) or int(value[0]) in self._identities

    def table(self) -> pa.Table:
        """The rows as FOUND."""
        columns: list[list[Any]] = [list(c) for c in zip(*self.rows, strict=True)] or [[]] * 5
        hosts = [host_of(url) for url in columns[0]]
        return pa.table([columns[0], hosts, *columns[1:]], schema=FOUND)
