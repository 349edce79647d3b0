"""What is not to be in a dataset: URLs, hosts, pictures and pairs, and which rows of a table are.

An entry is a kind and a value:

    url        a picture's address, in WHATWG form without its fragment; http and https alike
    host       the pictures of a host name and of all names below it, on any port
    page-host  the same of the page on which a picture was found, as far as a row names it
    sha256     a picture's bytes, by the column `sha256`: in shards of ours as they are stored,
               in img2dataset's as they were fetched
    pair       one URL with one text, by its pair_id; the URL with another text is not meant

Only 128 bits of an entry are kept, 16 bytes whatever its length. So nothing listed is ever missed;
that one row of 10 billion falls together with one of 10 million entries has a chance of 10**-22.
A list in such a form does not tell whom it protects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wit import storage
from wit.blocklist_text import KINDS, HashingReader, hostname_of, normal_urls, read_lines
from wit.errors import StorageError
from wit.hashing import hash64, pair_hashes, pair_ids
from wit.pairs import BLOCKLIST

# The columns of a table that say whether an entry means a row.
COLUMNS = {
    "url": ("url", "final_url"),
    "host": ("url", "final_url"),
    "page-host": ("page_url",),
    "sha256": ("sha256",),
    "pair": ("pair_id",),
}
BITS = np.dtype([("high", "<u8"), ("low", "<u8")])
PARQUET = b"PAR1"
CHUNK = 1 << 20
SECOND = b"\x01"  # before a string for its second 64 bits


@dataclass(frozen=True)
class Index:
    """Distinct 128-bit values in ascending order.

    Attributes:
        high, low: uint64 [n], the first 64 bits and the last.
        longest: how many values at most share their first 64 bits.
    """

    high: np.ndarray
    low: np.ndarray
    longest: int

    def __len__(self) -> int:
        return len(self.high)

    @classmethod
    def of(cls, bits: np.ndarray) -> Index:
        """Makes it of BITS [n] in any order, also repeated."""
        high, low = (np.ascontiguousarray(bits[name]) for name in ("high", "low"))
        if np.any(high[1:] <= high[:-1]):
            order = np.lexsort((low, high))
            high, low = high[order], low[order]
            new = np.append(True, (high[1:] != high[:-1]) | (low[1:] != low[:-1]))
            high, low = high[new], low[new]
        first = high[1:] != high[:-1]
        if first.all():
            return cls(high, low, min(1, len(high)))
        ends = np.flatnonzero(np.append(first, True))
        return cls(high, low, int(np.diff(ends, prepend=-1).max()))

    def has(self, bits: np.ndarray) -> np.ndarray:
        """Returns bool [n]: which of BITS [n] are among the values."""
        found = np.zeros(len(bits), bool)
        place = np.searchsorted(self.high, bits["high"])
        for step in range(self.longest):
            at = np.minimum(place + step, len(self) - 1)
            found |= (self.high[at] == bits["high"]) & (self.low[at] == bits["low"])
        return found


class Blocklist:
    """Entries by kind; `find` says which rows of a table they mean."""

    def __init__(self, entries: Mapping[str, np.ndarray] = {}) -> None:
        """`entries`: BITS [n] by kind."""
        unknown = entries.keys() - set(KINDS)
        if unknown:
            raise ValueError(f"no kind {sorted(unknown)[0]!r}; there are {', '.join(KINDS)}")
        self._indexes = {k: Index.of(entries[k]) for k in KINDS if len(entries.get(k, ()))}

    def __len__(self) -> int:
        return sum(len(index) for index in self._indexes.values())

    def counts(self) -> dict[str, int]:
        """Returns how many entries each kind has, of those that have any."""
        return {kind: len(index) for kind, index in self._indexes.items()}

    def join(self, others: Iterable[Blocklist]) -> Blocklist:
        """Returns the entries of this and of other lists."""
        lists = [self, *others]
        return Blocklist({k: np.concatenate([other.bits(k) for other in lists]) for k in KINDS})

    def bits(self, kind: str) -> np.ndarray:
        """Returns BITS [n], the entries of a kind."""
        index = self._indexes.get(kind)
        bits = np.empty(len(index) if index else 0, BITS)
        if index:
            bits["high"], bits["low"] = index.high, index.low
        return bits

    def columns(self) -> list[str]:
        """Returns the columns that `find` looks at, where a table has them."""
        return sorted({column for kind in self._indexes for column in COLUMNS[kind]})

    def find(self, table: pa.Table) -> pa.ChunkedArray:
        """Returns string [n]: the first of KINDS that means a row, null for the rest.

        URLs that are not in normal form are brought into it first. Columns that are absent and
        values that are null are met by no entry.
        """
        found = np.full(len(table), -1, np.int8)
        for number in reversed(range(len(KINDS))):
            kind = KINDS[number]
            for column in COLUMNS[kind] if kind in self._indexes else ():
                if column in table.column_names:
                    found[self._find(kind, table[column])] = number
        codes = pa.array(found, mask=found < 0)
        names = pa.DictionaryArray.from_arrays(codes, pa.array(KINDS)).cast(pa.string())
        return pa.chunked_array([names])

    def _find(self, kind: str, column: pa.ChunkedArray) -> np.ndarray:
        index, valid = self._indexes[kind], np.flatnonzero(column.is_valid().to_numpy())
        values = column.take(pa.array(valid))
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        if kind in ("host", "page-host"):
            return valid[self._find_hosts(index, values)]
        if kind == "url":
            return valid[index.has(url_bits(normal_urls(values)))]
        raw = pa.types.is_fixed_size_binary(values.type)
        return valid[index.has(raw_bits(values) if raw else hex_bits(values))]

    def _find_hosts(self, index: Index, urls: pa.Array) -> np.ndarray:
        """Returns bool [n]: whether a URL's host or a name above it is listed."""
        hosts = hostname_of(normal_urls(urls)).dictionary_encode()
        names = hosts.dictionary
        found, left = np.zeros(len(names), bool), np.arange(len(names))
        while len(left):
            found[left] |= index.has(string_bits(names))
            below = pc.match_substring(names, ".").to_numpy(zero_copy_only=False)
            names = pc.replace_substring_regex(names.filter(pa.array(below)), r"^[^.]*\.", "")
            left = left[below]
        return found[hosts.indices.to_numpy()]

    def to_table(self) -> pa.Table:
        """Returns the entries as BLOCKLIST, in the order of kinds and bits."""
        parts = [
            pa.table(
                [pa.repeat(kind, len(index)), pair_ids(index.high, index.low)], schema=BLOCKLIST
            )
            for kind, index in self._indexes.items()
        ]
        return pa.concat_tables(parts) if parts else BLOCKLIST.empty_table()


