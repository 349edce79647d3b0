import dataclasses
import hashlib
import io
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
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

from tests.wit import shard_samples as samples
from wit import pairs, shards, storage
from wit.errors import StorageError
from wit.pairs import SAMPLES
from wit.shards_cli import main

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


@pytest.fixture
def folder(tmp_path) -> str:
    """An output folder with a finished shard in `shards/`, and its manifest."""
    assert samples.write(str(tmp_path / "shards"))
    shards.write_manifest(str(tmp_path), {"seed": 7})
    return str(tmp_path)


def inside(folder: str, name: str) -> Path:
    return Path(folder) / "shards" / name


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
            assert row["sha256"] is row["image_offset"] is row["image_size"] is None
        else:
            offset, size = row["image_offset"], row["image_size"]
            assert offsets[f"{row['key']}.jpg"] == (offset, size)
            assert tar[offset : offset + size] == result.image
            assert hashlib.sha256(result.image).hexdigest() == row["sha256"]
            member = json.loads(texts[f"{row['key']}.json"])
            assert member["url"] == row["url"]
            assert member["pair_id"] == row["pair_id"].hex()
            assert int(member["priority"], 16) == row["priority"]
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
                    writer.add(samples.Picture(i, "success", image=picture))
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
            "the shard has 40 rows": samples.Picture(40, "not_found"),
            "has 40 rows": samples.Picture(-1, "not_found"),
            "decided before: robots_disallowed": samples.Picture(9, "success", image=image),
            "unknown outcome 'odd'": samples.Picture(0, "odd"),
            "success without an image": samples.Picture(0, "success", image=b""),
            "'txt' is no extension": samples.Picture(0, "success", None, image, "txt"),
            "'a/b' is no extension": samples.Picture(0, "success", None, image, "a/b"),
            "is not the image's": samples.Picture(0, "success", image=image, sha256="00"),
        }.items():
            with pytest.raises(ValueError, match=message):
                writer.add(picture)
        writer.add(samples.Picture(0, "success", image=image, sha256=sha256))
        with pytest.raises(ValueError, match="row 0: was added before"):
            writer.add(samples.Picture(0, "not_found"))
        with pytest.raises(ValueError, match="35 rows were not added, the first is 1"):
            writer.commit({})
    assert os.listdir(tmp_path) == []


# --- killed at any instant --------------------------------------------------------------------


def run_and_die_at(folder: str, step: int) -> None:
    """Writes the shard in a process that is killed just before its step-th file operation."""
    seen = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event in ("open", "os.rename", "os.link", "os.remove", "os.listdir", "os.mkdir"):
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    samples.write(folder, f"step{step}")


def redo(folder: str) -> None:
    """What a run does with a shard when it starts again."""
    shards.sweep(folder)
    if not shards.is_done(folder, samples.SHARD):
        assert samples.write(folder, "again")


def test_killed_before_any_file_operation_and_run_again_gives_the_same_bytes(tmp_path, golden):
    ends = []
    for step in range(1, 200):
        folder = str(tmp_path / str(step))
        process = forked.Process(target=run_and_die_at, args=(folder, step))
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
    stats = tmp_path / "00003_stats.json"
    stats.write_text('{"count": 1, "successes": 1}')
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


# --- manifest, verify, stats ------------------------------------------------------------------


def test_the_manifest_lists_every_shard_and_no_times(folder, tmp_path_factory):
    manifest = storage.read_json(f"{folder}/manifest.json")
    assert (manifest["seed"], manifest["folder"]) == (7, "shards")
    assert [e["name"] for e in manifest["shards"]] == ["00003"]
    assert manifest["totals"]["count"] == samples.ROWS
    assert manifest["totals"]["outcomes"]["robots_disallowed"] == 4
    size = os.path.getsize(inside(folder, "00003.tar"))
    assert manifest["totals"]["tar_bytes"] == manifest["shards"][0]["tar"]["size"] == size
    again = tmp_path_factory.mktemp("again")
    samples.write(str(again / "shards"), "other", samples.shuffled(5))
    shards.write_manifest(str(again), {"seed": 7})
    assert (again / "manifest.json").read_bytes() == Path(folder, "manifest.json").read_bytes()
    with pytest.raises(ValueError, match="'totals' of its own"):
        shards.write_manifest(folder, {"totals": 1})


