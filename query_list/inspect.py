"""`wit queries inspect TEXT`: which queries of a list a text includes, whence, and where.

A text is taken as the harvest takes an alt text: its normal form (`wit.text`) is a row of tokens,
and a query matches where its own stand in it in one piece.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from query_list.lists import align, describe, read_list
from wit import text
from wit.errors import UserError
from wit.matching import Matcher
from wit.show import clean

HELP = """Show which queries of a list a text includes, from which source, and where.

The text is normalised as alt texts are, which the second line shows; a query matches where its
words stand in it in one piece. The last column counts the words of the normal form, from 1; in
scripts that are written without spaces each character is one.
"""
TOGETHER = 1_000  # texts that are matched together
MOST_LINE = 1 << 20  # bytes of a line of standard input
HEAD = ("query", "count", "pmi", "views", "sources", "words")
STDIN = "-"


@dataclass(frozen=True)
class Found:
    """What a text includes.

    Attributes:
        text: as it was given.
        tokens: of its normal form.
        rows: of the list, longest queries first (by tokens, then characters, then place).
        places: of each, the tokens it covers, every time that it stands in the text.
    """

    text: str
    tokens: list[str]
    rows: list[int]
    places: list[list[range]]

    @property
    def normal(self) -> str:
        """The normal form of the text."""
        return text.normalise_one(self.text)

    @property
    def missed(self) -> list[str]:
        """The runs of tokens that no query covers."""
        covered = set(itertools.chain.from_iterable(itertools.chain.from_iterable(self.places)))
        runs = itertools.groupby(range(len(self.tokens)), key=lambda place: place not in covered)
        return [" ".join(self.tokens[i] for i in run) for missed, run in runs if missed]


def find(texts: list[str], table: pa.Table, matcher: Matcher) -> Iterator[Found]:
    """Finds what each text includes of a list, whose queries the matcher was built from."""
    array = pa.array(texts, pa.large_string())
    spaced = text.spaced(array).to_pylist()
    matched = matcher.match(array)
    for given, form, rows in zip(texts, spaced, matched.to_pylist(), strict=True):
        tokens = form.split()
        standing: dict[str, list[int]] = {}
        for place, token in enumerate(tokens):
            standing.setdefault(token, []).append(place)
        queries = text.spaced(table["query"].take(pa.array(rows, pa.int64()))).to_pylist()
        placed = []
        for row, query in zip(rows, queries, strict=True):
            parts = query.split()
            spans = (range(i, i + len(parts)) for i in standing[parts[0]])
            placed.append((row, [p for p in spans if tokens[p.start : p.stop] == parts]))
        placed.sort(key=lambda entry: _order(tokens, entry[1]))
        yield Found(given, tokens, [row for row, _ in placed], [p for _, p in placed])


def _order(tokens: list[str], places: list[range]) -> tuple[int, int, int]:
    first = places[0]
    return -len(first), -sum(len(tokens[i]) for i in first), first.start


# --- what is said -----------------------------------------------------------------------------


def told(found: Found, table: pa.Table) -> Iterator[str]:
    """Yields the lines on one text; its words are told by their numbers, from 1."""
    yield f"text         {clean(found.text)}"
    yield f"normal form  {clean(found.normal) or '(empty: no letter, number or symbol)'}"
    if found.rows:
        rows = describe(table.take(pa.array(found.rows)))
        yield ""
        yield from align(HEAD, [[*r, _where(p)] for r, p in zip(rows, found.places, strict=True)])
        yield ""
    yield f"queries      {len(found.rows):,}"
    if found.tokens:
        yield f"in no query  {', '.join(map(clean, found.missed)) or 'no word'}"


def _where(places: list[range]) -> str:
    return ", ".join(f"{p.start + 1}-{p.stop}" if len(p) > 1 else f"{p.start + 1}" for p in places)


# --- the command ------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `run` takes."""
    parser.add_argument(
        "texts",
        nargs="+",
        metavar="TEXT",
        help="a text, as an alt text; - for a text a line on standard input",
    )
    parser.add_argument("--queries", required=True, metavar="FILE.parquet", help="the query list")


def run(options: argparse.Namespace) -> int:
    """Prints what each text includes; exit code 0."""
    table = read_list(options.queries)
    try:
        matcher = Matcher.build(table["query"])
    except UserError as error:
        raise UserError(f"{options.queries}: {error}") from error
    between = ""
    together = 1 if sys.stdin.isatty() else TOGETHER  # a person waits for an answer to each line
    for batch in _batches(_texts(options.texts), together):
        for found in find(batch, table, matcher):
            print(between + "\n".join(told(found, table)))
            between = "\n"
        sys.stdout.flush()
    return 0


def _texts(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == STDIN:
            yield from _lines()
        else:
            yield argument.encode(errors="surrogateescape").decode(errors="replace")


def _lines() -> Iterator[str]:
    number = 0
    while line := sys.stdin.buffer.readline(MOST_LINE + 1):
        number += 1
        if len(line) > MOST_LINE:
            raise UserError(f"standard input, line {number}: over {MOST_LINE:,} bytes; cut it")
        yield line.decode(errors="replace").rstrip("\r\n")


def _batches(texts: Iterator[str], together: int) -> Iterator[list[str]]:
    while batch := list(itertools.islice(texts, together)):
        yield batch
