"""The page of a query list: exact numbers, every string escaped, nothing from the network."""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query_list import page
from query_list.join import join
from query_list.page_data import SHOWN
from tests.browser import Browser, find_browser
from tests.pipeline.report_page import Sections
from tests.query_list.lists import BIGRAM, TITLE, WORD, WORDNET, make_list
from tests.query_list.real import articles
from wit.text import normalise, spaced

HOSTILE = "<script>document.title='run'</script>\"'><img src=x onerror=document.title='run'>"
HASH = "0123456789abcdef" * 4
SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]


def made_up_words(count: int) -> list[str]:
    return [
        SYLLABLES[i // 70 % 70] + SYLLABLES[i % 70] + SYLLABLES[i // 4900] for i in range(count)
    ]


def evidence() -> tuple[pa.Table, pa.Table, pa.Table]:
    """Words, bigrams and titles as a build has them, many of them tied."""
    words = made_up_words(300)
    counts = [40 + 7 * i % 193 for i in range(len(words))]
    pairs = [f"{a} {b}" for a, b in pairwise(words)]
    titles = [
        *words[::3],
        *pairs[::5],
        *(f"{a} {b}" for a, b in zip(words, words[2:], strict=False)),
    ]
    return (
        pa.table({"word": pa.array(words, pa.large_string()), "count": pa.array(counts)}),
        pa.table(
            {
                "query": pa.array(pairs, pa.large_string()),
                "count": pa.array([100 + i for i in range(len(pairs))]),
                "pmi": pa.array([(i * 37 % 101) / 8 for i in range(len(pairs))], pa.float64()),
            }
        ),
        pa.table(
            {
                "query": titles,
                "views": pa.array([5 * (i * 31 % 211) for i in range(len(titles))], pa.int64()),
                "articles": pa.array([1 + i % 4 for i in range(len(titles))], pa.int32()),
            }
        ),
    )


def facts_of(joined: dict, size: int, least: int = 100) -> dict:
    asked = {"size": size, "ratio": [100_646, 61_235], "word_count": least, "bigram_count": least}
    return {
        "wiki": "enwiki",
        "normalisation": "1",
        "never_matching": 0,
        "asked": asked | {"least_pmi": None, "least_views": None},
        "dumps": {"pages": 9, "articles": 5, "redirects": 3, "malformed: no title": 1, "empty": 1},
        "page_views": {"lines": 7, "of_wiki": 4, "found": 3, "found_views": 12, "other_wikis": 2,
                       "untitled": 0, "malformed": {"empty": 1}},
        "inputs": [{"name": "dump.bz2", "bytes": 12_345, "sha256": HASH}],
        "wordnet": {"version": "3.0", "synsets": 117_659},
        **joined,
    }  # fmt: skip


def gathered(size: int = 400) -> tuple[pa.Table, dict, page.ListPage]:
    words, bigrams, titles = evidence()
    wordnet = pa.array([*words["word"].to_pylist()[:40], "a pair of long horned oxen", "ox"])
    enough = words.filter(pc.greater_equal(words["count"], 100))
    table, joined = join(enough, bigrams, titles, wordnet, size=size)
    return table, joined, page.gather(table, facts_of(joined, size), words, bigrams, titles)


@pytest.fixture(scope="module")
def browser():
    with Browser(find_browser()) as opened:
        yield opened


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "queries.html"
    path.write_text(page.render(gathered()[2]))
    return path


def test_the_sizes_are_those_of_the_join():
    table, joined, found = gathered()
    assert [source.size for source in found.sources] == list(joined["queries_per_source"].values())
    assert [source.new for source in found.sources] == list(joined["new_per_source"].values())
    assert sum(source.new_there for source in found.sources) == len(table)
    wordnet = found.sources[-1]
    assert wordnet.new_there == wordnet.size > wordnet.new  # MetaCLIP takes WordNet first
    assert sum(source.published for source in found.sources) == 500_000


def test_the_overlap_counts_each_query_once_by_all_its_sources():
    table, _, found = gathered()
    titles = {WORD: "words", BIGRAM: "bigrams", TITLE: "titles", WORDNET: "WordNet"}
    sets = Counter(tuple(titles[s] for s in row) for row in table["sources"].to_pylist())
    assert {tuple(names): count for names, count in found.overlaps} == sets
    assert [count for _, count in found.overlaps] == sorted(sets.values(), reverse=True)


@settings(max_examples=20)
@given(st.integers(250, 600))
def test_a_threshold_s_neighbours_are_those_of_the_whole_order(size):
    table, _, found = gathered(size)
    _, bigrams, titles = evidence()
    rows = {row["query"]: row for row in table.to_pylist()}
    orders = {
        "bigrams": sorted(bigrams.to_pylist(), key=lambda r: (-r["pmi"], -r["count"], r["query"])),
        "titles": sorted(titles.to_pylist(), key=lambda r: (-r["views"], r["query"])),
    }
    for ranking in found.rankings[1:]:
        source = {"bigrams": BIGRAM, "titles": TITLE}[ranking.title]
        order = [row["query"] for row in orders[ranking.title]]
        inside = [q for q in order if source in rows.get(q, {"sources": []})["sources"]]
        value = {row["query"]: row[ranking.measure] for row in orders[ranking.title]}
        last = value[inside[-1]]
        outside = [q for q in order if q not in inside and value[q] <= last]
        assert [entry.query for entry in ranking.top] == inside[:SHOWN]
        assert [entry.query for entry in ranking.inside] == inside[-SHOWN:]
        assert [entry.query for entry in ranking.outside] == outside[:SHOWN]
        known = {entry.query: entry.sources for entry in ranking.outside}
        assert all(bool(sources) == (query in rows) for query, sources in known.items())


def test_words_below_the_threshold_that_mean_nothing_alone_are_not_its_neighbours():
    words = pa.table({"word": ["dog", "q", "ve", "cat"], "count": [100, 99, 98, 97]})
    _, bigrams, titles = evidence()
    table, joined = join(words.slice(0, 1), bigrams, titles, pa.array(["cat"]), size=100)
    found = page.gather(table, facts_of(joined, 100), words, bigrams, titles)
    assert [entry.query for entry in found.rankings[0].inside] == ["dog"]
    (cat,) = found.rankings[0].outside
    assert (cat.query, cat.count, cat.sources) == ("cat", 97, ["WordNet"])


def test_the_longest_the_ambiguous_and_the_lengths():
    table, _, found = gathered()
    assert found.most_tokens[0].query == "a pair of long horned oxen"
    assert (found.most_tokens[0].tokens, found.most_characters[0].characters) == (6, 26)
    tokens = Counter(len(form.split()) for form in spaced(table["query"]).to_pylist())
    assert [(label, all_) for label, _, all_ in found.lengths] == [
        (str(length), tokens[length]) for length in range(1, 7)
    ]
    titles = {row["query"]: row["articles"] for row in evidence()[2].to_pylist()}
    several = [q for q in table["query"].to_pylist() if titles.get(q, 0) > 1]
    assert found.ambiguous_count == len(several)
    assert {entry.articles for entry in found.ambiguous} == {4}
    assert {entry.query for entry in found.ambiguous} <= set(several)


def test_the_page_shows_the_numbers(written):
    table, joined, _ = gathered()
    shown = Sections(written)
    sizes = shown.counts("sources")
    assert sizes == {
        **dict(zip(("words", "bigrams", "titles", "WordNet"),
                   joined["queries_per_source"].values(), strict=True)),
    }  # fmt: skip
    assert shown.counts("sources", column=4)["bigrams"] == 100_646
    assert sum(shown.counts("overlap", column=5).values()) == len(table)
    assert sum(shown.counts("lengths", column=5).values()) == len(table)
    assert f"threshold: {joined['thresholds']['views']} views" in shown.text["thresholds"]
    assert f"0 of {len(table)} can never match." in shown.text["left-out"]
    assert shown.text["dumps"].count("the sums agree") == 2
    assert HASH in shown.text["inputs"]
    assert "12,345" in shown.text["inputs"]


def test_pages_of_a_dump_that_are_in_no_row_are_said_to_differ():
    words, bigrams, titles = evidence()
    table, joined = join(words, bigrams, titles, pa.array([], pa.string()), size=400)
    facts = facts_of(joined, 400)
    facts["dumps"]["pages"] = 11
    assert "the sums differ by 2" in page.render(page.gather(table, facts, words, bigrams, titles))


def test_a_list_with_a_query_that_can_never_match_says_so_before_all_else():
    words, bigrams, titles = evidence()
    table, joined = join(words, bigrams, titles, pa.array([], pa.string()), size=400)
    facts = facts_of(joined, 400) | {"never_matching": 3}
    text = page.render(page.gather(table, facts, words, bigrams, titles))
    assert re.search(r'role="status">3 of these queries can never match', text)
    assert 'role="status"' not in page.render(gathered()[2])


def test_a_list_of_wordnet_alone_is_a_page():
    words, bigrams, titles = (table.slice(0, 0) for table in evidence())
    table, joined = join(words, bigrams, titles, pa.array(["ox", "walrus"]), size=9)
    facts = facts_of(joined, 9) | {"dumps": {"distinct_words": 0}, "page_views": {}}
    found = page.gather(table, facts, words, bigrams, titles)
    assert found.rankings == found.ambiguous == []
    assert found.overlaps == [(["WordNet"], 2)]
    assert "none in this list" in page.render(found)


def hostile_page(text: str) -> page.ListPage:
    """A page of a list whose every string is this one, with something before it."""
    queries = [f"{n} {text}" for n in range(60)]
    rows = {
        query: {"sources": [WORD, BIGRAM, TITLE, text], "count": n, "pmi": n / 2, "views": n}
        for n, query in enumerate(queries)
    }
    numbers = pa.array(range(100), pa.int64())
    others = [*queries, *(f"x{n} {text}" for n in range(40))]
    words = pa.table({"word": others, "count": numbers})
    bigrams = pa.table({"query": others, "count": numbers, "pmi": numbers.cast(pa.float64())})
    titles = pa.table({"query": others, "views": numbers, "articles": numbers.cast(pa.int32())})
    joined = {
        "thresholds": {"pmi": 1.0, "views": 1},
        "shares": {"budget": 1, "planned": {BIGRAM: 1}, "brought": {BIGRAM: 1}},
        "meaningless_alone": {WORD: 1},
    }
    facts = facts_of(joined, 60)
    facts["inputs"] = [{"name": text, "bytes": 1, "sha256": text}]
    facts["normalisation"] = facts["wordnet"]["version"] = text
    facts["dumps"][f"malformed: {text}"] = 1
    facts["page_views"]["malformed"][text] = 1
    return page.gather(make_list(rows), facts, words, bigrams, titles)


def test_hostile_strings_run_nothing(browser, tmp_path):
    text = page.render(hostile_page(HOSTILE))
    assert text.count("&lt;script&gt;") > 100
    path = tmp_path / "page.html"
    path.write_text(text)
    browser.open(path)
    assert browser.value("document.title") == "Query list of enwiki"
    assert browser.requests() == [path.as_uri()]
    assert browser.complaints() == []
    assert browser.value("document.scripts.length + document.images.length") == 0
    browser.open(path, 390)
    assert browser.value("document.documentElement.scrollWidth") == 390


def test_a_page_is_under_two_megabytes_however_long_the_queries_are():
    text = page.render(hostile_page("long <" * 5_000))
    assert len(text.encode()) < 2_000_000
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\(|<link|<iframe|<base|<script|https?://", text)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_the_page_is_quiet_and_fits(browser, written, width, scheme):
    browser.open(written, width, scheme=scheme)
    assert browser.requests() == [written.as_uri()]
    assert browser.complaints() == []
    assert browser.value("document.documentElement.scrollWidth") == width
    targets = "[...document.querySelectorAll('nav a')].map(a => !!document.querySelector(a.hash))"
    assert browser.value(targets) == [True] * 10
    ground = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) > 3 * 128) == (scheme == "light")
    columns = "new Set([...document.querySelectorAll('#top table')].map(t => t.offsetLeft)).size"
    assert browser.value(columns) == (3 if width == 1440 else 1)


