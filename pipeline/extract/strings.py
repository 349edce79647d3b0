"""Arrow strings looked at, cut out and replaced without a Python object for each."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit, types

from wit.kernel_types import I64, U8, writable


def buffers_of(strings: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The bytes (uint8 [m]) and the offsets (int64 [n + 1]) of string [n] without nulls."""
    strings = strings.cast(pa.large_string())
    _, offsets, data = strings.buffers()
    if offsets is None or data is None or not data.size:
        return np.zeros(1, np.uint8), np.zeros(len(strings) + 1, np.int64)
    places = np.frombuffer(offsets, np.int64)[strings.offset : strings.offset + len(strings) + 1]
    return np.frombuffer(data, np.uint8), places


@njit(types.void(U8, I64, I64, writable(U8)), cache=True, nogil=True)
def _copy(data, begin, end, out):
    at = 0
    for i in range(len(begin)):
        for place in range(begin[i], end[i]):
            out[at] = data[place]
            at += 1


def cut_out(data: np.ndarray, begin: np.ndarray, end: np.ndarray) -> pa.Array:
    """Returns string [n]: data[begin[i]:end[i]] of uint8 [m]; what is not UTF-8 becomes U+FFFD."""
    offsets = np.zeros(len(begin) + 1, np.int64)
    np.cumsum(end - begin, out=offsets[1:])
    out = np.empty(max(1, offsets[-1]), np.uint8)
    _copy(data, begin.astype(np.int64), end.astype(np.int64), out)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(out)]
    cut = pa.Array.from_buffers(pa.large_binary(), len(begin), buffers).cast(pa.binary())
    try:
        return cut.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([text.decode("utf-8", "replace") for text in cut.to_pylist()], pa.string())


def replace_at(strings: pa.Array, rows: np.ndarray, values: list[str | None]) -> pa.Array:
    """The strings with those at `rows` (ascending) replaced."""
    if not len(rows):
        return strings
    mask = np.zeros(len(strings), bool)
    mask[rows] = True
    return pc.replace_with_mask(strings, pa.array(mask), pa.array(values, strings.type))


def tidy(text: str) -> str:
    """The text with each run of white space (str.split's) as one space, none at the ends."""
    return " ".join(text.split())


def tidy_all(texts: pa.Array) -> pa.Array:
    """`tidy` of string [n] without nulls."""
    rows = np.flatnonzero(_is_untidy(*buffers_of(texts)))
    return replace_at(texts, rows, [tidy(text) for text in texts.take(pa.array(rows)).to_pylist()])


@njit(writable(types.Array(types.boolean, 1, "C"))(U8, I64), cache=True, nogil=True)
def _is_untidy(data, offsets):
    """Returns bool [n]: white space at an end, two in a row, or any but the plain space."""
    untidy = np.zeros(len(offsets) - 1, np.bool_)
    for i in range(len(untidy)):
        before = 32
        for at in range(offsets[i], offsets[i + 1]):
            byte = data[at]
            if byte <= 32:
                if byte != 32 or before == 32:
                    untidy[i] = byte >= 28 or 9 <= byte <= 13
            elif byte == 0xC2:  # U+0085, U+00A0
                untidy[i] = data[at + 1] == 0x85 or data[at + 1] == 0xA0
            elif 0xE1 <= byte <= 0xE3:
                second, third = data[at + 1], data[at + 2]
                if byte == 0xE1:  # U+1680
                    untidy[i] = second == 0x9A and third == 0x80
                elif byte == 0xE3:  # U+3000
                    untidy[i] = second == 0x80 and third == 0x80
                elif second == 0x80:  # U+2000 to U+200A, U+2028, U+2029, U+202F
                    untidy[i] = third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF
                else:  # U+205F
                    untidy[i] = second == 0x81 and third == 0x9F
            if untidy[i]:
                break
            before = byte
        if before == 32 and offsets[i + 1] > offsets[i]:
            untidy[i] = True
    return untidy
