"""Shards as files: names, keys, columns, the commit protocol, and ranged reads.

A shard is `NNNNN.tar`, `NNNNN.parquet` and `NNNNN_stats.json`, img2dataset's layout. The stats file
is the commit point: it is written last, only if absent, and names the attempt whose tar and parquet
count, with their sizes and sha256. An attempt writes `.NNNNN.ATTEMPT.tar` and `.parquet`, hidden
from every `*.tar`; the winner renames them. `finish` does these renames for a winner that was
killed between the two steps, so every state that a kill leaves leads to the same end.
"""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from wit import storage
from wit.errors import StorageError

MOST_SAMPLES = 10_000
KEY_DIGITS = 4  # of a sample within its shard: 10,000 samples
PARTS = ("tar", "parquet")
ATTEMPT = re.compile(r"[A-Za-z0-9_-]{1,80}")
SHARD_FILE = re.compile(r"(\d{1,12})(_stats\.json|\.tar|\.parquet)")
ATTEMPT_FILE = re.compile(rf"\.(\d{{1,12}})\.({ATTEMPT.pattern})\.(tar|parquet)")

log = logging.getLogger("wit.shards")

State = Literal["absent", "done", "rolled_forward", "damaged"]


@dataclass(frozen=True)
class Finish:
    """What `finish` found: the state, and for a damaged shard what was wrong with which file."""

    state: State
    problem: str | None = None


# --- names ------------------------------------------------------------------------------------


def shard_name(shard_id: int, digits: int = 5) -> str:
    """`00042` of 42; an id that needs more digits is a ValueError (names must sort as ids do)."""
    if not 0 <= shard_id < 10**digits:
        raise ValueError(f"shard id {shard_id} does not fit into {digits} digits")
    return f"{shard_id:0{digits}d}"


def sample_key(shard_id: int, index: int, digits: int = 5) -> str:
    """Img2dataset's key: the shard's digits, then four of the sample, no dots: `000420007`."""
    return f"{shard_name(shard_id, digits)}{index:0{KEY_DIGITS}d}"


def shard_of(key: str) -> str:
    """The shard's name in a sample's key."""
    if not key.isascii() or not key.isdigit() or len(key) <= KEY_DIGITS:
        raise StorageError(f"key {key!r}: not a sample's key (digits of the shard, then 4 more)")
    return key[:-KEY_DIGITS]


def attempt_path(folder: str, name: str, attempt: str, part: str) -> str:
    """Where an attempt writes its tar or parquet."""
    if not ATTEMPT.fullmatch(attempt):
        raise ValueError(f"attempt {attempt!r}: only letters, digits, - and _ are allowed")
    return storage.join(folder, f".{name}.{attempt}.{part}")


def final_path(folder: str, name: str, part: str) -> str:
    """Where a shard's tar or parquet stands when it is done."""
    return storage.join(folder, f"{name}.{part}")


def stats_path(folder: str, name: str) -> str:
    """The shard's commit point."""
    return storage.join(folder, f"{name}_stats.json")


def list_shards(folder: str) -> list[str]:
    """Names of the committed shards in a folder (those with a stats file), in order of ids."""
    names = (SHARD_FILE.fullmatch(name) for name in storage.list_names(folder))
    return sorted((m[1] for m in names if m and m[2] == "_stats.json"), key=shard_order)


def shard_order(name: str) -> tuple[int, str]:
    """Sorts shard names by their number."""
    return int(name), name


# --- the commit protocol ----------------------------------------------------------------------


def is_ours(stats: Mapping[str, Any]) -> bool:
    """Whether stats come from this protocol; img2dataset's own name no attempt and no files."""
    return any(field in stats for field in ("attempt", *PARTS))


def check_stats(stats: Mapping[str, Any]) -> str | None:
    """What is wrong with stats of ours, None if they name an attempt and two files properly."""
    attempt = stats.get("attempt")
    if not isinstance(attempt, str) or not ATTEMPT.fullmatch(attempt):
        return "names no attempt"
    for part in PARTS:
        entry = stats.get(part)
        if not isinstance(entry, dict):
            return f"has no entry for the {part}"
        if not isinstance(entry.get("size"), int) or not isinstance(entry.get("sha256"), str):
            return f"has no size and sha256 of the {part}"
    return None


def finish(folder: str, shard_id: int, digits: int = 5) -> Finish:
    """Brings a committed shard to its end; to be called before a shard is started, or again.

    absent: not committed, to be made. done: nothing to do. rolled_forward: its winner was killed
    before renaming, which is done now. damaged: a file it names is missing or has another size; the
    stats file is moved aside to `.NNNNN_stats.json.ATTEMPT.damaged`, a warning is logged, and the
    shard is to be made again.
    """
    return finish_name(folder, shard_name(shard_id, digits))


