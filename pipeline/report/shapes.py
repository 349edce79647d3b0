"""From exact counts of what the pairs are like to bars and lists."""

from __future__ import annotations

import bisect
from collections import Counter

from pipeline.report.data import Breakdown, Histogram
from pipeline.traits import MOST, STEPS, UNKNOWN, WIDEST, Traits, quantile

LISTED = 12
# 1, 2, 3, 4, 6, 8, 12, ...: where bars begin, two of them an octave.
EDGES = sorted({1, 3, *(2**n for n in range(13)), *(3 * 2**n for n in range(1, 11))})
RATIOS = {-16: "1:4", -8: "1:2", 0: "1:1", 8: "2:1", 16: "4:1"}


def histograms(traits: Traits) -> list[Histogram]:
    """Returns sizes, ratios and lengths of texts; none where there is no pair."""
    if not traits["shape"]:
        return []
    return [
        over_octaves("Shorter side of the picture as fetched", "pixels", traits["shorter_side"]),
        over_ratios(traits["ratio"], traits["shape"]),
        over_octaves("Length of the text", "characters", traits["text_length"]),
    ]


def over_octaves(title: str, unit: str, counts: Counter[int]) -> Histogram:
    """Returns values from 1 in bars that are half an octave wide, with the median marked."""
    bars = [0] * len(EDGES)
    for value, count in counts.items():
        bars[_place(value)] += count
    used = [place for place, count in enumerate(bars) if count]
    first, last = used[0], used[-1]
    low, median, high = (quantile(counts, share) for share in (0.1, 0.5, 0.9))
    ticks = [
        (place - first - 0.5, f"{EDGES[place]:,}")
        for place in range(first, last + 2)
        if place < len(EDGES) and EDGES[place].bit_count() == 1
    ]
    step = -(-len(ticks) // 8)
    place = _place(median)
    end = EDGES[place + 1] if place + 1 < len(EDGES) else 2 * EDGES[place]
    within = (median - EDGES[place] + 0.5) / (end - EDGES[place])
    return Histogram(
        title,
        f"Median {median:,} {unit}; 80 % have {low:,} to {high:,}.",
        [(_range(place), bars[place]) for place in range(first, last + 1)],
        ticks[::step],
        (place - first - 0.5 + within, f"median {median:,}"),
    )


def _place(value: int) -> int:
    return max(bisect.bisect_right(EDGES, value) - 1, 0)


def _range(place: int) -> str:
    low = EDGES[place]
    if low == MOST:
        return f"{low:,} and more"
    high = EDGES[place + 1] - 1
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def over_ratios(counts: Counter[int], shape: Counter[str]) -> Histogram:
    """Returns the ratio of width to height in bars of an eighth of an octave."""
    labels = [
        f"{2 ** ((step - 0.5) / STEPS):.2f} to {2 ** ((step + 0.5) / STEPS):.2f}"
        for step in range(-WIDEST, WIDEST + 1)
    ]
    labels[0], labels[-1] = (f"below {labels[1].split()[0]}", f"above {labels[-2].split()[-1]}")
    total = shape.total()
    parts = [f"{100 * shape[n] / total:.0f} % {n}" for n in ("landscape", "square", "portrait")]
    return Histogram(
        "Width to height",
        f"{', '.join(parts)}.",
        [(label, counts[step - WIDEST]) for step, label in enumerate(labels)],
        [(step + WIDEST, label) for step, label in RATIOS.items()],
    )


def breakdowns(traits: Traits) -> list[Breakdown]:
    """Returns the most frequent values of what is counted by name; languages where identified."""
    return [
        breakdown(title, traits[name])
        for title, name in (
            ("Language", "language"),
            ("Where the text stood", "attribute"),
            ("Content type", "content_type"),
        )
        if set(traits[name]) - {UNKNOWN} or name != "language"
    ]


def breakdown(title: str, counts: Counter[str]) -> Breakdown:
    """Returns the most frequent values, and how many the rest are."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = [count for _, count in ranked[LISTED:]]
    return Breakdown(title, ranked[:LISTED], (len(rest), sum(rest)))
