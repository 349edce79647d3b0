"""Shards: the same bytes in any order of arrival, after any death, and for every reader."""

import dataclasses
import hashlib
import io
import json
import logging
import multiprocessing
import os
import random
import signal
import tarfile
import time
import tracemalloc
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.fetch import Fetched
from tests.killed import die_at
from tests.wit import shard_samples as samples
from tests.wit.shard_samples import inside
from wit import pairs, shards, storage
from wit.errors import StorageError
from wit.pairs import SAMPLES

NAMES = ["00003.parquet", "00003.tar"]
forked = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def golden(tmp_path_factory) -> dict[str, bytes]:
    """The bytes of an uninterrupted shard."""
    folder = tmp_path_factory.mktemp("golden")
    assert samples.write(str(folder))
    found = samples.products(folder)
    assert sorted(found) == NAMES
    return found


# --- the same bytes ---------------------------------------------------------------------------


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(order=st.permutations(range(len(samples.fetched()))))
def test_any_order_of_arrival_gives_the_same_bytes(order, golden):
    folder = f"memory://{uuid.uuid4().hex}"
    assert samples.write(folder, f"attempt{random.randrange(10**6)}", list(order))
    assert {name: storage.read_bytes(f"{folder}/{name}") for name in NAMES} == golden
    assert storage.list_names(folder) == ["00003.parquet", "00003.tar", "00003_stats.json"]


def test_tars_have_fixed_times_and_owners_and_keys_in_order(golden):
    with tarfile.open(fileobj=io.BytesIO(golden["00003.tar"])) as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {
        (0, 0, 0, "", "", 0o644)
    }
    names = [m.name for m in members]
    wanted = [r.index for r in samples.fetched() if r.outcome == "success"]
    assert names == [f"00003{i:04d}.{e}" for i in wanted for e in ("jpg", "txt", "json")]


def test_the_table_has_the_columns_of_img2dataset_then_ours_and_agrees_with_the_tar(golden):
    table = pq.read_table(pa.BufferReader(golden["00003.parquet"]))
    assert table.schema.names == SAMPLES.names
    assert table.schema.names[:5] == ["url", "caption", "key", "status", "error_message"]
    assert table.schema.names[5:9] == ["width", "height", "original_width", "original_height"]
    assert table.schema.names[9:11] == ["exif", "sha256"]
    rows = table.to_pylist()
    assert [row["key"] for row in rows] == [f"00003{i:04d}" for i in range(samples.ROWS)]
    tar = golden["00003.tar"]
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        offsets = {m.name: (m.offset_data, m.size) for m in opened}
        texts = {m.name: opened.extractfile(m).read() for m in opened if m.name.endswith("n")}
    lane, results = samples.rows().to_pylist(), {r.index: r for r in samples.fetched()}
    for i, row in enumerate(rows):
        assert row["caption"] == lane[i]["text"]
        for name in ("url", "pair_id", "page_url", "query_ids", "priority", "wave", "row"):
            assert row[name] == lane[i][name]
        result = results.get(i)
        if i % 10 == 9:
            assert result is None
            assert (row["status"], row["outcome"]) == ("failed_to_download", "robots_disallowed")
        elif result.outcome != "success":
            assert row["outcome"] == result.outcome
            assert row["error_message"] == (result.message or result.outcome)
            assert row["sha256"] is row["phash"] is row["image_offset"] is row["image_size"] is None
        else:
            offset, size = row["image_offset"], row["image_size"]
            assert offsets[f"{row['key']}.jpg"] == (offset, size)
            assert tar[offset : offset + size] == result.image
            assert hashlib.sha256(result.image).hexdigest() == row["sha256"]
            member = json.loads(texts[f"{row['key']}.json"])
            assert member["url"] == row["url"]
            assert member["pair_id"] == row["pair_id"].hex()
            assert int(member["priority"], 16) == row["priority"]
            assert (row["phash"], row["animated"]) == (result.phash, result.animated)
            assert (member["phash"], member["animated"]) == (f"{result.phash:016x}", i % 3 == 0)
            assert member["query_ids"] == row["query_ids"]
            assert list(member) == sorted(member)


