"""Query lists are read as they come: with columns missing, of other types, damaged, hostile."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_list import lists
from tests.query_list.lists import WORD, WORDNET, make_list
from wit import storage
from wit.errors import UserError
from wit.hashing import hash64
from wit.pairs import QUERIES


@pytest.fixture
def read(tmp_path):
    def written(table: pa.Table) -> pa.Table:
        path = str(tmp_path / "list.parquet")
        storage.write_table(path, table)
        return lists.read_list(path)

    return written


def test_a_list_is_read_as_it_was_written(read):
    table = make_list({"dog": {"sources": [WORD], "count": 3}, "a b": {"pmi": 1.5, "views": 2}})
    assert read(table).equals(table)
    assert read(make_list({})).equals(make_list({}))


def test_only_the_queries_are_needed(read):
    table = read(pa.table({"query": pa.array(["dog", "cat"], pa.large_string()), "note": [1, 2]}))
    assert table.schema.equals(QUERIES)
    assert table["query_hash"].to_numpy().tolist() == hash64(pa.array(["dog", "cat"])).tolist()
    assert table["sources"].null_count == table["count"].null_count == 2


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": ["dog"]}, "no column 'query'; it has text"),
        ({"query": ["dog", None]}, "row 1: its query is null"),
        ({"query": ["dog"], "views": ["many"]}, "column 'views' holds string, not int64"),
        ({"query": ["dog"], "sources": ["wordnet"]}, "column 'sources' holds string, not list"),
        ({"query": ["dog"], "sources": [list(map(str, range(99)))]}, "more than 60 sources"),
    ],
)
def test_what_is_no_query_list_is_refused_in_one_line(read, columns, said):
    with pytest.raises(UserError, match=said) as error:
        read(pa.table(columns))
    assert "list.parquet" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_or_no_parquet_is_refused(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and no more")
    for name in ("x.parquet", "y.parquet"):
        with pytest.raises(UserError, match=name):
            lists.read_list(str(tmp_path / name))


def test_sources_are_the_paper_s_in_its_order_and_then_others():
    table = make_list({"a": {"sources": ["zoo", WORDNET]}, "b": {}, "c": {"sources": ["x", WORD]}})
    names = lists.sources_of(table)
    assert names == [WORD, WORDNET, "x", "zoo"]
    codes = lists.source_codes(table.slice(0), names).tolist()
    assert [lists.names_in(code, names) for code in codes] == [
        [WORDNET, "zoo"],
        [],
        [WORD, "x"],
    ]
    assert lists.source_codes(table.slice(2), [WORD]).tolist() == [1]


@given(st.text(max_size=200))
def test_a_query_as_a_cell_is_printable_and_short(query):
    cell = lists.shortened(query)
    assert cell.isprintable()
    assert len(cell) <= lists.LONGEST


def test_columns_are_aligned_also_where_characters_are_wide():
    lines = lists.align(("query", "count"), [["ox", "1,234"], ["愛犬", "-"], ["7", "12"]])
    assert lines == ["query  count", "ox     1,234", "愛犬       -", "7         12"]
    assert lists.align(("a", "b"), []) == ["a  b"]
