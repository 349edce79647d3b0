"""Titles lead to the article at the end of their redirects, and their forms add up its views."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from query_list.titles import NOWHERE, TitleIndex, title_forms
from wit import storage, text

NAMES = [f"T{number}" for number in range(12)]
STEMS = ["Aa", "aA", "Bb", "..."]


def pages(folder, *files: dict[str, str | None]) -> list[str]:
    """Files of titles and where they redirect to; None: an article."""
    paths = []
    for number, titles in enumerate(files):
        path = str(folder / f"{number:06d}.parquet")
        columns = {
            "title": pa.array(list(titles), pa.string()),
            "redirect": pa.array(list(titles.values()), pa.string()),
        }
        storage.write_table(path, pa.table(columns))
        paths.append(path)
    return paths


def article(index: TitleIndex, title: str) -> int:
    return int(index.find(pa.array([title]))[0])


# --- redirects --------------------------------------------------------------------------------


def test_a_redirect_leads_to_its_article_and_a_double_one_to_the_last(tmp_path):
    index = TitleIndex.build(
        pages(tmp_path, {"USA": "U.S.", "U.S.": "United States", "Amerika": "USA"},
              {"United States": None, "Dog": None})
    )  # fmt: skip
    states = article(index, "United States")
    assert states != article(index, "Dog") != NOWHERE
    for title in ("USA", "U.S.", "Amerika"):
        assert article(index, title) == states


def test_a_redirect_that_ends_nowhere_leads_nowhere(tmp_path):
    titles = {
        "A": "B", "B": "A", "Self": "Self", "Into": "A",
        "Gone": "No such page", "Out": "Category:Dogs", "Dog": None,
    }  # fmt: skip
    index = TitleIndex.build(pages(tmp_path, titles))
    for title in ("A", "B", "Self", "Into", "Gone", "Out", "No such page", "Category:Dogs", ""):
        assert article(index, title) == NOWHERE
    assert article(index, "Dog") != NOWHERE


def test_a_title_that_comes_twice_is_an_article_if_one_of_them_is(tmp_path):
    one = pages(tmp_path, {"Dog": "Cat", "Cat": None}, {"Dog": None, "Cat": "Dog"})
    index = TitleIndex.build(one)
    assert len(index.hashes) == 2
    assert article(index, "Dog") != article(index, "Cat")
    assert NOWHERE not in (article(index, "Dog"), article(index, "Cat"))


def test_a_chain_of_thousands_is_followed(tmp_path):
    chain: dict[str, str | None] = {f"R{n}": f"R{n + 1}" for n in range(5000)}
    index = TitleIndex.build(pages(tmp_path, chain | {"R5000": None}))
    assert article(index, "R0") == article(index, "R5000") != NOWHERE


def followed(titles: dict[str, str | None], title: str) -> str | None:
    seen = set()
    while title in titles and titles[title] is not None and title not in seen:
        seen.add(title)
        title = titles[title]
    return title if titles.get(title, "") is None else None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    titles=st.dictionaries(
        st.sampled_from(NAMES), st.none() | st.sampled_from([*NAMES, "Elsewhere"]), max_size=12
    ),
    cut=st.integers(0, 12),
)
def test_it_equals_following_redirects_one_by_one_however_the_files_are_cut(tmp_path, titles, cut):
    entries = list(titles.items())
    index = TitleIndex.build(pages(tmp_path, dict(entries[:cut]), dict(entries[cut:])))
    whole = TitleIndex.build(pages(tmp_path, titles))
    assert np.array_equal(index.hashes, whole.hashes)
    assert np.array_equal(index.articles, whole.articles)
    for title in NAMES:
        goal = followed(titles, title)
        assert article(index, title) == (NOWHERE if goal is None else article(index, goal))
        assert goal is None or article(index, goal) != NOWHERE


def test_no_titles_are_no_error(tmp_path):
    index = TitleIndex.build(pages(tmp_path, {}))
    assert article(index, "Dog") == NOWHERE
    assert len(title_forms(pages(tmp_path, {}), index, np.zeros(0, np.int64))) == 0


def test_a_saved_index_is_the_same_and_mapped(tmp_path):
    index = TitleIndex.build(pages(tmp_path, {"Dog": None, "Hound": "Dog"}))
    for folder in (str(tmp_path / "index"), "memory://titles/index"):
        index.save(folder)
        loaded = TitleIndex.load(folder)
        assert np.array_equal(loaded.hashes, index.hashes)
        assert np.array_equal(loaded.articles, index.articles)
        assert article(loaded, "Hound") == article(index, "Dog")
    assert isinstance(TitleIndex.load(str(tmp_path / "index")).hashes, np.memmap)


def test_a_first_letter_counts_as_mediawiki_has_it(tmp_path):
    titles = dict.fromkeys(["Élan", "Dog", "ß", "აბგ", "EBay", "Ǆ"])
    index = TitleIndex.build(pages(tmp_path, titles))
    asked = pa.array(["élan", "dog", "Dog", "ß", "აბგ", "eBay", "ebay", "ǆ", "", "no"])
    names = ["Élan", "Dog", "Dog", "ß", "აბგ", "EBay", None, "Ǆ", None, None]
    found = index.find_first_letter(asked).tolist()
    assert found == [NOWHERE if name is None else article(index, name) for name in names]
    assert index.find(pa.array(["dog", "élan"])).tolist() == [NOWHERE, NOWHERE]


# --- forms ------------------------------------------------------------------------------------


def forms(paths: list[str], views: dict[str, int], **more) -> dict[str, tuple[int, int]]:
    index = TitleIndex.build(paths)
    dense = np.zeros(len(index.hashes), np.int64)
    for title, count in views.items():
        dense[article(index, title)] += count
    rows = title_forms(paths, index, dense, **more).to_pylist()
    assert len({row["query"] for row in rows}) == len(rows)
    return {row["query"]: (row["views"], row["articles"]) for row in rows}


def test_a_form_sums_the_views_of_its_articles_and_brackets_count_with_and_without(tmp_path):
    titles = dict.fromkeys(["Mercury (planet)", "Mercury (element)", "Mercury", "MERCURY!", "Dog"])
    paths = pages(tmp_path, {**titles, "Quicksilver": "Mercury (element)"})
    views = {"Mercury (planet)": 100, "Quicksilver": 20, "Mercury": 3, "MERCURY!": 4}
    assert forms(paths, views) == {
        "mercury planet": (100, 1),
        "mercury element": (20, 1),  # through its redirect, whose own form does not count
        "mercury": (127, 4),
    }


def test_what_stands_in_brackets_at_the_end_only_is_left_out(tmp_path):
    titles = [
        "A (b) c", "(I Can't Get No) Satisfaction", "f(x)", "Ford (T (1908))", "Go (game) (film)",
        "水星（惑星）", "(Remixes)", "Hello (!)",
    ]  # fmt: skip
    paths = pages(tmp_path, dict.fromkeys(titles))
    found = forms(paths, dict.fromkeys(titles, 5))
    assert found == dict.fromkeys(
        [
            "a b c", "i can t get no satisfaction", "f x", "ford t 1908", "ford", "go game film",
            "go game", "水星惑星", "水星", "remixes", "hello",
        ],
        (5, 1),
    )  # fmt: skip


def test_the_main_page_and_what_nobody_read_are_left_out(tmp_path):
    paths = pages(tmp_path, {"Main Page": None, "Home": "Main Page", "Dog": None, "Unread": None})
    views = {"Main Page": 10**9, "Home": 5, "Dog": 7}
    assert forms(paths, views, main_page="Main Page") == {"dog": (7, 1)}
    assert forms(paths, views)["main page"] == (10**9 + 5, 1)
    assert forms(paths, {"Dog": 7, "Unread": 6}, least_views=7) == {"dog": (7, 1)}


def test_a_title_that_comes_twice_counts_once(tmp_path):
    paths = pages(tmp_path, {"Dog": None, "Cat": None}, {"Dog": None})
    assert forms(paths, {"Dog": 7, "Cat": 1}) == {"dog": (7, 1), "cat": (1, 1)}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    views=st.dictionaries(
        st.builds(str.__add__, st.sampled_from(STEMS), st.sampled_from(["", " (Bb)", " (x)"])),
        st.integers(0, 9),
        max_size=8,
    ),
    cut=st.integers(0, 8),
)
def test_forms_equal_adding_up_one_by_one(tmp_path, views, cut):
    titles = list(views)
    expected: dict[str, tuple[int, int]] = {}
    for title, count in views.items():
        own = {text.normalise_one(title), text.normalise_one(title.split(" (")[0])} - {""}
        for form in own if count else ():
            total, articles = expected.get(form, (0, 0))
            expected[form] = total + count, articles + 1
    paths = pages(tmp_path, dict.fromkeys(titles[:cut]), dict.fromkeys(titles[cut:]))
    assert forms(paths, views) == expected


def test_page_files_without_the_columns_are_refused(tmp_path):
    path = str(tmp_path / "x.parquet")
    storage.write_table(path, pa.table({"title": ["Dog"]}))
    with pytest.raises(storage.StorageError, match="no column 'redirect'"):
        TitleIndex.build([path])
