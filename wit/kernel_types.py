"""Numba's types of the arrays that kernels take: contiguous, and read-only unless said.

Arrow's buffers are read-only, and a kernel compiled for a writable array refuses them; one that is
compiled for a read-only array takes both.
"""

from numba import types

U8 = types.Array(types.uint8, 1, "C", readonly=True)
I32 = types.Array(types.int32, 1, "C", readonly=True)
I64 = types.Array(types.int64, 1, "C", readonly=True)
U64 = types.Array(types.uint64, 1, "C", readonly=True)
F64 = types.Array(types.float64, 1, "C", readonly=True)


def writable(array: types.Array) -> types.Array:
    """Returns the type of an array that a kernel writes to or makes."""
    return types.Array(array.dtype, array.ndim, array.layout)
