"""Words and bigrams are counted exactly, however the text is cut and however small the tables."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.collocations import BigramAssocMeasures, BigramCollocationFinder

from query_list import bigrams, counting
from query_list.kernels_count import BREAK
from query_list.segments import spaced_segments
from tests.query_list.real import articles

WORDS = st.sampled_from(
    ["a", "b", "dog", "dogs", "北", "x" * 70, "é", *(f"w{i}" for i in range(40))]
)
TEXTS = st.lists(st.lists(WORDS, max_size=12), max_size=30)


def count(segments: list[str], words: int = 4) -> counting.Counted:
    counter = counting.WordCounter(words)
    middle = len(segments) // 2
    for part in (segments[:middle], segments[middle:]):
        counter.add(pa.array(part, pa.string()))
    return counter.finish()


def count_pairs(parts: list[counting.Counted], least: int, partitions: int, places: int) -> dict:
    """{bigram: (count, PMI)} of texts counted apart, by way of runs and partitions."""
    vocabulary, _ = counting.merge((part.words for part in parts), least)
    known = pa.array(np.arange(len(vocabulary), dtype=np.int32))
    counter = bigrams.PairCounter(partitions, places)
    runs = []
    for part in parts:
        lookup = bigrams.find_lookup(part.words, vocabulary["word"].combine_chunks(), known)
        runs += counter.add(part.stream, lookup)
    runs.append(counter.drain())
    tokens = sum(part.tokens for part in parts)
    found = {}
    for partition in range(partitions):
        pairs = bigrams.add_runs((r[slot == partition] for r, slot in runs), least)
        table = bigrams.with_pmi(pairs, vocabulary, tokens)
        found |= {
            row["query"]: (row["count"], pytest.approx(row["pmi"], abs=1e-9))
            for row in table.to_pylist()
        }
    return found


@given(TEXTS)
def test_words_and_their_order_in_the_text_are_kept(texts):
    found = count([" ".join(words) for words in texts])
    names = found.words["word"].to_pylist()
    assert dict(zip(names, found.words["count"].to_pylist(), strict=True)) == Counter(
        word for words in texts for word in words
    )
    assert names == list(dict.fromkeys(word for words in texts for word in words))
    said = [names[i] if i != BREAK else None for i in found.stream.tolist()]
    assert said == [word for words in texts if words for word in (*words, None)]


@given(TEXTS, st.integers(1, 5), st.integers(1, 7))
def test_words_merged_from_buckets_of_splits_are_those_of_the_whole(texts, buckets, least):
    lines = [" ".join(words) for words in texts]
    splits = [count(lines[i::3]) for i in range(3)]
    parts = [counting.by_bucket(split.words, buckets) for split in splits]
    merged = [counting.merge([part[b] for part in parts], least) for b in range(buckets)]
    whole = Counter(word for words in texts for word in words)
    kept = {w: c for table, _ in merged for w, c in zip(*table.to_pydict().values(), strict=True)}
    assert kept == {word: c for word, c in whole.items() if c >= least}
    assert sum(distinct for _, distinct in merged) == len(whole)


def test_many_parts_are_added_up_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(counting, "FEW", 3)
    parts = [count([f"a b w{i}", "a"]).words for i in range(20)]
    kept, distinct = counting.merge(parts, 2)
    assert kept.to_pydict() == {"word": ["a", "b"], "count": [40, 20]}
    assert distinct == 22


@given(TEXTS, st.integers(1, 3), st.sampled_from([1, 3]), st.sampled_from([8, 64, 1 << 12]))
def test_bigrams_are_exact_whatever_the_table_holds(texts, least, partitions, places):
    lines = [" ".join(words) for words in texts]
    found = count_pairs([count(lines[:7]), count(lines[7:])], least, partitions, places)
    words = Counter(word for line in texts for word in line)
    pairs = Counter(pair for line in texts for pair in pairwise(line))
    total = sum(words.values())
    assert found == {
        " ".join(pair).replace("北 北", "北北"): (
            c,
            math.log2(c * total / (words[pair[0]] * words[pair[1]])),
        )
        for pair, c in pairs.items()
        if c >= least
    }


def test_counts_and_pmi_of_real_articles_are_nltks(shared_data):
    segments = spaced_segments(articles(shared_data)["text"])
    lines = [line for line in segments.to_pylist() if line]
    finder = BigramCollocationFinder.from_documents([line.split(" ") for line in lines])
    parts = [count(lines[: len(lines) // 3]), count(lines[len(lines) // 3 :])]
    assert sum(part.tokens for part in parts) == finder.N
    merged, distinct = counting.merge((part.words for part in parts), 1)
    assert dict(zip(*merged.to_pydict().values(), strict=True)) == finder.word_fd
    assert distinct == len(finder.word_fd)
    finder.apply_freq_filter(3)
    theirs = {
        " ".join(pair): (finder.ngram_fd[pair], score)
        for pair, score in finder.score_ngrams(BigramAssocMeasures.pmi)
    }
    ours = count_pairs(parts, 3, partitions=5, places=1 << 12)
    glued = {query for query in ours if " " not in query}  # two letters of a script without spaces
    assert glued == {"".join(q.split()) for q in theirs.keys() - ours.keys()}
    assert {q: v for q, v in ours.items() if q not in glued} == {
        q: v for q, v in theirs.items() if q in ours
    }
