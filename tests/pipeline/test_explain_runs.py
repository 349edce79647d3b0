"""Explain of runs of every kind: small, unfinished, with things taken down; and the command."""

import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.crawl.table import PAGES
from pipeline.explain import queries as explained_queries
from pipeline.explain.command import explain, kind_of, main
from pipeline.explain.story import Story
from pipeline.explain.words import render
from tests.pipeline.explained import MANY, check, fates, step
from tests.pipeline.rows import HOUR, make_rows
from wit import cli, storage
from wit.errors import UserError


@pytest.fixture(scope="module")
def told(finished) -> pd.DataFrame:
    """The true fate of every candidate."""
    return fates(finished)


# --- small runs -------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", ["independent", "shared"])
def test_the_true_reason_is_named_where_rates_defer_and_reserves_end(harvest, sampling):
    hosts = ["a.example", "b.example", "closed.example"]
    rows = [make_rows(hosts, 60), make_rows(["c.example", "closed.example"], 30, "a dress")]
    run, funnel = harvest(rows, per_query=9, waves=2, wave_hours=5 * HOUR, sampling=sampling)
    rows = fates(Path(run.out))
    assert rows["fate"].value_counts().to_dict() == {
        k: n for k, n in funnel.items() if k in set(rows["fate"])
    }
    compared = check(Path(run.out), rows, 100, 9)
    assert compared["deferred"] > 0
    assert compared["over_cap"] > 0
    for name in ("red", "dress"):
        (story,) = explain(run.out, name, limit=MANY)
        rank = [pair["fate"] for pair in step(story, "pairs")["pairs"]]
        assert "over_cap" in rank
        assert story.fate == "short"


def test_a_short_query_says_whether_its_reserve_or_the_waves_came_to_an_end(harvest):
    rows = [make_rows(["closed.example"], 60)]
    run, _ = harvest(rows, "dress", per_query=5, waves=2, out="waves")
    (story,) = explain(run.out, "dress")
    assert "short by 5: what wave 2 drew failed" in story.reason
    run, _ = harvest(rows, "dress", per_query=5, waves=5, out="reserve")
    (story,) = explain(run.out, "dress")
    assert "its reserve of 4 x 5 pairs is exhausted: 20 have no picture" in story.reason
    assert step(story, "fates")["fates"]["robots_disallowed"] == 20


def test_a_query_is_looked_for_in_no_more_candidates_than_it_says(harvest, monkeypatch):
    rows = [make_rows(["a.example"], 20, "a dress"), make_rows(["b.example"], 20, "red dress")]
    run, _ = harvest(rows, per_query=50)
    monkeypatch.setattr(explained_queries, "SCANNED", 19)
    (story,) = explain(run.out, "dress", limit=MANY)
    assert "among the first 20 candidates" in render([story], 200)
    assert {pair["source"] for pair in step(story, "pairs")["pairs"]} == {0}


# --- unfinished runs --------------------------------------------------------------------------

BACKWARDS = [  # what is taken from a finished run, and what a success was waiting for before it
    (["coverage*", "manifest.json", "report.html"], "success"),
    (["fetched", "shards"], "not fetched yet"),
    (["lanes/*/0*"], "not planned yet"),
    (["hosts/*/0*"], "robots.txt yet"),
    (["selection"], "has not drawn yet"),
    (["balance", "target.json"], "nothing is drawn yet"),
    (["counts"], "nothing is drawn yet"),
    (["unique/*.state"], "not told duplicates yet"),
    (["unique/*.losers"], "not told duplicates yet"),
    (["unique", "candidates/index.npy"], "not told duplicates yet"),
]


def test_a_run_is_explained_as_far_as_it_has_come(finished, told, tmp_path):
    row = told[told["fate"] == "success"].iloc[3]
    query = pq.read_table(finished / "queries/queries.parquet")["query"][int(row["query_ids"][0])]
    host, at = row["url"].split("/")[2], Path(shutil.copytree(finished, tmp_path / "at"))
    for number, (gone, words) in enumerate(BACKWARDS):
        for path in (p for pattern in gone for p in list(at.glob(pattern))):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        at = at.rename(tmp_path / str(number))
        (story,) = [s for s in explain(str(at), row["url"]) if row["pair_id"] in str(s.to_json())]
        assert (story.fate if words == "success" else story.reason).count(words)
        assert (story.fate == "waiting") == (words != "success")
        assert step(story, "found")["source"] == row["source"]
        for what, kind in ((query.as_py(), "query"), (host, "host"), ("http://a.example/b", "url")):
            assert explain(str(at), what, kind=kind)
    first, *others = sorted(at.glob("candidates/*.json"))
    first.unlink()
    (story,) = explain(str(at), "http://a.example/b.jpg")
    assert story.fate == "waiting"
    assert step(story, "unread") == {"unread": 1, "sources": len(others) + 1}