def test_whole_shards_have_no_problems_from_either_folder(folder, capsys):
    assert shards.verify(folder) == shards.verify(f"{folder}/shards") == []
    assert main(["verify", folder]) == 0
    assert main(["verify", f"{folder}/shards", "--fast"]) == 0
    assert "1 shards of" in capsys.readouterr().out


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def edit(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def rewrite_parquet(folder: str, change) -> None:
    """Changes the table and makes the stats agree with the new file."""
    path = inside(folder, "00003.parquet")
    table = change(pq.read_table(path))
    storage.write_table(str(path), table)
    data = path.read_bytes()
    entry = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit(inside(folder, "00003_stats.json"), lambda s: s["parquet"].update(entry))


def move_image(table: pa.Table) -> pa.Table:
    offsets = table["image_offset"].to_pylist()
    place = table.schema.get_field_index("image_offset")
    return table.set_column(place, "image_offset", pa.array([offsets[0] + 1, *offsets[1:]]))


DAMAGE = {
    "a byte of a picture": (
        lambda f: flip(inside(f, "00003.tar"), 700),
        ["00003.tar: sha256 is", "000030000: the image's bytes are not those of its sha256"],
        False,
    ),
    "a byte of a tar header": (
        lambda f: flip(inside(f, "00003.tar"), 3),
        ["00003.tar: sha256 is", "00003.tar: "],
        False,
    ),
    "a byte of the Parquet file": (
        lambda f: flip(inside(f, "00003.parquet"), 60),
        ["00003.parquet: sha256 is"],
        False,
    ),
    "a truncated tar": (
        lambda f: os.truncate(inside(f, "00003.tar"), 5000),
        ["00003.tar: has 5,000 bytes, 00003_stats.json says"],
        True,
    ),
    "a missing tar": (
        lambda f: inside(f, "00003.tar").unlink(),
        ["00003.tar: is missing; remove"],
        True,
    ),
    "a missing Parquet file": (
        lambda f: inside(f, "00003.parquet").unlink(),
        ["00003.parquet: is missing; remove"],
        True,
    ),
    "a missing stats file": (
        lambda f: inside(f, "00003_stats.json").unlink(),
        ["00003_stats.json: missing beside 00003.tar, 00003.parquet", "lists shard 00003"],
        True,
    ),
    "a stats file that is no JSON": (
        lambda f: inside(f, "00003_stats.json").write_text("{"),
        ["00003_stats.json: is not a JSON object", "manifest.json: cannot be compared"],
        True,
    ),
    "an emptied stats file": (
        lambda f: inside(f, "00003_stats.json").write_text("{}"),
        ["00003_stats.json: names no attempt", "manifest.json: cannot be compared"],
        True,
    ),
    "a wrong count in the stats": (
        lambda f: edit(inside(f, "00003_stats.json"), lambda s: s.update(successes=1)),
        ["successes is 29 by its rows, 1 by its _stats.json", "shard 00003: successes"],
        False,
    ),
    "a wrong offset": (
        lambda f: rewrite_parquet(f, move_image),
        ["000030000: the image has", "shard 00003: parquet is not what its stats say"],
        False,
    ),
    "a missing row": (
        lambda f: rewrite_parquet(f, lambda t: t.slice(1)),
        ["member '000030000.txt' belongs to no row", "count is 39 by its rows"],
        False,
    ),
    "a missing column": (
        lambda f: rewrite_parquet(f, lambda t: t.drop_columns(["image_size"])),
        ["has not the columns of a shard (differs in ['image_size'])"],
        False,
    ),
    "an edited manifest": (
        lambda f: edit(Path(f, "manifest.json"), lambda m: m["shards"][0].update(successes=9)),
        ["manifest.json: shard 00003: successes is not what its stats say"],
        True,
    ),
    "edited totals": (
        lambda f: edit(Path(f, "manifest.json"), lambda m: m["totals"].update(count=9)),
        ["manifest.json: its totals are not those of the shards"],
        True,
    ),
    "a shard too many in the manifest": (
        lambda f: edit(Path(f, "manifest.json"), lambda m: m["shards"].append({"name": "00009"})),
        ["manifest.json: lists shard 00009, which is not there"],
        True,
    ),
    "a shard too few in the manifest": (
        lambda f: edit(Path(f, "manifest.json"), lambda m: m["shards"].clear()),
        ["manifest.json: does not list shard 00003"],
        True,
    ),
    "a left-over attempt": (
        lambda f: inside(f, ".00003.dead-1.tar").write_bytes(b""),
        [".00003.dead-1.tar: left by a run that was killed"],
        True,
    ),
    "a left-over temporary file": (
        lambda f: inside(f, ".00003.tar.1f.tmp").write_bytes(b""),
        [".00003.tar.1f.tmp: left by a run that was killed"],
        True,
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_verify_names_every_kind_of_damage(folder, kind, capsys):
    harm, expected, seen_fast = DAMAGE[kind]
    harm(folder)
    problems = [str(problem) for problem in shards.verify(folder)]
    for text in expected:
        assert any(text in problem for problem in problems), problems
    assert all("\n" not in problem and "; " in problem for problem in problems)
    assert bool(shards.verify(folder, full=False)) >= seen_fast
    assert main(["verify", folder]) == 1
    assert capsys.readouterr().out.splitlines() == problems


def test_a_folder_without_shards_is_a_problem(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 1
    assert "no shards here" in capsys.readouterr().out
    with pytest.raises(StorageError, match="no shards here"):
        main(["stats", str(tmp_path)])


def test_stats_count_what_is_there(folder, capsys):
    seen = []
    found = shards.stats(folder, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 1)]
    results = [r for r in samples.fetched() if r.outcome == "success"]
    assert found["count"] == samples.ROWS
    assert found["successes"] == found["outcomes"]["success"] == len(results)
    assert sum(found["outcomes"].values()) == samples.ROWS
    assert found["bytes"] == sum(len(r.image) for r in results)
    assert sum(found["image_bytes"].values()) == len(results)
    assert found["shorter_side"]["< 128"] == sum(min(r.width, r.height) >= 64 for r in results)
    assert main(["stats", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert main(["stats", folder]) == 0
    assert "40 samples, 29 with an image" in capsys.readouterr().out


# --- img2dataset's folders --------------------------------------------------------------------


@pytest.fixture
def foreign(tmp_path) -> Path:
    """A shard as img2dataset 1.47 writes it: TarWriter, its columns, stats without hashes."""
    import webdataset

    results = samples.fetched()
    rows = []
    with webdataset.TarWriter(str(tmp_path / "00000.tar")) as tar:
        for i, result in enumerate(results):
            good = result.outcome == "success"
            status = "success" if good else "failed_to_download"
            row = {"url": f"u{i}", "caption": f"c{i}", "key": f"{i:09d}", "status": status}
            row |= {"error_message": result.message, "width": result.width}
            row |= {"height": result.height, "sha256": "of the original"}
            rows.append(row)
            if good:
                texts = {"txt": row["caption"], "json": json.dumps(row)}
                tar.write({"__key__": row["key"], "jpg": result.image, **texts})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "00000.parquet")
    good = sum(row["status"] == "success" for row in rows)
    stats = {"count": len(rows), "successes": good, "failed_to_download": len(rows) - good}
    stats |= {"failed_to_resize": 0, "duration": 1.0, "start_time": 1.0, "end_time": 2.0}
    stats |= {"status_dict": {"success": good, "HTTP 404": len(rows) - good}}
    (tmp_path / "00000_stats.json").write_text(json.dumps(stats, indent=4))
    return tmp_path


def test_img2dataset_s_shards_are_verified_and_counted(foreign):
    assert shards.verify(str(foreign)) == []
    found = shards.stats(str(foreign))
    assert found["successes"] == found["messages"]["success"] == found["outcomes"]["success"]
    assert found["tar_bytes"] == os.path.getsize(foreign / "00000.tar")


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (lambda f: os.truncate(f / "00000.tar", 800), "cannot be read as a tar after 0 members"),
        (lambda f: os.truncate(f / "00000.tar", 20_000), "00000.tar: is cut off"),
        (lambda f: os.truncate(f / "00000.tar", 20_480), "is not in the tar"),
        (lambda f: (f / "00000.tar").unlink(), "not enough"),
        (lambda f: os.truncate(f / "00000.parquet", 2000), "not a readable Parquet file"),
        (lambda f: (f / "00000_stats.json").unlink(), "the shard is not finished"),
        (lambda f: edit(f / "00000_stats.json", lambda s: s.update(count=9)), "9 by its _stats"),
    ],
)
def test_damage_of_img2dataset_s_shards_is_named(foreign, harm, expected):
    if expected == "not enough":
        (foreign / "00001.tar").write_bytes(b"")  # the folder has tars, so each shard must
        expected = "00000.tar: is missing"
    harm(foreign)
    problems = [str(problem) for problem in shards.verify(str(foreign))]
    assert any(expected in problem for problem in problems), problems


def test_the_fetcher_s_results_have_what_the_writer_reads():
    fields = {field.name for field in dataclasses.fields(samples.Picture)}
    assert fields == set(shards.FetchedLike.__annotations__)
    assert set(samples.rows().column_names) <= set(pairs.LANE.names) | {"text"}
