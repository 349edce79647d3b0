"""What `query_list.kernels_wikitext` is made of: names, tags, entities, addresses, and the output.

All of it works on one page: `data` uint8 up to `state[END]`, what is read so far in `out` uint8 up
to `state[AT]`. Names are found in one hash table that `query_list.plain_text` makes. Every function
that looks ahead adds the bytes that it looked at to `state[WORK]`.
"""

from numba import njit, types, uint64

from query_list.wikitext_names import (
    ENDING,
    ENTITY,
    FNV_OFFSET,
    FNV_PRIME,
    MAX_NAME,
    MEDIA,
    NAMESPACE,
    SCHEME,
    SLOTS,
    TAG,
    WITH_SLASHES,
)  # fmt: skip
from wit.kernels_text import encode

# Of a page: where it stands in `out`, its end in `data`, what is open, and what was looked at.
BEGIN, AT, END, DEPTH, BRACES, TABLES, POEM, WORK, LINE_AT = range(9)
# Of a line, kept by each opener and given back where its closer removes it: whether an odd number
# of bold and of italic marks was seen (bits 0 and 1), where an apostrophe would go (-1: nowhere),
# an open external link (1: with text, 2: with none), how many `=` the line begins with and where,
# where to cut the line (-1: nowhere), and whether it cannot go on in the next.
QUOTES, SINGLE, MULTIPLE, SPACED, EXTERNAL, EQUALS, HEADING, CUT, ALONE = range(9, 18)
LINE, LINE_FIELDS = QUOTES, 9
CLOSERS = 18  # for each name of a raw tag: the next place where it is closed; END: nowhere

# Declared, where else each literal argument would have a version of its own.
_bytes, _int64s, _int = types.CPointer(types.uint8), types.CPointer(types.int64), types.int64

MAX_MAGIC, MAX_SCHEME, MAX_ENDING = 40, 12, 5  # bytes

SPACE, NEWLINE, TAB, AMPERSAND, APOSTROPHE, SLASH = 32, 10, 9, 38, 39, 47
COLON, SEMICOLON, LESS, EQUAL, GREATER, UNDERSCORE = 58, 59, 60, 61, 62, 95
BRACE, BRACE_END, BRACKET, BRACKET_END, PIPE, HYPHEN, EXCLAMATION = 123, 125, 91, 93, 124, 45, 33


@njit
def peek(data, position, end):
    """The byte at a position; 0 behind the end."""
    return data[position] if position < end else 0


@njit
def is_letter(byte):
    """An ASCII letter."""
    return 97 <= (byte | 32) <= 122


@njit
def is_digit(byte):
    """An ASCII digit."""
    return 48 <= byte <= 57


@njit
def is_blank(byte):
    """White space of ASCII, the end of the page as well."""
    return byte <= SPACE and (byte == SPACE or 9 <= byte <= 13 or byte == 0)


@njit(types.void(_int, _bytes, _int64s))
def put(byte, out, state):
    """Writes a byte."""
    out[state[AT]] = byte
    state[AT] += 1


@njit
def boundary(out, state):
    """Ends the line that is written, unless it is empty."""
    at = state[AT]
    if at > state[BEGIN] and out[at - 1] != NEWLINE:
        put(NEWLINE, out, state)


@njit
def gap(data, position, out, state):
    """Keeps apart what stood on both sides of something that a reader does not see as a word."""
    at = state[AT]
    following = peek(data, position, state[END])
    mark = following in (33, 44, 46, COLON, SEMICOLON, 63)
    if at > state[BEGIN] and out[at - 1] > SPACE and not is_blank(following) and not mark:
        put(SPACE, out, state)


@njit
def folded(byte, fold):
    """An ASCII letter in lower case, an underscore as the space that it stands for."""
    if fold and 65 <= byte <= 90:
        return byte + 32
    return SPACE if fold and byte == UNDERSCORE else byte


