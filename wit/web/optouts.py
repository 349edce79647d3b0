"""What hosts reserve beside robots.txt: X-Robots-Tag, TDM-Reservation and tdmrep.json.

X-Robots-Tag is read as its inventors do (developers.google.com/search, "Robots meta tag"), with
the words noai and noimageai that picture hosts have added. The TDM headers and file are those of
the W3C community group's TDM Reservation Protocol of May 2024. That protocol lets an answer's
header take back what the file reserves; here a reservation in either place is kept, since the
header would have to be asked for to be seen.
"""

import datetime
import email.utils
import json
import re
from collections.abc import Iterable

from wit.web.rules import matches

TDMREP_PATH = "/.well-known/tdmrep.json"
MOST_LOCATIONS = 1000
# Directives of X-Robots-Tag that have a value of their own, so that a colon names no agent.
VALUED = frozenset(("max-snippet", "max-image-preview", "max-video-preview"))
# A date may begin with its weekday and a comma.
UNAVAILABLE_AFTER = re.compile(
    r"unavailable_after\s*:\s*((?:(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?"
    r"\s*,)?[^,]*)"
)


def opted_out(
    values: Iterable[str], token: str, directives: Iterable[str], now: float = 0.0
) -> str | None:
    """The first of `directives` that an answer's X-Robots-Tag values tell this agent, else None.

    A value is a list of directives, `noai, noindex`; `agent: noindex` speaks to that agent alone,
    up to the next agent of the same value. `unavailable_after` counts once its date is before
    `now` (Unix time).
    """

    def expiry(match: re.Match[str]) -> str:
        return "unavailable_after" if _is_past(match[1].strip(), now) else ""

    for value in values:
        agent = "*"
        for part in UNAVAILABLE_AFTER.sub(expiry, value.lower()).split(","):
            name, colon, rest = map(str.strip, part.partition(":"))
            if colon and name not in VALUED:
                agent, name = name, rest
            if agent in ("*", token) and name in directives:
                return name
    return None


def _is_past(date: str, now: float) -> bool:
    """Whether a date (RFC 822, RFC 850 or ISO 8601; UTC unless it says) lies before Unix `now`."""
    for read in (email.utils.parsedate_to_datetime, _from_iso):
        try:
            moment = read(date)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=datetime.UTC)
            return moment.timestamp() < now
        except (ValueError, TypeError, OverflowError):
            continue
    return False


def _from_iso(date: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(date.upper())


def reserved(value: str | None) -> bool:
    """Whether a TDM-Reservation header reserves text and data mining."""
    return value is not None and value.strip() == "1"


def read_tdmrep(body: bytes) -> str | None:
    """What a tdmrep.json says, as JSON `[[location, reserved], ...]`; None if it reserves nothing.

    A file that is no JSON list says nothing, a rule without a location or a value is passed over.
    """
    try:
        found = json.loads(body.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return None
    rules = []
    for rule in found[:MOST_LOCATIONS] if isinstance(found, list) else ():
        location = rule.get("location") if isinstance(rule, dict) else None
        value = rule.get("tdm-reservation") if isinstance(rule, dict) else None
        if isinstance(location, str) and value in (0, 1, "0", "1"):
            rules.append([location, int(value)])
    return json.dumps(rules) if any(value for _, value in rules) else None


def tdm_reserves(rules: str, url: str) -> bool:
    """Whether `read_tdmrep`'s rules reserve a URL: the first location that matches decides."""
    return next(
        (bool(value) for location, value in json.loads(rules) if matches(location, url)), False
    )
