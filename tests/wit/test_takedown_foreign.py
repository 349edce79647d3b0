"""A takedown in a folder of img2dataset: the same promises, as far as its tables can say."""

import json
import multiprocessing
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.killed import die_at
from tests.wit import shard_samples as samples
from tests.wit.taken import named, state
from wit import shards
from wit.errors import UserError
from wit.shards_index import index_shards
from wit.takedown import place_of, read_log, takedown

forked = multiprocessing.get_context("fork")


def make_foreign(folder: Path) -> None:
    """Two shards as img2dataset writes them: TarWriter, raw URLs, stats without hashes."""
    import webdataset

    folder.mkdir()
    for shard in range(2):
        results, rows = samples.fetched(), []
        with webdataset.TarWriter(str(folder / f"0000{shard}.tar")) as writer:
            for i, result in enumerate(results):
                good = result.outcome == "success"
                row = {"url": f"HTTPS://Shop{shard}.example/a/../{i} ü.jpg", "caption": f"c{i}"}
                row |= {"key": f"{shard:05d}{i:04d}"}
                row |= {"status": "success" if good else "failed_to_download"}
                row |= {"error_message": result.message, "width": result.width, "sha256": "00" * 32}
                row |= {"source_text": f"about {i}", "scores": [0.5, 0.1]}
                rows.append(row)
                if good:
                    texts = {"txt": row["caption"], "json": json.dumps(row)}
                    writer.write({"__key__": row["key"], "jpg": result.image, **texts})
        pq.write_table(pa.Table.from_pylist(rows), folder / f"0000{shard}.parquet")
        good = sum(row["status"] == "success" for row in rows)
        stats = {"count": len(rows), "successes": good, "failed_to_download": len(rows) - good}
        stats |= {"failed_to_resize": 0, "status_dict": {"success": good}}
        (folder / f"0000{shard}_stats.json").write_text(json.dumps(stats))


def foreign_takedown(folder: Path) -> dict:
    return takedown(str(folder), named(url=["https://shop1.example/0%20%C3%BC.jpg"]))


def test_shards_of_img2dataset_are_rewritten_as_well(tmp_path):
    import webdataset

    folder = tmp_path / "i2d"
    make_foreign(folder)
    before = state(str(folder))
    line = foreign_takedown(folder)
    assert (line["samples"], line["pictures"], line["shards"]) == (1, 1, ["00001"])
    assert shards.verify(str(folder)) == []
    after = state(str(folder))
    assert all(after[name] == before[name] for name in before if name.startswith("00000"))
    row, *others = pq.read_table(folder / "00001.parquet").to_pylist()
    assert (row["key"], row["status"]) == ("000010000", "failed_to_download")
    assert {row[n] for n in ("url", "caption", "source_text", "scores", "width")} == {None}
    assert all(other["source_text"] for other in others)
    found = list(webdataset.WebDataset(str(folder / "00001.tar"), shardshuffle=False))
    wanted = [r.image for r in samples.fetched() if r.outcome == "success"][1:]
    assert [s["jpg"] for s in found] == wanted
    assert sorted(path.name for path in folder.glob("*.parquet")) == [
        "00000.parquet",
        "00001.parquet",
    ]


def test_an_index_to_train_on_forgets_what_went(tmp_path):
    folder = tmp_path / "i2d"
    make_foreign(folder)
    index_shards(str(folder))
    table = folder / "index" / "00001.parquet"
    kept = (folder / "index" / "00000.parquet").read_bytes()
    assert "c0" in pq.read_table(table)["caption"].to_pylist()
    foreign_takedown(folder)
    assert not table.exists()
    assert not (folder / "index.json").exists()
    index_shards(str(folder))
    assert "c0" not in pq.read_table(table)["caption"].to_pylist()
    assert (folder / "index" / "00000.parquet").read_bytes() == kept


def test_killed_in_a_folder_of_img2dataset_and_repeated_it_ends_the_same(tmp_path):
    make_foreign(tmp_path / "i2d")
    golden = None
    for step in [10**6, *range(3, 300, 4)]:
        folder = shutil.copytree(tmp_path / "i2d", tmp_path / str(step))

        def run(folder=folder, step=step) -> None:
            die_at(step, lambda: foreign_takedown(folder))

        process = forked.Process(target=run)
        process.start()
        process.join()
        foreign_takedown(folder)
        assert shards.verify(str(folder)) == [], step
        found = {path.name: path.read_bytes() for path in folder.glob("0*")}
        golden = golden or found
        assert found == golden, step
        assert sum(line["samples"] for line in read_log(place_of(str(folder)).records)) == 1
        if process.exitcode == 0 and step < 10**6:
            break
    assert process.exitcode == 0


def test_what_a_foreign_table_cannot_answer_is_said(tmp_path):
    make_foreign(tmp_path / "i2d")
    with pytest.raises(UserError, match="no column 'pair_id', so nothing is found there by pair"):
        takedown(str(tmp_path / "i2d"), named(pair=["00" * 16]))
    (tmp_path / "i2d" / "00001.tar").unlink()
    with pytest.raises(UserError, match=r"00001\.tar: is missing"):
        foreign_takedown(tmp_path / "i2d")
