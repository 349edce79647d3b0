"""A build of a query list: what decides its result, and where its files stand.

    OUT/queries.parquet .json .html   the list, what it was made of, and a page to look at it
    OUT/build.json                    the Config: the same command goes on, another is refused
    OUT/work/inputs/I.json            an input file's SHA-256
    OUT/work/pages/S.parquet          a split's titles and redirects
    OUT/work/words/S.arrow            its words and counts, a batch a bucket of their hashes
    OUT/work/tokens/S.parquet         its text as numbers of its words
    OUT/work/extract/S.json           what was counted in it (written last)
    OUT/work/vocabulary/B.parquet     a bucket's words that are frequent enough for a bigram
    OUT/work/vocabulary.parquet       all of them
    OUT/work/bigrams/G.R.blocks       a run of a group of splits: pairs of words by partition
    OUT/work/pmi/P.parquet            a partition's bigrams that are frequent enough
    OUT/work/titles/                  the titles' hashes and where redirects lead
    OUT/work/views/V.parquet          views of articles in a file of page views

I is an input, S a split, B a bucket, G a group of splits, R a run, P a partition, V a view file.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import pyarrow as pa

import wit
from wit import storage
from wit.errors import UserError

SOURCES = ("wikipedia_word", "wikipedia_bigram", "wikipedia_title", "wordnet")  # in order
SPLIT_BYTES = 32 << 20  # of a compressed dump: about 110 MB of XML, 35 MB of text
BUCKET_BYTES = 1 << 30  # of a compressed dump, whose words one merge takes
GROUP_BYTES = 1 << 30  # of a compressed dump, whose bigrams one task counts
PARTITION_BYTES = 192 << 20  # of a compressed dump, whose bigrams a partition may have to sort
JOINING = ("size", "ratio", "least_pmi", "least_views")  # may change: the work before stands
BUILD = "build.json"


@dataclass(frozen=True)
class Config:
    """Everything that decides which list is built.

    Attributes:
        wiki: a Wikipedia's database name, as enwiki.
        dumps: path, size and format (`xml` or `cirrus`) of each dump file.
        splits: (index in `dumps`, first byte, end).
        views: path and size of each file of page views.
        wordnet: the folder or archive of WordNet; null without.
        sources: those of the list.
        word_count: occurrences from which a word is in the list.
        bigram_count: occurrences from which a bigram's PMI counts.
        size: queries at the most.
        ratio: shares of bigrams and titles in what words and WordNet leave of `size`.
        least_pmi, least_views: thresholds that are given; null where the size decides them.
        buckets, partitions, group_splits: how the work is cut; the result is the same for any.
        normalisation: version of `wit.text`.
        version: of this program.
    """

    wiki: str
    dumps: list[dict[str, Any]]
    splits: list[list[int]]
    views: list[dict[str, Any]]
    wordnet: str | None
    sources: list[str]
    word_count: int = 100
    bigram_count: int = 100
    size: int = 500_000
    ratio: list[float] = field(default_factory=lambda: [100_646, 61_235])
    least_pmi: float | None = None
    least_views: int | None = None
    buckets: int = 1
    partitions: int = 1
    group_splits: int = 1
    normalisation: str = ""
    version: str = wit.__version__


@dataclass(frozen=True)
class Run:
    """A build's output folder and its configuration."""

    out: str
    config: Config

    def path(self, *parts: str) -> str:
        """Returns a path in the output folder."""
        return storage.join(self.out, *parts)

    def work(self, room: str, number: int, suffix: str) -> str:
        """Returns the path of a numbered file of the work."""
        return self.path("work", room, f"{number:05d}{suffix}")

    @property
    def groups(self) -> list[range]:
        """The splits whose bigrams are counted together."""
        step, count = self.config.group_splits, len(self.config.splits)
        return [range(first, min(first + step, count)) for first in range(0, count, step)]


