"""Stages 7 and 8 of a wave: hosts with their robots.txt, and lanes with their rows in order.

A host belongs by hash to one of L lanes, a host with very many pairs to several neighbouring ones
with its rate shared among them. A lane fetches its rows by (priority, pair_id), so that hosts are
mixed and shards are random samples of it. A wave takes at most rate x planned hours from a host;
the rest is deferred by this plan, never by the clock, and drawn again by the next wave.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.balance import FAILED, counting_order
from pipeline.run import Run
from pipeline.waves import hostnames, read_slots
from wit import blocks, storage
from wit.errors import UserError
from wit.hashing import hash64, pair_hashes, slots_of
from wit.pairs import HOSTS, LANE

HOST_BUCKETS = 64
MOST_SHARDS = 100_000
AskRobots = Callable[[list[str]], pa.Table]  # hosts -> host, robots, rules, crawl_delay
Allowed = Callable[[str, list[str]], list[bool]]  # robots.txt, URLs -> may each be fetched


# --- hosts: a task is a bucket of hostnames ---------------------------------------------------


def count_hosts(run: Run, wave: int) -> None:
    """Writes hosts/W/counts.parquet: host, hostname, pairs, lanes and bucket, over all groups."""
    parts = [
        storage.read_table(run.wave_path("selection", wave, f"{g:04d}.hosts.parquet"))
        for g in range(len(run.groups))
    ]
    hosts = pa.concat_tables(parts).group_by("host").aggregate([("pairs", "sum")])
    hosts = hosts.rename_columns(["host", "pairs"]).sort_by("host")
    names = hostnames(hosts["host"])
    hosts = hosts.append_column("hostname", names)
    per_name = hosts.group_by("hostname").aggregate([("pairs", "sum")])
    total, lanes = int(pc.sum(hosts["pairs"]).as_py() or 0), run.config.lanes
    share = max(run.config.shard_size, total / lanes)
    width = np.minimum(lanes, np.ceil(per_name["pairs_sum"].to_numpy() / share)).astype(np.int32)
    where = pc.index_in(names, per_name["hostname"]).to_numpy()
    hosts = hosts.append_column("lanes", pa.array(width[where] if len(hosts) else width))
    bucket = slots_of(hash64(names), HOST_BUCKETS)
    hosts = hosts.append_column("bucket", pa.array(bucket))
    storage.write_table(run.wave_path("hosts", wave, "counts.parquet"), hosts)


def used_host_buckets(run: Run, wave: int) -> list[int]:
    """Returns the buckets that hold a host."""
    counts = storage.read_table(run.wave_path("hosts", wave, "counts.parquet"), ["bucket"])
    return sorted(pc.unique(counts["bucket"]).to_pylist())


def find_hosts(run: Run, wave: int, bucket: int, ask_robots: AskRobots) -> None:
    """Writes hosts/W/B.parquet; robots.txt is asked for once a host and run."""
    counts = storage.read_table(run.wave_path("hosts", wave, "counts.parquet"))
    hosts = counts.filter(pc.equal(counts["bucket"], bucket)).drop_columns("bucket")
    robots = HOSTS.empty_table().select(["host", "robots", "rules", "crawl_delay"])
    for earlier in range(1, wave):
        path = run.wave_path("hosts", earlier, f"{bucket:04d}.parquet")
        if storage.exists(path):
            known = storage.read_table(path, robots.column_names)
            unseen = pc.invert(pc.is_in(known["host"], robots["host"]))
            robots = pa.concat_tables([robots, known.filter(unseen)])
    new = hosts["host"].filter(pc.invert(pc.is_in(hosts["host"], robots["host"]))).to_pylist()
    if new:
        robots = pa.concat_tables([robots, ask_robots(new).cast(robots.schema)])
    table = hosts.join(robots, "host", join_type="left outer").sort_by("host")
    table = table.select(HOSTS.names).cast(HOSTS)
    storage.write_table(run.wave_path("hosts", wave, f"{bucket:04d}.parquet"), table)


# --- lanes: a task is a lane ------------------------------------------------------------------


def join_hosts(run: Run, wave: int) -> None:
    """Writes hosts/W/wide.parquet: the few hosts that belong to several lanes."""
    counts = storage.read_table(run.wave_path("hosts", wave, "counts.parquet"))
    wide = counts.filter(pc.greater(counts["lanes"], 1)).select(["hostname", "lanes"])
    slot = slots_of(hash64(wide["hostname"]), run.config.lanes)
    table = wide.append_column("slot", pa.array(slot))
    storage.write_table(run.wave_path("hosts", wave, "wide.parquet"), table)


def plan_lane(run: Run, wave: int, lane: int, allowed: Allowed) -> None:
    """Writes lanes/W/L.parquet (LANE), L.hosts.parquet (HOSTS) and, last, L.json with the counts.

    A URL that robots.txt forbids keeps its row, with the outcome decided before any request. Each
    row group is a shard, so that fetching holds no more of a lane than that.
    """
    table, hosts = gather_lane(run, wave, lane)
    url, text = pair_hashes(table["pair_id"])
    order = np.lexsort((text, url, table["priority"].to_numpy()))
    table = table.take(pa.array(order))
    table = table.append_column("preset", presets(table, hosts, allowed))
    budget = host_budgets(run, hosts)
    kept = within_budget(table, hosts, budget)
    deferred = len(table) - int(kept.sum())
    table = table.filter(pa.array(kept)).select(LANE.names).cast(LANE)
    with storage.open_write(run.wave_path("lanes", wave, f"{lane:04d}.parquet")) as file:
        size = run.config.shard_size
        pq.write_table(table.combine_chunks(), file, compression="zstd", row_group_size=size)
    storage.write_table(run.wave_path("lanes", wave, f"{lane:04d}.hosts.parquet"), hosts)
    counts = {"rows": len(table), "deferred": deferred, "hosts": len(hosts)}
    storage.write_json(run.wave_path("lanes", wave, f"{lane:04d}.json"), counts)


def gather_lane(run: Run, wave: int, lane: int) -> tuple[pa.Table, pa.Table]:
    """Returns the lane's SELECTION rows from every group, and the HOSTS they name."""
    wide = storage.read_table(run.wave_path("hosts", wave, "wide.parquet"))
    lanes = run.config.lanes
    slots = {lane}
    for slot, width in zip(wide["slot"].to_pylist(), wide["lanes"].to_pylist(), strict=True):
        if (lane - slot) % lanes < width:
            slots.add(slot)
    parts = []
    for group in range(len(run.groups)):
        parts += read_slots(run.wave_path("selection", wave, f"{group:04d}.parquet"), slots)
    table = pa.concat_tables(parts) if parts else LANE.empty_table().drop_columns("preset")
    names = hostnames(table["host"])
    slot = slots_of(hash64(names), lanes).astype(np.int64)
    where = pc.index_in(names, wide["hostname"]).fill_null(-1).to_numpy()
    widths = np.append(wide["lanes"].to_numpy(), 1)[where]  # -1 is the last: one lane
    _, text = pair_hashes(table["pair_id"])
    mine = (slot + (text % widths.astype(np.uint64)).astype(np.int64)) % lanes == lane
    table = table.filter(pa.array(mine))
    present = pc.unique(table["host"])
    buckets = set(slots_of(hash64(hostnames(pa.chunked_array([present]))), HOST_BUCKETS).tolist())
    tables = [
        storage.read_table(run.wave_path("hosts", wave, f"{b:04d}.parquet"))
        for b in sorted(buckets)
    ]
    hosts = pa.concat_tables(tables) if tables else HOSTS.empty_table()
    return table, hosts.filter(pc.is_in(hosts["host"], present)).sort_by("host")


