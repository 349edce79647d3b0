"""What the report shows, as plain lists that the harvest fills from its durable files."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

CURVE_POINTS = 160
THUMBNAIL_SIDE = 220  # pixels
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
    """Pairs per query at `ranks` (from 1), thinned, each list sorted by itself, largest first.

    `before` balancing, `after` it (drawn for the query), and `present` in the shards, also through
    other queries; the last two are empty where the run has not come so far.
    """

    ranks: Sequence[int]
    before: Sequence[int]
    after: Sequence[int] = ()
    present: Sequence[int] = ()


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
    """Some of the `present` pairs of a query."""

    query: str
    cards: Sequence[Card]
    present: int = 0


@dataclass(frozen=True)
class StageRow:
    """One stage: tasks (0 where they say nothing), seconds on the clock, core-seconds."""

    name: str
    tasks: int
    wall: float
    cpu: float


@dataclass(frozen=True)
class Histogram:
    """Counts that are drawn as bars side by side, with `says` as a line above them.

    `bars` are (label, count), `ticks` (place, label) below the bars, counted from 0; `mark` is a
    line across with its label, at a place between them.
    """

    title: str
    says: str
    bars: Sequence[tuple[str, int]]
    ticks: Sequence[tuple[float, str]]
    mark: tuple[float, str] | None = None


@dataclass(frozen=True)
class Breakdown:
    """A short list of counts beside the rest: languages, formats, attributes.

    `others` are (values, pairs) that the list leaves out.
    """

    title: str
    rows: Sequence[tuple[str, int]]
    others: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class ReportData:
    """Everything the page shows.

    `links` is the number of image links and table rows read: the sum of the counts of `fates`.
    `unfinished` says why the run is not at its end, empty where it is; then queries may be unknown.
    `facts` are (label, value) lines on the run: seed, cap, version, command. `queries` are the most
    telling, in the order they are to be shown; `query_count` is the size of the whole list,
    `queries_present` how many of them have a pair in the shards, `queries_short` how many are below
    their cap although more pairs matched. `attempts` is the number of selected pairs, of which the
    `failures` and the fate that is `kept` are parts. `host_share` is the part of the selected pairs
    that the ten largest hosts have. `stored` is the number of pairs that `histograms` and
    `breakdowns` count, `bytes` the size of the shards.
    """

    title: str
    links: int
    fates: Sequence[Fate]
    cap: int
    unfinished: str = ""
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
    host_share: float = 0.0
    galleries: Sequence[Gallery] = ()
    stages: Sequence[StageRow] = ()
    stored: int = 0
    bytes: int = 0
    histograms: Sequence[Histogram] = ()
    breakdowns: Sequence[Breakdown] = ()


def make_curve(*counts: np.ndarray) -> Curve:
    """Sort and thin int arrays [queries] of pairs per query, in the order of Curve's lists.

    Each is sorted by itself, largest first; ranks are spread evenly on a logarithmic scale.
    """
    shown = max(int(np.count_nonzero(column)) for column in counts)
    if not shown:
        return Curve([], [])
    spread = np.unique(np.geomspace(1, shown, CURVE_POINTS).round().astype(np.int64))
    return Curve(spread.tolist(), *(np.sort(c)[::-1][spread - 1].tolist() for c in counts))


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
