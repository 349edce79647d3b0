"""Queries and texts share one normal form, and the kernel gives the reference's."""

import random
import time
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.matching import read_texts
from wit import text
from wit.errors import UserError
from wit.kernels_characters import (
    GROWTH,
    SPACELESS,
    TABLE_SIZE,
    WORD,
    _compositions,
    build_fold_table,
    fold_table,
    kind_of,
)

NASTY = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("aZéİıßſΣςǰ ,.-+=™№㎏ﬁⅷ½Å\u00ad\u200b\u200d\ufe0f\u034f\u115f\u3164"),
        st.sampled_from("か゛ﾞ\u3099\u309aｶﾊ゚ー東京々ไทยู้\u0e38\u0e48ခု\u1025\u102eេក្ភ\u1b05\u1b35"),
        st.sampled_from(
            "\u0301\u0316\u0323\u0327\u0338\u0345\u0307\u0308´¨ͺ\u05b0\u05bc\u064b\u0651"
        ),
        st.sampled_from(
            "\u1100\u1161\u11a8각한\u0928\u093c\u0915\u09c7\u09be\u0bc6\u0bbe\U0001d15e"
        ),
    ),
    max_size=25,
)


def both(string: str) -> str:
    """The normal form by the kernel, once it is sure that the reference agrees."""
    (fast,) = text.normalise(pa.array([string])).to_pylist()
    assert fast == text.normalise_one(string)
    return fast


@pytest.mark.parametrize(
    ("string", "form"),
    [
        ("A Photo of\ta DOG,\u3000outside!", "a photo of a dog outside"),
        ("T-shirt; rock'n'roll (1990)", "t shirt rock n roll 1990"),
        ("St. Louis, U.S.", "st louis u s"),
        ("Straße STRASSE", "strasse strasse"),
        ("ΣΊΣΥΦΟΣ σίσυφος", "σίσυφοσ σίσυφοσ"),
        ("ﬁne ｆｕｌｌ ⅷ", "fine full viii"),
        ("Cafe\u0301 café", "café café"),
        ("İstanbul", "i̇stanbul"),
        ("soft\u00adhyphen zero\u200bwidth jo\u200din", "softhyphen zero width join"),
        ("C++ $5 a|b", "c + + $ 5 a | b"),
        ("I ❤️ NY 👍🏽", "i ❤ ny 👍 🏽"),
        ("Nike™ 5㎏ №7", "nike tm 5 kg no 7"),
        ("東京、大阪 2024年", "東京大阪 2024 年"),
        ("ｶﾞｰﾃﾞﾝ ガーデン", "ガーデンガーデン"),
        ("かわいい cat ねこ", "かわいい cat ねこ"),
        ("ผู้หญิง สวย", "ผู้หญิงสวย"),
        ("한국 사람", "한국 사람"),
        ("हिन्दी भाषा", "हिन्दी भाषा"),
        ("می\u200cخواهم", "میخواهم"),
        ("\ud55c\u1112\u1161\u11ab", "한한"),
        ("ק\u05bc\u05b8", "ק\u05b8\u05bc"),
        ("か゛ か 、\u3099", "がが"),
        ("ก\u0e39\u0e48\u0e2f\u3000\u0e38", "ก\u0e39\u0e48\u0e2f\u0e38"),
        ("ก\u0e39\u0e48\u3000\u0e38", "ก\u0e39\u0e38\u0e48"),
        ("\u1025\u104b\u102e", "\u1026"),
        ("...!?", ""),
        ("", ""),
    ],
)
def test_a_string_has_the_normal_form_that_a_person_expects(string, form):
    assert both(string) == form
    assert both(form) == form


def test_in_the_spaced_form_every_token_stands_alone():
    strings = ["東京タワー tower+", "c++", None, ""]
    expected = ["東 京 タ ワ ー tower +", "c + +", None, ""]
    assert text.spaced(pa.array(strings)).to_pylist() == expected


@settings(max_examples=1500, deadline=None)
@given(st.lists(NASTY, max_size=8))
def test_the_kernel_equals_the_reference(strings):
    array = pa.array(strings, pa.string())
    assert text.normalise(array).to_pylist() == [text.normalise_one(s) for s in strings]
    assert text.spaced(array).to_pylist() == [text.spaced_one(s) for s in strings]


@settings(max_examples=500, deadline=None)
@given(NASTY)
def test_a_normal_form_is_its_own_normal_form_in_every_unicode_normalisation(string):
    form = both(string)
    assert both(form) == form
    assert text.tokens(text.fold(form)) == [t for t in text.spaced_one(string).split(" ") if t]
    for other in ("NFC", "NFD"):
        assert both(unicodedata.normalize(other, string)) == form


def _differing(strings: list[str]) -> list[str]:
    forms = text.normalise(pa.array(strings, pa.string())).to_pylist()
    return [s for s, form in zip(strings, forms, strict=True) if form != text.normalise_one(s)]


def _code_points(first: int, last: int) -> list[str]:
    return [f"a{chr(c)}b" for c in range(first, last) if not 0xD800 <= c < 0xE000]


def test_every_code_point_of_the_first_two_planes_is_folded_as_the_reference_does():
    assert _differing(_code_points(0, 0x20000)) == []
    assert _differing(_code_points(0x2F800, 0x2FA20) + _code_points(0xE0000, 0xE0200)) == []


@pytest.mark.long
def test_every_code_point_is_folded_as_the_reference_does():
    assert _differing(_code_points(0x20000, 0x110000)) == []


def test_every_base_with_every_mark_that_could_compose_is_folded_as_the_reference_does():
    firsts, laters = _compositions()
    firsts = [c for c in sorted(firsts) if not 0xAC00 <= c < 0xD7A4]
    marks = "".join(map(chr, sorted(laters)))
    pairs = [chr(base) + mark for base in firsts[::7] for mark in marks]
    pairs += [chr(base) + "x" + chr(base) + mark for base in firsts for mark in marks[::9]]
    assert _differing(pairs) == []


