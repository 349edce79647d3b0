"""What folding knows of each character: its kind, and for the kernel a table of all of them."""

import bisect
import functools
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wit.kernels_loader import stored

SEPARATOR, WORD, SPACELESS, SYMBOL, IGNORED = range(5)  # what a folded character is

SPACELESS_RANGES = (  # blocks of scripts without spaces between words, inclusive
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),  # ideographic iteration and closing marks, zero
    (0x3021, 0x3029),  # Hangzhou numerals
    (0x3031, 0x303C),  # kana repeat marks, further Hangzhou numerals
    (0x3040, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31FF),  # further Bopomofo and Katakana
    (0x3400, 0x4DBF),  # Han, extension A
    (0x4E00, 0x9FFF),  # Han
    (0xA980, 0xA9FF),  # Javanese, Myanmar extended B
    (0xAA60, 0xAADF),  # Myanmar extended A, Tai Viet
    (0xF900, 0xFAFF),  # Han, compatibility
    (0x11700, 0x1174F),  # Ahom
    (0x16FE0, 0x18DFF),  # iteration marks, Tangut, Khitan
    (0x1AFF0, 0x1B2FF),  # further kana, Nushu
    (0x20000, 0x3FFFF),  # Han, planes 2 and 3
)
SPACELESS_EDGES = [edge for first, last in SPACELESS_RANGES for edge in (first, last + 1)]
BLANKS = frozenset("\u115f\u1160\u2800\u3164\uffa0\u200b")  # look empty, whatever their category
VARIATIONS = frozenset("\u034f\u17b4\u17b5\u180b\u180c\u180d\u180f") | {
    chr(code) for code in range(0xFE00, 0xFE10)
}  # marks without a look of their own
MARKS_KEPT = 30  # of combining marks in a row: Annex 15's limit for streams; no language has more
PICTOGRAPHS = (0x1F000, 0x1FAFF)  # code points still unassigned here are reserved for emoji


def _kind_of(char: str) -> int:
    code, category = ord(char), unicodedata.category(char)
    if char in BLANKS:
        return SEPARATOR
    if category == "Cf" or char in VARIATIONS or 0xE0000 <= code <= 0xE0FFF:
        return IGNORED
    if category[0] in "LMN":
        return SPACELESS if bisect.bisect(SPACELESS_EDGES, code) % 2 else WORD
    unassigned_emoji = category == "Cn" and PICTOGRAPHS[0] <= code <= PICTOGRAPHS[1]
    return SYMBOL if category[0] == "S" or unassigned_emoji else SEPARATOR


@functools.lru_cache(maxsize=1 << 14)
def kind_of(char: str) -> int:
    """SEPARATOR, WORD, SPACELESS, SYMBOL or IGNORED; for a character that `fold` keeps as it is."""
    return _kind_of(char)


@functools.lru_cache(maxsize=1 << 14)
def prepared(char: str) -> str:
    """What stands for a character before NFKC: nothing if ignored, set apart if it is to be."""
    kind = kind_of(char)
    if kind == IGNORED:
        return ""
    apart = kind == SYMBOL and len(unicodedata.normalize("NFKC", char)) > 1
    return f" {char} " if apart else char


@functools.cache
def _mark_run() -> re.Pattern[str]:
    marks = "".join(chr(code) for code in range(0x300, 0x20000) if unicodedata.combining(chr(code)))
    return re.compile(f"([{marks}]{{{MARKS_KEPT}}})[{marks}]+")


def limited(string: str) -> str:
    """The string without the marks of a run that come after its 30th: sorting them is quadratic."""
    return _mark_run().sub(r"\1", string) if len(string) > MARKS_KEPT else string


TABLE_SIZE = 0x40000  # planes 0 to 3; above them stand ignored and separating characters only
EXPANDS = 5  # the kind of a code point that folds to several characters, or to none
MAYBE, COMPOSES, ALWAYS_SLOW = 8, 16, 32
GROWTH = 16  # bytes of normal form for one byte of input: never more (tested)


class FoldTable(NamedTuple):
    """What the kernel knows of each code point below TABLE_SIZE.

    properties uint32: bits 0-2 kind of the folded character; flags MAYBE (can compose with a
    character before it), COMPOSES (with one behind it), ALWAYS_SLOW; bits 8-15 and 16-23 the
    canonical combining class of its first and last character.
    targets int32: the folded character, or for EXPANDS an index into expansions int32: a count,
    then character | kind << 24 as often.
    """

    properties: np.ndarray
    targets: np.ndarray
    expansions: np.ndarray


