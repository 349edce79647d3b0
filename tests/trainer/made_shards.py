"""Shards made for a test: a harvest's layout with its manifest, or others' without."""

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trainer.cache import Cache
from trainer.index import Index, read_index
from wit import tar_members

HEAD = b"\xff\xd8\xff\xe0"  # of a JPEG


def picture(key: str, size: int) -> bytes:
    """Bytes that belong to a key."""
    return HEAD + random.Random(key).randbytes(size - len(HEAD))


def write_shard(
    folder: Path,
    name: str,
    count: int,
    size: int = 900,
    texts: list[Any] | None = None,
    pictures: Sequence[bytes] | None = None,
) -> dict[str, Any]:
    """A shard of so many pictures, with a failed row between each two; its manifest's entry."""
    tar, rows = b"", []
    for number in range(count):
        key = f"{name}{2 * number:04d}"
        data = pictures[number] if pictures else picture(key, size + number % 7)
        caption = texts[number] if texts else f"picture {key}"
        place = {"image_offset": len(tar) + tar_members.BLOCK, "image_size": len(data)}
        tar += tar_members.member(f"{key}.jpg", data)
        tar += tar_members.member(f"{key}.txt", str(caption).encode())
        tar += tar_members.member(f"{key}.json", json.dumps({"key": key}).encode())
        rows.append(
            {"key": key, "caption": caption, "status": "success", "image_ext": "jpg"} | place
        )
        failed = {"key": f"{name}{2 * number + 1:04d}", "caption": caption}
        rows.append(failed | {"status": "failed_to_download"})
    tar += tar_members.end(len(tar))
    columns = {
        "key": pa.string(),
        "caption": pa.list_(pa.string()) if texts and isinstance(texts[0], list) else pa.string(),
        "status": pa.string(),
        "image_ext": pa.string(),
        "image_offset": pa.int64(),
        "image_size": pa.int64(),
    }
    (folder / f"{name}.tar").write_bytes(tar)
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(columns)), folder / f"{name}.parquet")
    entry: dict[str, Any] = {"name": name, "count": 2 * count, "successes": count}
    for part in ("tar", "parquet"):
        data = (folder / f"{name}.{part}").read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        entry[part] = {"name": f"{name}.{part}", "size": len(data), "sha256": sha256}
    return entry


def write_folder(folder: Path, counts: Sequence[int], size: int = 900) -> Path:
    """A harvest's output folder with a shard of each number of samples; returned."""
    shards = folder / "shards"
    shards.mkdir(parents=True)
    entries = [write_shard(shards, f"{i:05d}", count, size) for i, count in enumerate(counts)]
    manifest = {"format": 1, "folder": "shards", "shards": entries}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def open_cache(folder: Path | str, cache: Path, limit: int = 1 << 30) -> Cache:
    """A cache of the shards of one source."""
    return Cache(read_index([str(folder)]), str(cache), limit)


def everything(index: Index) -> tuple[np.ndarray, np.ndarray]:
    """(shard, number) of every sample."""
    counts = index.samples
    return np.repeat(np.arange(len(counts)), counts), np.concatenate([np.arange(c) for c in counts])
