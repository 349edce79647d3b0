"""Where a wave took a drawn pair: its row of the selection, its host, its lane, its shard."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import lanes, waves
from pipeline.explain.files import Files
from pipeline.explain.lookup import Place, group_of, hash_of
from pipeline.waves import HOST_BUCKETS
from wit import storage
from wit.hashing import slots_of
from wit.pairs import HOSTS
from wit.shards import sample_key
from wit.web.rules import DISALLOW_KEYS, matches, parse

TELLING = [name for name in HOSTS.names if name != "rules"]  # rules may be long
FEW = 1024  # rows of hosts whose rules are read at a time


@dataclass(frozen=True)
class Address:
    """The host of a URL.

    Attributes:
        host: scheme and authority, for which a robots.txt speaks.
        hostname: without `www.`, by which rates and lanes go.
        hash: 64 bits of the hostname.
    """

    host: str
    hostname: str
    hash: int


@functools.lru_cache(maxsize=1024)
def address_of(url: str) -> Address:
    """Returns the host of a URL in normal form, as the stages name it."""
    host = waves.origins(pa.chunked_array([pa.array([url])]))
    hostname = waves.hostnames(host)[0].as_py()
    return Address(host[0].as_py(), hostname, hash_of(hostname))


def slot_of(hash64: int, slots: int) -> int:
    """Returns the slot of a 64-bit hash."""
    return int(slots_of(np.array([hash64], np.uint64), slots)[0])


def selected(files: Files, wave: int, place: Place, address: Address) -> dict[str, Any] | None:
    """Returns the pair's row of selection/W (SELECTION); None where the wave did not draw it.

    Raises:
        FileNotFoundError: where the wave has not drawn of its group yet.
    """
    run = files.run
    path = run.wave_path("selection", wave, f"{group_of(run, place.source):04d}.parquet")
    slot = slot_of(address.hash, run.config.lanes)
    table = files.kept((path, slot), lambda: waves.read_slots([path], {slot}))
    if table is None:
        raise FileNotFoundError(path)
    return _row(table, place)


def _row(table: pa.Table, place: Place) -> dict[str, Any] | None:
    at = _index(table, place)
    return None if at is None else table.slice(at, 1).to_pylist()[0]


def _index(table: pa.Table, place: Place) -> int | None:
    same = (table["row"].to_numpy() == place.row) & (table["source"].to_numpy() == place.source)
    rows = np.flatnonzero(same)
    return int(rows[0]) if len(rows) else None


# --- hosts ------------------------------------------------------------------------------------


def host_rows(files: Files, wave: int, address: Address) -> list[dict[str, Any]]:
    """Returns the rows of hosts/W (HOSTS without rules) with the address's hostname."""
    path = host_path(files, wave, address)
    table = files.table(path, TELLING)
    if table is None:
        return []
    return table.filter(pc.equal(table["hostname"], address.hostname)).to_pylist()


def host_path(files: Files, wave: int, address: Address) -> str:
    """Returns the file of hosts/W that has an address's host."""
    bucket = slot_of(address.hash, HOST_BUCKETS)
    return files.run.wave_path("hosts", wave, f"{bucket:04d}.parquet")


def rules_of(files: Files, wave: int, address: Address) -> str | None:
    """Returns the text of a host's robots.txt."""
    path = host_path(files, wave, address)

    def read() -> str | None:
        with storage.open_read(path) as file:
            batches = pq.ParquetFile(file).iter_batches(FEW, columns=["host", "rules"])
            for batch in batches:
                found = batch.filter(pc.equal(batch["host"], address.host))
                if len(found):
                    return found["rules"][0].as_py()
        return None

    return files.kept((path, address.host), read)


def forbidding_line(rules: str, token: str, url: str) -> str | None:
    """Returns the line of a robots.txt without which the URL might be fetched, if one decides."""
    lines = rules.splitlines()
    for number, line in enumerate(lines):
        key, _, pattern = line.partition("#")[0].partition(":")
        named = key.strip().lower().encode() in DISALLOW_KEYS
        if not (named and pattern.strip() and matches(pattern.strip(), url)):
            continue
        others = "\n".join([*lines[:number], *lines[number + 1 :]])
        if parse(others, token).may_fetch(url):
            return line.strip()
    return None