def finish_name(folder: str, name: str) -> Finish:
    """`finish` for a shard by its name."""
    path = stats_path(folder, name)
    try:
        stats = storage.read_json(path)
    except FileNotFoundError:
        return Finish("absent")
    except StorageError:
        return _set_aside(folder, name, "unreadable", f"{path}: is not JSON")
    if not is_ours(stats):
        raise StorageError(
            f"{path}: written by another tool; move that dataset away or choose another folder"
        )
    wrong = check_stats(stats)
    if wrong:
        return _set_aside(folder, name, "unreadable", f"{path}: {wrong}")
    moved = False
    for part in PARTS:
        final, size = final_path(folder, name, part), stats[part]["size"]
        attempt = attempt_path(folder, name, stats["attempt"], part)
        # The attempt goes first: a final file may be what an earlier, damaged commit left.
        if storage.size(attempt) == size:
            try:
                storage.rename(attempt, final)
                moved = True
            except FileNotFoundError:
                log.debug("%s: renamed by another process meanwhile", attempt)
        found = storage.size(final)
        if found != size:
            said = "is missing" if found is None else f"has {found:,} bytes"
            problem = f"{final}: {said}, {path} says {size:,}"
            return _set_aside(folder, name, stats["attempt"], problem)
    return Finish("rolled_forward" if moved else "done")


def _set_aside(folder: str, name: str, attempt: str, problem: str) -> Finish:
    aside = storage.join(folder, f".{name}_stats.json.{attempt}.damaged")
    try:
        storage.rename(stats_path(folder, name), aside)
    except FileNotFoundError:
        log.debug("%s: set aside by another process meanwhile", aside)
    log.warning("%s; its stats are kept as %s and the shard is made again", problem, aside)
    return Finish("damaged", f"{problem}; the shard is made again")


def is_done(folder: str, shard_id: int, digits: int = 5) -> bool:
    """Whether a shard is committed and its files have the sizes it says, rolled forward if need be.

    A damaged shard is reported (see `finish`) and not done.
    """
    return finish(folder, shard_id, digits).state in ("done", "rolled_forward")


def sweep(folder: str) -> list[str]:
    """Rolls committed shards forward, then removes all that dead attempts left; the paths removed.

    Only for the owner of the folder (under its lock) before work starts.
    """
    found = [m for m in map(ATTEMPT_FILE.fullmatch, storage.list_names(folder)) if m]
    for name in sorted({match[1] for match in found}):
        finish_name(folder, name)
    removed = []
    for match in found:
        path = storage.join(folder, match[0])
        if storage.exists(path):
            storage.remove(path)
            removed.append(path)
    return sorted(removed + storage.sweep(folder))


# --- reading ----------------------------------------------------------------------------------


def read_image(folder: str, row: Mapping[str, Any]) -> bytes:
    """The image of one row of a shard's parquet, by a ranged read of its tar.

    `row` has key, image_offset, image_size, and sha256 if the bytes are to be checked. A row
    without an image, or bytes that are not the row's, are a StorageError.
    """
    key, offset, size = row["key"], row["image_offset"], row["image_size"]
    path = final_path(folder, shard_of(key), "tar")
    if offset is None or size is None:
        raise StorageError(f"{path}: sample {key} has no image (its status is not success)")
    data = storage.read_bytes(path, offset, offset + size)
    expected = row.get("sha256")
    if len(data) != size or (expected and hashlib.sha256(data).hexdigest() != expected):
        raise StorageError(
            f"{path}: sample {key}: the {size:,} bytes at {offset:,} are not the picture that the "
            f"parquet names; run: wit shards verify {folder}"
        )
    return data


# --- what stands in `_stats.json` -------------------------------------------------------------


class Hashed:
    """A file being written whose size and sha256 are known at the end."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.size = 0
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Writes to the file."""
        self.file.write(data)
        self.sha256.update(data)
        self.size += memoryview(data).nbytes
        return len(data)

    def tell(self) -> int:
        """How many bytes were written."""
        return self.size

    def flush(self) -> None:
        """Flushes the file."""
        self.file.flush()

    def entry(self, name: str, part: str) -> dict[str, Any]:
        """What the stats of a shard say of its finished file."""
        sha256 = self.sha256.hexdigest()
        return {"name": f"{name}.{part}", "size": self.size, "sha256": sha256}

    def close(self) -> None:
        """The owner of the file closes it."""


def counts_of(table: pa.Table) -> dict[str, Any]:
    """img2dataset's counts of a shard, and ours."""
    statuses = Counter(table["status"].to_pylist())
    messages = pc.fill_null(table["error_message"], "success").to_pylist()
    keys = table["key"]
    return {
        "count": table.num_rows,
        "successes": statuses["success"],
        "failed_to_download": statuses["failed_to_download"],
        "failed_to_resize": statuses["failed_to_resize"],
        "status_dict": dict(Counter(messages)),
        "outcomes": dict(Counter(table["outcome"].to_pylist())),
        "first_key": keys[0].as_py() if len(keys) else None,
        "last_key": keys[-1].as_py() if len(keys) else None,
        "bytes": pc.sum(table["image_size"]).as_py() or 0,
    }
