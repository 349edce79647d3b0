"""What the readers of dumps share: the table of pages, its counts, and a file's bytes in splits."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from query_list import bzip2
from wit import storage
from wit.errors import UserError

PAGES = pa.schema(
    [
        ("title", pa.string()),  # as a reader sees it: with spaces, without entities
        ("redirect", pa.string()),  # title of the page that this one leads to; null for articles
        ("text", pa.string()),  # of an article: wikitext, or plain text; null for redirects
    ]
)
BATCH = 8 * 2**20  # bytes of text in a batch
LARGEST = 64 * 2**20  # bytes of a page as stored; MediaWiki allows 2 MB of text
PIECE = 2**20  # bytes handed on at once of files that are not bzip2
HEAD = 2**20  # bytes in which a file must say what it is

BZIP2, GZIP = b"BZh", b"\x1f\x8b"
OTHER_PACKINGS = {b"7z\xbc\xaf": "7z", b"\xfd7zX": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK": "zip"}

Counts = Counter[str]
COUNTED = ["pages", "articles", "redirects", "other_namespaces", "other_models"]
COUNTED += ["too_large", "not_utf8", "empty", "bytes"]


class Site(NamedTuple):
    """What a dump says about its wiki; "" and {} where it is silent."""

    dbname: str  # enwiki
    language: str  # en
    main_page: str  # title
    case: str  # of a title's first letter: first-letter or case-sensitive
    generator: str  # MediaWiki 1.45.0-wmf.4
    namespaces: dict[int, str]  # number -> local name, "" for articles


class Pages:
    """Batches of `PAGES` in the order of the file, read while they are taken, once.

    Attributes:
        counts: what became of the pages so far; complete when the batches have ended. Each page is
            an article, a redirect, in another namespace, not in wikitext (other_models), over 64 MB
            (too_large), not_utf8, or malformed, with the reason: `malformed: no title`. Of the
            articles, `empty` have no text, as a deleted revision. `bytes` are those unpacked. A
            file's splits sum to the counts of the file.
    """

    def __init__(self, read: Callable[[Counts], Iterator[pa.RecordBatch]]) -> None:
        self.counts: Counts = Counter(dict.fromkeys(COUNTED, 0))
        self._batches = read(self.counts)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self._batches


class Gathered:
    """Rows of `PAGES` that become batches."""

    def __init__(self) -> None:
        self.rows: list[tuple[bytes | str, bytes | str | None, bytes | str | None]] = []
        self.size = 0

    def add(
        self, title: bytes | str, redirect: bytes | str | None, text: bytes | str | None
    ) -> Iterator[pa.RecordBatch]:
        """Takes a row (UTF-8 or str); yields a batch if enough have come."""
        self.rows.append((title, redirect, text))
        self.size += len(title) + len(redirect or "") + len(text or "")
        if self.size >= BATCH:
            yield from self.rest()

    def rest(self) -> Iterator[pa.RecordBatch]:
        """Yields the last batch, if any row is left."""
        if self.rows:
            columns = zip(*self.rows, strict=True)
            arrays = [pa.array(column, pa.string()) for column in columns]
            yield pa.RecordBatch.from_arrays(arrays, schema=PAGES)
        self.rows, self.size = [], 0


def check_site(path: str, site: Site, wiki: str) -> None:
    """Raises a UserError if the dump is of another wiki than `wiki` (enwiki, zh_yuewiki).

    One that does not name its wiki is judged by its language.
    """
    language = wiki.removesuffix("wiki").replace("_", "-")
    if site.dbname == wiki or (not site.dbname and site.language == language):
        return
    named = f"{site.dbname or 'an unnamed wiki'} (language: {site.language or 'unknown'})"
    remedy = f"--wiki {site.dbname}" if site.dbname else "the right --wiki"
    raise UserError(f"{path}: is a dump of {named}, not of {wiki}; give {remedy}, or another dump")


def plan_splits(path: str, split_bytes: int) -> list[tuple[int, int]]:
    """Byte ranges [start, end) of the file as stored, which together are the file.

    Each is of about `split_bytes`; a .gz is one. Raises a UserError if a bzip2 file is cut.
    """
    with opened(path) as file:
        size = file.seek(0, 2)
        packing = _packing(file, path)
        if packing == GZIP:
            return [(0, size)]
        if packing == BZIP2:
            bzip2.check_whole(file, path, size)
    count = max(1, -(-size // split_bytes))
    bounds = [size * i // count for i in range(count + 1)]
    return list(itertools.pairwise(bounds))


def chunks(path: str, start: int, end: int) -> Iterator[tuple[bytes, bool]]:
    """Yields the unpacked bytes of a split and what follows it, each with whether it follows.

    Chunk by chunk, in order, up to the file's end; the caller stops when it has enough. A chunk
    belongs to the split in which its first byte is stored; a .gz to the split that starts at 0.

    Raises:
        UserError: if the file is cut or damaged, naming the byte.
    """
    with opened(path) as file:
        packing = _packing(file, path)
        if packing == BZIP2:
            yield from bzip2.chunks(file, path, start, end)
        elif packing == GZIP:
            yield from _gzip(file, path) if start == 0 else ()
        else:
            yield from _plain(file, start, end)


def head(path: str, sought: bytes, times: int = 1, limit: int = HEAD) -> bytes:
    """The first unpacked bytes, until `sought` stands in them so many times; `limit` or all."""
    data = b""
    with contextlib.closing(chunks(path, 0, 1)) as pieces:
        for piece, _ in pieces:
            data += piece
            if len(data) >= limit or data.count(sought) >= times:
                break
    return data


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """The file, opened to read; a UserError where it is absent."""
    try:
        file = storage.open_read(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: there is no such file; check the path") from None
    with file:
        yield file


def _packing(file: BinaryIO, path: str) -> bytes:
    """How the file is packed: BZIP2, GZIP, or b"" for plain."""
    file.seek(0)
    magic = file.read(4)
    if not magic:
        raise UserError(f"{path}: is empty; {bzip2.GET_AGAIN}")
    for start, name in OTHER_PACKINGS.items():
        if magic.startswith(start):
            raise UserError(f"{path}: is packed with {name}; unpack it, or pack it with bzip2")
    return next((packing for packing in (BZIP2, GZIP) if magic.startswith(packing)), b"")


def _plain(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, bool]]:
    file.seek(start)
    at = start
    while data := file.read(min(PIECE, end - at) if at < end else PIECE):
        yield data, at >= end
        at += len(data)


def _gzip(file: BinaryIO, path: str) -> Iterator[tuple[bytes, bool]]:
    file.seek(0)
    with gzip.GzipFile(fileobj=file) as unpacked:
        while True:
            try:
                data = unpacked.read(PIECE)
            except EOFError as error:
                raise UserError(
                    f"{path}: byte {file.tell():,}: the file ends inside a gzip member: it is "
                    f"cut or damaged; {bzip2.GET_AGAIN}"
                ) from error
            except (gzip.BadGzipFile, zlib.error) as error:
                raise UserError(
                    f"{path}: byte {file.tell():,}: damaged gzip ({error}); {bzip2.GET_AGAIN}"
                ) from error
            if not data:
                return
            yield data, False
