"""Which normal forms (`wit.text`) are usable as queries: those that mean something alone.

What is one character, once normalised, means nothing alone (a letter, a digit, a kana, a mark, a
frame, an arrow), unless it is a Han character, which may be a word, or a pictograph (U+2600 to
U+27BF, U+1F000 to U+1FAFF).

In English the ends of contractions mean nothing alone, nor do the stems of the negative ones that
are no words by themselves: "doesn" would match in each "doesn't". `don`, `won`, `can`, `haven`,
`shan` and `daren` are words or names, and stay. A bigram that ends in such a stem ("it doesn") is
cut off in the middle of a word.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wit import text
from wit.matching import Matcher, unmatchable

ENGLISH = ("en", "simple")  # codes of Wikipedias
ENDS = ("ll", "re", "ve", "n t")  # of we'll, you're, I've, don't, normalised
STEMS = (  # of ain't to wouldn't
    *("ain", "aren", "couldn", "didn", "doesn", "hadn", "hasn", "isn", "mayn", "mightn", "mustn"),
    *("needn", "oughtn", "shouldn", "usedn", "wasn", "weren", "wouldn"),
)
ALONE = np.array(  # ranges of characters that mean something alone, inclusive
    [
        (0x2600, 0x27BF),
        (0x3400, 0x4DBF),
        (0x4E00, 0x9FFF),
        (0xF900, 0xFAFF),
        (0x1F000, 0x1FAFF),
        (0x20000, 0x3FFFF),
    ]
)


def usable(queries: pa.Array, language: str = "en") -> np.ndarray:
    """Returns bool [n]: False for normal forms that are empty or mean nothing alone.

    `language` is the code of the corpus's Wikipedia: contractions are left out in `en` and `simple`
    only, for `ve` is Turkish and `re` Italian.
    """
    length = pc.utf8_length(queries).to_numpy(zero_copy_only=False)
    means = length > 0
    single = np.flatnonzero(length == 1)
    # A character padded to four bytes is its code point: NumPy's strings are UTF-32.
    characters = np.array(queries.take(pa.array(single)).to_pylist(), "U1").view(np.uint32)
    place = np.searchsorted(ALONE[:, 0], characters, "right") - 1
    means[single] = (place >= 0) & (characters <= ALONE[place, 1])
    if language in ENGLISH:
        means &= ~_among(queries, (*ENDS, *STEMS))
    return means


def cut_off(bigrams: pa.Array, language: str = "en") -> np.ndarray:
    """Returns bool [n]: True for bigrams whose last word is the stem of an English contraction."""
    if language not in ENGLISH:
        return np.zeros(len(bigrams), bool)
    pattern = f" (?:{'|'.join(STEMS)})$"
    return pc.match_substring_regex(bigrams, pattern).to_numpy(zero_copy_only=False)


def never_matching(queries: pa.Array) -> pa.Array:
    """Those of distinct queries that are not their own normal form or do not match themselves.

    A list that is fit to be used gives none.
    """
    fit = pc.equal(text.normalise(queries), queries).to_numpy(zero_copy_only=False).copy()
    fit[unmatchable(queries)["index"].to_numpy()] = False
    rows = np.flatnonzero(fit)
    proper = queries.take(pa.array(rows))
    found = Matcher.build(proper).match(proper)
    parents = np.repeat(np.arange(len(rows)), np.diff(found.offsets.to_numpy()))
    matched = np.zeros(len(rows), bool)
    matched[parents[found.values.to_numpy() == parents]] = True
    fit[rows[~matched]] = False
    return queries.filter(pa.array(~fit))


def _among(queries: pa.Array, words: tuple[str, ...]) -> np.ndarray:
    found = pc.is_in(queries, pa.array(words, queries.type))
    return found.to_numpy(zero_copy_only=False)
