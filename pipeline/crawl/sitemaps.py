"""Sitemaps (sitemaps.org, protocol 0.9): where a host has them, and which URLs they list.

XML, gzip-packed or not, or a text file with a URL a line. Hostile ones cost little: a document type
(so any entity) ends the reading, and bytes and URLs are bounded. What was read before a fault
counts.
"""

from __future__ import annotations

import re
import zlib
from xml.parsers import expat

from pipeline.crawl.scope import normal_url

MOST_BYTES = 50 * 2**20  # unpacked, as the protocol says
MOST_URLS = 50_000  # likewise
LONGEST_URL = 8190
STEP = 64 * 1024  # packed bytes unpacked at once

_LINE = re.compile(r"\s*sitemap\s*:\s*(\S+)", re.IGNORECASE)


class _Stop(Exception):
    """Ends the reading of a sitemap."""


def named_in(rules: str | None) -> list[str]:
    """The URLs of a robots.txt's Sitemap lines, in order, each once."""
    lines = map(_LINE.match, (rules or "").removeprefix("\ufeff").splitlines())
    urls = (normal_url(line[1]) for line in lines if line)
    return list(dict.fromkeys(url for url in urls if url))


def read_sitemap(body: bytes) -> tuple[list[str], list[str], str | None]:
    """What a sitemap lists.

    Returns:
        the pages' normal URLs and those of further sitemaps, in order, each once; and what is wrong
        with it: `no_sitemap`, `bad_xml`, `document_type`, `too_large`, `bad_packing` or None.
    """
    body, fault = _unpack(body) if body.startswith(b"\x1f\x8b") else (body, None)
    if len(body) > MOST_BYTES:
        body, fault = body[:MOST_BYTES], "too_large"
    start = body[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"http"):
        pages, sitemaps = body.decode("utf-8", "replace").splitlines(), []
    elif start.startswith(b"<") or body.startswith((b"\xff\xfe", b"\xfe\xff")):
        pages, sitemaps, wrong = _read_xml(body)
        fault = fault or wrong
    else:
        return [], [], fault or "no_sitemap"
    if len(pages) > MOST_URLS or len(sitemaps) > MOST_URLS:
        fault = fault or "too_large"
    return _normal(pages), _normal(sitemaps), fault


def _normal(texts: list[str]) -> list[str]:
    short = (text for text in texts[:MOST_URLS] if len(text) <= LONGEST_URL)
    return list(dict.fromkeys(url for text in short if (url := normal_url(text))))


def _unpack(body: bytes) -> tuple[bytes, str | None]:
    parts, size = [], 0
    unpacker = zlib.decompressobj(31)
    for start in range(0, len(body), STEP):
        try:
            part = unpacker.decompress(body[start : start + STEP], MOST_BYTES + 1 - size)
        except zlib.error:
            return b"".join(parts), "bad_packing"
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES or unpacker.eof:
            return b"".join(parts), None
    return b"".join(parts), "bad_packing"


def _read_xml(body: bytes) -> tuple[list[str], list[str], str | None]:
    pages: list[str] = []
    sitemaps: list[str] = []
    kinds: dict[str, list[str]] = {"url": pages, "sitemap": sitemaps}
    path: list[str] = []
    text: list[str] = []

    def stop(*_: object) -> None:
        raise _Stop("document_type")

    def begin(name: str, _: object) -> None:
        path.append(name.rpartition(":")[2])
        text.clear()
        if len(path) > 16:
            raise _Stop("bad_xml")

    def end(_: str) -> None:
        if path[-1] == "loc" and len(path) == 3 and path[1] in kinds:
            kinds[path[1]].append("".join(text).strip())
            if len(kinds[path[1]]) > MOST_URLS:
                raise _Stop("too_large")
        path.pop()
        text.clear()

    def read_text(data: str) -> None:
        if path and path[-1] == "loc" and sum(map(len, text)) <= LONGEST_URL:
            text.append(data)

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = stop
    parser.StartElementHandler = begin
    parser.EndElementHandler = end
    parser.CharacterDataHandler = read_text
    try:
        parser.Parse(body, True)
    except _Stop as stopped:
        return pages, sitemaps, str(stopped)
    except expat.ExpatError:
        return pages, sitemaps, "bad_xml"
    return pages, sitemaps, None
