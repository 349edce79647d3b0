"""Text cut into segments, in which only white space stands between words.

Two words of a segment that stand next to each other are a bigram. Punctuation, symbols and ends of
lines cut. An apostrophe inside a word cuts too, and so that contractions and elisions make no
bigrams, what is short beside it (at most two letters behind, one before: the 's of a genitive, n't,
l') has no neighbour on its other side either.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wit import kernels_loader, text
from wit.kernels_characters import fold_table

# Wikipedias in scripts that `wit.text` knows to be written without spaces.
SEGMENTED = frozenset(
    {"gan", "ja", "km", "lo", "lzh", "my", "shn", "th", "wuu", "yue", "zh"}
    | {"zh-classical", "zh-yue"}
)


def spaced_segments(texts: pa.Array | pa.ChunkedArray, language: str = "en") -> pa.Array:
    """The segments of texts, normalised, a space between each two words.

    Args:
        texts: string or large_string, [n]; null is as empty.
        language: code of a Wikipedia (en, zh, zh-yue); for those in SEGMENTED ICU's word
            iterator cuts the words, else every letter of a script without spaces is one.

    Returns: string or large_string [segments]; segments without a word are empty strings.
    """
    array = text.plain_array(texts)
    if array.null_count:
        array = array.fill_null("")
    if language in SEGMENTED:
        return _segmented(array, language)
    cut = _cut(array)
    return _apart(cut, text.spaced(cut))


def _cut(array: pa.LargeStringArray) -> pa.LargeStringArray:
    """The segments as they stand in the texts, marks at their ends included."""
    kernel = kernels_loader.load(
        "query_list.kernels_segments", "wit.kernels_characters", "wit.kernels_text"
    )["cut_rows"]
    table = fold_table()
    source = text.Buffers.of(array)
    count = len(array)
    if count == 0:
        return array
    longest = int(np.diff(source.offsets).max(initial=0))
    used = int(source.offsets[-1] - source.offsets[0])
    cuts = np.empty(2 * longest + used // 4 + 1024, np.int64)
    state = np.zeros(1, np.int64)
    done = 0
    while True:
        done = kernel(
            source.data, source.offsets, done, count,
            table.properties, table.targets, table.expansions, cuts, len(cuts), state,
        )  # fmt: skip
        if done == count:
            break
        cuts = np.concatenate([cuts[: state[0]], np.empty(len(cuts) + 2 * longest, np.int64)])
    offsets = np.append(cuts[: state[0]], source.offsets[-1])
    return pa.Array.from_buffers(
        pa.large_string(), len(offsets) - 1, [None, pa.py_buffer(offsets), array.buffers()[2]]
    )


def _apart(cut: pa.LargeStringArray, segments: pa.Array) -> pa.Array:
    """The segments with those of one character that became several words (a fraction) cut up."""
    lengths = np.diff(text.Buffers.of(cut).offsets)
    rows = np.flatnonzero((lengths > 1) & (lengths <= 4))
    one = pc.equal(pc.utf8_length(cut.take(pa.array(rows))), 1)
    rows = rows[one.to_numpy(zero_copy_only=False)]
    several = rows[pc.match_substring(segments.take(pa.array(rows)), " ").to_numpy(False)]
    if len(several) == 0:
        return segments
    words = pc.split_pattern(segments.take(pa.array(several)), " ").flatten()
    others = np.ones(len(segments), bool)
    others[several] = False
    return pa.concat_arrays([segments.filter(pa.array(others)), words])


def _segmented(array: pa.LargeStringArray, language: str) -> pa.Array:
    """As `spaced_segments`, by ICU's words, each in its normal form."""
    from icu4py.breakers import WordBreaker

    found: list[str] = []
    for string in array.to_pylist():
        found.append("\n")  # between two texts
        found += [string[a:b] for a, b in WordBreaker(string, language).segments()]
    pieces = pa.array(found, pa.large_string())
    words = text.normalise(pieces)
    said, blank, ends = (
        flags.to_numpy(zero_copy_only=False)
        for flags in (
            pc.not_equal(words, ""),
            pc.utf8_is_space(pieces),
            pc.match_substring_regex(pieces, r"[\n\r\x0b\x0c]"),
        )
    )
    cuts = (~said & ~blank) | ends
    segment = np.cumsum(cuts)[said]
    rows = np.concatenate([[0], np.flatnonzero(np.diff(segment)) + 1, [len(segment)]])
    kept = words.filter(pa.array(said))
    if len(kept) == 0:
        return pa.array([], pa.large_string())
    lists = pa.LargeListArray.from_arrays(pa.array(rows, pa.int64()), kept)
    return pc.binary_join(lists, " ")