@njit(_int(_bytes, _int, _int, _int, _int64s, _bytes))
def lookup(data, start, stop, domain, index, names):
    """The value of the name in [start, stop); 0 where there is none. Only entities have a case."""
    if not 0 < stop - start <= MAX_NAME:
        return 0
    fold = domain != ENTITY
    key = (uint64(FNV_OFFSET) ^ uint64(domain)) * uint64(FNV_PRIME)
    for position in range(start, stop):
        key = (key ^ uint64(folded(data[position], fold))) * uint64(FNV_PRIME)
    slot = (key ^ (key >> uint64(32))) & uint64(SLOTS - 1)
    while index[slot]:
        entry = index[slot]
        first, length, value = index[entry], index[entry + 1], index[entry + 2]
        if names[first] == domain and length == stop - start:
            i = 0
            while i < length and folded(data[start + i], fold) == names[first + 1 + i]:
                i += 1
            if i == length:
                return value
        slot = (slot + uint64(1)) & uint64(SLOTS - 1)
    return 0


@njit
def tag_at(data, position, state, index, names):
    """(value, end of the name, position of its `>`) of the tag at `<`; a value of 0: no tag."""
    end = state[END]
    start = position + 1 + (peek(data, position + 1, end) == SLASH)
    stop = start
    while stop < end and stop - start <= MAX_NAME:
        if not (is_letter(data[stop]) or (is_digit(data[stop]) and stop > start)):
            break
        stop += 1
    following = peek(data, stop, end)
    if not (is_blank(following) or following in (SLASH, GREATER)):
        return 0, stop, stop
    value = lookup(data, start, stop, TAG, index, names)
    last = stop
    if value:
        while last < end and data[last] != GREATER and data[last] != LESS:
            last += 1
        state[WORK] += last - stop
    if peek(data, last, end) != GREATER:
        value = 0
    return value, stop, last


@njit
def find_closer(data, position, start, stop, slot, state):
    """The first `</name>` behind a position, of the name in [start, stop); END: there is none."""
    end = state[END]
    at = max(position, state[CLOSERS + slot])
    if at > position:
        return at
    while at < end:
        if data[at] == LESS and peek(data, at + 1, end) == SLASH and at + 2 + stop - start < end:
            i = 0
            while i < stop - start and data[at + 2 + i] | 32 == data[start + i] | 32:
                i += 1
            if i == stop - start:
                last = at + 2 + i
                while last < end and is_blank(data[last]):
                    last += 1
                if peek(data, last, end) == GREATER:
                    break
                state[WORK] += last - at
        at += 1
    state[WORK] += at - position
    state[CLOSERS + slot] = at
    return at


@njit
def behind(data, position, end):
    """The position behind the next `>`."""
    while position < end and data[position] != GREATER:
        position += 1
    return min(position + 1, end)


@njit
def entity(data, position, out, state, index, names):
    """Writes the character that stands for the entity at `&`; the position behind it."""
    end = state[END]
    if peek(data, position + 1, end) == 35:  # number sign
        return numeric(data, position, out, state)
    stop = position + 1
    while stop < end and stop - position <= MAX_NAME:
        if not (is_letter(data[stop]) or is_digit(data[stop])):
            break
        stop += 1
    if peek(data, stop, end) == SEMICOLON:
        value = lookup(data, position + 1, stop, ENTITY, index, names)
        if value:
            for i in range(value >> 56):
                put(value >> 8 * i & 0xFF, out, state)
            return stop + 1
    put(AMPERSAND, out, state)
    return position + 1


@njit
def numeric(data, position, out, state):
    """As `entity`, of `&#8211;` or `&#x2013;`; what stands for no character stays."""
    end = state[END]
    hexadecimal = peek(data, position + 2, end) | 32 == 120
    first = position + 3 if hexadecimal else position + 2
    stop = first
    code = 0
    while stop < end and stop - first < 10:
        byte = data[stop]
        if is_digit(byte):
            digit = byte - 48
        elif hexadecimal and 97 <= byte | 32 <= 102:
            digit = (byte | 32) - 87
        else:
            break
        code = code * (16 if hexadecimal else 10) + digit
        stop += 1
    allowed = 32 <= code < 0xD800 or 0xE000 <= code < 0x110000 or code in (NEWLINE, TAB)
    if stop > first and allowed and peek(data, stop, end) == SEMICOLON:
        state[AT] = encode(code, out, state[AT])
        return stop + 1
    put(AMPERSAND, out, state)
    return position + 1


