"""Samples by (shard, number): picture, texts, key, from tars that are here or far away.

A sample is read from its shard's tar where that is on this machine, else from the store by a range,
as far as a twentieth of an epoch's bytes goes (so a run starts and resumes at once), then after
bringing the shard. The 512 bytes before a picture, its header in the tar, are read with it: they
name the sample, so a tar that is not what the table says gives broken samples, never others.
"""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from trainer.cache import Cache
from trainer.store import read_ranges
from wit.tar_members import BLOCK, MOST_NAME

RANGED_SHARE = 1 / 20  # of an epoch's bytes, read by ranges of shards that are to be brought


class Sample(NamedTuple):
    """A picture's bytes as they are stored, its texts, its key; broken: image None and why."""

    image: bytes | None
    texts: list[str]
    key: str
    fault: str | None = None


class Reader:
    """Reads samples; may be used by many threads. `ranged` counts bytes read by ranges."""

    def __init__(self, cache: Cache, share: float = 1.0) -> None:
        """share: of the samples of an epoch that this process reads, for the budget of ranges."""
        self.cache, self.index = cache, cache.index
        self.ranged = 0
        self._budget = self.index.total_bytes * share * RANGED_SHARE
        self._guard = threading.Lock()

    def read(self, shards: np.ndarray, samples: np.ndarray) -> list[Sample]:
        """The samples (int [n] each), in the order asked.

        A tar that is missing or cut off, a picture that is not where the table says, and a sample
        without a text are broken samples. Raises a UserError for a table that cannot be read or is
        not the manifest's, and for a store that does not answer.
        """
        found: list[Sample | None] = [None] * len(shards)
        ranged: list[_Wanted] = []
        along = np.argsort(shards, kind="stable")
        cuts = np.flatnonzero(np.diff(shards[along])) + 1
        for group in np.split(along, cuts) if len(along) else []:
            shard = int(shards[group[0]])
            wanted = self._wanted(shard, samples[group], group)
            for item in wanted:
                if item.fault:
                    found[item.place] = item.broken(item.fault)
            wanted = [item for item in wanted if not item.fault]
            tar = self._tar(shard, sum(item.end - item.start for item in wanted))
            if tar is None:
                ranged += wanted
                continue
            for item, data in zip(wanted, _read_local(tar, wanted), strict=True):
                found[item.place] = item.sample(data)
        for item, data in zip(ranged, self._read_ranged(ranged), strict=True):
            found[item.place] = item.sample(data)
        return [sample for sample in found if sample is not None]

    def _wanted(self, shard: int, samples: np.ndarray, places: np.ndarray) -> list["_Wanted"]:
        path, tar_bytes = self.index.tar(shard), int(self.index.tar_bytes[shard])
        columns = self.cache.table(shard).columns
        return [
            _Wanted(path, tar_bytes, place, *(column[sample].as_py() for column in columns))
            for place, sample in zip(places.tolist(), samples.tolist(), strict=True)
        ]

    def _tar(self, shard: int, size: int) -> str | None:
        """The local path of a shard's tar, None if these bytes of it are to be read by ranges."""
        tar = self.cache.tar(shard)
        if tar is not None:
            return tar
        with self._guard:
            affordable = self.ranged + size <= self._budget
            if affordable:
                self.ranged += size
        if affordable:
            return None
        tar = self.cache.fetch(shard)
        if tar is None:
            with self._guard:
                self.ranged += size
        return tar

    def _read_ranged(self, wanted: list["_Wanted"]) -> list[bytes | None]:
        data: list[bytes | None] = [None] * len(wanted)
        stores: dict[str, list[int]] = {}
        for i, item in enumerate(wanted):
            stores.setdefault(item.path.partition("://")[0], []).append(i)
        for members in stores.values():
            items = [wanted[i] for i in members]
            ranges = [(item.start, item.end) for item in items]
            parts = read_ranges([item.path for item in items], ranges)
            for i, part in zip(members, parts, strict=True):
                data[i] = part
        return data


class _Wanted:
    """One sample that is to be read: where it stands, and what it must be."""

    def __init__(
        self,
        path: str,
        tar_bytes: int,
        place: int,
        key: str,
        texts: list[str],
        ext: str,
        offset: int,
        size: int,
    ) -> None:
        self.path, self.place, self.key, self.texts = path, place, key, texts
        self.member = f"{key}.{ext}".encode()
        self.start, self.end = offset - BLOCK, offset + size
        self.fault: str | None = None
        if not texts:
            self.fault = "has no text"
        elif offset < BLOCK or size < 1 or self.end > tar_bytes:
            self.fault = f"has no picture in the tar ({size:,} bytes at {offset:,})"

    def broken(self, why: str) -> Sample:
        return Sample(None, self.texts, self.key, f"{self.path}: sample {self.key} {why}")

    def sample(self, data: bytes | None) -> Sample:
        """Of the bytes from the member's header to the picture's end."""
        if data is None:
            return self.broken("cannot be read: the tar is missing")
        if len(data) < self.end - self.start:
            return self.broken("cannot be read: the tar is cut off")
        # A longer name stands elsewhere (PAX, GNU), and nothing that is as sure in its place.
        if len(self.member) <= MOST_NAME and not _names(data[:BLOCK], self.member):
            return self.broken("is not where the table says: the tar is another, or damaged")
        return Sample(data[BLOCK:], self.texts, self.key)


def _names(header: bytes, member: bytes) -> bool:
    """Whether a tar header is a member's; folders may stand in USTAR's field for a prefix."""
    name = header[:MOST_NAME].rstrip(b"\0")
    return name == member or member.endswith(b"/" + name)


def _read_local(path: str, wanted: Sequence[_Wanted]) -> list[bytes | None]:
    try:
        with open(path, "rb", buffering=0) as file:
            return [_read_at(file, item.start, item.end - item.start) for item in wanted]
    except FileNotFoundError:
        return [None] * len(wanted)


def _read_at(file: Any, start: int, size: int) -> bytes:
    file.seek(start)
    data = file.read(size)
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data
