"""A run: what decides its result (`run.json`), and where its files stand.

    OUT/run.json                     the Config: the same command resumes, another is refused
                                     (until the first source is extracted, it starts anew)
    OUT/queries/                     the query list as it was, and the matcher made of it
    OUT/candidates/S.parquet .json   a source's pairs and its exact counts
    OUT/unique/G.P.keys B.losers     a group's hashes by bucket; a bucket's duplicates
    OUT/unique/G.state               a group's verdicts, a byte a row
    OUT/counts/G.npy                 matched and unique pairs a query, of a group of sources
    OUT/balance/W/                   entries and thresholds of a wave
    OUT/selection/W/G.parquet        the pairs a wave draws, grouped by lane slot
    OUT/hosts/W/B.parquet            hosts of a wave with their robots.txt
    OUT/lanes/W/L.parquet            a lane's rows in the order they are fetched
    OUT/fetched/W/L.results          what became of them
    OUT/fetched/W/L.met              pictures that a lane has met more than once
    OUT/placeholders.parquet         those under so many addresses that they are none
    OUT/shards/NNNNN.tar ...         the dataset, with manifest.json
    OUT/coverage.parquet hosts.parquet report.html manifest.json
    OUT/finished.json                how many crawls are in what stands there
    OUT/crawl2/                      of the crawl that came second (`--onto`), what the first has in
                                     OUT itself: unique/ counts/ target.json coverage/ evicted/

S is a source, G a group of sources, B a bucket, L a lane, W a wave, P a part of a large group.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import wit
from wit import storage
from wit.errors import UserError

READERS = 16  # small files read at a time; remote stores answer each in tens of milliseconds
LEFT_BEHIND = (".parquet", ".bin", ".json", ".keys")
GROUPS = 512  # the most groups of sources: so many files a wave's tables have at the most


@dataclass(frozen=True)
class Config:
    """Everything that decides which bytes a run writes, given the same web.

    Attributes:
        version: of this program.
        sources: the input files with their formats (pipeline.sources.Source as JSON), sorted within
            each crawl.
        queries: `{queries, sha256, left_out}`: the size of the list, its fingerprint, and how many
            of its entries were left out by reason.
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
        placeholder_urls: under how many URLs, with as many texts, one picture is a placeholder; 0
            where none is.
        waves: rounds of fetching, of each crawl.
        wave_hours: a wave plans at most this many hours of a host's rate.
        fetch: the part of pipeline.fetch.FetchPolicy that decides bytes.
        product_token: the name by which robots.txt files know the agent; null until a host is to be
            asked. The contact in the agent is no part of the run.
        crawls: the source with which each crawl begins, in the order in which they were added.
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
    placeholder_urls: int = 10
    waves: int = 4
    wave_hours: float = 24.0
    fetch: dict[str, Any] = field(default_factory=dict)
    product_token: str | None = None
    crawls: list[int] = field(default_factory=lambda: [0])
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

    @functools.cached_property
    def groups(self) -> list[range]:
        """Each crawl's sources cut into at most GROUPS ranges of equal length, but for the last."""
        found = []
        for first, last in itertools.pairwise([*self.config.crawls, len(self.config.sources)]):
            size = max(1, -(-(last - first) // GROUPS))
            found += [range(start, min(start + size, last)) for start in range(first, last, size)]
        return found

    @functools.cached_property
    def group_of(self) -> list[int]:
        """The group of each source."""
        return [number for number, group in enumerate(self.groups) for _ in group]

    @property
    def new_groups(self) -> range:
        """The groups of the last crawl."""
        before = sum(group.start < self.config.crawls[-1] for group in self.groups)
        return range(before, len(self.groups))

    @property
    def crawl(self) -> int:
        """The last crawl, counted from 0: the one that is being harvested."""
        return len(self.config.crawls) - 1

    def crawl_of(self, source: int) -> int:
        """Returns the crawl to which a source belongs, counted from 0."""
        return bisect.bisect(self.config.crawls, source) - 1

    @property
    def waves(self) -> range:
        """The waves of the last crawl; those before it belong to earlier ones."""
        first = self.crawl * self.config.waves + 1
        return range(first, first + self.config.waves)

    def is_first(self, wave: int) -> bool:
        """Whether a wave is the first of its crawl."""
        return (wave - 1) % self.config.waves == 0

    @property
    def base(self) -> str:
        """The folder of what each crawl has for itself: that of the first is the run's."""
        return self.path(f"crawl{self.crawl + 1}") if self.crawl else self.out

    def own(self, *parts: str) -> str:
        """Returns a path in the last crawl's own folder."""
        return storage.join(self.base, *parts)

    def candidates(self, source: int, suffix: str) -> str:
        """Returns the path of a source's file in candidates/."""
        return self.path("candidates", f"{source:06d}{suffix}")

    def verdicts(self, group: int) -> str:
        """Returns the path of a group's verdicts."""
        return self.path("unique", f"{group:04d}.state")

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
    if "version" not in saved:
        raise UserError(f"{path}: not written by a harvest; choose another --out")
    if saved["version"] != wit.__version__:
        raise UserError(
            f"{path}: written by version {saved['version']}, this is {wit.__version__}; "
            "install that version (on the cluster's workers too), or choose another --out"
        )
    unknown = set(saved) - {f.name for f in fields(Config)}
    if unknown:
        raise UserError(f"{path}: unknown entry {min(unknown)!r}; choose another --out")
    return Run(out, Config(**saved))


def open_run(out: str, config: Config) -> Run:
    """Starts a run in a folder or resumes the one there, which must have the same configuration.

    A run of another configuration of which nothing is finished yet is started anew with this one.

    Raises:
        UserError: naming the first entry that differs, and both values.
    """
    path = storage.join(out, "run.json")
    if storage.exists(path):
        load_run.cache_clear()
        saved = load_run(out).config
        config = replace(config, product_token=config.product_token or saved.product_token)
        found = first_difference(saved, config)
        if found and is_grown(saved, config):
            if not is_finished(load_run(out)):
                raise UserError(
                    f"{out}: is not finished; finish it with the command it was started with, then "
                    "add to it"
                )
        elif found and _is_begun(out):
            is_older = len(config.crawls) < len(saved.crawls)
            grown = "; it has grown, so resume it with --onto" if is_older else ""
            raise UserError(
                f"{path}: this folder holds a run of {found}; repeat the options it was started "
                f"with, or choose another --out{grown}"
            )
        elif found:
            _clear(out)
    elif [name for name in storage.list_names(out) if not name.startswith(".")]:
        raise UserError(f"{out}: not empty and not a harvest (no run.json); choose another --out")
    run = Run(out, config)
    run.save()
    load_run.cache_clear()
    return run


def is_grown(saved: Config, config: Config) -> bool:
    """Whether a configuration is a saved one with a crawl more, and else the same."""
    before = replace(config, sources=config.sources[: len(saved.sources)], crawls=saved.crawls)
    added = [*saved.crawls, len(saved.sources)]
    return config.crawls == added and not first_difference(saved, before)


def is_finished(run: Run) -> bool:
    """Whether all that a run says at its end stands there, of its last crawl, too."""
    path = run.path("finished.json")
    return storage.exists(path) and storage.read_json(path)["crawls"] == len(run.config.crawls)


def _is_begun(out: str) -> bool:
    """Whether a result stands in a run's folder: the first are its sources' counts."""
    return any(n.endswith(".json") for n in storage.list_names(storage.join(out, "candidates")))


def _clear(out: str) -> None:
    """Removes what a run leaves that has finished nothing, and no other file."""
    rooms = [storage.join(out, name) for name in ("queries", "candidates", "progress")]
    rooms += [
        storage.join(rooms[-1], name) for name in storage.list_names(rooms[-1]) if "." not in name
    ]
    for room in rooms:
        for name in storage.list_names(room):
            if name.endswith(LEFT_BEHIND):
                storage.remove(storage.join(room, name))


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
    "product_token": "user-agent",
    "per_host_concurrency": "host-concurrency",
    "total_seconds": "timeout",
    "max_bytes": "max-picture-bytes",
}


def first_difference(saved: Config, config: Config) -> str:
    """Returns the first entry that differs, with both values, for a person; empty if none does."""
    before, after = asdict(saved), asdict(config)
    for entry in (before, after):
        entry["queries"] = {k: v for k, v in entry["queries"].items() if k != "left_out"}
        if saved.product_token is None:  # no host was asked under another name
            entry["product_token"] = None
    names = [name for name in after if before[name] != after[name]]
    return _difference(names[0], before[names[0]], after[names[0]]) if names else ""


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
