"""What the report shows, as plain lists that the harvest fills from its durable files."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

CURVE_POINTS = 160
THUMBNAIL_SIDE = 180  # pixels
THUMBNAIL_PIXELS = 50_000_000  # larger pictures get no thumbnail


@dataclass(frozen=True)
class Fate:
    """One row of the funnel: what became of `count` image links, none of them in another row.

    Rows of one `group` stand together ("Reading pages", "Matching", ...). `kept` marks the row of
    the pairs in the shards.
    """

    group: str
    name: str
    meaning: str
    count: int
    kept: bool = False


@dataclass(frozen=True)
class QueryRow:
    """One query's pairs: as in coverage.parquet."""

    query: str
    matched: int
    unique: int
    drawn: int
    present: int
    short_by: int


@dataclass(frozen=True)
class Curve:
    """Pairs per query, largest first: `before` and `after` at `ranks` (from 1), thinned."""

    ranks: Sequence[int]
    before: Sequence[int]
    after: Sequence[int]


@dataclass(frozen=True)
class Failure:
    """One outcome of a fetch that brought no picture; `examples` are (URL, message)."""

    outcome: str
    meaning: str
    count: int
    examples: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class HostRow:
    """One host: pairs selected, pictures fetched, and what its robots.txt says in a word."""

    host: str
    planned: int
    fetched: int
    robots: str = ""
    crawl_delay: float | None = None


@dataclass(frozen=True)
class Card:
    """One pair of the gallery; `picture` is from `thumbnail`; a card without one is left out."""

    picture: bytes | None
    text: str
    url: str
    page_url: str = ""


@dataclass(frozen=True)
class Gallery:
    """Some of a query's pairs."""

    query: str
    cards: Sequence[Card]


@dataclass(frozen=True)
class StageRow:
    """One stage: tasks (0 where they say nothing), seconds on the clock, core-seconds."""

    name: str
    tasks: int
    wall: float
    cpu: float


@dataclass(frozen=True)
class Breakdown:
    """A short list of counts beside the rest: languages, formats, attributes."""

    title: str
    rows: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class ReportData:
    """Everything the page shows.

    `links` is the number of image links and table rows read: the sum of the counts of `fates`.
    `facts` are (label, value) lines on the run: seed, cap, version, command. `queries` are the most
    telling, in the order they are to be shown; `query_count` is the size of the whole list,
    `queries_present` how many of them have a pair in the shards, `queries_short` how many are below
    their cap although more pairs matched. `attempts` is the number of selected pairs, of which the
    `failures` and the fate that is `kept` are parts.
    """

    title: str
    links: int
    fates: Sequence[Fate]
    cap: int
    facts: Sequence[tuple[str, str]] = ()
    queries: Sequence[QueryRow] = ()
    query_count: int = 0
    queries_present: int = 0
    queries_short: int = 0
    curve: Curve | None = None
    attempts: int = 0
    failures: Sequence[Failure] = ()
    hosts: Sequence[HostRow] = ()
    host_count: int = 0
    galleries: Sequence[Gallery] = ()
    stages: Sequence[StageRow] = ()
    breakdowns: Sequence[Breakdown] = field(default=())


def make_curve(before: np.ndarray, after: np.ndarray) -> Curve:
    """Sort and thin two int arrays [queries] of pairs per query for the drawing.

    Each is sorted by itself, largest first; ranks are spread evenly on a logarithmic scale.
    """
    shown = int(max(np.count_nonzero(before), np.count_nonzero(after)))
    if not shown:
        return Curve([], [], [])
    spread = np.unique(np.geomspace(1, shown, CURVE_POINTS).round().astype(np.int64))
    ordered = (np.sort(before)[::-1], np.sort(after)[::-1])
    return Curve(spread.tolist(), *(counts[spread - 1].tolist() for counts in ordered))


def thumbnail(picture: bytes) -> bytes | None:
    """A JPEG of at most 180 pixels a side from a stored picture; None where it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(picture))
            if image.width * image.height > THUMBNAIL_PIXELS:
                return None
            image.draft("RGB", (THUMBNAIL_SIDE * 2, THUMBNAIL_SIDE * 2))
            image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
            if image.mode in ("RGBA", "LA", "P", "PA"):
                image = image.convert("RGBA")
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image)
            out = io.BytesIO()
            image.convert("RGB").save(out, "JPEG", quality=72)
            return out.getvalue()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
