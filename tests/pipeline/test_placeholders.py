"""One picture under many addresses with many texts is none, and is not stored."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import fetching, lanes, placeholders, stages, vigil
from pipeline.demo.pictures import pictures as demo_pictures
from pipeline.fetch import Fetched, alarm
from pipeline.run import Run, load_run
from tests.killed import die_at
from tests.pipeline import placeholder_rule as rule
from tests.pipeline import rows as web
from tests.pipeline.demo_run import arguments, demo_port
from tests.pipeline.demo_run import digests as file_digests
from tests.pipeline.demo_run import run as run_command
from tests.wit import shard_samples as samples
from wit import shards, storage
from wit.blocklist import BITS, Index, read_own
from wit.errors import UserError

__all__ = ["demo_port"]

forked = multiprocessing.get_context("fork")
TEXTS = 40
HOSTS = [f"shop{i}.example" for i in range(12)]
MANY = {"lanes": 3, "shard_size": 40, "placeholder_urls": 3, "waves": 3, "per_query": 300}


# --- the rule ---------------------------------------------------------------------------------

few = st.integers(0, 3)
lane_rows = st.lists(st.tuples(few, few, few, st.booleans()), max_size=30)


def pictures(rows: list[tuple[int, int, int, bool]]) -> np.ndarray:
    """PICTURE of (picture, URL, text, stored); some pictures differ in their last bits alone."""
    table = np.zeros(len(rows), placeholders.PICTURE)
    for place, (picture, url, text, stored) in enumerate(rows):
        table[place] = (picture // 2 * 2**60, picture % 2, url, text, stored)
    return table


def plain(rows: list[tuple[int, int, int, bool]]) -> list[tuple[rule.Row, bool]]:
    return [((str(picture), url, text), stored) for picture, url, text, stored in rows]


@given(lane_rows, st.integers(2, 4))
def test_a_picture_is_judged_as_plain_counting_judges_it(rows, least):
    wanted = rule.judged((row for row, _ in plain(rows)), least)
    found = placeholders.are_placeholders(pictures(rows), least)
    assert found.tolist() == [str(picture) in wanted for picture, *_ in rows]


@given(st.lists(lane_rows, min_size=1, max_size=4), st.integers(2, 4), st.sampled_from([1, 10**6]))
@settings(deadline=None)
def test_what_lanes_tell_is_enough_to_judge_by_and_to_count_what_is_stored(
    tmp_path_factory, lanes_rows, least, at_a_time
):
    folder = tmp_path_factory.mktemp("met")
    paths, heard, stored = [], [], Counter()
    for number, rows in enumerate(lanes_rows):
        paths.append(str(folder / str(number)))
        placeholders.write_met(paths[-1], pictures(rows), least)
        told = rule.told(plain(rows))
        heard += told
        stored.update(row[0] for row, is_stored in plain(rows) if is_stored and row in told)
    wanted = rule.judged(heard, least)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placeholders, "PASS_ROWS", at_a_time)
        bits, count = placeholders._learn(paths, Index.of(np.empty(0, BITS)), least)
    assert {str(high // 2**60 * 2 + low) for high, low in bits.tolist()} == wanted
    assert count == sum(stored[picture] for picture in wanted)


@given(lane_rows, st.integers(2, 4))
def test_a_lane_tells_no_more_of_a_picture_than_the_rule_can_count(rows, least):
    told = placeholders.evidence(pictures(rows), least)
    times = Counter(zip(told["high"].tolist(), told["low"].tolist(), strict=True))
    assert all(n <= 2 * least for n in times.values())
    assert len(told) <= len(rows)


# --- a shard ----------------------------------------------------------------------------------


def write(folder: Path, drop: set[int], order: int = 1) -> None:
    """A shard of which some pictures are left out after they came."""
    with shards.ShardWriter(str(folder), 1, samples.rows(), attempt="a") as writer:
        for fetched in samples.fetched()[::order]:
            writer.add(fetched)
        for index in sorted(drop):
            writer.leave_out(index, "placeholder")
        assert writer.commit({})


def test_what_is_left_out_of_a_shard_leaves_no_trace_in_its_tar(tmp_path):
    stored = [f.index for f in samples.fetched() if f.outcome == "success"]
    drop = {stored[0], stored[3], stored[-1]}
    write(tmp_path / "a", drop)
    write(tmp_path / "b", drop, order=-1)
    with shards.ShardWriter(str(tmp_path / "c"), 1, samples.rows(), attempt="a") as writer:
        for fetched in samples.fetched():
            never = Fetched(fetched.index, "not_found")
            writer.add(never if fetched.index in drop else fetched)
        assert writer.commit({})
    tars = [(tmp_path / name / "00001.tar").read_bytes() for name in "abc"]
    assert tars[0] == tars[1] == tars[2]
    assert (tmp_path / "a/00001.parquet").read_bytes() == (
        tmp_path / "b/00001.parquet"
    ).read_bytes()
    assert shards.verify(str(tmp_path / "a")) == []
    table = storage.read_table(str(tmp_path / "a/00001.parquet"))
    gone = [row for row in table.to_pylist() if row["outcome"] == "placeholder"]
    assert len(gone) == len(drop)
    assert all(len(row["sha256"]) == 64 and row["image_ext"] is None for row in gone)
    assert {row["status"] for row in gone} == {"failed_to_resize"}


def test_only_a_picture_that_came_can_be_left_out(tmp_path):
    failed = next(f.index for f in samples.fetched() if f.outcome != "success")
    with shards.ShardWriter(str(tmp_path), 1, samples.rows(), attempt="a") as writer:
        for fetched in samples.fetched():
            writer.add(fetched)
        with pytest.raises(ValueError, match="no picture to leave out"):
            writer.leave_out(failed, "placeholder")


# --- a harvest --------------------------------------------------------------------------------


class Shops(web.Web):
    """Two of three pictures are there; for some of the rest, shops send one of their own."""

    def run(self, urls, hosts, look):
        for found in super().run(urls, hosts, look):
            url = urls[found.index]
            shop = int(url.split("shop")[1].split(".")[0])
            number = hashlib.sha256(b"kind" + url.encode()).digest()[0]
            if number < 60:  # shops share their supplier's, or have one of their own
                name = f"none {shop % 2 if number < 30 else shop}"
                found.outcome, found.image = "success", name.encode()
            yield found


@pytest.fixture
def shops(monkeypatch) -> list[list[tuple[str, str]]]:
    """Rows of shops with such pictures."""
    monkeypatch.setattr(web, "Web", Shops)
    texts = ["red dress", *(f"dress {i}" for i in range(TEXTS))]
    rows = [(f"http://{HOSTS[i % 12]}/{i}.jpg", texts[i * 7 % len(texts)]) for i in range(900)]
    return [rows[::2], rows[1::2]]


def outcomes(run: Run) -> dict[str, str]:
    return {row["key"]: row["outcome"] for row in web.shard_rows(run)}


def test_what_is_left_out_was_known_by_its_shard_the_pilot_or_an_earlier_wave(harvest, shops):
    run, funnel = harvest(shops, **MANY)
    keys, known, stored = rule.expected(run)
    found = {key for key, outcome in outcomes(run).items() if outcome == "placeholder"}
    assert all(len(by) > 5 for by in keys.values()), {k: len(v) for k, v in keys.items()}
    assert found == set().union(*keys.values())
    assert funnel["placeholder"] == len(found)
    left = read_own(run.path("placeholders.parquet"))
    assert left.counts() == {"sha256": len(known)}
    assert stored > 0
    assert placeholders.told(run) == (
        f"{len(found):,} left out ({len(known)} different pictures); {stored} more are stored, "
        "from before they were known"
    )
    assert shards.verify(run.out) == []


def test_what_is_left_out_is_drawn_again_from_the_reserve(harvest, shops):
    run, _ = harvest(shops, **MANY | {"waves": 9, "per_query": 150})
    by_wave = Counter(row["wave"] for row in web.shard_rows(run) if row["outcome"] == "placeholder")
    assert by_wave[1] > 0
    coverage = storage.read_table(run.path("coverage.parquet")).to_pylist()
    assert [row["drawn"] for row in coverage if row["unique"] > 600] == [150]


def test_the_same_text_under_many_addresses_is_a_picture_with_mirrors(harvest, monkeypatch):
    monkeypatch.setattr(web, "Web", Shops)
    run, funnel = harvest([web.make_rows(HOSTS, 300)], **MANY)
    assert "placeholder" not in funnel
    assert placeholders.told(run) == "none found"


def test_with_0_all_are_stored_and_no_shard_goes_first(harvest, shops):
    run, funnel = harvest(shops, **MANY | {"placeholder_urls": 0})
    assert "placeholder" not in funnel
    names = storage.list_names(run.path("fetched", "01"))
    assert not [name for name in names if name.endswith((".pilot", ".met", ".parquet.tmp"))]
    assert not storage.exists(run.path("placeholders.parquet"))
    assert "--placeholder-urls 0" in placeholders.told(run)


def test_lanes_with_one_shard_wait_for_no_pilot(harvest, shops):
    run, _ = harvest(shops, **MANY | {"shard_size": 10_000, "waves": 1})
    names = storage.list_names(run.path("fetched", "01"))
    assert not [name for name in names if name.endswith(".pilot")]


def forget() -> None:
    """What a new process does not know."""
    placeholders._load.cache_clear()


def begin(run: Run, until: str) -> None:
    """Does what is not finished of all stages up to one of the first wave."""
    for _, wave, stage in stages.in_order(run):
        for task in stages._unfinished(run, wave, stage, list(stage.tasks(run, wave))):
            stage.work(run, wave, task, lambda *_: None, stages.Reach("s"))
        if stage.name == until:
            return


def stored(run: Run) -> dict[str, bytes]:
    names = storage.list_names(run.path("shards"))
    names = [name for name in names if name.endswith((".tar", ".parquet"))]
    return {name: storage.read_bytes(run.path("shards", name)) for name in names}


def test_killed_within_the_pilot_or_after_it_the_wave_ends_with_the_same_bytes(harvest, shops):
    run, _ = harvest(shops, **MANY | {"waves": 1, "lanes": 2, "shard_size": 100})
    whole, ends = stored(run), []

    def work() -> None:
        begin(run, "pilot")
        placeholders.freeze(run, 1)

    for step in itertools.count(1, 5):
        for room in ("shards", "fetched/01"):
            for name in storage.list_names(run.path(room)):
                storage.remove(run.path(room, name))
        forget()
        process = forked.Process(target=die_at, args=(step, work))
        process.start()
        process.join()
        ends.append(process.exitcode)
        shards.sweep(run.path("shards"))
        storage.sweep(run.out)
        begin(run, "fetch")
        assert stored(run) == whole, step
        if process.exitcode == 0:
            break
    assert set(ends[:-1]) == {-signal.SIGKILL}
    assert len(ends) > 5


def test_a_lost_shard_is_judged_again_by_what_was_known_when_it_was_first_made(harvest, shops):
    run, _ = harvest(shops, **MANY)
    whole, (first, *_) = web.digests(run), lanes.planned_shards(run, 1)
    lost = [first[0], first[1], lanes.planned_shards(run, 2)[0][0]]
    for shard in lost:
        storage.remove(run.path("shards", f"{shard:05d}.tar"))
    forget()
    fetching.remake_lost(run)
    web.go_on(run)
    assert web.digests(run) == whole


# --- a harvest of the demo's web --------------------------------------------------------------


@pytest.fixture(scope="module")
def command(tmp_path_factory, demo_port):
    """Makes the command of a harvest of shops that have one picture for all they do not have."""
    folder = tmp_path_factory.mktemp("table")
    hosts = ("shop-one.example/img", "www.outlet.example/photo", "kaufhaus.example/bild")
    there = [f"{host}/{name}.jpg" for host in hosts for name in demo_pictures()]
    sold = ("shop-one.example/img/sold", "www.outlet.example/photo/sold-out")
    gone = [f"{host}/{name}.jpg" for host in sold for name in list(demo_pictures())[::6]]
    lines = [f"http://{url}\tdress no {number}" for number, url in enumerate(there + gone)]
    table, queries = folder / "table.tsv", folder / "queries.txt"
    table.write_text("\n".join(["url\ttext", *lines]))
    queries.write_text("dress")

    def make(out: Path, *more: str) -> list[str]:
        settings = ["--per-query", "500", "--lanes", "3", "--shard-size", "40"]
        settings += ["--placeholder-urls", "6", "--workers", "2"]
        return arguments([str(table)], str(queries), demo_port, out, *settings, *more)

    return make


@pytest.fixture(scope="module")
def whole(tmp_path_factory, command) -> Path:
    """The output folder of an uninterrupted harvest."""
    out = tmp_path_factory.mktemp("whole") / "out"
    done = run_command(command(out))
    assert done.returncode == 0, done.stderr
    assert "\nplaceholders  " in done.stdout
    return out


@pytest.mark.long
def test_of_a_real_web_what_is_left_out_was_known_and_is_drawn_again(whole):
    run = load_run(str(whole))
    keys, known, _ = rule.expected(run)
    assert len(known) == 1
    assert all(keys.values()), keys
    found = outcomes(run)
    assert {key for key, o in found.items() if o == "placeholder"} == set().union(*keys.values())
    assert Counter(found.values())["success"] == 500
    assert shards.verify(str(whole)) == []


@pytest.mark.long
def test_killed_between_the_pilot_and_the_rest_it_ends_with_the_same_bytes(
    whole, command, tmp_path
):
    out = tmp_path / "out"
    child = subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pilots = {path.name for path in whole.glob("fetched/01/*.pilot")}
    deadline = time.monotonic() + 300
    while {path.name for path in out.glob("fetched/01/*.pilot")} != pilots:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert not list(out.glob("fetched/01/*.results"))
    done = run_command(command(out))
    assert done.returncode == 0, done.stderr
    assert file_digests(out) == file_digests(whole)


@pytest.mark.long
def test_another_number_is_another_run_and_0_stores_all(whole, command, tmp_path):
    refused = run_command([*command(whole), "--placeholder-urls", "7"])
    assert refused.returncode == 2
    assert "--placeholder-urls 6, now 7" in refused.stderr
    done = run_command([*command(tmp_path / "out"), "--placeholder-urls", "0"])
    assert done.returncode == 0, done.stderr
    assert "placeholder" not in outcomes(load_run(str(tmp_path / "out"))).values()


# --- the alarm --------------------------------------------------------------------------------


def test_one_site_that_answers_all_with_its_placeholder_is_no_alarm():
    urls = [f"http://p{i}.shop.example/{i}.jpg" for i in range(5000)]
    urls += [f"http://h{i}.example/a.jpg" for i in range(60)]
    assert alarm.judge_placeholders(urls, [True] * 5000 + [False] * 60) is None
    assert alarm.judge_placeholders(urls[:5000], [True] * 5000) is None


def test_sites_that_send_pictures_beside_placeholders_are_no_alarm():
    urls = [f"http://www.h{i}.test/{n}.jpg" for i in range(100) for n in range(2)]
    assert alarm.judge_placeholders(urls, [True, False] * 100) is None
    assert alarm.judge_placeholders(urls, [i < 120 for i in range(200)]) is None


class Portal(web.Web):
    """A portal that answers for everybody, with a picture."""

    def run(self, urls, hosts, look):
        for index in range(len(urls)):
            yield web.Picture(index, "success", b"please log in")


def test_one_picture_for_all_sites_ends_the_run_before_a_shard_is_written(harvest, monkeypatch):
    monkeypatch.setattr(alarm, "WARM_UP", 0.0)
    monkeypatch.setattr(web, "Web", Portal)
    vigil._make_alarm.cache_clear()
    rows = [(f"http://h{i}.test/a.jpg", f"dress {i}") for i in range(200)]
    with pytest.raises(UserError, match=r"00000: given up.* nothing but the same few pictures"):
        harvest([rows], lanes=1, shard_size=100)
