"""The report's charts: matplotlib's SVG, with text as text and colours from the style sheet.

Equal data give equal bytes. Nothing that strangers wrote is drawn.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pipeline.report.data import Curve, Histogram

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
# A colour that is drawn -> the style sheet's variable, so that dark pages have dark charts.
COLOURS = {
    "#000001": "var(--ink)",
    "#000002": "var(--soft)",
    "#000003": "var(--line)",
    "#000004": "var(--accent)",
    "#000005": "var(--pale)",
    "#000006": "var(--bar)",
}
INK, SOFT, LINE, ACCENT, PALE, BAR = COLOURS
DPI = 72  # then a unit of the SVG is a point of matplotlib's
FONT = 11.0
SETTINGS = {
    "svg.fonttype": "none",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib; only measures, see _end
    "svg.hashsalt": "webimagetext",
    "font.size": FONT,
    "axes.linewidth": 1.0,
    "path.simplify": False,
}
UNWANTED = (f"{{{SVG}}}metadata", f"{{{SVG}}}style")  # its rules would be the whole page's
METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """Within it matplotlib draws as SETTINGS say, whatever a person's own settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


@settled()
def draw_curve(curve: Curve, cap: int, width: int, height: int) -> str:
    """Draws pairs per query over the query's rank, both logarithmic, with the cap, as SVG."""
    figure, axes = _begin(width, height, left=46, bottom=38, right=10, top=10)
    most = max([*curve.before, *curve.after, *curve.present, cap, 10])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(1, max(*curve.ranks, 10))
    axes.set_ylim(0.8, most * 1.5)
    for counts, colour, thickness in (
        (curve.before, PALE, 3.5),
        (curve.present, BAR, 1.5),
        (curve.after, ACCENT, 2.0),
    ):
        points = [(r, c) for r, c in zip(curve.ranks, counts, strict=False) if c]
        if points:
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, color=colour, linewidth=thickness, solid_joinstyle="round")
    if cap:
        axes.axhline(cap, color=SOFT, linewidth=1, dashes=(2, 3))
        place = {"xy": (1, cap), "xycoords": axes.get_yaxis_transform(), "ha": "right"}
        axes.annotate(
            f"cap {cap:,}", **place, xytext=(-2, 5), textcoords="offset points", color=SOFT
        )
    for axis, name in ((axes.xaxis, "rank of the query"), (axes.yaxis, "")):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
        axis.set_label_text(name, color=SOFT)
    axes.xaxis.labelpad = 5
    axes.grid(True, axis="both", color=LINE, linewidth=1)
    return _end(
        figure,
        "Pairs per query",
        f"Pairs of each query by its rank, both axes logarithmic: matched and without duplicates, "
        f"drawn, and in the shards; the cap is {cap:,}.",
    )


@settled()
def draw_bars(histogram: Histogram, width: int, height: int) -> str:
    """Draws a histogram's bars with its ticks below and its mark, as SVG."""
    figure, axes = _begin(width, height, left=38, bottom=22, right=4, top=18)
    counts = [count for _, count in histogram.bars]
    places = range(len(counts))
    axes.bar(places, counts, width=0.86, align="center", color=BAR, linewidth=0)
    axes.set_xlim(-0.6, len(counts) - 0.4)
    axes.set_ylim(0, max([*counts, 1]) * 1.06)
    axes.xaxis.set_major_locator(FixedLocator([place for place, _ in histogram.ticks]))
    axes.xaxis.set_ticklabels([label for _, label in histogram.ticks])
    axes.yaxis.set_major_locator(FixedLocator(round_steps(max([*counts, 1]))))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axes.grid(True, axis="y", color=LINE, linewidth=1)
    if histogram.mark:
        place, label = histogram.mark
        axes.axvline(place, color=ACCENT, linewidth=1, dashes=(2, 3))
        on_left = place > len(counts) / 2
        axes.annotate(
            label,
            xy=(place, 1),
            xycoords=axes.get_xaxis_transform(),
            xytext=(-4 if on_left else 4, 4),
            textcoords="offset points",
            ha="right" if on_left else "left",
            color=ACCENT,
        )
    return _end(figure, histogram.title, histogram.says)


def round_steps(most: float) -> list[float]:
    """Two to five round numbers from 0 to at most `most`, for an axis."""
    power = 10.0 ** math.floor(math.log10(most))
    step = next(s * power for s in (0.25, 0.5, 1.0, 2.5, 5.0) if most / (s * power) < 5)
    step = max(step, 1.0)
    return [step * n for n in range(int(most // step) + 1)]


def short_number(value: float) -> str:
    """A number as an axis shows it: 1, 250, 2.5k, 10M; nothing below 1 but 0."""
    if 0 < value < 1:
        return ""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _begin(
    width: int, height: int, *, left: int, bottom: int, right: int, top: int
) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasSVG(figure)
    box = (left / width, bottom / height, (width - left - right) / width)
    axes = figure.add_axes((*box, (height - bottom - top) / height))
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.tick_params(length=0, labelcolor=SOFT, labelsize=FONT, pad=5)
    return figure, axes


def _end(figure: Figure, title: str, description: str) -> str:
    """The figure as an <svg> with title and description, and no ids but those it refers to."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata=METADATA)
    root = ElementTree.fromstring(out.getvalue())
    for element in list(root.iter()):
        for child in list(element):
            if child.tag in UNWANTED:
                element.remove(child)
    used = {
        value.partition("#")[2].rstrip(")")
        for element in root.iter()
        for name, value in element.attrib.items()
        if name == f"{{{XLINK}}}href" or value.startswith("url(")
    }
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        if element.get("style"):
            element.set("style", _styled(element.attrib["style"]))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        child = ElementTree.Element(f"{{{SVG}}}{tag}")
        child.text = text
        root.insert(place, child)
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def _styled(style: str) -> str:
    for colour, variable in COLOURS.items():
        style = style.replace(colour, variable)
    return re.sub(r" ?font-family: [^;]*;", "", style)
