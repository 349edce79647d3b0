"""The compiled half of `wit.text`: folding and splitting UTF-8 rows into their normal form.

Compiled through `wit.kernels_loader`. A row in which characters could act upon each other (compose,
or change places) is left to the reference in Python and marked slow.
"""

from numba import njit, types, uint8, uint32

from wit.kernels_characters import (
    ALWAYS_SLOW,
    COMPOSES,
    EXPANDS,
    GROWTH,
    IGNORED,
    MARKS_KEPT,
    MAYBE,
    SEPARATOR,
    SYMBOL,
    TABLE_SIZE,
    WORD,
)

START, IN_WORD, APART, IN_SPACELESS = 0, 1, 2, 3  # what stands before the next token
BEHIND_SEPARATOR = 255  # in place of a combining class: no mark may follow on the fast path


@njit(inline="always")
def decode(data, at):
    """(code point, bytes) of the valid UTF-8 sequence of two to four bytes at a position."""
    lead = uint32(data[at])
    if lead < 0xE0:
        return (lead & 0x1F) << 6 | uint32(data[at + 1]) & 0x3F, 2
    if lead < 0xF0:
        code = (lead & 0xF) << 12 | (uint32(data[at + 1]) & 0x3F) << 6
        return code | uint32(data[at + 2]) & 0x3F, 3
    code = (lead & 7) << 18 | (uint32(data[at + 1]) & 0x3F) << 12
    return code | (uint32(data[at + 2]) & 0x3F) << 6 | uint32(data[at + 3]) & 0x3F, 4


@njit(inline="always")
def encode(code, out, at):
    """Writes a code point; the position behind it."""
    if code < 0x80:
        out[at] = uint8(code)
        return at + 1
    if code < 0x800:
        out[at] = uint8(0xC0 | code >> 6)
        out[at + 1] = uint8(0x80 | code & 0x3F)
        return at + 2
    if code < 0x10000:
        out[at] = uint8(0xE0 | code >> 12)
        out[at + 1] = uint8(0x80 | code >> 6 & 0x3F)
        out[at + 2] = uint8(0x80 | code & 0x3F)
        return at + 3
    out[at] = uint8(0xF0 | code >> 18)
    out[at + 1] = uint8(0x80 | code >> 12 & 0x3F)
    out[at + 2] = uint8(0x80 | code >> 6 & 0x3F)
    out[at + 3] = uint8(0x80 | code & 0x3F)
    return at + 4


@njit(inline="always")
def append(code, kind, before, spaced, out, at):
    """Writes a folded character of a kind behind `before`; (position, what now stands before)."""
    if kind == WORD:
        if before >= APART:
            out[at] = 32
            at += 1
        return encode(code, out, at), IN_WORD
    if kind == SEPARATOR:
        return at, APART if before == IN_WORD else before
    if kind == IGNORED:
        return at, before
    if before != START and (kind == SYMBOL or before != IN_SPACELESS or spaced):
        out[at] = 32
        at += 1
    return encode(code, out, at), APART if kind == SYMBOL else IN_SPACELESS


def normalise_rows(
    data, offsets, valid, first, count, properties, targets, expansions, spaced, out, room,
    out_offsets, slow,
):  # fmt: skip
    """Normalises the rows [first, count) behind out_offsets[first]; the number of rows done.

    Fewer than `count` where the next row may not fit into `room` bytes of `out`. Null rows and
    rows marked in `slow` come out empty.
    """
    at = out_offsets[first]
    for row in range(first, count):
        position, end = offsets[row], offsets[row + 1]
        if at + GROWTH * (end - position) > room:
            return row
        begin = at
        before = START
        last_class = 0
        composes = 0
        marks = 0  # in a row
        if not valid[row]:
            end = position
        while position < end:
            byte = data[position]
            if byte < 0x80:
                position += 1
                kind = properties[byte] & 7
                at, before = append(targets[byte], kind, before, spaced, out, at)
                last_class = BEHIND_SEPARATOR if kind == SEPARATOR else 0
                composes = COMPOSES
                marks = 0
                continue
            code, length = decode(data, position)
            position += length
            if code >= TABLE_SIZE:
                if not 0xE0000 <= code < 0xE1000:
                    at, before = append(code, SEPARATOR, before, spaced, out, at)
                    last_class = BEHIND_SEPARATOR
                continue
            bits = properties[code]
            kind = bits & 7
            if kind == IGNORED:
                continue
            first_class = bits >> 8 & 0xFF
            marks = marks + 1 if first_class else 0
            if (
                bits & ALWAYS_SLOW
                or marks > MARKS_KEPT // 2
                or (bits & MAYBE and (composes or last_class == BEHIND_SEPARATOR))
                or (first_class and last_class > first_class)
            ):
                slow[row] = 1
                at = begin
                break
            last_class = bits >> 16 & 0xFF
            if not first_class:
                composes = bits & COMPOSES
            if kind == EXPANDS:
                index = targets[code]
                for i in range(index + 1, index + 1 + expansions[index]):
                    folded, folded_kind = expansions[i] & 0xFFFFFF, expansions[i] >> 24
                    at, before = append(folded, folded_kind, before, spaced, out, at)
                    kind = folded_kind
            else:
                at, before = append(targets[code], kind, before, spaced, out, at)
            if kind == SEPARATOR:
                last_class = BEHIND_SEPARATOR
        out_offsets[row + 1] = at
    return count


_bytes, _int32s, _int64s = (types.CPointer(t) for t in (types.uint8, types.int32, types.int64))
_uint32s = types.CPointer(types.uint32)
_int = types.int64

KERNELS = {
    "normalise_rows": (
        normalise_rows,
        _int(
            _bytes, _int64s, _bytes, _int, _int, _uint32s, _int32s, _int32s, _int, _bytes, _int,
            _int64s, _bytes,
        ),
    )
}  # fmt: skip
