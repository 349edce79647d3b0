"""Which queries a batch of texts includes.

Mode `default` compares normal forms (`wit.text`): a query matches where its tokens stand in the
text's tokens in one piece. Mode `metaclip` gives MetaCLIP's matches exactly (Xu et al. 2024,
`substr_matching.py`): the text gets a space before and behind, each of `, . ; : ? ! `` ` `` becomes
that mark between two spaces, tab and line ends become spaces, case stays; a query matches where it
stands between two spaces. Cut at single spaces, empty pieces kept, that too is a run of tokens.

Queries are told by their position in the list they were built from.
"""

import functools
import hashlib
import itertools
import json
import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from wit import kernels_loader, storage, text
from wit.errors import UserError

MODES = ("default", "metaclip")
MARKS = b",.;:?!`"
BLANKS = b"\t\n\r "
MAGIC = b"WITMATCH"
PREFIX = len(MAGIC) + 16 + 4  # bytes before the header
FORMAT = 1
FILL = 0.33  # share of the table's entries in use: more is smaller and slower
BLOCK = 1024  # tokens looked up together: their hashes and entries stay in the second-level cache
PIECE = 1 << 22  # bytes of text normalised at a time in default mode


@functools.cache
def _byte_classes(mode: str) -> np.ndarray:
    classes = np.zeros(256, np.uint8)
    classes[32] = 1
    if mode == "metaclip":
        classes[list(BLANKS)] = 1
        classes[list(MARKS)] = 2
    return classes


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise UserError(f"no match mode {mode!r}; choose one of: {', '.join(MODES)}")


def unmatchable(queries: pa.Array | pa.ChunkedArray, mode: str = "default") -> pa.Table:
    """The queries that no text can match: columns index (int64, ascending) and reason (string)."""
    _check_mode(mode)
    array = text.plain_array(queries)
    return _unmatchable(array, text.spaced(array) if mode == "default" else array, mode)


def _unmatchable(queries: pa.Array, forms: pa.Array, mode: str) -> pa.Table:
    reasons = pa.nulls(len(queries), pa.string())

    def because(found: pa.Array, reason: str) -> None:
        nonlocal reasons
        reasons = pc.if_else(pc.fill_null(found, False), reason, reasons)

    if mode == "default":
        because(pc.equal(forms, ""), "nothing but separators")
    else:
        # A mark in a text is always a token by itself, with a space on either side of its own.
        mark = "[,.;:?!`]"
        because(
            pc.match_substring_regex(forms, f"(?:^| ){mark} {mark}(?: |$)"),
            "two punctuation marks in a row",
        )
        because(
            pc.match_substring_regex(forms, f"[^ ]{mark}|{mark}[^ ]"),
            "a punctuation mark that touches a letter or another mark",
        )
        because(pc.match_substring_regex(forms, "[\t\n\r]"), "a tab or a line end")
    because(queries.is_null(), "null")
    rows = np.flatnonzero(reasons.is_valid().to_numpy(zero_copy_only=False))
    return pa.table({"index": pa.array(rows, pa.int64()), "reason": reasons.take(rows)})


