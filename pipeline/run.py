"""A run: what decides its result (`run.json`), and where its files stand.

    OUT/run.json                     the Config: the same command resumes, another is refused
    OUT/queries/                     the query list as it was, and the matcher made of it
    OUT/candidates/S.parquet .json   a source's pairs and its exact counts; S.P.keys their hashes
    OUT/unique/B.losers S.state      a bucket's duplicates; a source's verdicts, a byte a row
    OUT/counts/G.npy                 matched and unique pairs a query, of a group of sources
    OUT/balance/W/                   entries and thresholds of a wave
    OUT/selection/W/G.parquet        the pairs a wave draws, grouped by lane slot
    OUT/hosts/W/B.parquet            hosts of a wave with their robots.txt
    OUT/lanes/W/L.parquet            a lane's rows in the order they are fetched
    OUT/fetched/W/L.results          what became of them
    OUT/shards/NNNNN.tar ...         the dataset, with manifest.json
    OUT/coverage.parquet hosts.parquet report.html manifest.json

S is a source, G a group of sources, B a bucket, L a lane, W a wave, P a part of at most 2**20 rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import wit
from wit import storage
from wit.errors import UserError

READERS = 16  # small files read at a time; remote stores answer each in tens of milliseconds
GROUPS = 512  # the most groups of sources: so many files a wave's tables have at the most


@dataclass(frozen=True)
class Config:
    """Everything that decides which bytes a run writes, given the same web.

    Attributes:
        version: of this program.
        sources: the input files with their formats (pipeline.sources.Source as JSON), sorted.
        queries: `{queries, sha256}`: the size of the list and its fingerprint.
        match: `default` or `metaclip`.
        seed: of every query's order.
        per_query: t, the cap; null where `pairs` decides it.
        pairs: the number of pairs to select, from which t is solved; null where t is given.
        sampling: `independent` or `shared`.
        texts_per_image: distinct texts kept for one image URL.
        min_text, max_text: characters a text may have.
        languages: codes kept; empty keeps all.
        identify_language: whether the language column is filled.
        lanes: L, into which hosts are hashed.
        shard_size: pairs a shard, at most 10,000.
        waves: rounds of fetching.
        wave_hours: a wave plans at most this many hours of a host's rate.
        fetch: the part of pipeline.fetch.FetchPolicy that decides bytes.
    """

    sources: list[dict[str, Any]]
    queries: dict[str, Any]
    match: str = "default"
    seed: int = 0
    per_query: int | None = 20_000
    pairs: int | None = None
    sampling: str = "independent"
    texts_per_image: int = 1
    min_text: int = 1
    max_text: int = 1000
    languages: list[str] = field(default_factory=list)
    identify_language: bool = False
    lanes: int = 8
    shard_size: int = 10_000
    waves: int = 4
    wave_hours: float = 24.0
    fetch: dict[str, Any] = field(default_factory=dict)
    version: str = wit.__version__


@dataclass(frozen=True)
class Run:
    """A run's output folder and its configuration.

    Attributes:
        out: the folder.
        config: what run.json says.
    """

    out: str
    config: Config

    def path(self, *parts: str) -> str:
        """Returns a path in the output folder."""
        return storage.join(self.out, *parts)

    @property
    def groups(self) -> list[range]:
        """The sources cut into at most GROUPS ranges of equal length (the last may be shorter)."""
        n = len(self.config.sources)
        size = -(-n // GROUPS)
        return [range(start, min(start + size, n)) for start in range(0, n, size)]

    def candidates(self, source: int, suffix: str) -> str:
        """Returns the path of a source's file in candidates/."""
        return self.path("candidates", f"{source:06d}{suffix}")

    def verdicts(self, source: int) -> str:
        """Returns the path of a source's verdicts."""
        return self.path("unique", f"{source:06d}.state")

    def wave_path(self, room: str, wave: int, name: str) -> str:
        """Returns the path of a file of one wave."""
        return self.path(room, f"{wave:02d}", name)

    def save(self) -> None:
        """Writes run.json."""
        storage.write_json(self.path("run.json"), asdict(self.config))


@functools.lru_cache(maxsize=4)
def load_run(out: str) -> Run:
    """Reads a run from its folder; a UserError where run.json is not this version's."""
    path = storage.join(out, "run.json")
    if not storage.exists(path):
        raise UserError(f"{out}: no run.json there; name the output folder of a harvest")
    saved = storage.read_json(path)
    if saved.get("version") != wit.__version__:
        raise UserError(
            f"{path}: written by version {saved.get('version')}, this is {wit.__version__}; "
            "install that version (on the cluster's workers too), or choose another --out"
        )
    unknown = set(saved) - {f.name for f in fields(Config)}
    if unknown:
        raise UserError(f"{path}: unknown entry {min(unknown)!r}; choose another --out")
    return Run(out, Config(**saved))


def open_run(out: str, config: Config) -> Run:
    """Starts a run in a folder or resumes the one there, which must have the same configuration.

    Raises:
        UserError: naming the first entry that differs, and both values.
    """
    path = storage.join(out, "run.json")
    if storage.exists(path):
        load_run.cache_clear()
        saved = asdict(load_run(out).config)
        for name, value in asdict(config).items():
            if saved[name] != value:
                raise UserError(
                    f"{path}: this folder holds a run of {_difference(name, saved[name], value)}; "
                    "repeat the options it was started with, or choose another --out"
                )
    elif [name for name in storage.list_names(out) if not name.startswith(".")]:
        raise UserError(f"{out}: not empty and not a harvest (no run.json); choose another --out")
    run = Run(out, config)
    run.save()
    return run


def read_many(
    paths: Iterable[str], read: Callable[[str], Any] = storage.read_json
) -> Iterator[Any]:
    """Yields what `read` returns for each path, in order; of a remote store many at a time."""
    paths = list(paths)
    if paths and storage.is_local(paths[0]):
        yield from map(read, paths)
        return
    with ThreadPoolExecutor(READERS) as pool:
        yield from pool.map(read, paths)


OPTIONS = {  # of entries that are not called as their options are
    "languages": "language",
    "user_agent": "contact or --user-agent",
    "per_host_concurrency": "host-concurrency",
    "total_seconds": "timeout",
}


def _difference(name: str, saved: Any, value: Any) -> str:
    if isinstance(saved, dict) and isinstance(value, dict):
        keys = sorted(k for k in saved.keys() | value.keys() if saved.get(k) != value.get(k))
        if name == "queries" and "sha256" in keys:
            return (
                f"another version of the query list (sha256 {saved['sha256'][:12]}..., "
                f"now {value['sha256'][:12]}...)"
            )
        key = keys[0]
        if key == "resize_only_if_bigger":
            return "a run without --upscale, now with it" if saved[key] else "--upscale, now not"
        return _values(key, saved.get(key), value.get(key))
    if name == "sources":
        if len(saved) != len(value):
            return f"{len(saved):,} input files, now {len(value):,}"
        before, after = next(pair for pair in zip(saved, value, strict=True) if pair[0] != pair[1])
        if before["path"] != after["path"]:
            return f"the input {before['path']}, now {after['path']}"
        return f"another version of {after['path']}, or of its --url-column and --text-column"
    return _values(name, saved, value)


def _values(name: str, saved: Any, value: Any) -> str:
    option = OPTIONS.get(name, name.replace("_", "-"))
    before, after = ("not set" if v is None or v == [] else repr(v) for v in (saved, value))
    return f"--{option} {before}, now {after}"
