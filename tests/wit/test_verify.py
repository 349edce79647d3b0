"""What is in a folder of shards, ours or img2dataset's, and every kind of damage by its name."""

import hashlib
import json
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.fetch import Fetched
from tests.wit import shard_samples as samples
from tests.wit.shard_samples import inside
from wit import shards, storage
from wit.errors import StorageError
from wit.outcomes import OUTCOMES
from wit.shards_cli import main

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


def test_stats_show_every_outcome_however_many_there_are(tmp_path, capsys):
    outcomes = list(OUTCOMES)[:30]
    with shards.ShardWriter(str(tmp_path), 0, samples.rows(40), attempt="a") as writer:
        for i in (i for i in range(40) if i % 10 != 9):
            outcome = outcomes[i % len(outcomes)]
            image = b"x" if outcome == "success" else None
            writer.add(Fetched(i, outcome, image=image, extension="jpg"))
        assert writer.commit({})
    found = shards.stats(str(tmp_path))["outcomes"]
    assert len(found) > 20
    assert main(["stats", str(tmp_path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert all([name, str(number)] in lines for name, number in found.items())
    assert not any("more" in line for line in lines)


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


def cut(folder: Path, member: int, part: str, more: int = 0) -> None:
    """Cuts the tar `more` bytes after the start of a member's header (`offset`) or data."""
    with tarfile.open(folder / "00000.tar") as tar:
        place = getattr(tar.getmembers()[member], part)
    os.truncate(folder / "00000.tar", place + more)


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (lambda f: cut(f, 0, "offset_data", 1), "cannot be read as a tar after 0 members"),
        (lambda f: cut(f, 30, "offset_data", 1), "cannot be read as a tar after 30 members"),
        (lambda f: cut(f, 30, "offset", 32), "00000.tar: is cut off"),
        (lambda f: cut(f, 30, "offset"), "00000.tar: is cut off"),
        (lambda f: cut(f, 30, "offset"), "is not in the tar"),
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
