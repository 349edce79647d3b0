"""Checks shards against what they say of themselves. Nothing is changed or removed.

Of shards of ours everything is checked: sizes and sha256 of both files, every row against its tar
member, the manifest against the disk, left-overs of killed runs. Of img2dataset's shards, whose
stats name no hashes: that tars are whole and agree with the Parquet rows and the counts.
"""

import hashlib
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

import pyarrow as pa

from wit import storage
from wit.errors import StorageError
from wit.manifest import COUNTS, PER_SHARD, Progress, build_manifest, locate, no_progress
from wit.pairs import SAMPLES
from wit.shard_files import (
    ATTEMPT_FILE,
    PARTS,
    SHARD_FILE,
    attempt_path,
    check_stats,
    final_path,
    is_ours,
    shard_order,
    stats_path,
)

MOST_ROWS = 10  # problems listed of one shard's samples; the rest is counted
CHUNK = 1 << 20
END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)
REDO = "remove {stats} and run the same command again: it makes the shard again"
RESUME = "run the same command again"
LATER = {"phash", "animated"}  # columns that older shards do not have
IMAGE_COLUMNS = ["key", "status", "sha256", "image_ext", "image_offset", "image_size"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: the file, what is wrong with it, what to do."""

    path: str
    what: str
    todo: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.path}: {self.what}; {self.todo}"


@dataclass(frozen=True)
class Member:
    """A tar member as it was read: where its data stand, how many bytes, their sha256."""

    offset: int
    size: int
    sha256: str


def verify(folder: str, *, full: bool = True, progress: Progress = no_progress) -> list[Problem]:
    """Every problem of a folder of shards (or an output folder with `shards/`), in file order.

    full=False looks at names, sizes, stats and manifest only and reads neither tars nor Parquet.
    progress(done, total) is called after each shard.
    """
    shards, manifest = locate(folder)
    present = storage.list_names(shards)
    matches = [match for match in map(SHARD_FILE.fullmatch, present) if match]
    names = sorted({match[1] for match in matches}, key=shard_order)
    if not names:
        todo = "check the path"
        return [Problem(folder, "no shards here (no NNNNN.tar, .parquet, _stats.json)", todo)]
    tars = any(match[2] == ".tar" for match in matches)
    problems: list[Problem] = []
    pending: set[str] = set()
    for done, name in enumerate(names, start=1):
        found = list(_check_shard(shards, name, set(present), full, tars, pending))
        problems += found
        progress(done, len(names))
    problems += _left_overs(shards, present, pending)
    problems += _check_manifest(shards, manifest)
    return problems


def _left_overs(folder: str, present: list[str], pending: set[str]) -> Iterator[Problem]:
    for name in present:
        temporary = name.startswith(".") and name.endswith(".tmp")
        if (temporary or ATTEMPT_FILE.fullmatch(name)) and name not in pending:
            todo = f"{RESUME}, it is removed at the start (or remove it if no run is under way)"
            yield Problem(storage.join(folder, name), "left by a run that was killed", todo)


# --- one shard --------------------------------------------------------------------------------


def _check_shard(
    folder: str, name: str, present: set[str], full: bool, tars: bool, pending: set[str]
) -> Iterator[Problem]:
    path = stats_path(folder, name)
    if f"{name}_stats.json" not in present:
        found = ", ".join(f"{name}.{part}" for part in PARTS if f"{name}.{part}" in present)
        yield Problem(path, f"missing beside {found}: the shard is not finished", RESUME)
        return
    redo = REDO.format(stats=path)
    try:
        stats = storage.read_json(path)
    except StorageError:
        yield Problem(path, "is not a JSON object", redo)
        return
    ours = is_ours(stats) or not any(field in stats for field in COUNTS)
    wrong = check_stats(stats) if ours else None
    if wrong:
        yield Problem(path, wrong, redo)
        return
    bad = False
    for part in PARTS if tars or ours else ("parquet",):
        problem = _check_size(folder, name, part, stats if ours else None, pending)
        if problem:
            bad = True
            yield problem
    if bad or not full:
        return
    yield from (_check_ours if ours else _check_foreign)(folder, name, stats, tars)


def _check_size(
    folder: str, name: str, part: str, stats: dict[str, Any] | None, pending: set[str]
) -> Problem | None:
    path, redo = final_path(folder, name, part), REDO.format(stats=stats_path(folder, name))
    found = storage.size(path)
    if stats is None:
        return None if found is not None else Problem(path, "is missing", "make the shard again")
    wanted = stats[part]["size"]
    attempt = attempt_path(folder, name, stats["attempt"], part)
    if storage.size(attempt) == wanted:
        pending.add(storage.split(attempt)[1])
        what = "committed, but the run was killed before the file got its name"
        return Problem(path, what, f"{RESUME}, it is renamed at the start")
    if found is None:
        return Problem(path, "is missing", redo)
    if found != wanted:
        return Problem(path, f"has {found:,} bytes, {name}_stats.json says {wanted:,}", redo)
    return None


def _check_ours(folder: str, name: str, stats: dict[str, Any], tars: bool) -> Iterator[Problem]:
    redo = REDO.format(stats=stats_path(folder, name))
    tar, parquet = (final_path(folder, name, part) for part in PARTS)
    with storage.open_read(parquet) as file:
        sha256 = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
    if sha256 != stats["parquet"]["sha256"]:
        yield Problem(parquet, f"sha256 is {sha256}, not what {name}_stats.json says", redo)
    members, sha256, fault = _read_tar(tar)
    if sha256 != stats["tar"]["sha256"]:
        yield Problem(tar, f"sha256 is {sha256}, not what {name}_stats.json says", redo)
    if fault:
        yield Problem(tar, fault, redo)
    try:
        table = storage.read_table(parquet)
    except StorageError as error:
        yield Problem(parquet, str(error).removeprefix(f"{parquet}: ").split(";")[0], redo)
        return
    absent = LATER - set(table.schema.names)
    if table.schema.names != [name for name in SAMPLES.names if name not in absent]:
        odd = sorted(set(table.schema.names) ^ set(SAMPLES.names) - absent)
        yield Problem(parquet, f"has not the columns of a shard (differs in {odd})", redo)
        return
    yield from _few(tar, redo, _compare_rows(table, members))
    yield from _compare_counts(parquet, redo, table, stats)


def _compare_rows(table: pa.Table, members: dict[str, Member]) -> Iterator[str]:
    """What is wrong with single samples: each row with an image must have its three members."""
    unseen = dict(members)
    last = ""
    for row in table.select(IMAGE_COLUMNS).to_pylist():
        key = row["key"]
        if key <= last:
            yield f"sample {key} stands after sample {last} in the Parquet file"
        last = key
        if row["status"] != "success":
            continue
        for extension in ("txt", "json"):
            if unseen.pop(f"{key}.{extension}", None) is None:
                yield f"sample {key} has no {extension} member"
        image = unseen.pop(f"{key}.{row['image_ext']}", None)
        if image is None:
            yield f"sample {key} has no {row['image_ext']} member"
        elif (image.offset, image.size) != (row["image_offset"], row["image_size"]):
            yield (
                f"sample {key}: the image has {image.size:,} bytes at {image.offset:,}, the "
                f"Parquet file says {row['image_size']:,} at {row['image_offset']:,}"
            )
        elif image.sha256 != row["sha256"]:
            yield f"sample {key}: the image's bytes are not those of its sha256 {row['sha256']}"
    for member in unseen:
        yield f"member {member!r} belongs to no row with an image"


def _compare_counts(
    path: str, todo: str, table: pa.Table, stats: dict[str, Any]
) -> Iterator[Problem]:
    statuses = Counter(table["status"].to_pylist()) if "status" in table.column_names else None
    found = {"count": table.num_rows}
    if statuses is not None:
        found |= {"successes": statuses["success"]}
        found |= {field: statuses[field] for field in ("failed_to_download", "failed_to_resize")}
    for field, number in found.items():
        if stats.get(field) != number:
            said = f"{field} is {number} by its rows, {stats.get(field)} by its _stats.json"
            yield Problem(path, said, todo)


def _check_foreign(folder: str, name: str, stats: dict[str, Any], tars: bool) -> Iterator[Problem]:
    """Checks a shard of img2dataset's, whose sha256 column is not of the bytes in the tar."""
    again, parquet = "make the shard again", final_path(folder, name, "parquet")
    try:
        table = storage.read_table(parquet)
    except StorageError as error:
        yield Problem(parquet, str(error).removeprefix(f"{parquet}: ").split(";")[0], again)
        return
    yield from _compare_counts(parquet, again, table, stats)
    if not tars or not {"key", "status"} <= set(table.column_names):
        return
    tar = final_path(folder, name, "tar")
    members, _, fault = _read_tar(tar)
    if fault:
        yield Problem(tar, fault, again)
    inside = {member.rpartition("/")[2].partition(".")[0] for member in members}
    rows = table.select(["key", "status"]).to_pylist()
    wanted = {str(row["key"]) for row in rows if row["status"] == "success"}
    missing = [f"sample {key} is not in the tar" for key in sorted(wanted - inside)]
    extra = [f"sample {key} has no successful row" for key in sorted(inside - wanted)]
    yield from _few(tar, again, iter(missing + extra))


def _few(path: str, todo: str, problems: Iterator[str]) -> Iterator[Problem]:
    found = list(problems)
    for what in found[:MOST_ROWS]:
        yield Problem(path, what, todo)
    if len(found) > MOST_ROWS:
        yield Problem(path, f"and {len(found) - MOST_ROWS:,} problems more of this kind", todo)


# --- tars -------------------------------------------------------------------------------------


class _HashingReader:
    """A file being read from front to back whose sha256 is known at the end."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.sha256.update(data)
        self.last = (self.last + data[-len(END_OF_TAR) :])[-len(END_OF_TAR) :]
        return data


def _read_tar(path: str) -> tuple[dict[str, Member], str, str | None]:
    """Members by name, the file's sha256, and what is wrong with the tar as a tar; in one pass."""
    members: dict[str, Member] = {}
    fault = None
    with storage.open_read(path) as file:
        reader = _HashingReader(file)
        try:
            with tarfile.open(fileobj=cast(IO[bytes], reader), mode="r|") as tar:
                for info in tar:
                    if info.name in members:
                        fault = fault or f"member {info.name!r} stands there twice"
                    members[info.name] = _read_member(tar, info)
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            fault = f"cannot be read as a tar after {len(members):,} members ({error})"
        while reader.read(CHUNK):
            pass
    if reader.last != END_OF_TAR:  # tarfile takes a tar that is cut at a header for a whole one
        fault = fault or "is cut off: it lacks the two empty blocks that end a tar"
    return members, reader.sha256.hexdigest(), fault


def _read_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    sha256 = hashlib.sha256()
    data = tar.extractfile(info)
    while data is not None and (chunk := data.read(CHUNK)):
        sha256.update(chunk)
    return Member(info.offset_data, info.size, sha256.hexdigest())


# --- the manifest -----------------------------------------------------------------------------


def _check_manifest(folder: str, path: str) -> Iterator[Problem]:
    if not storage.exists(path):
        return
    todo = "run the same command again, it writes the manifest last"
    try:
        manifest = storage.read_json(path)
    except StorageError:
        yield Problem(path, "is not a JSON object", todo)
        return
    try:
        built = build_manifest(folder)
    except StorageError as error:
        said = str(error).split(";")[0]
        yield Problem(path, f"cannot be compared with the shards ({said})", "mend the shard first")
        return
    listed = manifest.get("shards")
    if not isinstance(listed, list) or not all(isinstance(e, dict) for e in listed):
        yield Problem(path, "has no list of shards", todo)
        return
    said = {str(entry.get("name")): entry for entry in listed}
    real = {entry["name"]: entry for entry in built["shards"]}
    for name in sorted(said.keys() - real.keys()):
        yield Problem(path, f"lists shard {name}, which is not there", RESUME)
    for name in sorted(real.keys() - said.keys(), key=shard_order):
        yield Problem(path, f"does not list shard {name}", todo)
    for name in sorted(real.keys() & said.keys(), key=shard_order):
        wrong = [field for field in PER_SHARD if said[name].get(field) != real[name][field]]
        if wrong:
            yield Problem(path, f"shard {name}: {wrong[0]} is not what its stats say", todo)
    if manifest.get("totals") != built["totals"]:
        yield Problem(path, "its totals are not those of the shards", todo)