# --- what is taken down -----------------------------------------------------------------------


def test_of_what_is_taken_down_only_the_log_is_told(finished, told, tmp_path):
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    row = told[told["fate"] == "success"].iloc[0]
    take = ["shards", "takedown", str(out), "--pair-id", row["pair_id"], "--reason", "asked to"]
    assert cli.main(take) == 0
    for what in (row["url"], row["pair_id"], row["key"]):
        stories = explain(str(out), what)
        (story,) = [s for s in stories if s.title == row["pair_id"]]
        assert story.fate == "taken_down"
        assert step(story, "taken_down")["takedowns"][0]["reason"] == "asked to"
        said = json.dumps([s.to_json() for s in stories]) + render(stories)
        assert row["text"] not in said
        assert row["url"] not in said


def test_where_candidates_are_deleted_shards_still_tell_of_their_samples(finished, told, tmp_path):
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    for name in ("candidates", "selection", "lanes"):  # as docs/takedown.md says
        shutil.rmtree(out / name)
    for fate in ("success", "not_found"):
        row = told[told["fate"] == fate].iloc[0]
        (story,) = explain(str(out), row["key"])
        assert (story.fate, story.title) == (fate, row["url"])
    assert "9-digit key" in error_of([row["pair_id"], str(out)])
    assert "9-digit key" in error_of([row["url"], str(out)])


def error_of(argv: list[str]) -> str:
    """The one line of a user's error."""
    with pytest.raises(UserError) as error:
        main(argv)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- the command ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("http://a.example/b.jpg", "url"),
        ("//a.example/b.jpg", "url"),
        ("a.example/b.jpg", "url"),
        ("data:image/gif;base64,AA", "url"),
        ("0123456789abcdefABCDEF0123456789", "pair"),
        ("000120034", "pair"),
        ("a.example", "host"),
        ("http://a.example:8080", "host"),
        ("192.168.1.20", "host"),
        ("red dress", "query"),
        ("#1234", "query"),
        ("St. Louis", "query"),
        ("12", "query"),
        ("3.5", "query"),
    ],
)
def test_what_an_argument_is_is_recognised(what, kind):
    assert kind_of(what) == kind


def test_the_command_prints_a_screen_or_the_same_as_json(finished, told, capsys):
    row = told[told["fate"] == "success"].iloc[0]
    assert cli.main(["explain", row["key"], str(finished)]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 60
    assert cli.main(["explain", row["key"], str(finished), "--json"]) == 0
    (story,) = json.loads(capsys.readouterr().out)
    assert all(step["step"] in text for step in story["steps"])
    assert step_of(story, "stored")["said"] in " ".join(text.split())


def step_of(story: dict, name: str) -> dict:
    return next(step for step in story["steps"] if step["step"] == name)


def test_a_stored_picture_is_where_it_is_said_to_be(finished, told):
    row = told[told["fate"] == "success"].iloc[1]
    (story,) = explain(str(finished), row["key"])
    facts = step(story, "stored")
    tar = finished / f"shards/{row['key'][:-4]}.tar"
    image = tar.read_bytes()[facts["image_offset"] :][: facts["image_size"]]
    assert hashlib.sha256(image).hexdigest() == facts["sha256"]


def test_errors_are_one_line_that_names_what_to_do(finished, tmp_path):
    assert "run.json" in error_of(["x", str(tmp_path)])
    assert "999990000" in error_of(["999990000", str(finished)])
    assert "32 hex" in error_of(["x", str(finished), "--as", "pair"])


def test_a_stranger_s_text_commands_no_terminal():
    story = Story("pair", "a\x1b[2Jb\u202e\nc", "waiting", "\x07", [])
    assert not {"\x1b", "\x07", "\u202e"} & set(render([story]))
    assert len(render([story]).splitlines()) == 2


def test_of_a_crawl_a_page_s_row_is_told(tmp_path):
    path = storage.join(str(tmp_path), "pages.parquet")
    with pytest.raises(UserError, match=r"run\.json"):
        explain(str(tmp_path), "http://a.example/")
    page = {"url": "http://a.example/", "depth": 1, "parent": "http://b.example/"}
    page |= {"outcome": "not_found", "message": "HTTP 404", "status": 404}
    table = pa.Table.from_pylist([page], schema=PAGES)
    storage.write_table(path, table)
    (story,) = explain(str(tmp_path), "http://A.example")
    assert (story.fate, step(story, "met")["depth"]) == ("not_found", 1)
    assert step(story, "answer")["status"] == 404
    (story,) = explain(str(tmp_path), "http://a.example/other")
    assert story.fate == "not_met"
