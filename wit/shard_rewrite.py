"""Takes samples out of a finished shard: a tar without their members, and rows that only stay.

A row that is taken out keeps its key, and its place in what other tables say of it; its status is
a failure, its outcome `taken_down`, and nothing that came from the web is left of it.

A shard of ours is committed as `wit.shard_files` says: both files under the name of a new attempt,
then `_stats.json`, which names it, then the renames; killed at any instant it is the old shard or,
rolled forward, the new one. Of img2dataset's, which have no such protocol, each file is replaced as
a whole, the Parquet file last: as long as it names a sample, the work is done again.
Who reads meanwhile may for a moment find a new tar beside an old Parquet file: `read_image` then
says that the bytes are not those of the row, and reads well a moment later.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import tarfile
from collections import Counter
from collections.abc import Mapping
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wit import storage
from wit.blocklist import Blocklist
from wit.errors import StorageError
from wit.outcomes import OUTCOMES
from wit.pairs import SAMPLES
from wit.shard_files import (
    PARTS,
    Hashed,
    attempt_path,
    counts_of,
    final_path,
    finish_name,
    is_ours,
    stats_path,
)

TAKEN_DOWN = "taken_down"
# What says where a row stands, not what it shows; every other column is emptied.
KEPT = frozenset(
    ("key", "pair_id", "attribute", "language", "query_ids", "priority", "wave", "source", "row")
)
SAID = {"status": OUTCOMES[TAKEN_DOWN][0], "error_message": TAKEN_DOWN, "outcome": TAKEN_DOWN}
AGAIN = "then run the takedown again"
CHUNK = 1 << 20
PICTURES = ("jpg", "png", "webp")  # columns in which img2dataset's output `parquet` has them


def rows_to_go(blocklist: Blocklist, table: pa.Table) -> pa.ChunkedArray:
    """Returns string [n]: by which kind of entry a row is to go, null where it stays or is gone."""
    found = blocklist.find(table)
    if "outcome" not in table.column_names:
        return found
    gone = pc.equal(table["outcome"], TAKEN_DOWN).fill_null(False)
    return pc.if_else(gone, pa.scalar(None, pa.string()), found)


def rewrite_shard(folder: str, name: str, blocklist: Blocklist) -> None:
    """Takes out of a shard what a list means; one that has nothing of it is not touched.

    Raises:
        StorageError: for a shard that is damaged, or keeps its pictures where they are not found.
    """
    try:
        table = storage.read_table(final_path(folder, name, "parquet"))
    except FileNotFoundError:  # to be made again, by a harvest that keeps to the list
        return
    gone = rows_to_go(blocklist, table).is_valid()
    if not pc.any(gone).as_py():
        return
    stats: dict[str, Any] | None = None
    with contextlib.suppress(FileNotFoundError):
        stats = storage.read_json(stats_path(folder, name))
    keys = set(table["key"].filter(gone).cast(pa.string()).to_pylist())
    table = emptied(table, gone)
    if stats is not None and is_ours(stats):
        _rewrite_ours(folder, name, table, keys, stats)
    else:
        _rewrite_foreign(folder, name, table, keys, stats)


def emptied(table: pa.Table, gone: pa.ChunkedArray) -> pa.Table:
    """Returns a shard's table in which the rows of `gone` (bool [n]) say only that they are."""
    columns, fields = [], []
    for field in table.schema:
        column = table[field.name]
        if field.name not in KEPT:
            value = pa.scalar(SAID.get(field.name), field.type)
            column, field = pc.if_else(gone, value, column), field.with_nullable(True)
        columns.append(column)
        fields.append(field)
    return pa.table(columns, schema=pa.schema(fields, metadata=table.schema.metadata))


def _rewrite_ours(
    folder: str, name: str, table: pa.Table, keys: set[str], stats: dict[str, Any]
) -> None:
    finished = finish_name(folder, name)
    if finished.problem:
        raise StorageError(f"{finished.problem} by the command that made it; {AGAIN}")
    attempt = f"takedown-{secrets.token_hex(4)}"
    paths = {part: attempt_path(folder, name, attempt, part) for part in PARTS}
    parquet = final_path(folder, name, "parquet")
    _compare(parquet, hashlib.sha256(storage.read_bytes(parquet)).hexdigest(), stats["parquet"])
    try:
        with storage.open_write(paths["tar"]) as file:
            tar = Hashed(file)
            source = final_path(folder, name, "tar")
            old, new, sha256 = copy_without(source, tar, keys)
            _compare(source, sha256, stats["tar"])
        table = _moved(table, old, new, source)
        names = table.schema.names
        if set(names) <= set(SAMPLES.names):  # Parquet forgets how the items of lists are called
            table = table.cast(pa.schema([SAMPLES.field(name) for name in names]))
        with storage.open_write(paths["parquet"]) as file:
            written = Hashed(file)
            storage.write_parquet(table, written)
        files = {"tar": tar.entry(name, "tar"), "parquet": written.entry(name, "parquet")}
        stats = {**stats, **counts_of(table), **files, "attempt": attempt}
    except BaseException:
        for path in paths.values():
            with contextlib.suppress(OSError, StorageError):
                storage.remove(path)
        raise
    storage.write_json(stats_path(folder, name), stats)
    if finish_name(folder, name).state not in ("done", "rolled_forward"):
        raise StorageError(
            f"{final_path(folder, name, 'tar')}: changed while it was written; look for another "
            "program that writes there, then run the same command again"
        )


