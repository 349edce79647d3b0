"""Stages 7 and 8 of a wave: hosts with their robots.txt, and lanes with their rows in order.

A host belongs by hash to one of L lanes, a host with very many pairs to several neighbouring ones
with its rate shared among them. A lane fetches its rows by (priority, pair_id), so that hosts are
mixed and shards are random samples of it. A wave takes at most rate x planned hours from a host;
the rest is deferred by this plan, never by the clock, and drawn again by the next wave.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.balance import counting_order
from pipeline.dedupe import read_array, write_array
from pipeline.run import Run, read_many
from pipeline.waves import HOST_BUCKETS, hostnames, is_open, open_waves, read_hosts, read_slots
from wit import storage
from wit.errors import UserError
from wit.hashing import hash64, pair_hashes, slots_of
from wit.pairs import HOSTS, LANE
from wit.web.robots import ROBOTS

MOST_SHARDS = 100_000
LEAST_OWNED, MOST_OWNED = 0.2, 0.8  # of a host's rate, for the lanes that have its pictures
OWNER = np.dtype([("name", "<u8"), ("part", "<f4")])  # hash of a host's name, its lanes' part
AskRobots = Callable[[list[str]], pa.Table]  # hosts -> a table of wit.web.robots.ROBOTS
Allowed = Callable[[str, list[str]], list[bool]]  # robots.txt, URLs -> may each be fetched
Blocked = Callable[[pa.Table], pa.ChunkedArray]  # SELECTION -> outcomes of rows that are kept out


def no_outcomes(table: pa.Table) -> pa.ChunkedArray:
    """Returns string [n], all null: nothing is kept out."""
    return pa.chunked_array([pa.nulls(len(table), pa.string())])


# --- hosts: a task is a bucket of hostnames ---------------------------------------------------


def sum_selection(run: Run, wave: int) -> None:
    """Writes hosts/W/total.json: the pairs that a wave draws, and the buckets that hold a host."""
    paths = (run.wave_path("selection", wave, f"{g:04d}.json") for g in range(len(run.groups)))
    total, buckets = 0, set()
    for found in read_many(paths):
        total += found["pairs"]
        buckets |= set(found["host_buckets"])
    facts = {"pairs": total, "host_buckets": sorted(buckets)}
    storage.write_json(run.wave_path("hosts", wave, "total.json"), facts)


def used_host_buckets(run: Run, wave: int) -> list[int]:
    """Returns the buckets that hold a host."""
    return storage.read_json(run.wave_path("hosts", wave, "total.json"))["host_buckets"]


def find_hosts(run: Run, wave: int, bucket: int, ask_robots: AskRobots) -> None:
    """Writes hosts/W/B.parquet; robots.txt is asked for once a host and crawl."""
    hosts = read_hosts(run, wave, bucket)
    names = hostnames(hosts["host"])
    hosts = hosts.append_column("hostname", names)
    per_name = hosts.group_by("hostname").aggregate([("pairs", "sum")])
    total = storage.read_json(run.wave_path("hosts", wave, "total.json"))["pairs"]
    lanes = run.config.lanes
    share = max(run.config.shard_size, total / lanes)
    # Each lane asks by one request at least at a time, so more lanes would be too many requests.
    most = min(lanes, run.config.fetch.get("per_host_concurrency", lanes))
    width = np.minimum(most, np.ceil(per_name["pairs_sum"].to_numpy() / share)).astype(np.int32)
    where = pc.index_in(names, per_name["hostname"]).to_numpy()
    hosts = hosts.append_column("lanes", pa.array(width[where]))
    robots = HOSTS.empty_table().select(ROBOTS.names)
    for earlier in range(run.waves.start, wave):
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
    """Writes hosts/W/owners.npy (OWNER) and, last, wide.parquet: the hosts of several lanes.

    A host's own lanes have a part of its rate, the rest is kept for redirects that lead other lanes
    to it. The host that takes longest at its rate keeps MOST_OWNED for its own; another needs less
    to be done in the same time.
    """
    paths = (
        run.wave_path("hosts", wave, f"{bucket:04d}.parquet")
        for bucket in used_host_buckets(run, wave)
    )
    names = HOSTS.empty_table().select(["hostname", "lanes", "pairs", "crawl_delay"])
    rate = run.config.fetch.get("host_rate")
    wide, owners = [names.select(["hostname", "lanes"])], [np.empty(0, OWNER)]
    for hosts in read_many(paths, partial(storage.read_table, columns=names.column_names)):
        wide.append(hosts.filter(pc.greater(hosts["lanes"], 1)).select(["hostname", "lanes"]))
        each = hosts.group_by("hostname").aggregate([("pairs", "sum"), ("crawl_delay", "max")])
        between = pc.fill_null(each["crawl_delay_max"], 0.0).to_numpy()
        part = np.empty(len(each), OWNER)
        part["name"] = hash64(each["hostname"])
        part["part"] = each["pairs_sum"].to_numpy() * np.maximum(between, 1 / rate if rate else 0)
        owners.append(part)
    joined = np.sort(np.concatenate(owners), order="name")
    longest = max(float(joined["part"].max(initial=0)), 1e-9)  # seconds
    joined["part"] = np.clip(joined["part"] / longest, LEAST_OWNED, MOST_OWNED)
    write_array(run.wave_path("hosts", wave, "owners.npy"), joined)
    table = pa.concat_tables(wide)
    slot = slots_of(hash64(table["hostname"]), run.config.lanes)
    table = table.append_column("slot", pa.array(slot))
    storage.write_table(run.wave_path("hosts", wave, "wide.parquet"), table)


@functools.lru_cache(maxsize=1)
def load_owners(out: str, wave: int) -> np.ndarray:
    """Returns OWNER [hosts], sorted; once a process, 12 bytes a host."""
    return read_array(storage.join(out, "hosts", f"{wave:02d}", "owners.npy"))


@functools.lru_cache(maxsize=100_000)
def owners_part(out: str, wave: int, server: str) -> float:
    """Returns the part of a host's rate that its own lanes have; 0 where it has none."""
    owners, name = load_owners(out, wave), hash64(pa.array([server]))[0]
    place = int(np.searchsorted(owners["name"], name))
    is_there = place < len(owners) and owners["name"][place] == name
    return float(owners["part"][place]) if is_there else 0.0


