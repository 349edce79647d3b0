"""The forecast of `wit harvest --dry-run` beside what the run then takes.

    python -m benchmarks.forecast [--folder DIR] [--size 2GB] [--workers 2] [--sample 0.001]

The inputs are the real pages of ../shared/data (WARC, gzip), written again and again up to the
size: so every pair has many duplicates, which is the hardest case for a small sample, and there
are as many files as make each about 60 MB. The run is `--until select`, since how long fetching
takes is decided by other people's servers. Core-seconds are those of all processes of a run, or of
a stage's work elements; what is not a stage's own (imports, the runner, planning) is `start`.

Prints a JSON line: the forecast and what the run took, in all and by stage, with `within`: whether
the total lies in the forecast's interval, and `off`: by what part of it the forecast was wrong.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.common import SHARED
from pipeline.progress import START, read_times
from pipeline.run import load_run
from pipeline.stages import in_order
from wit.console import parse_size

PAGES = SHARED / "warc/real_pages.warc.gz"
COPIES = 2  # of the pages in a file
UNTIL = "select"


def write_inputs(folder: Path, size: int) -> list[str]:
    """Writes the pages again and again; the paths."""
    pages = PAGES.read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    files = max(1, round(size / len(pages) / COPIES))
    paths = [folder / f"pages-{number:04d}.warc.gz" for number in range(files)]
    for path in paths:
        path.write_bytes(pages * COPIES)
    return [str(path) for path in paths]


def command(*arguments: str) -> tuple[str, float, float]:
    """Runs `wit`; what it printed, the seconds, and the core-seconds of all its processes."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "wit.cli", *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    core = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, time.monotonic() - started, core


def stage_seconds(out: Path, core: float) -> dict[str, float]:
    """Returns core-seconds by stage, all waves together; `start` is what is left of all."""
    run = load_run(str(out))
    keys = {key: stage.name for key, _, stage in in_order(run)}
    found: dict[str, float] = {}
    for key, (_, _, cpu) in read_times(run, list(keys)).items():
        if key != START and key in keys:
            found[keys[key]] = found.get(keys[key], 0.0) + cpu
    return {"start": core - sum(found.values()), **found}


def measure(folder: Path, size: int, workers: int, more: list[str]) -> dict[str, Any]:
    """Forecasts and runs; both, side by side."""
    inputs = write_inputs(folder / "in", size)
    queries = str(folder / "queries.parquet")
    command("queries", "starter", "--out", queries)
    asked = [*inputs, "--queries", queries, "--until", UNTIL, "--workers", str(workers)]
    said, forecast_seconds, forecast_core = command(
        "harvest", *asked, *more, "--dry-run", "--json", "-"
    )
    forecast = json.loads(said)
    _, seconds, core = command("harvest", *asked, "--out", str(folder / "out"))
    stages = stage_seconds(folder / "out", core)
    run = load_run(str(folder / "out"))
    rows = sum(
        json.loads(path.read_text())["rows"]
        for path in sorted((folder / "out/candidates").glob("0*.json"))
    )
    selected = sum(
        pq.read_metadata(path).num_rows
        for path in sorted((folder / "out/selection/01").glob("????.parquet"))
    )
    expected = {stage["name"]: stage["core"] for stage in forecast["stages"]}
    total = forecast["core_seconds"]
    return {
        "bytes": sum(Path(path).stat().st_size for path in inputs),
        "files": len(run.config.sources),
        "sampled": forecast["sample"],
        "forecast itself": {"seconds": forecast_seconds, "core seconds": forecast_core},
        "candidates": {"forecast": forecast["candidates"], "was": rows},
        "unique": {"forecast": forecast["unique"]},
        "selected": {"forecast": forecast["asked_by_wave"][0], "was": selected},
        "core seconds": {"forecast": total, "was": core},
        "seconds": {"forecast": forecast["seconds"], "was": seconds},
        "stages": {
            name: {"forecast": expected.get(name), "was": round(taken, 2)}
            for name, taken in stages.items()
        },
        "within": total["low"] <= core <= total["high"],
        "off": total["mid"] / core - 1,
    }


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="for inputs and run, about twice the size")
    parser.add_argument("--size", type=parse_size, default=2_000_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sample", help="share of the inputs; as the harvest chooses unless given")
    options = parser.parse_args()
    more = ["--sample", options.sample] if options.sample else []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        print(json.dumps(measure(folder, options.size, options.workers, more), indent=1))


if __name__ == "__main__":
    main()
