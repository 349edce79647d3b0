"""Placeholders: pictures that say there is none, which servers send under many addresses.

A picture (by the sha256 of its stored bytes) under at least `--placeholder-urls` different URLs and
with as many different texts is one. The same text under many URLs is a picture with mirrors.

A shard is judged by itself before its commit, and by what is known: a set that is frozen before a
wave's shards are fetched (fetched/W/placeholders.parquet), so that a shard that is made again is
judged alike. A crawl's first wave learns from a pilot, the first shard of every lane that has
several; every wave learns from all that earlier ones have met. What is learnt from are the pictures
that a lane has met at least twice, and those that were left out; that one picture comes to many
lanes once each is not seen.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import lanes, waves
from pipeline.run import Run, read_many
from wit import blocks, storage
from wit.blocklist import BITS, Blocklist, Index, hex_bits, read_own, write_own
from wit.hashing import pair_hashes, slots_of
from wit.outcomes import SUCCESS
from wit.shards import ShardWriter

PLACEHOLDER = "placeholder"  # the outcome
KNOWN, RECORD = "placeholders.parquet", "placeholders.json"
COLUMNS = ["outcome", "sha256", "pair_id"]  # of a shard, that `met` reads
# One picture under one URL with one text; in files, `stored` of a picture's first row is how many
# rows of the lane are stored with it, and 0 in the rest.
PICTURE = np.dtype([*BITS.descr, ("url", "<u8"), ("text", "<u8"), ("stored", "<u4")])
SLOTS = 256  # of a file of PICTURE, by its first bits
PASS_ROWS = 4_000_000  # joined in memory at a time, about 0.5 GB
_LOADING = threading.Lock()  # lanes start at the same time, and a cache alone lets each load it


# --- the rule ---------------------------------------------------------------------------------


def met(table: pa.Table) -> np.ndarray:
    """Returns PICTURE of a shard's rows (COLUMNS) that met a picture, stored or left out."""
    table = table.filter(pc.is_in(table["outcome"], pa.array([SUCCESS, PLACEHOLDER])))
    rows = _pictures(table["sha256"].combine_chunks(), table["pair_id"])
    rows["stored"] = pc.equal(table["outcome"], SUCCESS).to_numpy()
    return rows


def _pictures(sha256: pa.Array, pair_id: pa.ChunkedArray) -> np.ndarray:
    rows = np.zeros(len(sha256), PICTURE)
    bits = hex_bits(sha256)
    rows["high"], rows["low"] = bits["high"], bits["low"]
    rows["url"], rows["text"] = pair_hashes(pair_id)
    return rows


def are_placeholders(rows: np.ndarray, least: int) -> np.ndarray:
    """Returns bool [n]: whose picture has `least` URLs and `least` texts among PICTURE [n]."""
    picture, pictures = _numbered(rows)
    under = (
        np.bincount(picture[_firsts(picture, rows[name])], minlength=pictures)
        for name in ("url", "text")
    )
    return (np.minimum(*under) >= least)[picture]


