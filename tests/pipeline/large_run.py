"""A finished run's folder of any size, written as tables and not crawled: for what reads runs.

The shards' Parquet files hold as many rows as a real run's; their tars hold a few pictures each, to
which all rows point. Everything follows from the numbers alone.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from pipeline import fetching
from pipeline.coverage import FATES
from pipeline.dedupe import write_array
from pipeline.progress import START, Heartbeat, announce
from pipeline.queries import LIST
from pipeline.run import Config, Run, open_run
from pipeline.stages import in_order
from wit import shards, storage
from wit.hashing import hash64
from wit.outcomes import OUTCOMES
from wit.pairs import HOSTS, QUERIES, SAMPLES
from wit.shard_files import counts_of

CAP, PICTURES, CAPTIONS, SIDE = 2_000, 20, 20_000, 256
SYLLABLES = [a + b for a, b in itertools.product("bdfgklmnprstvz", "aeiou")]
CHANCES = {  # of an outcome
    "success": 0.7,
    "not_found": 0.14,
    "dns_failure": 0.06,
    "robots_disallowed": 0.04,
    "server_error": 0.03,
    "undecodable": 0.02,
    "opted_out": 0.01,
}
TYPES = ["image/jpeg", "image/png", "image/webp", "IMAGE/JPEG; charset=utf-8", "strange/type", None]
ATTRIBUTES = ["alt", "title", "figcaption"]
LANGUAGES = ["en", "de", "zh", "fr", "es", "ru", None]


def make_run(out: Path, pairs: int, queries: int, shard_size: int = 10_000, lane_count: int = 4):
    """Writes a run of so many selected pairs; the Run, for which `summarise` has yet to be called.

    shard_size: pairs a shard; a lane's last shard has the rest.
    """
    rng = np.random.default_rng(0)
    words = query_words(queries)
    config = Config(
        sources=[{"path": "table.parquet"}],
        queries={"queries": queries, "sha256": "0" * 64, "left_out": {}},
        per_query=CAP,
        identify_language=True,
        lanes=lane_count,
        shard_size=shard_size,
        waves=1,
        fetch={"image_size": SIDE, "resize_mode": "keep_ratio"},
        product_token="example",
    )
    run = open_run(str(out), config)
    write_queries(run, words)
    captions = make_captions(rng, words)
    hosts = [f"https://host-{n}.example" for n in range(max(20, pairs // 50))]
    present, outcomes, host_rows = write_lanes(run, rng, pairs, captions, hosts)
    write_hosts(run, hosts, host_rows)
    write_counts(run, present, pairs, outcomes)
    write_times(run)
    return run


def query_words(count: int) -> list[str]:
    """So many different words of three or four syllables."""
    base = len(SYLLABLES)

    def word(n: int) -> str:
        digits = [n // base**power % base for power in range(4 if n >= base**3 else 3)]
        return "".join(SYLLABLES[digit] for digit in digits)

    return [word(n) for n in range(count)]


def write_queries(run: Run, words: list[str]) -> None:
    """The query list."""
    query = pa.array(words)
    columns = {"query_id": np.arange(len(words), dtype=np.int32), "query": query}
    columns["query_hash"] = hash64(query)
    nulls = {f.name: pa.nulls(len(words), f.type) for f in QUERIES if f.name not in columns}
    storage.write_table(run.path(LIST), pa.table({**columns, **nulls}).select(QUERIES.names))


def make_captions(rng: np.random.Generator, words: list[str]) -> pa.Table:
    """Captions with the queries that they include; frequent queries are in many of them."""
    ranks = np.minimum(rng.zipf(1.3, size=(CAPTIONS, 6)), 10**9) - 1
    rare = rng.integers(0, len(words), size=(CAPTIONS, 6))
    ids = np.where(ranks < len(words), ranks, rare)
    lengths = rng.integers(1, 7, CAPTIONS)
    chosen = [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]
    texts = [" ".join(words[i] for i in row) for row in chosen]
    lists = pa.array([sorted(set(row)) for row in chosen], pa.list_(pa.int32()))
    return pa.table({"caption": texts, "query_ids": lists})


def make_rows(
    rng: np.random.Generator, shard: int, count: int, captions: pa.Table, hosts: list[str]
) -> pa.Table:
    """SAMPLES of one shard but for the pictures' places, and the column `host`."""
    names = list(CHANCES)
    outcome = rng.choice(len(names), count, p=list(CHANCES.values()))
    success = outcome == 0
    places = np.minimum(rng.zipf(1.2, count), 10**9) % len(hosts)
    number = np.arange(count) + shard * 100_000
    host = pa.array(hosts).take(pa.array(places))
    url = pc.binary_join_element_wise(host, pc.cast(pa.array(number), pa.string()), "/")
    some = captions.take(pa.array(rng.integers(0, len(captions), count)))
    width, height = np.clip(rng.lognormal(6.2, 0.7, (2, count)), 16, 9000).astype(np.int32)
    stored = {name: pa.array(values, mask=~success) for name, values in _stored(width, height)}
    key = pc.utf8_lpad(pc.cast(pa.array(np.arange(count)), pa.string()), 4, "0")
    columns = {
        "url": url,
        "caption": some["caption"],
        "key": pc.binary_join_element_wise(shards.shard_name(shard), key, ""),
        "status": pa.array([OUTCOMES[n][0] for n in names]).take(pa.array(outcome)),
        "error_message": pc.if_else(pa.array(success), None, pa.array(names).take(outcome)),
        "outcome": pa.array(names).take(pa.array(outcome)),
        "pair_id": _ids(number),
        "page_url": url,
        "attribute": pa.array(ATTRIBUTES).take(pa.array(rng.integers(0, 3, count))),
        "language": pa.array(LANGUAGES).take(pa.array(rng.integers(0, 7, count))),
        "query_ids": some["query_ids"],
        "wave": pa.array(np.ones(count, np.int8)),
        "source": pa.array(np.zeros(count, np.int32)),
        "row": pa.array(number.astype(np.int32)),
        "sha256": pc.if_else(pa.array(success), _hex(number), None),
        "content_type": pa.array(TYPES).take(pa.array(rng.integers(0, 6, count))),
        "image_ext": pc.if_else(pa.array(success), "jpg", None),
        **stored,
    }
    nulls = {f.name: pa.nulls(count, f.type) for f in SAMPLES if f.name not in columns}
    table = pa.table({**columns, **nulls}).select(SAMPLES.names).cast(SAMPLES)
    return table.append_column("host", host)


