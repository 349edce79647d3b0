"""The sources join to a list of at most `size` queries, exactly as a plain reading of the rules."""

import itertools
import json
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query_list.forms import never_matching
from query_list.join import SOURCES, join
from wit import storage
from wit.errors import UserError
from wit.hashing import hash64
from wit.pairs import QUERIES

WORD, BIGRAM, TITLE, WORDNET = SOURCES
TOKENS = ["aa", "bb", "cc", "dd", "ee", "a"]  # `a` means nothing alone
PAIRS = [f"{x} {y}" for x, y in itertools.product(TOKENS, TOKENS)]


def tables(words, bigrams, titles, wordnet, large: bool = False) -> tuple:
    """The sources as tables: {word: count}, {bigram: (count, pmi)}, {title: views}, [synset]."""
    string = pa.large_string() if large else pa.string()
    return (
        pa.table({
            "word": pa.array(list(words), string),
            "count": pa.array(words.values(), pa.int64()),
        }),
        pa.table({
            "query": pa.array(list(bigrams), string),
            "count": pa.array([count for count, _ in bigrams.values()], pa.int64()),
            "pmi": pa.array([pmi for _, pmi in bigrams.values()], pa.float64()),
        }),
        pa.table({
            "query": pa.array(list(titles), string),
            "views": pa.array(titles.values(), pa.int64()),
            "articles": pa.array([1] * len(titles), pa.int32()),
        }),
        pa.array(wordnet, pa.string()),
    )  # fmt: skip


def joined(sources, **options) -> tuple[dict[str, list[str]], dict]:
    table, facts = join(*tables(*sources), **options)
    return dict(zip(table["query"].to_pylist(), table["sources"].to_pylist(), strict=True)), facts


def plainly(words, bigrams, titles, wordnet, size, ratio=(3, 2), least_pmi=None, least_views=None):
    """The rules of the module's text, a query at a time; None where they refuse.

    (sources by query, lowest PMI, lowest views).
    """

    def usable(query: str) -> bool:
        return len(query) > 1

    base = {query for query in (*words, *wordnet) if usable(query)}
    ranked_bigrams = sorted(
        (-float(np.float32(pmi)), -count, query) for query, (count, pmi) in bigrams.items()
    )
    bigram_order = [(-pmi, query) for pmi, _, query in ranked_bigrams if usable(query)]
    title_order = [(n, q) for n, q in sorted((-views, q) for q, views in titles.items())]
    title_order = [(-views, query) for views, query in title_order if usable(query)]
    if len(base) > size:
        return None
    budget = size - len(base)
    quota = int(Fraction(budget * ratio[0], sum(ratio)) + Fraction(1, 2))

    def first(order, known, most):
        """(new queries, the lowest value admitted)."""
        new, lowest = [], None
        for value, query in order:
            if query not in known and len(new) == most:
                return new, lowest_new(order, new)
            if query not in known:
                new.append(query)
            lowest = value
        return new, lowest

    def lowest_new(order, new):
        return next((value for value, query in order if new and query == new[-1]), None)

    if least_views is not None:
        new_titles = [q for views, q in title_order if views >= least_views and q not in base]
        views_edge = least_views
    if least_pmi is not None:
        least_pmi = float(np.float32(least_pmi))
        known = base | set(new_titles if least_views is not None else [])
        new_bigrams = [q for pmi, q in bigram_order if pmi >= least_pmi and q not in known]
        pmi_edge = least_pmi
    if least_pmi is None and least_views is None:
        new_bigrams, pmi_edge = first(bigram_order, base, quota)
        new_titles, views_edge = first(
            title_order, base | set(new_bigrams), budget - len(new_bigrams)
        )
        room = budget - len(new_titles)
        new_bigrams, pmi_edge = first(bigram_order, base | set(new_titles), room)
    elif least_pmi is None:
        if len(base) + len(new_titles) > size:
            return None
        room = budget - len(new_titles)
        new_bigrams, pmi_edge = first(bigram_order, base | set(new_titles), room)
    elif least_views is None:
        if len(base) + len(new_bigrams) > size:
            return None
        room = budget - len(new_bigrams)
        new_titles, views_edge = first(title_order, base | set(new_bigrams), room)
    if len(base) + len(new_bigrams) + len(new_titles) > size:
        return None
    named = {}
    for query in base | set(new_bigrams) | set(new_titles):
        named[query] = [
            name
            for name, is_in in (
                (WORD, query in words),
                (BIGRAM, pmi_edge is not None
                 and any(q == query and pmi >= pmi_edge for pmi, q in bigram_order)),
                (TITLE, views_edge is not None
                 and any(q == query and views >= views_edge for views, q in title_order)),
                (WORDNET, query in wordnet),
            )
            if is_in
        ]  # fmt: skip
    return named, pmi_edge, views_edge


