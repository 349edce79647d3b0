"""A text's queries are found: all of them, no others, as MetaCLIP finds them or by normal form."""

import threading
from itertools import pairwise
from pathlib import Path

import ahocorasick
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.matching import peer, read_texts, spaced_out
from query_list.starter import build_starter
from wit import text
from wit.errors import UserError
from wit.matching import MODES, Matcher, unmatchable

ROOT = Path(__file__).resolve().parents[2]
PIECES = ["a", "B", "ab", " ", "  ", ",", ".", "`", "\t", "\r", "\n", "'", "é", "東", "京"]
STRINGS = st.lists(st.sampled_from(PIECES), max_size=9).map("".join)
MARKS = frozenset(",.;:?!`")


def matches(queries, texts, mode="default"):
    return Matcher.build(pa.array(queries, pa.string()), mode).match(pa.array(texts, pa.string()))


@pytest.fixture(scope="module")
def texts(shared_data) -> dict[str, list[str]]:
    return read_texts(shared_data)


@pytest.fixture(scope="module")
def starter() -> pa.Array:
    return build_starter()["query"].combine_chunks()


# --- MetaCLIP's matches -----------------------------------------------------------------------


def test_metaclip_mode_equals_its_algorithm_on_all_real_texts_with_400000_queries(texts, starter):
    entries = dict.fromkeys(starter.to_pylist())
    for captions in texts.values():
        for caption in captions[::3]:
            pieces = spaced_out(caption)[1:-1].split(" ")
            entries[" ".join(pieces[:2])] = entries[" ".join(pieces[1:4])] = None
            entries[caption] = entries[caption[3:12]] = entries[" ".join(pieces[-2:])] = None
    entries = list(entries)
    assert len(entries) > 420_000
    matcher, oracle = Matcher.build(pa.array(entries), "metaclip"), peer(entries)
    hit = set()
    for captions in texts.values():
        assert len(captions) >= 10_000
        found = matcher.match(pa.array(captions)).to_pylist()
        assert found == [sorted(oracle(caption)) for caption in captions]
        hit.update(*found)
    assert len(hit) > 50_000
    assert hit.isdisjoint(unmatchable(pa.array(entries), "metaclip")["index"].to_pylist())


@settings(max_examples=600, deadline=None)
@given(st.lists(STRINGS, unique=True, max_size=12), st.lists(STRINGS, max_size=6))
def test_metaclip_mode_is_a_substring_search(queries, captions):
    expected = [
        [i for i, query in enumerate(queries) if f" {query} " in spaced_out(caption)]
        for caption in captions
    ]
    assert matches(queries, captions, "metaclip").to_pylist() == expected


@settings(max_examples=600, deadline=None)
@given(STRINGS)
def test_metaclip_mode_calls_unmatchable_just_what_no_text_matches(query):
    # The one text that could match: without the spaces that MetaCLIP puts round a mark itself.
    pieces = query.split(" ")
    caption = pieces[0]
    for before, piece in pairwise(pieces):
        caption += piece if before in MARKS or piece in MARKS else " " + piece
    can = f" {query} " in spaced_out(caption)
    assert len(unmatchable(pa.array([query]), "metaclip")) == (not can)
    assert matches([query], [caption], "metaclip").to_pylist() == [[0] if can else []]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("U.S.", "a punctuation mark that touches a letter or another mark"),
        ("who?", "a punctuation mark that touches a letter or another mark"),
        ("...", "a punctuation mark that touches a letter or another mark"),
        ("wait . ,", "two punctuation marks in a row"),
        (": !", "two punctuation marks in a row"),
        ("a\tb", "a tab or a line end"),
        ("a\r", "a tab or a line end"),
        ("a .  , b", None),
        ("rock 'n' roll", None),
        ("", None),
    ],
)
def test_metaclip_mode_says_why_a_query_is_unmatchable(query, reason):
    table = unmatchable(pa.array(["dog", query]), "metaclip")
    assert table.to_pylist() == ([{"index": 1, "reason": reason}] if reason else [])


@pytest.mark.parametrize(
    ("query", "caption", "found"),
    [
        ("dog", "a dog, a cat", True),
        ("dog", "a Dog", False),
        ("new york", "new york.", True),
        ("new york", "new  york", False),
        ("new  york", "new  york", True),
        ("U.S.", "the U.S. flag", False),
        ("", "", True),
        ("", "a", False),
        ("", "a,b", False),
        ("", "a, b", True),
        (".", "a.b", True),
        ("a .", "a.", True),
        ("'s", "dog's", False),
        ("tab here", "tab\there", True),
    ],
)
def test_metaclip_mode_keeps_metaclips_quirks(query, caption, found):
    assert (f" {query} " in spaced_out(caption)) == found
    assert matches([query], [caption], "metaclip").to_pylist() == [[0] if found else []]


