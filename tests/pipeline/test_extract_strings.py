"""Strings in Arrow are tidied, cut out and replaced as single Python strings would be."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.extract import strings

SPACES = st.sampled_from([*map(chr, range(33)), *"\x85\xa0\u1680\u2000\u200a\u200b\u2028\u2029"])
OTHERS = st.sampled_from([*"\u202f\u205f\u2060\u3000\u3001aé–”日\U0001f600\x7f"])
TEXTS = st.lists(st.one_of(SPACES, OTHERS), max_size=6).map("".join)


@settings(max_examples=500, deadline=None)
@given(st.lists(TEXTS, max_size=10))
def test_tidying_a_batch_is_tidying_each_text(texts):
    assert strings.tidy_all(pa.array(texts, pa.string())).to_pylist() == [
        strings.tidy(text) for text in texts
    ]


def test_every_white_space_character_is_seen_inside_a_text():
    texts = [f"a{chr(c)}b" for c in range(0x3100) if not 0xD800 <= c < 0xE000]
    assert strings.tidy_all(pa.array(texts)).to_pylist() == [strings.tidy(t) for t in texts]


@given(st.binary(max_size=30), st.data())
def test_cut_out_strings_are_slices_with_what_is_not_utf8_replaced(data, draw):
    places = draw.draw(st.lists(st.tuples(*[st.integers(0, len(data))] * 2).map(sorted)))
    begin, end = np.array(places, np.int64).reshape(-1, 2).T
    found = strings.cut_out(np.frombuffer(data, np.uint8), begin, end).to_pylist()
    assert found == [data[b:e].decode("utf-8", "replace") for b, e in places]


def test_rows_are_replaced():
    texts = pa.array(["a", "b", "c"])
    assert strings.replace_at(texts, np.array([0, 2]), ["x", None]).to_pylist() == ["x", "b", None]
    assert strings.replace_at(texts, np.array([], int), []) is texts
