"""Takes samples out of a dataset for good: out of its shards, and on a list that keeps them out.

    takedown.parquet       what is not to be here (wit.blocklist): all that was ever asked for, and
                           the pair_ids of the rows that were taken out
    takedown.jsonl         a line for each takedown: when, by what, why, how many, which shards
    takedown.pending.json  the line of a takedown that is under way

They stand in the output folder; of a folder that holds nothing but shards in `_takedown/`, which
those pass over who read every Parquet file of a folder.

The list is written first, so nothing comes back whenever this is killed. Then the pending line says
which shards hold something; each is rewritten (`wit.shard_rewrite`), then the manifest, then the
line is added to the log. A takedown that was killed is finished by the next one, and by a harvest
that resumes in the folder.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wit import storage
from wit.blocklist import (
    COLUMNS,
    KINDS,
    Blocklist,
    entry_bits,
    hex_bits,
    raw_bits,
    read_list,
    read_own,
    write_own,
)
from wit.blocklist_text import WANTED, parse_entry
from wit.errors import StorageError, UserError
from wit.manifest import FORMAT, MANIFEST, READERS, Progress, build_manifest, locate, no_progress
from wit.outcomes import OUTCOMES
from wit.shard_files import SHARD_FILE, final_path, shard_order, sweep
from wit.shard_rewrite import rewrite_shard, rows_to_go
from wit.shards_index import forget

LIST = "takedown.parquet"
LOG = "takedown.jsonl"
PENDING = "takedown.pending.json"
FLAT = "_takedown"
RUN = "run.json"  # of a harvest
# Of a harvest: pictures and captions; the shards' old hashes.
STALE = ("report.html", "croissant.json")


@dataclass(frozen=True)
class Place:
    """Where things stand.

    Attributes:
        home: the folder that a run owns, and its lock.
        shards: the folder of the shards.
        records: the folder of the list and the log.
        manifest: the path of the manifest, whether it is there or not.
    """

    home: str
    shards: str
    records: str
    manifest: str


@dataclass(frozen=True)
class Request:
    """What is to be taken down.

    Attributes:
        entries: all of it.
        criteria: the same for the log: values by kind, and `lists` with path, sha256 and entries.
    """

    entries: Blocklist
    criteria: dict[str, list[Any]]


@dataclass
class Found:
    """What a list means in a folder of shards.

    Attributes:
        shards: their names, of those with such rows, in order.
        rows: key, url, kind and whether there is a picture, of each such row.
        removed: their pairs, as entries.
    """

    shards: list[str] = field(default_factory=list)
    rows: list[pa.Table] = field(default_factory=list)
    removed: list[Blocklist] = field(default_factory=list)

    def counts(self) -> dict[str, Any]:
        """Returns samples, pictures (samples that had one) and samples `by` kind of entry."""
        by = Counter[str]()
        for rows in self.rows:
            by.update(rows["kind"].to_pylist())
        pictures = sum(pc.sum(rows["picture"]).as_py() or 0 for rows in self.rows)
        return {"samples": by.total(), "pictures": pictures, "by": dict(sorted(by.items()))}


def place_of(folder: str) -> Place:
    """Returns where things stand of an output folder or a folder of shards."""
    folder = folder.rstrip("/") or folder
    parent, name = storage.split(folder)
    if storage.exists(storage.join(folder, RUN)):
        home, shards = folder, storage.join(folder, "shards")
    elif name == "shards" and any(storage.exists(storage.join(parent, n)) for n in (RUN, MANIFEST)):
        home, shards = parent, folder
    else:
        home, shards = folder, locate(folder)[0]
        if not any(map(SHARD_FILE.fullmatch, storage.list_names(shards))):
            raise StorageError(f"{folder}: neither a harvest nor shards here; check the path")
    records = storage.join(home, FLAT) if home == shards else home
    return Place(home, shards, records, storage.join(home, MANIFEST))


def make_request(values: Mapping[str, Sequence[str]], lists: Sequence[str] = ()) -> Request:
    """Returns the request for values by kind (wit.blocklist) and for list files.

    Raises:
        UserError: for a value that is none of its kind, a list that cannot be read, or nothing.
    """
    criteria: dict[str, list[Any]] = {}
    parts = {}
    for kind in KINDS:
        found = [(text, parse_entry(kind, text)) for text in values.get(kind, ())]
        wrong = [text for text, value in found if value is None]
        if wrong:
            option = "pair-id" if kind == "pair" else kind
            raise UserError(f"--{option} {wrong[0]}: no {WANTED[kind]}")
        if found:
            criteria[kind] = sorted({value for _, value in found if value is not None})
            parts[kind] = entry_bits(kind, pa.array(criteria[kind], pa.string()))
    read = [(path, *read_list(path)) for path in lists]
    if read:
        criteria["lists"] = [
            {"path": path, "sha256": sha256, "entries": len(entries)}
            for path, entries, sha256 in read
        ]
    joined = Blocklist(parts).join(entries for _, entries, _ in read)
    if not len(joined):
        raise UserError("nothing to take down: name it by --url, --host, --sha256 or --list")
    return Request(joined, criteria)


def dry_run(folder: str, request: Request, *, progress: Progress = no_progress) -> Found:
    """Returns what `takedown` would take out of a folder; changes nothing."""
    return find(place_of(folder).shards, request.entries, request.entries, progress)


def takedown(
    folder: str,
    request: Request,
    *,
    reason: str | None = None,
    progress: Progress = no_progress,
    lock: bool = True,
) -> dict[str, Any]:
    """Takes out of a folder of shards what is asked for, and keeps it out; its line of the log.

    progress(done, total) counts shards, first those that are looked at, then those rewritten.
    Killed at any instant and repeated, it ends the same.

    Raises:
        FolderInUse: while a harvest works there.
        StorageError: for a damaged shard, or shards without a column that is needed.
    """
    place = place_of(folder)
    with storage.FolderLock(place.home) if lock else contextlib.nullcontext():
        sweep(place.shards)
        line = finish(place, progress)
        if line and (line["criteria"], line["reason"]) == (request.criteria, reason):
            return line
        known = read_own(storage.join(place.records, LIST)).join([request.entries])
        found = find(place.shards, known, request.entries, progress)
        write_own(storage.join(place.records, LIST), known.join(found.removed))
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = {"when": when, "criteria": request.criteria, "reason": reason}
        line |= found.counts() | {"shards": found.shards}
        storage.write_json(storage.join(place.records, PENDING), line)
        finish(place, progress)
        return line


def finish(place: Place, progress: Progress = no_progress) -> dict[str, Any] | None:
    """Carries out what is pending in a folder that is owned; its line, None where nothing is."""
    pending = storage.join(place.records, PENDING)
    try:
        line = storage.read_json(pending)
    except FileNotFoundError:
        return None
    listed = read_own(storage.join(place.records, LIST))
    for done, name in enumerate(line["shards"], start=1):
        rewrite_shard(place.shards, name, listed)
        progress(done, len(line["shards"]))
    refresh_manifest(place)
    forget(place.shards, line["shards"])
    if storage.exists(storage.join(place.home, RUN)):
        for name in STALE:
            storage.remove(storage.join(place.home, name))
    log, text = storage.join(place.records, LOG), json.dumps(line, ensure_ascii=False) + "\n"
    before = storage.read_bytes(log) if storage.exists(log) else b""
    if not before.endswith(text.encode()):
        storage.write_bytes(log, before + text.encode())
    storage.remove(pending)
    return line


def read_log(records: str) -> list[dict[str, Any]]:
    """Returns the lines of the log in a folder of records, the oldest first."""
    path = storage.join(records, LOG)
    try:
        return [json.loads(line) for line in storage.read_bytes(path).splitlines()]
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise StorageError(f"{path}: a line is not JSON ({error}); mend it by hand") from error


def refresh_manifest(place: Place) -> None:
    """Has the manifest, where there is one of ours, say what the shards are now."""
    try:
        manifest = storage.read_json(place.manifest)
    except FileNotFoundError:
        return
    if manifest.get("format") != FORMAT or "shards" not in manifest:
        return
    manifest |= build_manifest(place.shards)
    if isinstance(manifest.get("funnel"), dict):
        others = {k: n for k, n in manifest["funnel"].items() if k not in OUTCOMES}
        manifest["funnel"] = others | manifest["totals"]["outcomes"]
    storage.write_json(place.manifest, manifest)


# --- finding ----------------------------------------------------------------------------------


def find(folder: str, known: Blocklist, asked: Blocklist, progress: Progress) -> Found:
    """Returns the rows of a folder's shards that `known` means; `asked` must be findable there.

    Raises:
        StorageError: for a shard that lacks the columns by which a kind that is asked for is found.
    """
    names = [match[1] for match in map(SHARD_FILE.fullmatch, storage.list_names(folder)) if match]
    names = sorted(set(names), key=shard_order)
    found = Found()
    with ThreadPoolExecutor(READERS) as pool:
        rows = pool.map(partial(_find, folder, known, asked), names)
        for done, (name, (some, removed)) in enumerate(zip(names, rows, strict=True), start=1):
            if len(some):
                found.shards.append(name)
                found.rows.append(some)
                found.removed.append(removed)
            progress(done, len(names))
    return found


def _find(folder: str, known: Blocklist, asked: Blocklist, name: str) -> tuple[pa.Table, Blocklist]:
    path = final_path(folder, name, "parquet")
    wanted = {*known.columns(), "key", "url", "final_url", "pair_id", "status", "outcome"}
    table = _read(path, wanted)
    for kind in asked.counts():
        if not set(COLUMNS[kind]) & set(table.column_names):
            raise StorageError(
                f"{path}: no column {COLUMNS[kind][0]!r}, so nothing is found there by {kind}; "
                "name what is to go by its url or host"
            )
    kind = rows_to_go(known, table)
    rows = np.flatnonzero(kind.is_valid().to_numpy())
    table = table.append_column("kind", kind).take(pa.array(rows))
    picture = pc.equal(table["status"], "success") if "status" in table.column_names else True
    shown = {
        "key": table["key"].cast(pa.string()),
        "url": table["url"] if "url" in table.column_names else pa.nulls(len(table), pa.string()),
        "kind": table["kind"],
        "picture": pa.repeat(True, len(table)) if picture is True else picture,
    }
    return pa.table(shown), _pairs_of(table)


def _read(path: str, columns: set[str]) -> pa.Table:
    """Returns those columns that a shard's Parquet file has."""
    try:
        with storage.open_read(path) as file:
            present = pq.ParquetFile(file).schema_arrow.names
    except FileNotFoundError as error:
        raise StorageError(
            f"{path}: is missing; run the command that made the shards again, then this"
        ) from error
    except pa.ArrowException as error:
        said = " ".join(str(error).split())
        raise StorageError(f"{path}: not a readable Parquet file ({said})") from error
    return storage.read_table(path, [name for name in present if name in columns])


def _pairs_of(table: pa.Table) -> Blocklist:
    """Returns the pairs of a table's rows as entries: they stay out wherever they are found."""
    if "pair_id" not in table.column_names:
        return Blocklist()
    pairs = table["pair_id"].drop_null().combine_chunks()
    raw = pa.types.is_fixed_size_binary(pairs.type)
    return Blocklist({"pair": raw_bits(pairs) if raw else hex_bits(pairs)})


def shown_rows(found: Found, most: int) -> Iterator[dict[str, Any]]:
    """Yields key, url, kind and picture of the first rows, at most so many."""
    for rows in found.rows:
        yield from rows.slice(0, most).to_pylist()
        most -= min(most, len(rows))
