"""What the processes of a dry run do: the stages' own work on a sample, with its core-seconds."""

from __future__ import annotations

import os
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import candidates, coverage, dedupe, lanes, waves
from pipeline.balance import FETCHED
from pipeline.queries import LIST, load_matcher
from pipeline.run import Config, Run, load_run
from pipeline.waves import RESULT
from wit import blocks, storage
from wit.hashing import hash64, pair_hashes, pair_ids
from wit.pairs import CANDIDATES
from wit.web.robots import ROBOTS

PICTURES = Path(__file__).resolve().parents[1] / "demo/data/clothing_cc0_300.tar"
DECODED = 60  # pictures whose decoding is timed
Measured = dict[str, tuple[float, float]]  # stage -> core-seconds, bytes written


def _quiet(*_: float) -> None:
    """Takes the progress that nobody looks at."""


def extract(out: str, numbers: list[int], first: list[int]) -> tuple[list[float], list[float]]:
    """Extracts sources of a run; the core-seconds of each, and of those whose first record it is.

    Before that the latter are extracted once, so that kernels, libraries and matcher are loaded.
    """
    run = load_run(out)
    load_matcher(out)
    for number in first:
        candidates.extract(run, number, _quiet)

    def timed(number: int) -> float:
        start = time.process_time()
        candidates.extract(run, number, _quiet)
        return time.process_time() - start

    return [timed(number) for number in numbers], [timed(number) for number in first]


def measure_stages(
    folder: str, config: Config, sample: str, rows: int, unique: float, cap: int
) -> Measured:
    """Runs the stages after extraction on a small copy of what is to come, in one task each.

    Args:
        folder: for the run; is made.
        config: of the harvest that is forecast.
        sample: a Parquet file of CANDIDATES, repeated up to `rows` pairs under new URLs.
        rows: pairs of the small run.
        unique: the share of them that is to be no duplicate.
        cap: t of the small run, as much smaller as it has fewer pairs.
    """
    sources = [{"path": "sample", "kind": "table"}]
    run = Run(folder, replace(config, sources=sources, per_query=cap, pairs=None, waves=1))
    run.save()
    os.makedirs(os.path.dirname(run.path(LIST)), exist_ok=True)
    os.symlink(storage.join(os.path.dirname(sample), LIST), run.path(LIST))
    repeat(sample, run.candidates(0, ".parquet"), rows, unique)
    storage.write_json(run.candidates(0, ".json"), {"rows": rows})
    found: Measured = {}

    def stage(name: str, *steps: Callable[[], object]) -> None:
        start, before = time.process_time(), folder_bytes(folder)
        for step in steps:
            step()
        seconds = time.process_time() - start
        found[name] = (seconds, float(folder_bytes(folder) - before))

    def unique_all() -> None:
        for bucket in range(dedupe.bucket_count(run)):
            dedupe.find_duplicates(run, bucket, _quiet)

    def thresholds_all() -> None:
        for bucket in range(waves.query_buckets(run)):
            waves.find_thresholds(run, 1, bucket, _quiet)
        waves.join_thresholds(run, 1)

    def hosts_all() -> None:
        lanes.sum_selection(run, 1)
        for bucket in lanes.used_host_buckets(run, 1):
            lanes.find_hosts(run, 1, bucket, _all_allowed)

    def lanes_all() -> None:
        lanes.join_hosts(run, 1)
        for lane in range(config.lanes):
            lanes.plan_lane(run, 1, lane, lambda rules, urls: [True] * len(urls))

    dedupe.index_candidates(run)
    stage("keys", lambda: dedupe.gather_keys(run, 0, _quiet))
    stage("unique", unique_all)
    stage("count", lambda: dedupe.count(run, 0, _quiet), lambda: dedupe.sum_counts(run))
    stage("size", lambda: dedupe.estimate(run, 0, _quiet))
    dedupe.solve_target(run)
    lanes.open_wave(run, 1)
    stage("collect", lambda: waves.collect(run, 1, 0, _quiet))
    stage("thresholds", thresholds_all)
    stage("select", lambda: waves.select(run, 1, 0, _quiet))
    stage("robots", hosts_all)
    stage("lanes", lanes_all)
    pretend_fetched(run)
    stage("coverage", lambda: coverage.cover(run, 0, _quiet))
    pairs = storage.read_json(run.wave_path("hosts", 1, "total.json"))["pairs"]
    found["selected"] = (float(pairs), 0.0)
    return found


