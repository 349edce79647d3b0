"""What stored pairs are like, counted exactly: sizes, shapes, lengths of texts, languages, formats.

A lane counts its own when it is finished, from the columns of its shards, and writes a small JSON;
the report adds these up, so its numbers are those of all pairs however many there are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wit.outcomes import SUCCESS

COLUMNS = (
    *("outcome", "caption", "language", "attribute", "content_type"),
    *("original_width", "original_height", "width", "height"),
)
MOST = 4096  # pixels and characters: what is longer is counted as this
STEPS = 8  # of the sides' ratio in an octave
WIDEST = 2 * STEPS  # steps: a ratio beyond 4 is counted as 4, one below 1/4 as 1/4
NUMBERED = ("shorter_side", "ratio", "text_length")
NAMED = ("shape", "language", "attribute", "content_type")
# A server may say anything; what is none of these is counted as "other".
CONTENT_TYPES = (
    *("image/jpeg", "image/jpg", "image/png", "image/webp", "image/gif", "image/avif"),
    *("image/bmp", "image/x-ms-bmp", "image/tiff", "image/heic", "image/jxl", "image/svg+xml"),
    *("application/octet-stream", "binary/octet-stream", "text/html", "text/plain"),
)
UNKNOWN, OTHER = "unknown", "other"
Traits = dict[str, Counter]


def no_traits() -> Traits:
    """Returns the traits of no pair."""
    return {name: Counter() for name in (*NUMBERED, *NAMED)}


def count_traits(table: pa.Table) -> Traits:
    """Counts the pairs with a picture of a table with COLUMNS of SAMPLES.

    `shorter_side` (of the picture as fetched, pixels), `text_length` (characters) and `ratio` (of
    its width to its height, in steps of 1/8 octave, rounded) by number, the rest by name. A picture
    whose size as fetched is not known counts with its size as stored.
    """
    table = table.filter(pc.equal(table["outcome"], SUCCESS))
    width, height = (
        pc.coalesce(table[f"original_{side}"], table[side]).to_numpy().astype(np.int64)
        for side in ("width", "height")
    )
    steps = np.rint(STEPS * np.log2(width / height)).astype(np.int64)
    kind = pc.list_element(pc.split_pattern(pc.fill_null(table["content_type"], ""), ";"), 0)
    kind = pc.utf8_lower(pc.utf8_trim_whitespace(kind))
    known = pc.is_in(kind, pa.array(CONTENT_TYPES))
    kind = pc.if_else(known, kind, pc.if_else(pc.equal(kind, ""), UNKNOWN, OTHER))
    return {
        "shorter_side": _numbers(np.minimum(width, height)),
        "ratio": _numbers(np.clip(steps, -WIDEST, WIDEST)),
        "text_length": _numbers(pc.utf8_length(table["caption"]).to_numpy()),
        "shape": +Counter(
            landscape=int(np.sum(width > height)),
            square=int(np.sum(width == height)),
            portrait=int(np.sum(width < height)),
        ),
        "language": _names(table["language"]),
        "attribute": _names(table["attribute"]),
        "content_type": _names(kind),
    }


def _numbers(values: np.ndarray) -> Counter[int]:
    values, counts = np.unique(np.minimum(values, MOST), return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def _names(column: pa.ChunkedArray) -> Counter[str]:
    counted = pc.value_counts(pc.fill_null(column, UNKNOWN).combine_chunks())
    return Counter({row["values"]: row["counts"] for row in counted.to_pylist()})


def add_traits(all_traits: Iterable[Traits]) -> Traits:
    """Returns the traits of several together."""
    total = no_traits()
    for traits in all_traits:
        for name, counts in traits.items():
            total[name].update(counts)
    return total


def to_json(traits: Traits) -> dict[str, Any]:
    """Returns plain values; numbers become text, as JSON's keys are."""
    return {name: {str(key): n for key, n in counts.items()} for name, counts in traits.items()}


def from_json(value: dict[str, Any]) -> Traits:
    """Returns the traits that `to_json` gave."""
    return {
        name: Counter({int(key) if name in NUMBERED else key: n for key, n in counts.items()})
        for name, counts in value.items()
    }


def quantile(counts: Counter[int], share: float) -> int:
    """Returns the lowest value that at least this share of the counted do not exceed.

    Raises:
        ValueError: where nothing is counted.
    """
    wanted, seen = math.ceil(share * counts.total()), 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= wanted:
            return value
    raise ValueError("nothing is counted")
