"""Page views of a Wikipedia, from the files that Wikimedia publishes.

hourly: pageviews-YYYYMMDD-HH0000 and, until 2016, pagecounts-*: `code title views bytes` with the
codes `en`, `en.m` (mobile) and `en.zero`. daily (or monthly): pageview_complete's
pageviews-YYYYMMDD-user: `code title page_id access views hours` with the code `en.wikipedia`, a
line each for desktop, mobile-web and mobile-app, in old files without page_id; a title with quotes
stands in quotes, those inside with a backslash. The form is told by the first lines. Plain, gzip
and bzip2, told by their first bytes. Desktop and mobile are summed.

A title `-` is what Wikimedia writes where it could not tell the title.
"""

import bz2
import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from query_list.kernels_views import KEPT, LINES, OTHER, REASONS, UNTITLED
from query_list.titles import NOWHERE, TitleIndex
from wit import kernels_loader, storage
from wit.errors import UserError

BLOCK = 8 << 20  # bytes of lines read at a time
MOST_LINE = 1 << 20  # bytes; titles have at most 255, three times that percent-encoded
LOOKED_AT = 1000  # lines, from which a file's form is told, and before which none is refused
# Database names of Wikipedias: enwiki, simplewiki, zh_min_nanwiki; not commonswiki, wikidatawiki.
WIKIPEDIA = re.compile(r"((?:[a-z]{2,3}|simple)(?:_[a-z]+)*)wiki")
RENAMED = {"be-x-old": "be-tarask"}


@dataclass
class ViewCounts:
    """What became of the lines of a page-view file, each in one place."""

    lines: int = 0
    of_wiki: int = 0  # well formed, of the wiki, with a title
    views: int = 0  # on those
    found: int = 0  # of them, lines whose title leads to an article
    found_views: int = 0
    untitled: int = 0  # of the wiki, without a title
    other_wikis: int = 0
    malformed: dict[str, int] = field(default_factory=dict)  # lines by reason
    first_malformed: dict[str, list[int]] = field(default_factory=dict)  # numbers of the first 10


def wiki_codes(wiki: str) -> list[str]:
    """The codes that a Wikipedia has in page views, of its database's name: enwiki -> [en].

    A renamed Wikipedia has two. Any other project is a UserError.
    """
    found = WIKIPEDIA.fullmatch(wiki)
    if not found:
        raise UserError(
            f"{wiki}: not the database name of a Wikipedia (enwiki, dewiki, simplewiki, ...); page "
            "views are read for Wikipedias only: leave them out, or choose another dump"
        )
    code = found[1].replace("_", "-")
    return [code, RENAMED[code]] if code in RENAMED else [code]


def count_views(
    path: str, wiki: str, titles: TitleIndex, case: str = "first-letter"
) -> tuple[np.ndarray, np.ndarray, ViewCounts]:
    """(positions int32 [n] of articles in `titles`, ascending; views int64 [n]; counts).

    `wiki` is the database's name (enwiki), `case` what the dump's siteinfo says of titles: with
    first-letter a title is also looked for with a capital. Redirects count for their article.
    Malformed lines are counted; a file in which most lines are malformed, that is cut short, or in
    which nothing stands is a UserError. Needs 8 bytes a title and about 100 MB.
    """
    codes = wiki_codes(wiki)
    find = titles.find_first_letter if case == "first-letter" else titles.find
    total = np.zeros(len(titles.hashes), np.int64)
    counts = ViewCounts()
    for names, views in _lines_of(path, codes, counts):
        article = find(names)
        known = article != NOWHERE
        article, here = article[known], views[known]
        np.add.at(total, article, here)
        counts.of_wiki += len(views)
        counts.views += int(views.sum())
        counts.found += len(article)
        counts.found_views += int(here.sum())
    pages = np.flatnonzero(total)
    return pages.astype(np.int32), total[pages], counts


