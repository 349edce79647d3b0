"""Extraction of image links beside cc2dataset's and an HTML parser: `python -m benchmarks.extract`.

Real pages from ../shared/data, as WAT and as WARC. One core, one run; the contestants take turns,
and medians of the processor's time are printed, as JSON.

cc2dataset (https://github.com/rom1504/cc2dataset) is restated: `extract_documents_from_wat(stream,
"image")` with the same libraries (fastwarc, simdjson, urllib's urljoin, MD5), the same conditions
and the same results. Both start at the packed file. Ours also gives titles, counts the images
without a text, and hands out Arrow batches.

What differs in the links found, one by one (`compare` counts them; an image link has an alt that is
not ""):

- `same`: the same URL (ours in the standard's normal form) and the same text (ours with white space
  collapsed).
- `blank`: an alt of white space only is a text to cc2dataset and none to us.
- `page`: an address that is empty or a fragment is the page's own URL to cc2dataset, no image to
  us.
- `no URL`: the URL Standard says failure (`https://:0`, a host that ends in a number but is no IPv4
  address); cc2dataset keeps it as text.
- `otherwise`: both have a URL, but urljoin (RFC 3986) resolves the address otherwise than browsers
  do; on these pages it drops an empty path segment.
- `srcset`: a data: URL; cc2dataset drops it, we take the largest picture of its srcset.
- `neither`: a data: URL without srcset, another scheme.

Besides, cc2dataset finds no link in a record whose JSON has a wrong byte, and none in a whole file
once a record has a link without url; we go on (`tests/pipeline/test_extract_wat.py`).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import simdjson
from fastwarc.warc import ArchiveIterator, WarcRecordType

from benchmarks.common import SHARED, one_core, take_turns
from pipeline.extract import encoding, html, http, urls, wat
from pipeline.extract.strings import tidy
from pipeline.sources.crawl import read_crawl
from pipeline.sources.records import read_records
from pipeline.tally import Tally

Link = dict[str, str]
WEB = ("http://", "https://")


# --- cc2dataset's algorithm -------------------------------------------------------------------


def read_as_cc2dataset(stream: io.BytesIO) -> list[Link]:
    """Image links with an alt: url, alt, uid, cc_filename, page_url."""
    found = []
    for record in ArchiveIterator(stream, record_types=WarcRecordType.metadata, parse_http=False):
        try:
            value = simdjson.load(record.reader)
        except ValueError:
            continue
        envelope = value["Envelope"]
        response = envelope["Payload-Metadata"].get("HTTP-Response-Metadata", {})
        page = response.get("HTML-Metadata", {})
        if "Links" not in page:
            continue
        crawl_file = value["Container"]["Filename"]
        page_url = envelope["WARC-Header-Metadata"]["WARC-Target-URI"]
        base = base_as_cc2dataset(page_url, page.get("Head", {}).get("Base"))
        links = [
            {"url": link["url"], "alt": link["alt"]}
            for link in page["Links"]
            if link.get("path", "") == "IMG@/src" and len(link.get("alt", "")) > 0
        ]
        links = [{"url": absolute(link["url"], base), "alt": link["alt"]} for link in links]
        links = [link for link in links if link["url"].startswith(WEB)]
        for link in links:
            link["uid"] = hashlib.md5((link["alt"] + link["url"]).encode()).hexdigest()
            link["cc_filename"] = crawl_file
            link["page_url"] = page_url
        found += links
    return found


def base_as_cc2dataset(page_url: str, base: str | None) -> str:
    """The page's URL, joined with its base."""
    try:
        return page_url if base is None else urljoin(page_url, base)
    except ValueError:
        return page_url


def absolute(url: str, base: str) -> str:
    """The URL by RFC 3986; as it is where that fails."""
    if url.startswith(WEB):
        return url
    try:
        return urljoin(base, url)
    except ValueError:
        return url


# --- ours -------------------------------------------------------------------------------------


def read_ours(stream: io.BytesIO) -> Tally:
    """Reads a crawl file to its end; the counts."""
    tally = Tally()
    for _ in read_crawl(stream, "file", tally, lambda done: None):
        pass
    return tally


