"""`wit queries diff A B`: what a query list has that another has not.

A query's identity is its `query_hash`, so the order of the lists does not matter.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from query_list.lists import (
    ABSENT,
    NUMBERS,
    align,
    describe,
    names_in,
    read_list,
    shortened,
    source_codes,
    sources_of,
)
from wit.errors import UserError
from wit.show import clean

HELP = """Compare two query lists: what B has that A has not, and the reverse.

A query is the same in both by its query_hash. The exit code is 0 for lists that have the same
queries with the same sources, counts, PMI and views, and 1 for others.
"""
LIMIT = 20
HEAD = ("query", "count", "pmi", "views", "sources")
NUMBER_NAMES = {"count": "count", "pmi": "PMI", "views": "views"}


@dataclass(frozen=True)
class Difference:
    """Two lists side by side.

    Attributes:
        sources: all that one of them names.
        added, removed: QUERIES, the rows of B that A has not, and of A that B has not.
        before, after: QUERIES, the rows of A and of B that both have, in the order of B.
        codes: of `before` and `after`, their sources as `lists.source_codes`.
    """

    sources: list[str]
    added: pa.Table
    removed: pa.Table
    before: pa.Table
    after: pa.Table
    codes: tuple[np.ndarray, np.ndarray]

    @property
    def moved(self) -> np.ndarray:
        """Bool [kept]: where the sources differ."""
        return self.codes[0] != self.codes[1]

    @property
    def renumbered(self) -> np.ndarray:
        """Bool [kept]: where count, PMI or views differ."""
        found = np.zeros(len(self.after), bool)
        for name in NUMBERS:
            old, new = (t[name].combine_chunks() for t in (self.before, self.after))
            differ = pc.fill_null(pc.not_equal(old, new), False)
            differ = pc.or_(differ, pc.xor(old.is_null(), new.is_null()))
            found |= differ.to_numpy(zero_copy_only=False)
        return found

    @property
    def equal(self) -> bool:
        """Whether both have the same queries of the same sources with the same numbers."""
        rows = len(self.added) + len(self.removed)
        return not (rows or self.moved.any() or self.renumbered.any())


def compare(a: pa.Table, b: pa.Table, paths: tuple[str, str] = ("A", "B")) -> Difference:
    """Compares two lists in the columns of `wit.pairs.QUERIES`.

    Raises:
        UserError: where a list has a query twice, naming its file and rows.
    """
    for path, table in zip(paths, (a, b), strict=True):
        _refuse_repeated(path, table)
    place = pc.index_in(b["query_hash"], a["query_hash"].combine_chunks())
    kept = place.is_valid()
    removed = pc.invert(pc.is_in(a["query_hash"], b["query_hash"].combine_chunks()))
    before, after = a.take(place.drop_null()), b.filter(kept)
    sources = sources_of(a, b)
    return Difference(
        sources,
        b.filter(pc.invert(kept)),
        a.filter(removed),
        before,
        after,
        (source_codes(before, sources), source_codes(after, sources)),
    )


def _refuse_repeated(path: str, table: pa.Table) -> None:
    hashes = table["query_hash"].to_numpy()
    order = np.argsort(hashes, kind="stable")
    again = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    if len(again):
        first, second = order[again[0]], order[again[0] + 1]
        query = shortened(table["query"][int(second)].as_py())
        raise UserError(f"{path}: query {query!r} stands in rows {first} and {second}; drop one")


# --- what is said -----------------------------------------------------------------------------


def told(found: Difference, limit: int) -> Iterator[str]:
    """Yields the lines of the comparison, with at most `limit` rows of each kind."""
    yield from _sizes(found)
    for name, table in (("added", found.added), ("removed", found.removed)):
        for column in NUMBERS:
            yield from _highest(name, table, column, limit)
        yield from _without_numbers(name, table, limit)
    yield from _changed_sources(found, limit)
    if found.renumbered.any():
        yield f"\nkept with another count, PMI or views: {int(found.renumbered.sum()):,}"
    if found.equal:
        yield "\nthe lists are equal"


def _sizes(found: Difference) -> Iterator[str]:
    old, new = (source_codes(table, found.sources) for table in (found.removed, found.added))
    rows = [
        _counts("queries", *(np.ones(len(codes), bool) for codes in (*found.codes, old, new))),
        *(
            _counts(clean(name), *(codes >> i & 1 == 1 for codes in (*found.codes, old, new)))
            for i, name in enumerate(found.sources)
        ),
    ]
    yield from align(("", "A", "B", "kept", "added", "removed"), rows)


def _counts(
    name: str, before: np.ndarray, after: np.ndarray, old: np.ndarray, new: np.ndarray
) -> list[str]:
    """One row: in A, in B, of the kept in both, of the added, of the removed."""
    values = (
        np.count_nonzero(before) + np.count_nonzero(old),
        np.count_nonzero(after) + np.count_nonzero(new),
        np.count_nonzero(before & after),
        np.count_nonzero(new),
        np.count_nonzero(old),
    )
    return [name, *(f"{value:,}" for value in values)]


def _highest(name: str, table: pa.Table, column: str, limit: int) -> Iterator[str]:
    known = table.filter(table[column].is_valid())
    if not len(known) or not limit:
        return
    best = known.sort_by([(column, "descending"), ("query", "ascending")]).slice(0, limit)
    yield f"\n{name}, by {NUMBER_NAMES[column]}: {_of(len(best), len(known))}"
    yield from align(HEAD, describe(best))


def _without_numbers(name: str, table: pa.Table, limit: int) -> Iterator[str]:
    """WordNet's, and all of a list that knows no numbers."""
    known = np.any([table[c].is_valid().to_numpy() for c in NUMBERS], axis=0)
    rest = table.filter(pa.array(~known))
    if not len(rest) or not limit:
        return
    first = rest.sort_by("query").slice(0, limit)
    yield f"\n{name}, without count, PMI and views: {_of(len(first), len(rest))}"
    yield from align(HEAD, describe(first))


