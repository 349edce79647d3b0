"""The compiled half of `query_list.plain_text`: one pass over a page's wikitext.

Compiled through `wit.kernels_loader`.
"""

from numba import njit, types

from query_list.kernels_lines import (
    CAPTION,
    DETAIL,
    ENTRY,
    HTML_TABLE,
    KIND,
    LABEL,
    LINK,
    OUT,
    QUOTED_TARGET,
    SAVED,
    SOURCE,
    TARGET,
    TEMPLATE,
    UNSEEN_LABEL,
    begin_line,
    cut_back,
    end_line,
    give_up,
    push,
    remove,
    settle_quotes,
    top,
)  # fmt: skip
from query_list.kernels_markup import (
    AMPERSAND,
    APOSTROPHE,
    AT,
    BEGIN,
    BRACE,
    BRACE_END,
    BRACES,
    BRACKET,
    BRACKET_END,
    CLOSERS,
    COLON,
    DEPTH,
    END,
    EXCLAMATION,
    EXTERNAL,
    GREATER,
    HYPHEN,
    LESS,
    LINE,
    LINE_AT,
    LINE_FIELDS,
    MULTIPLE,
    NEWLINE,
    PIPE,
    POEM,
    QUOTES,
    SINGLE,
    SLASH,
    SPACE,
    SPACED,
    TAB,
    TABLES,
    WORK,
    address_at,
    address_end,
    bare_address,
    behind,
    boundary,
    copy_raw,
    entity,
    find_closer,
    gap,
    is_blank,
    kind_of_link,
    magic_word,
    peek,
    put,
    tag_at,
)  # fmt: skip
from query_list.wikitext_names import (
    BLOCK,
    HIDDEN,
    INLINE,
    MEDIA,
    NOWIKI,
    PRE,
    REMOVED,
    TABLE_TAG,
    UNSEEN,
    VERSE,
)  # fmt: skip

# --- marks inside a line --------------------------------------------------------------------------


@njit
def quotes(data, position, out, stack, state):
    """Apostrophes: one is text, more are bold and italic; the position behind them."""
    start = position
    while peek(data, position, state[END]) == APOSTROPHE:
        position += 1
    count = position - start
    in_target = top(stack, state, KIND) == LINK and top(stack, state, DETAIL) in (0, 1)
    marks = 0 if count == 1 or in_target else min(count, 5)
    marks = 3 if marks == 4 else marks
    for _ in range(count - marks):
        put(APOSTROPHE, out, state)
    if marks == 3:
        at = state[AT]
        last = out[at - 1] if at > state[BEGIN] else 0
        before = out[at - 2] if at - 1 > state[BEGIN] else 0
        field = SINGLE if before in (SPACE, NEWLINE) else MULTIPLE
        field = SPACED if last in (SPACE, NEWLINE) else field
        if state[field] < 0:
            state[field] = at
    if marks:
        state[QUOTES] ^= 2 if marks == 2 else marks - 2  # five are both
    return position


@njit
def open_braces(data, position, out, stack, state, index, names):
    """Braces that open a template or a parameter; the position behind them."""
    end, start = state[END], position
    while peek(data, position, end) == BRACE:
        position += 1
    count = position - start
    if count == 2 and peek(data, position, end) == EXCLAMATION:
        closed = peek(data, position + 1, end) == BRACE_END == peek(data, position + 2, end)
        if closed:
            pipe(data, start, out, stack, state, index, names)
            return position + 3
    if count > 1:
        push(TEMPLATE, count, position, stack, state)
    for _ in range(count):
        put(BRACE, out, state)
    return position


@njit
def close_braces(data, position, out, stack, state):
    """Braces that close templates and parameters; the position behind them."""
    start = position
    while peek(data, position, state[END]) == BRACE_END:
        position += 1
    count = position - start
    while count > 1 and state[BRACES]:
        while top(stack, state, KIND) != TEMPLATE:
            give_up(stack, state)
        opened = top(stack, state, DETAIL)
        used = 3 if opened > 2 and count > 2 else 2
        count -= used
        opened -= used
        cut_back(stack, state)
        if opened > 1:
            stack[(state[DEPTH] - 1) * ENTRY + DETAIL] = opened
        else:
            give_up(stack, state)
        if opened == 1:
            put(BRACE, out, state)
        boundary(out, state)
    for _ in range(count):
        put(BRACE_END, out, state)
    return position


