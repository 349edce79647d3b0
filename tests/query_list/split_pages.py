"""What the readers of dumps give, whichever way a file is cut."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence

from query_list import pages
from wit import storage


def rows(read_pages: Callable, path: str, cuts: Sequence[int] = ()) -> tuple[list[tuple], Counter]:
    """What the splits between these cuts give: all rows in order, and the sums of the counts."""
    found, counts = [], Counter()
    for start, end in itertools.pairwise([0, *sorted(cuts), storage.size(path)]):
        read = read_pages(path, start, end)
        for batch in read:
            assert batch.schema == pages.PAGES
            found += [tuple(row.values()) for row in batch.to_pylist()]
        counts.update(read.counts)
    return found, counts


def stored(name: str, data: bytes) -> str:
    """A path in memory with these bytes."""
    storage.write_bytes(f"memory://pages/{name}", data)
    return f"memory://pages/{name}"
