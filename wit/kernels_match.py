"""The compiled half of `wit.matching`: token hashes, and a trie of queries in one hash table.

Compiled through `wit.kernels_loader`. A row is cut at every separator byte; what stands between
two separators, nothing included, is a token. A query is a path of token hashes; each prefix of a
path is one 16-byte entry of an open-addressing table: its 64-bit key, then in one word the query
that ends here (id + 1, low half) and 32 bits that say which tokens can follow (high half). No
string is compared: of 10^10 texts with 20 tokens against 10^6 entries, a false match is to be
expected with a probability of about one in a hundred.

Matching goes by blocks of tokens and by levels: all lookups of one level are independent loads, so
the processor overlaps their cache misses.
"""

from numba import njit, types, uint64

SMALL = 64
PLAIN, BREAK, MARK = 0, 1, 2  # byte classes: inside a token; between tokens; a token by itself

_GOLDEN = uint64(0x9E3779B97F4A7C15)
_MIX_1 = uint64(0xBF58476D1CE4E5B9)
_MIX_2 = uint64(0x94D049BB133111EB)


@njit(inline="always")
def mix(value):
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection."""
    value = (value ^ (value >> uint64(30))) * _MIX_1
    value = (value ^ (value >> uint64(27))) * _MIX_2
    return value ^ (value >> uint64(31))


@njit(inline="always")
def close(state, word, held):
    """The hash of a token: the state of its whole 8-byte words, then the `held` bytes left; not 0.

    Tokens of up to seven bytes cannot collide with each other.
    """
    value = mix(state ^ word ^ (uint64(held) << uint64(56)))
    return value if value != 0 else uint64(1)


@njit(inline="always")
def extend(key, token):
    """The key of a path of tokens made one token longer; not 0."""
    value = mix((key ^ (token >> uint64(32) | token << uint64(32))) + _GOLDEN)
    return value if value != 0 else uint64(1)


@njit(inline="always")
def home(key, capacity):
    """The entry where the search for a key starts."""
    return ((key >> uint64(32)) * capacity) >> uint64(32)


@njit(inline="always")
def find(key, table, capacity):
    """The entry that holds a key, or the free one where it would be put."""
    entry = home(key, capacity)
    while table[2 * entry] != 0 and table[2 * entry] != key:
        entry += uint64(1)
        if entry == capacity:
            entry = uint64(0)
    return entry


def insert_queries(data, offsets, valid, count, table, capacity, facts):
    """Puts the rows [0, count) marked in `valid` into an empty table; -1, or a row seen before.

    Tokens are cut at spaces. In `facts` int64 [3] come back the number of entries, the longest path
    in tokens, and where a row repeats an earlier one, that one.
    """
    room = uint64(capacity)
    entries = 0
    longest = 0
    for row in range(count):
        if not valid[row]:
            continue
        position, end = offsets[row], offsets[row + 1]
        key, parent = uint64(0), uint64(0)
        depth = 0
        while position <= end:
            state, word = uint64(0), uint64(0)
            held = 0
            while position < end and data[position] != 32:
                word |= uint64(data[position]) << uint64(8 * held)
                held += 1
                if held == 8:
                    state, word, held = mix(state ^ word) + _GOLDEN, uint64(0), 0
                position += 1
            position += 1
            token = close(state, word, held)
            if depth:
                table[2 * parent + 1] |= uint64(1) << (uint64(32) + (token & uint64(31)))
                key = extend(key, token)
            else:
                key = token
            depth += 1
            parent = find(key, table, room)
            if table[2 * parent] == 0:
                table[2 * parent] = key
                entries += 1
        earlier = table[2 * parent + 1] & uint64(0xFFFFFFFF)
        if earlier:
            facts[2] = earlier - 1
            return row
        table[2 * parent + 1] |= uint64(row + 1)
        longest = max(longest, depth)
    facts[0] = entries
    facts[1] = longest
    return -1


def move_entries(old, old_capacity, new, new_capacity):
    """Copies a table's entries into an empty table of another capacity."""
    for entry in range(old_capacity):
        if old[2 * entry]:
            place = find(old[2 * entry], new, uint64(new_capacity))
            new[2 * place] = old[2 * entry]
            new[2 * place + 1] = old[2 * entry + 1]
    return 0


@njit
def fill(data, offsets, valid, classes, count, row, position, hashes, rows, have, room):
    """Hashes tokens into hashes/rows[have:room] until full or out of rows.

    `position` is -1 at the start of a row. Returns (row, position, tokens): where to go on.
    """
    while row < count and have + 2 <= room:
        if not valid[row]:
            row += 1
            continue
        if position < 0:
            position = offsets[row]
        end = offsets[row + 1]
        while position <= end and have + 2 <= room:
            state, word = uint64(0), uint64(0)
            held = 0
            kind = BREAK
            while position < end:
                kind = classes[data[position]]
                if kind != PLAIN:
                    break
                word |= uint64(data[position]) << uint64(8 * held)
                held += 1
                if held == 8:
                    state, word, held = mix(state ^ word) + _GOLDEN, uint64(0), 0
                position += 1
            hashes[have] = close(state, word, held)
            rows[have] = row
            have += 1
            if position < end and kind == MARK:
                hashes[have] = close(uint64(0), uint64(data[position]), 1)
                rows[have] = row
                have += 1
            position += 1
        if position > end:
            row += 1
            position = -1
    return row, position, have