@njit
def open_bracket(data, position, out, stack, state, index, names):
    """A bracket that opens a link; the position behind it, or behind an external link's address."""
    end = state[END]
    if address_at(data, position + 1, end, index, names):
        stop = address_end(data, position + 1, state)
        state[EXTERNAL] = 2 if peek(data, stop, end) == BRACKET_END else 1
        while peek(data, stop, end) == SPACE:
            stop += 1
        return stop
    if peek(data, position + 1, end) != BRACKET or address_at(
        data, position + 2, end, index, names
    ):
        put(BRACKET, out, state)
        return position + 1
    if top(stack, state, KIND) == LINK and top(stack, state, DETAIL) <= LABEL:
        give_up(stack, state)  # only captions have links in them
    quoted = peek(data, position + 2, end) == COLON
    if not push(LINK, QUOTED_TARGET if quoted else TARGET, position + 2, stack, state):
        put(BRACKET, out, state)
        put(BRACKET, out, state)
    return position + 2 + quoted


@njit
def pipe(data, position, out, stack, state, index, names):
    """A pipe: the end of a link's target, or of a part of a caption."""
    if top(stack, state, KIND) != LINK or top(stack, state, DETAIL) == LABEL:
        put(PIPE, out, state)
        return
    entry = (state[DEPTH] - 1) * ENTRY
    mode, kind = stack[entry + DETAIL], 0
    if mode == TARGET:
        kind = kind_of_link(data, stack[entry + SOURCE], position, True, state, index, names)
    if kind or mode in (CAPTION, UNSEEN_LABEL):
        mode = mode or (CAPTION if kind == MEDIA else UNSEEN_LABEL)
        boundary(out, state)
    else:
        mode = LABEL
        state[AT] = min(state[AT], stack[entry + OUT])
        state[QUOTES], state[SINGLE], state[MULTIPLE], state[SPACED] = 0, -1, -1, -1
    stack[entry + DETAIL] = mode


@njit
def close_bracket(data, position, out, stack, state, index, names):
    """A bracket that closes a link; the position behind it."""
    end = state[END]
    closes_link = top(stack, state, KIND) == LINK and (peek(data, position + 1, end) == BRACKET_END)
    if state[EXTERNAL] and not (closes_link and peek(data, position + 2, end) != BRACKET_END):
        if state[EXTERNAL] == 2:
            gap(data, position + 1, out, state)
        state[EXTERNAL] = 0
        return position + 1
    if not closes_link:
        put(BRACKET_END, out, state)
        return position + 1
    entry = (state[DEPTH] - 1) * ENTRY
    mode, kind = stack[entry + DETAIL], 0
    if mode == TARGET:
        kind = kind_of_link(data, stack[entry + SOURCE], position, False, state, index, names)
    if mode == CAPTION or kind == MEDIA:
        remove(stack, state)
        boundary(out, state)
    elif mode == UNSEEN_LABEL or kind == HIDDEN:
        remove(stack, state)
        gap(data, position + 2, out, state)
    else:
        if mode == LABEL:
            settle_quotes(out, state)
            for i in range(LINE_FIELDS):
                state[LINE + i] = stack[entry + SAVED + i]
        state[EXTERNAL] = stack[entry + SAVED + EXTERNAL - LINE]
        give_up(stack, state)
    return position + 2


@njit
def comment(data, position, out, stack, state):
    """The position behind a comment, and behind its line where nothing else stands in it."""
    end = state[END]
    stop = position + 4
    while stop < end:
        closes = data[stop] == GREATER and data[stop - 1] == HYPHEN == data[stop - 2]
        if closes and stop >= position + 6:
            break
        stop += 1
    state[WORK] += stop - position
    stop = min(stop + 1, end)
    if position != state[LINE_AT]:
        return stop
    following = stop
    while peek(data, following, end) in (SPACE, TAB):
        following += 1
    if peek(data, following, end) == NEWLINE:
        return begin_line(data, following + 1, out, stack, state)
    return begin_line(data, stop, out, stack, state)


