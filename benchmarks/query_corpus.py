"""Dumps of any size made from the real articles of ../shared/data, for the benchmark of the list.

Every copy of the pages has titles of its own and, if asked for, words exchanged such that distinct
words and pairs of words keep to Heaps' law (benchmarks/query_growth.py). Words are exchanged where
a reader sees them: each word of the wikitext is given a mark of letters, and where the program
finds exactly that mark in the same place of the same text, there a word may stand instead. Dumps
are multistream bzip2 of about a hundred pages a stream, as Wikimedia's.
"""

from __future__ import annotations

import bz2
import concurrent.futures
import contextlib
import hashlib
import json
import multiprocessing
import os
import re
import tarfile
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import query_growth
from benchmarks.common import SHARED
from benchmarks.query_growth import Exchange, Growth, fit_curves, made_up
from query_list.counting import Counted, WordCounter
from query_list.dump import read_pages, read_site
from query_list.plain_text import plain_text
from query_list.segments import spaced_segments
from wit.console import Screen

ARCHIVE = "text/query_sources.tar.gz"
DUMP = "07_wiki_wordnet/gensim_wiki_dumps/"
DUMP += "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
SEED = 6
PAGE = re.compile(rb"  <page>.*?</page>\n", re.DOTALL)
TITLES = re.compile(rb"(?=</title>)|(?<=<redirect title=)\"[^\"]*(?=\")")
TEXT = re.compile(rb"<text[^>]*>(.*?)</text>", re.DOTALL)
# Not the names of tags, entities and namespaces, nor what a mark would make another word of.
WORD = re.compile(
    rb"(?<![\w'#.\x80-\xff&-])(?<!&amp;)(?<!&lt;)(?<!&lt;/)[A-Za-z]{1,40}(?![\w':;\x80-\xff-])"
)
TAIL = b"</mediawiki>\n"
STREAM_PAGES = 103  # of 206
WAITING = 3  # copies under way beyond the one that is written


class Slots(NamedTuple):
    """Words that may be exchanged, in the order of the pages.

    Attributes:
        starts, ends: bytes in the pages, joined.
        places: in the stream of words' numbers.
    """

    starts: np.ndarray
    ends: np.ndarray
    places: np.ndarray


@dataclass(frozen=True)
class Source:
    """The words of the real dump.

    Attributes:
        words: those of the articles, by number.
        articles: int32, each article's words by number, as `counting.Counted.stream`.
        slots: where words may be exchanged.
    """

    words: pa.Array
    articles: list[np.ndarray]
    slots: Slots

    def grow(self) -> Growth:
        """Begins a longer text of these words."""
        letters = pc.match_substring_regex(self.words, "^[a-z]+$").to_numpy(zero_copy_only=False)
        stream, fit = np.concatenate(self.articles), fit_curves(self.articles, SEED)
        return Growth(stream, self.slots.places, letters, fit, SEED)


# --- the real pages ---------------------------------------------------------------------------


def real_dump(folder: Path) -> Path:
    """Unpacks the real dump into a folder; its path."""
    path = folder / Path(DUMP).name
    with tarfile.open(SHARED / ARCHIVE) as archive:
        path.write_bytes(archive.extractfile(DUMP).read())
    return path


def raw_pages(path: Path) -> tuple[bytes, list[bytes]]:
    """Returns what stands before the first page of a dump, and each page's XML."""
    xml = bz2.decompress(path.read_bytes())
    pages = PAGE.findall(xml)
    return xml[: xml.index(pages[0])], pages


def read_source(head: bytes, pages: list[bytes]) -> Source:
    """Counts the real pages and finds where their words may be exchanged."""
    joined, marks = _marked(pages)
    own, theirs = (_count(head, text) for text in (b"".join(pages), joined))
    return Source(own[0].words["word"].combine_chunks(), own[1], _slots(own, theirs, marks))


