"""A dataset that grows: a crawl more is a harvest of both, and no picture is asked for twice."""

from __future__ import annotations

import hashlib
import itertools
import random

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import fetching, onto, unique, waves
from pipeline.arguments import parse
from pipeline.explain.command import explain
from pipeline.explain.lookup import hash_of
from pipeline.run import open_run
from pipeline.sources import Source
from tests.pipeline.rows import Web, go_on, shard_rows
from wit import shards, storage
from wit.errors import UserError
from wit.takedown import make_request, takedown

TEXTS = ["red dress", "a dress", "red", "Dress, red"]
NO_LIMIT = {"fetch": {"user_agent": "T/1 (a@b.example)"}}


def make_crawl(seed: int, sources: int = 3, pictures: int = 120, one_text: bool = False):
    """Rows of some sources; pictures come up again in other sources and crawls."""
    rng = random.Random(seed)

    def row() -> tuple[str, str]:
        number = rng.randrange(pictures)
        text = TEXTS[number % 4] if one_text else rng.choice(TEXTS)
        return f"http://h{number % 7}.example/{number}.jpg", text

    return [[row() for _ in range(rng.randrange(40))] for _ in range(sources)]


@pytest.fixture
def grow(harvest):
    """Harvests crawls one onto the other; the run, and the funnel after each."""

    def go(*crawls, out: str = "grown", **changes):
        rows, begins, funnels = [], [], []
        for crawl in crawls:
            begins.append(len(rows))
            rows += crawl
            run, funnel = harvest(rows, out=out, crawls=list(begins), **(NO_LIMIT | changes))
            funnels.append(funnel)
        return run, funnels

    return go


@pytest.fixture
def all_there(monkeypatch):
    """Every picture can be fetched."""
    monkeypatch.setattr(Web, "has", lambda self, url: True)


def ids(rows: list[dict]) -> set[bytes]:
    return {row["pair_id"] for row in rows}


def stored(run) -> list[dict]:
    return [row for row in shard_rows(run) if row["outcome"] == "success"]


def evicted(run) -> list[dict]:
    return pq.read_table(run.path("evicted.parquet")).to_pylist()


def selected(run, wave: int) -> set[bytes]:
    folder = run.path("selection", f"{wave:02d}")
    names = [n for n in storage.list_names(folder) if n.endswith("0.parquet") or n[:4].isdigit()]
    names = [n for n in names if n.endswith(".parquet") and ".hosts" not in n]
    return {row["pair_id"] for n in names for row in pq.read_table(f"{folder}/{n}").to_pylist()}


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=25),
    cut=st.integers(0, 25),
    kept=st.integers(1, 3),
)
def test_what_an_earlier_crawl_kept_stays_and_later_texts_only_fill_up(rows, cut, kept):
    url, text = (np.array([r[i] for r in rows], np.uint64) for i in (0, 1))
    crawl = (np.arange(len(rows)) >= cut).astype(np.int32)
    verdict = unique.judge(url, text, kept, crawl)
    alone = unique.judge(url[:cut], text[:cut], kept)
    assert verdict[:cut].tolist() == alone.tolist()
    for picture in {row[0] for row in rows}:
        first: dict[int, tuple[int, int]] = {}
        for number, row in enumerate(rows):
            if row[0] == picture:
                first.setdefault(row[1], (int(crawl[number]), number))
        ranked = sorted(first, key=lambda text: (first[text][0], text))
        survivors = {first[text][1] for text in ranked[:kept]}
        mine = [n for n, row in enumerate(rows) if row[0] == picture]
        assert {n for n in mine if verdict[n] == unique.SURVIVES} == survivors
        others = {first[text][1] for text in ranked[kept:]}
        assert {n for n in mine if verdict[n] == unique.OTHER_TEXT} == others


LONG = [pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 12)]


@pytest.mark.parametrize("seed", [0, *LONG])
@pytest.mark.parametrize("sampling", ["independent", "shared"])
def test_the_draw_is_that_of_a_harvest_of_both_from_the_start(
    harvest, grow, all_there, seed, sampling
):
    old, new = (make_crawl(10 * seed + i, one_text=True) for i in (0, 1))
    options = {"per_query": 11, "sampling": sampling}
    run, _ = grow(old, new, **options)
    both, _ = harvest([*old, *new], out="both", **(NO_LIMIT | options))
    kept = ids(stored(run)) - ids(evicted(run))
    assert kept == selected(both, 1)
    assert evicted(run)
    table = [pq.read_table(r.path("coverage.parquet")).drop_columns("present") for r in (run, both)]
    assert table[0].equals(table[1])


