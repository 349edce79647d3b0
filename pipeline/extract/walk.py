"""A walk through the JSON of a WAT record to its image links, without parsing the rest.

The JSON is walked through as its grammar says (RFC 8259) as far as the list of links. In there,
only the bytes `IMG@/src"` are looked for, and the objects of strings round them are walked through.
That finds every image link: in JSON such bytes can only be the end of a string, because a quotation
mark within one is escaped; `{"` can only be the start of an object or the end of a string, and from
the latter no walk succeeds. It gives up where ASCII may be written with escapes and where it does
not meet what it expects; then the record is parsed as a whole. It takes for granted that the rest
of the record is JSON, and that objects with such a path stand in the list of links only.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

from wit.kernel_types import I32, U8, writable

# The values' order is that of their keys here.
KEYS = (b"path", b"url", b"alt", b"title", b"data-image-title", b"srcset")
URL, ALT, TITLE, IMAGE_TITLE, SRCSET = range(1, 6)
WIDTH = 2 * len(KEYS) + 1  # begin and end of each value, then a bit for each that has escapes

_STEPS = (b"Envelope", b"Payload-Metadata", b"HTTP-Response-Metadata", b"HTML-Metadata")
_NAMES = (*_STEPS, b"Head", b"Base", b"Links", *KEYS, b"IMG@/src")
_TEXT = np.frombuffer(b"".join(_NAMES), np.uint8)
_STARTS = np.cumsum([0, *map(len, _NAMES)]).astype(np.int64)
_HEAD, _BASE, _LINKS, _FIRST_KEY, _IMAGE_PATH = 4, 5, 6, 7, len(_NAMES) - 1
_KEYS = len(KEYS)
_WIDTH = WIDTH
_IMAGE = np.frombuffer(b'IMG@/src"', np.uint8)
_SHORTEST = len(b'{"path":"IMG@/src"}')  # bytes of an image link
_GIVE_UP = -1
_RESULT = types.UniTuple(types.int64, 2)


def _enlarge(array: np.ndarray, least: int) -> np.ndarray:
    larger = np.empty(max(least, 2 * len(array)), array.dtype)
    larger[: len(array)] = array
    return larger


class Found:
    """The values of image links, record after record, in two arrays that grow.

    Attributes:
        places: int32 [rows, 13]. Each record of an HTML page has a row for its base, in the place
            of the url, then one for each image link with an alt or a title that is not "", in
            order. Columns 2k and 2k+1 are the begin and the end in `values` of the value of KEYS[k]
            with its quotation marks, -1 where there is none; the last column has bit k set if
            that value has escapes. The last column of a base's row has the number of all image
            links from bit 8 on.
        values: uint8 [used].
    """

    def __init__(self) -> None:
        self._places = np.empty(2**15 * WIDTH, np.int32)
        self._values = np.empty(2**22, np.uint8)
        self.clear()

    def clear(self) -> None:
        """Forgets what was found."""
        self.rows = self.used = 0

    @property
    def places(self) -> np.ndarray:
        """The rows so far."""
        return self._places[: self.rows * WIDTH].reshape(-1, WIDTH)

    @property
    def values(self) -> np.ndarray:
        """The bytes so far."""
        return self._values[: self.used]

    def images(self, row: int) -> int:
        """The number of image links of the record whose first row that is."""
        return int(self._places[(row + 1) * WIDTH - 1]) >> 8

    def add(self, block: bytes | memoryview) -> int:
        """Walks through a record; the rows added: 0 if it is of no HTML page, -1 for giving up."""
        most = (self.rows + 2 + len(block) // _SHORTEST) * WIDTH
        if most > len(self._places):
            self._places = _enlarge(self._places, most)
        if self.used + len(block) > len(self._values):
            self._values = _enlarge(self._values, self.used + len(block))
        data = np.frombuffer(block, np.uint8)
        data.flags.writeable = False
        rows, used = _find_links(data, self._places, self.rows, self._values, self.used)
        if rows > 0:
            self.rows, self.used = self.rows + rows, used
        return rows


@njit(types.int64(U8, types.int64), cache=True, nogil=True)
def _space(data, at):
    """The next place that is not white space."""
    while at < len(data) and (data[at] == 32 or 9 <= data[at] <= 13):
        at += 1
    return at


@njit(types.int64(U8, types.int64), cache=True, nogil=True)
def _string(data, at):
    """The place of the quotation mark that ends the string that starts before `at`; or len(data).

    It is given as a number below 0, -1 - place, if the string has escapes.
    """
    escaped = False
    while at < len(data):
        if data[at] == 34:
            return -1 - at if escaped else at
        if data[at] == 92:
            escaped = True
            at += 1
        at += 1
    return len(data)


@njit(types.int64(U8, types.int64), cache=True, nogil=True)
def _skip(data, at):
    """The place after the value that starts at `at`."""
    depth = 0
    while at < len(data):
        byte = data[at]
        if byte == 34:
            at = _string(data, at + 1)
            if at < 0:
                at = -1 - at
            if depth == 0:
                return at + 1
        elif byte == 123 or byte == 91:
            depth += 1
        elif byte == 125 or byte == 93:
            depth -= 1
            if depth == 0:
                return at + 1
            if depth < 0:
                return at
        elif depth == 0 and (byte == 44 or byte == 32 or 9 <= byte <= 13):
            return at
        at += 1
    return at


@njit(types.boolean(U8, types.int64, types.int64, types.int64), cache=True, nogil=True)
def _is(data, begin, end, name):
    """Whether [begin, end) is the name of that number."""
    first = _STARTS[name]
    if end - begin != _STARTS[name + 1] - first:
        return False
    same = 0
    while same < end - begin and data[begin + same] == _TEXT[first + same]:
        same += 1
    return same == end - begin


@njit(types.UniTuple(types.int64, 3)(U8, types.int64), cache=True, nogil=True)
def _member(data, at):
    """The next member of an object: begin and end of its key, and the place of its value.

    `at` is after the brace or the comma before it. The value's place is -1 at the object's end and
    where there is no member; then the second number is the place of its closing brace, or -1.
    """
    at = _space(data, at)
    if at < len(data) and data[at] == 125:
        return 0, at, -1
    if at >= len(data) or data[at] != 34:
        return 0, -1, -1
    begin = at + 1
    end = _string(data, begin)
    if end < 0 or end >= len(data):
        return 0, -1, -1
    at = _space(data, end + 1)
    if at >= len(data) or data[at] != 58:
        return 0, -1, -1
    at = _space(data, at + 1)
    return begin, end, at if at < len(data) else -1


@njit(types.int64(U8, types.int64), cache=True, nogil=True)
def _after(data, at):
    """The place after the comma that follows a value, or of the bracket that ends its parent."""
    at = _space(data, at)
    return at + 1 if at < len(data) and data[at] == 44 else at


@njit(types.int64(U8, types.int64, types.int64), cache=True, nogil=True)
def _value_of(data, at, name):
    """The place of a named member's value in the object at `at`; len(data) where there is none."""
    if at >= len(data) or data[at] != 123:
        return len(data)
    at += 1
    while True:
        begin, end, value = _member(data, at)
        if value < 0:
            return len(data) if end >= 0 else _GIVE_UP
        if _is(data, begin, end, name):
            return value
        at = _after(data, _skip(data, value))