def budget_of(files: Files, delay: float | None) -> float | None:
    """Returns how many pictures a wave may ask a host for; None where there is no limit."""
    rate = rate_of(files, delay)
    if rate is None:
        return None
    return max(1, int(rate * files.run.config.wave_hours * 3600))


def lane_budget(files: Files, lane: int, address: Address, hosts: list[dict[str, Any]]) -> float:
    """Returns a lane's part of what a wave may ask a host for; `hosts` are its rows of HOSTS."""
    table = pa.Table.from_pylist(hosts, schema=pa.schema([HOSTS.field(n) for n in TELLING]))
    return lanes.host_budgets(files.run, lane, table)[address.hostname]


def rate_of(files: Files, delay: float | None) -> float | None:
    """Returns the requests a second that a host may be asked; None where there is no limit."""
    limits = [files.run.config.fetch.get("host_rate"), 1 / delay if delay else None]
    return min((limit for limit in limits if limit), default=None)


# --- lanes ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planned:
    """Where a lane has a pair.

    Attributes:
        lane: its number.
        row: in the lane's order, from 0.
        rows: of the lane.
        deferred: rows that the lane left for a later wave.
        key: of the sample that it becomes; None before shards are numbered.
        shard: its number; likewise.
        index: in the shard.
        preset: an outcome that was decided before any request.
    """

    lane: int
    row: int
    rows: int
    deferred: int
    key: str | None
    shard: int | None
    index: int
    preset: str | None


def lane_of(files: Files, address: Address, width: int, text: int) -> int:
    """Returns the lane of a pair: a host of several lanes deals its pairs out by their texts."""
    slots = files.run.config.lanes
    return (slot_of(address.hash, slots) + text % width) % slots


def lanes_of(files: Files, address: Address, width: int) -> list[int]:
    """Returns the lanes of a host."""
    slots = files.run.config.lanes
    return [(slot_of(address.hash, slots) + i) % slots for i in range(width)]


def planned(files: Files, wave: int, lane: int, place: Place, mine: int) -> Planned | None:
    """Returns where a lane has a pair of priority `mine`; None where it left it for later.

    A lane is in the order of priorities and each row group says which it has, so one is read.

    Raises:
        FileNotFoundError: where the lane is not planned yet.
    """
    run = files.run
    facts = files.json(run.wave_path("lanes", wave, f"{lane:04d}.json"))
    if facts is None:
        raise FileNotFoundError(run.wave_path("lanes", wave, f"{lane:04d}.json"))
    path = run.wave_path("lanes", wave, f"{lane:04d}.parquet")
    for number, start in _groups_with(files, path, mine):
        table = files.row_group(path, number)
        at = _index(table, place)
        if at is None:
            continue
        shard = None
        if storage.exists(run.wave_path("lanes", wave, "shards.json")):
            shard = lanes.planned_shards(run, wave)[lane][number]
        key = None if shard is None else sample_key(shard, at)
        preset = table["preset"][at].as_py()
        counts = facts["rows"], facts["deferred"]
        return Planned(lane, start + at, *counts, key, shard, at, preset)
    return None


def _groups_with(files: Files, path: str, mine: int) -> list[tuple[int, int]]:
    """Returns number and first row of a lane's row groups that may have a priority."""

    def read() -> list[tuple[int, int, int, int]]:
        found, start = [], 0
        with storage.open_read(path) as file:
            parquet = pq.ParquetFile(file)
            paths = parquet.metadata.schema
            columns = {paths.column(i).path: i for i in range(len(paths))}
            for number in range(parquet.num_row_groups):
                group = parquet.metadata.row_group(number)
                known = group.column(columns["priority"]).statistics
                if known is None or not known.has_min_max:
                    low, high = 0, 2**64
                else:
                    low, high = int(known.min), int(known.max)
                found.append((number, start, low, high))
                start += group.num_rows
        return found

    groups = files.kept((path, "groups"), read) or []
    return [(number, start) for number, start, low, high in groups if low <= mine <= high]
