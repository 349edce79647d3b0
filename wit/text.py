"""The one normalisation that queries and alt texts share.

A string becomes a sequence of tokens, and a query matches a text if its tokens stand in the text's
tokens in one piece. Two steps:

1. fold: NFC, NFKC, case-folded, NFKC (Unicode Standard Annex 15 and section 3.13, D145), repeated
   until nothing changes; format characters and variation selectors (soft hyphen, joiners, byte
   order mark) disappear; a symbol that unfolds to several characters (the trade mark sign to `tm`,
   the square kilogram to `kg`) stands apart from its neighbours; of more than 30 combining marks
   in a row the rest is dropped.
2. tokens: a run of letters, marks and numbers is one token; a letter, mark or number of a script
   written without spaces (Han, kana, Thai, Lao, Khmer, Myanmar, ...) is a token by itself, so that
   such text matches as substrings do; a symbol (`+`, `$`, an emoji) is a token by itself;
   everything else (white space, punctuation, controls, zero width space) separates and is lost.

The normal form joins the tokens with one space, but with none between two of a script written
without spaces, where separators thus never count. It is its own normal form. Results depend on
Python's Unicode version, which `VERSION` names.
"""

import unicodedata
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wit import kernels_loader
from wit.errors import UserError
from wit.kernels_characters import (
    GROWTH,
    SEPARATOR,
    SPACELESS,
    SYMBOL,
    WORD,
    fold_table,
    kind_of,
    limited,
    prepared,
)

VERSION = f"1-unicode-{unicodedata.unidata_version}"

# --- the reference, in plain Python -----------------------------------------------------------


def fold(string: str) -> str:
    """Step 1 of the module's text."""
    while True:
        composed = unicodedata.normalize("NFC", limited(string))
        ready = limited("".join(map(prepared, composed)))
        folded = unicodedata.normalize("NFKC", ready).casefold()
        folded = unicodedata.normalize("NFKC", folded)
        if folded == string:
            return string
        string = folded


def tokens(folded: str) -> list[str]:
    """Step 2 of the module's text, of a folded string."""
    found, start = [], None  # start: of the word that is being read
    for i, char in enumerate(folded):
        kind = kind_of(char)
        if kind == WORD:
            start = i if start is None else start
            continue
        if start is not None:
            found.append(folded[start:i])
            start = None
        if kind in (SPACELESS, SYMBOL):
            found.append(char)
    if start is not None:
        found.append(folded[start:])
    return found


def normalise_one(string: str) -> str:
    """The normal form of a string: the reference that `normalise` equals."""
    while True:
        parts, last = [], SEPARATOR
        for token in tokens(fold(string)):
            kind = kind_of(token[0])
            if parts and not kind == SPACELESS == last:
                parts.append(" ")
            parts.append(token)
            last = kind
        joined = "".join(parts)
        if joined == string:
            return string
        string = joined


def spaced_one(string: str) -> str:
    """All tokens of a string's normal form, each two with a space between: what is matched."""
    return " ".join(tokens(normalise_one(string)))


# --- whole arrays -----------------------------------------------------------------------------


