"""A text that is dropped has one reason."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline import filters

TEXTS = [
    "a",
    "The quick brown fox jumps over the lazy dog near the river bank.",
    "Der schnelle braune Fuchs springt über den faulen Hund am Flussufer.",
    "素早い茶色の狐がのろまな犬を飛び越える。",
    "x" * 50,
]


def test_languages_are_identified_and_what_is_unsure_is_null():
    pytest.importorskip("pycld2")
    found = filters.identify_languages(pa.array([*TEXTS[1:4], "\x01\x02", "1234"])).to_pylist()
    assert found == ["en", "de", "ja", None, None]


def test_each_dropped_text_has_one_reason():
    languages = pa.array(["un", "en", "de", "ja", None])
    batch = pa.record_batch({"text": pa.array(TEXTS), "language": languages})
    found = filters.dropped(batch, 2, 49, ["en", "ja"])
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "text_too_short": [True, False, False, False, False],
        "text_too_long": [False, True, True, False, True],
        "other_language": [False, False, False, False, False],
    }
    found = filters.dropped(batch, 2, 100, ["en", "ja"])
    assert found["other_language"].tolist() == [False, False, True, False, True]
    assert np.sum(list(found.values()), axis=0).max() == 1


def test_length_is_counted_in_characters_not_in_bytes():
    batch = pa.record_batch({"text": pa.array(["日本語"]), "language": pa.nulls(1, pa.string())})
    assert not any(rows.any() for rows in filters.dropped(batch, 1, 3, []).values())
    assert filters.dropped(batch, 1, 2, [])["text_too_long"].tolist() == [True]
