"""Pages of a CirrusSearch dump: JSON lines, in which MediaWiki has made plain text of each page.

Before each page stands a line for the search engine's bulk interface, `{"index": ...}`, which is
passed over. Redirects have no line: each article lists its own. A line belongs to the split in
whose unpacked bytes it begins; one that begins just behind a split, too (the next split cannot
know that its first byte begins a line).

Source: https://wikitech.wikimedia.org/wiki/Help:CirrusSearch_elasticsearch_replicas and the dumps
at https://dumps.wikimedia.org/other/cirrussearch (.gz) and .../cirrus_search_index (.bz2).
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import orjson
import pyarrow as pa

from query_list import bzip2
from query_list.pages import LARGEST, Counts, Gathered, Pages, Site, chunks, head
from query_list.pages import check_site as check_site
from query_list.pages import plan_splits as plan_splits
from wit.errors import UserError

ACTIONS = ("index", "create", "update")


def read_site(path: str) -> Site:
    """What the first page says about its wiki: name and language.

    Raises:
        UserError: if the file is absent, or its first lines are none of a CirrusSearch dump.
    """
    for line in head(path, b"\n", 3, LARGEST).split(b"\n")[:3]:
        page = _loaded(line)
        if page is not None and isinstance(page.get("wiki"), str) and "title" in page:
            return Site(page["wiki"], str(page.get("language", "")), "", "", "", {})
    raise UserError(
        f"{path}: is no CirrusSearch dump: none of its first three lines is a page in JSON"
    )


def read_pages(path: str, start: int, end: int) -> Pages:
    """The articles whose line begins in a split, each with its redirects behind it.

    In batches of about 8 MB; `text` is plain text. [start, end) are bytes of the file as stored,
    as `plan_splits` gives them; any other cuts give the same pages in the same order. Malformed
    lines are left out, and counted by reason; each redirect that is listed counts as a page.

    Raises:
        UserError: while it is read, if the file is cut or damaged.
    """
    return Pages(functools.partial(_batches, path, start, end))


def _batches(path: str, start: int, end: int, counts: Counts) -> Iterator[pa.RecordBatch]:
    gathered = Gathered()
    with contextlib.closing(chunks(path, start, end)) as pieces:
        for line, whole in _lines(pieces, start > 0, counts):
            page = _loaded(line)
            if page is None and not whole:
                raise UserError(f"{path}: ends inside a line: it is cut; {bzip2.GET_AGAIN}")
            for row in _rows(page, counts):
                yield from gathered.add(*row)
    yield from gathered.rest()


def _lines(
    pieces: Iterator[tuple[bytes, bool]], skipping: bool, counts: Counts
) -> Iterator[tuple[bytes, bool]]:
    """Yields the split's lines, each with whether a line end stands behind it.

    `skipping` says whether the open line is another split's, and later whether it is too long.
    """
    held = bytearray()  # from where the open line begins
    passed = 0  # unpacked bytes of the split before those held
    own = None  # unpacked bytes of the split
    for data, beyond in pieces:
        if not beyond:
            counts["bytes"] += len(data)
        elif own is None:
            own = passed + len(held)
        searched = len(held)
        held += data
        at = 0
        while (stop := held.find(b"\n", max(at, searched))) >= 0:
            if own is not None and passed + at > own:
                return
            if not skipping and stop - at > LARGEST:
                _count_large(counts)
            elif not skipping and stop > at:
                yield bytes(held[at:stop]), True
            skipping = False
            at = stop + 1
        if (
            not skipping
            and len(held) - at > LARGEST
            and not (own is not None and passed + at > own)
        ):
            _count_large(counts)
            skipping = True
        at = len(held) if skipping else at
        del held[:at]
        passed += at
        if own is not None and passed > own:
            return
    if held.strip():
        yield bytes(held), False


def _loaded(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line, None where it is none."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _rows(
    page: dict[str, Any] | None, counts: Counts
) -> Iterator[tuple[str, str | None, str | None]]:
    """Yields the rows (title, redirect, text) of a line and counts them."""
    if page is not None and "title" not in page and any(action in page for action in ACTIONS):
        return
    counts["pages"] += 1
    if page is None:
        counts["malformed: not JSON"] += 1
        return
    title, namespace, text = (page.get(name) for name in ("title", "namespace", "text"))
    if not isinstance(title, str) or not title:
        counts["malformed: no title"] += 1
    elif not isinstance(namespace, int):
        counts["malformed: no namespace"] += 1
    elif namespace != 0:
        counts["other_namespaces"] += 1
    elif page.get("content_model", "wikitext") != "wikitext":
        counts["other_models"] += 1
    elif not isinstance(text, str):
        counts["malformed: no text"] += 1
    else:
        counts["articles"] += 1
        counts["empty"] += not text
        yield title, None, text
        redirects = page.get("redirect")
        for redirect in redirects if isinstance(redirects, list) else ():
            yield from _redirect(redirect, title, counts)


def _redirect(redirect: Any, target: str, counts: Counts) -> Iterator[tuple[str, str, None]]:
    counts["pages"] += 1
    named = redirect if isinstance(redirect, dict) else {}
    title, namespace = named.get("title"), named.get("namespace")
    if not isinstance(title, str) or not title or not isinstance(namespace, int):
        counts["malformed: redirect without title or namespace"] += 1
    elif namespace != 0:
        counts["other_namespaces"] += 1
    else:
        counts["redirects"] += 1
        yield title, target, None


def _count_large(counts: Counts) -> None:
    counts["pages"] += 1
    counts["too_large"] += 1
