"""The stages that ask the web: robots.txt of the hosts, and the lanes' pictures into shards."""

from __future__ import annotations

import functools
import json
import socket
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import lanes
from pipeline.balance import FAILED, FETCHED, counting_order
from pipeline.run import Run, load_run
from pipeline.waves import RESULT
from wit import blocks, shards, storage
from wit.web.robots import HostRules, allowed, robots_table

if TYPE_CHECKING:
    from pipeline.fetch.fetcher import Fetcher
    from pipeline.fetch.policy import FetchPolicy
    from pipeline.stages import Progress, Reach

SHARDS = "shards"
_MAKING = threading.Lock()  # lanes start at the same time, and a cache alone lets each make one


def policy_of(run: Run, reach: Reach) -> FetchPolicy:
    """Returns the run's fetch policy, with what its driver says may be reached."""
    from pipeline.fetch.policy import FetchPolicy

    return FetchPolicy.from_json({**run.config.fetch, **json.loads(reach.fetch)})


def shared_fetcher(out: str, reach: Reach) -> Fetcher:
    """Returns the process's fetcher, which its lanes share and keep from wave to wave."""
    with _MAKING:
        return _make_fetcher(out, reach)


@functools.lru_cache(maxsize=1)
def _make_fetcher(out: str, reach: Reach) -> Fetcher:
    from pipeline.fetch.fetcher import Fetcher

    return Fetcher(policy_of(load_run(out), reach))


def ask_hosts(run: Run, wave: int, bucket: int, progress: Progress, reach: Reach) -> None:
    """Does a task of the stage `robots`."""
    lanes.find_hosts(run, wave, bucket, partial(robots_table, policy_of(run, reach)))


def plan_lane(run: Run, wave: int, lane: int, progress: Progress, reach: Reach) -> None:
    """Does a task of the stage `lanes`."""
    agent = policy_of(run, reach).user_agent
    lanes.plan_lane(run, wave, lane, lambda rules, urls: allowed(rules, agent, urls))


def fetch_lane(run: Run, wave: int, lane: int, progress: Progress, reach: Reach) -> None:
    """Writes the lane's shards in turn and, last, fetched/W/L.results for the next wave."""
    numbers = storage.read_json(run.wave_path("lanes", wave, "shards.json"))
    first, count = numbers["lanes"][lane]
    path = run.wave_path("lanes", wave, f"{lane:04d}.parquet")
    total = storage.read_json(run.wave_path("lanes", wave, f"{lane:04d}.json"))["rows"]
    folder, size = run.path(SHARDS), run.config.shard_size
    ids = range(first, first + count)
    pending = [i for i in ids if not shards.is_done(folder, i)]
    done = total - sum(min(size, total - (i - first) * size) for i in pending)
    progress(done, total)
    if pending:
        hosts = storage.read_table(run.wave_path("lanes", wave, f"{lane:04d}.hosts.parquet"))
        rules = HostRules.from_table(hosts, 1 / run.config.lanes)
        fetcher = shared_fetcher(run.out, reach)
        for shard_id in pending:
            part = lanes.read_shard(path, shard_id - first)
            report = partial(_progress_from, progress, done, total)
            fetch_shard(run, fetcher, shard_id, part, rules, report)
            done += len(part)
    write_results(run, wave, lane, ids, storage.read_table(path, ["host"])["host"])


def _progress_from(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def fetch_shard(
    run: Run, fetcher: Any, shard_id: int, rows: pa.Table, rules: HostRules, report: Any
) -> None:
    """Fetches a shard's rows and commits them; rows with a preset outcome are not asked for."""
    start = time.time()
    asked = np.flatnonzero(pc.is_null(rows["preset"]).to_numpy())
    urls = rows["url"].take(pa.array(asked)).to_pylist()
    attempt = "".join(c for c in socket.gethostname() if c.isalnum())[:20] or "worker"
    with shards.ShardWriter(run.path(SHARDS), shard_id, rows, attempt=attempt) as writer:
        for number, fetched in enumerate(fetcher.run(urls, rules), 1):
            fetched.index = int(asked[fetched.index])
            writer.add(fetched)
            report(number)
        end = time.time()
        writer.commit({"start_time": start, "end_time": end, "duration": end - start})


def write_results(run: Run, wave: int, lane: int, ids: range, host: pa.ChunkedArray) -> None:
    """Writes fetched/W/L.hosts.parquet, rows and pictures of each host, and, last, L.results.

    The results say what became of each row, for the groups that drew them; `host` is the rows'.
    """
    group_of = np.empty(len(run.config.sources), np.int32)
    for number, group in enumerate(run.groups):
        group_of[group.start : group.stop] = number
    parts = [np.empty(0, RESULT)]
    for shard_id in ids:
        path = shards.final_path(run.path(SHARDS), shards.shard_name(shard_id), "parquet")
        table = storage.read_table(path, ["source", "row", "outcome"])
        part = np.empty(len(table), RESULT)
        part["source"], part["row"] = table["source"].to_numpy(), table["row"].to_numpy()
        success = pc.equal(table["outcome"], "success").to_numpy()
        part["status"] = np.where(success, FETCHED, FAILED)
        parts.append(part)
    results = np.concatenate(parts)
    fetched = pa.array((results["status"] == FETCHED).astype(np.int64))
    hosts = pa.table({"host": host, "fetched": fetched}).group_by("host", use_threads=False)
    hosts = hosts.aggregate([([], "count_all"), ("fetched", "sum")])
    hosts = hosts.rename_columns(["host", "pairs", "fetched"])
    storage.write_table(run.wave_path("fetched", wave, f"{lane:04d}.hosts.parquet"), hosts)
    results = results[counting_order(results["source"], len(run.config.sources))]
    path = run.wave_path("fetched", wave, f"{lane:04d}.results")
    blocks.write(path, results, group_of[results["source"]], len(run.groups))