def _compare(path: str, sha256: str, entry: Mapping[str, Any]) -> None:
    if sha256 != entry["sha256"]:
        raise StorageError(
            f"{path}: is damaged (its sha256 is not what _stats.json says), so nothing was taken "
            f"out of it; run: wit shards verify, do what it says, and {AGAIN}"
        )


def _moved(table: pa.Table, old: np.ndarray, new: np.ndarray, path: str) -> pa.Table:
    """Returns the table with the pictures' offsets, that were `old`, as they are now."""
    column = table["image_offset"]
    rows = np.flatnonzero(column.is_valid().to_numpy())
    offsets = column.take(pa.array(rows)).to_numpy()
    place = np.minimum(np.searchsorted(old, offsets), max(len(old) - 1, 0))
    if len(rows) and not (len(old) and np.array_equal(old[place], offsets)):
        raise StorageError(f"{path}: a picture is not where its row says; run: wit shards verify")
    moved = np.zeros(len(table), np.int64)
    moved[rows] = new[place]
    absent = np.ones(len(table), bool)
    absent[rows] = False
    at = table.schema.get_field_index("image_offset")
    return table.set_column(at, table.schema.field(at), pa.array(moved, pa.int64(), mask=absent))


def _rewrite_foreign(
    folder: str, name: str, table: pa.Table, keys: set[str], stats: dict[str, Any] | None
) -> None:
    tar = final_path(folder, name, "tar")
    if storage.exists(tar):
        with storage.open_write(tar) as file:  # the old one stands until this is whole
            copy_without(tar, Hashed(file), keys)
    elif stats is not None and not set(PICTURES) & set(table.column_names):
        raise StorageError(
            f"{tar}: is missing, so its pictures are elsewhere; takedown knows the output formats "
            "webdataset and parquet"
        )
    if stats is not None and "status" in table.column_names:
        statuses = Counter(table["status"].to_pylist())
        counts: dict[str, Any] = {"successes": statuses["success"]}
        counts |= {kind: statuses[kind] for kind in ("failed_to_download", "failed_to_resize")}
        if "error_message" in table.column_names:
            messages = pc.fill_null(table["error_message"], "success").to_pylist()
            counts["status_dict"] = dict(Counter(messages))
        storage.write_json(stats_path(folder, name), {**stats, **counts})
    storage.write_table(final_path(folder, name, "parquet"), table)


# --- tars -------------------------------------------------------------------------------------


def copy_without(
    path: str, out: IO[bytes] | Hashed, keys: set[str]
) -> tuple[np.ndarray, np.ndarray, str]:
    """Copies a tar without the members of some samples, byte for byte.

    Returns int64 [members] twice, where the data of what is left stood (ascending) and stands, and
    the sha256 of the tar that was read.
    """
    with storage.open_read(path) as file:
        old, new, parts, size = _plan(path, file, keys)
        file.seek(0)
        sha256, at = hashlib.sha256(), 0
        for start, end in [*parts, (None, None)]:
            at = _pass(file, sha256, at, start, None)
            if start is not None:
                at = _pass(file, sha256, at, end, out)
    out.write(bytes(2 * tarfile.BLOCKSIZE))
    out.write(bytes(-(size + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE))
    return old, new, sha256.hexdigest()


def _plan(
    path: str, file: IO[bytes], keys: set[str]
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]], int]:
    """Old and new places of what stays, the ranges [start, end) that hold it, their sum."""
    old, new, parts, size, last = [], [], [], 0, 0
    length = file.seek(0, 2)
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                end = info.offset_data + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if end > length:
                    raise tarfile.ReadError(f"ends within {info.name!r}")
                stays = info.name.rpartition("/")[2].partition(".")[0] not in keys
                # What is between members (headers that are for all) stays in any case.
                part = (last, end if stays else info.offset)
                if stays:
                    old.append(info.offset_data)
                    new.append(size + info.offset_data - last)
                if parts and parts[-1][1] == part[0]:
                    parts[-1] = (parts[-1][0], part[1])
                else:
                    parts.append(part)
                size += part[1] - part[0]
                last = end
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise StorageError(
            f"{path}: cannot be read as a tar ({error}), so nothing was taken out of it; run wit "
            "shards verify"
        ) from error
    return np.array(old, np.int64), np.array(new, np.int64), parts, size


def _pass(
    file: IO[bytes], sha256: Any, at: int, end: int | None, out: IO[bytes] | Hashed | None
) -> int:
    """Reads on to `end`, or all, hashes it, and writes it to `out` if there is one."""
    while end is None or at < end:
        data = file.read(CHUNK if end is None else min(CHUNK, end - at))
        if not data:
            break
        sha256.update(data)
        if out is not None:
            cast(IO[bytes], out).write(data)
        at += len(data)
    return at
