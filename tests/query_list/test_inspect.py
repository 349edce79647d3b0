"""`wit queries inspect`: what matches in a text, from which source, and where it stands."""

import argparse
import io
import re
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_list import inspect
from tests.query_list.lists import BIGRAM, TITLE, WORD, WORDNET, make_list
from wit import storage
from wit.errors import UserError
from wit.matching import Matcher

ROWS = {
    "dog": {"sources": [WORD, WORDNET], "count": 900},
    "the": {"sources": [WORD], "count": 9_000_000},
    "golden": {"sources": [WORD], "count": 800},
    "golden retriever": {"sources": [BIGRAM, TITLE], "count": 120, "pmi": 13.5, "views": 7_000},
    "gold": {"sources": [WORD], "count": 3},
    "retriever dog": {"sources": [WORDNET]},
    "水素": {"sources": [TITLE], "views": 5},
}


@pytest.fixture
def path(tmp_path) -> str:
    written = str(tmp_path / "queries.parquet")
    storage.write_table(written, make_list(ROWS))
    return written


def run(capsys, *arguments: str) -> str:
    parser = argparse.ArgumentParser()
    inspect.add_arguments(parser)
    assert inspect.run(parser.parse_args(arguments)) == 0
    return capsys.readouterr().out


def cells(out: str) -> list[list[str]]:
    """The rows of the table."""
    lines = out.split("\n\n")[1].splitlines()[1:]
    return [re.split(r"  +", line) for line in lines]


def test_what_matches_is_told_longest_first_with_sources_numbers_and_places(path, capsys):
    out = run(capsys, "The Golden-RETRIEVER dog; the xyzzy", "--queries", path)
    assert "normal form  the golden retriever dog the xyzzy\n" in out
    assert cells(out) == [
        ["golden retriever", "120", "13.50", "7,000", f"{BIGRAM}, {TITLE}", "2-3"],
        ["retriever dog", "-", "-", "-", WORDNET, "3-4"],
        ["golden", "800", "-", "-", WORD, "2"],
        ["the", "9,000,000", "-", "-", WORD, "1, 5"],
        ["dog", "900", "-", "-", f"{WORD}, {WORDNET}", "4"],
    ]
    assert "queries      5\nin no query  xyzzy\n" in out


def test_scripts_without_spaces_match_as_substrings(path, capsys):
    out = run(capsys, "過酸化水素水", "--queries", path)
    assert cells(out) == [["水素", "-", "-", "5", TITLE, "4-5"]]
    assert "in no query  過 酸 化, 水\n" in out


def test_a_text_that_nothing_matches_says_so(path, capsys):
    assert "queries      0\nin no query  no dogs here\n" in run(
        capsys, "No dogs here!", "--queries", path
    )
    out = run(capsys, "?!", "--queries", path)
    assert "normal form  (empty: no letter, number or symbol)\nqueries      0\n" in out


def test_a_dash_reads_a_text_a_line_whatever_its_bytes(path, capsys, monkeypatch):
    given_bytes = b"a dog\r\n\n\xff\x1b[31m golden \xe6\xb0\xb4\xe7\xb4\xa0"
    stdin = SimpleNamespace(buffer=io.BytesIO(given_bytes), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", stdin)
    out = run(capsys, "the first", "-", "--queries", path)
    assert [line[13:] for line in out.splitlines() if line.startswith("text ")] == [
        "the first",
        "a dog",
        "",
        "��[31m golden 水素",
    ]
    assert all(char.isprintable() or char == "\n" for char in out)
    assert re.findall(r"queries +(\d+)", out) == ["1", "1", "0", "2"]


def test_a_line_without_end_is_refused(path, monkeypatch):
    monkeypatch.setattr(inspect, "MOST_LINE", 100)
    stdin = SimpleNamespace(buffer=io.BytesIO(b"dog\n" + b"x" * 200), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", stdin)
    options = argparse.Namespace(texts=["-"], queries=path)
    with pytest.raises(UserError, match="standard input, line 2: over 100 bytes"):
        inspect.run(options)


def test_a_list_with_a_query_twice_is_refused_by_name(tmp_path):
    written = str(tmp_path / "twice.parquet")
    storage.write_table(written, make_list({"dog": {}, "Dog": {}}))
    with pytest.raises(UserError, match=r"twice\.parquet: queries 0 .*keep one"):
        inspect.run(argparse.Namespace(texts=["dog"], queries=written))


QUERIES = ["a", "b", "a b", "b a", "a a", "a b a b", "水", "水水"]


@given(st.lists(st.sampled_from(["a", "b", "c", "水", "B", "-"]), max_size=12).map(" ".join))
def test_places_are_where_the_query_stands_and_all_of_them(text):
    table = make_list({query: {} for query in QUERIES})
    (found,) = inspect.find([text], table, Matcher.build(table["query"]))
    tokens = [part for part in text.lower().split() if part != "-"]
    assert found.tokens == tokens
    expected = {}
    for row, query in enumerate(QUERIES):
        parts = list(query) if query[0] == "水" else query.split()
        places = [i for i in range(len(tokens)) if tokens[i : i + len(parts)] == parts]
        if places:
            expected[row] = [range(i, i + len(parts)) for i in places]
    assert dict(zip(found.rows, found.places, strict=True)) == expected
    sizes = [len(places[0]) for places in found.places]
    assert sizes == sorted(sizes, reverse=True)
    covered = {i for places in expected.values() for place in places for i in place}
    missed = [token for run in found.missed for token in run.split()]
    assert missed == [token for i, token in enumerate(tokens) if i not in covered]