def normalise(strings: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The normal form of each string; null stays null.

    Takes string, large_string or string_view of any length, cut or chunked; gives string, or
    large_string where the result is larger than 2 GiB. Invalid UTF-8 is a UserError naming its row.
    """
    return _normalised(strings, spaced=False)


def spaced(strings: pa.Array | pa.ChunkedArray) -> pa.Array:
    """As `normalise`, but with a space between every two tokens: what `wit.matching` splits."""
    return _normalised(strings, spaced=True)


def plain_array(strings: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One large_string array of valid UTF-8; other encodings of strings are converted."""
    if isinstance(strings, pa.ChunkedArray):
        strings = pa.concat_arrays(strings.chunks) if strings.num_chunks else pa.array([], "string")
    value_type = strings.type.value_type if pa.types.is_dictionary(strings.type) else strings.type
    if not (
        pa.types.is_string(value_type)
        or pa.types.is_large_string(value_type)
        or pa.types.is_string_view(value_type)
        or pa.types.is_null(value_type)
    ):
        raise TypeError(f"strings are needed, not {strings.type}")
    try:
        strings.validate(full=True)
    except pa.ArrowInvalid as error:
        raise UserError(
            f"text that is not UTF-8 ({error}); decode it before, or drop the row"
        ) from error
    return strings.cast(pa.large_string())


class Buffers(NamedTuple):
    """A string array as kernels take it: offsets int64 [n+1], data uint8, valid uint8 [n]."""

    offsets: np.ndarray
    data: np.ndarray
    valid: np.ndarray

    @staticmethod
    def of(array: pa.LargeStringArray) -> "Buffers":
        """Views of the array's own buffers, a slice's too."""
        count = len(array)
        _, offsets, data = array.buffers()
        offsets = np.frombuffer(offsets, np.int64) if count else np.zeros(1, np.int64)
        offsets = offsets[array.offset : array.offset + count + 1] if count else offsets
        empty = data is None or data.size == 0
        data = np.zeros(1, np.uint8) if empty else np.frombuffer(data, np.uint8)
        if array.null_count:
            valid = array.is_valid().cast(pa.uint8()).to_numpy(zero_copy_only=False)
        else:
            valid = np.ones(max(1, count), np.uint8)
        return Buffers(np.ascontiguousarray(offsets), data, np.ascontiguousarray(valid))


def _normalised(strings: pa.Array | pa.ChunkedArray, spaced: bool) -> pa.Array:
    array = plain_array(strings)
    result, rows = _kernel_pass(array, spaced)
    if len(rows) == 0:
        return result
    # Folding starts with NFC, so a row composed beforehand gives the same: mostly it is enough.
    slow = array.take(rows).to_pylist()
    composed = [unicodedata.normalize("NFC", limited(row)) for row in slow]
    again, still = _kernel_pass(pa.array(composed, pa.large_string()), spaced)
    replaced = again.to_pylist()
    for row in still:
        replaced[row] = spaced_one(slow[row]) if spaced else normalise_one(slow[row])
    mask = np.zeros(len(array), bool)
    mask[rows] = True
    return pc.replace_with_mask(result, pa.array(mask), pa.array(replaced, result.type))


def _kernel_pass(array: pa.LargeStringArray, spaced: bool) -> tuple[pa.Array, np.ndarray]:
    """(normal forms, the rows that were left out because characters act upon each other)."""
    kernel = kernels_loader.load("wit.kernels_text", "wit.kernels_characters")["normalise_rows"]
    table = fold_table()
    count = len(array)
    source = Buffers.of(array)
    used = int(source.offsets[-1] - source.offsets[0])
    out = np.empty(used + used // 2 + 4096, np.uint8)
    offsets = np.zeros(count + 1, np.int64)
    slow = np.zeros(max(1, count), np.uint8)
    done = 0
    while True:
        done = kernel(
            source.data, source.offsets, source.valid, done, count,
            table.properties, table.targets, table.expansions, spaced, out, len(out), offsets, slow,
        )  # fmt: skip
        if done == count:
            return _string_array(offsets, out, array), np.flatnonzero(slow[:count])
        row = int(source.offsets[done + 1] - source.offsets[done])
        grown = np.empty(max(2 * len(out), int(offsets[done]) + GROWTH * (row + 1)), np.uint8)
        grown[: offsets[done]] = out[: offsets[done]]
        out = grown


def _string_array(offsets: np.ndarray, data: np.ndarray, like: pa.Array) -> pa.Array:
    size = int(offsets[-1])
    small = size < 2**31 - 1
    kind = pa.string() if small else pa.large_string()
    if small:
        offsets = offsets.astype(np.int32)
    valid = None
    if like.null_count:
        valid = like.is_valid().buffers()[1]
    buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(data[:size])]
    return pa.Array.from_buffers(kind, len(like), buffers)