def test_two_renderings_are_equal():
    assert page.render(gathered()[2]) == page.render(gathered()[2])


def test_on_real_articles_the_neighbours_of_the_threshold_are_those_of_a_plain_count(shared_data):
    tokens = Counter()
    for form in spaced(articles(shared_data)["text"]).to_pylist():
        tokens.update(form.split())
    counts = {word: count for word, count in tokens.items() if count >= 16}
    words = pa.table({"word": pa.array(counts, pa.large_string()), "count": [*counts.values()]})
    _, bigrams, titles = evidence()
    enough = words.filter(pc.greater_equal(words["count"], 20))
    table, joined = join(enough, bigrams, titles, pa.array(["ox"]), size=20_000)
    found = page.gather(table, facts_of(joined, 20_000, 20), words, bigrams, titles).rankings[0]
    assert [entry.query for entry in found.top[:3]] == ["the", "of", "and"]
    assert {entry.count for entry in found.inside} == {20}
    assert {entry.count for entry in found.outside} == {19}
    assert all(tokens[entry.query] == entry.count for entry in (*found.inside, *found.outside))
    # Words of one count come in the order of their hashes, so not from one end of the alphabet.
    firsts = np.unique([entry.query[0] for entry in (*found.inside, *found.outside)])
    assert len(firsts) >= 12
    assert normalise(table["query"]).equals(table["query"].combine_chunks())
