"""`wit shards index`: what is in others' WebDataset shards, so that they can be trained on.

Each tar is read once from front to back. Beside the tars stand then `index.json`, in the shape of a
harvest's manifest, and for each tar `index/NAME.parquet` with a row for each sample that has a
picture and a text: key, caption, image_ext, image_offset, image_size. `caption` is a list of texts
in a shard of which any sample has several. Nothing in them depends on when or in how many attempts
they were written; a tar that was read already is not read again.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wit import storage
from wit.errors import StorageError
from wit.manifest import FORMAT, MANIFEST, Progress, no_progress
from wit.tar_reader import BrokenTar, TarReader

INDEX, TABLES = "index.json", "index"
TABLE = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("image_ext", pa.string()),
        pa.field("image_offset", pa.int64()),  # bytes into the tar, of the picture itself
        pa.field("image_size", pa.int64()),  # bytes
    ]
)
PICTURES = {"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"}
MEMBER = re.compile(r"((?:.*/)?[^/.]+)\.([^/]*)")  # webdataset's rule: up to the name's first dot
MOST_TEXT = 1 << 20  # bytes of a .txt or .json
FACTS = b"webimagetext"
READERS = 4  # tars at a time: reading a store waits, hashing runs beside it


def index_shards(folder: str, progress: Progress = no_progress) -> dict[str, Any]:
    """Writes the index of a folder's tars and returns what `index.json` says.

    Raises:
        StorageError: for a folder without tars or with a manifest of its own, a tar that is cut off
            or is none, a key that comes twice in a tar.
    """
    if storage.exists(storage.join(folder, MANIFEST)):
        raise StorageError(f"{folder}: has a {MANIFEST}, which is trained on as it is")
    tars = [
        name
        for name in storage.list_names(folder)
        if name.endswith(".tar") and not name.startswith(".")
    ]
    if not tars:
        raise StorageError(f"{folder}: no shards here (no *.tar); check the path")
    entries = []
    with ThreadPoolExecutor(READERS) as pool:
        made = pool.map(lambda tar: _shard(folder, tar), tars)
        try:
            for done, entry in enumerate(made, start=1):
                entries.append(entry)
                progress(done, len(tars))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    left_out: Counter[str] = Counter()
    for entry in entries:
        left_out.update(entry["left_out"])
    totals = {"shards": len(entries), "successes": sum(entry["successes"] for entry in entries)}
    totals["tar_bytes"] = sum(entry["tar"]["size"] for entry in entries)
    index = {"format": FORMAT, "folder": ".", "shards": entries}
    index |= {"totals": totals | {"left_out": dict(left_out)}}
    storage.write_json(storage.join(folder, INDEX), index)
    return index


def _shard(folder: str, tar: str) -> dict[str, Any]:
    name = tar.removesuffix(".tar")
    path, table_name = storage.join(folder, tar), f"{TABLES}/{name}.parquet"
    table_path = storage.join(folder, table_name)
    facts = _facts(path, table_path)
    if facts is None:
        facts, rows = _read_tar(path)
        table = _table(rows).replace_schema_metadata({FACTS: json.dumps(facts, sort_keys=True)})
        storage.write_table(table_path, table)
    data = storage.read_bytes(table_path)
    parquet = {"name": table_name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return {
        "name": name,
        "successes": facts["samples"],
        "left_out": facts["left_out"],
        "tar": {"name": tar, "size": facts["size"], "sha256": facts["sha256"]},
        "parquet": parquet,
    }


def _facts(path: str, table_path: str) -> dict[str, Any] | None:
    """What an earlier attempt found in a tar, None if it has to be read (again)."""
    size = storage.size(table_path)
    if size is None or _is_newer(path, table_path):
        return None
    try:
        with storage.open_read(table_path) as file:
            facts = json.loads(pq.read_schema(file).metadata[FACTS])
        return facts if facts["size"] == storage.size(path) else None
    except (pa.ArrowException, ValueError, KeyError, TypeError):
        return None


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    """The rows of `_read_tar` as TABLE; its captions are lists where one sample has several."""
    schema, captions = TABLE, [row["caption"] for row in rows]
    if any(len(texts) > 1 for texts in captions):
        column = TABLE.get_field_index("caption")
        schema = TABLE.set(column, pa.field("caption", pa.list_(pa.string())))
    else:
        captions = [texts[0] for texts in captions]
    rows = [row | {"caption": caption} for row, caption in zip(rows, captions, strict=True)]
    return pa.Table.from_pylist(rows, schema)


def _is_newer(path: str, table_path: str) -> bool:
    if not storage.is_local(path):
        return False
    return os.stat(path).st_mtime_ns > os.stat(table_path).st_mtime_ns


# --- one tar ----------------------------------------------------------------------------------


def _read_tar(path: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is known of a tar, and a row for each of its samples in the order of the tar."""
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    keys: set[str] = set()
    with storage.open_read(path) as file:
        reader = TarReader(file)
        try:
            for key, sample in _samples(reader):
                if key in keys:
                    raise StorageError(
                        f"{path}: key {key!r} comes twice; mend or remove this tar, then index "
                        "again"
                    )
                keys.add(key)
                texts = sample.pop("texts", [])
                if "image_ext" not in sample:
                    left_out["no picture"] += 1
                elif not texts:
                    left_out["no text"] += 1
                else:
                    rows.append(sample | {"key": key, "caption": texts})
        except BrokenTar as error:
            whole = f"the last whole sample is {rows[-1]['key']!r}" if rows else "it has no sample"
            raise StorageError(
                f"{path}: {error}; {whole}; get the tar again or remove it, then index again"
            ) from error
        reader.skip_to_end()
    facts = {"size": reader.size, "sha256": reader.sha256.hexdigest(), "samples": len(rows)}
    return facts | {"left_out": dict(left_out)}, rows


def forget(folder: str, shards: Sequence[str]) -> None:
    """Removes what an index says of shards that have changed; `index_shards` makes it again."""
    for name in shards:
        storage.remove(storage.join(folder, TABLES, f"{name}.parquet"))
    storage.remove(storage.join(folder, INDEX))


def _samples(reader: TarReader) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, what its members say) of each run of members with one key."""
    key, sample = None, {}
    for name, size in reader.members():
        match = MEMBER.fullmatch(name)
        if not match:
            continue
        if match[1] != key:
            if key is not None:
                yield key, sample
            key, sample = match[1], {}
        _add_member(reader, size, match[2], sample)
    if key is not None:
        yield key, sample


def _add_member(reader: TarReader, size: int, ext: str, sample: dict[str, Any]) -> None:
    kind = ext.lower()
    if kind in PICTURES and "image_ext" not in sample:
        sample |= {"image_ext": ext, "image_offset": reader.size, "image_size": size}
    elif kind == "txt" and size <= MOST_TEXT:
        text = reader.read_exactly(size).decode("utf-8", "replace")
        if len(sample.get("texts", [])) < 2:
            sample["texts"] = [text] if text.strip() else []
    elif kind == "json" and size <= MOST_TEXT:
        texts = _captions(reader.read_exactly(size))
        if len(texts) > 1 or "texts" not in sample:
            sample["texts"] = texts


def _captions(data: bytes) -> list[str]:
    """What is not blank of `captions` or `caption` (whichever has more) in a JSON member."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return []
    if not isinstance(value, dict):
        return []
    found: list[list[str]] = []
    for given in (value.get("captions"), value.get("caption")):
        texts = given if isinstance(given, list) else [given]
        found.append([text for text in texts if isinstance(text, str) and text.strip()])
    return max(found, key=len)
