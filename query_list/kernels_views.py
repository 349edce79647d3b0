"""The compiled half of `query_list.views`: the fields, titles and numbers of page-view lines.

Compiled through `wit.kernels_loader`.
"""

from numba import int64, njit, types, uint8

LINE_END, RETURN, SPACE, QUOTE, PERCENT = 10, 13, 32, 34, 37
DASH, BACKSLASH, UNDERSCORE = 45, 92, 95
MOST_DIGITS = 12  # of a number of views: nine million such lines still fit into 63 bits
KEPT = 10  # first line numbers of each reason
EMPTY, WRONG_FIELDS, NO_NUMBER, NOT_UTF8 = 0, 1, 2, 3
REASONS = ("empty", "wrong_fields", "no_number", "not_utf8")  # why a line is malformed
LINES, OTHER, UNTITLED = 0, 1, 2  # in `tally`


@njit(inline="always")
def number_at(data, start, end):
    """The number that digits write, -1 where something else stands or too many."""
    if end <= start or end - start > MOST_DIGITS:
        return -1
    value = 0
    for i in range(start, end):
        digit = int64(data[i]) - 48
        if digit < 0 or digit > 9:
            return -1
        value = 10 * value + digit
    return value


@njit(inline="always")
def is_code(data, start, end, codes, code_ends, count):
    """Whether one of the codes stands in [start, end)."""
    first = 0
    for i in range(count):
        last = code_ends[i]
        if last - first == end - start:
            same = True
            for j in range(end - start):
                same &= data[start + j] == codes[first + j]
            if same:
                return True
        first = last
    return False


@njit(inline="always")
def hex_digit(byte):
    """The value of a hexadecimal digit, -1 for another character."""
    if 48 <= byte <= 57:
        return int64(byte) - 48
    lower = int64(byte) | 32
    return lower - 87 if 97 <= lower <= 102 else -1


@njit
def is_utf8(data, start, end):
    """Whether bytes are UTF-8 (RFC 3629: no longer forms, no surrogates)."""
    while start < end:
        lead = int64(data[start])
        start += 1
        if lead < 0x80:
            continue
        if 0xC2 <= lead < 0xE0:
            rest, low, high = 1, 0x80, 0xBF
        elif 0xE0 <= lead < 0xF0:
            rest = 2
            low = 0xA0 if lead == 0xE0 else 0x80
            high = 0x9F if lead == 0xED else 0xBF
        elif 0xF0 <= lead < 0xF5:
            rest = 3
            low = 0x90 if lead == 0xF0 else 0x80
            high = 0x8F if lead == 0xF4 else 0xBF
        else:
            return False
        if start + rest > end:
            return False
        for _ in range(rest):
            if not low <= data[start] <= high:
                return False
            low, high = 0x80, 0xBF
            start += 1
    return True


@njit
def copy_title(data, start, end, decode, escaped, out, at):
    """Writes a title as MediaWiki has it: percent signs decoded if asked, spaces for underscores.

    Underscores in a row count as one, at the ends as none. The position behind it.
    """
    begin = at
    gap = False
    while start < end:
        byte = data[start]
        start += 1
        if escaped and byte == BACKSLASH and start < end:
            byte = data[start]
            start += 1
        elif decode and byte == PERCENT and start + 1 < end:
            high, low = hex_digit(data[start]), hex_digit(data[start + 1])
            if high >= 0 and low >= 0:
                byte = uint8(16 * high + low)
                start += 2
        if byte in (UNDERSCORE, SPACE):
            gap = True
            continue
        if gap and at > begin:
            out[at] = SPACE
            at += 1
        gap = False
        out[at] = byte
        at += 1
    return at


@njit(inline="always")
def is_quoted(data, start, end):
    """Whether a title stands in quotes because it has some inside, escaped with a backslash."""
    if end - start < 4 or data[start] != QUOTE or data[end - 1] != QUOTE:
        return False
    escaped = False
    for i in range(start + 1, end - 2):
        escaped |= data[i] == BACKSLASH and data[i + 1] == QUOTE
    return escaped


@njit(inline="always")
def note(wrong, reason, line):
    """Counts a malformed line; the numbers of the first are kept."""
    base = reason * (1 + KEPT)
    if wrong[base] < KEPT:
        wrong[base + 1 + wrong[base]] = line
    wrong[base] += 1


def parse_lines(
    data, size, daily, codes, code_ends, code_count, spaces, out, out_offsets, views, tally, wrong,
):  # fmt: skip
    """Reads whole lines; how many are of the wiki: their titles in `out`, `views` of each.

    `spaces` is scratch for 6 positions; `tally` and `wrong` go on from call to call.
    """
    rows = 0
    at = 0
    position = 0
    while position < size:
        start = position
        found = 0  # spaces
        doubled = False
        while position < size and data[position] != LINE_END:
            if data[position] == SPACE:
                if found < 6:
                    spaces[found] = position
                doubled |= position == start or data[position - 1] == SPACE
                found += 1
            position += 1
        end = position
        position += 1
        if end > start and data[end - 1] == RETURN:
            end -= 1
        tally[LINES] += 1
        if end == start:
            note(wrong, EMPTY, tally[LINES])
            continue
        right = found in (4, 5) if daily else found == 3
        if not right or doubled or data[end - 1] == SPACE:
            note(wrong, WRONG_FIELDS, tally[LINES])
            continue
        # The number of views: third of four fields; before the last of five or six.
        before = found - 2 if daily else 1
        count = number_at(data, spaces[before] + 1, spaces[before + 1])
        if count < 0:
            note(wrong, NO_NUMBER, tally[LINES])
            continue
        if not is_code(data, start, spaces[0], codes, code_ends, code_count):
            tally[OTHER] += 1
            continue
        first, last = spaces[0] + 1, spaces[1]
        quoted = False
        if daily and is_quoted(data, first, last):
            quoted = True
            first += 1
            last -= 1
        stop = copy_title(data, first, last, True, quoted, out, at)
        if not is_utf8(out, at, stop):
            stop = copy_title(data, first, last, False, quoted, out, at)
            if not is_utf8(out, at, stop):
                note(wrong, NOT_UTF8, tally[LINES])
                continue
        if stop == at or (stop == at + 1 and out[at] == DASH):
            tally[UNTITLED] += 1
            continue
        at = stop
        views[rows] = count
        rows += 1
        out_offsets[rows] = at
    return rows


_bytes, _int64s = types.CPointer(types.uint8), types.CPointer(types.int64)
_int = types.int64

KERNELS = {
    "parse_lines": (
        parse_lines,
        _int(
            _bytes, _int, _int, _bytes, _int64s, _int, _int64s, _bytes, _int64s, _int64s, _int64s,
            _int64s,
        ),
    )
}  # fmt: skip