def _numbered(rows: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers of the rows' pictures, int64 [n], in the order of their bits; how many they are."""
    order = np.lexsort((rows["low"], rows["high"]))
    new = _differ(rows["high"][order], rows["low"][order])
    picture = np.empty(len(rows), np.int64)
    picture[order] = np.cumsum(new) - 1
    return picture, int(np.count_nonzero(new))


def _firsts(picture: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Whether a row is the first, bool [n], of each value that a picture has."""
    order = np.lexsort((value, picture))
    first = np.empty(len(order), bool)
    first[order] = _differ(picture[order], value[order])
    return first


def _differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether a row is not as the one before it, bool [n]."""
    new = np.ones(len(a), bool)
    new[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    return new


# --- a shard, before its commit ---------------------------------------------------------------


def leave_out(
    writer: ShardWriter, pair_id: pa.ChunkedArray, known: Index, least: int
) -> tuple[np.ndarray, np.ndarray]:
    """Takes the placeholders out of a shard that is not committed; `pair_id` is the rows'.

    Returns the rows that brought a picture, int64 [n], and bool [n]: whether it is a placeholder.
    """
    sha256 = writer.sha256()
    brought = np.flatnonzero(sha256.is_valid().to_numpy(zero_copy_only=False))
    taken = pa.array(brought)
    pictures = _pictures(sha256.take(taken), pair_id.take(taken))
    found = are_placeholders(pictures, least) | known.has(pictures)
    for index in brought[found].tolist():
        writer.leave_out(index, PLACEHOLDER)
    return brought, found


# --- what a lane has met ----------------------------------------------------------------------


def write_met(path: str, rows: np.ndarray, least: int) -> None:
    """Writes what others need to know of the PICTURE rows of a lane, or of its first shard."""
    rows = evidence(rows, least)
    blocks.write(path, rows, slots_of(rows["high"], SLOTS), SLOTS)


def evidence(rows: np.ndarray, least: int) -> np.ndarray:
    """Returns PICTURE, sorted: as much of pictures met twice or left out as the rule can count.

    That is one row for each URL and one for each text, and of either no more than `least`, so the
    rule says the same of these rows and any others as of all.
    """
    rows = rows[np.lexsort((rows["text"], rows["url"], rows["low"], rows["high"]))]
    picture, pictures = _numbered(rows)
    times = np.bincount(picture, minlength=pictures)
    stored = np.bincount(picture, rows["stored"], pictures).astype(np.int64)
    start = np.cumsum(times) - times
    kept = np.zeros(len(rows), bool)
    for name in ("url", "text"):
        first = _firsts(picture, rows[name])
        before = np.cumsum(first) - first
        kept |= first & (before - before[start][picture] < least)
    kept &= ((times > 1) | (stored < times))[picture]
    rows["stored"] = 0
    rows["stored"][start] = stored
    return rows[kept]


# --- what is known ----------------------------------------------------------------------------


def pilot_lanes(run: Run, wave: int) -> list[int]:
    """Returns the lanes whose first shard is fetched before all others: those with several."""
    if not (run.config.placeholder_urls and run.is_first(wave)):
        return []
    planned = lanes.planned_shards(run, wave)
    return [lane for lane, ids in enumerate(planned) if len(ids) > 1]


def known_to(run: Run, wave: int, ids: range, shard_id: int) -> Index | None:
    """Returns what is known when one of a lane's shards is fetched; None where all are kept.

    For a pilot that is what earlier crawls knew, also where it is lost later and made again.
    """
    if not run.config.placeholder_urls:
        return None
    if run.is_first(wave) and len(ids) > 1 and shard_id == ids.start:
        return known_before(run, wave)
    return load(run, wave)


def freeze(run: Run, wave: int) -> None:
    """Writes fetched/W/placeholders.parquet (BLOCKLIST): what is known before a wave is fetched."""
    paths = _met_paths(run, wave) + [pilot_path(run, wave, lane) for lane in pilot_lanes(run, wave)]
    bits, _ = _learn(paths, known_before(run, wave), run.config.placeholder_urls)
    write_own(run.wave_path("fetched", wave, KNOWN), Blocklist({"sha256": bits}))


def known_before(run: Run, wave: int) -> Index:
    """Returns what was known in the last wave before a wave that had something to do."""
    earlier = waves.open_waves(run, wave)
    return load(run, earlier[-1]) if earlier else Index.of(np.empty(0, BITS))


def load(run: Run, wave: int) -> Index:
    """Returns what is known in a wave; read once in a process."""
    with _LOADING:
        return _load(run.wave_path("fetched", wave, KNOWN))


@functools.lru_cache(maxsize=2)
def _load(path: str) -> Index:
    return Index.of(read_own(path).bits("sha256"))


def pilot_path(run: Run, wave: int, lane: int) -> str:
    """Returns where a lane's first shard says what it has met."""
    return run.wave_path("fetched", wave, f"{lane:04d}.pilot")


def met_path(run: Run, wave: int, lane: int) -> str:
    """Returns where a lane says what it has met."""
    return run.wave_path("fetched", wave, f"{lane:04d}.met")


def _met_paths(run: Run, before: int) -> list[str]:
    """Where lanes say what they have met in the waves before one."""
    opened, numbers = waves.open_waves(run, before), range(run.config.lanes)
    return [met_path(run, wave, lane) for wave in opened for lane in numbers]


def _learn(paths: Sequence[str], known: Index, least: int) -> tuple[np.ndarray, int]:
    """BITS of the known placeholders and of those in files of PICTURE; how many rows store one."""
    size = sum(read_many(paths, lambda path: storage.size(path) or 0))
    passes = min(SLOTS, 1 + size // (PASS_ROWS * PICTURE.itemsize))
    bits, stored = np.empty(len(known), BITS), 0
    bits["high"], bits["low"] = known.high, known.low
    learnt = [bits]
    for first, last in itertools.pairwise(SLOTS * i // passes for i in range(passes + 1)):
        parts = [np.empty(0, PICTURE)]
        parts += read_many(paths, partial(blocks.read, first=first, last=last))
        rows = np.concatenate(parts)
        found = rows[are_placeholders(rows, least) | known.has(rows)]
        stored += int(found["stored"].sum())
        learnt.append(np.unique(found[["high", "low"]]).astype(BITS))
    return np.concatenate(learnt), stored


# --- at the end -------------------------------------------------------------------------------


def sum_up(run: Run, left_out: int) -> None:
    """Writes OUT/placeholders.parquet (BLOCKLIST), all that are known at the end, and RECORD.

    left_out: the pictures that were not stored, of all shards. Of those that were, RECORD counts
    what a lane has met at least twice.
    """
    if not run.config.placeholder_urls:
        return
    last = lanes.last_wave(run)
    paths, known = _met_paths(run, last + 1), load(run, last)
    bits, stored = _learn(paths, known, run.config.placeholder_urls)
    found = Blocklist({"sha256": bits})
    write_own(run.path(KNOWN), found)
    record = {"pictures": len(found), "left_out": left_out, "stored": stored}
    storage.write_json(run.path("fetched", RECORD), record)


def told(run: Run) -> str:
    """Returns for a person how many were left out, and how many were stored before one knew.

    Empty as long as the run is not at its end.
    """
    if not run.config.placeholder_urls:
        return "stored as any picture (--placeholder-urls 0)"
    path = run.path("fetched", RECORD)
    if not storage.exists(path):
        return ""
    record = storage.read_json(path)
    if not record["pictures"]:
        return "none found"
    one = record["pictures"] == 1
    kinds = "one picture" if one else f"{record['pictures']:,} different pictures"
    said = f"{record['left_out']:,} left out ({kinds})"
    if record["stored"]:
        verb = "is" if record["stored"] == 1 else "are"
        known = "it was" if one else "they were"
        said += f"; {record['stored']:,} more {verb} stored, from before {known} known"
    return said