def _stored(width: np.ndarray, height: np.ndarray) -> list[tuple[str, np.ndarray]]:
    scale = SIDE / np.minimum(width, height)
    sizes = [np.rint(side * scale).astype(np.int32) for side in (width, height)]
    names = ("original_width", "original_height", "width", "height")
    return list(zip(names, (width, height, *sizes), strict=True))


def _ids(number: np.ndarray) -> pa.Array:
    both = np.stack([number.astype(">u8"), (number * 7919).astype(">u8")], axis=1)
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(number), [None, pa.py_buffer(both.tobytes())]
    )


def _hex(number: np.ndarray) -> pa.Array:
    return pa.array([f"{n:064x}" for n in number.tolist()])


def write_shard(run: Run, shard: int, table: pa.Table) -> None:
    """One committed shard; its rows point to the pictures in its tar in turn."""
    name, folder = shards.shard_name(shard), run.path("shards")
    places, tar = [], io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number in range(PICTURES):
            picture = make_picture(shard * PICTURES + number)
            info = tarfile.TarInfo(f"{name}{number:04d}.jpg")
            info.size = len(picture)
            places.append((archive.offset + tarfile.BLOCKSIZE, len(picture)))
            archive.addfile(info, io.BytesIO(picture))
    success = pc.equal(table["outcome"], "success")
    turn = np.arange(len(table)) % PICTURES
    for column, values in zip(("image_offset", "image_size"), np.array(places).T, strict=True):
        index = table.schema.get_field_index(column)
        filled = pc.if_else(success, pa.array(values[turn]), None)
        table = table.set_column(index, SAMPLES.field(column), filled)
    parquet = io.BytesIO()
    storage.write_parquet(table, parquet)
    files = {"tar": tar.getvalue(), "parquet": parquet.getvalue()}
    stats = counts_of(table) | {"attempt": "made", "start_time": 0, "end_time": 1, "duration": 1}
    for part, data in files.items():
        storage.write_bytes(shards.final_path(folder, name, part), data)
        digest = hashlib.sha256(data).hexdigest()
        stats[part] = {"name": f"{name}.{part}", "size": len(data), "sha256": digest}
    storage.write_json(storage.join(folder, f"{name}_stats.json"), stats)


