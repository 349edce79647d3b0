"""Turns a `ReportData` into the page: bounds what is shown, draws the charts, fills the template.

Every string in it was written by strangers. The template escapes all of them; what comes into the
page beside it are the charts, which show numbers alone, and pictures' bytes, which go into `data:`
URLs as base64. A content security policy lets the page load nothing and run nothing but its own
script.
"""

import base64
import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup

from pipeline.report.charts import draw_bars, draw_curve
from pipeline.report.data import Card, Fate, ReportData
from wit import templates

MOST_QUERIES, MOST_HOSTS, MOST_CARDS = 1_000, 100, 60
MOST_EXAMPLES = 3
MOST_PICTURE = 32_000  # bytes of one thumbnail
LONGEST = 240  # characters of a text or URL
AROUND = 70  # characters of a long text shown on each side of a query
FIRST_ROWS = 25  # rows of the queries' table before it is opened
KINDS = {b"\xff\xd8": "jpeg", b"\x89P": "png", b"RI": "webp"}
WIDE, NARROW = (1040, 330), (350, 260)  # pixels, of the curve on a laptop and on a phone
BARS = (350, 190)


@dataclass(frozen=True)
class Group:
    """Fates of one part of the way, and what was still there after it.

    `rows` are (fate, start): the fates tile the links, and `start` is where this one's tile begins.
    """

    name: str
    rows: tuple[tuple[Fate, int], ...]
    left: int


def render(data: ReportData) -> str:
    """The whole page as HTML, under 5 MB, without any reference to the network.

    Shows at most 1,000 queries, 100 hosts and 60 pictures; long texts are cut. Raises ValueError
    for a count below zero or a picture that is no JPEG, PNG or WebP.
    """
    if any(fate.count < 0 for fate in data.fates):
        raise ValueError(f"{next(f.name for f in data.fates if f.count < 0)}: a count below zero")
    environment = templates.environment(Path(__file__).parent / "templates", html=True)
    environment.filters |= {
        "count": lambda n: f"{n:,}",
        "percent": percent,
        "part": part,
        "seconds": seconds,
        "bytes": size,
        "hours": lambda s: f"{s / 3600:,.{1 if s > 36_000 else 3}f}",
        "short": short,
        "source": picture_source,
    }
    environment.globals["marked"] = marked
    script, _, _ = environment.loader.get_source(environment, "report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        data=bounded(data),
        groups=list(funnel(data)),
        total=sum(fate.count for fate in data.fates),
        kept=sum(fate.count for fate in data.fates if fate.kept),
        curves=curves(data),
        bars=[(h, Markup(draw_bars(h, *BARS))) for h in data.histograms],
        first_rows=FIRST_ROWS,
        verdict=verdict(data),
        script=script,
        script_digest=digest,
    )


def bounded(data: ReportData) -> ReportData:
    """Keep the page small: the first queries and hosts, and few enough pictures."""
    room = MOST_CARDS
    galleries = []
    for gallery in data.galleries:
        cards = [c for c in gallery.cards if c.picture and len(c.picture) <= MOST_PICTURE][:room]
        room -= len(cards)
        if cards:
            galleries.append(replace(gallery, cards=cards))
    return replace(
        data,
        queries=data.queries[:MOST_QUERIES],
        hosts=data.hosts[:MOST_HOSTS],
        failures=[replace(f, examples=f.examples[:MOST_EXAMPLES]) for f in data.failures],
        galleries=galleries,
    )


def funnel(data: ReportData) -> Iterator[Group]:
    """The fates in their groups, each with the number of links left after it."""
    left = data.links
    for name, fates in itertools.groupby(data.fates, key=lambda fate: fate.group):
        rows = []
        for fate in fates:
            left -= 0 if fate.kept else fate.count
            rows.append((fate, 0 if fate.kept else max(left, 0)))
        yield Group(name, tuple(rows), left)


def part(count: int, whole: int) -> str:
    """`count` of `whole` in per cent: 0.04 % stays visible."""
    if not whole or not count:
        return "0 %" if whole else "–"
    share = 100 * count / whole
    return f"{share:.0f} %" if share >= 9.95 else f"{share:.1f} %" if share >= 0.05 else "< 0.1 %"


def percent(count: float, whole: float) -> str:
    """`count` of `whole` as a length in CSS, between 0 and 100 %."""
    return f"{min(100 * count / whole, 100) if whole else 0:.2f}%"


def seconds(value: float) -> str:
    """A duration as people say it: 8.1 s, 12 min 30 s, 3 h 05 min."""
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(value: float) -> str:
    """Bytes as people say them, in powers of 1,000: 12 KB, 3.4 GB."""
    names = ["bytes", "KB", "MB", "GB", "TB", "PB"]
    while value >= 999.5 and len(names) > 1:
        value, names = value / 1000, names[1:]
    return f"{value:.1f} {names[0]}" if 0 < value < 9.95 else f"{value:,.0f} {names[0]}"


def verdict(data: ReportData) -> str:
    """What is to be known before all else: why there is no end, or no pair; mostly empty."""
    if data.unfinished:
        return data.unfinished
    if not data.links:
        return "This run is empty: there is no image link and no table row in its sources."
    if not data.attempts:
        return "No pair was selected, so nothing was fetched; the first table says why."
    if not any(fate.kept and fate.count for fate in data.fates):
        return "No picture could be fetched, so there is no pair in the shards."
    return ""


def curves(data: ReportData) -> list[tuple[str, Markup]]:
    """The curve as (class, SVG) for a laptop and a phone; none where no query has a pair."""
    if data.curve is None or not len(data.curve.ranks):
        return []
    sizes = (("broad", WIDE), ("narrow", NARROW))
    return [(name, Markup(draw_curve(data.curve, data.cap, *size))) for name, size in sizes]


def short(text: str, longest: int = LONGEST) -> str:
    """The text in one line, cut in its middle where it is too long."""
    line = " ".join(text.split())
    if len(line) <= longest:
        return line
    return f"{line[: longest * 2 // 3]} … {line[-(longest // 4) :]}"


def marked(text: str, query: str) -> list[tuple[str, bool]]:
    """The text in pieces (piece, whether it is the query), cut to a length that keeps a match.

    The query is normalised and the text is not: words are sought whatever their case and with any
    marks between them, first between word boundaries, then anywhere. Where that finds nothing, the
    text stays as it is.
    """
    line = " ".join(text.split())
    words = r"[\W_]+".join(map(re.escape, query.split()))
    found = words and (
        re.search(rf"(?<!\w){words}(?!\w)", line, re.IGNORECASE)
        or re.search(words, line, re.IGNORECASE)
    )
    if not found:
        return [(short(line, 2 * AROUND), False)]
    start = max(0, found.start() - AROUND)
    before, after = line[start : found.start()], line[found.end() :][:AROUND]
    if start:
        before = f"… {before.partition(' ')[2] or before}"
    if len(line) > found.end() + len(after):
        after = f"{after.rpartition(' ')[0] or after} …"
    return [piece for piece in ((before, False), (found[0], True), (after, False)) if piece[0]]


def picture_source(card: Card) -> str:
    """The picture as a `data:` URL."""
    kind = KINDS.get(card.picture[:2])
    if kind is None:
        raise ValueError(f"{short(card.url, 80)}: the thumbnail is no JPEG, PNG or WebP")
    return f"data:image/{kind};base64,{base64.b64encode(card.picture).decode()}"