def _compositions() -> tuple[set[int], set[int]]:
    """Code points that can be the first, and the later, part of a canonical composition."""
    firsts = set(range(0x1100, 0x1113)) | set(range(0xAC00, 0xD7A4))
    laters = set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))
    pairs = []
    for code in range(0xC0, 0x1F000):
        if 0x3400 <= code < 0xA000 or 0xAC00 <= code < 0xFB00:
            continue
        parts = unicodedata.decomposition(chr(code))
        if parts and parts[0] != "<" and unicodedata.is_normalized("NFC", chr(code)):
            pairs.append((code, *[int(part, 16) for part in parts.split()]))
    laters.update(second for _, _, second in pairs)
    bases = {first for _, first, _ in pairs} | firsts
    # A character that decomposes to such a base can give up its own mark for a later one.
    firsts |= bases
    firsts.update(
        code
        for code in range(0xC0, 0x1F000)
        if unicodedata.decomposition(chr(code))
        and any(ord(c) in bases for c in unicodedata.normalize("NFKD", chr(code)))
    )
    return firsts, laters


@functools.cache
def fold_table() -> FoldTable:
    """The table, built from Python's own Unicode data once a machine (0.6 s), then read."""
    made = stored(
        "fold_table.bin",
        [Path(__file__)],
        [unicodedata.unidata_version],
        lambda: np.concatenate([part.view(np.int32) for part in build_fold_table()]).tobytes(),
    )
    parts = np.frombuffer(made, np.int32)
    properties = parts[:TABLE_SIZE].view(np.uint32)
    return FoldTable(properties, parts[TABLE_SIZE : 2 * TABLE_SIZE], parts[2 * TABLE_SIZE :])


def build_fold_table() -> FoldTable:
    """The table, from Python's own Unicode data."""
    firsts, laters = _compositions()
    chars = "".join(map(chr, range(0xD800))) + "\0" * 0x800
    chars += "".join(map(chr, range(0xE000, TABLE_SIZE)))  # surrogates are in no text
    properties = np.fromiter(map(_kind_of, chars), np.uint32, TABLE_SIZE)
    targets = np.arange(TABLE_SIZE, dtype=np.int32)
    expansions: list[int] = []
    for start in range(0, TABLE_SIZE, 256):
        block = chars[start : start + 256]
        if _inert(block):
            continue
        for code, char in enumerate(block, start):
            stages = _stages(char)
            folded = stages[-1]
            if len(folded) == 1:
                properties[code], targets[code] = _kind_of(folded), ord(folded)
            elif folded:
                properties[code], targets[code] = EXPANDS, len(expansions)
                expansions.append(len(folded))
                expansions.extend(ord(c) | _kind_of(c) << 24 for c in folded)
            properties[code] |= _context(stages, firsts, laters)
    properties[sorted(firsts)] |= COMPOSES
    properties[sorted(laters)] |= MAYBE
    return FoldTable(properties, targets, np.array(expansions, np.int32))


def _inert(block: str) -> bool:
    """Whether no character of a block folds to another or combines (Han, Hangul, unassigned)."""
    same = unicodedata.normalize("NFKC", block).casefold() == block
    return same and set(map(unicodedata.category, block)) <= {"Lo", "Cn", "Co", "Cc"}


def _stages(char: str) -> list[str]:
    """The string after each normalisation while a character is folded; the last is folded."""
    stages = [unicodedata.normalize("NFC", char)]
    while True:
        before = stages[-1]
        ready = "".join(map(prepared, unicodedata.normalize("NFC", before)))
        stages.append(unicodedata.normalize("NFKC", ready))
        stages.append(unicodedata.normalize("NFKC", stages[-1].casefold()))
        if stages[-1] == before:
            return stages


def _context(stages: list[str], firsts: set[int], laters: set[int]) -> int:
    """How a code point can meet its neighbours, whatever stage of folding it has reached."""
    bits, leads, tail = 0, set(), 0
    for stage in filter(None, stages):
        leads.add(unicodedata.combining(stage[0]))
        tail = max(tail, unicodedata.combining(stage[-1]))
        if ord(stage[0]) in laters:
            bits |= MAYBE
        starters = [char for char in stage if unicodedata.combining(char) == 0]
        if starters and ord(starters[-1]) in firsts:
            bits |= COMPOSES
        # Between two spaceless tokens the separator goes, so such a mark would reach back over it.
        if any(kind_of(mark) == SPACELESS and unicodedata.combining(mark) for mark in stage[1:]):
            bits |= ALWAYS_SLOW
    if len(leads) > 1:
        bits |= ALWAYS_SLOW
    return bits | max(leads, default=0) << 8 | tail << 16
