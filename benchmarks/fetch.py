"""Fetching beside img2dataset: pictures a second from the same server on the same machine.

    python -m benchmarks.fetch [--pictures 5000] [--rounds 3] [--cases 500 1600 https memory]

Both ask an nginx on loopback (benchmarks/web_server.py) for the same real pictures
(benchmarks/pictures.py) under distinct URLs, fit them into 256x256 (`border`, JPEG quality 95),
and write WebDataset + Parquet shards with EXIF and SHA-256, in two processes each, one shard a
process (img2dataset gives a shard to one process). Ours is what the harvest's fetch stage does in a
worker: a Fetcher, with its decoder processes, and a ShardWriter; the host's rate is unlimited.
img2dataset 1.47.0 runs with its defaults (256 threads a process), but for a longer timeout, so that
it loses nothing. They take turns; medians are printed, a JSON line a case.

Seconds are from the first request to the last shard written, start-up (imports, processes)
excluded for both: img2dataset's from its own `_stats.json`, ours from the time that its processes,
ready, are told to go. Processor seconds are those of all of a tool's processes with their start-up.
`alone` is decode + resize + encode of the same pictures in two processes that do nothing else: the
limit. Memory is the sum of the proportional set sizes of all processes of a tool, sampled; the case
`memory` has full shards of 10,000.

img2dataset lives in an environment of its own: `--img2dataset PYTHON` names its Python, else one is
made (with uv, or venv and pip) under `--folder`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.common import proportional_memory
from benchmarks.pictures import write_pictures
from benchmarks.web_server import WebServer

HERE = Path(__file__).resolve().parent
PEER = "img2dataset==1.47.0"
PROCESSES = 2
FULL_SHARD = 10_000
# name -> (scheme, longer side, distinct files)
CASES = {
    "500": ("http", 500, 1000),
    "1600": ("http", 1600, 300),
    "https": ("https", 500, 1000),
    "memory": ("http", 500, 1000),
}
SAMPLED_EVERY = 0.5  # seconds
PEER_TIMEOUT = 60  # seconds; with its default of 10 it loses pictures over HTTPS
COMPARED = 200  # pictures whose pixels are compared


def peer_python(folder: Path) -> str:
    """Returns the Python of an environment with img2dataset, made if there is none yet."""
    python = folder / "img2dataset" / "bin" / "python"
    if not python.exists():
        home, uv = str(python.parents[1]), shutil.which("uv")
        own = Path(sys.executable).with_name("uv")
        uv = uv or (str(own) if own.exists() else None)
        if uv:
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, home], check=True)
            install = [uv, "pip", "install", "--quiet", "--python", str(python), PEER]
        else:
            subprocess.run([sys.executable, "-m", "venv", home], check=True)
            install = [str(python), "-m", "pip", "install", "--quiet", PEER]
        subprocess.run(install, check=True)
    return str(python)


# --- the two tools ----------------------------------------------------------------------------


class Memory:
    """The peak of the memory of some process trees, sampled until `stop`."""

    def __init__(self, pids: list[int]) -> None:
        self.peak = 0
        self._pids = pids
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(SAMPLED_EVERY):
            self.peak = max(self.peak, sum(map(proportional_memory, self._pids)))

    def stop(self) -> float:
        """Returns the peak in megabytes."""
        self._done.set()
        self._thread.join()
        return self.peak / 1e6


def run_peer(python: str, urls: list[str], shard: int, out: Path, env: dict[str, str]) -> dict:
    """Runs img2dataset; seconds, successes, MB."""
    table = out.with_suffix(".parquet")
    pq.write_table(pa.table({"url": urls, "caption": ["a picture"] * len(urls)}), table)
    settings: dict[str, Any] = {
        "url_list": table,
        "input_format": "parquet",
        "url_col": "url",
        "caption_col": "caption",
        "output_folder": out,
        "output_format": "webdataset",
        "processes_count": PROCESSES,
        "number_sample_per_shard": shard,
        "image_size": 256,
        "resize_mode": "border",
        "encode_quality": 95,
        "timeout": PEER_TIMEOUT,
    }
    command = [python, "-c", "from img2dataset.main import main; main()"]
    command += [f"--{name}={value}" for name, value in settings.items()]
    env = {**env, "NO_ALBUMENTATIONS_UPDATE": "1"}
    with out.with_suffix(".log").open("w") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, env=env)
        memory = Memory([child.pid])
        cpu = wait_for(child)
        peak = memory.stop()
    if child.returncode:
        raise RuntimeError(f"img2dataset: {out.with_suffix('.log').read_text()[-1000:]}")
    stats = [json.loads(path.read_text()) for path in sorted(out.glob("*_stats.json"))]
    seconds = max(s["end_time"] for s in stats) - min(s["start_time"] for s in stats)
    successes = sum(s["successes"] for s in stats)
    return {"seconds": seconds, "successes": successes, "MB": peak, "CPU": cpu}


def run_ours(tasks: list[dict], env: dict[str, str]) -> dict:
    """Runs a worker for each task; seconds, successes, MB."""
    command = [sys.executable, "-m", "benchmarks.fetch_worker"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    workers = [
        subprocess.Popen(command, text=True, env=env, cwd=HERE.parent, **pipes) for _ in tasks
    ]
    for worker, task in zip(workers, tasks, strict=True):
        worker.stdin.write(json.dumps(task) + "\n")
        worker.stdin.flush()
    for worker in workers:
        if worker.stdout.readline() != "ready\n":
            raise RuntimeError("a worker did not start")
    memory = Memory([worker.pid for worker in workers])
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    results = [json.loads(worker.stdout.read()) for worker in workers]
    cpu = sum(map(wait_for, workers))
    peak = memory.stop()
    seconds = max(r["end"] for r in results) - min(r["start"] for r in results)
    successes = sum(r["successes"] for r in results)
    return {"seconds": seconds, "successes": successes, "MB": peak, "CPU": cpu}


def wait_for(child: subprocess.Popen) -> float:
    """Returns the processor seconds of a child and of all below it, once it has ended."""
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime


# --- a case -----------------------------------------------------------------------------------


def measure(name: str, options: argparse.Namespace, server: WebServer, folder: Path) -> dict:
    """Runs both tools in turn; medians and ratios."""
    scheme, side, distinct = CASES[name]
    kind = f"{side}-{options.progressive:.2f}"
    files = sorted((folder / "pictures" / kind).glob("*.jpg"))
    if len(files) != distinct:
        files = write_pictures(folder / "pictures" / kind, side, distinct, options.progressive)
    number = PROCESSES * FULL_SHARD if name == "memory" else options.pictures
    origin = getattr(server, scheme)
    urls = [f"{origin}/{i}/{kind}/{files[i % len(files)].name}" for i in range(number)]
    shard = min(FULL_SHARD, -(-number // PROCESSES))
    parts = [urls[start : start + shard] for start in range(0, number, shard)]
    env = {**os.environ, "SSL_CERT_FILE": str(server.bundle.resolve())}
    fetch = {
        "host_rate": 0,
        "per_host_concurrency": 64,
        "allow_addresses": server.addresses,
        "ca_file": str(server.ca_file.resolve()),
    } | options.policy
    task = {"fetch": fetch, "origin": origin}
    alone = run_ours([{"fetch": fetch, "alone": list(map(str, files[:200]))}] * PROCESSES, env)
    peer, ours = [], []
    for turn in range(1 if name == "memory" else options.rounds):
        out = folder / f"{name}-{turn}"
        shutil.rmtree(out, ignore_errors=True)
        if name != "memory":
            (out / "peer").parent.mkdir(parents=True)
            peer.append(run_peer(options.img2dataset, urls, shard, out / "peer", env))
        tasks = [
            task | {"out": str(out / "ours" / "shards"), "shard": index, "urls": part}
            for index, part in enumerate(parts)
        ]
        ours.append(run_ours(tasks, env))
        if name != "memory" and not turn:
            same = compare(out / "ours", out / "peer")
        shutil.rmtree(out)
    size = sum(path.stat().st_size for path in files) / len(files)
    result = {"case": name, "scheme": scheme, "side": side, "pictures": number, "shard": shard}
    result |= {"mean KB": round(size / 1000, 1), "policy": fetch | {"ca_file": "its own"}}
    result["ours"] = _summary(ours, number)
    limit = alone["successes"] / alone["seconds"]
    result["alone images/s"] = round(limit)
    result["ours / alone"] = round(result["ours"]["images/s"] / limit, 2)
    if peer:
        result["img2dataset"] = _summary(peer, number)
        ratios = [p["seconds"] / o["seconds"] for p, o in zip(peer, ours, strict=True)]
        result["times"] = round(statistics.median(ratios), 2)
        result["times each"] = [round(ratio, 2) for ratio in ratios]
        result["pixels"] = same
    return result


def _summary(runs: list[dict], number: int) -> dict:
    return {
        "images/s": round(number / statistics.median(run["seconds"] for run in runs), 1),
        "seconds": [round(run["seconds"], 2) for run in runs],
        "lost": [number - run["successes"] for run in runs],
        "CPU seconds": [round(run["CPU"], 1) for run in runs],
        "peak MB": round(max(run["MB"] for run in runs)),
    }


def compare(ours: Path, theirs: Path) -> dict:
    """Returns how alike the pictures of the first shards are: their sizes, and the PSNR in dB."""
    one, other = _stored(ours / "shards", COMPARED), _stored(theirs, None)
    urls = [url for url in one if url in other]
    pairs = [(_pixels(one[url]), _pixels(other[url])) for url in urls]
    psnr = [
        10 * np.log10(255**2 / max(1e-9, ((a - b) ** 2).mean()))
        for a, b in pairs
        if a.shape == b.shape
    ]
    low, median = np.percentile(psnr, (5, 50))
    return {
        "compared": len(pairs),
        "of one size": len(psnr),
        "PSNR median": round(float(median), 1),
        "PSNR of the worst twentieth": round(float(low), 1),
    }


def _stored(folder: Path, most: int | None) -> dict[str, bytes]:
    """The pictures of a folder's first shard, by URL."""
    table = pq.read_table(folder / "00000.parquet", columns=["key", "url"])
    url_of = dict(zip(*(table[name].to_pylist()[:most] for name in ("key", "url")), strict=True))
    found = {}
    with tarfile.open(folder / "00000.tar") as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            if extension == "jpg" and key in url_of:
                found[url_of[key]] = tar.extractfile(member).read()
    return found


def _pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float64)


def main() -> None:
    """Prints a JSON line for each case."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--progressive", type=float, default=0.0, help="share made progressive")
    parser.add_argument("--img2dataset", help="the Python of an environment that has it")
    parser.add_argument("--folder", help="where pictures and that environment are kept")
    parser.add_argument("--policy", type=json.loads, default={}, help="fetch settings, as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.folder or scratch)
        options.img2dataset = options.img2dataset or peer_python(folder)
        with WebServer(folder / "server", folder / "pictures") as server:
            for name in options.cases:
                began = time.monotonic()
                result = measure(name, options, server, folder)
                print(json.dumps(result), flush=True)
                print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