@njit(types.int64(U8, types.int64), cache=True, nogil=True)
def _next_image(data, at):
    """The place of the next `IMG@/src"`; len(data) if there is none, -1 if it may be escaped."""
    end = len(data) - len(_IMAGE)
    while at < end:
        byte = data[at]
        if byte == 73:
            i = 1
            while i < len(_IMAGE) and data[at + i] == _IMAGE[i]:
                i += 1
            if i == len(_IMAGE):
                return at
        elif byte == 92:
            if data[at - 1] == 64 or (data[at + 1] == 117 and data[at + 2] == 48 == data[at + 3]):
                return _GIVE_UP
            at += 1
        at += 1
    return len(data)


@njit(types.int64(U8, types.int64, types.int64), cache=True, nogil=True)
def _object_of(data, at, least):
    """The place after the brace that starts the list's object in which `at` is; or -1."""
    while at >= least and (data[at] != 123 or data[_space(data, at + 1)] != 34):
        at -= 1
    before = at - 1
    while before >= least and (data[before] == 32 or 9 <= data[before] <= 13):
        before -= 1
    if before < least or (data[before] != 44 and data[before] != 91):
        return _GIVE_UP
    return at + 1


@njit(types.int64(U8, types.int64, writable(I32), types.int64), cache=True, nogil=True)
def _link(data, at, row, start):
    """Notes the values of the link object after whose brace `at` is; the place after the object."""
    for i in range(_WIDTH):
        row[start + i] = -1
    row[start + 2 * _KEYS] = 0
    while True:
        begin, end, value = _member(data, at)
        if value < 0:
            return end + 1 if end >= 0 else _GIVE_UP
        key = -1
        for i in range(_KEYS):
            if _is(data, begin, end, _FIRST_KEY + i):
                key = i
        if key >= 0 and data[value] == 34:
            close = _string(data, value + 1)
            bit = np.int32(1 << key)
            row[start + 2 * _KEYS] &= ~bit
            if close < 0:
                close = -1 - close
                row[start + 2 * _KEYS] |= bit
            row[start + 2 * key] = value
            row[start + 2 * key + 1] = close + 1
            at = close + 1
        else:
            if key >= 0:
                row[start + 2 * key] = -1
                row[start + 2 * key + 1] = -1
            at = _skip(data, value)
        at = _after(data, at)


