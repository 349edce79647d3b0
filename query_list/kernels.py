"""Compiles this room's kernels, so that the first build need not: `python -m query_list.kernels`.

Ten seconds on a new machine; the results stand in Python's cache folders, and then it is nothing.
"""

import pyarrow as pa

from query_list.bigrams import PairCounter
from query_list.counting import WordCounter
from query_list.plain_text import plain_text
from query_list.segments import spaced_segments
from wit import kernels_loader


def main() -> None:
    """Loads every kernel."""
    counter = WordCounter()
    counter.add(spaced_segments(plain_text(pa.array(["a [[b]]"]), {})))
    PairCounter(1, 8)
    for name in ("kernels_xml", "kernels_views"):
        kernels_loader.load(f"query_list.{name}")


if __name__ == "__main__":
    main()