@pytest.mark.parametrize("seed", [0, *LONG])
def test_with_pictures_that_fail_the_end_is_that_of_a_harvest_of_both(harvest, grow, seed):
    crawls = [make_crawl(10 * seed + i, one_text=True) for i in range(3)]
    options = {"per_query": 6, "waves": 6}
    run, _ = grow(*crawls, **options)
    both, _ = harvest(list(itertools.chain(*crawls)), out="both", **(NO_LIMIT | options))
    assert ids(stored(run)) - ids(evicted(run)) == ids(stored(both))


def test_no_picture_is_asked_for_twice_and_the_old_shards_stay(grow, tmp_path):
    crawls = [make_crawl(seed) for seed in range(4)]
    Web.asked.clear()
    run, funnels = grow(crawls[0], per_query=9)
    kept = {p.name: p.read_bytes() for p in (tmp_path / "grown" / "shards").iterdir()}
    run, funnels = grow(*crawls, per_query=9)
    asked = [url for urls in Web.asked for url in urls]
    assert len(set(asked)) == len(asked)
    found = shard_rows(run)
    assert len({row["key"] for row in found}) == len(ids(found)) == len(found)
    for name, data in kept.items():
        assert (tmp_path / "grown" / "shards" / name).read_bytes() == data, name
    assert shards.verify(run.out) == []
    links = sum(len(source) for crawl in crawls for source in crawl)
    assert sum(funnels[-1].values()) == links
    manifest = storage.read_json(run.path("manifest.json"))
    assert len(manifest["crawls"]) == 4
    assert sum(crawl["sources"] for crawl in manifest["crawls"]) == 12


def test_the_evicted_are_the_pictures_that_no_query_draws_and_stay_readable(grow, all_there):
    run, _ = grow(make_crawl(1), make_crawl(2), make_crawl(3), per_query=5)
    rows = evicted(run)
    by_key = {row["key"]: row for row in stored(run)}
    assert rows
    for row in rows:
        assert by_key[row["key"]]["pair_id"] == row["pair_id"]
        assert shards.read_image(run.path("shards"), by_key[row["key"]]) == row["url"].encode()
    drawn = pq.read_table(run.path("coverage.parquet"))["drawn"].to_pylist()
    assert max(drawn) == 5


def test_a_killed_merge_goes_on_and_ends_with_the_same_bytes(grow, harvest, monkeypatch):
    crawls = [make_crawl(5), make_crawl(6)]
    whole, _ = grow(*crawls, per_query=9)
    grow(crawls[0], out="killed", per_query=9)

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(waves, "select", die)
        patch.setattr("pipeline.stages.waves.select", die)
        patch.setattr(fetching, "write_results", die)
        with pytest.raises(KeyboardInterrupt):
            grow(*crawls, out="killed", per_query=9)
    run = open_run(str(whole.out).replace("grown", "killed"), whole.config)
    go_on(run)
    assert digests_of(run) == digests_of(whole)


def digests_of(run) -> dict[str, str]:
    names = [f"shards/{n}" for n in storage.list_names(run.path("shards")) if "_stats" not in n]
    names += ["manifest.json", "coverage.parquet", "hosts.parquet", "evicted.parquet"]
    return {n: hashlib.sha256(storage.read_bytes(run.path(n))).hexdigest() for n in names}


def test_a_lost_shard_of_an_earlier_crawl_is_made_again(grow):
    run, funnels = grow(make_crawl(7), make_crawl(8), per_query=9)
    before = digests_of(run)
    storage.remove(run.path("shards", "00000.tar"))
    fetching.remake_lost(run)
    assert fetching.waves_to_repair(run) == (1,)
    assert go_on(run) == funnels[-1]
    assert digests_of(run) == before


def test_what_was_taken_down_does_not_come_back_with_another_crawl(grow, harvest):
    old, new = make_crawl(1), make_crawl(2)
    run, _ = grow(old)
    urls = sorted({row["url"] for row in stored(run)})[::5]
    offered = {url for source in new for url, _ in source}
    assert offered & set(urls)
    takedown(run.out, make_request({"url": urls}), reason="asked")
    fetching.finish_takedowns(run)
    Web.asked.clear()
    run, funnel = harvest([*old, *new], out="grown", crawls=[0, len(old)], **NO_LIMIT)
    assert not set(urls) & {url for asked in Web.asked for url in asked}
    assert not set(urls) & {row["url"] for row in stored(run)}
    assert funnel["taken_down"] >= len(urls)
    assert shards.verify(run.out) == []


def test_a_run_that_is_not_finished_does_not_grow(grow, harvest):
    old, new = make_crawl(1), make_crawl(2)
    run, _ = grow(old)
    storage.remove(run.path("finished.json"))
    with pytest.raises(UserError, match="not finished; finish it"):
        harvest([*old, *new], out="grown", crawls=[0, len(old)], **NO_LIMIT)


def sources_of(*paths: str, size: int = 5) -> list[Source]:
    return [Source(path, "warc", size) for path in paths]


