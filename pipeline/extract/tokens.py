"""The tags of a page that have to do with images, found by HTML's tokenizer in one linear pass.

It follows the tokenization of the HTML Standard (section 13.2.5): comments, quoted attributes,
scripts with their escaped states, raw text elements, foreign content. It builds no tree: a tree
builder's time grows with the square of the depth or of the attributes of a tag, so that a hostile
megabyte holds one up for a minute (lexbor 2.6: 36 s for 142,000 attributes, and as long for nested
<div>s), and its tree is not needed here. On real pages it finds the images that lexbor finds
(tests/pipeline/test_extract_html.py).
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

from wit.kernel_types import I32, U8, writable

(IMG, AMP_IMG, SOURCE, BASE, NOSCRIPT, FIGURE, FIGCAPTION, PICTURE, TEMPLATE) = range(1, 10)
KINDS = {
    b"img": IMG,
    b"image": IMG,
    b"amp-img": AMP_IMG,
    b"source": SOURCE,
    b"base": BASE,
    b"noscript": NOSCRIPT,
    b"figure": FIGURE,
    b"figcaption": FIGCAPTION,
    b"picture": PICTURE,
    b"template": TEMPLATE,
}
SCRIPT, PLAINTEXT, FOREIGN, BREAKOUT, RAW = 20, 21, 22, 23, 24
KINDS |= {b"script": SCRIPT, b"plaintext": PLAINTEXT, b"svg": FOREIGN, b"math": FOREIGN}
KINDS |= dict.fromkeys([b"style", b"textarea", b"title", b"iframe"], RAW)
KINDS |= dict.fromkeys([b"noembed", b"noframes", b"xmp"], RAW)
# Start tags that end foreign content, from 13.2.6.5; <img> does too.
KINDS |= dict.fromkeys(
    b"b big blockquote body br center code dd div dl dt em embed h1 h2 h3 h4 h5 h6 head hr i li "
    b"listing menu meta nobr ol p pre ruby s small span strong strike sub sup table tt u ul "
    b"var".split(),
    BREAKOUT,
)
LONGEST_NAME = max(map(len, KINDS))

# A name is a number in base 41 (letters, digits, hyphen), below 2**64 up to 11 characters; its kind
# stands in the slot `number % SLOTS` of a table without collisions.
_DIGIT = np.zeros(256, np.uint64)
for _value, _letter in enumerate(b"abcdefghijklmnopqrstuvwxyz0123456789-", 1):
    _DIGIT[_letter] = _DIGIT[ord(chr(_letter).upper())] = _value


def _number(name: bytes) -> int:
    number = 0
    for letter in name:
        number = number * 41 + int(_DIGIT[letter])
    return number


_NUMBERS = {_number(name): kind for name, kind in KINDS.items()}
SLOTS = np.uint64(next(m for m in range(64, 4096) if len({n % m for n in _NUMBERS}) == len(KINDS)))
_NUMBER_IN = np.zeros(SLOTS, np.uint64)
_KIND_IN = np.zeros(SLOTS, np.int32)
for _n, _kind in _NUMBERS.items():
    _NUMBER_IN[_n % int(SLOTS)], _KIND_IN[_n % int(SLOTS)] = _n, _kind


def find_tags(page: bytes) -> np.ndarray:
    """Returns int32 [n, 3]: kind, start, end of the n tags in the order of the page.

    A start tag has its kind, and [start, end) are its attributes; `end` is the place of its `>`.
    An end tag has the kind below 0, and `start` is the place of its `<`. SOURCE, BASE and images
    have no end tags. The page is bytes in UTF-8, or in any encoding that has ASCII as ASCII.
    """
    found, count = _find_tags(np.frombuffer(page, np.uint8))
    return found[:count].reshape(-1, 3)


@njit(types.boolean(types.uint8), cache=True)
def _ends_name(byte):
    return byte == 62 or byte == 47 or byte == 32 or (9 <= byte <= 13 and byte != 11)


@njit(types.boolean(types.uint8), cache=True)
def _is_space(byte):
    return byte == 32 or (9 <= byte <= 13 and byte != 11)


@njit(types.boolean(types.uint8), cache=True)
def _is_letter(byte):
    return 97 <= (byte | 32) <= 122


@njit(types.int64(U8, types.int64, types.uint8), cache=True)
def _find(data, at, byte):
    while at < len(data) and data[at] != byte:
        at += 1
    return at


@njit(types.int64(U8, types.int64), cache=True, nogil=True)
def _skip_attributes(data, at):
    """The place of the tag's `>`, or len(data) if the page ends before."""
    end = len(data)
    while at < end:
        byte = data[at]
        if byte == 62:
            return at
        if byte == 47 or _is_space(byte):
            at += 1
            continue
        at += 1  # a name's first byte may be anything, also an equals sign
        while at < end and data[at] != 61 and not _ends_name(data[at]):
            at += 1
        while at < end and _is_space(data[at]):
            at += 1
        if at >= end or data[at] != 61:
            continue
        at += 1
        while at < end and _is_space(data[at]):
            at += 1
        if at >= end:
            return end
        if data[at] == 34 or data[at] == 39:
            at = _find(data, at + 1, data[at]) + 1
        else:
            while at < end and data[at] != 62 and not _is_space(data[at]):
                at += 1
    return end