def _marked(pages: list[bytes]) -> tuple[bytes, list[tuple[int, int]]]:
    """The pages with each word of their wikitext replaced by its mark, and where the words were."""
    pieces, marks, base = [], [], 0
    for page in pages:
        text = TEXT.search(page)
        at = 0
        for word in WORD.finditer(page, text.start(1), text.end(1)):
            pieces += [page[at : word.start()], made_up(len(marks)).encode()]
            marks.append((base + word.start(), base + word.end()))
            at = word.end()
        pieces.append(page[at:])
        base += len(page)
    return b"".join(pieces), marks


def _count(head: bytes, pages: bytes) -> tuple[Counted, list[np.ndarray]]:
    """The words of pages as a build counts them, and each article's stream."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/pages.xml"
        Path(path).write_bytes(head + pages + TAIL)
        site, size = read_site(path), os.path.getsize(path)
        texts = [batch["text"].drop_null() for batch in read_pages(path, 0, size)]
    counter = WordCounter()
    for plain in plain_text(pa.chunked_array(texts), site.namespaces):
        counter.add(spaced_segments(pa.array([plain.as_py()]), site.language))
    return counter.finish(), counter.streams


def _slots(
    own: tuple[Counted, list[np.ndarray]],
    marked: tuple[Counted, list[np.ndarray]],
    marks: list[tuple[int, int]],
) -> Slots:
    """The marks that stand, once, in articles which are otherwise as they were."""
    texts = marked[0].words["word"]
    numbers = pc.index_in(texts, pa.array([made_up(i) for i in range(len(marks))], texts.type))
    number = np.where(marked[0].words["count"].to_numpy() > 1, -1, numbers.fill_null(-1))
    found = []
    base = 0
    for before, after in zip(own[1], marked[1], strict=True):
        if len(before) == len(after) and np.array_equal(before < 0, after < 0):
            mark = np.where(after < 0, -1, number[after])
            found += [(int(mark[place]), base + int(place)) for place in np.flatnonzero(mark >= 0)]
        base += len(before)
    rows, places = np.array(sorted(found)).T
    starts, ends = np.array(marks)[rows].T
    return Slots(starts, ends, places)


# --- copies -----------------------------------------------------------------------------------


class Printer:
    """Writes copies of the pages as XML."""

    def __init__(self, pages: list[bytes], source: Source | None) -> None:
        """Takes the pages, and what may be exchanged in them."""
        self.joined = b"".join(pages)
        if source:
            self.slots = source.slots
            self.words = [word.encode() for word in source.words.to_pylist()]
        self.page_ends = np.cumsum([len(page) for page in pages])
        self.titles = np.array(
            [
                base + found.end()
                for page, base in zip(pages, [0, *self.page_ends[:-1].tolist()], strict=True)
                for found in TITLES.finditer(page, 0, page.index(b"<revision>"))
            ]
        )

    def streams(self, copy: int, exchange: Exchange | None) -> Iterator[bytes]:
        """A copy's pages in parts of STREAM_PAGES; copy 0 is the original."""
        title = f" ({copy})".encode() if copy else b""
        edits = [(at, at, title) for at in self.titles.tolist()]
        if exchange:
            starts, ends = self.slots.starts[exchange.rows], self.slots.ends[exchange.rows]
            words = map(self._word, exchange.words.tolist())
            edits += zip(starts.tolist(), ends.tolist(), words, strict=True)
            edits.sort()
        bounds = [0, *self.page_ends[STREAM_PAGES - 1 : -1 : STREAM_PAGES].tolist(), None]
        first = np.searchsorted([edit[0] for edit in edits], bounds[1:-1]).tolist()
        for part, (a, b) in enumerate(zip([0, *first], [*first, None], strict=True)):
            pieces, at = [], bounds[part]
            for start, end, text in edits[a:b]:
                pieces += [self.joined[at:start], text]
                at = end
            yield b"".join([*pieces, self.joined[at : bounds[part + 1]]])

    def _word(self, number: int) -> bytes:
        known = len(self.words)
        return self.words[number] if number < known else made_up(number - known).encode()


_printer: Printer | None = None


def _prepare(printer: Printer) -> None:
    global _printer
    _printer = printer