@njit(types.int64(U8, types.int64, types.int64, writable(U8), types.int64), cache=True, nogil=True)
def _copy(data, begin, end, values, used):
    for i in range(end - begin):
        values[used + i] = data[begin + i]
    return used + end - begin


@njit(types.boolean(writable(I32), types.int64), cache=True, nogil=True)
def _has_text(places, row):
    for key in range(ALT, IMAGE_TITLE + 1):
        if places[row + 2 * key + 1] > places[row + 2 * key] + 2:
            return True
    return False


@njit(_RESULT(U8, writable(I32), types.int64, writable(U8), types.int64), cache=True, nogil=True)
def _find_links(data, places, rows, values, used):
    """Adds a record's rows and values; (rows added, bytes used)."""
    first = rows * _WIDTH
    for i in range(_WIDTH):
        places[first + i] = -1
    places[first + 2 * _KEYS] = 0
    at = _space(data, 0)
    if at >= len(data) or data[at] != 123:
        return _GIVE_UP, used
    for step in range(4):
        at = _value_of(data, at, step)
        if at < 0 or at >= len(data):
            return (_GIVE_UP if at < 0 else 0), used
    if data[at] != 123:
        return 0, used
    base = _value_of(data, at, _HEAD)
    base = _value_of(data, base, _BASE) if base >= 0 else base
    at = _value_of(data, at, _LINKS)
    if at < 0 or base < 0:
        return _GIVE_UP, used
    if base < len(data) and data[base] == 34:
        close = _string(data, base + 1)
        if close < 0:
            close = -1 - close
            places[first + 2 * _KEYS] = 2
        if close >= len(data):
            return _GIVE_UP, used
        places[first + 2] = used
        used = _copy(data, base, close + 1, values, used)
        places[first + 3] = used
    count, images = 1, 0
    least = at
    at = _next_image(data, at)
    while 0 <= at < len(data):
        start = _object_of(data, at, least)
        if start < 0:
            return _GIVE_UP, used
        row = first + count * _WIDTH
        end = _link(data, start, places, row)
        if end <= at or end > len(data):
            return _GIVE_UP, used
        path, path_end = places[row], places[row + 1]
        if path >= 0 and _is(data, path + 1, path_end - 1, _IMAGE_PATH):
            images += 1
            if _has_text(places, row):
                for i in range(2 * _KEYS):
                    if places[row + i] >= 0:
                        places[row + i] += used - start
                used = _copy(data, start, end, values, used)
                count += 1
        least = end
        at = _next_image(data, end)
    places[first + 2 * _KEYS] |= images << 8
    return count if at > 0 else _GIVE_UP, used
