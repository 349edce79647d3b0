"""The stack and the lines of `query_list.kernels_wikitext`.

Text is written as it is read; what may have to disappear (a template, a table, a picture's caption)
is written too, and a stack remembers where it began. Its closer cuts the output back to there, and
an opener without a closer has changed nothing: no text is ever looked at again, so the time is
linear in the length, whatever is unclosed, crossed or nested. What is deeper than the stack is
text.
"""

from numba import njit

from query_list.kernels_markup import (
    ALONE,
    APOSTROPHE,
    AT,
    BEGIN,
    BRACE,
    BRACE_END,
    BRACES,
    COLON,
    CUT,
    DEPTH,
    END,
    EQUAL,
    EQUALS,
    EXCLAMATION,
    EXTERNAL,
    HEADING,
    HYPHEN,
    LINE,
    LINE_AT,
    LINE_FIELDS,
    MULTIPLE,
    NEWLINE,
    PIPE,
    POEM,
    QUOTES,
    SEMICOLON,
    SINGLE,
    SPACE,
    SPACED,
    TAB,
    TABLES,
    WORK,
    boundary,
    is_blank,
    peek,
    put,
)  # fmt: skip
from query_list.wikitext_names import STACK

# An entry of the stack: what it is; braces open, or a link's mode; where it began in the output,
# and its inside in the input; then the line as it was.
KIND, DETAIL, OUT, SOURCE, SAVED = range(5)
ENTRY = SAVED + LINE_FIELDS
MAX_DEPTH = STACK // ENTRY
TEMPLATE, TABLE, HTML_TABLE, LINK = range(1, 5)
TARGET, QUOTED_TARGET, LABEL, CAPTION, UNSEEN_LABEL = range(5)  # modes of a link

# --- the stack ------------------------------------------------------------------------------------


@njit
def top(stack, state, field):
    """A field of the innermost entry; 0 where nothing is open."""
    return stack[(state[DEPTH] - 1) * ENTRY + field] if state[DEPTH] else 0


@njit
def push(kind, detail, source, stack, state):
    """Opens something at the end of the output; False where the stack is full."""
    if state[DEPTH] == MAX_DEPTH:
        return False
    entry = state[DEPTH] * ENTRY
    stack[entry + KIND], stack[entry + DETAIL] = kind, detail
    stack[entry + OUT], stack[entry + SOURCE] = state[AT], source
    for i in range(LINE_FIELDS):
        stack[entry + SAVED + i] = state[LINE + i]
    state[EXTERNAL] = 0
    state[DEPTH] += 1
    state[BRACES] += kind == TEMPLATE
    state[TABLES] += kind == TABLE
    return True


@njit
def give_up(stack, state):
    """Forgets the innermost opener: what it began is text."""
    kind = top(stack, state, KIND)
    state[DEPTH] -= 1
    state[BRACES] -= kind == TEMPLATE
    state[TABLES] -= kind == TABLE
    state[WORK] += 1


@njit
def cut_back(stack, state):
    """Takes out what was written since the innermost opener, which stays open."""
    entry = (state[DEPTH] - 1) * ENTRY
    state[AT] = min(state[AT], stack[entry + OUT])
    for i in range(LINE_FIELDS):
        state[LINE + i] = stack[entry + SAVED + i]


@njit
def remove(stack, state):
    """Takes out the innermost thing that is open, and closes it."""
    cut_back(stack, state)
    give_up(stack, state)


# --- lines ----------------------------------------------------------------------------------------


@njit
def insert(byte, times, where, out, state):
    """Writes a byte some times before what stands at `where`."""
    at = state[AT] - 1
    while at >= where:
        out[at + times] = out[at]
        at -= 1
    for i in range(times):
        out[where + i] = byte
    state[WORK] += state[AT] - where
    state[AT] += times


@njit
def settle_quotes(out, state):
    """Ends bold and italic: as in MediaWiki, three of one `'''` too many are one and an italic."""
    if state[QUOTES] == 3:
        for field in (SINGLE, MULTIPLE, SPACED):
            if 0 <= state[field] <= state[AT]:
                insert(APOSTROPHE, 1, state[field], out, state)
                break
    state[QUOTES], state[SINGLE], state[MULTIPLE], state[SPACED] = 0, -1, -1, -1


