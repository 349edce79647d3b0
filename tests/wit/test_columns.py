"""The columns of a shard: the documentation has them all, and older shards may lack the newest."""

import hashlib
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.wit import shard_samples as samples
from tests.wit.shard_samples import inside
from wit import cli, shards, storage
from wit.pairs import SAMPLES
from wit.takedown import make_request, takedown

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "files.md"
GONE = make_request({"url": ["https://pictures.example/0.jpg"]})
ADDED = ["phash", "animated"]  # after the first shards were written


def test_the_documentation_has_every_column_in_order_with_its_type():
    section = DOCUMENT.read_text().split("## The columns of a shard")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, re.MULTILINE)
    assert rows == [(field.name, str(field.type)) for field in SAMPLES]


@pytest.fixture
def older(folder) -> str:
    """An output folder whose shard was written before those columns were added."""
    drop(folder, ADDED)
    return folder


def drop(folder: str, columns: list[str]) -> None:
    path, said = inside(folder, "00003.parquet"), inside(folder, "00003_stats.json")
    table = pq.read_table(path).drop_columns(columns)
    schema = pa.schema([SAMPLES.field(name) for name in table.schema.names])
    storage.write_table(str(path), table.cast(schema))
    stats = json.loads(said.read_text())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    stats["parquet"].update(size=path.stat().st_size, sha256=sha256)
    said.write_text(json.dumps(stats))
    shards.write_manifest(folder, {"seed": 7})


def test_older_shards_are_whole_and_counted(older):
    assert shards.verify(older) == []
    assert cli.main(["shards", "verify", older]) == 0
    assert shards.stats(older)["successes"] == 29


def test_a_sample_is_taken_out_of_an_older_shard_and_nothing_else_changes(older, tmp_path):
    takedown(older, GONE)
    assert shards.verify(older) == []
    newer = str(tmp_path / "newer")
    samples.write(f"{newer}/shards")
    takedown(newer, GONE)
    drop(newer, ADDED)
    paths = [inside(out, "00003.parquet") for out in (older, newer)]
    assert pq.read_table(paths[0])["outcome"][0].as_py() == "taken_down"
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_what_is_taken_out_of_a_shard_leaves_no_hash(folder):
    takedown(folder, GONE)
    row = pq.read_table(inside(folder, "00003.parquet")).to_pylist()[0]
    assert row["phash"] is row["animated"] is None


def test_of_an_older_shard_too_no_other_column_may_be_missing(older):
    drop(older, ["wave"])
    assert [problem.what for problem in shards.verify(older)] == [
        "has not the columns of a shard (differs in ['wave'])"
    ]
