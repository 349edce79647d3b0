"""What a person may type for a harvest and in a query list: refused at once, with its name."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import arguments, options, queries
from wit.errors import UserError


@pytest.mark.parametrize(
    "wrong",
    [
        ["--seed", "-1"],
        ["--seed", str(2**64)],
        ["--waves", "300"],
        ["--placeholder-urls", "1"],
        ["--wave-hours", "-3"],
        ["--wave-hours", "nan"],
        ["--min-text", "10", "--max-text", "5"],
        ["--encode-quality", "500"],
        ["--retries", "-1"],
        ["--host-rate", "-1"],
        ["--max-aspect-ratio", "0.5"],
        ["--max-aspect-ratio", "nan"],
        ["--contact", "me"],
        ["--resolve", "a.example"],
    ],
)
def test_a_value_that_would_fail_later_is_refused_at_once(wrong):
    command = ["x.parquet", "--out", "o", "--queries", "absent.txt", "--contact", "a@b.example"]
    with pytest.raises(UserError) as error:
        options.make_config(arguments.parse([*command, *wrong])[0])
    assert "absent.txt" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", ["abc", "0", "1.5", str(10**30)])
def test_a_number_that_is_none_is_named(wrong, capsys):
    command = ["x", "--out", "o", "--queries", "q", "--contact", "a@b.example"]
    with pytest.raises(SystemExit):
        arguments.parse([*command, "--per-query", wrong])
    said = capsys.readouterr().err.splitlines()[-1]
    assert wrong in said
    assert "_positive" not in said


@pytest.mark.parametrize("match", ["default", "metaclip"])
def test_a_list_with_nulls_loses_them_alone(tmp_path, match):
    path = str(tmp_path / "q.parquet")
    pq.write_table(pa.table({"query": ["dress", None, "hat", "dress", None]}), path)
    table, left_out, _ = queries.read_list(path, match)
    assert table["query"].to_pylist() == ["dress", "hat"]
    assert left_out == {"unmatchable": 2, "repeated": 1}


def test_what_is_left_out_of_a_list_is_left_out_for_one_reason(tmp_path):
    path = tmp_path / "q.txt"
    path.write_text("dress\n?\n!\nDress\n")
    table, left_out, _ = queries.read_list(str(path), "default")
    assert len(table) + sum(left_out.values()) == 4


@pytest.mark.parametrize(
    "columns",
    [{"query": [["a"]]}, {"query": ["a"], "count": ["many"]}, {"query": ["a"], "sources": ["b"]}],
)
def test_a_list_with_a_column_of_another_type_is_named(tmp_path, columns):
    path = str(tmp_path / "q.parquet")
    pq.write_table(pa.table(columns), path)
    with pytest.raises(UserError, match=r"q\.parquet: column '\w+' holds"):
        queries.read_list(path, "default")


def test_half_a_surrogate_pair_in_a_list_is_named(tmp_path):
    path = tmp_path / "q.json"
    path.write_text('["dress", "\\ud800"]')
    with pytest.raises(UserError, match="surrogate"):
        queries.read_list(str(path), "default")
