"""Unique and balance of 1, 3 and 10 million candidates: time and memory, and how they grow.

    python -m benchmarks.balance [--millions 1 3 10] [--workers 2]

Candidates are real captions (Conceptual Captions validation, LAION) drawn again and again with new
URLs on 50,000 hosts, every twentieth pair a duplicate of another and every tenth URL met twice;
queries are the starter list. The harvest itself runs (`wit harvest --until select`), in as many
processes as on a person's machine; memory is the sum of the proportional set sizes of all its
processes, sampled four times a second, so shared pages count once.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common import SHARED, proportional_memory

FILES_PER_MILLION = 4


def captions() -> list[str]:
    """Returns the real captions."""
    with gzip.open(SHARED / "text/cc3m_val.tsv.gz", "rt", encoding="utf-8") as file:
        found = [line.split("\t")[0] for line in file]
    found += pq.read_table(SHARED / "text/laion_10000.parquet")["TEXT"].to_pylist()
    return [text for text in found if text]


def write_tables(folder: Path, millions: int) -> list[str]:
    """Writes the candidates as Parquet tables of (url, text)."""
    texts = pa.array(captions())
    n, files = millions * 1_000_000, millions * FILES_PER_MILLION
    rng = np.random.default_rng(millions)
    paths = []
    for number in range(files):
        size = n // files
        picture = rng.integers(0, n * 5, size)
        picture[::20] = picture[1::20][: len(picture[::20])]  # duplicates, if the text agrees too
        text = rng.integers(0, len(texts), size)
        text[::20] = text[1::20][: len(text[::20])]
        urls = [f"https://host-{p % 50_000}.example/{p}.jpg" for p in picture.tolist()]
        table = pa.table({"url": urls, "text": texts.take(pa.array(text))})
        paths.append(str(folder / f"{number:03d}.parquet"))
        pq.write_table(table, paths[-1])
    return paths


def harvest(inputs: list[str], queries: str, out: Path, workers: int, until: str) -> dict:
    """Runs the harvest up to a stage; seconds and peak megabytes."""
    command = [sys.executable, "-m", "wit.cli", "harvest", *inputs, "--queries", queries]
    command += ["--out", str(out), "--contact", "bench@example.org", "--until", until]
    command += ["--workers", str(workers), "--host-rate", "0"]
    started = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak = 0

    def sample() -> None:
        nonlocal peak
        while child.poll() is None:
            peak = max(peak, proportional_memory(child.pid))
            time.sleep(0.25)

    thread = threading.Thread(target=sample)
    thread.start()
    _, said = child.communicate()
    thread.join()
    if child.returncode:
        raise RuntimeError(said)
    return {"seconds": time.monotonic() - started, "peak_mb": peak / 1e6, "said": said}


def measure(millions: int, queries: str, workers: int) -> dict:
    """Returns extraction's and balance's seconds, and the peak of each."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = write_tables(Path(folder), millions)
        out = Path(folder) / "out"
        extract = harvest(inputs, queries, out, workers, "extract")
        balance = harvest(inputs, queries, out, workers, "select")
        selected = sum(
            pq.read_metadata(path).num_rows
            for path in sorted((out / "selection/01").glob("????.parquet"))
        )
    return {
        "millions": millions,
        "selected": selected,
        "extract_seconds": extract["seconds"],
        "extract_peak_mb": extract["peak_mb"],
        "seconds": balance["seconds"],
        "peak_mb": balance["peak_mb"],
        "stages": balance["said"],
    }


def main() -> None:
    """Prints a JSON line for each size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 3, 10])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        queries = f"{folder}/queries.parquet"
        command = [sys.executable, "-m", "wit.cli", "queries", "starter", "--out", queries]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for millions in options.millions:
            print(json.dumps(measure(millions, queries, options.workers)), flush=True)


if __name__ == "__main__":
    main()
