"""WebDataset + Parquet shards: write, commit, check, read.

`ShardWriter` takes what the fetcher brings, in any order, and leaves the same bytes for the same
samples: members in the order of their keys with fixed times and owners, Parquet with fixed options.
Times and attempts stand in `_stats.json` alone. The layout and the commit protocol are in
`wit.shard_files`, the manifest in `wit.manifest`, the checks in `wit.verify`; what other rooms need
of them is reached from here.
"""

import contextlib
import hashlib
import re
import secrets
import time
from typing import Any, BinaryIO, Protocol

import orjson
import pyarrow as pa

from wit import storage, tar_members
from wit.errors import StorageError
from wit.manifest import build_manifest as build_manifest
from wit.manifest import stats as stats
from wit.manifest import write_manifest as write_manifest
from wit.outcomes import OUTCOMES
from wit.pairs import SAMPLES
from wit.shard_files import (
    ATTEMPT,
    KEY_DIGITS,
    MOST_SAMPLES,
    PARTS,
    Hashed,
    attempt_path,
    counts_of,
    final_path,
    finish_name,
    shard_name,
    stats_path,
)
from wit.shard_files import Finish as Finish
from wit.shard_files import finish as finish
from wit.shard_files import is_done as is_done
from wit.shard_files import list_shards as list_shards
from wit.shard_files import read_image as read_image
from wit.shard_files import sample_key as sample_key
from wit.shard_files import sweep as sweep
from wit.verify import Problem as Problem
from wit.verify import verify as verify

EXTENSION = re.compile(r"[a-z0-9]{1,8}")
RESERVED_EXTENSIONS = {"txt", "json"}
BATCH = 512  # samples whose metadata are Python objects at a time
# Columns of `rows` that go into the table as they are; `url` and `text` (the caption) beside them.
CARRIED = (
    "pair_id",
    "page_url",
    "attribute",
    "language",
    "query_ids",
    "priority",
    "wave",
    "source",
    "row",
)
FETCHED = ("width", "height", "original_width", "original_height", "exif", "animated")
# What describes a stored picture, beside its sha256.
OF_STORED = ("width", "height", "exif", "phash", "image_ext", "image_size")
# Null in some samples, text in others.
STRINGS = ("page_url", "attribute", "language", "content_type", "final_url")


class FetchedLike(Protocol):
    """What `ShardWriter.add` reads of a fetched picture (pipeline's `Fetched` has more)."""

    index: int
    outcome: str
    message: str | None
    image: bytes | None
    extension: str
    width: int | None
    height: int | None
    original_width: int | None
    original_height: int | None
    content_type: str | None
    exif: str | None
    sha256: str | None
    phash: int | None
    animated: bool | None
    final_url: str | None


