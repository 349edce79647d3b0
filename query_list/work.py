"""What the tasks of a build do, one function a stage; each writes its files whole or not at all."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from query_list import bigrams, cirrus, counting, dump
from query_list.inputs import CIRRUS
from query_list.pages import PAGES, Site
from query_list.plain_text import plain_text
from query_list.run import Run, open_buckets, read_bucket, write_buckets
from query_list.segments import spaced_segments
from query_list.titles import TitleIndex
from query_list.views import count_views as count_file
from query_list.views import wiki_codes
from query_list.wordnet import FILES
from wit import blocks, storage

HASH_BYTES = 1 << 22
EDGE = 0.8  # of the threshold: words just below it are told, too


# --- inputs -----------------------------------------------------------------------------------


def input_files(run: Run) -> list[str]:
    """Returns the paths of all files that a build reads, in the order of their numbers."""
    found = [entry["path"] for entry in (*run.config.dumps, *run.config.views)]
    wordnet = run.config.wordnet
    if wordnet and storage.is_folder(wordnet):
        return found + [storage.join(wordnet, name) for name in FILES]
    return found + ([wordnet] if wordnet else [])


def inputs(run: Run) -> Sequence[int]:
    """Numbers of the input files."""
    return range(len(input_files(run)))


def hash_input(run: Run, task: int) -> None:
    """Writes the name, size and SHA-256 of an input file."""
    path = input_files(run)[task]
    digest, size = hashlib.sha256(), 0
    with storage.open_read(path) as file:
        while data := file.read(HASH_BYTES):
            digest.update(data)
            size += len(data)
    facts = {"name": storage.split(path)[1], "bytes": size, "sha256": digest.hexdigest()}
    storage.write_json(run.work("inputs", task, ".json"), facts)


# --- extract ----------------------------------------------------------------------------------


def splits(run: Run) -> Sequence[int]:
    """Numbers of the splits."""
    return range(len(run.config.splits))


def extract(run: Run, task: int) -> None:
    """Reads a split: its titles, its words with their counts, and its text as their numbers."""
    number, start, end = run.config.splits[task]
    path, form = (run.config.dumps[number][name] for name in ("path", "format"))
    reader = cirrus if form == CIRRUS else dump
    counter = counting.WordCounter()
    pages = reader.read_pages(path, start, end)
    titles: list[pa.RecordBatch] = []
    text_bytes = 0
    for batch in pages:
        titles.append(batch.select(["title", "redirect"]))
        text = batch["text"]
        plain = text if form == CIRRUS else plain_text(text, site_of(path).namespaces)
        text_bytes += pc.sum(pc.binary_length(plain)).as_py() or 0
        counter.add(spaced_segments(plain, wiki_codes(run.config.wiki)[0]))
    counted = counter.finish()
    schema = pa.schema([PAGES.field("title"), PAGES.field("redirect")])
    storage.write_table(run.work("pages", task, ".parquet"), pa.Table.from_batches(titles, schema))
    write_buckets(
        run.work("words", task, ".arrow"), counting.by_bucket(counted.words, run.config.buckets)
    )
    storage.write_table(run.work("tokens", task, ".parquet"), pa.table({"word": counted.stream}))
    facts = {**pages.counts, "text_bytes": text_bytes, "tokens": counted.tokens}
    storage.write_json(run.work("extract", task, ".json"), facts)


@functools.lru_cache(maxsize=4)
def site_of(path: str) -> Site:
    """Returns what a dump says about its wiki, read once a process."""
    return dump.read_site(path)


def extracted(run: Run) -> dict[str, Any]:
    """Returns the sums of what was counted in the splits: pages.Counts, text_bytes and tokens."""
    return _added(run.work("extract", task, ".json") for task in splits(run))


def _added(paths: Iterable[str]) -> dict[str, Any]:
    """The sums of the numbers in JSON files, and in the objects in these, by name."""
    total: dict[str, Any] = {}
    for path in paths:
        for name, value in storage.read_json(path).items():
            if isinstance(value, int):
                total[name] = total.get(name, 0) + value
            elif value and all(isinstance(count, int) for count in value.values()):
                sums = total.setdefault(name, {})
                sums |= {key: sums.get(key, 0) + count for key, count in value.items()}
    return total


# --- words ------------------------------------------------------------------------------------


def buckets(run: Run) -> Sequence[int]:
    """Numbers of the buckets of words."""
    return range(run.config.buckets)


def merge_words(run: Run, task: int) -> None:
    """Adds up a bucket's words over all splits and keeps those that matter."""
    config = run.config
    parts = (read_bucket(run.work("words", split, ".arrow"), task) for split in splits(run))
    least = max(1, int(EDGE * min(config.word_count, config.bigram_count)))
    kept, distinct = counting.merge(parts, least)
    storage.write_table(run.work("vocabulary", task, ".parquet"), kept)
    storage.write_json(run.work("vocabulary", task, ".json"), {"distinct": distinct})


def read_words(run: Run) -> pa.Table:
    """Returns counting.VOCABULARY: all words that are kept, sorted."""
    return storage.read_table(run.path("work", "vocabulary.parquet"))


def distinct_words(run: Run) -> int:
    """Returns how many different words the text has."""
    facts = (storage.read_json(run.work("vocabulary", b, ".json")) for b in buckets(run))
    return sum(entry["distinct"] for entry in facts)


# --- bigrams ----------------------------------------------------------------------------------


