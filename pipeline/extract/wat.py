"""Image links out of a WAT record: Common Crawl's JSON of a page's metadata.

An image link stands at Envelope.Payload-Metadata.HTTP-Response-Metadata.HTML-Metadata.Links as
`{"path":"IMG@/src","url":...,"alt":...,"title":...}`. A page has ten other links for each of them, so
the whole is not parsed: the bytes of the image links are found and cut out, and only they are.

Within JSON the bytes `IMG@/src"` followed by what belongs to a link can stand in no string, because a
quotation mark in a string is escaped; an object of strings begins at the last `{"` before and ends
at the first unescaped `"}` after. What is cut is parsed as JSON and must be as many objects as
there are places, each an image link. A record for which that does not hold, or that writes ASCII
with escapes, is parsed as a whole: `parse_links` is the definition, `find_links` gives the same
(tests/pipeline/test_extract_wat.py).
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from pipeline.extract import urls
from pipeline.extract.html import best_of_srcset
from pipeline.extract.rows import Rows, distinct_texts
from pipeline.tally import Tally

PATH = "IMG@/src"
TEXTS = ("alt", "title", "data-image-title")

_PLACE = b'IMG@/src"'
_USUAL = b'{"path":"'
_WHERE = ("Envelope", "Payload-Metadata", "HTTP-Response-Metadata", "HTML-Metadata")
Link = dict[str, Any]


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
        links, base_href = find_links(block) or parse_links(block)
    except ValueError:
        tally.fault(offset, "bad_json")
        return
    tally.see("pages")
    if not links:
        return
    tally.see("images", len(links))
    found: list[tuple[str, str, str]] = []
    without = extra = 0
    for link in links:
        alt, title, other = link.get("alt"), link.get("title"), link.get("data-image-title")
        if not alt and not title and not other:
            without += 1
            continue
        raw = link.get("url")
        if not isinstance(raw, str):
            raw = ""
        elif raw[:5].lower() == "data:" and isinstance(link.get("srcset"), str):
            raw = best_of_srcset(link["srcset"]) or raw
        if not title and not other and isinstance(alt, str) and not alt.isspace():
            found.append((raw, alt, "alt"))
            continue
        texts = distinct_texts([(name, link.get(name)) for name in TEXTS])
        found += [(raw, text, attribute) for attribute, text in texts]
        if texts:
            extra += len(texts) - 1
        else:
            without += 1
    rows.add_page(found, urls.make_base(page_url, base_href), page_url, offset)
    tally.add("no_text", without)
    tally.see("extra_texts", extra)


def parse_links(block: bytes) -> tuple[list[Link], str | None]:
    """The image links and the base (None where there is none) of any record, by a full parse.

    Raises:
        ValueError: if it is not JSON, also with bytes that are not UTF-8 replaced.
    """
    try:
        value = orjson.loads(block)
    except orjson.JSONDecodeError:
        try:
            value = _well_formed(json.loads(block.decode("utf-8", "replace"), strict=False))
        except RecursionError as error:
            raise ValueError("nested too deep") from error
    for key in _WHERE:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, dict):
        return [], None
    links, head = value.get("Links"), value.get("Head")
    base = head.get("Base") if isinstance(head, dict) else None
    found = links if isinstance(links, list) else []
    found = [link for link in found if isinstance(link, dict) and link.get("path") == PATH]
    return found, base if isinstance(base, str) else None


def _well_formed(value: Any) -> Any:
    """The JSON value with lone surrogates, which UTF-8 cannot hold, replaced."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_well_formed(item) for item in value]
    if isinstance(value, dict):
        return {_well_formed(key): _well_formed(item) for key, item in value.items()}
    return value


def find_links(block: bytes) -> tuple[list[Link], str | None] | None:
    """The image links and the base of a record written as usual; None where it is not."""
    if _has_escapes(block):
        return None
    place = block.find(_PLACE)
    if place < 0:
        return [], None
    end = start = block.find(b'"Links":[')
    head = block.find(b'"Head":{')
    if start < 0 or place < start or head > start:
        return None
    cut = []
    while place >= 0:
        begin = place - len(_USUAL)
        if block[begin:place] != _USUAL:
            begin = block.rfind(b'{"', end, place)
        end = _find_close(block, place + len(_PLACE) - 1)
        if begin < 0 or end < 0:
            return None
        cut.append(block[begin:end])
        place = block.find(_PLACE, end)
    base = block.find(b'"Base":"', head, start) if head >= 0 else -1
    if base >= 0:
        cut.append(b"{" + block[base : _find_close(block, base + 8, b'"')] + b"}")
    try:
        links = orjson.loads(b"[" + b",".join(cut) + b"]")
    except orjson.JSONDecodeError:
        return None
    if len(links) != len(cut):
        return None
    base_href = links.pop()["Base"] if base >= 0 else None
    if any(link.get("path") != PATH for link in links):
        return None
    return links, base_href


def _has_escapes(block: bytes) -> bool:
    """Whether ASCII may be written with escapes: `\u0040` for an at sign, `@\/` for `@/`."""
    at = block.find(b"\\")
    while at >= 0:
        if block[at + 1 : at + 4] == b"u00" or block[at - 1] == 64:
            return True
        at = block.find(b"\\", at + 2)
    return False


def _find_close(block: bytes, start: int, mark: bytes = b'"}') -> int:
    """The end of the first `mark` from `start` on whose quotation mark is not escaped; or -1."""
    at = block.find(mark, start)
    while at > 0 and block[at - 1] == 92:
        first = at - 1
        while block[first - 1] == 92:
            first -= 1
        if (at - first) % 2 == 0:
            break
        at = block.find(mark, at + 1)
    return at + len(mark) if at >= 0 else -1
