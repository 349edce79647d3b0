"""Takedown: what was named is gone, everything else is as it was, whatever interrupts it."""

import json
import multiprocessing
import os
import re
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.killed import die_at
from tests.wit import shard_samples as samples
from tests.wit.taken import named, state
from wit import cli, shards, storage
from wit.blocklist import read_own
from wit.errors import FolderInUse, UserError
from wit.takedown import dry_run, make_request, read_log, takedown

forked = multiprocessing.get_context("fork")
GONE = [0, 7, 39]  # of shard 3: two pictures and a row that was not fetched
URLS = [f"https://pictures.example/{i}.jpg" for i in GONE]
EMPTY = ("url", "caption", "page_url", "final_url", "exif", "sha256", "width", "image_offset")


def write_shard(folder: str, shard: int, host: str = "pictures.example", gone=()) -> None:
    """A shard of the samples' pictures; `gone` rows as a harvest writes what is kept out."""
    rows = samples.rows()
    urls = [None if i in gone else f"https://{host}/{i}.jpg" for i in range(len(rows))]
    columns = {"url": pa.array(urls)}
    for name in ("text", "page_url", "preset"):
        values = rows[name].to_pylist()
        fill = "taken_down" if name == "preset" else None
        columns[name] = pa.array([fill if i in gone else v for i, v in enumerate(values)])
    ids = [(shard * 1000 + i).to_bytes(16, "big") for i in range(len(rows))]
    columns["pair_id"] = pa.array(ids, pa.binary(16))
    for name, values in columns.items():
        rows = rows.set_column(rows.column_names.index(name), name, values)
    with shards.ShardWriter(folder, shard, rows, attempt="a") as writer:
        for result in samples.fetched():
            if result.index not in gone:
                writer.add(result)
        assert writer.commit({"lane": 1})


@pytest.fixture
def out(tmp_path) -> str:
    """An output folder with shards 2 and 3, and a manifest with a harvest's funnel."""
    make(str(tmp_path / "out"))
    return str(tmp_path / "out")


def make(folder: str) -> None:
    write_shard(f"{folder}/shards", 2, "other.example")
    write_shard(f"{folder}/shards", 3)
    outcomes = shards.build_manifest(f"{folder}/shards")["totals"]["outcomes"]
    shards.write_manifest(folder, {"seed": 7, "funnel": {"links": 90, "bad_url": 10, **outcomes}})


def table(folder: str, shard: int = 3) -> pa.Table:
    return pq.read_table(Path(folder) / f"shards/0000{shard}.parquet")


# --- what goes and what stays -----------------------------------------------------------------


def test_the_shards_verify_and_those_without_such_a_sample_are_not_touched(out):
    before = state(out)
    line = takedown(out, named(url=URLS))
    after = state(out)
    assert (line["samples"], line["pictures"], line["shards"]) == (3, 2, ["00003"])
    assert shards.verify(out) == []
    untouched = {name for name in before if name.startswith("shards/00002")}
    assert untouched
    assert all(after[name] == before[name] for name in untouched)
    assert {n for n in before if after[n] != before[n]} == {
        *("manifest.json", "shards/00003.tar", "shards/00003.parquet", "shards/00003_stats.json")
    }


def test_a_row_that_went_keeps_its_key_and_pair_and_nothing_from_the_web(out):
    before = table(out)
    takedown(out, named(url=URLS))
    after = table(out)
    assert after.select(["key", "pair_id"]).equals(before.select(["key", "pair_id"]))
    rows = after.take(GONE).to_pylist()
    assert {(row["status"], row["outcome"]) for row in rows} == {
        ("failed_to_download", "taken_down")
    }
    assert {row[name] for row in rows for name in EMPTY} == {None}
    stays = pc.invert(pc.is_in(pc.cast(after["row"], pa.int32()), pa.array(GONE, pa.int32())))
    same = [name for name in after.column_names if name != "image_offset"]
    assert after.filter(stays).select(same).equals(before.filter(stays).select(same))
    for gone in URLS:
        assert not any(gone.encode() in path.read_bytes() for path in Path(out).rglob("0*"))


