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
    table, left_out, examples = read_list(str(path), "default")
    assert table["query"].to_pylist() == ["dress", "st louis", "t shirt"]
    assert table["query_id"].to_pylist() == [0, 1, 2]
    assert table["query_hash"].to_numpy().tolist() == hash64(table["query"]).tolist()
    assert left_out == {"unmatchable": 1, "repeated": 1}
    assert examples == {"unmatchable": "?!", "repeated": "dress"}


def test_metaclips_queries_stay_as_they_are_in_its_own_mode_but_for_what_can_never_match(tmp_path):
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(["Dress", "dress", " hat ", "St. Louis", "Dress", "?!"]))
    found = read_list(str(path), "metaclip")
    assert found.table["query"].to_pylist() == ["Dress", "dress", " hat "]
    assert found.left_out == {"repeated": 1, "unmatchable": 2}
    assert found.examples == {"repeated": "Dress", "unmatchable": "St. Louis"}


@pytest.mark.parametrize("match", ["default", "metaclip"])
def test_the_ends_of_a_text_files_lines_do_not_count(tmp_path, match):
    path = tmp_path / "q.txt"
    path.write_bytes(b"red dress  \r\n\that\r\n   \r\nsea\n")
    table = read_list(str(path), match).table
    assert table["query"].to_pylist() == ["red dress", "hat", "sea"]


def test_what_is_left_out_is_told_in_one_line_with_an_example(tmp_path):
    path = tmp_path / "q.txt"
    path.write_text("dress\nDress\nDRESS\n?!\n")
    found = read_list(str(path), "default")
    assert found.told("q.txt") == (
        "1 queries of q.txt; left out: 2 repeated, as 'Dress'; 1 that no text can match, as '?!'"
    )
    path.write_text("dress\nhat\n")
    assert read_list(str(path), "default").told("q.txt") == "2 queries of q.txt"


def test_our_own_list_keeps_what_it_says_of_a_query(tmp_path):
    path = tmp_path / "q.parquet"
    pq.write_table(pa.table({"query": ["dress"], "views": [7], "sources": [["wordnet"]]}), path)
    table = read_list(str(path), "default").table
    assert table.to_pylist()[0]["views"] == 7
    assert table.to_pylist()[0]["sources"] == ["wordnet"]


def test_two_lists_have_one_fingerprint_only_if_their_queries_are_the_same(tmp_path):
    prints = []
    for number, queries in enumerate(["a\nb", "A\nb\n", "b\na", "a\nb\nc"]):
        path = tmp_path / f"{number}.txt"
        path.write_text(queries)
        prints.append(fingerprint(read_list(str(path), "default").table)["sha256"])
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
