"""A fuzz run: real files, mutated by the million, against all that reads strangers' bytes.

    python -m tests.fuzz [--minutes 30] [--targets extract pictures responses] [--seed N]
    python -m tests.fuzz --targets pictures --repeat FILE

`extract` reads crawl files, pages in any encoding, tables and WAT records; `pictures` decodes and
resizes; `responses` is the HTTP client (a loopback server sends it the bytes), robots.txt,
tdmrep.json and the headers that opt out. What must hold is in tests/fuzz/targets.py: only the
documented errors and outcomes, the same answer to the same bytes, some seconds an input at most.

Half of a target's time is `guided` by coverage (atheris; Linux, `pip install atheris==3.0.0`), the
compiled loops of `extract` interpreted so that it sees into them. The other half is `blind`: files
changed by chance, compiled loops with checked bounds, one picture in four also by a decoder
process; there the memory is watched: growth a 100,000 inputs, after the first third.

A process that dies or hangs is a finding with the input it had, and the run goes on; where that
picture ends a decoder process, too, the fetcher survives it, and it is counted as such. Prints a
line for each target and half, then JSON; the exit code is 1 where something was found.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.conftest import SHARED
from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS, Pool
from tests.fuzz.worker import GUIDED, Current, note

ROOT = Path(__file__).resolve().parents[2]
HANG = 30.0  # processor seconds for one input
START = 300.0  # of which to import and to compile
LOST = 600.0  # seconds for one input that waits
RESTARTS = 50
# Bytes, also of those a 100,000 inputs, that are no leak: arenas, tables that fill.
GROWTH = 16 * 2**20
SETTINGS = {
    ("extract", "guided"): {"NUMBA_DISABLE_JIT": "1"},
    ("extract", "blind"): {"NUMBA_BOUNDSCHECK": "1"},
}


def supervise(target: str, how: str, folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Keeps a worker at work; what it did, and how often it died on its way."""
    done: dict[str, Any] = {"inputs": 0, "counts": {}, "pooled": {}, "memory": [], "ends": {}}
    done["slowest s"] = 0.0
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 1 and sum(done["ends"].values()) < RESTARTS:
        said = folder / f"{target}-{how}.json"
        said.unlink(missing_ok=True)
        arguments = [target, how, str(folder), str(round(left)), str(seed)]
        seed += 1
        current = Current(folder / "current")
        current.write(0, b"")
        log = (folder / f"{target}-{how}.log").open("ab")
        env = {**os.environ, **SETTINGS.get((target, how), {}), "PYTHONHASHSEED": "0"}
        env["NUMBA_CACHE_DIR"] = str(folder / f"kernels-{how}")
        command = [sys.executable, "-m", "tests.fuzz.worker", *arguments]
        with log, subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log) as worker:
            ended = wait(worker, current)
        if said.exists():
            merge(done, json.loads(said.read_text()))
        if ended is not None:
            _, data = current.read()
            survived = target == "pictures" and is_survived(data)
            done["ends"][ended] = done["ends"].get(ended, 0) + 1
            if survived:
                ended += " (a decoder process's end, which the fetcher survives)"
                done["survived"] = done.get("survived", 0) + 1
            note(folder, target, data, ended + "\n")
    return done


def wait(worker: subprocess.Popen, current: Current) -> str | None:
    """How a worker ended before its time; None where it did not."""
    number, since, used = -1, time.monotonic(), 0.0
    while worker.poll() is None:
        time.sleep(0.5)
        at, spent = current.read()[0], processor_seconds(worker.pid)
        if at != number:
            number, since, used = at, time.monotonic(), spent
        elif spent - used > (HANG if at else START) or time.monotonic() - since > LOST:
            worker.kill()
            worker.wait()
            return "hang"
    code = worker.returncode
    return None if code == 0 else signal.Signals(-code).name if code < 0 else f"exit code {code}"