def make_picture(seed: int) -> bytes:
    """A JPEG of coarse colours."""
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((SIDE, SIDE * 3 // 4)).save(out, "JPEG")
    return out.getvalue()


def write_lanes(
    run: Run, rng: np.random.Generator, pairs: int, captions: pa.Table, hosts: list[str]
) -> tuple[np.ndarray, dict[str, int], pa.Table]:
    """All shards and what their lanes say of them.

    Returns present pairs of each query, pairs of each outcome, and host with its pairs.
    """
    size, lane_count = run.config.shard_size, run.config.lanes
    rows = [len(part) for part in np.array_split(np.empty(pairs), lane_count)]
    present = np.zeros(run.config.queries["queries"], np.int64)
    outcomes = dict.fromkeys(CHANCES, 0)
    planned, per_host, first = [], [], 0
    storage.write_json(run.wave_path("lanes", 1, "open.json"), {"open": True})
    for lane, count in enumerate(rows):
        ids, host = range(first, first + -(-count // size)), []
        for shard in ids:
            part = min(size, count - (shard - first) * size)
            table = make_rows(rng, shard, part, captions, hosts)
            host.append(table["host"])
            table = table.drop_columns("host")
            write_shard(run, shard, table)
            for row in pc.value_counts(table["outcome"]).to_pylist():
                outcomes[row["values"]] += row["counts"]
            stored = table.filter(pc.equal(table["outcome"], "success"))["query_ids"]
            present += np.bincount(pc.list_flatten(stored).to_numpy(), minlength=len(present))
        column = pa.chunked_array([chunk for part in host for chunk in part.chunks])
        fetching.write_results(run, 1, lane, ids, column)
        per_host.append(pa.table({"host": column}))
        planned.append([first, len(ids)])
        first = ids.stop
    storage.write_json(run.wave_path("lanes", 1, "shards.json"), {"lanes": planned, "next": first})
    hosts_of_all = pa.concat_tables(per_host).group_by("host").aggregate([([], "count_all")])
    return present, outcomes, hosts_of_all


def write_hosts(run: Run, hosts: list[str], counts: pa.Table) -> None:
    """hosts/01, in a few buckets."""
    table = counts.rename_columns(["host", "pairs"]).sort_by("host")
    count = len(table)
    columns = {
        "host": table["host"],
        "hostname": pc.utf8_slice_codeunits(table["host"], len("https://")),
        "pairs": table["pairs"],
        "lanes": pa.array(np.ones(count, np.int32)),
        "robots": pa.array(["allow_all", "rules"]).take(pa.array(np.arange(count) % 2)),
    }
    nulls = {f.name: pa.nulls(count, f.type) for f in HOSTS if f.name not in columns}
    table = pa.table({**columns, **nulls}).select(HOSTS.names).cast(HOSTS)
    buckets = range(8)
    for bucket in buckets:
        part = table.take(pa.array(np.arange(bucket, count, len(buckets))))
        storage.write_table(run.wave_path("hosts", 1, f"{bucket:04d}.parquet"), part)
    total = {"pairs": pc.sum(table["pairs"]).as_py(), "host_buckets": list(buckets)}
    storage.write_json(run.wave_path("hosts", 1, "total.json"), total)


def write_counts(run: Run, present: np.ndarray, pairs: int, outcomes: dict[str, int]) -> None:
    """The sources' counts, and what became of every query and candidate."""
    fates = dict.fromkeys(FATES, 0) | {
        "duplicate_pair": pairs // 3,
        "over_cap": pairs // 2,
        "failed": pairs - outcomes["success"],
        "fetched": outcomes["success"],
    }
    counts = {"extracted": sum(fates.values()), "no_text": pairs, "no_query": 3 * pairs}
    links = sum(counts.values())
    tally = {
        "counts": counts,
        "seen": {"records": links // 50, "pages": links // 60, "images": links},
        "fault_counts": {},
        "fault_total": 0,
        "faults": [],
    }
    storage.write_json(run.candidates(0, ".json"), tally)
    unique = present + present // 4
    write_array(run.path("counts", "total.npy"), np.stack([unique + unique // 3, unique]))
    storage.write_json(run.path("target.json"), {"per_query": CAP})
    found = np.zeros((3, max(len(present), len(FATES))), np.int64)
    found[0, : len(present)] = present
    found[1, : len(present)] = np.minimum(present, CAP)
    found[2, : len(FATES)] = list(fates.values())
    write_array(run.path("coverage", "0000.npy"), found)


def write_times(run: Run) -> None:
    """A session in which every stage took a second more than the one before."""
    now = 1_700_000_000.0
    keys = [START, *(key for key, _, _ in in_order(run))]
    for second, key in enumerate(keys, 1):
        announce(run, key, "s", 4, 4, now)
        beat = Heartbeat(run, key, "s", [0])
        beat.started = now
        beat.finish()
        path = run.path("progress", key, "s.000000.json")
        facts = storage.read_json(path) | {"wall": float(second), "cpu": 1.5 * second}
        storage.write_json(path, facts)
        now += second
