"""The compiled half of `trainer.tokenizer`: byte-pair merges of many pieces of text at once.

Compiled through `wit.kernels_loader`. A heap of the pairs that can be merged makes the time n log n
in the length of a piece; the usual loop's square lets one long row of letters hold up a batch.
"""

from numba import njit, types, uint64

EMPTY = 0xFFFFFFFF  # a free slot of the table of merges


@njit(inline="always")
def first_slot(pair, mask):
    """Where the search for a pair of ids in the table begins."""
    return (pair * 0x9E3779B1 >> 20) & mask


@njit(inline="always")
def merged(left, right, pairs, ids, mask):
    """The id that two ids become, 0 where they stay two."""
    pair = (left << 16) | right
    slot = first_slot(pair, mask)
    while pairs[slot] != pair:
        if pairs[slot] == EMPTY:
            return 0
        slot = (slot + 1) & mask
    return ids[slot]


@njit
def fill_table(merges, count, first, pairs, ids, mask):
    """Fills the table of merges: pairs[:] = EMPTY and then merges[i], which becomes first + i."""
    for slot in range(mask + 1):
        pairs[slot] = EMPTY
    for i in range(count):
        slot = first_slot(merges[i], mask)
        while pairs[slot] != EMPTY:
            slot = (slot + 1) & mask
        pairs[slot] = merges[i]
        ids[slot] = first + i
    return 0


@njit(inline="always")
def push(heap, size, key):
    """Adds a key to a binary heap of `size` keys, the least on top."""
    at = size
    while at > 0 and heap[(at - 1) >> 1] > key:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = key


@njit(inline="always")
def sink(heap, size):
    """Takes the least key away: the heap has `size` keys afterwards."""
    key = heap[size]
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = key


@njit
def merge_pieces(data, ends, pieces, letters, pairs, ids, mask, symbols, after, before, heap, out):
    """Writes the ids of all pieces to `out`, one after the other; returns how many.

    data: the bytes of all pieces, which is no empty one. ends: where each ends in `data`;
    overwritten with where its ids end in `out`. letters: the id of each byte; 256 more at a piece's
    end. pairs, ids: the table of merges, `mask` + 1 slots. Of two merges the one with the lower id
    comes first, then the one further left: a merge's id is above those of its two parts, so this is
    the order of merging all occurrences of the best pair, then of the next. Room needed: symbols,
    after, before the longest piece, heap twice that, out as much as `data`.
    """
    start = written = 0
    for piece in range(pieces):
        length = ends[piece] - start
        size = 0
        for i in range(length):
            symbols[i] = letters[data[start + i]]
            after[i] = i + 1
            before[i] = i - 1
        symbols[length - 1] += 256
        for i in range(length - 1):
            made = merged(symbols[i], symbols[i + 1], pairs, ids, mask)
            if made:
                push(heap, size, (uint64(made) << uint64(32)) | uint64(i))
                size += 1
        while size:
            at, made = int(heap[0] & uint64(0xFFFFFFFF)), int(heap[0] >> uint64(32))
            size -= 1
            sink(heap, size)
            right = after[at]
            # A key is out of date once a part of its pair was merged with another neighbour; a
            # symbol that was merged into the one before it is -1, which no pair has.
            if right == length or merged(symbols[at], symbols[right], pairs, ids, mask) != made:
                continue
            symbols[at], symbols[right] = made, -1
            after[at] = after[right]
            if after[at] < length:
                before[after[at]] = at
                right = merged(made, symbols[after[at]], pairs, ids, mask)
                if right:
                    push(heap, size, (uint64(right) << uint64(32)) | uint64(at))
                    size += 1
            if before[at] >= 0:
                left = merged(symbols[before[at]], made, pairs, ids, mask)
                if left:
                    push(heap, size, (uint64(left) << uint64(32)) | uint64(before[at]))
                    size += 1
        at = 0
        while at < length:
            out[written] = symbols[at]
            written += 1
            at = after[at]
        start = ends[piece]
        ends[piece] = written
    return written


_bytes, _shorts = types.CPointer(types.uint8), types.CPointer(types.uint16)
_longs, _int = types.CPointer(types.int64), types.int64
_ints, _keys = types.CPointer(types.int32), types.CPointer(types.uint64)
KERNELS = {
    "fill_table": (fill_table, _int(_longs, _int, _int, _longs, _longs, _int)),
    "merge_pieces": (
        merge_pieces,
        _int(
            _bytes, _longs, _int, _longs, _longs, _longs, _int,
            _ints, _ints, _ints, _keys, _shorts,
        ),
    ),
}  # fmt: skip
