"""The command line of `wit queries download`."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from datetime import date

from query_list.download import plan
from query_list.download.state import SOURCES
from query_list.download.urls import check_url
from query_list.inputs import ARCHIVES, CIRRUS, XML
from wit import __version__, storage
from wit.errors import UserError

HELP = """Fetch a Wikipedia's dump, page views and WordNet into a folder.

  wit queries download --contact you@example.org --out inputs
      the newest English dump (25 GB), page views of the 26 days before it (13 GB), WordNet 3.0
  wit queries download --wiki dewiki --date 20260901 --every 7 --contact ... --out inputs
  wit queries build inputs --out list

The same command goes on where one was stopped. At most two files are fetched at a time, a server
that asks to wait is waited for, and every file is checked: by its sum where the server lists one,
else by unpacking it. DIR/inputs.json says what is there, from where and with which sums.
"""
WIKI = re.compile(r"[a-z][a-z0-9_]{1,39}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MOST_DAYS = 3660


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes:
        out: the folder.
        wiki: a Wikipedia's database name, as enwiki.
        day: of the dump, YYYYMMDD; null for the newest.
        form: of the dump, XML or CIRRUS.
        views: `daily` or `hourly`.
        first, last: days of page views; null for those before the dump.
        every: days from one to the next.
        sources: of SOURCES.
        base: where the tree of dumps.wikimedia.org is.
        wordnet: URL of WordNet.
        agent: who asks.
    """

    out: str
    wiki: str
    day: str | None
    form: str
    views: str
    first: date | None
    last: date | None
    every: int
    sources: tuple[str, ...]
    base: str
    wordnet: str
    agent: str


# --- options ----------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `wit queries download`."""
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="a folder on this machine")
    help = "where Wikimedia reaches you: part of the user agent, and needed"
    add("--contact", metavar="URL|MAIL", help=help)
    add("--user-agent", metavar="TEXT", help="the whole user agent, with a contact in it, instead")
    help = "a Wikipedia's database name (default: %(default)s)"
    add("--wiki", default="enwiki", metavar="NAME", help=help)
    help = "of the dump; `latest` (default) is the newest that is finished"
    add("--date", type=_date_or_latest, default=plan.LATEST, metavar="YYYYMMDD", help=help)
    help = "xml: pages as they are written (default); cirrus: CirrusSearch's plain text"
    add("--dump", choices=[XML, CIRRUS], default=XML, help=help)
    help = "page views by the day (default) or by the hour"
    add("--views", choices=[plan.DAILY, plan.HOURLY], default=plan.DAILY, help=help)
    help = f"first day of page views (default: so that there are {plan.DAYS} days)"
    add("--from", dest="first", type=_date, metavar="YYYY-MM-DD", help=help)
    help = "last day of page views (default: the day before the dump)"
    add("--to", dest="last", type=_date, metavar="YYYY-MM-DD", help=help)
    add("--every", type=_days, default=1, metavar="N", help="page views of every Nth day only")
    help = f"leave out some of: {', '.join(SOURCES)}"
    add("--without", nargs="+", choices=SOURCES, default=[], metavar="SOURCE", help=help)
    help = "where else the tree of dumps.wikimedia.org is: an https URL"
    add("--mirror", default=plan.DUMPS, metavar="URL", help=help)
    help = "where else a tar of WordNet 3.0 is: an https URL"
    add("--wordnet", default=plan.PRINCETON, metavar="URL", help=help)


def read_wish(options: argparse.Namespace) -> Wish:
    """Returns what a command line asks for; a UserError where it cannot be."""
    if not storage.is_local(options.out):
        raise UserError(f"--out {options.out}: a download writes to a folder on this machine")
    if not (options.user_agent or options.contact):
        raise UserError("--contact is needed: a URL or a mail address where Wikimedia reaches you")
    agent = options.user_agent or f"WebImageText/{__version__} (+{options.contact})"
    if not (agent.isascii() and agent.isprintable()):
        raise UserError(f"user agent {agent!r}: only printable ASCII can be sent")
    if not WIKI.fullmatch(options.wiki):
        raise UserError(f"--wiki {options.wiki!r} is no database name, as enwiki or zh_yuewiki are")
    check_url(options.mirror, "--mirror")
    check_url(options.wordnet, "--wordnet")
    name = options.wordnet.rpartition("/")[2]
    if not NAME.fullmatch(name) or not name.endswith(ARCHIVES):
        raise UserError(f"--wordnet {options.wordnet}: a tar is expected, as WNdb-3.0.tar.gz")
    first, last = options.first, options.last
    if first and last and not 0 <= (last - first).days < MOST_DAYS:
        raise UserError(f"--from {first} --to {last}: 1 to {MOST_DAYS} days are expected")
    return Wish(
        out=storage.local_path(options.out),
        wiki=options.wiki,
        day=None if options.date == plan.LATEST else options.date,
        form=options.dump,
        views=options.views,
        first=first,
        last=last,
        every=options.every,
        sources=tuple(name for name in SOURCES if name not in options.without),
        base=options.mirror.rstrip("/"),
        wordnet=options.wordnet,
        agent=agent,
    )


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no day, as 2026-08-01 is") from error


def _date_or_latest(text: str) -> str:
    return text if text == plan.LATEST else f"{_date(text):%Y%m%d}"


def _days(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= MOST_DAYS):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days from 1 to {MOST_DAYS}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Downloads what is not there yet; the exit code."""
    wish = read_wish(options)
    from query_list.download import job

    return job.run(wish)
