"""Rows found by the hash of their URL: two ranged reads of each group's keys, no scan.

A group of which the keys are not written yet is looked through by its candidates' pair_ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import dedupe
from pipeline.explain.files import Files
from pipeline.run import Run, read_many
from pipeline.unique import URL_SLOTS
from wit import blocks, storage
from wit.errors import UserError
from wit.hashing import hash64, pair_hashes, pair_ids, slots_of

FOUND = np.dtype([("source", "<i4"), ("row", "<u4"), ("text", "<u8")])


@dataclass(frozen=True)
class Place:
    """A candidate: where it stands, and the 64-bit hashes of its URL and text."""

    source: int
    row: int
    url: int
    text: int

    @property
    def pair_id(self) -> str:
        """32 hexadecimal digits."""
        return f"{self.url:016x}{self.text:016x}"


@dataclass(frozen=True)
class Rows:
    """All candidates of one URL.

    Attributes:
        url: its hash.
        found: FOUND [n], in the order of (source, row).
        unread: sources that are not extracted yet, of which nothing is known.
    """

    url: int
    found: np.ndarray
    unread: int

    def firsts(self) -> list[Place]:
        """Returns the first row of each text, in the order of their hashes: the row that is judged.

        Of equal pairs the lowest (source, row) survives.
        """
        _, first = np.unique(self.found["text"], return_index=True)
        return [self._place(row) for row in self.found[first]]

    def again(self, first: Place) -> list[Place]:
        """Returns the other rows of a text: duplicates of its first."""
        return [self._place(row) for row in self.found[self.found["text"] == first.text][1:]]

    def _place(self, row: np.void) -> Place:
        return Place(int(row["source"]), int(row["row"]), self.url, int(row["text"]))


def hash_of(text: str) -> int:
    """Returns the 64-bit hash of a string."""
    return int(hash64(pa.array([text], pa.string()))[0])


def find_url(files: Files, url: int) -> Rows:
    """Returns the candidates with a URL, given by its hash.

    Raises:
        UserError: where the candidates of a finished run have been deleted.
    """
    run = files.run
    if candidates_are_gone(files):
        raise UserError(
            f"{run.path('candidates')}: deleted, so only what became a sample is still known: name "
            "its 9-digit key (column `key` of shards/*.parquet)"
        )
    slot = int(slots_of(np.array([url], np.uint64), URL_SLOTS)[0])
    present = set(storage.list_names(run.path("unique")))
    indexed = storage.exists(run.path("candidates", "index.npy"))
    parts, keyed, plain = [np.empty(0, FOUND)], [], []
    for group in range(len(run.groups)):
        paths = dedupe.key_files(run, group) if indexed else [""]
        if storage.split(paths[-1])[1] in present:
            keyed += [(group, path) for path in paths]
        else:
            plain.append(group)
    read = read_many((path for _, path in keyed), partial(blocks.read, first=slot, last=slot + 1))
    for done, ((group, _), keys) in enumerate(zip(keyed, read, strict=True), start=1):
        mine = keys[keys["url"] == np.uint64(url)]
        if len(mine):
            parts.append(_placed(run, group, mine))
        files.progress("key files", done, len(keyed))
    sources = [source for group in plain for source in run.groups[group]]
    unread = 0
    for done, source in enumerate(sources, start=1):
        if storage.exists(run.candidates(source, ".json")):
            parts.append(_scan(run, source, url))
        else:
            unread += 1
        files.progress("candidates, whose keys are not written yet", done, len(sources))
    found = np.concatenate(parts)
    return Rows(url, found[np.lexsort((found["row"], found["source"]))], unread)


def _placed(run: Run, group: int, keys: np.ndarray) -> np.ndarray:
    """Returns FOUND of the KEY records of a group."""
    first = dedupe.first_rows(run, group)
    rows = keys["row"].astype(np.int64)
    place = np.searchsorted(first, rows, "right") - 1  # an empty source begins where the next does
    found = np.empty(len(keys), FOUND)
    found["source"], found["row"] = place + run.groups[group].start, rows - first[place]
    found["text"] = keys["text"]
    return found


def _scan(run: Run, source: int, url: int) -> np.ndarray:
    """Returns FOUND of a source's candidates with a URL."""
    parts, start = [np.empty(0, FOUND)], 0
    with storage.open_read(run.candidates(source, ".parquet")) as file:
        parquet = pq.ParquetFile(file)
        for i in range(parquet.num_row_groups):
            urls, texts = pair_hashes(parquet.read_row_group(i, columns=["pair_id"])["pair_id"])
            rows = np.flatnonzero(urls == np.uint64(url))
            part = np.empty(len(rows), FOUND)
            part["source"], part["row"], part["text"] = source, rows + start, texts[rows]
            parts.append(part)
            start += len(urls)
    return np.concatenate(parts)


def candidates_are_gone(files: Files) -> bool:
    """Whether someone has deleted candidates/, as may be done after a takedown."""
    run = files.run
    shards = storage.list_names(run.path("shards"))
    return bool(shards) and not storage.list_names(run.path("candidates"))


def group_of(run: Run, source: int) -> int:
    """Returns the group of a source."""
    return next(number for number, group in enumerate(run.groups) if source in group)


def verdict_of(files: Files, place: Place) -> int | None:
    """Returns the verdict of `pipeline.unique` on a row; None before its group is counted."""
    run = files.run
    group = group_of(run, place.source)
    path = run.verdicts(group)
    if not storage.exists(path):
        return None
    row = int(dedupe.first_rows(run, group)[place.source - run.groups[group].start]) + place.row
    return storage.read_bytes(path, row, row + 1)[0]


def candidate(files: Files, place: Place) -> dict[str, Any]:
    """Returns the row of candidates/ (CANDIDATES).

    Raises:
        FileNotFoundError: where the file has been deleted.
    """
    path = files.run.candidates(place.source, ".parquet")
    row = files.row(path, place.row)
    if row is None:
        raise FileNotFoundError(path)
    return row


def pair_of(place: Place) -> pa.Array:
    """Returns binary(16) [1]: the pair_id of a place."""
    return pair_ids(np.array([place.url], np.uint64), np.array([place.text], np.uint64))
