"""What each stage costs, measured on this machine while it forecasts: core-seconds and bytes.

The stages after extraction run on two small copies of what is to come; their difference says what
a row costs, the rest what a task does. The copies are made of the sample's own candidates, with as
many duplicates, and with a cap that is as much smaller, so that as large a part of them is
collected and drawn.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from pipeline.forecast import work
from pipeline.forecast.sample import TABLE, Sample
from pipeline.run import Config
from wit import storage

WARM, SMALL, LARGE = 2_000, 20_000, 200_000  # pairs of the copies; the first loads the kernels
# Core-seconds of a run beside its stages, in those of importing the program's stages with Beam:
# the driver imports them, makes the pipeline and bundles its elements; so does each worker.
DRIVER, WORKER = 1.8, 1.15
# Core-seconds of the client for a picture, beside the decoder's: on a connection that stands 0.001
# (measured on loopback, with the shard); names, handshakes and redirects of the web are assumed.
REQUEST = 0.0025
HOST = 0.006  # to ask a host for robots.txt and tdmrep.json; assumed
FAILED = 0.5  # of REQUEST, for a picture that is not there
SAMPLE_ROW = 600  # bytes that a row takes in a shard's Parquet and stats files


@dataclass(frozen=True)
class Cost:
    """What a stage takes.

    Attributes:
        task: core-seconds of a task, however small.
        row: core-seconds of a candidate.
        row_bytes: that it writes for each.
    """

    task: float
    row: float
    row_bytes: float


@dataclass(frozen=True)
class Costs:
    """All that is measured beside the sample itself.

    Attributes:
        stages: by name; empty where the sample has no candidate.
        start: core-seconds of importing the program's stages, as the driver and each worker do.
        picture: core-seconds of decoding, resizing and encoding one.
        stored: bytes of it afterwards.
        pixels: of it before.
        selected: pairs that the larger copy selected, for each of its candidates.
    """

    stages: dict[str, Cost]
    start: float
    picture: float
    stored: float
    pixels: float
    selected: float


def measure(
    sample: Sample,
    config: Config,
    unique: float,
    cap: float,
    pairs: float,
    pool: ProcessPoolExecutor,
    processes: int,
) -> Costs:
    """Returns what the stages cost, in as many processes at the same time as the run will have.

    Args:
        sample: of which the copies are made.
        config: of the harvest.
        unique: share of the candidates that is no duplicate.
        cap: t of the harvest.
        pairs: its candidates.
        pool: of processes.
        processes: how many.
    """
    decoded = pool.submit(work.decode, config).result()
    stages: dict[str, Cost] = {}
    selected = 0.0
    if len(sample.table):
        found = {}
        for rows in (WARM, SMALL, LARGE):
            scaled = max(1, round(cap * rows / max(pairs, 1)))
            futures = [
                pool.submit(
                    work.measure_stages,
                    storage.join(sample.folder, f"copy-{rows}-{seat}"),
                    config,
                    storage.join(sample.folder, TABLE),
                    rows,
                    unique,
                    scaled,
                )
                for seat in range(processes)
            ]
            found[rows] = [future.result() for future in futures]
        for name in found[SMALL][0]:
            small, large = (
                [sum(m[name][i] for m in found[rows]) / processes for i in (0, 1)]
                for rows in (SMALL, LARGE)
            )
            row = max(0.0, (large[0] - small[0]) / (LARGE - SMALL))
            written = max(0.0, (large[1] - small[1]) / (LARGE - SMALL))
            stages[name] = Cost(max(0.0, small[0] - row * SMALL), row, written)
            if name == "selected":
                selected = large[0] / LARGE
    return Costs(stages, import_seconds(processes), *decoded, selected)


def import_seconds(processes: int) -> float:
    """Returns the core-seconds in which a process loads the program's stages."""
    command = [sys.executable, "-c", "import pipeline.stages"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(processes)
    ]
    for process in started:
        process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return taken / processes