def _lines_of(
    path: str, codes: list[str], counts: ViewCounts
) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """(titles, views) of the wiki's lines in each block of a file; fills in `counts`."""
    kernel = kernels_loader.load("query_list.kernels_views")["parse_lines"]
    tally = np.zeros(3, np.int64)
    wrong = np.zeros(len(REASONS) * (1 + KEPT), np.int64)
    spaces = np.zeros(6, np.int64)
    daily, packed, ends = False, np.zeros(1, np.uint8), np.zeros(1, np.int64)
    for block in _blocks(path):
        if tally[LINES] == 0:
            daily = _is_daily(block)
            endings = (".wikipedia",) if daily else ("", ".m", ".zero")
            all_codes = [(code + ending).encode() for code in codes for ending in endings]
            packed = np.frombuffer(b"".join(all_codes), np.uint8)
            ends = np.cumsum([len(code) for code in all_codes])
        data = np.frombuffer(block, np.uint8)
        most = len(data) // 8 + 1  # a line of four fields has eight bytes, the last perhaps seven
        out, offsets = np.empty(len(data), np.uint8), np.zeros(most + 1, np.int64)
        views = np.empty(most, np.int64)
        rows = kernel(
            data, len(data), daily, packed, ends, len(ends), spaces, out, offsets, views, tally,
            wrong,
        )  # fmt: skip
        _take(counts, tally, wrong)
        if counts.lines >= LOOKED_AT:
            _refuse_malformed(path, counts)
        place = pa.py_buffer(offsets[: rows + 1].astype(np.int32))
        used = pa.py_buffer(out[: offsets[rows]])
        yield pa.Array.from_buffers(pa.string(), rows, [None, place, used]), views[:rows]
    if counts.lines == 0:
        raise UserError(f"{path}: nothing stands in it; download it again or leave it out")
    _refuse_malformed(path, counts)


def _take(counts: ViewCounts, tally: np.ndarray, wrong: np.ndarray) -> None:
    counts.lines, counts.other_wikis = int(tally[LINES]), int(tally[OTHER])
    counts.untitled = int(tally[UNTITLED])
    for reason, (number, *first) in zip(REASONS, wrong.reshape(-1, 1 + KEPT).tolist(), strict=True):
        if number:
            counts.malformed[reason] = number
            counts.first_malformed[reason] = first[:number]


def _refuse_malformed(path: str, counts: ViewCounts) -> None:
    number = sum(counts.malformed.values())
    if 2 * number <= counts.lines:
        return
    line, reason = min((first[0], name) for name, first in counts.first_malformed.items())
    raise UserError(
        f"{path}, line {line}: {reason}; {number:,} of {counts.lines:,} lines are malformed, not "
        "`code title views bytes`; download it again or leave it out"
    )


def _is_daily(block: bytes) -> bool:
    spaces = [line.count(b" ") for line in block.split(b"\n", LOOKED_AT)[:LOOKED_AT]]
    return sum(n in (4, 5) for n in spaces) > sum(n == 3 for n in spaces)


def _blocks(path: str) -> Iterator[bytes]:
    """Blocks of whole lines; the last may end without a line end."""
    rest = b""
    try:
        with storage.open_read(path) as file, _unpacked(file) as unpacked:
            while data := unpacked.read(BLOCK):
                cut = data.rfind(b"\n") + 1
                if cut:
                    yield rest + data[:cut]
                    rest = data[cut:]
                else:
                    rest += data
                if len(rest) > MOST_LINE:
                    raise UserError(
                        f"{path}: a line of more than {MOST_LINE:,} bytes: not a page-view file; "
                        "download it again or leave it out"
                    )
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; download it, or leave it out") from None
    except (EOFError, zlib.error, OSError) as error:
        raise UserError(
            f"{path}: cut short or damaged ({error}); download it again or leave it out"
        ) from error
    if rest:
        yield rest


def _unpacked(file: BinaryIO) -> BinaryIO:
    magic = file.read(3)
    file.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=file)
    return bz2.BZ2File(file) if magic == b"BZh" else file
