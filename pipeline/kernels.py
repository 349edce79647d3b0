"""Compiles the kernels once, so that the first run need not: `python -m pipeline.kernels`.

Importing a module with numba kernels compiles them; the results stand in Python's cache folders.
"""

import pyarrow as pa

from pipeline import balance as balance
from pipeline import sources as sources
from pipeline import unique as unique
from pipeline.fetch import resize
from wit import text
from wit.matching import Matcher


def main() -> None:
    """Compiles the kernels that imports do not: those of normalisation, matching and resizing."""
    text.normalise(pa.array(["a"]))
    for mode in ("default", "metaclip"):
        Matcher.build(pa.array(["a"]), mode).match(pa.array(["a b"]))
    resize.load_kernels()


if __name__ == "__main__":
    main()
