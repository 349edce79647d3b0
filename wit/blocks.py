"""Packed blocks: fixed-width records grouped by slot in one file, read by ranges of slots.

This is what the stages shuffle: a writer sorts its records by slot (a range of hashes, a query, a
source), and a reader takes its slots out of every writer's file with three ranged reads. Unlike a
runner's shuffle it is durable, needs no memory, and is the same on a laptop and on a cluster.

A file is MAGIC, uint32 length of a JSON header (dtype, rows, slots), the header, slots + 1 uint64
offsets in rows, then the records, little-endian and packed.
"""

import json

import numpy as np

from wit import storage
from wit.errors import StorageError

MAGIC = b"WITBLK01"
HEAD = 512  # bytes that hold the header of most files


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
    return _read(path, first, last)[0]


def read_each(path: str, first: int, last: int) -> list[np.ndarray]:
    """Returns the structured records of each of the slots [first, last)."""
    records, offsets = _read(path, first, last)
    starts = (offsets[:-1] - offsets[0]).astype(np.int64)
    return np.split(records, starts)[1:]


def _read(path: str, first: int, last: int | None) -> tuple[np.ndarray, np.ndarray]:
    # Three ranged reads: an opened remote file would read megabytes ahead of each.
    head = storage.read_bytes(path, 0, HEAD)
    if head[: len(MAGIC)] != MAGIC:
        raise StorageError(
            f"{path}: not a packed block file; remove it and run the same command again"
        )
    table = len(MAGIC) + 4 + int.from_bytes(head[len(MAGIC) : len(MAGIC) + 4], "little")
    if table > HEAD:
        head = storage.read_bytes(path, 0, table)
    header = json.loads(head[len(MAGIC) + 4 : table])
    dtype = np.dtype([tuple(field) for field in header["dtype"]])
    slots = header["slots"]
    last = slots if last is None else last
    places = storage.read_bytes(path, table + 8 * first, table + 8 * (last + 1))
    offsets = np.frombuffer(places, "<u8")
    begin = table + 8 * (slots + 1) + int(offsets[0]) * dtype.itemsize
    end = begin + int(offsets[-1] - offsets[0]) * dtype.itemsize
    data = storage.read_bytes(path, begin, end)
    if len(data) != end - begin:
        raise StorageError(f"{path}: cut short; remove it and run the same command again")
    return np.frombuffer(data, dtype), offsets