class ShardWriter:
    """One attempt at one shard: `add` each row's result in any order, then `commit`.

    rows: url, text, pair_id, page_url, attribute, language, query_ids, priority, wave, source, row,
    preset (an outcome that is already decided, then the row is not added; else null); other columns
    are ignored. At most 10,000 rows; row i becomes sample i. Images wait in a nameless file on the
    folder's disk, so memory does not grow with them. `attempt` says who tries (letters, digits,
    - and _); a random suffix makes it unique.
    """

    def __init__(
        self, folder: str, shard_id: int, rows: pa.Table, *, attempt: str, digits: int = 5
    ) -> None:
        self.name = shard_name(shard_id, digits)
        if rows.num_rows > MOST_SAMPLES:
            raise ValueError(
                f"shard {self.name}: {rows.num_rows:,} rows; at most {MOST_SAMPLES:,} fit into the "
                f"{KEY_DIGITS} digits of a key"
            )
        missing = {"url", "text", "preset", *CARRIED} - set(rows.column_names)
        if missing:
            raise ValueError(f"shard {self.name}: rows lack the column {sorted(missing)[0]!r}")
        self.folder = folder
        self.attempt = f"{attempt}-{secrets.token_hex(4)}"
        if not ATTEMPT.fullmatch(self.attempt):
            raise ValueError(f"attempt {attempt!r}: only letters, digits, - and _ are allowed")
        self.rows = rows
        self.presets: list[str | None] = rows["preset"].to_pylist()
        for outcome in {preset for preset in self.presets if preset is not None}:
            _check_outcome(self.name, outcome)
        self.results: list[dict[str, Any] | None] = [None] * rows.num_rows
        self.start = time.time()
        self._spool: BinaryIO = storage.spool(folder)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def discard(self) -> None:
        """Gives up what was added; nothing of it stays on the disk."""
        with contextlib.suppress(OSError):  # a full disk speaks again at closing
            self._spool.close()

    def add(self, fetched: FetchedLike) -> None:
        """Takes the result of row `fetched.index`; each row once, rows with a preset never."""
        index, outcome = fetched.index, fetched.outcome
        where = f"shard {self.name}, row {index}"
        if not 0 <= index < len(self.results):
            raise ValueError(f"{where}: the shard has {len(self.results)} rows")
        if self.presets[index] is not None:
            raise ValueError(f"{where}: its outcome was decided before: {self.presets[index]}")
        if self.results[index] is not None:
            raise ValueError(f"{where}: was added before")
        _check_outcome(where, outcome)
        result: dict[str, Any] = {name: getattr(fetched, name) for name in FETCHED}
        result |= {
            "outcome": outcome,
            "error_message": None if outcome == "success" else fetched.message or outcome,
            "content_type": fetched.content_type,
            "final_url": fetched.final_url,
        }
        if outcome == "success":
            result |= self._keep_image(where, fetched)
        self.results[index] = result

    def _keep_image(self, where: str, fetched: FetchedLike) -> dict[str, Any]:
        image, extension = fetched.image, fetched.extension
        if not image:
            raise ValueError(f"{where}: success without an image")
        if not EXTENSION.fullmatch(extension) or extension in RESERVED_EXTENSIONS:
            raise ValueError(f"{where}: {extension!r} is no extension of an image")
        sha256 = hashlib.sha256(image).hexdigest()
        if fetched.sha256 is not None and fetched.sha256 != sha256:
            raise ValueError(f"{where}: sha256 {fetched.sha256} is not the image's ({sha256})")
        with storage.explained(self.folder):
            start = self._spool.seek(0, 2)
            self._spool.write(image)
        return {
            "sha256": sha256,
            "phash": fetched.phash,
            "image_ext": extension,
            "image_size": len(image),
            "spooled_at": start,
        }

    def sha256(self) -> pa.Array:
        """Returns string [rows]: that of each picture added so far, null where there is none."""
        return pa.array([result and result.get("sha256") for result in self.results], pa.string())

    def leave_out(self, index: int, outcome: str) -> None:
        """Has a row that was added with a picture end without it; the sha256 stays, to be known by.

        The tar is then written as if the picture had never come.
        """
        result, where = self.results[index], f"shard {self.name}, row {index}"
        _check_outcome(where, outcome)
        if result is None or result.pop("spooled_at", None) is None:
            raise ValueError(f"{where}: there is no picture to leave out")
        for name in OF_STORED:
            result[name] = None
        result |= {"outcome": outcome, "error_message": outcome}

    def commit(self, stats: dict[str, Any]) -> bool:
        """Writes the attempt's files and commits them; False if another attempt was first.

        stats: more for `_stats.json` (duration, start_time, end_time). Either way the shard is
        done afterwards: a winner that was killed before its renames is rolled forward.
        """
        absent = [i for i, r in enumerate(self.results) if r is None and self.presets[i] is None]
        if absent:
            raise ValueError(
                f"shard {self.name}: {len(absent)} rows were not added, the first is {absent[0]}"
            )
        try:
            return self._commit(stats)
        finally:
            self.discard()

    def _commit(self, stats: dict[str, Any]) -> bool:
        if finish_name(self.folder, self.name).state in ("done", "rolled_forward"):
            return False
        paths = {part: attempt_path(self.folder, self.name, self.attempt, part) for part in PARTS}
        try:
            stats = self._write(paths, stats)
            path = stats_path(self.folder, self.name)
            won = storage.write_new(path, storage.to_json(stats)) or self._is_winner()
        except BaseException:
            if not self._is_winner():
                self._remove(paths)
            raise
        if not won:
            self._remove(paths)
        if finish_name(self.folder, self.name).state in ("damaged", "absent"):
            raise StorageError(
                f"{final_path(self.folder, self.name, 'tar')}: changed while the shard was "
                "committed; look for another program that writes there, then run again"
            )
        return won

    def _is_winner(self) -> bool:
        # A store may carry out a put and lose the answer: what stands there decides. Where it
        # cannot be read, the files stay for `sweep`.
        try:
            path = stats_path(self.folder, self.name)
            return storage.read_json(path).get("attempt") == self.attempt
        except FileNotFoundError:
            return False
        except (OSError, StorageError):
            return True

    def _remove(self, paths: dict[str, str]) -> None:
        for path in paths.values():
            with contextlib.suppress(OSError, StorageError):
                storage.remove(path)

    def _write(self, paths: dict[str, str], stats: dict[str, Any]) -> dict[str, Any]:
        """Writes the attempt's tar and parquet; what `_stats.json` is to say."""
        table = self._table()
        with storage.open_write(paths["tar"]) as file:
            tar = Hashed(file)
            offsets = self._write_tar(table, tar)
        place = table.schema.get_field_index("image_offset")
        table = table.set_column(place, SAMPLES.field(place), pa.array(offsets, pa.int64()))
        with storage.open_write(paths["parquet"]) as file:
            parquet = Hashed(file)
            storage.write_parquet(table, parquet)
        end = time.time()
        times = {"start_time": self.start, "end_time": end, "duration": end - self.start}
        counts = counts_of(table) | {"attempt": self.attempt}
        files = {
            part: written.entry(self.name, part)
            for part, written in (("tar", tar), ("parquet", parquet))
        }
        return times | stats | counts | files

    def _table(self) -> pa.Table:
        """The shard's table, image_offset still null."""
        results = [
            result or {"outcome": preset, "error_message": preset}
            for result, preset in zip(self.results, self.presets, strict=True)
        ]
        columns: dict[str, Any] = {
            "url": self.rows["url"],
            "caption": self.rows["text"],
            "key": [f"{self.name}{index:0{KEY_DIGITS}d}" for index in range(len(results))],
            "status": [OUTCOMES[result["outcome"]][0] for result in results],
        }
        columns |= {name: self.rows[name] for name in CARRIED}
        arrays = []
        for field in SAMPLES:
            values = columns.get(field.name)
            if values is None:
                values = [result.get(field.name) for result in results]
            if isinstance(values, list):
                arrays.append(pa.array(values, field.type))
            else:
                arrays.append(values.cast(field.type))
        return pa.Table.from_arrays(arrays, schema=SAMPLES)

    def _write_tar(self, table: pa.Table, file: Hashed) -> list[int | None]:
        """Writes the successes in the order of their keys; each row's image offset, else None."""
        offsets: list[int | None] = []
        metadata = table.drop_columns(["image_offset", "image_size"])
        for start in range(0, table.num_rows, BATCH):
            for meta in metadata.slice(start, BATCH).to_pylist():
                result = self.results[len(offsets)]
                if result is None or meta["status"] != "success":
                    offsets.append(None)
                    continue
                offsets.append(file.size + tar_members.BLOCK)
                key, caption = meta["key"], (meta["caption"] or "").encode("utf-8")
                file.write(
                    tar_members.member(f"{key}.{meta['image_ext']}", self._image(result))
                    + tar_members.member(f"{key}.txt", caption)
                    + tar_members.member(f"{key}.json", _json_member(meta))
                )
        file.write(tar_members.end(file.size))
        return offsets

    def _image(self, result: dict[str, Any]) -> bytes:
        size = result["image_size"]
        self._spool.seek(result["spooled_at"])
        image = self._spool.read(size)
        if len(image) != size:
            raise OSError(f"shard {self.name}: the pictures' spool is shorter than what was added")
        return image


def _json_member(meta: dict[str, Any]) -> bytes:
    """A sample's metadata as compact JSON with sorted keys.

    Ids and hashes are hex strings. Columns that are null in some samples only are "" (exif: "{}")
    here, since Hugging Face's reader takes a column's type from the first samples.
    """
    meta["pair_id"] = None if meta["pair_id"] is None else meta["pair_id"].hex()
    for name in ("priority", "phash"):
        meta[name] = None if meta[name] is None else f"{meta[name]:016x}"
    meta["exif"] = meta["exif"] or "{}"
    for name in STRINGS:
        meta[name] = meta[name] or ""
    return orjson.dumps(meta, option=orjson.OPT_SORT_KEYS)


def _check_outcome(where: str, outcome: str) -> None:
    if outcome not in OUTCOMES:
        raise ValueError(f"{where}: unknown outcome {outcome!r}; wit/outcomes.py lists them")
