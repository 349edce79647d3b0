"""The files of page views and WordNet, and what every list of files has in common.

What a server says is believed only where it has the form that it must have: names of files are
made here or checked against a pattern, and a URL is never taken from a list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING, NamedTuple

from query_list.download.state import File
from query_list.inputs import VIEWS, WORDNET
from wit.errors import UserError

if TYPE_CHECKING:  # so that the options are there without a library for requests
    from query_list.download.web import Version, Web

DUMPS = "https://dumps.wikimedia.org"
PRINCETON = "https://wordnetcode.princeton.edu/3.0/WNdb-3.0.tar.gz"
WORDNET_VERSION = "3.0"
DAILY, HOURLY = "daily", "hourly"
VIEW_TREES = {DAILY: "other/pageview_complete", HOURLY: "other/pageviews"}
LATEST = "latest"
DAYS = 26  # of page views before the dump, as many as MetaCLIP's reconstruction summed

Asked = Callable[[str], None]  # is told what is being asked


class Place(NamedTuple):
    """A file as it must be, before any server was asked."""

    path: str
    url: str


def view_places(base: str, kind: str, first: date, last: date, every: int) -> Iterator[Place]:
    """Yields the files of page views of every `every`-th day from first to last."""
    for number in range(0, (last - first).days + 1, every):
        day = first + timedelta(number)
        folder, stem = f"{base}/{VIEW_TREES[kind]}/{day:%Y/%Y-%m}", f"pageviews-{day:%Y%m%d}"
        if kind == DAILY:
            name = f"{stem}-user.bz2"
            yield Place(f"views/{name}", f"{folder}/{name}")
            continue
        for hour in range(24):
            name = f"{stem}-{hour:02d}0000.gz"
            yield Place(f"views/{name}", f"{folder}/{name}")


def wordnet_place(url: str) -> Place:
    """Returns where the WordNet of a URL goes."""
    return Place(f"wordnet/{url.rpartition('/')[2]}", url)


def plan_views(
    web: Web, places: list[Place], done: Mapping[str, File], asked: Asked
) -> tuple[list[File], list[str]]:
    """Returns the files of page views and the URLs of those that the server does not have.

    `done` are by their path those that need not be asked for again.
    """
    files, missing = [], []
    for number, place in enumerate(places):
        asked(f"page views, file {number + 1:,} of {len(places):,}")
        version = None if place.path in done else web.head(place.url)
        if place.path in done:
            files.append(done[place.path])
        elif version is None:
            missing.append(place.url)
        else:
            files.append(file_of(place, VIEWS, version))
    if not files:
        raise UserError(
            f"{missing[0]}: no page views of this span are there ({len(missing)} files asked "
            "for); choose another with --from and --to"
        )
    return files, missing


def plan_wordnet(web: Web, url: str, asked: Asked) -> list[File]:
    """Returns WordNet's file."""
    asked("WordNet")
    place = wordnet_place(url)
    version = web.head(url)
    if version is None:
        raise UserError(
            f"{url}: not there; name another place of WordNet 3.0 with --wordnet URL, or bring "
            "WNdb-3.0.tar.gz into --out by hand and add --without wordnet"
        )
    return [file_of(place, WORDNET, version)]


def file_of(place: Place, kind: str, version: Version) -> File:
    """Returns a file as its server describes it; a UserError where that has no size."""
    if version.size is None:
        raise UserError(f"{place.url}: the server does not say how large it is; bring it by hand")
    return File(place.path, place.url, kind, version.size, version.last_modified)
