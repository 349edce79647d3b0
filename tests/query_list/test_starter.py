"""The starter list is made offline, has about 400,000 queries, and is the same every time."""

import json

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from query_list import cli, starter
from wit import storage, text
from wit.errors import UserError
from wit.hashing import hash64
from wit.matching import unmatchable
from wit.pairs import QUERIES


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return starter.build_starter()


def test_it_has_about_400000_queries_in_the_columns_of_every_list(table):
    assert table.schema.equals(QUERIES)
    assert 405_000 <= len(table) <= 410_000
    assert table["query_id"].to_pylist() == list(range(len(table)))
    assert (table["query_hash"].to_numpy() == hash64(table["query"])).all()
    for unknown in ("count", "pmi", "views"):
        assert table[unknown].null_count == len(table)


def test_its_queries_are_normalised_distinct_sorted_and_all_matchable(table):
    queries = table["query"].combine_chunks()
    assert text.normalise(queries).equals(queries)
    assert len(queries.unique()) == len(queries)
    assert queries.take(pc.sort_indices(queries)).equals(queries)
    assert len(unmatchable(queries)) == 0


def test_each_query_names_where_it_comes_from(table):
    rows = dict(zip(table["query"].to_pylist(), table["sources"].to_pylist(), strict=True))
    assert rows["dog"] == ["wordfreq", "wordnet"]
    assert rows["golden retriever"] == ["wordnet"]
    assert rows["instagram"] == ["wordfreq"]
    assert "0000" not in rows
    assert {tuple(names) for names in rows.values()} == {
        ("wordfreq",),
        ("wordnet",),
        ("wordfreq", "wordnet"),
    }


def test_what_means_nothing_alone_is_left_out(table):
    queries = set(table["query"].to_pylist())
    assert not queries & {
        "a",
        "s",
        "t",
        "7",
        "é",
        "ー",
        "の",
        "あ",
        "ก",
        "─",
        "→",
        "ll",
        "re",
        "ve",
        "doesn",
        "isn",
        "ain",
    }
    assert queries >= {"水", "愛", "🐶", "☀", "ox", "c a t", "don", "haven", "doesn t"}


def test_a_place_where_no_list_can_be_written_is_one_line(tmp_path):
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "beside.json").mkdir()
    (tmp_path / "file").write_text("")
    for place in ("folder.parquet", "beside.parquet", "file/x.parquet", f"{'a' * 300}.parquet"):
        assert says(str(tmp_path / place))
    assert says("/proc/nowhere/x.parquet")
    assert says("memory2://x/y.parquet")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["beside.json", "file", "folder.parquet"]


def says(out: str) -> str:
    with pytest.raises(UserError) as error:
        cli.main(["starter", "--out", out])
    assert "\n" not in str(error.value)
    return str(error.value)


def test_written_twice_it_has_the_same_bytes_and_says_what_it_was_made_of(tmp_path, table):
    for name in ("one", "two"):
        assert starter.write_starter(str(tmp_path / name / "queries.parquet")).equals(table)
    for name in ("queries.parquet", "queries.json"):
        one, two = (tmp_path / folder / name for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    assert storage.read_table(str(tmp_path / "one/queries.parquet")).equals(table)
    facts = json.loads((tmp_path / "one/queries.json").read_text())
    assert facts["queries"] == len(table)
    assert 400 <= facts["left_out"]["meaningless_alone"] <= 480
    assert facts["normalisation"] == text.VERSION
    assert {entry["name"]: entry["version"] for entry in facts["inputs"]} == {
        "wordfreq": "3.1.1",
        "wordnet": "3.1",
    }
    shared = sum(len(names) == 2 for names in table["sources"].to_pylist())
    assert sum(facts["queries_per_source"].values()) == len(table) + shared
