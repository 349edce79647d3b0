"""Image links out of WAT records: Common Crawl's JSON of a page's metadata.

An image link stands at Envelope.Payload-Metadata.HTTP-Response-Metadata.HTML-Metadata.Links as
`{"path":"IMG@/src","url":...,"alt":...,"title":...}`. A page has ten other links for each of them,
so a record is not parsed but walked through (`pipeline.extract.walk`), and the strings of a whole
batch of records are cut out at once. `parse_links` is the definition of what is found, and what is
done with records that are not written as usual (tests/pipeline/test_extract_wat.py).
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.extract import rows, walk
from pipeline.extract.html import best_of_srcset
from pipeline.extract.strings import cut_out, replace_at, tidy_all
from pipeline.tally import Tally

PATH = "IMG@/src"
TEXTS = ("alt", "title", "data-image-title")

_WHERE = ("Envelope", "Payload-Metadata", "HTTP-Response-Metadata", "HTML-Metadata")
_TEXT_KEYS = np.array([walk.ALT, walk.TITLE, walk.IMAGE_TITLE])


class Link(NamedTuple):
    """An image link; None where it lacks a value or has one that is no string."""

    url: str | None
    alt: str | None
    title: str | None
    image_title: str | None
    srcset: str | None


class Records:
    """WAT records, until there are enough of them for a batch of their image links.

    Records that are not written as usual go to `unusual`, link by link.
    """

    def __init__(self, unusual: rows.Rows) -> None:
        self._unusual = unusual
        self._found = walk.Found()
        self._clear()

    def _clear(self) -> None:
        self._found.clear()
        self._first: list[int] = []  # row of each page in what was found
        self._page_urls: list[str] = []
        self._offsets: list[int] = []

    def __len__(self) -> int:
        return self._found.rows - len(self._first)

    @property
    def full(self) -> bool:
        """Whether it is time for `take`."""
        return len(self) >= 2 * rows.BATCH_ROWS or self._found.used >= rows.BATCH_BYTES

    def add(self, block: bytes | memoryview, page_url: str, offset: int, tally: Tally) -> None:
        """Takes a record, and counts its image links.

        Args:
            block: the record's JSON.
            page_url: its WARC-Target-URI.
            offset: of the record, for provenance.
            tally: counts pages, images and faults.
        """
        first = self._found.rows
        count = self._found.add(block)
        if count < 0:
            self._add_unusual(bytes(block), page_url, offset, tally)
        elif count > 0:
            images = self._found.images(first)
            tally.see("pages")
            tally.see("images", images)
            tally.add("no_text", images - (count - 1))
            self._first.append(first)
            self._page_urls.append(page_url)
            self._offsets.append(offset)

    def _add_unusual(self, block: bytes, page_url: str, offset: int, tally: Tally) -> None:
        try:
            found = parse_links(block)
        except ValueError:
            tally.fault(offset, "bad_json")
            return
        if found is None:
            return
        links, base_href = found
        tally.see("pages")
        tally.see("images", len(links))
        pairs: list[tuple[str, str, str]] = []
        for link in links:
            texts = rows.distinct_texts(zip(TEXTS, link[1:4], strict=True))
            raw = address(link.url or "", link.srcset)
            pairs += [(raw, text, attribute) for attribute, text in texts]
            tally.see("extra_texts", max(0, len(texts) - 1))
            tally.add("no_text", not texts)
        self._unusual.add_page(pairs, [False] * len(pairs), page_url, base_href, offset)

    def take(self, tally: Tally) -> pa.RecordBatch:
        """Returns the links with a text and a normal URL as LINKS, counts all, and starts anew."""
        data, places = self._found.values, self._found.places
        begin, end = places[:, 0:-1:2] + 1, places[:, 1:-1:2] - 1  # without quotation marks
        escapes = places[:, -1]

        def values(link: np.ndarray, key: np.ndarray) -> pa.Array:
            """Returns string [m]: the value of key[i] in link[i]; empty where it has none."""
            first, last = begin[link, key], np.maximum(begin[link, key], end[link, key])
            escaped = np.flatnonzero(escapes[link] >> key & 1)
            unescaped = [_unescape(data[first[i] - 1 : last[i] + 1]) for i in escaped]
            return replace_at(cut_out(data, first, last), escaped, unescaped)

        link, which = np.nonzero(end[:, _TEXT_KEYS] > begin[:, _TEXT_KEYS])
        texts = tidy_all(values(link, _TEXT_KEYS[which]))
        new = pc.greater(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False)
        for back in range(1, len(TEXTS)):
            same = pc.equal(texts[back:], texts[:-back]).to_numpy(zero_copy_only=False)
            new[back:] &= ~(same & (link[back:] == link[:-back]))
        link, which, texts = link[new], which[new], texts.filter(pa.array(new))
        with_text = int(np.count_nonzero(np.diff(link, prepend=-1)))
        tally.add("no_text", len(self) - with_text)
        tally.see("extra_texts", len(link) - with_text)
        raw = values(link, np.full(len(link), walk.URL))
        data_url = pc.match_substring_regex(raw, "^(?i:data:)").to_numpy(zero_copy_only=False)
        other = np.flatnonzero(data_url & (end > begin)[link, walk.SRCSET])
        srcsets = values(link[other], np.full(len(other), walk.SRCSET)).to_pylist()
        given = raw.take(pa.array(other)).to_pylist()
        raw = replace_at(raw, other, list(map(address, given, srcsets)))
        bases: list[str | None] = [None] * len(self._first)
        first = np.array(self._first, np.int64)
        with_base = np.flatnonzero(begin[first, walk.URL] > 0)
        hrefs = values(first[with_base], np.full(len(with_base), walk.URL)).to_pylist()
        for at, href in zip(with_base.tolist(), hrefs, strict=True):
            bases[at] = href
        attributes = pa.array(TEXTS, pa.string()).take(pa.array(which))
        page = np.searchsorted(self._first, link, side="right") - 1
        page_urls, offsets = self._page_urls, self._offsets
        self._clear()
        return rows.finish(raw, texts, attributes, page, page_urls, bases, offsets, None, tally)


def address(raw: str, srcset: str | None) -> str:
    """The largest picture of a srcset instead of a data: URL."""
    return best_of_srcset(srcset) or raw if srcset and raw[:5].lower() == "data:" else raw


def _unescape(string: np.ndarray) -> str:
    """The value of a JSON string, uint8 [m] with its quotation marks."""
    try:
        return orjson.loads(string.tobytes())
    except orjson.JSONDecodeError:
        pass
    try:
        text = string.tobytes().decode("utf-8", "replace")
        return _well_formed(json.loads(text, strict=False))
    except ValueError:
        return ""


def parse_links(block: bytes) -> tuple[list[Link], str | None] | None:
    """All image links of a record and its base, by a full parse; None if it is of no HTML page.

    Raises:
        ValueError: if it is not JSON, also with bytes that are not UTF-8 replaced.
    """
    try:
        value = orjson.loads(block)
    except orjson.JSONDecodeError:
        try:
            value = json.loads(block.decode("utf-8", "replace"), strict=False)
        except RecursionError as error:
            raise ValueError("nested too deep") from error
    for key in _WHERE:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, dict):
        return None
    head, links = value.get("Head"), value.get("Links")
    base = _text(head.get("Base")) if isinstance(head, dict) else None
    return [
        Link(*(_text(link.get(key.decode())) for key in walk.KEYS[1:]))
        for link in (links if isinstance(links, list) else [])
        if isinstance(link, dict) and link.get("path") == PATH
    ], base


def _text(value: Any) -> str | None:
    return _well_formed(value) if isinstance(value, str) else None


def _well_formed(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot hold, replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
