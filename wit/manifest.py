"""`manifest.json`: every shard of a folder with its counts, sizes and sha256; and its statistics.

Nothing in a manifest depends on when or in how many attempts the shards were written.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from wit import storage
from wit.errors import StorageError
from wit.shard_files import PARTS, check_stats, final_path, is_ours, list_shards, stats_path

MANIFEST = "manifest.json"
FORMAT = 1
COUNTS = ("count", "successes", "failed_to_download", "failed_to_resize")
PER_SHARD = (*COUNTS, "bytes", "first_key", "last_key", "outcomes", *PARTS)
OWN_FIELDS = {"format", "folder", "shards", "totals"}
READERS = 8  # stats files read at a time; remote stores answer each in tens of milliseconds
SIDES = (64, 128, 256, 512, 1024, 2048, 4096)  # pixels

Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """A progress callback (done and total, in shards) that shows nothing."""


def locate(folder: str) -> tuple[str, str]:
    """(folder of the shards, path of the manifest) of an output folder or a folder of shards."""
    inside = storage.join(folder, "shards")
    if not list_shards(folder) and storage.list_names(inside):
        beside = storage.join(folder, MANIFEST)
        within = storage.join(inside, MANIFEST)
        return inside, within if storage.exists(within) else beside
    manifest = storage.join(folder, MANIFEST)
    parent, name = storage.split(folder.rstrip("/"))
    above = storage.join(parent, MANIFEST)
    if name == "shards" and not storage.exists(manifest) and storage.exists(above):
        return folder, above
    return folder, manifest


def read_stats(folder: str, name: str) -> dict[str, Any]:
    """A shard's stats file."""
    return storage.read_json(stats_path(folder, name))


def write_manifest(
    folder: str, extra: Mapping[str, Any], built: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Writes `manifest.json` of all committed shards and returns it; `extra` stands beside them.

    folder: of shards, or an output folder that has `shards/` (then the manifest stands in the
    output folder). Shards must be finished (`shards.finish`). built: what `build_manifest` gave,
    where it was called already.
    """
    taken = OWN_FIELDS & set(extra)
    if taken:
        raise ValueError(f"{folder}: the manifest has a field {sorted(taken)[0]!r} of its own")
    inside = storage.join(folder, "shards")
    shards = folder if list_shards(folder) or not storage.exists(inside) else inside
    manifest = dict(built or build_manifest(shards)) | dict(extra)
    manifest["folder"] = "." if shards == folder else "shards"
    storage.write_json(storage.join(folder, MANIFEST), manifest)
    return manifest


def build_manifest(folder: str) -> dict[str, Any]:
    """The manifest of a folder of shards, without what the caller adds."""
    names = list_shards(folder)
    with ThreadPoolExecutor(READERS) as pool:
        entries = list(pool.map(lambda name: _entry(folder, name), names))
    totals: dict[str, Any] = {field: sum(e[field] for e in entries) for field in (*COUNTS, "bytes")}
    outcomes: Counter[str] = Counter()
    for entry in entries:
        outcomes.update(entry["outcomes"])
    totals |= {"shards": len(entries), "outcomes": dict(outcomes)}
    totals |= {f"{part}_bytes": sum(entry[part]["size"] for entry in entries) for part in PARTS}
    return {"format": FORMAT, "shards": entries, "totals": totals}


def _entry(folder: str, name: str) -> dict[str, Any]:
    stats, path = read_stats(folder, name), stats_path(folder, name)
    if not is_ours(stats):
        raise StorageError(f"{path}: written by another tool; a manifest needs sizes and sha256")
    wrong = check_stats(stats) or next((f"lacks {f}" for f in PER_SHARD if f not in stats), None)
    if wrong:
        raise StorageError(f"{path}: {wrong}; run: wit shards verify {folder}")
    return {"name": name, **{field: stats[field] for field in PER_SHARD}}


# --- statistics -------------------------------------------------------------------------------


def stats(folder: str, *, progress: Progress = no_progress) -> dict[str, Any]:
    """What is in a folder of shards, ours or img2dataset's, from its stats and Parquet files.

    shards, count, successes, failed_to_download, failed_to_resize, messages (error messages and
    "success"), outcomes, languages, attributes, extensions: how many of each; bytes: of the images;
    tar_bytes, parquet_bytes; image_bytes: how many images of a size below each power of two;
    shorter_side: how many images below each number of pixels.
    """
    folder, _ = locate(folder)
    names = list_shards(folder)
    if not names:
        raise StorageError(f"{folder}: no shards here (no NNNNN_stats.json); check the path")
    totals: Counter[str] = Counter()
    tables = {
        field: Counter[str]()
        for field in ("messages", "outcomes", "languages", "attributes", "extensions")
    }
    sizes: Counter[int] = Counter()
    sides: Counter[int] = Counter()
    for done, name in enumerate(names, start=1):
        shard = read_stats(folder, name)
        totals.update({field: int(shard.get(field) or 0) for field in COUNTS})
        tables["messages"].update(shard.get("status_dict") or {})
        for part in PARTS:
            totals[f"{part}_bytes"] += storage.size(final_path(folder, name, part)) or 0
        table = storage.read_table(final_path(folder, name, "parquet"))
        for field, column in (
            ("outcomes", "outcome" if "outcome" in table.column_names else "status"),
            ("languages", "language"),
            ("attributes", "attribute"),
            ("extensions", "image_ext"),
        ):
            if column in table.column_names:
                tables[field].update(_histogram(table[column]))
        if "image_size" in table.column_names:
            totals["bytes"] += pc.sum(table["image_size"]).as_py() or 0
            sizes.update(_powers_of_two(table["image_size"]))
        if {"width", "height"} <= set(table.column_names):
            sides.update(_sides(table))
        progress(done, len(names))
    return {
        "shards": len(names),
        **{field: totals[field] for field in (*COUNTS, "bytes", "tar_bytes", "parquet_bytes")},
        **{field: _most_first(table) for field, table in tables.items()},
        "image_bytes": {f"< {limit}": sizes[limit] for limit in sorted(sizes)},
        "shorter_side": {
            f"< {limit}" if limit else f">= {SIDES[-1]}": sides[limit]
            for limit in sorted(sides, key=lambda limit: limit or SIDES[-1] + 1)
        },
    }


def _most_first(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _histogram(column: pa.ChunkedArray) -> dict[str, int]:
    counted = pc.value_counts(column.drop_null().combine_chunks())
    return {row["values"]: row["counts"] for row in counted.to_pylist()}


def _powers_of_two(column: pa.ChunkedArray) -> dict[int, int]:
    exponents = pc.floor(pc.log2(pc.cast(column.drop_null(), pa.float64())))
    counted = pc.value_counts(exponents.combine_chunks())
    return {2 ** (int(row["values"]) + 1): row["counts"] for row in counted.to_pylist()}


def _sides(table: pa.Table) -> dict[int, int]:
    """Images whose shorter side is below each of SIDES, not below the one before; 0: the rest."""
    shorter = pc.min_element_wise(table["width"], table["height"], skip_nulls=False).drop_null()
    found: dict[int, int] = {}
    low = 0
    for limit in SIDES:
        within = pc.and_(pc.greater_equal(shorter, low), pc.less(shorter, limit))
        found[limit], low = pc.sum(within).as_py() or 0, limit
    found[0] = pc.sum(pc.greater_equal(shorter, low)).as_py() or 0
    return {limit: number for limit, number in found.items() if number}
