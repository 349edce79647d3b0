"""How a query orders its pairs: a pair's place in each order, the thresholds, the ranks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline import balance, waves
from pipeline.balance import ENTRY, RESERVE
from pipeline.explain.files import Files
from pipeline.explain.lookup import Place
from pipeline.queries import load_query_hashes
from pipeline.run import read_many
from wit import blocks, storage
from wit.hashing import pair_key, priority

RANK_BYTES = 64 << 20  # read for the ranks of one pair; beyond it they are estimated
READ_BYTES = 64 << 10  # what a small read costs, beside its bytes


@dataclass(frozen=True)
class Order:
    """A pair in the order of one of its queries.

    Attributes:
        query_id: the query.
        query: its text.
        matched, unique: the query's counts; None before they are known.
        priority: the pair's, 64 bits; low comes first.
        thresholds: by wave since the pair's crawl, how far the order is drawn: the priority of the
            last pair; None in place of a number where the query draws all.
        within: the waves whose threshold the pair lies within.
        rank: from 1; None where it is not known.
        exact: whether the rank is counted, or follows from the priority and the count.
    """

    query_id: int
    query: str
    matched: int | None
    unique: int | None
    priority: int
    thresholds: dict[int, int | None]
    within: list[int]
    rank: int | None
    exact: bool


def priorities(files: Files, place: Place, query_ids: list[int]) -> list[int]:
    """Returns the pair's priority in each query's order."""
    table = files.kept("query hashes", lambda: load_query_hashes(files.run.out))
    hashes = balance.order_hashes(table[query_ids], files.run.config.sampling)
    seed = np.uint64(files.run.config.seed)
    key = np.uint64(pair_key(seed, np.uint64(place.url), np.uint64(place.text)))
    return [int(priority(key, query_hash)) for query_hash in hashes]


def orders(files: Files, place: Place, query_ids: list[int]) -> list[Order]:
    """Returns the pair in the order of each of its queries."""
    counts, cap = files.counts(), files.cap()
    spent, found = 0, []
    for q, mine in zip(query_ids, priorities(files, place, query_ids), strict=True):
        matched, unique = (None, None) if counts is None else map(int, counts[:, q])
        drawn, within = {}, []
        for wave in files.waves_of(place.source):
            last = files.thresholds(wave)[q]
            at = tuple(int(last[name]) for name in ("priority", "url", "text"))
            drawn[wave] = None if at[0] == balance.ALL else at[0]
            if (mine, place.url, place.text) <= at:
                within.append(wave)
        rank, exact = None, False
        if unique and cap and unique > cap:
            rank = 1 + int(mine / 2**64 * unique)
            wave = entry_wave(files, q)
            cost = entry_bytes(files, wave, q) if wave else RANK_BYTES
            if wave and spent + cost <= RANK_BYTES:
                spent += cost
                counted = rank_in(read_entries(files, wave, q), mine, place)
                rank, exact = (counted, True) if counted else (rank, False)
        found.append(Order(q, files.query(q), matched, unique, mine, drawn, within, rank, exact))
    return found


# --- entries of the queries above their cap ---------------------------------------------------


def entry_wave(files: Files, query_id: int) -> int | None:
    """Returns the last wave that collected a query's entries; None where none did."""
    for wave in reversed(files.waves()):
        wanted = files.kept(("unsettled", wave), partial(waves.unsettled, files.run, wave))
        if wanted[query_id]:
            return wave
    return None


def _parts(files: Files, wave: int, prefix: str) -> list[str]:
    run = files.run
    paths = []
    for group in range(len(run.groups)):
        made = files.json(run.wave_path("balance", wave, f"{prefix}{group:04d}.json"))
        count = made["parts"] if made else 0
        stem = f"{prefix}{group:04d}"
        paths += [
            run.wave_path("balance", wave, f"{stem}.{part:04d}.entries") for part in range(count)
        ]
    return paths


def entry_bytes(files: Files, wave: int, query_id: int) -> int:
    """Returns about how much is read for a query's entries: those of its slot."""
    counts, cap = files.counts()[1], files.cap()
    slot = int(waves.query_slots(np.array([query_id]), len(counts))[0])
    first, last = waves.query_range((slot, slot + 1), len(counts))
    mine = counts[first:last]
    entries = np.where(mine > cap, np.minimum(mine, RESERVE * cap) * 11 // 10, 0).sum()
    return int(entries) * ENTRY.itemsize + READ_BYTES * len(_parts(files, wave, ""))


def read_entries(files: Files, wave: int, query_id: int) -> np.ndarray:
    """Returns ENTRY [m] of a query in its order; their status is of the wave's beginning."""
    slot = int(waves.query_slots(np.array([query_id]), len(files.queries()))[0])

    def read(prefix: str) -> np.ndarray:
        paths = _parts(files, wave, prefix)
        parts = [np.empty(0, ENTRY)]
        for part in read_many(paths, partial(blocks.read, first=slot, last=slot + 1)):
            parts.append(part[part["query"] == query_id])
            files.progress("entries of the query", len(parts) - 1, len(paths))
        return np.concatenate(parts)

    def both() -> np.ndarray:
        again = storage.exists(files.run.wave_path("balance", wave, "again.0000.json"))
        entries = read("again.") if again else np.empty(0, ENTRY)
        entries = entries if len(entries) else read("")
        return entries[np.lexsort((entries["text"], entries["url"], entries["priority"]))]

    return files.kept(("entries", wave, query_id), both)


def rank_in(entries: np.ndarray, mine: int, place: Place) -> int | None:
    """Returns the rank from 1 of a pair among a query's entries in order; None beyond them."""
    begin = int(np.searchsorted(entries["priority"], np.uint64(mine)))
    for at in range(begin, len(entries)):
        if int(entries["priority"][at]) != mine:
            return None
        if (int(entries["url"][at]), int(entries["text"][at])) == (place.url, place.text):
            return at + 1
    return None


def drawn_entries(entries: np.ndarray, threshold: np.void) -> int:
    """Returns how many of a query's entries, in order, lie within its threshold."""
    at = tuple(int(threshold[name]) for name in ("priority", "url", "text"))
    count = int(np.searchsorted(entries["priority"], np.uint64(at[0]), "right"))
    while count and tuple(int(entries[n][count - 1]) for n in ("priority", "url", "text")) > at:
        count -= 1
    return count
