"""Image links out of a WAT record: Common Crawl's JSON of a page's metadata.

An image link stands at Envelope.Payload-Metadata.HTTP-Response-Metadata.HTML-Metadata.Links as
`{"path":"IMG@/src","url":...,"alt":...,"title":...}`. A page has ten other links for each of them, so
a record is not parsed but walked through (`pipeline.extract.walk`), and only what is needed of the
image links with a text is made a string. `parse_links` is the definition of what is found, and what
is done with records that are not written as usual; the walk gives the same
(tests/pipeline/test_extract_wat.py).
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from pipeline.extract import urls, walk
from pipeline.extract.html import best_of_srcset
from pipeline.extract.rows import Rows, distinct_texts
from pipeline.tally import Tally

PATH = "IMG@/src"
KEYS = ("url", "alt", "title", "data-image-title", "srcset")
TEXTS = KEYS[1:4]

_WHERE = ("Envelope", "Payload-Metadata", "HTTP-Response-Metadata", "HTML-Metadata")
Link = tuple[str | None, str | None, str | None, str | None, str | None]


def extract(block: bytes, page_url: str, offset: int, rows: Rows, tally: Tally) -> None:
    """Adds a record's image links to `rows`, and counts those without a text.

    Args:
        block: the record's JSON.
        page_url: its WARC-Target-URI.
        offset: of the record, for provenance.
        rows: takes the links.
        tally: counts pages, images, texts and faults.
    """
    try:
        links, base_href, without = find_links(block)
    except ValueError:
        tally.fault(offset, "bad_json")
        return
    tally.see("pages")
    images, extra = without + len(links), 0
    found: list[tuple[str, str, str]] = []
    for raw, alt, title, other, srcset in links:
        raw = raw or ""
        if srcset and raw[:5].lower() == "data:":
            raw = best_of_srcset(srcset) or raw
        if alt and not title and not other and not alt.isspace():
            found.append((raw, alt, "alt"))
            continue
        texts = distinct_texts(zip(TEXTS, (alt, title, other), strict=True))
        found += [(raw, text, attribute) for attribute, text in texts]
        if texts:
            extra += len(texts) - 1
        else:
            without += 1
    if found:
        rows.add_page(found, urls.make_base(page_url, base_href), page_url, offset)
    tally.see("images", images)
    tally.see("extra_texts", extra)
    tally.add("no_text", without)


def find_links(block: bytes) -> tuple[list[Link], str | None, int]:
    """The image links with any text, the page's base, and the number of image links without.

    Returns:
        links as (url, alt, title, data-image-title, srcset), None for what is not there (srcset:
        only where the url is a data: URL); the base as written, None where there is none.

    Raises:
        ValueError: if the record is not JSON.
    """
    places = walk.find_links(block)
    if places is None:
        links, base = parse_links(block)
        texted = [link for link in links if link[1] or link[2] or link[3]]
        return texted, base, len(links) - len(texted)
    links = []
    rows = places.tolist()
    for row in rows[1:]:
        _, _, url, url_end, alt, alt_end, title, title_end, other, other_end, _, _, escapes = row
        if alt == alt_end and title == title_end and other == other_end:
            continue
        if escapes:
            links.append(_values(block, row))
        else:
            raw = str(block[url:url_end], "utf-8", "replace") if url >= 0 else None
            links.append(
                (
                    raw,
                    str(block[alt:alt_end], "utf-8", "replace") if alt >= 0 else None,
                    str(block[title:title_end], "utf-8", "replace") if title >= 0 else None,
                    str(block[other:other_end], "utf-8", "replace") if other >= 0 else None,
                    _value(block, row, walk.SRCSET) if raw and raw[:5] == "data:" else None,
                )
            )
    return links, _value(block, rows[0], walk.URL), len(rows) - 1 - len(links)


def _values(block: bytes, row: list[int]) -> Link:
    return tuple(_value(block, row, key) for key in range(walk.URL, walk.SRCSET + 1))


def _value(block: bytes, row: list[int], key: int) -> str | None:
    """The string at the place that `walk.find_links` noted for a key."""
    begin, end = row[2 * key], row[2 * key + 1]
    if begin < 0:
        return None
    if not row[-1] >> key & 1:
        return str(block[begin:end], "utf-8", "replace")
    return _well_formed(json.loads(str(block[begin - 1 : end + 1], "utf-8", "replace"), strict=False))


def parse_links(block: bytes) -> tuple[list[Link], str | None]:
    """All image links of a record and its base, by a full parse.

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
        return [], None
    head, links = value.get("Head"), value.get("Links")
    base = _text(head.get("Base")) if isinstance(head, dict) else None
    return [
        tuple(_text(link.get(key)) for key in KEYS)
        for link in (links if isinstance(links, list) else [])
        if isinstance(link, dict) and link.get("path") == PATH
    ], base


def _text(value: Any) -> str | None:
    return _well_formed(value) if isinstance(value, str) else None


def _well_formed(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot hold, replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
