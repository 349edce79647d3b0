"""Text is cut where a reader would not read on: bigrams never cross punctuation."""

import re
import unicodedata
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from query_list.segments import spaced_segments
from wit.text import spaced_one

WHITE = re.compile(r"[ \t\u00a0]+")
LETTERS = "aBéß7ſ北の"
OTHERS = " \t\n.,;-'’\"()+€½…\u00a0\u00ad"


def segments(text: str, language: str = "en") -> list[list[str]]:
    found = spaced_segments(pa.array([text]), language).to_pylist()
    return [words.split(" ") for words in found if words]


def pairs(text: str, language: str = "en") -> list[tuple[str, str]]:
    return [pair for words in segments(text, language) for pair in pairwise(words)]


def pairs_by_hand(text: str) -> list[tuple[str, str]]:
    """What the rule says, over characters: the independent second opinion."""
    text = text.replace("\u00ad", "").replace("’", "'")
    pieces = re.findall(r"[^\W_]+|[ \t\u00a0]+|.|\n", text)  # \w takes letters, marks excepted
    pieces = [p for piece in pieces for p in _split_numbers(piece)]
    open_left, open_right = [], []
    for i, piece in enumerate(pieces):
        before = i >= 2 and pieces[i - 1] == "'" and _is_word(pieces[i - 2])
        after = i + 2 < len(pieces) and pieces[i + 1] == "'" and _is_word(pieces[i + 2])
        open_left.append(not (after and len(piece) <= 1))
        open_right.append(not (before and len(piece) <= 2))
    found, last = [], None  # the last word, as long as a word may follow
    for i, piece in enumerate(pieces):
        if _is_word(piece):
            words = spaced_one(piece).split(" ")
            last = last if open_left[i] else None
            found += pairwise([*([last] if last else []), *words])
            last = words[-1] if open_right[i] else None
        elif not WHITE.fullmatch(piece):
            last = None
    return found


def _split_numbers(piece: str) -> list[str]:
    return [p for p in re.split("(½)", piece) if p]


def _is_word(piece: str) -> bool:
    return piece != "½" and unicodedata.category(piece[0])[0] in "LN"


@given(st.text(st.sampled_from(LETTERS + OTHERS), max_size=30))
@example("don't do l'amour, rock'n'roll isn't it")
@example("a' b'c 'd e'")
def test_bigrams_are_words_with_nothing_but_white_space_between(text):
    assert pairs(text) == pairs_by_hand(text)


@given(st.text(st.characters().filter(lambda c: " " not in spaced_one(c)), max_size=40))
def test_no_word_is_lost_or_made_by_cutting(text):
    words = [word for segment in segments(text) for word in segment]
    assert sorted(words) == sorted(word for word in spaced_one(text).split(" ") if word)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The dog. Big cat", [("the", "dog"), ("big", "cat")]),
        ("one\ntwo three", [("two", "three")]),
        ("Faso's own president", [("own", "president")]),
        ("Burkina Faso's president", [("burkina", "faso")]),
        ("a coup d'état began", [("a", "coup"), ("état", "began")]),
        ("state-of-the art", [("the", "art")]),
        ("C++ code", []),
        ("soft\u00adware firm", [("software", "firm")]),
    ],
)
def test_examples(text, expected):
    assert pairs(text) == expected


def test_texts_of_a_batch_are_apart_and_null_is_empty():
    found = spaced_segments(pa.chunked_array([["a b", None], ["", "c d"]])).to_pylist()
    assert [s for s in found if s] == ["a b", "c d"]


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        (
            "zh",
            "北京大学是中国最早的大学。",
            [["北京", "大学", "是", "中国", "最早", "的", "大学"]],
        ),
        ("ja", "東京都に住む\n猫、犬", [["東京", "都", "に", "住む"], ["猫"], ["犬"]]),
        ("th", "ภาษาไทย ง่าย", [["ภาษา", "ไทย", "ง่าย"]]),
        ("zh", "iPhone 手机, 3 年", [["iphone", "手机"], ["3", "年"]]),
    ],
)
def test_words_of_scripts_without_spaces_are_those_of_icu(language, text, expected):
    assert segments(text, language) == expected


def test_elsewhere_each_letter_of_such_a_script_is_a_word():
    assert segments("北京", "en") == [["北", "京"]]
