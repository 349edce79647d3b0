"""Explain names the true reason of every pair, query and host, with the true numbers."""

import json
from collections import Counter

import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.demo import truth
from pipeline.explain import lookup
from pipeline.explain.command import explain, pair_stories
from pipeline.explain.files import Files
from pipeline.explain.words import render
from pipeline.run import load_run
from tests.pipeline.demo_run import CAP
from tests.pipeline.explained import Orders, check, fates, harvest_pages, some_of_each, step
from wit import blocks, storage


@pytest.fixture(scope="module")
def told(finished) -> pd.DataFrame:
    """The true fate of every candidate."""
    return fates(finished)


def test_the_true_reason_is_named_for_a_hundred_pairs_of_each_fate_of_the_demo(finished, told):
    compared = check(finished, told, 100, CAP)
    funnel = json.loads((finished / "manifest.json").read_text())["funnel"]
    for fate in ("success", "not_found", "robots_disallowed", "over_cap", "other_text"):
        assert compared[fate] == min(100, funnel[fate])
    assert len(compared) >= 18


def test_the_demo_s_own_truth_agrees(finished, told):
    files = Files(load_run(str(finished)))
    for fate, some in some_of_each(told[told["outcome"].notna()], 5).items():
        for row in some.itertuples():
            (story,) = pair_stories(files, row.pair_id, 10)
            assert story.fate in (truth.expected(row.url), "placeholder"), fate


@pytest.mark.long
def test_the_true_reason_is_named_for_a_hundred_pairs_of_each_fate_of_real_pages(
    shared_data, tmp_path, demo_queries, monkeypatch
):
    run, carry_out = harvest_pages(shared_data, tmp_path, demo_queries, monkeypatch)
    funnel = carry_out()
    rows = fates(tmp_path / "pages")
    counts = rows["fate"].value_counts().to_dict()
    assert counts == {k: funnel[k] for k in counts}
    compared = check(tmp_path / "pages", rows, 100, run.config.per_query)
    assert compared == {fate: min(100, count) for fate, count in counts.items()}
    for fate in ("deferred", "blocklisted", "placeholder", "robots_disallowed", "over_cap"):
        assert compared[fate] > 20
    assert len(compared) > 40


# --- URLs -------------------------------------------------------------------------------------


def test_a_url_in_any_spelling_is_the_same_url(finished, told):
    url = told[told["fate"] == "success"].iloc[0]["url"]
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    spelled = [
        url,
        f"  {scheme.upper()}://{host.upper()}/{path}#part ",
        f"{scheme}://{host}/./x/../{path}",
        f"{scheme}://{host}:80/{path}",
        f"{host}/{path}",
    ]
    stories = [[s.to_json() for s in explain(str(finished), text)] for text in spelled]
    assert stories[0][0]["fate"] == "success"
    assert all(story == stories[0] for story in stories)


def test_all_texts_of_a_url_are_told_the_one_that_stays_first(finished, told):
    texts = told[told["fate"] == "other_text"].groupby("url").size()
    url, lost = texts.idxmax(), told[told["url"] == texts.idxmax()]["pair_id"].nunique()
    stories = explain(str(finished), url, limit=50)
    assert len(stories) == lost > 2
    assert [story.fate == "other_text" for story in stories] == [False] + [True] * (lost - 1)
    assert len(explain(str(finished), url, limit=2)) == 2


def test_a_url_that_was_never_matched_says_what_cannot_be_known(finished):
    (story,) = explain(str(finished), "http://blog.example/never-there.jpg")
    assert story.fate == "no_candidate"
    tallies = [json.loads(p.read_text()) for p in finished.glob("candidates/0*.json")]
    dropped = sum((Counter(t["counts"]) for t in tallies), Counter())
    passed = dropped.pop("extracted")
    assert step(story, "dropped")["counts"] == dropped
    assert f"{passed:,}" in story.reason
    assert "cannot be known" in render([story], 200)


def test_an_address_that_a_harvest_drops_says_why(finished):
    for text, fate in (("data:image/png;base64,AA", "data_url"), ("ftp://a.example/b", "not_http")):
        (story,) = explain(str(finished), text)
        assert story.fate == fate


