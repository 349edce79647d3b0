"""Files that come in several attempts, and are whole at the end.

A file grows under the name NAME.part; NAME.part.json says which version of it the bytes are of, so
that a later attempt, or a later run, goes on with them (Range, If-Range) only while the server has
that version (RFC 9110, 13.1.5 and 14).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict

import requests

from query_list.download.web import ABSENT, Cut, Version, Web, blocks, version_of, whole
from wit import storage
from wit.errors import StorageError, UserError

CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})")


def fetch(
    web: Web, url: str, part: str, size: int, pinned: bool, report: Callable[[int], None]
) -> Version:
    """Brings a .part file to its whole length, from wherever it stands.

    Args:
        web: asks.
        url: of the file.
        part: path of the .part file.
        size: bytes that are expected.
        pinned: whether a file of another size is wrong, because a list gives size and sum; it has
            changed since it was looked at else, and is taken as it is now.
        report: is told the .part file's bytes as they grow.

    Returns:
        The version that the bytes are of.

    Raises:
        UserError: what does not pass, in one line.
    """

    def attempt() -> Version:
        have, known = _standing(part)
        if known is None or known.validator is None or (pinned and known.size != size):
            have, known = 0, None
        headers = {}
        if known is not None and have:
            if have == known.size:
                return known
            headers = {"Range": f"bytes={have}-", "If-Range": known.validator or ""}
        with closing(web.ask("GET", url, headers)) as response:
            if response.status_code in ABSENT:
                raise UserError(f"{url}: no longer there; choose another date or --mirror")
            if known is None or response.status_code == 200:
                known, have = _begin(whole(response), part, size, pinned), 0
            elif not _continues(response, have, known):
                drop(part)
                raise Cut("the server answers with a part of the file that was not asked for")
            _append(web, response, part, have, known.size or 0, report)
        return known

    return web.steady(url, attempt, lambda: storage.size(part) or 0)


def drop(part: str) -> None:
    """Removes a .part file and what is known of it."""
    storage.remove(part)
    storage.remove(f"{part}.json")


def _standing(part: str) -> tuple[int, Version | None]:
    """Bytes of a .part file, and their version; None where that is not known."""
    with contextlib.suppress(FileNotFoundError, StorageError, TypeError):
        return storage.size(part) or 0, Version(**storage.read_json(f"{part}.json"))
    return 0, None


def _begin(response: requests.Response, part: str, size: int, pinned: bool) -> Version:
    """Empties a .part file for a whole answer."""
    version = version_of(response)
    if version.size is None:  # as mirrors do that pack their answers
        version = Version(size, version.etag, version.last_modified)
    if pinned and version.size != size:
        raise Cut(f"the server has {version.size:,} bytes, its list of files says {size:,}")
    drop(part)
    storage.write_json(f"{part}.json", asdict(version))
    return version


def _continues(response: requests.Response, have: int, known: Version) -> bool:
    """Whether an answer goes on where a .part file ends."""
    found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    right = found is not None and (int(found[1]), int(found[2])) == (have, known.size)
    return response.status_code == 206 and right


def _append(
    web: Web,
    response: requests.Response,
    part: str,
    have: int,
    size: int,
    report: Callable[[int], None],
) -> None:
    report(have)
    with storage.explained(part), open(storage.local_path(part), "ab") as file:
        for block in blocks(response):
            web.pace.rest(0)
            have += len(block)
            if have > size:
                break
            file.write(block)
            report(have)
    if have > size:
        drop(part)
        raise Cut(f"the server sends more than the {size:,} bytes that it has announced")
    if have < size:
        raise Cut(f"the connection ended {size - have:,} bytes before the end")