def processor_seconds(pid: int) -> float:
    """What a process has used."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_survived(data: bytes) -> bool:
    """Whether a decoder process dies of a picture, too, and the pool says so."""
    pool = Pool()
    try:
        return pool(data)[0] in ("decoder_crashed", "decoder_timeout")
    finally:
        pool.close()


def merge(done: dict[str, Any], said: dict[str, Any]) -> None:
    """Adds what one worker did."""
    done["inputs"] += said["inputs"]
    done["slowest s"] = max(done["slowest s"], said["slowest s"])
    for name in ("counts", "pooled"):
        for key, count in said[name].items():
            done[name][key] = done[name].get(key, 0) + count
    done["memory"] = done["memory"] if len(done["memory"]) > len(said["memory"]) else said["memory"]


def growth(memory: list[tuple[int, int]]) -> float | None:
    """Bytes a 100,000 inputs, the memory's slope after the first third; None for too few.

    The median of the slopes between any two points (Theil and Sen): a large picture's memory that
    the allocator keeps for the next one is a step, up and some time down again, and no growth.
    """
    points = memory[len(memory) // 3 :]
    if len(points) < 3:
        return None
    slopes = [(b - a) / (n - m) for (m, a), (n, b) in itertools.combinations(points, 2)]
    return 100_000 * statistics.median(slopes)


def write_seeds(folder: Path, source: Path | None, targets: list[str]) -> dict[str, int]:
    """Writes small/TARGET/* and large/TARGET/*; how many there are."""
    found = corpus.seeds(source)
    for target in targets:
        for data in found[target]:
            place = folder / ("small" if len(data) <= GUIDED[target] else "large") / target
            place.mkdir(parents=True, exist_ok=True)
            (place / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    return {target: len(found[target]) for target in targets}


def run(options: argparse.Namespace, folder: Path) -> int:
    """Does it all; the exit code."""
    source = options.corpus if options.corpus and options.corpus.is_dir() else None
    print(f"inputs to begin with: {write_seeds(folder, source, options.targets)}", flush=True)
    ways = ["guided", "blind"] if importlib.util.find_spec("atheris") else ["blind"]
    seconds = options.minutes * 60 / len(options.targets) / len(ways)
    results: dict[str, Any] = {}
    leaks = []
    for target in options.targets:
        for how in ways:
            done = supervise(target, how, folder, seconds, options.seed)
            grown = growth(done["memory"]) if how == "blind" else None
            done["grows by bytes a 100,000 inputs"] = grown and round(grown)
            results[f"{target} {how}"] = done
            if grown is not None and grown * min(1, done["inputs"] / 100_000) > GROWTH:
                leaks.append(target)
            grows = "" if grown is None else f", {grown / 2**20:+.2f} MiB a 100,000 inputs"
            slow, ends = done["slowest s"], done["ends"]
            print(
                f"{target}, {how}: {done['inputs']:,} inputs, slowest {slow} s{grows}, ends {ends}",
                flush=True,
            )
    found = sorted(path.name for path in (folder / "findings").glob("*.txt"))
    survived = sum(done.get("survived", 0) for done in results.values())
    print(json.dumps({"findings": found, "leaks": leaks, "survived": survived, **results}))
    print(f"{len(found)} findings in {folder}, of which the fetcher survives {survived}")
    return 1 if len(found) > survived or leaks else 0


def repeat(target: str, path: Path) -> int:
    """Tries one input in this process."""
    print(TARGETS[target](path.read_bytes()))
    return 0


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30, help="for all targets together")
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--corpus", type=Path, default=SHARED, help="a folder of files and archives to begin with"
    )
    parser.add_argument("--folder", type=Path, help="where all is kept; else a new temporary one")
    parser.add_argument("--repeat", type=Path, help="try this one input and end")
    options = parser.parse_args()
    if options.repeat:
        return repeat(options.targets[0], options.repeat)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    return run(options, folder)


if __name__ == "__main__":
    sys.exit(main())
