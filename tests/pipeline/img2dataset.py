"""img2dataset in tests: where it is, and stand-ins that fail as it can fail."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from pipeline.fetch import Fetched, FetchPolicy, HostRule, HostRules
from pipeline.fetch.img2dataset import Img2dataset

ROOT = Path(__file__).resolve().parents[2]
HOST = "https://pictures.example"
WRITES = """#!{python}
import io, json, os, tarfile, time
os.mkdir("out")
def read():
    import pyarrow.parquet as pq
    return pq.read_table("urls.parquet").to_pylist()
sizes = dict(width=2, height=1, original_width=4, original_height=2)
def add(tar, row):
    meta = dict(row, exif='{{"Image Make": "Canon", "GPS GPSLatitude": "1"}}', **sizes)
    for kind, data in (("jpg", row["url"].encode()), ("json", json.dumps(meta).encode())):
        info = tarfile.TarInfo("%09d.%s" % (row["index"], kind))
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
def failures(rows):
    import pyarrow as pa, pyarrow.parquet as pq
    said = dict(status="failed_to_download", error_message="HTTP Error 404: Not Found")
    pq.write_table(pa.Table.from_pylist([dict(row, **said) for row in rows]), "out/00000.parquet")
def finish():
    open("out/00000_stats.json", "w").write("{{}}")
"""


@pytest.fixture(scope="session")
def img2dataset() -> str:
    """The executable; skips where there is none (`make engine` installs it)."""
    places = [os.environ.get("WIT_IMG2DATASET"), ROOT / ".img2dataset/bin/img2dataset"]
    found = [path for path in places if path and os.access(path, os.X_OK)]
    path = str(found[0]) if found else shutil.which("img2dataset")
    if path is None:
        pytest.skip("no img2dataset: `make engine`, or its path in WIT_IMG2DATASET")
    return path


@pytest.fixture
def stand_in(tmp_path):
    """Makes an executable that runs `body` after the helpers above."""

    def make(body: str) -> str:
        path = tmp_path / "img2dataset"
        path.write_text(WRITES.format(python=sys.executable) + body)
        path.chmod(0o755)
        return str(path)

    return make


def engine(path: str, folder: Path, **changes) -> Img2dataset:
    """The engine with a policy of tests."""
    settings = {"engine": "img2dataset", "img2dataset": path, "retries": 0, "read_seconds": 0.5}
    policy = FetchPolicy("TestBot/1.0 (+https://example.org/bot)", **{**settings, **changes})
    return Img2dataset(policy, str(folder))


def fetch(running: Img2dataset, names: list[str]) -> list[Fetched]:
    """What becomes of files of one host, in their order; nothing is left on the disk."""
    rules = HostRules({HOST: HostRule("rules", "User-agent: *\nDisallow: /no")})
    results = list(running.run([f"{HOST}/{name}" for name in names], rules))
    assert sorted(result.index for result in results) == list(range(len(names)))
    assert list(Path(running._folder).iterdir()) == []
    return sorted(results, key=lambda result: result.index)
