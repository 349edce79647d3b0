"""docs/reading.md: every block runs as it stands, and finds what the tables hold."""

import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs/reading.md"
BLOCKS = re.findall(
    r"^## (.*?)$|^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE
)


def blocks() -> dict[str, str]:
    """The page's blocks of Python by their heading; a heading's further ones are numbered."""
    found: dict[str, str] = {}
    heading = ""
    for title, code in BLOCKS:
        heading = title or heading
        if code:
            number = sum(name.startswith(heading) for name in found)
            found[f"{heading} {number + 1}" if number else heading] = code
    return found


WANTED = {  # what a block must print, as SQL over the same files
    "webdataset": "SELECT count(*) || ' pairs' FROM SHARDS WHERE outcome = 'success'",
    "Hugging Face datasets 2": (
        "SELECT count(*) || ' pictures are gone' FROM SHARDS WHERE outcome = 'not_found'"
    ),
    "pyarrow and pandas": (
        "SELECT 'max ' || max(least(width, height))::INT FROM SHARDS WHERE outcome = 'success'"
    ),
    "DuckDB": "SELECT '(''success'', ' || count(*) || ')' FROM SHARDS WHERE outcome = 'success'",
    "DuckDB 3": "SELECT '(' || count(*) FILTER (matched > 0) || ', ' FROM 'mine/coverage.parquet'",
    "A picture by its key": (
        "SELECT '(' || width || ', ' || height || ') ' || caption FROM 'mine/shards/00000.parquet' "
        "WHERE outcome = 'success' ORDER BY key LIMIT 1"
    ),
    "Croissant": "SELECT key || ' ' || caption FROM 'mine/shards/00000.parquet' LIMIT 1",
}


@pytest.mark.parametrize("name", blocks())
def test_a_block_runs_and_prints_what_the_tables_hold(name, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(finished.parent)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    environment["CROISSANT_CACHE"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", blocks()[name]],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert said
    if name in WANTED:
        query = WANTED[name].replace("SHARDS", "'mine/shards/*.parquet'")
        ((wanted,),) = duckdb.sql(query).fetchall()
        assert " ".join(wanted.split()) in said


def test_the_page_has_a_block_for_each_way_of_reading():
    assert set(WANTED) < set(blocks())
    assert len(blocks()) == 9