def read_list(path: str) -> tuple[Blocklist, str]:
    """Reads a list, text (`wit.blocklist_text`, also in gzip) or a Parquet file of ours.

    Returns it with the sha256 of the file in hexadecimal.

    Raises:
        UserError: naming the file, and of a text the line.
    """
    with storage.open_read(path) as file:
        if file.read(len(PARQUET)) == PARQUET:
            file.seek(0)
            return read_own(path), hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        hashed = HashingReader(file)
        parts: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
        for kind, values in read_lines(path, hashed):
            parts[kind].append(entry_bits(kind, values))
        while hashed.read(CHUNK):
            pass
    joined = {kind: np.concatenate(found) for kind, found in parts.items() if found}
    return Blocklist(joined), hashed.sha256.hexdigest()


def read_own(path: str) -> Blocklist:
    """Reads what `write_own` wrote; no entries where the file is absent.

    Raises:
        StorageError: for a Parquet file that is no blocklist of ours.
    """
    parts: dict[str, list[np.ndarray]] = {}
    try:
        with storage.open_read(path) as file:
            parquet = pq.ParquetFile(file)
            missing = set(BLOCKLIST.names) - set(parquet.schema_arrow.names)
            if missing:
                raise ValueError(f"no column {min(missing)!r}")
            for batch in parquet.iter_batches(columns=BLOCKLIST.names):
                kinds = batch["kind"].dictionary_encode()
                code, bits = kinds.indices.to_numpy(), raw_bits(batch["value"])
                for number, kind in enumerate(kinds.dictionary.to_pylist()):
                    parts.setdefault(kind, []).append(bits[code == number])
        return Blocklist({kind: np.concatenate(found) for kind, found in parts.items()})
    except FileNotFoundError:
        return Blocklist()
    except (ValueError, pa.ArrowException) as error:
        said = " ".join(str(error).split())
        raise StorageError(
            f"{path}: no blocklist of this program ({said}); write one as a text file with a "
            "`url https://...` or `host example.org` a line"
        ) from error


def write_own(path: str, blocklist: Blocklist) -> None:
    """Writes a list as Parquet (BLOCKLIST): equal entries give equal bytes."""
    storage.write_table(path, blocklist.to_table())


# --- 128 bits of a value ----------------------------------------------------------------------


def entry_bits(kind: str, values: pa.Array) -> np.ndarray:
    """Returns BITS [n] of values in normal form: strings; sha256 and pair in hexadecimal."""
    if kind == "url":
        return url_bits(values)
    return hex_bits(values) if kind in ("sha256", "pair") else string_bits(values)


def string_bits(strings: pa.Array) -> np.ndarray:
    """Returns BITS [n]: XXH64 of each string, and of a byte and the string."""
    strings = strings.cast(pa.large_binary())
    prefix = pa.scalar(SECOND, pa.large_binary())
    bits = np.empty(len(strings), BITS)
    bits["high"] = hash64(strings)
    empty = pa.scalar(b"", pa.large_binary())
    bits["low"] = hash64(pc.binary_join_element_wise(prefix, strings, empty))
    return bits


def url_bits(urls: pa.Array) -> np.ndarray:
    """Returns BITS [n] of URLs in normal form; http and https are one."""
    plain = pc.starts_with(urls, "http:")
    if pc.any(plain).as_py():
        secure = pc.replace_substring_regex(urls.filter(plain), "^http:", "https:")
        urls = pc.replace_with_mask(urls, plain, secure)
    return string_bits(urls)


def hex_bits(digits: pa.Array) -> np.ndarray:
    """Returns BITS [n] of the first 32 hexadecimal digits of each string, which has no fewer.

    Anything else is hashed as it is, so that it equals nothing that is listed.
    """
    digits = digits.cast(pa.string())
    good = pc.match_substring_regex(digits, "^(?:[0-9a-fA-F]{32}|[0-9a-fA-F]{64})$")
    good = good.to_numpy(zero_copy_only=False)
    bits = string_bits(digits)
    texts = pc.utf8_slice_codeunits(digits.filter(pa.array(good)), 0, 32)
    raw = pa.py_buffer(bytes.fromhex("".join(texts.to_pylist())))
    bits[good] = raw_bits(
        pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(texts), [None, raw])
    )
    return bits


def raw_bits(values: pa.Array) -> np.ndarray:
    """Returns BITS [n] of binary(16)."""
    bits = np.empty(len(values), BITS)
    bits["high"], bits["low"] = pair_hashes(values)
    return bits
