"""The stages that ask the web: robots.txt of the hosts, and the lanes' pictures into shards."""

from __future__ import annotations

import functools
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import blocking, lanes, placeholders, traits, vigil
from pipeline.balance import FAILED, FETCHED, counting_order
from pipeline.limits import Over
from pipeline.run import READERS, Run, load_run
from pipeline.waves import RESULT, open_waves
from wit import blocks, shards, storage, takedown
from wit.blocklist import Index
from wit.web.rates import Share
from wit.web.robots import HostRules, allowed, robots_table

if TYPE_CHECKING:
    from pipeline.fetch.fetcher import Fetcher
    from pipeline.fetch.img2dataset import Img2dataset
    from pipeline.fetch.policy import FetchPolicy
    from pipeline.stages import Progress, Reach

SHARDS = "shards"
log = logging.getLogger("wit.harvest")
_MAKING = threading.Lock()  # lanes start at the same time, and a cache alone lets each make one


def policy_of(run: Run, reach: Reach) -> FetchPolicy:
    """Returns the run's fetch policy, with what its driver says may be reached."""
    from pipeline.fetch.policy import FetchPolicy

    return FetchPolicy.from_json({**run.config.fetch, **json.loads(reach.fetch)})


def shared_fetcher(out: str, reach: Reach) -> Fetcher | Img2dataset:
    """Returns the process's fetcher, which its lanes share and keep from wave to wave."""
    with _MAKING:
        return _make_fetcher(out, reach)


@functools.lru_cache(maxsize=1)
def _make_fetcher(out: str, reach: Reach) -> Fetcher | Img2dataset:
    policy = policy_of(load_run(out), reach)
    if policy.engine == "img2dataset":
        from pipeline.fetch.img2dataset import Img2dataset

        return Img2dataset(policy, out)
    from pipeline.fetch.fetcher import Fetcher

    return Fetcher(policy)


def ask_hosts(run: Run, wave: int, bucket: int, progress: Progress, reach: Reach) -> None:
    """Does a task of the stage `robots`."""
    part = {"part": bucket, "parts": lanes.HOST_BUCKETS}
    ask = partial(robots_table, policy_of(run, reach), **part)
    if not reach.keep_going:
        ask = vigil.watched(ask, run.wave_path("hosts", wave, f"{bucket:04d}.parquet"))
    kept_out = blocking.load(run, reach.session)
    lanes.find_hosts(run, wave, bucket, partial(ask_unblocked, ask, kept_out))
    progress(1, 1)


def ask_unblocked(
    ask: Callable[[list[str]], pa.Table], kept_out: blocking.Blocked, hosts: list[str]
) -> pa.Table:
    """Returns ROBOTS of hosts; those on a list of hosts are not asked."""
    listed = kept_out.hosts(hosts)
    table = ask([host for host, known in zip(hosts, listed, strict=True) if not known])
    silent = [host for host, known in zip(hosts, listed, strict=True) if known]
    rows = [{"host": host, "robots": blocking.BLOCKLISTED} for host in silent]
    return pa.concat_tables([table, pa.Table.from_pylist(rows, schema=table.schema)])


def check_hosts(run: Run, wave: int, reach: Reach) -> None:
    """Looks, before the first lanes are planned, whether any host has answered."""
    planned = storage.exists(run.wave_path("hosts", wave, "wide.parquet"))
    if run.is_first(wave) and not planned and lanes.is_open(run, wave):
        vigil.check_hosts(run, lanes.used_host_buckets(run, wave), reach)


def plan_lane(run: Run, wave: int, lane: int, progress: Progress, reach: Reach) -> None:
    """Does a task of the stage `lanes`."""
    agent = policy_of(run, reach).user_agent
    blocked = blocking.load(run, reach.session).outcomes
    lanes.plan_lane(run, wave, lane, lambda rules, urls: allowed(rules, agent, urls), blocked)


def fetch_pilot(run: Run, wave: int, lane: int, progress: Progress, reach: Reach) -> None:
    """Writes the lane's first shard and, last, fetched/W/L.pilot: what the other shards learn."""
    ids = lanes.planned_shards(run, wave)[lane]
    if fetch_shards(run, wave, lane, ids, 1, progress, reach):
        table = storage.read_table(shard_path(run, ids.start), placeholders.COLUMNS)
        least = run.config.placeholder_urls
        placeholders.write_met(
            placeholders.pilot_path(run, wave, lane), placeholders.met(table), least
        )