def repeat(sample: str, path: str, rows: int, unique: float) -> None:
    """Writes `rows` CANDIDATES: a sample's again and again, of which a share has new URLs."""
    table = pq.read_table(sample)
    rng = np.random.default_rng(rows)
    _, text = pair_hashes(table["pair_id"])
    at = np.arange(rows) % len(table)
    url = rng.integers(0, 2**63, rows, np.uint64)
    again = np.flatnonzero(rng.random(rows) >= unique)
    again = again[again >= len(table)]
    url[again] = url[again - len(table)]
    columns = {"pair_id": pair_ids(url, text[at])}
    taken = table.take(pa.array(at))
    arrays = [columns.get(field.name, taken[field.name]) for field in CANDIDATES]
    storage.make_folder(os.path.dirname(path))
    pq.write_table(
        pa.table(arrays, schema=CANDIDATES),
        path,
        compression="zstd",
        row_group_size=candidates.ROW_GROUP,
    )


def _all_allowed(hosts: list[str]) -> pa.Table:
    """Returns ROBOTS of hosts without asking any."""
    columns = [pa.array(hosts), pa.array(["allow_all"] * len(hosts))]
    columns += [pa.nulls(len(hosts), field.type) for field in list(ROBOTS)[len(columns) :]]
    return pa.table(columns, schema=ROBOTS)


def pretend_fetched(run: Run) -> None:
    """Writes the results of the lanes as if every picture had been there."""
    for lane in range(run.config.lanes):
        rows = storage.read_table(run.wave_path("lanes", 1, f"{lane:04d}.parquet"))
        result = np.empty(len(rows), RESULT)
        result["source"], result["row"] = rows["source"].to_numpy(), rows["row"].to_numpy()
        result["status"] = FETCHED
        path = run.wave_path("fetched", 1, f"{lane:04d}.results")
        blocks.write(path, result, np.zeros(len(result), np.int32), 1)


def folder_bytes(folder: str) -> int:
    """Returns the bytes of all files below a folder."""
    found = (os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
    return sum(os.lstat(path).st_size for path in found)


def decode(config: Config) -> tuple[float, float, float]:
    """Decodes, resizes and encodes pictures that come with the program.

    Returns:
        core-seconds, bytes as stored, and pixels of the file, of one picture.
    """
    from pipeline.fetch.images import decode_resize
    from pipeline.fetch.policy import FetchPolicy
    from pipeline.options import NOBODY

    policy = FetchPolicy.from_json({"user_agent": NOBODY, **config.fetch})
    with tarfile.open(PICTURES) as tar:
        members = sorted((m for m in tar if m.isfile()), key=lambda m: m.name)
        files = (tar.extractfile(m) for m in members[:: max(1, len(members) // DECODED)])
        data = [file.read() for file in files if file is not None]
    decode_resize(data[0], policy)
    start = time.process_time()
    made = [decode_resize(picture, policy) for picture in data]
    seconds = (time.process_time() - start) / len(data)
    stored = sum(len(d.image or b"") for d in made) / len(made)
    pixels = sum((d.original_width or 0) * (d.original_height or 0) for d in made) / len(made)
    return seconds, stored, pixels


def hosts_of(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns string [n]: the names by which rates and lanes go."""
    return waves.hostnames(waves.origins(urls))


def codes(values: pa.ChunkedArray) -> np.ndarray:
    """Returns int64 [n]: equal numbers, from 0, for equal strings."""
    return np.unique(hash64(values), return_inverse=True)[1].astype(np.int64)