def test_any_two_marks_come_into_order_as_the_reference_puts_them():
    marks = {}  # one of each combining class, and those that compose
    for code in range(0x300, 0x1F000):
        marks.setdefault(unicodedata.combining(chr(code)), chr(code))
    del marks[0]
    assert len(marks) > 40
    some = [*marks.values(), "\u0301", "\u0e39", "\u3099", "\u309a", "\ufe0f", " ", "\u3000", "ﾞ"]
    strings = [base + a + b for base in ("b", "ש", "ก", "か", "é", "İ") for a in some for b in some]
    assert _differing(strings) == []


def test_real_texts_are_normalised_as_the_reference_does(shared_data):
    texts = read_texts(shared_data)
    assert len(texts["alt"]) > 12_000
    assert _differing(texts["alt"] + texts["laion"] + texts["cc3m"][::4]) == []
    composed = [unicodedata.normalize("NFD", alt) for alt in texts["alt"] if not alt.isascii()]
    assert _differing(composed) == []


def test_spaceless_characters_are_those_of_the_scripts_written_without_spaces():
    scripts = [
        "Han",
        "Hiragana",
        "Katakana",
        "Bopomofo",
        "Thai",
        "Lao",
        "Khmer",
        "Myanmar",
        "Tai_Le",
        "New_Tai_Lue",
        "Tai_Tham",
        "Tai_Viet",
        "Balinese",
        "Javanese",
        "Ahom",
        "Tangut",
        "Nushu",
        "Khitan_Small_Script",
    ]
    inside = regex.compile("[" + "".join(rf"\p{{Script={name}}}" for name in scripts) + "]")
    neutral = regex.compile(r"[\p{Script=Common}\p{Script=Inherited}]")
    wrong = []
    for code in range(TABLE_SIZE):
        char = chr(code)
        if unicodedata.category(char)[0] not in "LMN" or text.fold(char) != char:
            continue
        kind = kind_of(char)
        if (kind == SPACELESS and not inside.match(char) and not neutral.match(char)) or (
            kind == WORD and inside.match(char)
        ):
            wrong.append(f"{code:x}")
    assert wrong == []


def test_the_stored_table_is_what_is_built():
    for stored, built in zip(fold_table(), build_fold_table(), strict=True):
        assert stored.dtype == built.dtype
        assert (stored == built).all()


def test_no_code_point_grows_beyond_what_the_kernel_makes_room_for():
    table = fold_table()
    expanding = np.flatnonzero(table.properties & 7 == 5)
    assert len(expanding) > 1_000
    growth = [
        (len(text.spaced_one(chr(code)).encode()) + 1) / len(chr(code).encode())
        for code in expanding
    ]
    assert 5 < max(growth) < GROWTH


def test_arrays_of_every_layout_give_the_same():
    strings = ["Über", None, "Ein,  Test", "", "𝐁old™", "e\u0301", "x" * 5000]
    expected = [None if s is None else text.normalise_one(s) for s in strings]
    array = pa.array(strings)
    layouts = [
        array,
        array.cast(pa.large_string()),
        array.cast(pa.string_view()),
        array.dictionary_encode(),
        pa.chunked_array([array[:2], array[2:2], array[2:]]),
        pa.concat_arrays([pa.array(["before"]), array, pa.array([None, "behind"])])[1:8],
    ]
    for layout in layouts:
        result = text.normalise(layout)
        assert result.to_pylist() == expected
        result.validate(full=True)
    assert text.normalise(array[3:4]).to_pylist() == [""]
    for empty in (pa.array([], pa.string()), pa.chunked_array([], pa.string()), array[3:3]):
        assert text.normalise(empty).to_pylist() == []
    assert text.normalise(pa.nulls(2)).to_pylist() == [None, None]


def test_what_is_not_text_is_refused_with_its_row():
    offsets, data = pa.py_buffer(np.array([0, 2, 4], np.int32)), pa.py_buffer(b"ok\xff\xfe")
    broken = pa.Array.from_buffers(pa.string(), 2, [None, offsets, data])
    with pytest.raises(UserError, match="index 1"):
        text.normalise(broken)
    with pytest.raises(TypeError, match="int64"):
        text.normalise(pa.array([1, 2]))


def test_null_rows_are_never_looked_into():
    offsets, data = pa.py_buffer(np.array([0, 2, 4], np.int64)), pa.py_buffer(b"ok\xff\xfe")
    validity = pa.py_buffer(b"\x01")
    array = pa.Array.from_buffers(pa.large_string(), 2, [validity, offsets, data], 1)
    assert text.normalise(array).to_pylist() == ["ok", None]


@pytest.mark.parametrize(
    "unit",
    ["\u0301\u0316", "\u0301", "e\u00ad\u0301", "か゛", "a\u0316\u0301\u0316", "\u0e48", "™"],
)
def test_a_text_of_a_hundred_thousand_marks_takes_no_longer_than_another(unit):
    string = "a" + unit * (100_000 // len(unit))
    start = time.perf_counter()
    (form,) = text.normalise(pa.array([string])).to_pylist()
    assert time.perf_counter() - start < 5
    assert both(form) == form


def test_a_hundred_kilobytes_of_anything_are_normalised_as_the_reference_does():
    pieces = ["word ", "Wörter, ", "東京", "+", "ผู้", "e\u0301", "\ufdfa", "ﬁ"]
    string = "".join(random.Random(1).choices(pieces, k=20_000))
    assert text.normalise(pa.array(["a", string, "b"])).to_pylist()[1] == text.normalise_one(string)