def fetch_lane(run: Run, wave: int, lane: int, progress: Progress, reach: Reach) -> None:
    """Writes the lane's shards in turn and, last, fetched/W/L.results for the next wave."""
    ids = lanes.planned_shards(run, wave)[lane]
    if fetch_shards(run, wave, lane, ids, len(ids), progress, reach):
        path = run.wave_path("lanes", wave, f"{lane:04d}.parquet")
        write_results(run, wave, lane, ids, storage.read_table(path, ["host"])["host"])


def fetch_shards(
    run: Run, wave: int, lane: int, ids: range, count: int, progress: Progress, reach: Reach
) -> bool:
    """Makes the first of a lane's shards as far as they are not done; False where a limit came."""
    path = run.wave_path("lanes", wave, f"{lane:04d}.parquet")
    rows = storage.read_json(run.wave_path("lanes", wave, f"{lane:04d}.json"))["rows"]
    folder, size = run.path(SHARDS), run.config.shard_size
    total = min(rows, count * size)
    pending = [i for i in ids[:count] if not shards.is_done(folder, i)]
    done = total - sum(min(size, total - (i - ids.start) * size) for i in pending)
    progress(done, total)
    if not pending:
        return True
    hosts = storage.read_table(run.wave_path("lanes", wave, f"{lane:04d}.hosts.parquet"))
    kept_out = blocking.load(run, reach.session)
    parts = partial(lanes.owners_part, run.out, wave)
    other = partial(share_of_other, run, wave, lane, reach)
    rules = HostRules.from_table(hosts, lane, run.config.lanes, parts, other)
    rules = blocking.UnblockedRules(rules, kept_out)
    fetcher = shared_fetcher(run.out, reach)
    batched = run.config.fetch.get("engine") == "img2dataset"
    slowest = partial(fetcher.slowest, rules)
    watch = vigil.Vigil(run, reach, progress, done, total, batched, slowest)
    for shard_id in pending:
        part = lanes.read_shard(path, shard_id - ids.start)
        known = placeholders.known_to(run, wave, ids, shard_id)
        try:
            watch.may_begin()
            fetch_shard(run, fetcher, shard_id, part, rules, kept_out, known, watch)
        except Over:
            return False
    return True


def share_of_other(run: Run, wave: int, lane: int, reach: Reach, server: str) -> Share:
    """Returns a lane's part of the rate of a host that only a redirect has led to.

    On one machine the processes divide it, for a process's lanes take turns; on a cluster the
    lanes.
    """
    seat, seats = (reach.seat, reach.workers) if reach.workers else (lane, run.config.lanes)
    return Share.part(1 - lanes.owners_part(run.out, wave, server), seat, seats)


def remake_lost(run: Run) -> None:
    """Has the shards of finished lanes made again that are absent or not of the size they say.

    Their lanes lose the results, so that the stage goes over them once more and makes what is not
    done; what coverage/ says of them is found anew. A warning names each shard.
    """
    folder, finished = run.path(SHARDS), []
    for wave in range(1, run.waves.stop):
        path = run.wave_path("lanes", wave, "shards.json")
        if not storage.exists(path):
            continue
        present = set(storage.list_names(run.path("fetched", f"{wave:02d}")))
        planned = storage.read_json(path)["lanes"]
        for lane, (first, count) in enumerate(planned):
            if f"{lane:04d}.results" in present:
                finished += [(wave, lane, shard) for shard in range(first, first + count)]
    with ThreadPoolExecutor(READERS) as threads:
        found = list(threads.map(lambda place: shards.finish(folder, place[2]).state, finished))
    lost = set()
    for (wave, lane, shard), state in zip(finished, found, strict=True):
        if state == "absent":  # of a damaged one `finish` has told
            path = shards.stats_path(folder, shards.shard_name(shard))
            log.warning("%s: is missing; the shard is made again", path)
        if state in ("absent", "damaged"):
            lost.add((wave, lane))
    forget_results(run, lost)


def finish_takedowns(run: Run) -> None:
    """Ends a takedown that was killed, and has counted anew what takedowns have changed.

    fetched/takedowns.json says up to which line of their log that is done.
    """
    takedown.finish(takedown.place_of(run.out))
    lines, record = takedown.read_log(run.out), run.path("fetched", "takedowns.json")
    seen = storage.read_json(record)["lines"] if storage.exists(record) else 0
    changed = {int(name) for line in lines[seen:] for name in line["shards"]}
    lost = set()
    for wave in range(1, run.waves.stop):
        path = run.wave_path("lanes", wave, "shards.json")
        planned = storage.read_json(path)["lanes"] if storage.exists(path) else []
        for lane, (first, count) in enumerate(planned):
            if changed & set(range(first, first + count)):
                lost.add((wave, lane))
    forget_results(run, lost)
    if len(lines) > seen:
        storage.write_json(record, {"lines": len(lines)})