@njit(types.int64(U8, types.int64), cache=True, nogil=True)
def _skip_comment(data, at):
    """The place after a comment whose `<!--` ends before `at`."""
    end = len(data)
    if at < end and data[at] == 62:
        return at + 1
    if at + 1 < end and data[at] == 45 and data[at + 1] == 62:
        return at + 2
    while True:
        at = _find(data, at, 45)
        if at + 2 >= end:
            return end
        if data[at + 1] == 45:
            if data[at + 2] == 62:
                return at + 3
            if at + 3 < end and data[at + 2] == 33 and data[at + 3] == 62:
                return at + 4
        at += 1


@njit(types.boolean(U8, types.int64, types.int64, types.int64), cache=True, nogil=True)
def _same_name(data, at, name, length):
    """Whether the name of `length` bytes at `name` stands at `at`, in any case, and ends there."""
    if at + length >= len(data) or not _ends_name(data[at + length]):
        return False
    same = 0
    while same < length and (data[at + same] | 32) == (data[name + same] | 32):
        same += 1
    return same == length


@njit(types.int64(U8, types.int64, types.int64, types.int64, types.boolean), cache=True, nogil=True)
def _skip_raw(data, at, name, length, script):
    """The place of the `</` that ends the raw text element named at `name`, or len(data)."""
    end = len(data)
    escaped = 0  # script: 1 after <!--, 2 in a <script> within it
    while True:
        byte = data[at] if at < end else 0
        while at < end and byte != 60 and (escaped == 0 or byte != 45):
            at += 1
            byte = data[at] if at < end else 0
        if at + 1 >= end:
            return end
        if byte == 45:
            if at + 2 < end and data[at + 1] == 45 and data[at + 2] == 62:
                escaped = 0
        elif data[at + 1] == 47:
            if _same_name(data, at + 2, name, length):
                if escaped < 2:
                    return at
                escaped = 1
        elif script:
            if escaped == 1 and _same_name(data, at + 1, name, length):
                escaped = 2
            elif (
                escaped == 0
                and at + 3 < end
                and data[at + 1] == 33
                and data[at + 2] == 45
                and data[at + 3] == 45
            ):
                escaped = 1
                at += 1  # the dashes may be those of -->, too
        at += 1


@njit(types.int64(U8, types.int64), cache=True, nogil=True)
def _skip_cdata(data, at):
    end = len(data)
    while at + 2 < end:
        if data[at] == 93 and data[at + 1] == 93 and data[at + 2] == 62:
            return at + 3
        at += 1
    return end


@njit(types.Tuple((writable(I32), types.int64))(U8), cache=True, nogil=True)
def _find_tags(data):
    found = np.empty(192, np.int32)
    count = 0
    foreign = 0  # how deep in <svg> or <math>
    end = len(data)
    at = _find(data, 0, 60)
    while at + 1 < end:
        start = at
        byte = data[at + 1]
        closing = byte == 47
        if closing and at + 2 < end:
            byte = data[at + 2]
        if not _is_letter(byte):
            if data[at + 1] == 33 and at + 3 < end and data[at + 2] == 45 and data[at + 3] == 45:
                at = _skip_comment(data, at + 4)
            elif foreign > 0 and data[at + 1] == 33 and at + 8 < end and data[at + 2] == 91:
                at = _skip_cdata(data, at + 9)
            elif data[at + 1] == 33 or data[at + 1] == 63 or closing:
                at = _find(data, at + 1, 62) + 1
            else:
                at += 1
            at = _find(data, at, 60)
            continue
        name = at + 2 if closing else at + 1
        after = name
        number = np.uint64(0)
        while after < end and not _ends_name(data[after]):
            if after - name < LONGEST_NAME:
                number = number * np.uint64(41) + _DIGIT[data[after]]
            after += 1
        close = _skip_attributes(data, after)
        if close >= end:
            break
        at = close + 1
        slot = number % SLOTS
        known = _NUMBER_IN[slot] == number
        kind = _KIND_IN[slot] if known and after - name <= LONGEST_NAME else 0
        if kind == 22:
            if closing:
                foreign -= 1 if foreign else 0
            elif data[close - 1] != 47:
                foreign += 1
        elif kind >= 20 and not closing:
            if kind == 23:
                foreign = 0
            elif foreign == 0:
                if kind == 21:
                    break
                at = _skip_raw(data, at, name, after - name, kind == 20)
        elif 0 < kind < 20 and (not closing or kind > 4):
            if kind == 1 and not closing:
                if foreign > 0 and after - name == 5:
                    kind = 0  # <image> is a picture's element in SVG, an alias of <img> elsewhere
                foreign = 0 if kind else foreign
            if kind:
                if count == len(found):
                    larger = np.empty(2 * len(found), np.int32)
                    for i in range(count):
                        larger[i] = found[i]
                    found = larger
                found[count] = -kind if closing else kind
                found[count + 1] = start if closing else after
                found[count + 2] = close
                count += 3
        at = _find(data, at, 60)
    return found, count