sources = st.tuples(
    st.dictionaries(st.sampled_from(TOKENS), st.integers(100, 103)),
    st.dictionaries(
        st.sampled_from(PAIRS),
        st.tuples(st.integers(1, 3), st.sampled_from([1.0, 1.1, 2.5, -0.5])),
        max_size=16,
    ),
    st.dictionaries(st.sampled_from([*TOKENS, *PAIRS, "xx"]), st.integers(1, 4), max_size=16),
    st.lists(st.sampled_from([*TOKENS, *PAIRS]), unique=True, max_size=6),
)
options = st.fixed_dictionaries(
    {"size": st.integers(1, 40), "ratio": st.sampled_from([(3, 2), (1, 0), (0, 1), (1, 7)])},
    optional={
        "least_pmi": st.sampled_from([0.0, 1.0, 1.1, 3.0]),
        "least_views": st.integers(1, 5),
    },
)


@settings(max_examples=200)
@given(sources=sources, options=options)
def test_it_equals_a_plain_reading_of_the_rules(sources, options):
    expected = plainly(*sources, **options)
    if expected is None:
        with pytest.raises(UserError, match="raise"):
            joined(sources, **options)
        return
    found, facts = joined(sources, **options)
    named, pmi, views = expected
    assert found == named
    assert facts["thresholds"] == {"pmi": pmi, "views": views}


@given(sources=sources, size=st.integers(1, 40))
def test_a_list_is_never_larger_than_its_size_and_grows_with_it(sources, size):
    words, _, _, wordnet = sources
    must = {query for query in (*words, *wordnet) if query != "a"}
    try:
        smaller, _ = joined(sources, size=size)
    except UserError:
        assert len(must) > size
        return
    larger, _ = joined(sources, size=size + 1)
    assert must <= smaller.keys() <= larger.keys()
    assert len(smaller) <= size
    assert len(larger) - len(smaller) in (0, 1)
    if len(smaller) < size:  # then everything is in it
        assert smaller == larger == joined(sources, size=1000)[0]


@settings(max_examples=40)
@given(sources=sources, seed=st.randoms(use_true_random=False))
def test_the_order_of_rows_and_the_kind_of_strings_change_nothing(tmp_path_factory, sources, seed):
    def shuffled(source):
        items = list(source.items()) if isinstance(source, dict) else list(source)
        seed.shuffle(items)
        return dict(items) if isinstance(source, dict) else items

    one, one_facts = join(*tables(*sources), size=36)
    other = [shuffled(source) for source in sources]
    two, two_facts = join(*tables(*other, large=True), size=36)
    assert one.equals(two)
    assert storage.to_json(one_facts) == storage.to_json(two_facts)


# --- what a list says -------------------------------------------------------------------------

EXAMPLE = (
    {"dog": 900, "cat": 800, "s": 700, "doesn": 600},
    {
        "new york": (50, 9.5), "hot dog": (40, 8.0), "san francisco": (30, 8.0),
        "it doesn": (99, 7.9), "of the": (900, 0.5),
    },
    {
        "dog": 70, "new york": 60, "eiffel tower": 50, "a": 45, "mona lisa": 40, "night watch": 9,
        "hot dog": 5,
    },
    ["dog", "hot dog", "zebra", "x"],
)  # fmt: skip


def test_a_query_names_every_source_whose_threshold_it_reaches():
    found, facts = joined(EXAMPLE, size=8, ratio=(1, 1))
    assert found == {
        "cat": [WORD],
        "dog": [WORD, TITLE, WORDNET],
        "eiffel tower": [TITLE],
        "hot dog": [BIGRAM, WORDNET],
        "mona lisa": [TITLE],
        "new york": [BIGRAM, TITLE],
        "san francisco": [BIGRAM],
        "zebra": [WORDNET],
    }
    assert facts["shares"] == {
        "budget": 4,
        "planned": {BIGRAM: 2, TITLE: 2},
        "brought": {BIGRAM: 2, TITLE: 2},
    }
    assert facts["queries_per_source"] == {WORD: 2, BIGRAM: 3, TITLE: 4, WORDNET: 3}
    assert facts["new_per_source"] == {WORD: 2, BIGRAM: 3, TITLE: 2, WORDNET: 1}
    overlap = {tuple(entry["sources"]): entry["queries"] for entry in facts["overlap"]}
    assert overlap == {
        (WORD, BIGRAM): 0, (WORD, TITLE): 1, (WORD, WORDNET): 1,
        (BIGRAM, TITLE): 1, (BIGRAM, WORDNET): 1, (TITLE, WORDNET): 1,
    }  # fmt: skip
    assert facts["thresholds"] == {"pmi": 8.0, "views": 40}
    assert facts["edges"] == {
        BIGRAM: {
            "last_admitted": {"query": "san francisco", "count": 30, "pmi": 8.0},
            "first_left_out": {"query": "of the", "count": 900, "pmi": 0.5},
        },
        TITLE: {
            "last_admitted": {"query": "mona lisa", "views": 40},
            "first_left_out": {"query": "night watch", "views": 9},
        },
    }
    assert facts["meaningless_alone"] == {WORD: 2, BIGRAM: 0, TITLE: 1, WORDNET: 1}
    json.dumps(facts)


