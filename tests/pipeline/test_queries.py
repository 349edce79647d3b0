"""A query list is taken as people have it, and told apart by its contents."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.queries import fingerprint, read_list
from wit.errors import UserError
from wit.hashing import hash64


def test_a_text_file_is_normalised_and_what_repeats_or_never_matches_is_left_out(tmp_path):
    path = tmp_path / "q.txt"
    path.write_text("Dress\n\nSt. Louis\ndress\n?!\nＴ-shirt\n", encoding="utf-8")
    table, left_out = read_list(str(path), "default")
    assert table["query"].to_pylist() == ["dress", "st louis", "t shirt"]
    assert table["query_id"].to_pylist() == [0, 1, 2]
    assert table["query_hash"].to_numpy().tolist() == hash64(table["query"]).tolist()
    assert left_out == {"unmatchable": 1, "repeated": 1}


def test_metaclips_list_stays_as_it_is_in_its_own_mode(tmp_path):
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(["Dress", "dress", "St. Louis", "?!"]))
    table, _ = read_list(str(path), "metaclip")
    assert table["query"].to_pylist() == ["Dress", "dress", "St. Louis", "?!"]


def test_our_own_list_keeps_what_it_says_of_a_query(tmp_path):
    path = tmp_path / "q.parquet"
    pq.write_table(pa.table({"query": ["dress"], "views": [7], "sources": [["wordnet"]]}), path)
    table, _ = read_list(str(path), "default")
    assert table.to_pylist()[0]["views"] == 7
    assert table.to_pylist()[0]["sources"] == ["wordnet"]


def test_two_lists_have_one_fingerprint_only_if_their_queries_are_the_same(tmp_path):
    prints = []
    for number, queries in enumerate(["a\nb", "A\nb\n", "b\na", "a\nb\nc"]):
        path = tmp_path / f"{number}.txt"
        path.write_text(queries)
        prints.append(fingerprint(read_list(str(path), "default")[0])["sha256"])
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.txt", None, "no such query list"),
        ("none.parquet", b"", "not a readable Parquet"),
        ("empty.txt", b"\n\n", "no query in it"),
        ("marks.txt", b"?!\n...\n", "no query in it"),
        ("latin.txt", b"caf\xe9\n", "not UTF-8 at byte 3"),
        ("list.json", b"{}", "list of strings"),
        ("list.json", b"[1", "not JSON"),
    ],
)
def test_a_file_that_is_no_list_is_named_with_what_is_wrong(tmp_path, name, content, words):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        read_list(str(path), "default")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_without_queries_lists_the_columns_it_has(tmp_path):
    path = tmp_path / "q.parquet"
    pq.write_table(pa.table({"word": ["dress"]}), path)
    with pytest.raises(UserError, match="no column 'query'; it has word"):
        read_list(str(path), "default")
