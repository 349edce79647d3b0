"""Image links out of WARC, WAT and ARC files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from pipeline.extract import encoding, html, http, wat
from pipeline.extract.rows import Rows
from pipeline.sources.members import Progress
from pipeline.sources.records import Record, read_records
from pipeline.tally import Tally

PAGES = frozenset(["text/html", "application/xhtml+xml", "application/vnd.wap.xhtml+xml"])
_WITH_LINKS = frozenset(["response", "resource", "arc"])


def read_crawl(
    file: BinaryIO, name: str, tally: Tally, progress: Progress
) -> Iterator[pa.RecordBatch]:
    """Yields the image links of a file's pages as LINKS.

    Raises:
        UserError: if it has no records.
    """
    pages = Rows()
    records = wat.Records(pages)
    for record in read_records(file, name, tally, progress, _is_wanted):
        if record.kind == "metadata":
            records.add(record.block, record.url, record.offset, tally)
            if records.full:
                yield records.take(tally)
        else:
            _extract_page(record, pages, tally)
        if pages.full:
            yield pages.take(tally)
    if len(records):
        yield records.take(tally)
    if len(pages):
        yield pages.take(tally)


def _is_wanted(kind: str, content_type: str) -> bool:
    if kind == "metadata":
        return content_type == "application/json"
    return kind in _WITH_LINKS


def _extract_page(record: Record, rows: Rows, tally: Tally) -> None:
    """Adds the links of a response, or of a resource, if it is an HTML page."""
    content_type, body = record.content_type, bytes(record.block)
    if record.kind == "response" or record.kind == "arc":
        response = http.split_response(body)
        if response is None:
            if record.url.startswith("http"):
                tally.fault(record.offset, "bad_http")
            return
        fields, body = response
        content_type = fields.get("content-type", "")
        if not is_page(content_type, body):
            return
        try:
            body, faults = http.decode_body(fields, body, http.LARGEST_PAGE)
        except http.TooLarge:
            tally.fault(record.offset, "page_too_large")
            return
        for fault in faults:
            tally.fault(record.offset, fault)
    elif not is_page(content_type, body):
        return
    page = encoding.to_utf8(body, content_type)
    html.extract(page, record.url, record.offset, rows, tally)


def is_page(content_type: str, body: bytes) -> bool:
    """Whether a body is HTML: by its type, or without one by how it starts."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind:
        return kind in PAGES
    start = body[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head", b"<body"))