def test_the_stats_file_counts_as_img2dataset_does(folder):
    stats = json.loads(inside(folder, "00003_stats.json").read_text())
    assert stats["count"] == samples.ROWS
    by_status = [stats[f] for f in ("successes", "failed_to_download", "failed_to_resize")]
    assert sum(by_status) == samples.ROWS
    assert stats["status_dict"]["success"] == stats["outcomes"]["success"] == by_status[0]
    assert stats["status_dict"]["HTTP 404"] == stats["outcomes"]["not_found"]
    assert (stats["first_key"], stats["last_key"]) == ("000030000", "000030039")
    assert stats["end_time"] - stats["start_time"] == pytest.approx(stats["duration"])
    for part in ("tar", "parquet"):
        data = inside(folder, f"00003.{part}").read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        assert stats[part] == {"name": f"00003.{part}", "size": len(data), "sha256": sha256}


def test_memory_does_not_grow_with_the_images(tmp_path):
    picture = os.urandom(1_000_000)
    tracemalloc.start()
    try:
        with shards.ShardWriter(str(tmp_path), 1, samples.rows(64), attempt="a") as writer:
            for i in range(64):
                if i % 10 != 9:
                    writer.add(Fetched(i, "success", extension="jpg", image=picture))
            assert writer.commit({})
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
    assert os.path.getsize(tmp_path / "00001.tar") > 57_000_000


def test_a_shard_without_rows_is_a_shard(tmp_path):
    with shards.ShardWriter(str(tmp_path), 0, samples.rows(0), attempt="a") as writer:
        assert writer.commit({})
    assert shards.is_done(str(tmp_path), 0)
    assert shards.verify(str(tmp_path)) == []


# --- what the writer refuses ------------------------------------------------------------------


def test_the_writer_refuses_what_would_break_a_shard(tmp_path):
    folder, rows = str(tmp_path), samples.rows()
    with pytest.raises(ValueError, match="10,001 rows; at most 10,000"):
        shards.ShardWriter(folder, 0, samples.rows(10_001), attempt="a")
    with pytest.raises(ValueError, match="does not fit into 5 digits"):
        shards.ShardWriter(folder, 100_000, rows, attempt="a")
    with pytest.raises(ValueError, match="only letters"):
        shards.ShardWriter(folder, 0, rows, attempt="../a")
    with pytest.raises(ValueError, match="lack the column 'preset'"):
        shards.ShardWriter(folder, 0, rows.drop_columns(["preset"]), attempt="a")
    image, sha256 = b"x", hashlib.sha256(b"x").hexdigest()
    with shards.ShardWriter(folder, 0, rows, attempt="a") as writer:
        for message, picture in {
            "the shard has 40 rows": Fetched(40, "not_found"),
            "has 40 rows": Fetched(-1, "not_found"),
            "decided before: robots_disallowed": Fetched(9, "success", image=image),
            "unknown outcome 'odd'": Fetched(0, "odd"),
            "success without an image": Fetched(0, "success", image=b""),
            "'txt' is no extension": Fetched(0, "success", None, image, "txt"),
            "'a/b' is no extension": Fetched(0, "success", None, image, "a/b"),
            "is not the image's": Fetched(0, "success", extension="jpg", image=image, sha256="00"),
        }.items():
            with pytest.raises(ValueError, match=message):
                writer.add(picture)
        writer.add(Fetched(0, "success", extension="jpg", image=image, sha256=sha256))
        with pytest.raises(ValueError, match="row 0: was added before"):
            writer.add(Fetched(0, "not_found"))
        with pytest.raises(ValueError, match="35 rows were not added, the first is 1"):
            writer.commit({})
    assert os.listdir(tmp_path) == []


# --- killed at any instant --------------------------------------------------------------------


def write_and_die_at(folder: str, step: int) -> None:
    die_at(step, lambda: samples.write(folder, f"step{step}"))


def redo(folder: str) -> None:
    """What a run does with a shard when it starts again."""
    shards.sweep(folder)
    if not shards.is_done(folder, samples.SHARD):
        assert samples.write(folder, "again")