def test_the_peer_is_the_package_that_metaclip_uses():
    assert ahocorasick.unicode
    assert sorted(peer(["a dog", "dog", "cat"])("a dog,")) == [0, 1]


# --- the default mode -------------------------------------------------------------------------


def by_tokens(queries, captions):
    """All runs of each text's tokens, looked up: slow and plain."""
    forms = {text.spaced_one(query): i for i, query in enumerate(queries)}
    forms.pop("", None)
    longest = max([len(form.split(" ")) for form in forms], default=0)
    result = []
    for caption in captions:
        tokens = text.spaced_one(caption).split(" ")
        runs = (
            " ".join(tokens[i : i + n])
            for n in range(1, longest + 1)
            for i in range(len(tokens) - n + 1)
        )
        result.append(sorted({forms[run] for run in runs if run in forms}))
    return result


@pytest.mark.parametrize(
    ("query", "caption", "found"),
    [
        ("st. louis", "The arch of ST LOUIS", True),
        ("St Louis", "the st. louis arch", True),
        ("new york", "NEW  YORK!", True),
        ("york", "yorkshire", False),
        ("u.s.", "made in the U.S.", True),
        ("dog", "the dog's", True),
        ("c++", "C++ in a nutshell", True),
        ("nike", "Nike™ shoe", True),
        ("straße", "HAUPT STRASSE 5", True),
        ("京都", "東京都の夜", True),
        ("東京", "東、京", True),
        ("ラーメン", "おいしいﾗｰﾒﾝ屋", True),
        ("แมว", "แมวน่ารัก", True),
        ("고양이", "귀여운 고양이", True),
        ("고양", "귀여운 고양이", False),
        ("❤", "I ❤️ it", True),
        ("café", "CAFE\u0301", True),
    ],
)
def test_default_mode_compares_normal_forms(query, caption, found):
    assert matches([query], [caption]).to_pylist() == [[0] if found else []]


@settings(max_examples=400, deadline=None)
@given(st.lists(STRINGS, max_size=12, unique_by=text.spaced_one), st.lists(STRINGS, max_size=6))
def test_default_mode_finds_runs_of_tokens(queries, captions):
    assert matches(queries, captions).to_pylist() == by_tokens(queries, captions)


def test_default_mode_equals_a_plain_look_up_on_real_texts(texts, starter):
    matcher = Matcher.build(starter)
    captions = [caption for source in texts.values() for caption in source[::5]]
    assert len(captions) > 15_000
    found = matcher.match(pa.array(captions)).to_pylist()
    assert found == by_tokens(starter.to_pylist(), captions)
    assert sum(map(len, found)) > 100_000


def test_every_query_of_the_list_matches_itself(starter):
    found = Matcher.build(starter).match(starter)
    parents = np.repeat(np.arange(len(starter)), np.diff(found.offsets.to_numpy()))
    own = found.values.to_numpy() == parents
    assert own.sum() == len(starter)


def test_a_query_that_normalises_to_nothing_is_reported_and_keeps_its_position():
    queries = pa.array(["?!", "dog", None, "—", ""])
    table = unmatchable(queries)
    assert table["index"].to_pylist() == [0, 2, 3, 4]
    nothing = "nothing but separators"
    assert table["reason"].to_pylist() == [nothing, "null", nothing, nothing]
    assert Matcher.build(queries).match(pa.array(["a dog!"])).to_pylist() == [[1]]
    assert len(unmatchable(pa.array([], pa.string()))) == 0


# --- arrays, sizes, threads -------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_the_cut_of_the_texts_changes_nothing(mode, texts, starter):
    matcher = Matcher.build(starter[::9], mode)
    array = pa.array([*texts["alt"][:3000], None, "", "the dog"])
    whole = matcher.match(array)
    assert whole.to_pylist()[3000:3002] == [[], []]
    assert whole.null_count == 0
    chunks = pa.chunked_array([array[:1], array[1:1], array[1:700], array[700:]])
    for layout in (array.cast(pa.large_string()), array.cast(pa.string_view()), chunks):
        assert matcher.match(layout).equals(whole)
    assert matcher.match(array[500:900]).equals(whole[500:900])
    assert matcher.match(array[0:0]).to_pylist() == []
    assert matcher.match(pa.chunked_array([], pa.string())).to_pylist() == []
    assert matcher.match(pa.nulls(3)).to_pylist() == [[], [], []]
    whole.validate(full=True)
    assert whole.type == pa.list_(pa.int32())


@pytest.mark.parametrize("mode", MODES)
def test_a_null_text_does_not_match_the_empty_query(mode):
    queries = ["", "dog"]
    assert matches(queries, [None, "dog"], mode).to_pylist() == [[], [1]]


