"""The compiled half of `query_list.segments`: where text is cut so that no bigram crosses a mark.

Compiled through `wit.kernels_loader`.
"""

from numba import njit, types, uint32

from wit.kernels_characters import EXPANDS, IGNORED, SEPARATOR, SPACELESS, SYMBOL, TABLE_SIZE, WORD
from wit.kernels_text import decode

SPACE, TEXT, MARK, NOTHING = 0, 1, 2, 3  # what a character is to a segment
HEAD, TAIL = 1, 2  # letters before and behind an apostrophe that are an elision or a contraction
NO_WORD = -1


@njit(inline="always")
def role_of(code, properties, targets, expansions):
    """SPACE, TEXT, MARK (which cuts) or NOTHING (which a reader does not see)."""
    if code == 32 or code == 9 or code == 0xA0 or code == 0x3000 or 0x2000 <= code <= 0x200B:
        return SPACE
    if code == 0x1680 or code == 0x202F or code == 0x205F:
        return SPACE
    if code >= TABLE_SIZE:
        return NOTHING if 0xE0000 <= code < 0xE1000 else MARK
    kind = properties[code] & 7
    if kind in (WORD, SPACELESS):
        return TEXT
    if kind == IGNORED:
        return NOTHING
    if kind == EXPANDS:
        index = targets[code]
        role = NOTHING
        for i in range(index + 1, index + 1 + expansions[index]):
            folded = expansions[i] >> 24
            if folded in (SEPARATOR, SYMBOL):
                return MARK
            role = TEXT
        return role
    return MARK


def cut_rows(
    data, offsets, first, count, properties, targets, expansions, cuts, room, state,
):  # fmt: skip
    """Writes where the segments of the rows [first, count) begin; the number of rows done.

    Segments cover a row without gaps: punctuation stands at the end of the one before it, a symbol
    or what unfolds to several words is one by itself. state[0] is the number of cuts so far. A row
    that may not fit is left for later.
    """
    at = state[0]
    for row in range(first, count):
        position, end = offsets[row], offsets[row + 1]
        if at + 2 * (end - position) + 2 > room:
            state[0] = at
            return row
        if position == end:
            continue
        cuts[at] = position
        at += 1
        before = SPACE  # the role of the last character that is seen
        cut_next = False  # whether a segment begins with the next text
        word, letters = NO_WORD, 0  # where the word began that is being read, and its length
        behind_apostrophe = False
        while position < end:
            here = position
            code = uint32(data[position])
            length = 1
            if code >= 0x80:
                code, length = decode(data, position)
            position += length
            role = role_of(code, properties, targets, expansions)
            if role == NOTHING:
                continue
            if role == TEXT:
                if before != TEXT:
                    word, letters = here, 0
                letters += 1
                if cut_next:
                    if cuts[at - 1] != here:
                        cuts[at] = here
                        at += 1
                    cut_next = False
                before = TEXT
                continue
            apostrophe = code == 39 or code == 0x2019
            inside = False
            if apostrophe and before == TEXT and position < end:
                following = uint32(data[position])
                if following >= 0x80:
                    following, _ = decode(data, position)
                inside = role_of(following, properties, targets, expansions) == TEXT
            if inside and letters <= HEAD and not behind_apostrophe and cuts[at - 1] != word:
                cuts[at] = word
                at += 1
            if before == TEXT and behind_apostrophe and letters <= TAIL:
                cut_next = True
            if role == MARK:
                cut_next = True
            if before == TEXT:
                behind_apostrophe = False
            if apostrophe:
                behind_apostrophe = inside
            if role == MARK and code < TABLE_SIZE and properties[code] & 7 >= SYMBOL:
                if cuts[at - 1] != here:
                    cuts[at] = here
                    at += 1
                cuts[at] = position
                at += 1
            before = role
    state[0] = at
    return count


_bytes, _int32s, _int64s = (types.CPointer(t) for t in (types.uint8, types.int32, types.int64))
_uint32s = types.CPointer(types.uint32)
_int = types.int64

KERNELS = {
    "cut_rows": (
        cut_rows,
        _int(_bytes, _int64s, _int, _int, _uint32s, _int32s, _int32s, _int64s, _int, _int64s),
    )
}  # fmt: skip