def compare(data: bytes) -> dict[str, int]:
    """Counts how the links with an alt differ in a WAT file; asserts that both find these."""
    kinds: Counter[str] = Counter()
    for record in read_records(io.BytesIO(data), "file", Tally()):
        parsed = wat.parse_links(bytes(record.block)) if record.kind == "metadata" else None
        if parsed is None:
            continue
        links, base_href = parsed
        (base,) = urls.make_bases([record.url], [base_href])
        their_base = base_as_cc2dataset(record.url, base_href)
        for link in links:
            if not link.alt:
                continue
            their_url: str | None = absolute(link.url or "", their_base)
            their_url = their_url if their_url.startswith(WEB) else None
            url, outcome = urls.resolve(wat.address(link.url or "", link.srcset), base)
            kinds[kind_of(link, their_url, url if tidy(link.alt) else None, outcome)] += 1
    theirs = len(read_as_cc2dataset(io.BytesIO(data)))
    batches = list(read_crawl(io.BytesIO(data), "file", Tally(), lambda done: None))
    ours = sum(b["attribute"].to_pylist().count("alt") for b in batches)
    both = kinds["same"] + kinds["otherwise"]
    assert theirs == both + kinds["blank"] + kinds["page"] + kinds["no URL"], (theirs, kinds)
    assert ours == both + kinds["srcset"], (ours, kinds)
    return dict(sorted(kinds.items()))


def kind_of(link: wat.Link, theirs: str | None, ours: str | None, outcome: int) -> str:
    """Which of the differences in this module's docstring a link is."""
    if theirs is None:
        return "neither" if ours is None else "srcset"
    if ours is None:
        if not tidy(link.alt or ""):
            return "blank"
        return "page" if outcome == urls.NO_URL else "no URL"
    return "same" if urls.resolve(theirs, urls.Base())[0] == ours else "otherwise"


# --- measuring --------------------------------------------------------------------------------


def read_pages(data: bytes) -> Iterator[bytes]:
    """The pages of a WARC file in UTF-8."""
    for record in read_records(io.BytesIO(data), "file", Tally()):
        response = http.split_response(bytes(record.block))
        if response:
            fields, body = response
            body, _ = http.decode_body(fields, body, http.LARGEST_PAGE)
            yield encoding.to_utf8(body, fields.get("content-type", ""))


def measure_wat(path: Path, rounds: int) -> dict[str, Any]:
    """Ours and cc2dataset's on a WAT file."""
    data = path.read_bytes()
    unpacked = sum(len(r.block) for r in read_records(io.BytesIO(data), "file", Tally()))
    seconds = take_turns(
        {
            "ours": lambda: read_ours(io.BytesIO(data)),
            "cc2dataset": lambda: read_as_cc2dataset(io.BytesIO(data)),
            "records only": lambda: sum(1 for _ in read_records(io.BytesIO(data), "file", Tally())),
        },
        rounds,
    )
    return {
        "MB unpacked": unpacked / 1e6,
        "images": read_ours(io.BytesIO(data)).seen["images"],
        "seconds": seconds,
        "times as fast": seconds["cc2dataset"] / seconds["ours"],
        "links": compare(data),
    }


def measure_html(path: Path, rounds: int) -> dict[str, Any]:
    """Ours on a WARC file, and the search for images beside lexbor's parser (selectolax)."""
    from selectolax.lexbor import LexborHTMLParser

    data = path.read_bytes()
    pages = list(read_pages(data))
    seconds = take_turns(
        {
            "file to links": lambda: read_ours(io.BytesIO(data)),
            "images of pages": lambda: [html.find_images(page) for page in pages],
            "lexbor": lambda: [
                [node.attributes for node in LexborHTMLParser(page).css("img, amp-img")]
                for page in pages
            ],
        },
        rounds,
    )
    return {
        "pages": len(pages),
        "MB of HTML": sum(map(len, pages)) / 1e6,
        "seconds": seconds,
        "pages/s": {name: len(pages) / value for name, value in seconds.items()},
    }


def rows(of_wat: dict[str, Any], of_html: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The README's rows: what, measured, beside it, times."""
    seconds, size = of_wat["seconds"], of_wat["MB unpacked"]
    speed = of_html["pages/s"]
    return [
        (
            f"image links out of WAT ({of_wat['images']:,} images), one core",
            f"{size / seconds['ours']:,.0f} MB/s unpacked",
            f"cc2dataset's algorithm: {size / seconds['cc2dataset']:,.0f} MB/s",
            f"{of_wat['times as fast']:.1f}",
        ),
        (
            f"images out of HTML ({of_html['pages']:,} pages), one core",
            f"{speed['images of pages']:,.0f} pages/s",
            f"lexbor's parser (selectolax): {speed['lexbor']:,.0f} pages/s",
            f"{speed['images of pages'] / speed['lexbor']:.1f}",
        ),
        (
            "the same from the packed WARC file to links",
            f"{speed['file to links']:,.0f} pages/s",
            "",
            "",
        ),
    ]


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    one_core()
    folder = SHARED / "warc"
    of_wat = measure_wat(folder / "real_pages.warc.wat.gz", options.rounds)
    of_html = measure_html(folder / "real_pages.warc.gz", max(1, options.rounds // 2))
    result = {"wat": of_wat, "html": of_html, "rows": rows(of_wat, of_html)}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