@pytest.mark.parametrize("mode", MODES)
def test_a_text_of_a_megabyte_is_searched_across_all_blocks(mode, starter):
    words = [word for word in starter.to_pylist() if word.isascii() and word.isalpha()][:150_000]
    phrases = [" ".join(words[i : i + 3]) for i in range(len(words) - 2)]
    long = " ".join(words)
    assert len(long) > 1_000_000
    found = matches(words + phrases, ["x", long, "dog"], mode).to_pylist()
    assert found[1] == list(range(len(words) + len(phrases)))
    assert len(found[2]) <= 1


@pytest.mark.parametrize("length", [1, 2, 255, 256, 300, 2000])
def test_a_phrase_longer_than_a_block_is_found(length):
    phrase = " ".join(f"w{i}" for i in range(length))
    filler = "w0 w1 " * 700
    found = matches([phrase, "zebra"], [filler + phrase + " zebra", filler + phrase[:-1]])
    assert found.to_pylist()[0] == [0, 1]
    assert found.to_pylist()[1] == ([0] if length == 2 else [0] if length == 1 else [])


def test_threads_share_a_matcher(texts, starter):
    matcher = Matcher.build(starter)
    array = pa.array(texts["cc3m"])
    expected = matcher.match(array)
    results = {}
    threads = [
        threading.Thread(target=lambda i=i: results.update({i: matcher.match(array)}))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(results[i].equals(expected) for i in range(4))


def test_no_query_and_no_text_are_no_trouble():
    assert matches([], ["a dog", None]).to_pylist() == [[], []]
    assert matches(["dog"], []).to_pylist() == []


# --- errors and files -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "queries"),
    [("default", ["cat", "St. Louis", "st louis"]), ("metaclip", ["cat", "a", "a"])],
)
def test_two_queries_that_are_one_are_refused_by_name(mode, queries):
    with pytest.raises(UserError) as error:
        Matcher.build(pa.array(queries), mode)
    said = str(error.value)
    assert f"queries 1 ({queries[1]!r}) and 2 ({queries[2]!r}) are the same" in said
    assert "\n" not in said


def test_an_unknown_mode_and_broken_text_are_refused():
    with pytest.raises(UserError, match="choose one of: default, metaclip"):
        Matcher.build(pa.array(["a"]), "exact")
    offsets, data = pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff")
    broken = pa.Array.from_buffers(pa.string(), 1, [None, offsets, data])
    for mode in MODES:
        with pytest.raises(UserError, match="index 0"):
            Matcher.build(pa.array(["a"]), mode).match(broken)


@pytest.mark.parametrize("mode", MODES)
def test_a_saved_matcher_is_the_same_matcher(mode, tmp_path, texts, starter):
    matcher = Matcher.build(starter, mode)
    matcher.save(tmp_path / "one")
    Matcher.build(starter, mode).save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    loaded = Matcher.load(tmp_path / "one")
    assert (loaded.mode, loaded.queries) == (mode, len(starter))
    assert loaded.fingerprint == matcher.fingerprint
    assert loaded.fingerprint != Matcher.build(starter[1:], mode).fingerprint
    array = pa.array(texts["laion"])
    assert loaded.match(array).equals(matcher.match(array))


def test_a_matcher_is_saved_to_and_loaded_from_any_store(tmp_path):
    matcher = Matcher.build(pa.array(["a dog"]))
    matcher.save("memory://matching/one")
    assert Matcher.load("memory://matching/one").match(pa.array(["A DOG"])).to_pylist() == [[0]]


def _damaged(data: bytes) -> dict[str, bytes]:
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    return {
        "not a matcher": b"<html>no</html>",
        "not a matcher ": b"",
        "cut short or changed": data[:-8],
        "cut short or changed ": flipped,
        "cut short or changed  ": data[:20],
    }


def test_a_damaged_matcher_is_refused_with_its_name(tmp_path):
    path = tmp_path / "matcher"
    Matcher.build(pa.array(["dog", "cat"])).save(path)
    for reason, data in _damaged(path.read_bytes()).items():
        path.write_bytes(data)
        with pytest.raises(UserError, match=f"{path}: {reason.strip()}; .*build it again"):
            Matcher.load(path)
    with pytest.raises(UserError, match="no such matcher"):
        Matcher.load(tmp_path / "absent")


def test_a_matcher_of_another_format_or_unicode_version_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "matcher"
    matcher = Matcher.build(pa.array(["dog"]))
    with monkeypatch.context() as patch:
        patch.setattr("wit.matching.FORMAT", 99)
        matcher.save(path)
    with pytest.raises(UserError, match="format 99, not 1"):
        Matcher.load(path)
    with monkeypatch.context() as patch:
        patch.setattr(text, "VERSION", "1-unicode-1.0.0")
        matcher.save(path)
    with pytest.raises(UserError, match=r"normalisation 1-unicode-1\.0\.0, this is 1-unicode-1"):
        Matcher.load(path)
