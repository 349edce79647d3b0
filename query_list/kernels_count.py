"""The compiled half of `query_list.counting` and `query_list.bigrams`: tables of words and pairs.

Compiled through `wit.kernels_loader`. Tables have open addressing and a size that is a power of
two; the caller keeps them less than full.
"""

from numba import njit, types, uint64

MULTIPLIER = 0x9E3779B97F4A7C15
SHIFT_1, FACTOR_1 = 30, 0xBF58476D1CE4E5B9
SHIFT_2, FACTOR_2 = 27, 0x94D049BB133111EB
BREAK = -1  # in a stream of ids: a segment's end
LEFT_OUT = -1  # in a lookup of ids: a word that no bigram has
BLANK = 32


@njit(inline="always")
def scatter(value):
    """The finaliser of splitmix64: every bit of the result depends on all of the value's."""
    value = (value ^ (value >> uint64(SHIFT_1))) * uint64(FACTOR_1)
    value = (value ^ (value >> uint64(SHIFT_2))) * uint64(FACTOR_2)
    return value ^ (value >> uint64(31))


@njit(inline="always")
def hash_word(data, start, end):
    """A hash for the table of one process: it is stored nowhere."""
    value = uint64(end - start)
    for i in range(start, end):
        value = (value ^ uint64(data[i])) * uint64(MULTIPLIER)
        value ^= value >> uint64(29)
    return scatter(value)


def count_words(
    data, offsets, first, count, slots, size, hashes, starts, counts, words, arena, room,
    stream, stream_room, state,
):  # fmt: skip
    """Counts the words of the rows [first, count) and writes their ids; the number of rows done.

    state: [words known, bytes of the arena, length of the stream]. A row that may not fit is left
    for the caller, who then makes room. `starts` has one place more than there are words.
    """
    known, used, length = state[0], state[1], state[2]
    mask = uint64(size - 1)
    for row in range(first, count):
        position, end = offsets[row], offsets[row + 1]
        if position == end:
            continue
        most = (end - position) // 2 + 1
        if known + most > words or used + (end - position) > room:
            break
        if length + most + 1 > stream_room:
            break
        while position < end:
            stop = position
            while stop < end and data[stop] != BLANK:
                stop += 1
            code = hash_word(data, position, stop)
            slot = code & mask
            word = -1
            while slots[slot] >= 0:
                other = slots[slot]
                if hashes[other] == code and starts[other + 1] - starts[other] == stop - position:
                    same = True
                    for i in range(stop - position):
                        if arena[starts[other] + i] != data[position + i]:
                            same = False
                            break
                    if same:
                        word = other
                        break
                slot = (slot + uint64(1)) & mask
            if word < 0:
                word = known
                known += 1
                slots[slot] = word
                hashes[word] = code
                for i in range(position, stop):
                    arena[used] = data[i]
                    used += 1
                starts[word + 1] = used
                counts[word] = 0
            counts[word] += 1
            stream[length] = word
            length += 1
            position = stop + 1
        stream[length] = BREAK
        length += 1
    else:
        row = count
    state[0], state[1], state[2] = known, used, length
    return row


def rehash(hashes, count, slots, size):
    """Puts words 0 to count - 1 into an empty table (all -1); count."""
    mask = uint64(size - 1)
    for word in range(count):
        slot = hashes[word] & mask
        while slots[slot] >= 0:
            slot = (slot + uint64(1)) & mask
        slots[slot] = word
    return count


def count_pairs(stream, first, length, lookup, keys, counts, size, most, state):
    """Counts the pairs of words next to each other in stream[first:length]; how far it came.

    `lookup` gives a word of the stream its place in the vocabulary, or LEFT_OUT. A pair's key is
    (first + 1) << 32 | second + 1, so 0 is an empty place. state[0] is the number of pairs known;
    it stops where that reaches `most`.
    """
    mask = uint64(size - 1)
    known = state[0]
    before = LEFT_OUT
    at = first
    if first > 0 and stream[first - 1] >= 0:
        before = lookup[stream[first - 1]]
    while at < length and known < most:
        word = stream[at]
        here = lookup[word] if word >= 0 else LEFT_OUT
        if here >= 0 and before >= 0:
            key = uint64(before + 1) << uint64(32) | uint64(here + 1)
            slot = scatter(key) & mask
            while keys[slot] != 0 and keys[slot] != key:
                slot = (slot + uint64(1)) & mask
            if keys[slot] == 0:
                keys[slot] = key
                counts[slot] = 0
                known += 1
            counts[slot] += 1
        before = here
        at += 1
    state[0] = known
    return at


_bytes, _int32s, _int64s = (types.CPointer(t) for t in (types.uint8, types.int32, types.int64))
_uint32s, _uint64s = types.CPointer(types.uint32), types.CPointer(types.uint64)
_int = types.int64

KERNELS = {
    "count_words": (
        count_words,
        _int(
            _bytes, _int64s, _int, _int, _int32s, _int, _uint64s, _int64s, _int64s, _int, _bytes,
            _int, _int32s, _int, _int64s,
        ),
    ),
    "rehash": (rehash, _int(_uint64s, _int, _int32s, _int)),
    "count_pairs": (
        count_pairs,
        _int(_int32s, _int, _int, _int32s, _uint64s, _uint32s, _int, _int, _int64s),
    ),
}  # fmt: skip
