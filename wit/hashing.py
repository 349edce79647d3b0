"""Stable hashes: 64-bit identities of strings, 128-bit pair ids, and seeded priorities.

`hash64` is XXH64 with seed 0 (the specification of xxHash 0.8), computed over Arrow's own buffers.
Nothing here depends on the machine, the process or Python's `hash`.
"""

import numpy as np
import pyarrow as pa
from numba import njit, types, uint64

from wit.kernel_types import I64, U8, U64, writable

PRIME_1 = np.uint64(0x9E3779B185EBCA87)
PRIME_2 = np.uint64(0xC2B2AE3D27D4EB4F)
PRIME_3 = np.uint64(0x165667B19E3779F9)
PRIME_4 = np.uint64(0x85EBCA77C2B2AE63)
PRIME_5 = np.uint64(0x27D4EB2F165667C5)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
SHARED_QUERY = np.uint64(0)  # stands for "any query" where all queries share one priority a pair


@njit("uint64(uint64, int64)", cache=True, inline="always")
def _rotate(value, bits):
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@njit(types.uint64(U8, types.int64, types.int64), cache=True, nogil=True)
def _read(data, start, count):
    value = np.uint64(0)
    for i in range(count):
        value |= np.uint64(data[start + i]) << np.uint64(8 * i)
    return value


@njit("uint64(uint64, uint64)", cache=True, inline="always")
def _round(state, lane):
    return _rotate(state + lane * PRIME_2, 31) * PRIME_1


@njit(types.uint64(U8, types.int64, types.int64), cache=True, nogil=True)
def xxh64(data, start, end):
    """XXH64 (seed 0) of data[start:end]."""
    length = end - start
    position = start
    if length >= 32:
        a, b, c, d = PRIME_1 + PRIME_2, PRIME_2, np.uint64(0), np.uint64(0) - PRIME_1
        while position + 32 <= end:
            a = _round(a, _read(data, position, 8))
            b = _round(b, _read(data, position + 8, 8))
            c = _round(c, _read(data, position + 16, 8))
            d = _round(d, _read(data, position + 24, 8))
            position += 32
        state = _rotate(a, 1) + _rotate(b, 7) + _rotate(c, 12) + _rotate(d, 18)
        for lane in (a, b, c, d):
            state = (state ^ _round(np.uint64(0), lane)) * PRIME_1 + PRIME_4
    else:
        state = PRIME_5
    state += np.uint64(length)
    while position + 8 <= end:
        state ^= _round(np.uint64(0), _read(data, position, 8))
        state = _rotate(state, 27) * PRIME_1 + PRIME_4
        position += 8
    if position + 4 <= end:
        state ^= _read(data, position, 4) * PRIME_1
        state = _rotate(state, 23) * PRIME_2 + PRIME_3
        position += 4
    while position < end:
        state ^= np.uint64(data[position]) * PRIME_5
        state = _rotate(state, 11) * PRIME_1
        position += 1
    state = (state ^ (state >> np.uint64(33))) * PRIME_2
    state = (state ^ (state >> np.uint64(29))) * PRIME_3
    return state ^ (state >> np.uint64(32))


@njit(writable(U64)(U8, I64), cache=True, nogil=True)
def _xxh64_all(data, offsets):
    hashes = np.empty(len(offsets) - 1, np.uint64)
    for i in range(len(hashes)):
        hashes[i] = xxh64(data, offsets[i], offsets[i + 1])
    return hashes


def hash64(strings: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Returns uint64 [n]: XXH64 of each string's UTF-8 bytes; a null hashes as the empty string."""
    if isinstance(strings, pa.ChunkedArray):
        parts = [hash64(chunk) for chunk in strings.chunks]
        return np.concatenate(parts) if parts else np.empty(0, np.uint64)
    strings = strings.cast(pa.large_binary())
    if len(strings) == 0:
        return np.empty(0, np.uint64)
    if strings.null_count:
        strings = strings.fill_null(b"")
    _, offsets, data = strings.buffers()
    offset = np.frombuffer(offsets, np.int64)[strings.offset : strings.offset + len(strings) + 1]
    empty = data is None or data.size == 0
    payload = np.zeros(1, np.uint8) if empty else np.frombuffer(data, np.uint8)
    return _xxh64_all(payload, offset)


def pair_ids(url_hash: np.ndarray, text_hash: np.ndarray) -> pa.Array:
    """Returns binary(16) [n]: both hashes, big-endian, so byte order is (URL, text) order."""
    packed = np.empty((len(url_hash), 2), ">u8")
    packed[:, 0], packed[:, 1] = url_hash, text_hash
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(url_hash), [None, pa.py_buffer(packed.tobytes())]
    )


def pair_hashes(ids: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the (URL, text) hashes, uint64 [n] each, that `pair_ids` packed."""
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    if len(ids) == 0:
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    raw = np.frombuffer(ids.buffers()[1], ">u8").reshape(-1, 2)[ids.offset : ids.offset + len(ids)]
    return raw[:, 0].astype(np.uint64), raw[:, 1].astype(np.uint64)


@njit([uint64(uint64)], cache=True, inline="always")
def mix(value):
    """Returns the finaliser of splitmix64 (Steele, Lea, Flood 2014): every bit depends on all."""
    value += GOLDEN
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit("uint64(uint64, uint64, uint64)", cache=True, inline="always")
def pair_key(seed, url_hash, text_hash):
    """Returns the seeded 64-bit key of a pair, from which its priorities follow."""
    return mix(mix(mix(seed) ^ url_hash) ^ text_hash)


@njit("uint64(uint64, uint64)", cache=True, inline="always")
def priority(key, query_hash):
    """Returns the place of a pair in a query's order, uniform over 64 bits; low comes first.

    With `query_hash` SHARED_QUERY the place is the same in every query's order.
    """
    return mix(key ^ mix(query_hash))


def slots_of(hashes: np.ndarray, slots: int) -> np.ndarray:
    """Returns int32 [n] in [0, slots), by the hash's top 32 bits, in the order of the hashes."""
    return (((hashes >> np.uint64(32)) * np.uint64(slots)) >> np.uint64(32)).astype(np.int32)
