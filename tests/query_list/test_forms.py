"""Which normal forms can be queries, and that a list has none that never match."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_list import forms
from wit import text
from wit.errors import UserError


def usable(queries: list[str], language: str = "en") -> list[str]:
    means = forms.usable(pa.array(queries, pa.string()), language)
    return [query for query, is_usable in zip(queries, means, strict=True) if is_usable]


def test_a_character_alone_is_a_query_only_where_it_may_be_a_word_or_a_picture():
    assert usable(["a", "7", "é", "の", "ー", "─", "→", "+", "ก"]) == []
    words = ["水", "㐀", "龥", "🐶", "☀", "𠀀", "ox", "c a t", "c + +"]
    assert usable(words) == words


def test_the_ranges_end_where_they_say():
    for first, last in forms.ALONE.tolist():
        assert usable([chr(first), chr(last)]) == [chr(first), chr(last)]
    assert usable(["\u25ff", "\u27c0", "\u4dc0", "\ua000", "\U0001fb00"]) == []


def test_what_is_left_of_contractions_is_no_query_in_english():
    left = text.normalise(pa.array(["I'll", "you’re", "I've", "doesn't", "ain't"])).to_pylist()
    assert left == ["i ll", "you re", "i ve", "doesn t", "ain t"]
    assert usable(left) == left  # a whole contraction is a query
    assert usable(["ll", "re", "ve", "n t", "doesn", "ain", "wouldn"]) == []
    for whole in ("don", "won", "can", "haven", "shan"):
        assert usable([whole]) == [whole]


def test_elsewhere_these_are_words():
    assert usable(["ve", "re", "a"], "tr") == ["ve", "re"]
    assert usable(["ve", "re", "a"], "simple") == []


def test_a_bigram_that_ends_within_a_contraction_is_cut_off():
    bigrams = pa.array(["it doesn", "doesn count", "the don", "xdoesn a", "a xdoesn"])
    assert forms.cut_off(bigrams).tolist() == [True, False, False, False, False]
    assert not forms.cut_off(bigrams, "de").any()


def test_the_empty_form_is_no_query():
    assert usable(["", "ab"]) == ["ab"]
    assert forms.usable(pa.array([], pa.string())).tolist() == []


def test_queries_that_are_normal_forms_match_themselves():
    queries = pa.array(["dog", "golden retriever", "水星", "c + +", "🐶", "e mc2"])
    assert forms.never_matching(queries).to_pylist() == []


def test_others_are_told():
    queries = pa.array(["Dog", "dog", "...", "", "a-b", "a b", "水 星"])
    assert forms.never_matching(queries).to_pylist() == ["Dog", "...", "", "a-b", "水 星"]


def test_a_query_that_the_matcher_does_not_find_is_told(monkeypatch):
    match = forms.Matcher.match

    def blind(self, texts):
        return match(self, pc.replace_substring(texts, "cat", "dog"))

    monkeypatch.setattr(forms.Matcher, "match", blind)
    queries = pa.array(["dog", "cat", "cow"])
    assert forms.never_matching(queries).to_pylist() == ["cat"]


def test_a_query_that_comes_twice_is_refused():
    with pytest.raises(UserError, match="keep one"):
        forms.never_matching(pa.array(["dog", "dog"]))


@given(st.lists(st.text(max_size=8), max_size=20))
def test_every_normal_form_matches_itself(strings):
    queries = text.normalise(pa.array(strings, pa.string())).unique()
    queries = queries.filter(pc.not_equal(queries, ""))
    assert forms.never_matching(queries).to_pylist() == []
