"""The harvest's core where little, nothing or very much comes: no row is lost or counted twice."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import (
    balance,
    dedupe,
    fetching,
    lanes,
    stages,
    waves,
)
from pipeline.progress import Heartbeat, announce, read_stage
from pipeline.run import Config, Run, open_run, read_many
from pipeline.summary import LATER, summarise
from pipeline.tally import REASONS
from tests.pipeline.rows import AGENT, HOUR, Web, digests, go_on, make_rows, shard_rows
from wit import storage
from wit.errors import UserError
from wit.outcomes import OUTCOMES


def test_nothing_at_all_is_a_harvest_too(harvest):
    run, funnel = harvest([[], []])
    assert sum(funnel.values()) == 0
    assert shard_rows(run) == []


def test_texts_without_a_query_are_counted_and_nothing_is_fetched(harvest):
    run, funnel = harvest([make_rows(["a.example"], 9, "blue hat"), []], pairs=5, per_query=None)
    assert funnel["no_query"] == sum(funnel.values()) == 9
    assert shard_rows(run) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"per_query": 10_000},
        {"per_query": 3, "waves": 6},
        {"pairs": 10**9, "per_query": None},
        {"per_query": 5, "sampling": "shared", "match": "metaclip", "texts_per_image": 2},
    ],
)
def test_deferred_refused_and_failed_pairs_stand_in_one_row_each(harvest, changes):
    rows = make_rows(["wide.example", "closed.example", "a.example"], 60)
    rows += make_rows(["wide.example"], 20, "a dress")  # other texts of the same pictures
    run, funnel = harvest([rows, [], rows[:5]], wave_hours=6 * HOUR, **changes)
    assert sum(funnel.values()) == 85
    found = shard_rows(run)
    assert len({row["pair_id"] for row in found}) == len(found)
    assert funnel["success"] + funnel.get("not_found", 0) + funnel["robots_disallowed"] == len(
        found
    )
    if changes["per_query"] not in (3, 5):
        assert funnel["deferred"] > 0
    hosts = pq.read_table(run.path("hosts.parquet")).to_pylist()
    assert sum(row["pairs"] for row in hosts) == len(found)  # the deferred not once a wave


def test_a_reason_stands_for_one_thing_in_the_funnel():
    names = [*REASONS, *LATER, *OUTCOMES]
    assert len(set(names)) == len(names)


# --- how the work is cut ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits",
    [
        {"run.GROUPS": 3},
        {"run.GROUPS": 1, "dedupe.KEY_ROWS": 16},
        {"dedupe.KEY_ROWS": 1, "dedupe.BUCKET_ROWS": 20},
        {"waves.PART_ROWS": 1, "run.GROUPS": 2},
        {"candidates.ROW_GROUP": 8, "waves.PART_ENTRIES": 10, "waves.BUCKET_ENTRIES": 10},
    ],
)
def test_the_result_does_not_depend_on_how_the_work_is_cut(
    harvest, mixed_rows, monkeypatch, limits
):
    options = {"per_query": 12, "texts_per_image": 2}
    run, funnel = harvest(mixed_rows, **options)
    for name, value in limits.items():
        monkeypatch.setattr(f"pipeline.{name}", value)
    cut, cut_funnel = harvest(mixed_rows, out="cut", **options)
    assert funnel["duplicate_pair"] > 10
    assert cut_funnel == funnel
    assert digests(cut) == digests(run)


def test_a_bucket_reads_a_file_a_group_however_many_sources_there_are(
    harvest, mixed_rows, monkeypatch
):
    monkeypatch.setattr("pipeline.run.GROUPS", 2)
    run, _ = harvest(mixed_rows)
    keys = [name for name in storage.list_names(run.path("unique")) if name.endswith(".keys")]
    assert keys == ["0000.00.keys", "0001.00.keys"]


def test_more_rows_than_a_group_can_number_are_refused(harvest, mixed_rows, monkeypatch):
    monkeypatch.setattr(dedupe, "MOST_ROWS", 50)
    with pytest.raises(UserError, match=r"rows-6 .* 60 pairs, more than 50; cut them into more"):
        harvest(mixed_rows)


def test_a_lost_or_cut_shard_is_made_again_and_no_other(harvest, mixed_rows, caplog):
    run, funnel = harvest(mixed_rows, per_query=12, lanes=2)
    before = digests(run)
    stored = sorted(name for name in before if name.endswith(".tar"))
    assert len(stored) > 5
    cut, gone, unknown = stored[0], stored[2].replace(".tar", ".parquet"), stored[4]
    storage.write_bytes(run.path(cut), storage.read_bytes(run.path(cut))[:-512])
    storage.remove(run.path(gone))
    storage.remove(run.path(unknown.replace(".tar", "_stats.json")))
    Web.asked.clear()
    fetching.remake_lost(run)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3
    assert all(any(name in line for line in told) for name in (cut, gone))
    assert go_on(run) == funnel
    assert digests(run) == before
    assert len(Web.asked) == 3


def test_a_shard_that_is_made_again_is_counted_as_it_is_now(harvest, mixed_rows, monkeypatch):
    run, funnel = harvest(mixed_rows, lanes=2)
    storage.remove(run.path("shards", "00000.tar"))
    monkeypatch.setattr(Web, "gone", True)
    fetching.remake_lost(run)
    now = go_on(run)
    assert sum(now.values()) == sum(funnel.values())
    assert now["success"] < funnel["success"]


def test_whole_shards_are_left_alone_on_resume(harvest, mixed_rows, caplog):
    run, _ = harvest(mixed_rows)
    names = sorted(storage.list_names(run.path("fetched", "01")))
    Web.asked.clear()
    fetching.remake_lost(run)
    assert sorted(storage.list_names(run.path("fetched", "01"))) == names
    assert not caplog.records
    go_on(run)
    assert Web.asked == []


def test_the_end_reads_each_shards_stats_once(harvest, mixed_rows, monkeypatch):
    run, _ = harvest(mixed_rows)
    read, names = storage.read_json, []
    monkeypatch.setattr(storage, "read_json", lambda path: names.append(path) or read(path))
    summarise(run)
    stats = [path for path in names if path.endswith("_stats.json")]
    assert len(stats) == len(set(stats)) > 5


def test_a_failed_lane_ends_those_beside_it_at_their_next_picture():
    started, pictures = Barrier(3), []

    def fetch(lane: int, progress) -> None:
        started.wait()
        if lane == 1:
            raise UserError("out/shards: cannot write")
        for done in range(1000):
            progress(done, 1000)
            pictures.append(done)
            time.sleep(0.01)

    with pytest.raises(UserError, match="cannot write"):
        stages.do_together((0, 1, 2), lambda *_: None, fetch)
    assert len(pictures) < 200


# --- exactness --------------------------------------------------------------------------------


def test_a_query_of_which_nothing_was_collected_is_collected_again():
    found = balance.thresholds(np.empty(0, balance.ENTRY), np.array([100, 0]), 2, 0)
    assert found["short"].tolist() == [1, 0]


@pytest.mark.parametrize("count", [1, 5, 4096, 100_000])
@pytest.mark.parametrize("cap", [1, 1000])
def test_buckets_cover_all_queries_and_are_alike_where_frequent_queries_come_first(
    count, cap, monkeypatch
):
    monkeypatch.setattr(waves, "BUCKET_ENTRIES", 50_000)
    counts = (1e9 / np.arange(1, count + 1) ** 1.1).astype(np.int64)
    limits = waves.bucket_limits(counts, cap)
    ranges = [waves.query_range((int(a), int(b)), count) for a, b in itertools.pairwise(limits)]
    assert [q for first, last in ranges for q in range(first, last)] == list(range(count))
    most = np.minimum(counts, 4 * cap)[counts > cap]
    sizes = [most[first:last].sum() for first, last in ranges]
    a_slot = -(-count // balance.QUERY_SLOTS) * 4 * cap
    assert max(sizes) <= 50_000 + a_slot


# --- large runs -------------------------------------------------------------------------------


def test_lanes_that_start_together_share_one_fetcher(tmp_path):
    out = str(tmp_path / "out")
    open_run(out, Config(sources=[{}], queries={}, fetch=AGENT))
    start = Barrier(16)

    def get(_):
        start.wait()
        return id(fetching.shared_fetcher(out, stages.Reach("s")))

    with ThreadPoolExecutor(16) as threads:
        assert len(set(threads.map(get, range(16)))) == 1


def test_a_heartbeat_that_is_final_is_read_once(tmp_path):
    run = Run(str(tmp_path), Config(sources=[{}], queries={}))
    announce(run, "00-extract", "s", 2, 2)
    under_way, finished = (Heartbeat(run, "00-extract", "s", [task]) for task in (0, 1))
    finished.finish()
    final: dict = {}
    assert read_stage(run, "00-extract", "s", final).done == 1
    assert sorted(final) == ["s.000001.json", "s.plan.json"]
    storage.write_bytes(finished.path, b"never looked at again")
    under_way.finish()
    assert read_stage(run, "00-extract", "s", final).done == 2


def test_many_files_are_read_in_their_order_here_and_afar(tmp_path):
    for base in (str(tmp_path), "memory://read-many"):
        paths = [storage.join(base, f"{i}.json") for i in range(40)]
        for i, path in enumerate(paths):
            storage.write_json(path, {"i": i})
        assert [found["i"] for found in read_many(paths)] == list(range(40))
    assert list(read_many([])) == []


def test_a_folder_may_end_with_a_slash():
    run = Run("memory://slash/out/", Config(sources=[{}], queries={}))
    dedupe.write_array(run.path("candidates", "index.npy"), np.array([3, 1]))
    storage.write_json(run.path("target.json"), {"per_query": 7})
    assert dedupe.load_index(run.out).tolist() == [3, 1]
    assert dedupe.load_cap(run.out) == 7


def test_more_shards_than_names_is_said_before_the_first_is_fetched(tmp_path):
    run = Run(str(tmp_path), Config(sources=[{}], queries={}, lanes=1, shard_size=1))
    storage.write_json(run.wave_path("lanes", 1, "0000.json"), {"rows": 100_001})
    with pytest.raises(UserError, match="larger --shard-size"):
        lanes.number_shards(run, 1)
