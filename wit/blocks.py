"""Packed blocks: fixed-width records grouped by slot in one file, read by ranges of slots.

This is what the stages shuffle: a writer sorts its records by slot (a range of hashes, a query, a
source), and a reader takes its slots out of every writer's file with two ranged reads. Unlike a
runner's shuffle it is durable, needs no memory, and is the same on a laptop and on a cluster.

A file is MAGIC, uint32 length of a JSON header (dtype, rows, slots), the header, slots + 1 uint64
offsets in rows, then the records, little-endian and packed.
"""

import json

import numpy as np

from wit import storage
from wit.errors import StorageError

MAGIC = b"WITBLK01"
HEAD = 36 * 1024  # bytes that hold the header and the offsets of 4,096 slots, and small files whole
CHUNK = 2**18  # records written at a time


def write(
    path: str, records: np.ndarray, slot: np.ndarray, slots: int, order: np.ndarray | None = None
) -> None:
    """Writes structured records [n]; slot int [n] in [0, slots) must not decrease.

    `order` (int64 [n]), where given, is that in which the records are written and their slots
    ascend: they need not be copied to be sorted.
    """
    counts = np.bincount(slot, minlength=slots) if len(slot) else np.zeros(slots, np.int64)
    if len(counts) > slots or not _ascends(slot, order):
        raise ValueError(f"{path}: slots must ascend within [0, {slots})")
    offsets = np.zeros(slots + 1, "<u8")
    np.cumsum(counts, out=offsets[1:])
    header = json.dumps({"dtype": records.dtype.descr, "rows": len(records), "slots": slots})
    text = header.encode()
    text += b" " * (-(len(MAGIC) + 4 + len(text)) % 8)  # so that the offsets are aligned
    with storage.open_write(path) as file:
        file.write(MAGIC + len(text).to_bytes(4, "little") + text)
        file.write(offsets.tobytes())
        for start in range(0, len(records), CHUNK):
            part = slice(start, start + CHUNK)
            file.write(records[part if order is None else order[part]].tobytes())


def _ascends(slot: np.ndarray, order: np.ndarray | None) -> bool:
    for start in range(0, len(slot), CHUNK):
        part = slice(start, start + CHUNK + 1)  # each chunk sees the first of the next
        ordered = slot[part if order is None else order[part]]
        if np.any(ordered[1:] < ordered[:-1]):
            return False
    return True


def read(path: str, first: int = 0, last: int | None = None) -> np.ndarray:
    """Returns the structured records of the slots [first, last), all from `first` on by default.

    Slots beyond those that the file has are empty.
    """
    # Two ranged reads, one where the file is small: an opened remote file would read megabytes
    # ahead of each.
    head = storage.read_bytes(path, 0, HEAD)
    if head[: len(MAGIC)] != MAGIC:
        raise StorageError(
            f"{path}: not a packed block file; remove it and run the same command again"
        )
    table = len(MAGIC) + 4 + int.from_bytes(head[len(MAGIC) : len(MAGIC) + 4], "little")
    if table > len(head):
        head = storage.read_bytes(path, 0, table)
    header = json.loads(head[len(MAGIC) + 4 : table])
    dtype = np.dtype([tuple(field) for field in header["dtype"]])
    slots = header["slots"]
    last = slots if last is None else min(last, slots)
    first = min(first, last)
    places = _part(path, head, table + 8 * first, table + 8 * (last + 1))
    offsets = np.frombuffer(places, "<u8")
    begin = table + 8 * (slots + 1) + int(offsets[0]) * dtype.itemsize
    end = begin + int(offsets[-1] - offsets[0]) * dtype.itemsize
    return np.frombuffer(_part(path, head, begin, end), dtype)


def _part(path: str, head: bytes, begin: int, end: int) -> bytes:
    """Returns bytes [begin, end) of a file of which `head` is known."""
    known = end <= len(head) or begin == end
    part = head[begin:end] if known else storage.read_bytes(path, begin, end)
    if len(part) != end - begin:
        raise StorageError(f"{path}: cut short; remove it and run the same command again")
    return part