def test_what_is_known_of_a_query_stands_beside_it_whatever_brought_it():
    table, _ = join(*tables(*EXAMPLE), size=8, ratio=(1, 1))
    assert table.schema.equals(QUERIES)
    assert (table["query_hash"].to_numpy() == hash64(table["query"])).all()
    assert table["query_id"].to_pylist() == list(range(8))
    rows = {row["query"]: (row["count"], row["pmi"], row["views"]) for row in table.to_pylist()}
    assert rows["dog"] == (900, None, 70)
    assert rows["hot dog"] == (40, 8.0, 5)  # its views are known though below the threshold
    assert rows["zebra"] == (None, None, None)
    assert rows["new york"] == (50, 9.5, 60)
    assert never_matching(table["query"].combine_chunks()).to_pylist() == []


def test_a_small_corpus_gives_a_shorter_list_and_says_so():
    found, facts = joined(EXAMPLE, size=500)
    assert len(found) == facts["queries"] == 10
    assert facts["thresholds"] == {"pmi": 0.5, "views": 5}
    assert facts["edges"][BIGRAM]["first_left_out"] is None
    assert facts["meaningless_alone"][BIGRAM] == 1  # it doesn


def test_what_one_source_cannot_fill_goes_to_the_other():
    words, bigrams, titles, wordnet = EXAMPLE
    _, few_titles = joined((words, bigrams, {}, wordnet), size=6, ratio=(0, 1))
    assert few_titles["shares"]["brought"] == {BIGRAM: 2, TITLE: 0}
    _, few_bigrams = joined((words, {}, titles, wordnet), size=6, ratio=(1, 0))
    assert few_bigrams["shares"]["brought"] == {BIGRAM: 0, TITLE: 2}


def test_a_given_threshold_is_taken_instead():
    found, facts = joined(EXAMPLE, size=8, least_views=60)
    assert facts["thresholds"]["views"] == 60
    assert "eiffel tower" not in found
    assert facts["shares"]["brought"] == {BIGRAM: 2, TITLE: 1}  # the rest, whatever the ratio
    found, facts = joined(EXAMPLE, size=500, least_pmi=9, least_views=50)
    assert facts["thresholds"] == {"pmi": 9, "views": 50}
    assert found.keys() == {"cat", "dog", "hot dog", "zebra", "new york", "eiffel tower"}
    assert facts["edges"][BIGRAM]["first_left_out"]["query"] == "san francisco"


def test_a_list_too_small_for_what_must_stand_in_it_is_refused_with_the_sizes():
    with pytest.raises(UserError, match="2 words and 3 queries of WordNet are 4 together") as error:
        joined(EXAMPLE, size=3)
    assert "raise --size or --word-count" in str(error.value)
    with pytest.raises(UserError, match=r"--min-pmi 0.5 makes them more than --size 5"):
        joined(EXAMPLE, size=5, least_pmi=0.5)
    with pytest.raises(UserError, match=r"--min-views 5 makes them more than --size 5"):
        joined(EXAMPLE, size=5, least_views=5)


def test_what_means_nothing_depends_on_the_language():
    kings = {"re": 500}, {"il didn": (5, 3.0)}, {"ve": 7}, ["ll"]
    assert joined(kings, size=9)[0] == {}
    assert joined(kings, size=9, language="it")[0].keys() == {"re", "il didn", "ve", "ll"}


def test_pmi_is_compared_as_the_list_shows_it():
    close = {"aa bb": (1, 1.1), "cc dd": (2, 1.1 + 1e-12)}  # one float32
    table, facts = join(*tables({}, close, {}, []), size=1)
    assert table["query"].to_pylist() == ["cc dd"]  # by its count
    assert table["pmi"].to_pylist() == [facts["thresholds"]["pmi"]]


def test_a_source_with_a_query_twice_is_a_fault():
    words, bigrams, titles, wordnet = tables(*EXAMPLE)
    with pytest.raises(ValueError, match="a query twice"):
        join(words, pa.concat_tables([bigrams, bigrams]), titles, wordnet)