def groups(run: Run) -> Sequence[int]:
    """Numbers of the groups of splits; before that it writes the whole vocabulary."""
    parts = [storage.read_table(run.work("vocabulary", b, ".parquet")) for b in buckets(run)]
    whole = pa.concat_tables(parts).sort_by("word")
    storage.write_table(run.path("work", "vocabulary.parquet"), whole)
    return range(len(run.groups)) if "wikipedia_bigram" in run.config.sources else ()


def count_bigrams(run: Run, task: int) -> None:
    """Counts the pairs of a group's texts, of words that can be in a frequent one."""
    words = read_words(run)
    frequent = pc.greater_equal(words["count"], run.config.bigram_count)
    known = pa.array(np.flatnonzero(frequent), pa.int32())
    vocabulary = words["word"].filter(frequent).combine_chunks()
    facts = (storage.read_json(run.work("extract", s, ".json")) for s in run.groups[task])
    places = min(bigrams.TABLE, 2 << sum(entry["tokens"] for entry in facts).bit_length())
    counter = bigrams.PairCounter(run.config.partitions, places)
    number = 0
    for split in run.groups[task]:
        with open_buckets(run.work("words", split, ".arrow")) as reader:
            table = reader.read_all()
        lookup = bigrams.find_lookup(table, vocabulary, known)
        stream = storage.read_table(run.work("tokens", split, ".parquet"))["word"].to_numpy()
        for records, slot in counter.add(stream, lookup):
            blocks.write(_run_path(run, task, number), records, slot, run.config.partitions)
            number += 1
    blocks.write(_run_path(run, task, number), *counter.drain(), run.config.partitions)
    storage.write_json(run.work("bigrams", task, ".json"), {"runs": number + 1})


def _run_path(run: Run, group: int, number: int) -> str:
    return run.work("bigrams", group, f".{number:04d}.blocks")


def _runs(run: Run) -> Iterator[str]:
    for group in range(len(run.groups)):
        facts = storage.read_json(run.work("bigrams", group, ".json"))
        yield from (_run_path(run, group, number) for number in range(facts["runs"]))


def partitions(run: Run) -> Sequence[int]:
    """Numbers of the partitions of bigrams."""
    return range(run.config.partitions) if "wikipedia_bigram" in run.config.sources else ()


def add_bigrams(run: Run, task: int) -> None:
    """Adds up a partition's pairs over all runs, and writes those that are frequent with PMI."""
    records = (blocks.read(path, task, task + 1) for path in _runs(run))
    pairs = bigrams.add_runs(records, run.config.bigram_count)
    tokens = extracted(run)["tokens"]
    storage.write_table(
        run.work("pmi", task, ".parquet"), bigrams.with_pmi(pairs, read_words(run), tokens)
    )


def read_bigrams(run: Run) -> pa.Table:
    """Returns bigrams.BIGRAMS of all partitions, sorted, each query once.

    Where scripts without spaces write two pairs of words alike, that with the higher PMI stays.
    """
    parts = [storage.read_table(run.work("pmi", p, ".parquet")) for p in partitions(run)]
    whole = pa.concat_tables(parts) if parts else bigrams.BIGRAMS.empty_table()
    order = [("query", "ascending"), ("pmi", "descending"), ("count", "descending")]
    ordered = whole.sort_by(order).combine_chunks()
    queries = ordered["query"].combine_chunks()
    repeated = pc.equal(queries.slice(1), queries.slice(0, max(0, len(queries) - 1)))
    first = np.concatenate([[True], ~repeated.to_numpy(zero_copy_only=False)])[: len(queries)]
    return ordered.filter(pa.array(first))


# --- titles -----------------------------------------------------------------------------------


def title_tasks(run: Run) -> Sequence[int]:
    """The one task of the titles, where they are a source."""
    return range(1) if "wikipedia_title" in run.config.sources else ()


def page_files(run: Run) -> list[str]:
    """Returns the files of the splits' titles and redirects."""
    return [run.work("pages", split, ".parquet") for split in splits(run)]


def index_titles(run: Run, task: int) -> None:
    """Writes the index of all titles and where redirects lead."""
    index = TitleIndex.build(page_files(run))
    index.save(run.path("work", "titles"))
    storage.write_json(run.work("titles", task, ".json"), {"titles": len(index.hashes)})


@functools.lru_cache(maxsize=1)
def load_titles(out: str) -> TitleIndex:
    """Returns the index of a build, once a process."""
    return TitleIndex.load(storage.join(out, "work", "titles"))


def view_files(run: Run) -> Sequence[int]:
    """Numbers of the files of page views."""
    return range(len(run.config.views)) if title_tasks(run) else ()


def count_views(run: Run, task: int) -> None:
    """Writes the views of each article in a file of page views."""
    config = run.config
    xml = [entry["path"] for entry in config.dumps if entry["format"] != CIRRUS]
    case = site_of(xml[0]).case if xml else "first-letter"
    path = config.views[task]["path"]
    articles, views, counts = count_file(path, config.wiki, load_titles(run.out), case)
    storage.write_json(run.work("views", task, ".json"), asdict(counts))
    table = pa.table({"article": articles, "views": views})
    storage.write_table(run.work("views", task, ".parquet"), table)


def add_views(run: Run) -> np.ndarray:
    """Returns int64 [titles]: the views of each article over all files, by place in the index."""
    total = np.zeros(len(load_titles(run.out).hashes), np.int64)
    for task in view_files(run):
        table = storage.read_table(run.work("views", task, ".parquet"))
        total[table["article"].to_numpy()] += table["views"].to_numpy()
    return total


def viewed(run: Run) -> dict[str, Any]:
    """Returns the sums of what became of the lines of all files: views.ViewCounts."""
    return _added(run.work("views", task, ".json") for task in view_files(run))