def presets(table: pa.Table, hosts: pa.Table, allowed: Allowed) -> pa.Array:
    """Returns string [n]: the outcome of rows that are not to be fetched, null for the others.

    Those of a host that did not answer stay null: the fetcher asks nothing of it either, but knows
    whether its address is forbidden.
    """
    host_of = pc.index_in(table["host"], hosts["host"]).to_numpy()
    robots = hosts["robots"].to_pylist()
    preset = np.full(len(table), None, object)
    for host, rows in enumerate(rows_of(host_of, len(hosts))):
        decision = robots[host]
        if decision == "disallow_all":
            preset[rows] = "robots_disallowed"
        elif decision == "rules":
            urls = table["url"].take(pa.array(rows)).to_pylist()
            may = np.array(allowed(hosts["rules"][host].as_py(), urls), bool)
            preset[rows[~may]] = "robots_disallowed"
    return pa.array(preset, pa.string())


def rows_of(code: np.ndarray, values: int) -> list[np.ndarray]:
    """Returns for each of `values` codes the rows, int64, of code [n] that have it, ascending."""
    ends = np.cumsum(np.bincount(code, minlength=values))
    return np.split(counting_order(code, values), ends[:-1]) if values else []


def host_budgets(run: Run, hosts: pa.Table) -> dict[str, float]:
    """Returns by hostname how many requests this lane may plan in a wave."""
    rate = run.config.fetch.get("host_rate") or math.inf
    budgets: dict[str, float] = {}
    for name, delay, lanes in zip(
        *(hosts[c].to_pylist() for c in ("hostname", "crawl_delay", "lanes")), strict=True
    ):
        slowest = min(rate, 1 / delay if delay else math.inf)
        budget = slowest * run.config.wave_hours * 3600 / lanes
        budgets[name] = min(budget, budgets.get(name, math.inf))
    return budgets