def plan_lane(
    run: Run, wave: int, lane: int, allowed: Allowed, blocked: Blocked = no_outcomes
) -> None:
    """Writes lanes/W/L.parquet (LANE), L.hosts.parquet (HOSTS) and, last, L.json with the counts.

    A URL that robots.txt forbids or that is kept out has its row, with the outcome decided before
    any request. Each row group is a shard, so that fetching holds no more of a lane than that.
    """
    table, hosts = gather_lane(run, wave, lane)
    url, text = pair_hashes(table["pair_id"])
    order = np.lexsort((text, url, table["priority"].to_numpy()))
    table = table.take(pa.array(order))
    preset = pc.coalesce(blocked(table), presets(table, hosts, allowed))
    table = table.append_column("preset", preset)
    budget = host_budgets(run, lane, hosts)
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
    paths = (run.wave_path("selection", wave, f"{g:04d}.parquet") for g in range(len(run.groups)))
    table = read_slots(paths, slots)
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

    Those of a host that did not answer, or whose address is forbidden, stay null: the fetcher asks
    nothing of it either, and knows which addresses are forbidden.
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


def host_budgets(run: Run, lane: int, hosts: pa.Table) -> dict[str, float]:
    """Returns by hostname how many requests this lane may plan in a wave.

    A host whose delay is longer than the wave is asked once, else it would be deferred for ever.
    What does not divide among a host's lanes falls to the first of them.
    """
    rate, lanes = run.config.fetch.get("host_rate") or math.inf, run.config.lanes
    slot = slots_of(hash64(hosts["hostname"]), lanes).tolist()
    budgets: dict[str, float] = {}
    for name, delay, width, first in zip(
        *(hosts[c].to_pylist() for c in ("hostname", "crawl_delay", "lanes")), slot, strict=True
    ):
        budget = min(rate, 1 / delay if delay else math.inf) * run.config.wave_hours * 3600
        if budget < math.inf:
            whole, rest = divmod(max(1, int(budget)), width)
            budget = whole + ((lane - first) % lanes < rest)
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
            kept[asked[rows[budgets[name] :]]] = False
    return kept


# --- shards -----------------------------------------------------------------------------------


def read_shard(path: str, number: int) -> pa.Table:
    """Returns LANE: the rows of a lane's shard, counted from 0."""
    with storage.open_read(path) as file:
        return pq.ParquetFile(file).read_row_group(number)


def number_shards(run: Run, wave: int) -> None:
    """Writes lanes/W/shards.json: the first shard id and the number of shards of each lane."""
    first, earlier = 0, open_waves(run, wave)
    if earlier:
        first = storage.read_json(run.wave_path("lanes", earlier[-1], "shards.json"))["next"]
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


def planned_shards(run: Run, wave: int) -> list[range]:
    """Returns the ids of each lane's shards, once they are numbered."""
    numbers = storage.read_json(run.wave_path("lanes", wave, "shards.json"))["lanes"]
    return [range(first, first + count) for first, count in numbers]


# --- waves ------------------------------------------------------------------------------------


def open_wave(run: Run, wave: int) -> None:
    """Writes lanes/W/open.json: a wave has something to do if the one before left something."""
    left = 1
    if not run.is_first(wave):
        left = 0
        if is_open(run, wave - 1):
            lanes = [f"{lane:04d}" for lane in range(run.config.lanes)]
            planned = (run.wave_path("lanes", wave - 1, f"{lane}.json") for lane in lanes)
            left += sum(found["deferred"] for found in read_many(planned))
            paths = (run.wave_path("fetched", wave - 1, f"{lane}.hosts.parquet") for lane in lanes)
            read = partial(storage.read_table, columns=["pairs", "fetched"])
            for hosts in read_many(paths, read):
                left += int(np.sum(hosts["pairs"].to_numpy() - hosts["fetched"].to_numpy()))
    storage.write_json(run.wave_path("lanes", wave, "open.json"), {"open": left > 0})


def last_wave(run: Run) -> int:
    """Returns the last wave that had something to do."""
    return open_waves(run, run.waves.stop)[-1]
