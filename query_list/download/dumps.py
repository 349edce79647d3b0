"""The files of a dump: which there are, whether they are finished, and their sums.

XML dumps: `dumpstatus.json` beside them names their files, with sizes and sums. A large wiki's are
published in parts, and in one file that is made of these afterwards. CirrusSearch dumps: parts in
a folder, to which `_SUCCESS` is written last; before 2026 one file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from query_list.download.plan import Asked, Place, file_of
from query_list.download.state import File, day_of
from query_list.download.web import MOST_FILE, Web
from query_list.inputs import CIRRUS, XML
from wit.errors import UserError

JOBS = ("articlesmultistreamdumprecombine", "articlesmultistreamdump")  # one file, or parts
CIRRUS_TREE = "other/cirrus_search_index"
MOST_ASKED = 6  # dates whose state is asked for
HREF = re.compile(r'href="(?:[^"<>]*/)?([0-9]{8})/?"')
SHA1 = re.compile(r"[0-9a-f]{40}")
PART = r"[0-9]{1,4}\.xml(?:-p[0-9]{1,12}p[0-9]{1,12})?\.bz2"  # its number and its pages


@dataclass(frozen=True)
class Shelf:
    """Where the dumps of a wiki are.

    Attributes:
        web: asks.
        base: URL of the tree of dumps.wikimedia.org.
        wiki: a database name.
        form: XML or CIRRUS.
        asked: is told what is being asked.
    """

    web: Web
    base: str
    wiki: str
    form: str
    asked: Asked

    @property
    def index(self) -> str:
        """URL of the page that lists the dates."""
        return f"{self.base}/{self.wiki}/" if self.form == XML else f"{self.base}/{CIRRUS_TREE}/"

    def folder(self, day: str) -> str:
        """URL of the folder of a date."""
        return _folder(self.base, self.wiki, self.form, day)


def expected_place(base: str, wiki: str, form: str, day: str) -> Place:
    """Returns the file that a dump is, or the pattern of its parts, before a server was asked."""
    name = _whole_name(wiki, day) if form == XML else "*.json.bz2"
    return Place(f"dump/{name}", _folder(base, wiki, form, day) + name)


def _folder(base: str, wiki: str, form: str, day: str) -> str:
    if form == XML:
        return f"{base}/{wiki}/{day}/"
    return f"{base}/{CIRRUS_TREE}/{day}/index_name={wiki}_content/"


def _whole_name(wiki: str, day: str) -> str:
    return f"{wiki}-{day}-pages-articles-multistream.xml.bz2"


def find_date(shelf: Shelf) -> str:
    """Returns the newest date of which a dump is finished."""
    for day in sorted(_dates(shelf), reverse=True)[:MOST_ASKED]:
        if _state(shelf, day) is None:
            return day
    raise UserError(f"{shelf.index}: none of the newest dumps is finished; name an older --date")


def plan_dump(shelf: Shelf, day: str, known: set[str]) -> list[File]:
    """Returns the files of a dump: the one, or all parts where it is published in parts.

    Args:
        shelf: where it is.
        day: YYYYMMDD.
        known: paths of an earlier plan: where there are parts and one file, it is kept to.

    Raises:
        UserError: where there is none of this date or it is not finished, with the nearest dates
            of which it is.
    """
    state = _state(shelf, day)
    if state is not None:
        raise UserError(f"{shelf.wiki} {day}: {state}; {_near(shelf, day)}")
    return _xml_files(shelf, day, known) if shelf.form == XML else _cirrus_files(shelf, day)


# --- dates ------------------------------------------------------------------------------------


def _dates(shelf: Shelf) -> set[str]:
    """The dates that a folder's page lists."""
    page = shelf.web.text(shelf.index)
    if page is None:
        raise UserError(f"{shelf.index}: not there; is {shelf.wiki!r} a Wikipedia's database name?")
    return {day for day in HREF.findall(page) if _is_day(day)}


def _is_day(text: str) -> bool:
    try:
        return bool(day_of(text))
    except ValueError:
        return False


def _near(shelf: Shelf, day: str) -> str:
    """The nearest dates that are finished, for a person."""

    def distance(other: str) -> tuple[int, str]:
        return abs((day_of(other) - day_of(day)).days), other

    others = sorted(_dates(shelf) - {day}, key=distance)[:MOST_ASKED]
    near = sorted(other for other in others if _state(shelf, other) is None)
    return f"finished near it: {', '.join(near)}" if near else f"see {shelf.index} for others"


def _state(shelf: Shelf, day: str) -> str | None:
    """Why a dump cannot be taken; None where it is finished."""
    shelf.asked(f"{shelf.wiki} {day}")
    return _xml_state(shelf, day) if shelf.form == XML else _cirrus_state(shelf, day)


# --- XML --------------------------------------------------------------------------------------


def _xml_state(shelf: Shelf, day: str) -> str | None:
    jobs = _jobs(shelf, day)
    if jobs is None:
        return f"there is no such dump at {shelf.folder(day)}"
    states = [str(jobs[name].get("status"))[:40] for name in JOBS if name in jobs]
    if "done" in states:
        return None
    said = f"its state is {states[-1]!r}" if states else "it has no multistream file"
    return f"the dump is not finished ({said} in {shelf.folder(day)}dumpstatus.json)"