def within_budget(table: pa.Table, hosts: pa.Table, budgets: dict[str, float]) -> np.ndarray:
    """Returns bool [n]: the first rows of each hostname, in lane order; presets cost nothing."""
    kept = np.ones(len(table), bool)
    if not budgets or min(budgets.values()) >= len(table):
        return kept
    names = hostnames(table["host"]).combine_chunks().dictionary_encode()
    asked = np.flatnonzero(pc.is_null(table["preset"]).to_numpy())
    by_name = rows_of(names.indices.to_numpy()[asked], len(names.dictionary))
    for name, rows in zip(names.dictionary.to_pylist(), by_name, strict=True):
        if len(rows) > budgets[name]:
            kept[asked[rows[int(budgets[name]) :]]] = False
    return kept


# --- shards -----------------------------------------------------------------------------------


def read_shard(path: str, number: int) -> pa.Table:
    """Returns LANE: the rows of a lane's shard, counted from 0."""
    with storage.open_read(path) as file:
        return pq.ParquetFile(file).read_row_group(number)


def number_shards(run: Run, wave: int) -> None:
    """Writes lanes/W/shards.json: the first shard id and the number of shards of each lane."""
    first = 0
    if wave > 1:
        first = storage.read_json(run.wave_path("lanes", wave - 1, "shards.json"))["next"]
    lanes = []
    for lane in range(run.config.lanes):
        rows = storage.read_json(run.wave_path("lanes", wave, f"{lane:04d}.json"))["rows"]
        shards = -(-rows // run.config.shard_size)
        lanes.append([first, shards])
        first += shards
    if first > MOST_SHARDS:
        raise UserError(
            f"{run.out}: {first:,} shards of {run.config.shard_size} pairs, more than five digits "
            "name; start again with a larger --shard-size and another --out"
        )
    storage.write_json(run.wave_path("lanes", wave, "shards.json"), {"lanes": lanes, "next": first})


# --- waves ------------------------------------------------------------------------------------


def open_wave(run: Run, wave: int) -> None:
    """Writes lanes/W/open.json: a wave has something to do if the one before left something."""
    left = 1
    if wave > 1:
        left = 0
        if is_open(run, wave - 1):
            for lane in range(run.config.lanes):
                planned = storage.read_json(run.wave_path("lanes", wave - 1, f"{lane:04d}.json"))
                results = blocks.read(run.wave_path("fetched", wave - 1, f"{lane:04d}.results"), 0)
                left += planned["deferred"] + int(np.sum(results["status"] == FAILED))
    storage.write_json(run.wave_path("lanes", wave, "open.json"), {"open": left > 0})


def is_open(run: Run, wave: int) -> bool:
    """Returns whether the wave has something to do."""
    return storage.read_json(run.wave_path("lanes", wave, "open.json"))["open"]


def last_wave(run: Run) -> int:
    """Returns the last wave that had something to do."""
    waves = range(1, run.config.waves + 1)
    return max(wave for wave in waves if is_open(run, wave))
