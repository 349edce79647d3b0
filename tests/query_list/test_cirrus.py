"""Each page of a CirrusSearch dump is read once, with its redirects, whatever the splits."""

import bz2
import functools
import gzip
import itertools
import json
import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query_list import cirrus, pages
from tests.query_list import split_pages
from tests.query_list.split_pages import stored
from wit import storage
from wit.errors import UserError

rows = functools.partial(split_pages.rows, cirrus.read_pages)


def document(title: str, text: str | None, redirects: list[tuple[int, str]] = (), **more) -> dict:
    """A page with the fields that matter, and some that do not."""
    return {
        "page_id": 7,
        "wiki": "enwiki",
        "language": "en",
        "title": title,
        "namespace": 0,
        "namespace_text": "",
        "content_model": "wikitext",
        "redirect": [{"namespace": space, "title": name} for space, name in redirects],
        "text": text,
        "source_text": f"'''{title}''' [[index]]",
        "category": ["Index"],
    } | more


def ndjson(documents: list[dict], action: str = '{"index":{"_type":"_doc","_id":"7"}}') -> bytes:
    """Lines as the dumps have them."""
    lines = itertools.chain.from_iterable((action, json.dumps(d)) for d in documents)
    return "".join(f"{line}\n" for line in lines).encode()


def sample() -> list[dict]:
    rng = random.Random(1)
    made = []
    for i in range(60):
        text = "".join(
            rng.choices(string.ascii_letters + ' \\"\né語', k=rng.choice([0, 50, 9_000]))
        )
        redirects = [(rng.choice([0, 0, 2]), f"To {i} {j}") for j in range(rng.choice([0, 0, 3]))]
        made.append(document(f"Page {i} é", text, redirects, namespace=rng.choice([0, 0, 4])))
    return made


SAMPLE = sample()
EXPECTED = [
    row
    for page in SAMPLE
    if page["namespace"] == 0
    for row in [
        (page["title"], None, page["text"]),
        *((r["title"], page["title"], None) for r in page["redirect"] if r["namespace"] == 0),
    ]
]
PLAIN = ndjson(SAMPLE)
PACKED = {"plain.json": PLAIN, "one.json.bz2": bz2.compress(PLAIN, 1)}


@settings(max_examples=40)
@given(st.data())
def test_any_cuts_give_the_same_pages_in_the_same_order(data):
    name = data.draw(st.sampled_from(sorted(PACKED)))
    path = stored(name, PACKED[name])
    line_ends = [i + step for i, byte in enumerate(PLAIN) if byte == 10 for step in (0, 1, 2)]
    cut = st.integers(0, len(PACKED[name]))
    cut |= st.sampled_from(line_ends).map(lambda at: min(at, len(PACKED[name])))
    found, counts = rows(path, data.draw(st.lists(cut, max_size=4)))
    assert found == EXPECTED
    assert counts["bytes"] == len(PLAIN)
    assert counts["articles"] == sum(page["namespace"] == 0 for page in SAMPLE)
    assert counts["redirects"] == len(EXPECTED) - counts["articles"]
    parts = ("articles", "redirects", "other_namespaces")
    assert counts["pages"] == sum(counts[part] for part in parts)


def test_planned_splits_of_bzip2_give_the_same_pages_and_a_gzip_file_is_one():
    path = stored("one.json.bz2", PACKED["one.json.bz2"])
    splits = cirrus.plan_splits(path, 20_000)
    assert len(splits) > 2
    assert rows(path, [start for start, _ in splits[1:]])[0] == EXPECTED
    path = stored("one.json.gz", gzip.compress(PLAIN))
    assert cirrus.plan_splits(path, 20_000) == [(0, storage.size(path))]
    assert rows(path)[0] == EXPECTED