def waves_to_repair(run: Run) -> tuple[int, ...]:
    """Returns the waves of earlier crawls of which a lane's results are gone."""
    found = []
    for wave in open_waves(run, run.waves.start):
        present = set(storage.list_names(run.path("fetched", f"{wave:02d}")))
        if not all(f"{lane:04d}.results" in present for lane in range(run.config.lanes)):
            found.append(wave)
    return tuple(found)


def forget_results(run: Run, lost: set[tuple[int, int]]) -> None:
    """Removes what is said of the shards of lanes, (wave, lane), and what is counted from it."""
    if lost:
        for room in (run.own("coverage"), run.own("evicted")):
            for name in storage.list_names(room):
                storage.remove(storage.join(room, name))
    for wave, lane in sorted(lost):
        storage.remove(run.wave_path("fetched", wave, f"{lane:04d}.results"))


def fetch_shard(
    run: Run,
    fetcher: Any,
    shard_id: int,
    rows: pa.Table,
    rules: HostRules,
    kept_out: blocking.Blocked,
    known: Index | None,
    watch: vigil.Vigil,
) -> None:
    """Fetches a shard's rows and commits them; rows with a preset outcome are not asked for.

    `known` are the placeholders that are known; None where they are stored as any picture.
    """
    start, rows = time.time(), kept_out.mark(rows)
    asked = np.flatnonzero(pc.is_null(rows["preset"]).to_numpy())
    urls = rows["url"].take(pa.array(asked)).to_pylist()
    attempt = "".join(c for c in socket.gethostname() if c.isalnum())[:20] or "worker"
    with shards.ShardWriter(run.path(SHARDS), shard_id, rows, attempt=attempt) as writer:
        watch.begin(writer.name, len(rows), urls)
        for fetched in fetcher.run(urls, rules, watch.look):
            watch.see(fetched)
            kept_out.refuse(fetched, urls[fetched.index])
            fetched.index = int(asked[fetched.index])
            writer.add(fetched)
        watch.settle()
        if known is not None:
            brought, found = placeholders.leave_out(
                writer, rows["pair_id"], known, run.config.placeholder_urls
            )
            watch.weigh_placeholders(rows["url"].take(pa.array(brought)), found)
        end = time.time()
        writer.commit({"start_time": start, "end_time": end, "duration": end - start})


def shard_path(run: Run, shard_id: int) -> str:
    """Returns where a finished shard's Parquet file stands."""
    return shards.final_path(run.path(SHARDS), shards.shard_name(shard_id), "parquet")


def write_results(run: Run, wave: int, lane: int, ids: range, host: pa.ChunkedArray) -> None:
    """Writes fetched/W/L.hosts.parquet, rows and pictures of each host, L.met and L.results, last.

    L.met are the pictures that the lane has met more than once, L.traits.json what the stored pairs
    are like, for the report; the results say what became of each row, for the groups that drew
    them; `host` is the rows'.
    """
    group_of = np.array(run.group_of, np.int32)
    parts, met = [np.empty(0, RESULT)], [np.empty(0, placeholders.PICTURE)]
    columns = {*placeholders.COLUMNS, *traits.COLUMNS, "source", "row"}
    counted = traits.no_traits()
    for shard_id in ids:
        table = storage.read_table(shard_path(run, shard_id), sorted(columns))
        part = np.empty(len(table), RESULT)
        part["source"], part["row"] = table["source"].to_numpy(), table["row"].to_numpy()
        success = pc.equal(table["outcome"], "success").to_numpy()
        part["status"] = np.where(success, FETCHED, FAILED)
        parts.append(part)
        met.append(placeholders.met(table))
        counted = traits.add_traits([counted, traits.count_traits(table)])
    if least := run.config.placeholder_urls:
        path = placeholders.met_path(run, wave, lane)
        placeholders.write_met(path, np.concatenate(met), least)
    path = run.wave_path("fetched", wave, f"{lane:04d}.traits.json")
    storage.write_json(path, traits.to_json(counted))
    results = np.concatenate(parts)
    fetched = pa.array((results["status"] == FETCHED).astype(np.int64))
    hosts = pa.table({"host": host, "fetched": fetched}).group_by("host", use_threads=False)
    hosts = hosts.aggregate([([], "count_all"), ("fetched", "sum")])
    hosts = hosts.rename_columns(["host", "pairs", "fetched"])
    storage.write_table(run.wave_path("fetched", wave, f"{lane:04d}.hosts.parquet"), hosts)
    results = results[counting_order(results["source"], len(run.config.sources))]
    path = run.wave_path("fetched", wave, f"{lane:04d}.results")
    blocks.write(path, results, group_of[results["source"]], len(run.groups))