@njit
def tag(data, position, out, stack, state, index, names):
    """A tag or a comment at `<`; the position behind what it removes."""
    end = state[END]
    second = peek(data, position + 1, end)
    if second == EXCLAMATION and (
        peek(data, position + 2, end) == HYPHEN == peek(data, position + 3, end)
    ):
        return comment(data, position, out, stack, state)
    value, name_end, last = tag_at(data, position, state, index, names)
    kind, slot = value & 0xFF, value >> 8
    if kind == 0:
        put(LESS, out, state)
        return position + 1
    closing, alone = second == SLASH, data[last - 1] == SLASH
    after = last + 1
    if kind == INLINE:
        return after
    if kind in (BLOCK, VERSE, TABLE_TAG):
        if kind == VERSE:
            state[POEM] = not (closing or alone)
        elif kind == TABLE_TAG and closing:
            while top(stack, state, KIND) == LINK:
                give_up(stack, state)
            if top(stack, state, KIND) == HTML_TABLE:
                remove(stack, state)
        boundary(out, state)
        if kind == TABLE_TAG and not (closing or alone):
            push(HTML_TABLE, 0, after, stack, state)
        return after
    if closing:
        return after
    stop = after
    if not alone:
        stop = find_closer(data, after, position + 1, name_end, slot, state)
        if stop == end:
            return after
    if kind in (PRE, REMOVED):
        boundary(out, state)
    if kind in (PRE, NOWIKI):
        copy_raw(data, after, stop, out, state, index, names)
    if kind == PRE:
        boundary(out, state)
    if not alone:
        after = behind(data, stop, end)
    if kind == UNSEEN:
        gap(data, after, out, state)
    return after


def strip_rows(
    data, offsets, valid, count, classes, index, names, stack, state, raw_tags, out, out_offsets
):  # fmt: skip
    """Writes the readable text of `count` pages into `out`; the number of bytes looked at.

    `classes` uint8 [256] is 0 for bytes that never mean anything; `out` has room for 5/4 of the
    input; null rows come out empty.
    """
    state[AT] = 0
    state[WORK] = 0
    for row in range(count):
        position = offsets[row]
        end = offsets[row + 1] if valid[row] else position
        state[BEGIN], state[END] = state[AT], end
        state[DEPTH], state[BRACES], state[TABLES], state[POEM] = 0, 0, 0, 0
        state[LINE_AT] = -1
        for i in range(raw_tags):
            state[CLOSERS + i] = -1
        state[WORK] += end - position
        position = begin_line(data, position, out, stack, state)
        while True:
            at = state[AT]
            while position < end and classes[data[position]] == 0:
                out[at] = data[position]
                at += 1
                position += 1
            state[AT] = at
            if position >= end:
                break
            byte = data[position]
            if byte == NEWLINE:
                end_line(data, position, out, stack, state)
                position = begin_line(data, position + 1, out, stack, state)
            elif byte == LESS:
                position = tag(data, position, out, stack, state, index, names)
            elif byte == BRACKET:
                position = open_bracket(data, position, out, stack, state, index, names)
            elif byte == BRACKET_END:
                position = close_bracket(data, position, out, stack, state, index, names)
            elif byte == PIPE:
                pipe(data, position, out, stack, state, index, names)
                position += 1
            elif byte == APOSTROPHE:
                position = quotes(data, position, out, stack, state)
            elif byte == BRACE:
                position = open_braces(data, position, out, stack, state, index, names)
            elif byte == BRACE_END:
                position = close_braces(data, position, out, stack, state)
            elif byte == AMPERSAND:
                position = entity(data, position, out, state, index, names)
            elif byte == COLON:
                position = bare_address(data, position, out, state, index, names)
            else:
                position = magic_word(data, position, out, state)
        end_line(data, end, out, stack, state)
        while state[AT] > state[BEGIN] and is_blank(out[state[AT] - 1]):
            state[AT] -= 1
        out_offsets[row + 1] = state[AT]
    return state[WORK]


_bytes, _int64s = types.CPointer(types.uint8), types.CPointer(types.int64)
_int = types.int64

KERNELS = {
    "strip_rows": (
        strip_rows,
        _int(
            _bytes, _int64s, _bytes, _int, _bytes, _int64s, _bytes, _int64s, _int64s, _int, _bytes,
            _int64s,
        ),
    )
}  # fmt: skip