def _jobs(shelf: Shelf, day: str) -> dict[str, dict[str, Any]] | None:
    """The jobs of a dump by name; None where there is no such dump."""
    url = f"{shelf.folder(day)}dumpstatus.json"
    text = shelf.web.text(url)
    if text is None:
        return None
    try:
        jobs = json.loads(text)["jobs"]
        return {str(name): job for name, job in jobs.items() if isinstance(job, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{url}: not a list of a dump's jobs; is it the right --mirror?") from error


def _xml_files(shelf: Shelf, day: str, known: set[str]) -> list[File]:
    whole = _whole_name(shelf.wiki, day)
    choices = [listed for listed in _listed(shelf, day, whole) if listed]
    if not choices:
        raise UserError(f"{shelf.folder(day)}dumpstatus.json: no {whole} in it; choose a --date")
    same = [listed for listed in choices if known == {f"dump/{name}" for name in listed}]
    chosen = (same or choices)[0]
    sums = _Sums(shelf, day)
    return [_xml_file(shelf, day, name, chosen[name], sums) for name in sorted(chosen, key=_order)]


def _listed(shelf: Shelf, day: str, whole: str) -> Iterator[dict[str, Any]]:
    """What is said of the files of each finished job: of the one file, or of the parts."""
    part = re.compile(re.escape(whole.removesuffix(".xml.bz2")) + PART)
    jobs = _jobs(shelf, day) or {}
    for job in (jobs[name] for name in JOBS if name in jobs):
        files = job.get("files")
        if job.get("status") != "done" or not isinstance(files, dict):
            continue
        files = {name: said for name, said in files.items() if ".xml" in name}
        for name in files:
            if name != whole and not part.fullmatch(name):
                raise UserError(
                    f"{shelf.folder(day)}dumpstatus.json: {name[:200]!r} is no name that a file of "
                    "this dump can have; nothing is taken from there"
                )
        yield {whole: files[whole]} if whole in files else files


def _order(name: str) -> list[int]:
    """The numbers in a part's name."""
    return [int(number) for number in re.findall(r"[0-9]+", name)]


class _Sums:
    """SHA-1 sums of a dump's files, from sha1sums.txt where dumpstatus.json has none."""

    def __init__(self, shelf: Shelf, day: str) -> None:
        self.url = f"{shelf.folder(day)}{shelf.wiki}-{day}-sha1sums.txt"
        self.web = shelf.web
        self._read: dict[str, str] | None = None

    def of(self, name: str, said: Mapping[str, Any]) -> str | None:
        sha1 = said.get("sha1")
        if not isinstance(sha1, str):
            if self._read is None:
                pairs = [line.split() for line in (self.web.text(self.url) or "").splitlines()]
                self._read = {pair[1]: pair[0] for pair in pairs if len(pair) == 2}
            sha1 = self._read.get(name, "")
        return sha1 if SHA1.fullmatch(sha1) else None


def _xml_file(shelf: Shelf, day: str, name: str, said: Any, sums: _Sums) -> File:
    """A file that the server must have as the list says."""
    url = shelf.folder(day) + name
    size = said.get("size") if isinstance(said, dict) else None
    if type(size) is not int or not 0 < size <= MOST_FILE:
        raise UserError(f"{shelf.folder(day)}dumpstatus.json: says no size of {name}")
    shelf.asked(name)
    version = shelf.web.head(url)
    if version is None:
        raise UserError(f"{url}: dumpstatus.json names it, but it is not there; try a --mirror")
    if version.size not in (None, size):
        raise UserError(
            f"{url}: has {version.size:,} bytes, but dumpstatus.json says {size:,}: it may be "
            "changing; try again later, or another --date or --mirror"
        )
    return File(f"dump/{name}", url, XML, size, version.last_modified, sums.of(name, said))


# --- CirrusSearch -----------------------------------------------------------------------------


def _cirrus_state(shelf: Shelf, day: str) -> str | None:
    folder = shelf.folder(day)
    if shelf.web.head(f"{folder}_SUCCESS") is not None:
        return None
    if shelf.web.text(folder) is not None:
        return f"the dump is not finished ({folder} has no _SUCCESS)"
    if shelf.web.head(_old_place(shelf, day).url) is not None:
        return None
    return f"there is no such dump at {folder}"


def _cirrus_files(shelf: Shelf, day: str) -> list[File]:
    files = []
    for place in list(_cirrus_parts(shelf, day)) or [_old_place(shelf, day)]:
        shelf.asked(place.path)
        version = shelf.web.head(place.url)
        if version is None:
            raise UserError(f"{place.url}: not there; choose another --date or --mirror")
        files.append(file_of(place, CIRRUS, version))
    return files


def _cirrus_parts(shelf: Shelf, day: str) -> Iterator[Place]:
    """The parts that a folder's page lists, which are numbered without a gap."""
    stem, folder = f"{shelf.wiki}_content-{day}", shelf.folder(day)
    pattern = rf"(?<![\w-]){re.escape(stem)}-([0-9]{{5}})\.json\.bz2"
    for number, text in enumerate(sorted(set(re.findall(pattern, shelf.web.text(folder) or "")))):
        if int(text) != number:
            raise UserError(f"{folder}: part {number:05d} is missing there; choose another --date")
        name = f"{stem}-{text}.json.bz2"
        yield Place(f"dump/{name}", folder + name)


def _old_place(shelf: Shelf, day: str) -> Place:
    name = f"{shelf.wiki}-{day}-cirrussearch-content.json.gz"
    return Place(f"dump/{name}", f"{shelf.base}/other/cirrussearch/{day}/{name}")