def cut_work(dump_bytes: int, split_bytes: int, splits: int) -> dict[str, int]:
    """Returns buckets, partitions and group_splits for dumps of so many compressed bytes."""
    return {
        "buckets": max(1, -(-dump_bytes // BUCKET_BYTES)),
        "partitions": max(1, -(-dump_bytes // PARTITION_BYTES)),
        "group_splits": max(1, min(splits, GROUP_BYTES // max(1, split_bytes))),
    }


@functools.lru_cache(maxsize=4)
def load_run(out: str) -> Run:
    """Reads a build from its folder; a UserError where build.json is not this version's."""
    path = storage.join(out, BUILD)
    if not storage.exists(path):
        raise UserError(f"{out}: no {BUILD} there; name the folder of a build")
    saved = storage.read_json(path)
    if saved.get("version") != wit.__version__:
        raise UserError(
            f"{path}: written by version {saved.get('version')}, this is {wit.__version__}; "
            "install that version, or choose another --out"
        )
    unknown = set(saved) - {f.name for f in fields(Config)}
    if unknown:
        raise UserError(f"{path}: unknown entry {min(unknown)!r}; choose another --out")
    return Run(out, Config(**saved))


def open_run(out: str, config: Config) -> Run:
    """Starts a build in a folder or goes on with the one there.

    Raises:
        UserError: where the build there is of other inputs or counts, naming what differs, or the
            folder holds something else.
    """
    path = storage.join(out, BUILD)
    if storage.exists(path):
        load_run.cache_clear()
        saved = asdict(load_run(out).config)
        given = asdict(config)
        for name, value in given.items():
            if name not in JOINING and saved[name] != value:
                before, now = _told(name, saved[name], value)
                raise UserError(
                    f"{path}: the build there has {before}, now {now}; choose another --out"
                )
    elif [name for name in storage.list_names(out) if not name.startswith(".")]:
        raise UserError(f"{out}: not empty, and no build of a query list; choose another --out")
    run = Run(out, config)
    storage.write_json(path, asdict(config))
    load_run.cache_clear()
    return run


def _told(name: str, saved: Any, given: Any) -> tuple[str, str]:
    """An entry of the Config that differs, as it was and as it is, for a person."""
    if name in ("dumps", "views") and len(saved) == len(given):
        before, now = next(pair for pair in zip(saved, given, strict=True) if pair[0] != pair[1])
        return tuple(f"{entry['path']} of {entry['size']:,} bytes" for entry in (before, now))
    if name in ("dumps", "views", "splits"):
        what = {
            "dumps": "dump files",
            "views": "files of page views",
            "splits": "splits of the dumps",
        }
        return tuple(f"{len(value):,} {what[name]}" for value in (saved, given))
    label = name.replace("_", "-")
    return tuple(f"{label} {'not set' if v is None else v}" for v in (saved, given))


# --- tables in buckets ------------------------------------------------------------------------


def write_buckets(path: str, tables: list[pa.Table]) -> None:
    """Writes tables of one schema as a batch each, which can be read alone."""
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (
        storage.open_write(path) as file,
        pa.ipc.new_file(file, tables[0].schema, options=options) as writer,
    ):
        for table in tables:
            batches = table.combine_chunks().to_batches()
            empty = pa.RecordBatch.from_pylist([], schema=table.schema)
            writer.write_batch(batches[0] if batches else empty)


@contextmanager
def open_buckets(path: str) -> Iterator[pa.ipc.RecordBatchFileReader]:
    """Opens what `write_buckets` wrote; a damaged file is a UserError."""
    with storage.open_read(path) as file:
        try:
            yield pa.ipc.open_file(file)
        except pa.ArrowException as error:
            raise UserError(f"{path}: damaged ({error}); remove the build's work folder") from error


def read_bucket(path: str, bucket: int) -> pa.Table:
    """Reads one of the tables that `write_buckets` wrote."""
    with open_buckets(path) as reader:
        return pa.Table.from_batches([reader.get_batch(bucket)])
