"""The compiled half of `query_list.dump`: XML's five named references resolved in one pass.

Compiled through `wit.kernels_loader`. Nothing is read outside data[begin:end].
"""

from numba import njit, types

AMPERSAND, SEMICOLON, LESS, GREATER, QUOTE, APOSTROPHE, RETURN = 38, 59, 60, 62, 34, 39, 13
UNUSUAL, MARKUP = -1, -2


@njit(inline="always")
def named(data, at, end):
    """(the character that the reference at an ampersand means, its length); length 0: another."""
    if at + 4 <= end and data[at + 2] == 116 and data[at + 3] == SEMICOLON:  # t
        if data[at + 1] == 108:
            return LESS, 4
        if data[at + 1] == 103:
            return GREATER, 4
    if at + 6 <= end and data[at + 5] == SEMICOLON:
        if data[at + 1] == 113 and data[at + 2] == 117 and data[at + 3] == 111:
            return QUOTE, 6 if data[at + 4] == 116 else 0
        if data[at + 1] == 97 and data[at + 2] == 112 and data[at + 3] == 111:
            return APOSTROPHE, 6 if data[at + 4] == 115 else 0
    if at + 5 > end or data[at + 4] != SEMICOLON:
        return 0, 0
    is_amp = data[at + 1] == 97 and data[at + 2] == 109 and data[at + 3] == 112
    return AMPERSAND, 5 if is_amp else 0


def unescape(data, begin, end, out):
    """Writes data[begin:end] as XML means it to `out`, as long; the number of bytes written.

    UNUSUAL where it holds an ampersand of no named reference, or a carriage return; MARKUP where it
    holds a `<`.
    """
    written = 0
    while begin < end:
        byte = data[begin]
        length = 1
        if (byte == AMPERSAND) | (byte == LESS) | (byte == RETURN):  # one branch, seldom taken
            if byte == LESS:
                return MARKUP
            if byte == RETURN:
                return UNUSUAL
            byte, length = named(data, begin, end)
            if length == 0:
                return UNUSUAL
        out[written] = byte
        written += 1
        begin += length
    return written


_bytes = types.CPointer(types.uint8)
_int = types.int64

KERNELS = {"unescape": (unescape, _int(_bytes, _int, _int, _bytes))}
