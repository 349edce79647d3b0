"""`wit queries diff`: what was added, removed and changed between two lists, by query_hash."""

import argparse
import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_list import diff, lists
from query_list.starter import write_starter
from tests.query_list.lists import BIGRAM, TITLE, WORD, WORDNET, make_list
from wit import storage
from wit.errors import UserError

OLD = {
    "dog": {"sources": [WORD, WORDNET], "count": 900},
    "cat": {"sources": [WORD], "count": 800},
    "blue dress": {"sources": [BIGRAM], "count": 120, "pmi": 3.5},
    "walrus": {"sources": [WORDNET]},
    "gone": {"sources": [WORD], "count": 101},
}
NEW = {
    "paris": {"sources": [TITLE], "views": 5_000},
    "cat": {"sources": [WORD, TITLE], "count": 800, "views": 70},
    "dog": {"sources": [WORDNET, WORD], "count": 900},
    "red hat": {"sources": [BIGRAM], "count": 300, "pmi": 8.25},
    "walrus": {"sources": [WORDNET]},
    "blue dress": {"sources": [BIGRAM], "count": 130, "pmi": 3.25},
    "pi day": {"sources": [BIGRAM], "count": 400, "pmi": 2.5},
}


@pytest.fixture
def write(tmp_path):
    def written(name: str, table: pa.Table) -> str:
        path = str(tmp_path / f"{name}.parquet")
        storage.write_table(path, table)
        return path

    return written


def run(capsys, *arguments: str) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    diff.add_arguments(parser)
    code = diff.run(parser.parse_args(arguments))
    return code, capsys.readouterr().out


def block(out: str, title: str) -> list[list[str]]:
    """The rows of cells of the table below a title, without its head."""
    lines = next(part for part in out.split("\n\n") if part.startswith(title)).splitlines()
    return [re.split(r"  +", line) for line in lines[2:]]


def test_a_list_equals_itself_in_any_order_and_the_code_is_0(write, capsys):
    turned = dict(reversed(OLD.items()))
    code, out = run(capsys, write("a", make_list(OLD)), write("b", make_list(turned)))
    assert code == 0
    assert "the lists are equal" in out


def test_added_removed_and_kept_are_counted_by_source_and_the_code_is_1(write, capsys):
    code, out = run(capsys, write("a", make_list(OLD)), write("b", make_list(NEW)))
    assert code == 1
    rows = {row.split()[0]: row.split()[1:] for row in out.split("\n\n")[1].splitlines()[1:]}
    assert rows == {  # A, B, kept, added, removed
        "queries": ["5", "7", "4", "3", "1"],
        WORD: ["3", "2", "2", "0", "1"],
        BIGRAM: ["1", "3", "1", "2", "0"],
        TITLE: ["0", "2", "0", "1", "0"],
        WORDNET: ["2", "2", "2", "0", "0"],
    }
    assert "kept with another count, PMI or views: 2" in out  # cat, blue dress


def test_what_was_added_is_told_by_count_by_pmi_and_by_views(write, capsys):
    a, b = write("a", make_list(OLD)), write("b", make_list(NEW))
    _, out = run(capsys, a, b)
    assert [row[0] for row in block(out, "added, by count: 2")] == ["pi day", "red hat"]
    assert [row[0] for row in block(out, "added, by PMI: 2")] == ["red hat", "pi day"]
    assert block(out, "added, by views: 1") == [["paris", "-", "-", "5,000", TITLE]]
    assert block(out, "removed, by count: 1") == [["gone", "101", "-", "-", WORD]]
    _, out = run(capsys, a, b, "--limit", "1")
    assert block(out, "added, by count: 1 of 2") == [["pi day", "400", "2.50", "-", BIGRAM]]


def test_queries_whose_sources_changed_are_told_with_both(write, capsys):
    _, out = run(capsys, write("a", make_list(OLD)), write("b", make_list(NEW)))
    assert block(out, "kept with other sources: 1") == [[WORD, f"{WORD}, {TITLE}", "1"]]
    shown = block(out, "kept with other sources, as B has them: 1")
    assert shown == [["cat", "800", "-", "70", WORD, f"{WORD}, {TITLE}"]]


def test_a_list_without_counts_is_compared_too(tmp_path, capsys):
    path = str(tmp_path / "starter.parquet")
    starter = write_starter(path)
    changed = starter.filter(pa.compute.not_equal(starter["query"], "dog"))
    other = str(tmp_path / "other.parquet")
    storage.write_table(other, changed.select(["query", "sources"]))
    assert run(capsys, path, path)[0] == 0
    code, out = run(capsys, path, other)
    assert code == 1
    title = "removed, without count, PMI and views: 1"
    assert block(out, title) == [["dog", "-", "-", "-", "wordfreq, wordnet"]]


def test_what_a_terminal_would_obey_is_not_passed_on(write, capsys):
    hostile = {"a\x1b[2J\rb\n\u202ec": {"sources": ["\x1b]0;x\x07"], "count": 5}}
    _, out = run(capsys, write("a", make_list(OLD)), write("b", make_list(OLD | hostile)))
    assert all(char.isprintable() or char == "\n" for char in out)
    assert "a�[2J b �c" in out


def test_a_query_that_stands_twice_is_refused_with_its_rows(write):
    doubled = pa.concat_tables([make_list(OLD), make_list(OLD).slice(3, 1)])
    paths = write("a", make_list(OLD)), write("b", doubled)
    with pytest.raises(UserError, match=r"b\.parquet: query 'walrus' stands in rows 3 and 5"):
        diff.compare(*map(lists.read_list, paths), paths)


names = st.lists(st.sampled_from([WORD, BIGRAM, TITLE, WORDNET, "mine"]), unique=True, max_size=4)
rows = st.fixed_dictionaries(
    {
        "sources": st.none() | names,
        "count": st.none() | st.integers(0, 3),
        "pmi": st.none() | st.sampled_from([0.5, 2.0]),
        "views": st.none() | st.integers(0, 2),
    }
)
some_lists = st.dictionaries(st.sampled_from([*"abcdefgh", "a b", "愛"]), rows, max_size=8)


@given(some_lists, some_lists)
def test_the_difference_is_that_of_plain_dicts(a, b):
    found = diff.compare(make_list(a), make_list(b))
    both = [query for query in b if query in a]

    def sources(row):
        return set(row["sources"] or [])

    assert found.added["query"].to_pylist() == [query for query in b if query not in a]
    assert found.removed["query"].to_pylist() == [query for query in a if query not in b]
    assert found.before["query"].to_pylist() == found.after["query"].to_pylist() == both
    assert found.moved.tolist() == [sources(a[q]) != sources(b[q]) for q in both]
    numbers = [tuple((a[q][n], b[q][n]) for n in ("count", "pmi", "views")) for q in both]
    assert found.renumbered.tolist() == [any(x != y for x, y in row) for row in numbers]
    same = a.keys() == b.keys() and not found.moved.any() and not found.renumbered.any()
    assert found.equal == same
    assert list(diff.told(found, 2))


def test_the_limit_is_a_number(capsys):
    parser = argparse.ArgumentParser()
    diff.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["a", "b", "--limit", "-1"])
    assert "no number of rows" in capsys.readouterr().err