def test_a_url_is_looked_up_by_two_small_reads_a_file_and_no_scan(finished, told, monkeypatch):
    monkeypatch.setattr(lookup, "_scan", None)
    monkeypatch.setattr(blocks, "HEAD", 256)  # as of files too large to be read whole
    files, reads = Files(load_run(str(finished))), []

    def counted(path, start=None, end=None):
        reads.append((path, end - start))
        return read_bytes(path, start, end)

    read_bytes = storage.read_bytes
    monkeypatch.setattr(storage, "read_bytes", counted)
    row = told.iloc[5]
    found = lookup.find_url(files, int(row["image"], 16)).found
    mine = told[told["image"] == row["image"]]
    assert sorted(zip(found["source"], found["row"], strict=True)) == sorted(
        zip(mine["source"], mine["row"], strict=True)
    )
    keys = Counter(path for path, _ in reads if path.endswith(".keys"))
    assert len(keys) == len(list(finished.glob("unique/*.keys")))
    assert max(keys.values()) <= 4
    assert sum(size for path, size in reads if path.endswith(".keys")) < 2000 * len(keys)


# --- keys, queries, hosts ---------------------------------------------------------------------


def test_a_key_is_the_pair_of_its_sample(finished, told):
    row = told[told["fate"] == "not_found"].iloc[0]
    by_key, by_id = (explain(str(finished), what) for what in (row["key"], row["pair_id"]))
    assert by_key == by_id
    assert step(by_key[0], "lane")["key"] == row["key"]


def test_a_query_s_numbers_are_those_of_the_tables(finished, told):
    cover = pq.read_table(finished / "coverage.parquet").to_pandas().set_index("query_id")
    orders = Orders(finished, told)
    fate_of = told.drop_duplicates("pair_id").set_index("pair_id")["fate"]
    over = cover[cover["unique"] > CAP].index[:10]
    short = cover[(cover["short_by"] > 0) & (cover["unique"] <= CAP)].index[:10]
    for q in [*over, *short]:
        (story,) = explain(str(finished), f"#{q}", limit=20)
        facts, row = step(story, "counts"), cover.loc[q]
        for name in ("matched", "unique", "drawn", "present", "short_by"):
            assert facts[name] == row[name]
        assert story.fate == ("short" if row["short_by"] else "full")
        first = sorted(orders.of[q], key=lambda pair: orders.place(q, pair))[:20]
        shown = step(story, "pairs")["pairs"]
        assert [pair["pair_id"] for pair in shown] == first
        assert [pair["fate"] for pair in shown] == [fate_of[pair] for pair in first]


def test_a_short_query_says_what_became_of_its_pairs(finished):
    cover = pq.read_table(finished / "coverage.parquet").to_pandas()
    row = cover[(cover["short_by"] > 0) & (cover["unique"] <= CAP)].iloc[0]
    (story,) = explain(str(finished), row["query"])
    fates = step(story, "fates")["fates"]
    assert sum(n for fate, n in fates.items() if fate != "success") == row["short_by"]
    assert f"short by {row['short_by']}" in story.reason


def test_a_query_is_found_in_any_spelling_and_another_shows_those_that_are_near(finished):
    (story,) = explain(str(finished), "  Long-SLEEVE!")
    assert story.title.startswith("long sleeve (#")
    (story,) = explain(str(finished), "white shirt zzyzx")
    assert story.fate == "not_in_list"
    assert {"white", "shirt", "white shirt"} <= set(step(story, "near")["queries"])
    (story,) = explain(str(finished), "?!")
    assert "nothing but separators" in story.reason


def test_a_query_without_a_pair_says_so(finished):
    cover = pq.read_table(finished / "coverage.parquet").to_pandas()
    query = cover[cover["matched"] == 0].iloc[0]["query"]
    (story,) = explain(str(finished), query, kind="query")
    assert story.fate == "unmatched"


def test_a_host_s_numbers_are_those_of_the_shards(finished, told):
    stored = told[told["outcome"].notna()].copy()
    stored["host"] = stored["url"].str.extract(r"^https?://(?:www\.)?([^/:]+)")
    for host, rows in stored.groupby("host"):
        (story,) = explain(str(finished), host, kind="host")
        assert step(story, "outcomes")["outcomes"] == rows["outcome"].value_counts().to_dict()
    (story,) = explain(str(finished), "http://quiet.example")
    assert "Disallow: /private/" in step(story, "robots")["rules"]
    (story,) = explain(str(finished), "unheard.example")
    assert story.fate == "not_drawn"


def test_the_line_of_robots_txt_that_forbids_is_named(finished, told):
    rows = told[(told["fate"] == "robots_disallowed") & told["url"].str.contains("quiet.example")]
    (story,) = explain(str(finished), rows.iloc[0]["pair_id"])
    assert step(story, "rule")["rule"] == "Disallow: /private/"