@njit
def sort(values, first, last):
    """Sorts int32 values[first:last] in place: Shell's sort."""
    gap = 1
    while gap < last - first:
        gap = gap * 9 // 4 + 1
    while gap > 1:
        gap = gap * 4 // 9
        gap = max(gap, 1)
        for i in range(first + gap, last):
            value = values[i]
            j = i
            while j >= first + gap and values[j - gap] > value:
                values[j] = values[j - gap]
                j -= gap
            values[j] = value


@njit
def distinct(values, first, last, target, ranked):
    """Moves values[first:last], sorted and without repeats, to values[target:]; where they end.

    `target` is not behind `first`; ranked int32 [SMALL] is scratch.
    """
    size = last - first
    if size <= SMALL:
        # A value's place is the number of smaller ones: no branch to mispredict. Repeats share a
        # place and leave the next ones empty.
        for i in range(size):
            ranked[i] = -1
        for i in range(first, last):
            value = values[i]
            place = 0
            for j in range(first, last):
                place += values[j] < value
            ranked[place] = value
        for i in range(size):
            values[target] = ranked[i]
            target += ranked[i] >= 0
        return target
    sort(values, first, last)
    previous = -1
    for i in range(first, last):
        value = values[i]
        if value != previous:
            values[target] = value
            target += 1
        previous = value
    return target


def match_rows(
    data, offsets, valid, classes, first, count, table, capacity, longest, hashes, rows, paths,
    starts, loaded, room, found, found_room, ids, ids_room, out_offsets,
):  # fmt: skip
    """Finds the queries of the rows [first, count); the number of rows done.

    The sorted distinct ids of a row go to ids[out_offsets[row]:out_offsets[row + 1]]. Fewer rows
    than `count` are done where `found` or `ids` is too small for the next ones. Scratch: hashes,
    paths uint64 [room]; rows, starts int32 [room]; loaded uint64 [2 room]; found int64.
    """
    entries = uint64(capacity)
    row, position = first, -1
    done = first
    have = 0  # tokens in the block
    matches = 0
    while done < count:
        row, position, have = fill(
            data, offsets, valid, classes, count, row, position, hashes, rows, have, room
        )
        open_paths = have
        for i in range(have):
            paths[i] = hashes[i]
            starts[i] = i
        depth = 1
        while open_paths:
            if matches + open_paths > found_room:
                return done
            for i in range(open_paths):
                entry = home(paths[i], entries)
                loaded[2 * i] = table[2 * entry]
                loaded[2 * i + 1] = table[2 * entry + 1]
            longer = 0
            for i in range(open_paths):
                key = paths[i]
                value = loaded[2 * i + 1]
                if loaded[2 * i] != key:
                    if loaded[2 * i] == 0:
                        continue
                    entry = find(key, table, entries)
                    if table[2 * entry] == 0:
                        continue
                    value = table[2 * entry + 1]
                start = starts[i]
                query = value & uint64(0xFFFFFFFF)
                if query:
                    found[matches] = uint64(rows[start]) << uint64(32) | (query - uint64(1))
                    matches += 1
                follow = value >> uint64(32)
                behind = start + depth
                if follow and behind < have and rows[behind] == rows[start]:
                    token = hashes[behind]
                    if follow >> (token & uint64(31)) & uint64(1):
                        paths[longer] = extend(key, token)
                        starts[longer] = start
                        longer += 1
            open_paths = longer
            depth += 1

        # Rows before `row` are whole: their matches go out, grouped by row.
        base = out_offsets[done]
        for i in range(done, row):
            out_offsets[i + 1] = 0
        total = 0
        for i in range(matches):
            owner = found[i] >> uint64(32)
            if owner < row:
                out_offsets[owner + 1] += 1
                total += 1
        if base + total > ids_room:
            return done
        place = base
        for i in range(done, row):
            size = out_offsets[i + 1]
            out_offsets[i + 1] = place
            place += size
        kept = 0
        for i in range(matches):
            owner = found[i] >> uint64(32)
            if owner < row:
                ids[out_offsets[owner + 1]] = found[i] & uint64(0xFFFFFFFF)
                out_offsets[owner + 1] += 1
            else:
                found[kept] = found[i]
                kept += 1
        matches = kept
        begin = base
        target = base
        for i in range(done, row):
            end = out_offsets[i + 1]
            target = distinct(ids, begin, end, target, starts)
            begin = end
            out_offsets[i + 1] = target
        done = row

        # A row that goes on in the next block takes the tokens with it that a path may start at.
        carried = 0
        if position >= 0:
            begin = max(0, have - (longest - 1))
            while begin < have and rows[begin] != row:
                begin += 1
            for i in range(begin, have):
                hashes[carried] = hashes[i]
                rows[carried] = rows[i]
                carried += 1
        have = carried
    return done


_bytes, _int32s, _int64s = (types.CPointer(t) for t in (types.uint8, types.int32, types.int64))
_words = types.CPointer(types.uint64)
_int = types.int64

KERNELS = {
    "insert_queries": (
        insert_queries,
        _int(_bytes, _int64s, _bytes, _int, _words, _int, _int64s),
    ),
    "move_entries": (move_entries, _int(_words, _int, _words, _int)),
    "match_rows": (
        match_rows,
        _int(
            _bytes, _int64s, _bytes, _bytes, _int, _int, _words, _int, _int, _words, _int32s,
            _words, _int32s, _words, _int, _words, _int, _int32s, _int, _int64s,
        ),
    ),
}  # fmt: skip