def test_killed_before_any_file_operation_and_run_again_gives_the_same_bytes(tmp_path, golden):
    ends = []
    for step in range(1, 200):
        folder = str(tmp_path / str(step))
        process = forked.Process(target=write_and_die_at, args=(folder, step))
        process.start()
        process.join()
        ends.append(process.exitcode)
        redo(folder)
        assert samples.products(folder) == golden, step
        if process.exitcode == 0:
            break
    assert ends[-1] == 0
    assert set(ends[:-1]) == {-signal.SIGKILL}
    assert len(ends) > 12


def kill_at_random(folder: str, kills: int, golden: dict[str, bytes], seed: int) -> None:
    """Attempts in one folder until `kills` of them died on the way; now and then a run resumes."""
    chance, killed, attempt = random.Random(seed), 0, 0
    while killed < kills:
        attempt += 1
        order = samples.shuffled(attempt)
        process = forked.Process(target=samples.write, args=(folder, f"kill{attempt}", order))
        process.start()
        time.sleep(chance.uniform(0, 0.04))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if shards.list_shards(folder) or chance.random() < 0.2:
            redo(folder)
            assert samples.products(folder) == golden
            for path in Path(folder).iterdir():
                path.unlink()
    redo(folder)
    assert samples.products(folder) == golden
    assert shards.verify(folder) == []


def test_killed_at_random_instants_and_run_again_gives_the_same_bytes(tmp_path, golden):
    kill_at_random(str(tmp_path), 15, golden, 1)


@pytest.mark.long
def test_killed_at_very_many_random_instants_gives_the_same_bytes(tmp_path, golden):
    kill_at_random(str(tmp_path), 500, golden, 2)


def run_at_once(folder: str, number: int, barrier, results) -> None:
    barrier.wait()
    results.put(samples.write(folder, f"racer{number}", samples.shuffled(number)))


def test_of_attempts_at_the_same_time_one_wins_and_the_bytes_are_the_same(tmp_path, golden):
    for repeat in range(4):
        folder = str(tmp_path / str(repeat))
        barrier, results = forked.Barrier(4), forked.Queue()
        racers = [
            forked.Process(target=run_at_once, args=(folder, i, barrier, results)) for i in range(4)
        ]
        for racer in racers:
            racer.start()
        won = [results.get(timeout=30) for _ in racers]
        for racer in racers:
            racer.join()
        assert won.count(True) == 1
        assert samples.products(folder) == golden
        assert len(os.listdir(folder)) == 3


def test_a_winner_killed_before_its_renames_is_rolled_forward_also_by_a_loser(folder, golden):
    stats = json.loads(inside(folder, "00003_stats.json").read_text())
    for part in ("tar", "parquet"):
        os.rename(
            inside(folder, f"00003.{part}"),
            inside(folder, f".00003.{stats['attempt']}.{part}"),
        )
    problems = [str(p) for p in shards.verify(folder)]
    assert len(problems) == 2
    assert all("killed before the file got its name; run the same" in p for p in problems)
    assert not samples.write(f"{folder}/shards", "loser")
    assert shards.finish(f"{folder}/shards", samples.SHARD).state == "done"
    assert samples.products(f"{folder}/shards") == golden


def test_a_damaged_shard_is_reported_set_aside_and_made_again(folder, golden, caplog):
    path = inside(folder, "00003.tar")
    path.write_bytes(path.read_bytes()[:-512])
    with caplog.at_level(logging.WARNING, "wit.shards"):
        found = shards.finish(f"{folder}/shards", samples.SHARD)
    assert found.state == "damaged"
    assert str(path) in found.problem
    assert "the shard is made again" in caplog.text
    assert not shards.is_done(f"{folder}/shards", samples.SHARD)
    assert samples.write(f"{folder}/shards", "again")
    assert samples.products(f"{folder}/shards") == golden
    names = os.listdir(f"{folder}/shards")
    assert sum(name.endswith(".damaged") for name in names) == 1
    assert shards.verify(folder) == []