def test_every_other_sample_is_still_read_by_its_row_and_by_webdataset(out):
    import webdataset

    takedown(out, named(url=URLS))
    wanted = [r for r in samples.fetched() if r.outcome == "success" and r.index not in GONE]
    rows = table(out).filter(pc.equal(table(out)["status"], "success")).to_pylist()
    assert [shards.read_image(f"{out}/shards", row) for row in rows] == [r.image for r in wanted]
    found = list(webdataset.WebDataset(f"{out}/shards/00003.tar", shardshuffle=False))
    assert [s["__key__"] for s in found] == [f"00003{r.index:04d}" for r in wanted]
    assert [s["jpg"] for s in found] == [r.image for r in wanted]
    assert all(json.loads(s["json"])["key"] == s["__key__"] for s in found)


def test_the_bytes_are_those_of_a_shard_that_never_had_the_samples(out, tmp_path):
    takedown(out, named(url=URLS))
    write_shard(str(tmp_path / "clean"), 3, gone=GONE)
    for name in ("00003.tar", "00003.parquet"):
        assert samples.inside(out, name).read_bytes() == (tmp_path / "clean" / name).read_bytes()


@pytest.mark.parametrize("number", [1, 40])
def test_a_first_sample_or_all_of_a_shard_may_go(out, number):
    ids = [pair.hex() for pair in table(out)["pair_id"].to_pylist()]
    takedown(out, make_request({"pair": ids[:number]}))
    assert shards.verify(out) == []
    assert table(out)["outcome"].to_pylist().count("taken_down") == number


def test_each_kind_of_entry_finds_its_rows(out):
    sha256 = table(out)["sha256"][7].as_py()
    for request, wanted in (
        (named(host=["pictures.example"]), {"host": 40}),
        (named(host=["example.com"]), {}),
        (named(page_host=["shop.example"]), {"page-host": 60}),
        (named(sha256=[sha256]), {"sha256": 2}),
        (named(pair=[table(out)["pair_id"][5].as_py().hex()], url=URLS), {"pair": 1, "url": 3}),
    ):
        assert dry_run(out, request).counts()["by"] == wanted


def test_counts_manifest_and_funnel_agree_again(out):
    before = shards.build_manifest(f"{out}/shards")["totals"]
    takedown(out, named(url=URLS))
    manifest = storage.read_json(f"{out}/manifest.json")
    totals, funnel = manifest["totals"], manifest["funnel"]
    assert totals["outcomes"]["taken_down"] == 3
    assert totals["count"] == before["count"] == 80
    assert totals["successes"] == before["successes"] - 2
    assert manifest["seed"] == 7
    assert funnel == {"links": 90, "bad_url": 10, **totals["outcomes"]}
    assert sum(funnel.values()) == 2 * funnel["links"]