def test_redirects_follow_the_page_that_they_lead_to():
    path = stored("one.json", ndjson([document("Cat", "A cat.", [(0, "Cats"), (2, "User:Cat")])]))
    found, counts = rows(path)
    assert found == [("Cat", None, "A cat."), ("Cats", "Cat", None)]
    assert +counts == {
        "pages": 3,
        "articles": 1,
        "redirects": 1,
        "other_namespaces": 1,
        "bytes": storage.size(path),
    }


@pytest.mark.parametrize(
    ("line", "counted"),
    [
        (b'{"title": "half', "malformed: not JSON"),
        (b'["title"]', "malformed: not JSON"),
        (b"\xff", "malformed: not JSON"),
        (json.dumps(document("", "x")).encode(), "malformed: no title"),
        (json.dumps(document("T", "x", namespace=None)).encode(), "malformed: no namespace"),
        (json.dumps(document("T", None)).encode(), "malformed: no text"),
        (json.dumps(document("T", "x", content_model="json")).encode(), "other_models"),
    ],
)
def test_a_line_that_is_no_article_is_counted_with_its_reason(line, counted):
    one, two = ndjson([document("One", "1")]), ndjson([document("Two", "2")])
    path = stored("bad.json", one + line + b"\n" + two)
    for cut in (0, len(one), len(one) + 1, len(one) + len(line)):
        found, counts = rows(path, [cut])
        assert [title for title, _, _ in found] == ["One", "Two"]
        assert (counts["pages"], counts[counted]) == (3, 1)


@pytest.mark.parametrize(
    "redirects", [None, 7, "To", [], [7], [{"title": "To"}], [{"namespace": 0}]]
)
def test_redirects_that_are_malformed_cost_only_themselves(redirects):
    found, counts = rows(stored("bad.json", ndjson([document("T", "x", redirect=redirects)])))
    assert found == [("T", None, "x")]
    listed = len(redirects) if isinstance(redirects, list) else 0
    assert counts["malformed: redirect without title or namespace"] == listed


def test_a_line_that_is_too_long_is_left_out_without_being_held(monkeypatch):
    monkeypatch.setattr(cirrus, "LARGEST", 50_000)
    monkeypatch.setattr(pages, "PIECE", 10_000)
    documents = [
        document("One", "1"),
        document("Huge", "h" * 300_000),
        document("Two", "2" * 40_000),
    ]
    path = stored("large.json", ndjson(documents))
    for cut in (0, 700, 100_000):
        found, counts = rows(path, [cut])
        assert [title for title, _, _ in found] == ["One", "Two"]
        assert (counts["pages"], counts["too_large"]) == (3, 1)


def test_a_dump_that_is_cut_is_refused_with_its_name():
    for name, data in (
        ("cut.json", PLAIN[:-10]),
        ("cut.json.gz", gzip.compress(PLAIN)[:-10]),
        ("cut.json.bz2", PACKED["one.json.bz2"][:-10]),
    ):
        path = stored(name, data)
        with pytest.raises(UserError, match=f"^{path}: .*cut"):
            rows(path)
    assert rows(stored("cut.json", PLAIN.removesuffix(b"\n")))[0] == EXPECTED


def test_the_first_page_says_which_wiki_it_is():
    path = stored("plain.json", PLAIN)
    site = cirrus.read_site(path)
    assert (site.dbname, site.language) == ("enwiki", "en")
    cirrus.check_site(path, site, "enwiki")
    with pytest.raises(UserError, match=r"dump of enwiki \(language: en\), not of dewiki"):
        cirrus.check_site(path, site, "dewiki")
    long = stored("long.json", ndjson([document("Long", "x" * 3_000_000)]))
    assert cirrus.read_site(long).dbname == "enwiki"


@pytest.mark.parametrize("data", [b"<mediawiki>", b'{"index":{}}\n{"a":1}\n', b"\n\n\n\n"])
def test_what_is_no_cirrussearch_dump_is_refused(data):
    path = stored("other", data)
    with pytest.raises(UserError, match=f"^{path}: is no CirrusSearch dump"):
        cirrus.read_site(path)