@njit
def settle_heading(out, state):
    """Removes the marks at both sides of a heading, or puts those at its begin back."""
    begin, marks = state[HEADING], state[EQUALS]
    stop = state[AT]
    while stop > begin and is_blank(out[stop - 1]):
        stop -= 1
    closing = 0
    while stop - closing > begin and out[stop - closing - 1] == EQUAL and closing < marks:
        closing += 1
    state[WORK] += state[AT] - stop + closing
    if closing:
        state[AT] = stop - closing
    if marks > closing:
        insert(EQUAL, marks - closing, begin, out, state)


@njit
def end_line(data, position, out, stack, state):
    """Ends the line whose end is at a position, the page's as well."""
    following = peek(data, position + 1, state[END])
    while top(stack, state, KIND) == LINK:
        mode = top(stack, state, DETAIL)
        open_target = mode in (TARGET, QUOTED_TARGET)
        if not (open_target or following == EQUAL or (following == NEWLINE and mode == LABEL)):
            break
        give_up(stack, state)
    settle_quotes(out, state)
    if 0 <= state[CUT] < state[AT]:
        state[AT] = state[CUT]
    if 0 <= state[HEADING] <= state[AT]:
        settle_heading(out, state)
    goes_on = not (state[ALONE] or state[POEM] or is_blank(following)) and following not in (
        BRACE, PIPE, EQUAL, COLON, SEMICOLON, HYPHEN, 35, 42,
    )  # fmt: skip
    if goes_on and state[AT] > state[BEGIN] and out[state[AT] - 1] > SPACE:
        put(SPACE, out, state)
    elif not goes_on:
        boundary(out, state)


@njit
def begin_line(data, position, out, stack, state):
    """Reads what means something at the begin of a line only; the position behind it."""
    end, start = state[END], position
    for field in range(LINE, LINE + LINE_FIELDS):
        state[field] = -1
    state[QUOTES], state[EXTERNAL], state[EQUALS], state[ALONE] = 0, 0, 0, 1
    byte = peek(data, position, end)
    if byte == EQUAL:
        state[HEADING] = state[AT]
        while peek(data, position, end) == EQUAL:
            position += 1
        state[EQUALS] = position - start
        return position
    while byte in (35, 42, COLON, SEMICOLON):
        position += 1
        byte = peek(data, position, end)
    while byte in (SPACE, TAB):
        position += 1
        byte = peek(data, position, end)
    opener, closer = table_marks(data, position, stack, state)
    if opener:
        if push(TABLE, 0, position, stack, state):
            state[CUT] = state[AT]
        return position + opener
    if closer:
        while top(stack, state, KIND) != TABLE:
            give_up(stack, state)
        remove(stack, state)
        boundary(out, state)
        state[ALONE] = 1
        return position + closer
    if byte == PIPE or (byte == EXCLAMATION and state[TABLES]):
        state[CUT] = state[AT]  # a row of a table that templates or nothing opened
        return position
    if byte == HYPHEN and peek(data, position + 3, end) == HYPHEN:
        while peek(data, position, end) == HYPHEN:
            position += 1
        return position
    state[ALONE] = position > start
    state[LINE_AT] = position
    return position


@njit
def table_marks(data, position, stack, state):
    """(length of the mark that opens a table here, or 0; length of the one that closes it, or 0).

    Templates named `!` and `(!` give the pipe of a mark where a table stands in a template.
    """
    end = state[END]
    byte, following = peek(data, position, end), peek(data, position + 1, end)
    if byte == BRACE and following == PIPE:
        return 2, 0
    if byte == PIPE and following == BRACE_END and state[TABLES]:
        in_template = top(stack, state, KIND) == TEMPLATE
        if not (in_template and peek(data, position + 2, end) == BRACE_END):
            return 0, 2
    if byte != BRACE or following != BRACE or position + 6 > end:
        return 0, 0
    third, fourth = data[position + 2], data[position + 3]
    if data[position + 4] != BRACE_END or data[position + 5] != BRACE_END:
        return 0, 0
    if third == 40 and fourth == EXCLAMATION:  # parenthesis
        return 6, 0
    if third == BRACE and fourth == EXCLAMATION and peek(data, position + 6, end) != BRACE_END:
        return 6, 0
    if third == EXCLAMATION and fourth in (41, BRACE_END) and top(stack, state, KIND) == TABLE:
        return 0, 6
    return 0, 0