@njit
def copy_raw(data, position, stop, out, state, index, names):
    """Writes text in which nothing but entities and ends of lines mean something."""
    while position < stop:
        byte = data[position]
        if byte == AMPERSAND:
            position = min(entity(data, position, out, state, index, names), stop)
            continue
        if byte == NEWLINE:
            boundary(out, state)
        else:
            put(byte, out, state)
        position += 1


@njit
def address_at(data, position, end, index, names):
    """Whether an address begins here: `https://a`, `mailto:a`, `//a`."""
    stop, kind = position, WITH_SLASHES
    while stop < end and stop - position <= MAX_SCHEME and is_letter(data[stop]):
        stop += 1
    if stop > position:
        kind = lookup(data, position, stop, SCHEME, index, names)
        if not kind or peek(data, stop, end) != COLON:
            return False
        stop += 1
    if kind == WITH_SLASHES:
        if peek(data, stop, end) != SLASH or peek(data, stop + 1, end) != SLASH:
            return False
        stop += 2
    return stop < end and not ends_address(data[stop])


@njit
def ends_address(byte):
    """A byte that stands in no address."""
    return byte <= SPACE or byte in (
        34,
        LESS,
        GREATER,
        BRACE,
        BRACE_END,
        BRACKET,
        BRACKET_END,
        PIPE,
    )


@njit
def address_end(data, position, state):
    """The position behind an address."""
    end, start = state[END], position
    while position < end and not ends_address(data[position]):
        if data[position] == APOSTROPHE == peek(data, position + 1, end):
            break
        position += 1
    state[WORK] += position - start
    return position


@njit
def bare_address(data, position, out, state, index, names):
    """At `:`, removes an address whose scheme was written already; the position behind it."""
    end, at = state[END], state[AT]
    if peek(data, position + 1, end) == SLASH and peek(data, position + 2, end) == SLASH:
        length = 0
        while length <= MAX_SCHEME and at - length > state[BEGIN]:
            byte = out[at - length - 1]
            if not is_letter(byte) or byte != data[position - length - 1]:
                break
            length += 1
        if lookup(data, position - length, position, SCHEME, index, names):
            state[AT] = at - length
            boundary(out, state)
            return address_end(data, position + 3, state)
    put(COLON, out, state)
    return position + 1


@njit
def magic_word(data, position, out, state):
    """At `_`, leaves out `__TOC__` and its like, in any script; the position behind."""
    end = state[END]
    if peek(data, position + 1, end) == UNDERSCORE:
        stop = position + 2
        while stop < end and stop - position < MAX_MAGIC:
            if not (65 <= data[stop] <= 90 or data[stop] >= 0x80):
                break
            stop += 1
        closed = peek(data, stop, end) == UNDERSCORE == peek(data, stop + 1, end)
        if stop > position + 2 and closed:
            return stop + 2
    put(UNDERSCORE, out, state)
    return position + 1


@njit
def kind_of_link(data, start, stop, piped, state, index, names):
    """MEDIA or HIDDEN (category, other language) where the target in [start, stop) is; else 0."""
    while start < stop and (data[start] == SPACE or data[start] == UNDERSCORE):
        start += 1
    colon = start
    while colon < stop and colon - start <= MAX_NAME and data[colon] != COLON:
        colon += 1
    if peek(data, colon, stop) != COLON:
        return 0
    last = colon
    while last > start and (data[last - 1] == SPACE or data[last - 1] == UNDERSCORE):
        last -= 1
    kind = lookup(data, start, last, NAMESPACE, index, names)
    if kind or not piped:
        return kind
    while stop > colon and data[stop - 1] == SPACE:
        stop -= 1
    dot = stop
    while dot > max(colon, stop - MAX_ENDING) and data[dot - 1] != 46:
        dot -= 1
    if not lookup(data, dot, stop, ENDING, index, names):
        return 0
    for position in range(colon + 1, dot):
        if data[position] == COLON:  # of a page in another wiki: names of files have none
            return 0
    state[WORK] += dot - colon
    return MEDIA