def test_what_dead_attempts_left_is_swept_and_commits_are_not(folder, golden):
    stats = json.loads(inside(folder, "00003_stats.json").read_text())
    os.rename(inside(folder, "00003.tar"), inside(folder, f".00003.{stats['attempt']}.tar"))
    for name in (".00004.dead-1.tar", ".00003.dead-2.parquet", ".00005.tar.1f.tmp"):
        inside(folder, name).write_bytes(b"x")
    swept = shards.sweep(f"{folder}/shards")
    assert [os.path.basename(path) for path in swept] == [
        ".00003.dead-2.parquet",
        ".00004.dead-1.tar",
        ".00005.tar.1f.tmp",
    ]
    assert samples.products(f"{folder}/shards") == golden


def test_a_disk_that_fills_up_leaves_nothing_and_the_next_attempt_succeeds(
    tmp_path, golden, monkeypatch
):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.pq, "write_table", full)
    with pytest.raises(StorageError, match="free space there, then run the same command again"):
        samples.write(str(tmp_path))
    assert os.listdir(tmp_path) == []
    monkeypatch.undo()
    assert samples.write(str(tmp_path))
    assert samples.products(tmp_path) == golden


def test_a_put_whose_answer_was_lost_is_still_a_win(tmp_path, golden, monkeypatch):
    write_new = storage.write_new
    monkeypatch.setattr(storage, "write_new", lambda *a: write_new(*a) and False)
    assert samples.write(str(tmp_path))
    assert samples.products(tmp_path) == golden


def test_shards_of_another_tool_are_not_touched(tmp_path):
    (tmp_path / "00003_stats.json").write_text('{"count": 1, "successes": 1}')
    with pytest.raises(StorageError, match="written by another tool"):
        samples.write(str(tmp_path))
    assert os.listdir(tmp_path) == ["00003_stats.json"]


# --- read by others ---------------------------------------------------------------------------


def test_webdataset_reads_the_shards(folder):
    import webdataset

    found = list(webdataset.WebDataset(str(inside(folder, "00003.tar")), shardshuffle=False))
    wanted = [r for r in samples.fetched() if r.outcome == "success"]
    assert [s["__key__"] for s in found] == [f"00003{r.index:04d}" for r in wanted]
    assert [s["jpg"] for s in found] == [r.image for r in wanted]
    captions = samples.rows()["text"].to_pylist()
    assert [s["txt"].decode() for s in found] == [captions[r.index] for r in wanted]


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_datasets_reads_the_shards(folder, tmp_path, monkeypatch, streaming):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    datasets = pytest.importorskip("datasets", reason="Hugging Face's reader is not installed")
    data = datasets.load_dataset(
        "webdataset",
        data_files={"train": [str(inside(folder, "00003.tar"))]},
        split="train",
        streaming=streaming,
        cache_dir=str(tmp_path / "cache"),
    )
    found = list(data)
    wanted = [r for r in samples.fetched() if r.outcome == "success"]
    assert [s["__key__"] for s in found] == [f"00003{r.index:04d}" for r in wanted]
    assert [s["jpg"].size for s in found] == [(r.width, r.height) for r in wanted]
    assert [s["json"]["exif"] for s in found] == [r.exif or "{}" for r in wanted]


def test_a_picture_is_read_by_its_range_from_any_store(folder):
    remote = f"memory://{uuid.uuid4().hex}"
    samples.write(remote)
    for place in (f"{folder}/shards", remote):
        table = storage.read_table(f"{place}/00003.parquet")
        for row, result in zip(table.to_pylist()[:5], samples.fetched(), strict=False):
            assert shards.read_image(place, row) == result.image
        row = table.to_pylist()[0]
        with pytest.raises(StorageError, match=r"sample 000030000: the .* are not the picture"):
            shards.read_image(place, row | {"image_offset": 0})
        with pytest.raises(StorageError, match="has no image"):
            shards.read_image(place, table.to_pylist()[9])
        with pytest.raises(StorageError, match="not a sample's key"):
            shards.read_image(place, row | {"key": "../../etc/passwd"})


def test_the_fetcher_s_results_have_what_the_writer_reads():
    fields = {field.name for field in dataclasses.fields(Fetched)}
    assert fields >= set(shards.FetchedLike.__annotations__)
    assert set(samples.rows().column_names) <= set(pairs.LANE.names) | {"text"}
