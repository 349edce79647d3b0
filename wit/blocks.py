"""Packed blocks: fixed-width records grouped by slot in one file, read by ranges of slots.

This is what the stages shuffle: a writer sorts its records by slot (a range of hashes, a query, a
source), and a reader takes its slots out of every writer's file with two ranged reads. Unlike a
runner's shuffle it is durable, needs no memory, and is the same on a laptop and on a cluster.

A file is MAGIC, uint32 length of a JSON header (dtype, rows, slots), the header, slots + 1 uint64
offsets in rows, then the records, little-endian and packed.
"""

import json
from collections.abc import Iterable

import numpy as np

from wit import storage
from wit.errors import StorageError

MAGIC = b"WITBLK01"


def write(path: str, records: np.ndarray, slot: np.ndarray, slots: int) -> None:
    """Writes structured records [n]; slot int [n] in [0, slots) must not decrease."""
    counts = np.bincount(slot, minlength=slots) if len(slot) else np.zeros(slots, np.int64)
    if len(counts) > slots or (len(slot) > 1 and np.any(slot[1:] < slot[:-1])):
        raise ValueError(f"{path}: slots must ascend within [0, {slots})")
    offsets = np.zeros(slots + 1, "<u8")
    np.cumsum(counts, out=offsets[1:])
    header = json.dumps({"dtype": records.dtype.descr, "rows": len(records), "slots": slots})
    text = header.encode()
    text += b" " * (-(len(MAGIC) + 4 + len(text)) % 8)  # so that the offsets are aligned
    with storage.open_write(path) as file:
        file.write(MAGIC + len(text).to_bytes(4, "little") + text)
        file.write(offsets.tobytes())
        file.write(np.ascontiguousarray(records).tobytes())


def read(path: str, first: int = 0, last: int | None = None) -> np.ndarray:
    """Returns the structured records of the slots [first, last), all from `first` on by default."""
    with storage.open_read(path) as file:
        start = file.read(len(MAGIC) + 4)
        if start[: len(MAGIC)] != MAGIC:
            raise StorageError(
                f"{path}: not a packed block file; remove it and run the same command again"
            )
        header_bytes = int.from_bytes(start[len(MAGIC) :], "little")
        header = json.loads(file.read(header_bytes))
        dtype = np.dtype([tuple(field) for field in header["dtype"]])
        slots = header["slots"]
        last = slots if last is None else last
        table = len(MAGIC) + 4 + header_bytes
        file.seek(table + 8 * first)
        offsets = np.frombuffer(file.read(8 * (last - first + 1)), "<u8")
        begin, end = int(offsets[0]), int(offsets[-1])
        file.seek(table + 8 * (slots + 1) + begin * dtype.itemsize)
        data = file.read((end - begin) * dtype.itemsize)
    if len(data) != (end - begin) * dtype.itemsize:
        raise StorageError(f"{path}: cut short; remove it and run the same command again")
    return np.frombuffer(data, dtype)


def gather(paths: Iterable[str], dtype: np.dtype, first: int, last: int) -> np.ndarray:
    """Returns the records of the slots [first, last) of many files, in the order of the paths."""
    parts = [read(path, first, last) for path in paths]
    return np.concatenate(parts) if parts else np.empty(0, dtype)