def test_inputs_that_it_has_are_left_out_and_changed_ones_refused(grow):
    run, _ = grow(make_crawl(1))
    old = [source.to_json() for source in sources_of("a.warc", "b.warc")]
    changed = storage.read_json(run.path("run.json")) | {"sources": old}
    storage.write_json(run.path("run.json"), changed)
    run = open_run(run.out, type(run.config)(**changed))
    told: list[str] = []
    config = onto.grow(run.out, sources_of("b.warc", "c.warc"), run.config, set(), told.append)
    assert told == [f"1 of 2 inputs are in {run.out} already"]
    assert [source["path"] for source in config.sources] == ["a.warc", "b.warc", "c.warc"]
    assert config.crawls == [0, 2]
    same = onto.grow(run.out, sources_of("a.warc", "b.warc"), run.config, set(), told.append)
    assert same == run.config
    with pytest.raises(UserError, match=r"a\.warc: .* another version"):
        onto.grow(run.out, sources_of("a.warc", size=6), run.config, set(), told.append)


def test_options_that_are_not_given_are_the_runs_and_others_are_compared(grow):
    run, _ = grow(make_crawl(1), per_query=7, texts_per_image=2)
    wanted = type(run.config)(sources=[], queries=run.config.queries, per_query=20_000, seed=4)
    config = onto.inherit(run.config, wanted, {"seed"})
    assert (config.per_query, config.texts_per_image, config.seed) == (7, 2, 4)
    with pytest.raises(UserError, match="--seed 0, now 4"):
        open_run(run.out, config)


def test_a_folder_that_is_no_harvest_is_named_before_a_contact_is_asked_for(grow, tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no run\.json there"):
        parse(["a.warc", "--onto", str(tmp_path / "nowhere")])
    run, _ = grow(make_crawl(1))
    with pytest.raises(UserError, match="--contact is needed"):
        parse(["a.warc", "--onto", run.out])


# --- what explain says of it ------------------------------------------------------------------


def told(run, url: str) -> tuple[dict[str, str], dict[str, str]]:
    """The text of each pair of an image: the fates and the reasons."""
    stories = explain(run.out, url)
    texts = [step.facts["text"] for story in stories for step in story.steps if step.name == "text"]
    fates = dict(zip(texts, (story.fate for story in stories), strict=True))
    return fates, dict(zip(texts, (story.reason for story in stories), strict=True))


def test_explain_says_whether_an_earlier_crawl_or_the_hash_chose_a_text(grow, all_there):
    by_hash = sorted(TEXTS, key=hash_of)
    old, new = "http://h.example/old.jpg", "http://h.example/new.jpg"
    later = [(url, text) for url in (old, new) for text in by_hash[:3]]
    run, _ = grow([[(old, by_hash[3])]], [later], per_query=100)
    fates, reasons = told(run, old)
    assert fates == {by_hash[3]: "success", **dict.fromkeys(by_hash[:3], "other_text")}
    for text in by_hash[:3]:
        assert "what an earlier crawl has kept" in reasons[text]
        assert "lowest hash" not in reasons[text]
    fates, reasons = told(run, new)
    assert fates == {by_hash[0]: "success", **dict.fromkeys(by_hash[1:3], "other_text")}
    assert "the one with the lowest hash" in reasons[by_hash[1]]
    run, _ = grow([[(old, by_hash[3])]], [later], per_query=100, texts_per_image=2, out="two")
    fates, reasons = told(run, old)
    assert [text for text in by_hash if fates[text] == "success"] == [by_hash[0], by_hash[3]]
    assert "earlier crawl has kept of the image stays, and of later texts" in reasons[by_hash[1]]


def test_explain_tells_of_every_sample_of_a_grown_run_and_which_are_drawn_no_more(grow):
    run, _ = grow(make_crawl(1), make_crawl(2), make_crawl(3), per_query=5)
    gone = {row["key"] for row in evicted(run)}
    assert gone
    for row in shard_rows(run):
        (story,) = explain(run.out, row["key"])
        assert story.fate == row["outcome"]
        orders = next(step for step in story.steps if step.name == "order").facts["orders"]
        assert min(wave for order in orders for wave in order["within"]) == row["wave"]
        steps = [step for step in story.steps if step.name == "evicted"]
        assert bool(steps) == ("no query draws it" in story.reason) == (row["key"] in gone)


def test_explain_of_a_query_tells_of_earlier_crawls_waves_how_far_they_drew(grow):
    run, _ = grow(make_crawl(1), make_crawl(2), per_query=5)
    (story,) = explain(run.out, "dress")
    waves = {step.name: step for step in story.steps if step.name.startswith("wave")}
    assert "in an earlier crawl" in waves["wave 1"].said
    assert waves["wave 5"].facts["drawn"] >= 5