@dataclass(frozen=True)
class Matcher:
    """A built list of queries; immutable, so threads may share it and processes map one file."""

    mode: str
    queries: int  # how many were in the list, unmatchable ones included
    fingerprint: str  # of the list: a hash of the queries in their order
    longest: int  # tokens of the longest query
    table: np.ndarray  # uint64 [2 * capacity]: `wit.kernels_match`

    @staticmethod
    def build(queries: pa.Array | pa.ChunkedArray, mode: str = "default") -> "Matcher":
        """Builds a matcher; unmatchable queries keep their position and never match.

        Two queries that would match the same texts are a UserError that names both.
        """
        _check_mode(mode)
        array = text.plain_array(queries)
        forms = text.spaced(array) if mode == "default" else array
        source = text.Buffers.of(text.plain_array(forms))
        usable = source.valid.copy()  # uint8 [n]
        usable[_unmatchable(array, forms, mode)["index"].to_numpy()] = 0
        kernels = kernels_loader.load("wit.kernels_match")
        used = source.data[source.offsets[0] : source.offsets[-1]]
        upper = np.count_nonzero(used == 32) + len(array)  # entries, were no prefix shared
        capacity = 2 * upper + 16
        wide = np.zeros(2 * capacity, np.uint64)
        facts = np.zeros(3, np.int64)
        repeated = kernels["insert_queries"](
            source.data, source.offsets, usable, len(array), wide, capacity, facts
        )
        if repeated >= 0:
            first, form = int(facts[2]), forms[repeated].as_py()
            raise UserError(
                f"queries {first} ({array[first].as_py()!r}) and {repeated} "
                f"({array[repeated].as_py()!r}) are the same in mode {mode} ({form!r}); keep one"
            )
        table = np.zeros(2 * max(16, int(facts[0] / FILL)), np.uint64)
        kernels["move_entries"](wide, capacity, table, len(table) // 2)
        return Matcher(mode, len(array), _fingerprint(array), int(facts[1]), table)

    def match(self, texts: pa.Array | pa.ChunkedArray) -> pa.ListArray:
        """list<int32> [n]: for each text the sorted distinct positions of the queries in it.

        A null text matches nothing. Strings of any Arrow type; invalid UTF-8 is a UserError.
        """
        array = text.plain_array(texts)
        if self.mode == "metaclip":
            return self._match(array)
        parts = [self._match(text.plain_array(text.spaced(piece))) for piece in _pieces(array)]
        return pa.concat_arrays(parts)

    def _match(self, array: pa.LargeStringArray) -> pa.ListArray:
        kernel = kernels_loader.load("wit.kernels_match")["match_rows"]
        count = len(array)
        source = text.Buffers.of(array)
        room = max(BLOCK, 4 * self.longest)
        scratch = [
            np.empty(room, np.uint64), np.empty(room, np.int32), np.empty(room, np.uint64),
            np.empty(room, np.int32), np.empty(2 * room, np.uint64),
        ]  # fmt: skip
        found = np.empty(4 * room, np.uint64)
        ids = np.empty(16 * count + 1024, np.int32)
        offsets = np.zeros(count + 1, np.int64)
        done = 0
        while True:
            done = kernel(
                source.data, source.offsets, source.valid, _byte_classes(self.mode), done, count,
                self.table, len(self.table) // 2, self.longest, *scratch, room,
                found, len(found), ids, len(ids), offsets,
            )  # fmt: skip
            if done == count:
                break
            grown = np.empty(2 * len(ids), np.int32)
            grown[: offsets[done]] = ids[: offsets[done]]
            ids, found = grown, np.empty(2 * len(found), np.uint64)
        total = int(offsets[-1])
        if total >= 2**31:
            raise ValueError(f"{total} matches in one call: pass fewer texts at a time")
        values = pa.Array.from_buffers(pa.int32(), total, [None, pa.py_buffer(ids[:total])])
        ends = pa.py_buffer(offsets.astype(np.int32))
        return pa.Array.from_buffers(pa.list_(pa.int32()), count, [None, ends], children=[values])

    # --- files ----------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Writes one file: magic, digest of the rest, length of a JSON header, header, table."""
        header = {
            "format": FORMAT,
            "mode": self.mode,
            "normalisation": text.VERSION,
            "queries": self.queries,
            "fingerprint": self.fingerprint,
            "longest": self.longest,
        }
        packed = json.dumps(header, sort_keys=True).encode()
        packed += b" " * (-(PREFIX + len(packed)) % 64)  # so that the table is aligned
        rest = len(packed).to_bytes(4, "little") + packed + self.table.astype("<u8").tobytes()
        with storage.open_write(str(path)) as file:
            file.write(MAGIC + xxhash.xxh3_128_digest(rest) + rest)

    @staticmethod
    def load(path: str | Path) -> "Matcher":
        """Reads what `save` wrote; a local file is mapped, so processes share its memory."""
        path = str(path)
        again = "remove it and build it again from the query list"
        try:
            data = memoryview(_contents(path))
        except FileNotFoundError:
            raise UserError(f"{path}: no such matcher; build it from the query list") from None
        if data[: len(MAGIC)] != MAGIC:
            raise UserError(f"{path}: not a matcher; {again}")
        if xxhash.xxh3_128_digest(data[PREFIX - 4 :]) != data[len(MAGIC) : PREFIX - 4]:
            raise UserError(f"{path}: cut short or changed; {again}")
        start = PREFIX + int.from_bytes(data[PREFIX - 4 : PREFIX], "little")
        header = json.loads(bytes(data[PREFIX:start]))
        if header["format"] != FORMAT:
            raise UserError(f"{path}: matcher of format {header['format']}, not {FORMAT}; {again}")
        if header["mode"] == "default" and header["normalisation"] != text.VERSION:
            raise UserError(
                f"{path}: built with normalisation {header['normalisation']}, this is "
                f"{text.VERSION}; {again}"
            )
        return Matcher(
            header["mode"],
            header["queries"],
            header["fingerprint"],
            header["longest"],
            np.frombuffer(data[start:], "<u8"),
        )


def _contents(path: str) -> bytes | mmap.mmap:
    if not storage.is_local(path):
        return storage.read_bytes(path)
    with storage.open_read(path) as file:
        if storage.size(path) == 0:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _fingerprint(queries: pa.LargeStringArray) -> str:
    source = text.Buffers.of(queries)
    digest = hashlib.sha256(np.ascontiguousarray(source.offsets - source.offsets[0]))
    digest.update(source.data[source.offsets[0] : source.offsets[-1]])
    return digest.hexdigest()[:32]


def _pieces(array: pa.LargeStringArray) -> list[pa.LargeStringArray]:
    offsets = text.Buffers.of(array).offsets
    starts = [0]
    while starts[-1] < len(array):
        last = int(np.searchsorted(offsets, offsets[starts[-1]] + PIECE, "right")) - 1
        starts.append(min(len(array), max(starts[-1] + 1, last)))
    if len(array) == 0:
        return [array]
    return [array[a:b] for a, b in itertools.pairwise(starts)]
