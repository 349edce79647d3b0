"""Strings cut out of a buffer by their places, as an Arrow array, without a Python object each."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit, types

from wit.kernel_types import I64, U8, writable


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
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(out)]
    cut = pa.Array.from_buffers(pa.binary(), len(begin), buffers)
    try:
        return cut.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([text.decode("utf-8", "replace") for text in cut.to_pylist()], pa.string())


def replace_at(strings: pa.Array, rows: np.ndarray, values: list[str]) -> pa.Array:
    """The strings with those at `rows` (ascending) replaced."""
    if not len(rows):
        return strings
    mask = np.zeros(len(strings), bool)
    mask[rows] = True
    return pc.replace_with_mask(strings, pa.array(mask), pa.array(values, strings.type))