def _packed(copy: int, exchange: Exchange | None) -> tuple[int, list[bytes]]:
    """A copy's bytes of XML and its streams."""
    streams = list(_printer.streams(copy, exchange))
    return sum(map(len, streams)), [bz2.compress(stream) for stream in streams]


@contextlib.contextmanager
def _pool(processes: int, printer: Printer) -> Iterator[concurrent.futures.Executor]:
    """Processes that print; what they have not begun when it ends is left."""
    pool = concurrent.futures.ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), _prepare, (printer,)
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class _File:
    """A dump that is written stream by stream."""

    def __init__(self, path: Path, head: bytes) -> None:
        self.path, self.part = path, path.with_suffix(".part")
        self.file = self.part.open("wb")
        self.xml = 0
        self.add(len(head), [bz2.compress(head)])

    def add(self, xml: int, streams: list[bytes]) -> None:
        self.xml += xml
        self.file.writelines(streams)

    def close(self) -> dict[str, Any]:
        self.add(len(TAIL), [bz2.compress(TAIL)])
        packed = self.file.tell()
        self.file.close()
        self.part.rename(self.path)
        return {"name": self.path.name, "xml_bytes": self.xml, "bytes": packed}


def _copies(
    pool: concurrent.futures.Executor, growth: Growth | None, ahead: int
) -> Iterator[tuple[int, list[bytes], dict[str, int]]]:
    """Copy after copy, without end: bytes of XML, streams, and what all so far have."""
    waiting: deque[tuple[Any, dict[str, int]]] = deque()
    copy = 0
    while True:
        while len(waiting) < ahead:
            exchange = growth.next() if growth and copy else None
            copy += 1
            sofar = {"copies": copy}
            if growth:
                sofar |= {name: getattr(growth, name) for name in ("tokens", "words", "pairs")}
            waiting.append((pool.submit(_packed, copy - 1, exchange), sofar))
        future, sofar = waiting.popleft()
        yield *future.result(), sofar


def write_corpus(
    folder: Path, sizes: list[float], grow: bool, processes: int = 2
) -> dict[str, Any]:
    """Writes dumps that together, up to each of them, have so many bytes of XML, or finds them.

    Args:
        folder: where they go, with `corpus.json` that says what they are.
        sizes: bytes of XML, ascending: the first dump has sizes[0], the second what sizes[1] has
            more, and so on; each of whole copies.
        grow: whether words are exchanged by Heaps' law; else all copies but for titles are alike.
        processes: that pack.

    Returns: `fit` (the curves), `files`: of each its name, bytes packed and of XML, and, with those
        before it, `copies`, `tokens`, `words` (distinct, exact), `pairs` (distinct, estimated).
    """
    folder.mkdir(parents=True, exist_ok=True)
    archive = hashlib.sha256((SHARED / ARCHIVE).read_bytes()).hexdigest()
    program = hashlib.sha256(Path(__file__).read_bytes() + Path(query_growth.__file__).read_bytes())
    wanted = {"sizes": sizes, "grow": grow, "source": archive, "program": program.hexdigest()}
    note = folder / "corpus.json"
    if note.exists() and (found := json.loads(note.read_text()))["wanted"] == wanted:
        return found
    started = time.monotonic()
    head, pages = raw_pages(real_dump(folder))
    source = read_source(head, pages) if grow else None
    growth = source.grow() if source else None
    printer = Printer(pages, source)
    files = []
    with Screen() as screen, _pool(processes, printer) as pool:
        copies = _copies(pool, growth, processes + WAITING)
        total = 0
        for number, size in enumerate(sizes):
            file = _File(folder / f"made-{number}.xml.bz2", head)
            while total + file.xml < size:
                xml, streams, counts = next(copies)
                file.add(xml, streams)
                screen.now(f"{(total + file.xml) / 1e6:,.0f} MB of XML written")
            total += file.xml
            files.append(file.close() | counts)
    (folder / Path(DUMP).name).unlink()
    found = {"wanted": wanted, "seconds": time.monotonic() - started, "files": files}
    if growth:
        found["fit"] = {name: line._asdict() for name, line in growth.fit._asdict().items()}
    note.write_text(json.dumps(found, indent=1))
    return found