def _of(shown: int, whole: int) -> str:
    return f"{shown:,} of {whole:,}" if shown < whole else f"{whole:,}"


def _changed_sources(found: Difference, limit: int) -> Iterator[str]:
    moved = np.flatnonzero(found.moved)
    if not len(moved):
        return
    old, new = (codes[moved] for codes in found.codes)
    kinds, group, sizes = np.unique(
        np.stack([old, new]), axis=1, return_inverse=True, return_counts=True
    )
    by_size = np.argsort(-sizes, kind="stable")[:limit]
    yield f"\nkept with other sources: {len(moved):,}; changes: {_of(len(by_size), len(sizes))}"
    if not limit:
        return
    rows = [
        [_said(before, found.sources), _said(after, found.sources), f"{size:,}"]
        for before, after, size in zip(*kinds[:, by_size].tolist(), sizes[by_size], strict=True)
    ]
    yield from align(("sources in A", "sources in B", "queries"), rows)
    shown = moved[np.argsort(-sizes[group.ravel()], kind="stable")[:limit]]
    cells = [
        [*row[:4], _said(int(found.codes[0][i]), found.sources), row[4]]
        for i, row in zip(shown, describe(found.after.take(pa.array(shown))), strict=True)
    ]
    yield f"\nkept with other sources, as B has them: {_of(len(shown), len(moved))}"
    yield from align((*HEAD[:4], "sources in A", "sources in B"), cells)


def _said(code: int, names: list[str]) -> str:
    return ", ".join(map(clean, names_in(code, names))) or ABSENT


# --- the command ------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `run` takes."""
    parser.add_argument("a", metavar="A.parquet", help="a query list")
    parser.add_argument("b", metavar="B.parquet", help="the list that it is compared with")
    parser.add_argument(
        "--limit", type=_limit, default=LIMIT, help="rows of each kind (default: %(default)s)"
    )


def _limit(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Prints the comparison; exit code 0 for equal lists, 1 for different ones."""
    found = compare(read_list(options.a), read_list(options.b), (options.a, options.b))
    print(f"A  {clean(options.a)}\nB  {clean(options.b)}\n")
    print("\n".join(told(found, options.limit)))
    return 0 if found.equal else 1