def test_a_dry_run_names_what_would_go_and_changes_nothing(out, capsys):
    before = state(out)
    assert cli.main(["shards", "takedown", out, "--url", URLS[1], "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert re.search(f"000030007 .*{URLS[1]}", said)
    assert "1 sample (1 with a picture) would be taken out of 1 shard" in said
    assert state(out) == before


def test_the_log_says_when_by_what_and_why_and_no_more_than_was_asked(out):
    command = ["shards", "takedown", out, "--host", "Pictures.Example", "--reason", "asked by mail"]
    assert cli.main(command) == 0
    (line,) = read_log(out)
    assert line.pop("when").endswith("Z")
    assert line == {
        "criteria": {"host": ["pictures.example"]},
        "reason": "asked by mail",
        "samples": 40,
        "pictures": pc.sum(
            pc.equal(pq.read_table(f"{out}/shards/00002.parquet")["status"], "success")
        ).as_py(),
        "by": {"host": 40},
        "shards": ["00003"],
    }


def test_what_was_asked_for_and_what_went_is_on_a_list_that_tells_no_addresses(out):
    takedown(out, named(host=["pictures.example"], url=["https://never.example/seen.jpg"]))
    listed = read_own(f"{out}/takedown.parquet")
    later = pa.table(
        {"url": [URLS[0], "https://never.example/seen.jpg", "https://other.example/1"]}
    )
    assert listed.find(later).to_pylist() == ["host", "url", None]
    assert listed.find(table(out).select(["pair_id"])).to_pylist() == ["pair"] * 40
    assert b"example" not in Path(out, "takedown.parquet").read_bytes()


def test_a_pair_that_went_leaves_the_same_picture_with_another_text(out):
    takedown(out, named(pair=[table(out)["pair_id"][7].as_py().hex()]))
    listed = read_own(f"{out}/takedown.parquet")
    assert listed.counts() == {"pair": 1}


def test_taking_down_again_finds_nothing_and_touches_nothing(out):
    takedown(out, named(url=URLS))
    before = state(f"{out}/shards")
    line = takedown(out, named(url=URLS))
    assert (line["samples"], line["shards"]) == (0, [])
    assert state(f"{out}/shards") == before
    assert [line["samples"] for line in read_log(out)] == [3, 0]


def test_a_harvest_that_has_fetched_nothing_yet_is_told_what_to_keep_out(tmp_path):
    storage.write_json(f"{tmp_path}/run.json", {})
    assert takedown(str(tmp_path), named(url=URLS))["samples"] == 0
    assert read_own(f"{tmp_path}/takedown.parquet").counts() == {"url": 3}
    with pytest.raises(UserError, match="neither a harvest nor shards here"):
        takedown(f"{tmp_path}/elsewhere", named(url=URLS))


@pytest.mark.parametrize("way", ["shards", ""])
def test_a_folder_that_is_in_use_is_refused(out, way):
    with storage.FolderLock(out, "wit harvest (process 7)"), pytest.raises(FolderInUse, match="7"):
        takedown(f"{out}/{way}", named(url=URLS))


def test_lists_of_entries_are_taken_from_files(out, tmp_path):
    path = tmp_path / "requests.txt"
    path.write_text("# by mail\n" + "\n".join(URLS))
    assert cli.main(["shards", "takedown", f"{out}/shards", "--list", str(path)]) == 0
    (line,) = read_log(out)
    assert line["samples"] == line["criteria"]["lists"][0]["entries"] == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "nothing to take down"),
        (["--url", "example"], "--url example: no http or https address"),
        (["--pair-id", "12"], "--pair-id 12: no pair_id"),
        (["--host", "com"], "--host com: no host name"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_done(out, options, said):
    from wit import shards_cli

    before = state(out)
    with pytest.raises(UserError, match=said):
        shards_cli.main(["takedown", out, *options])
    assert state(out) == before


def test_a_damaged_shard_is_named_and_not_sealed_with_new_hashes(out):
    path = samples.inside(out, "00003.tar")
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"00003\.tar: is damaged"):
        takedown(out, named(url=URLS))
    assert path.read_bytes() == data
    assert not [name for name in os.listdir(f"{out}/shards") if "takedown" in name]


def test_remote_folders_work_alike(base):
    make(base)
    takedown(base, named(url=URLS))
    assert shards.verify(base) == []
    assert [line["samples"] for line in read_log(base)] == [3]


# --- killed at any instant --------------------------------------------------------------------


def take_down_and_die_at(folder: str, step: int) -> None:
    names = named(url=URLS, host=["other.example"])
    die_at(step, lambda: takedown(folder, names, reason="asked"))


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.long)])
def test_killed_before_any_file_operation_and_repeated_it_ends_the_same(tmp_path, every):
    ends, golden = [], None
    for step in [10**6, *range(every, 400, every)]:
        folder = str(tmp_path / str(step))
        make(folder)
        process = forked.Process(target=take_down_and_die_at, args=(folder, step))
        process.start()
        process.join()
        for path in Path(folder).rglob("*.parquet"):  # a reader finds whole files at any instant
            if not path.name.startswith("."):
                pq.read_table(path)
        takedown(folder, named(url=URLS, host=["other.example"]), reason="asked")
        assert shards.verify(folder) == [], step
        found = samples.products(f"{folder}/shards")
        found |= {
            name: Path(folder, name).read_bytes() for name in ("manifest.json", "takedown.parquet")
        }
        golden = golden or found
        assert found == golden, step
        log = read_log(folder)
        assert sum(line["samples"] for line in log) == 43, step
        assert not Path(folder, "takedown.pending.json").exists()
        if step < 10**6:
            ends.append(process.exitcode)
            if process.exitcode == 0:
                break
    assert ends[-1] == 0
    assert set(ends[:-1]) == {-signal.SIGKILL}
    assert len(ends) * every > 50
