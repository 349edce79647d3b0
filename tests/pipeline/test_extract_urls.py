"""Image addresses become the URLs that the WHATWG standard says, by the fast way and the slow."""

import json
import tarfile

import ada_url
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.extract import urls

PAGE = "https://www.example.org/a/b/page.html?q=1"


def normalise(texts, page=PAGE, base_href=None):
    bases = urls.make_bases([page], [base_href])
    found, outcomes = urls.normalise(
        pa.array(texts, pa.string()), np.zeros(len(texts), np.int64), bases
    )
    return found.to_pylist(), [urls.OUTCOMES[outcome] for outcome in outcomes]


def standard(text, base):
    """The URL by Ada, without its fragment; None where the standard says failure."""
    try:
        return ada_url.URL(text, base=base).href.partition("#")[0]
    except ValueError:
        return None


PIECES = st.sampled_from(
    [
        *(
            "http",
            "https",
            "HTTP",
            ":",
            "/",
            "//",
            "/.",
            "/..",
            "..",
            ".",
            "%2e",
            "%2E",
            "%",
            "%20",
            "?",
        ),
        *("#", "a", "Z", "img.jpg", "www.example.org", "xn--", "xn--fsq", "1.2.3.4", "0x7f.1", "@"),
        *(
            ":80",
            ":443",
            ":8080",
            "\\",
            " ",
            "\t",
            "\n",
            "é",
            "日",
            "'",
            '"',
            "<",
            "^",
            "`",
            "{",
            "|",
        ),
        *("_", "-", "~", "[", "]", "&", "=", "*", "data:", "blob:", "\x00", "."),
    ]
)
ADDRESSES = st.one_of(
    st.lists(PIECES, max_size=10).map("".join),
    st.lists(PIECES, max_size=8).map(lambda rest: "https://www.example.org/" + "".join(rest)),
    st.text(max_size=30),
)
BASES = st.sampled_from(
    [
        *(
            PAGE,
            "http://example.org",
            "http://example.org:8080/x/",
            "https://1.2.3.4/y?z",
            "file:///x/y",
        ),
        *("https://user@example.org/d/", "https://example.org/a/../b/./c", "about:blank", "no url"),
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(ADDRESSES, max_size=8), BASES, st.one_of(st.none(), ADDRESSES))
def test_fast_and_slow_way_give_what_the_standard_says(texts, page, base_href):
    base = standard(page, None)
    if base_href is not None:
        base = standard(base_href, base) or base
    found, outcomes = normalise(texts, page, base_href)
    for text, url, outcome in zip(texts, found, outcomes, strict=True):
        right = standard(text, base)
        if outcome == "extracted":
            assert url == right
            assert url.startswith(("http://", "https://"))
        else:
            assert url is None
            wanted = right is not None and right.startswith(("http://", "https://"))
            assert not wanted or outcome == "no_url"


@settings(max_examples=200, deadline=None)
@given(st.lists(ADDRESSES, min_size=1, max_size=10))
def test_what_is_taken_for_normal_is_left_as_it_is_by_the_standard(texts):
    for text, normal in zip(texts, urls.is_normal(pa.array(texts)), strict=True):
        if normal:
            assert standard(text, None) == text


def test_ordinary_addresses_take_the_fast_way():
    ordinary = [
        "https://img.example.org/2020/05/photo-1024x768.jpg",
        "http://a-b.example.co.uk/i/IMG_0001.JPG?resize=728%2C472&ssl=1",
        "https://x.org/",
        "https://cdn.example.com/a//b/c.webp?x={1}",
    ]
    assert urls.is_normal(pa.array(ordinary)).all()


@pytest.mark.parametrize(
    "url",
    [
        *("http://xn--.org/", "http://a.xn--pokxncvks.org/", "http://1.2.3.4/", "http://a.0x1/"),
        *("http://a.org:80/", "http://u@a.org/", "http://a.org", "http://A.org/", "http://a..org/"),
        *("http://a.org/./b", "http://a.org/%2e/b", "http://a.org/b?c'", "http://a.org/b#c"),
        *("http:///a.org/", "http:/a.org/", "https:a.org/", "ftp://a.org/", "http://a.org/é"),
    ],
)
def test_what_the_standard_may_change_is_not_taken_for_normal(url):
    assert not urls.is_normal(pa.array([url]))[0]


def test_outcomes_are_told_apart():
    cases = {
        "": "no_url",
        "  ": "no_url",
        "#top": "no_url",
        "data:image/gif;base64,R0lGOD": "data_url",
        " DATA:image/gif,x": "data_url",
        "blob:https://x/y": "not_http",
        "javascript:void(0)": "not_http",
        "file:///etc/passwd": "not_http",
        "https://": "bad_url",
        "http://[::1": "bad_url",
        "https://exa mple.org/x": "bad_url",
        "/" + "x" * urls.LONGEST: "url_too_long",
        "x.jpg": "extracted",
    }
    _, outcomes = normalise(list(cases))
    assert dict(zip(cases, outcomes, strict=True)) == cases


def test_relative_addresses_follow_page_and_base():
    texts = ["i.jpg", "/i.jpg", "//h.net/i.jpg", "../i.jpg", "?i", "HTTPS://H.NET:443/i.jpg#x"]
    assert normalise(texts)[0] == [
        "https://www.example.org/a/b/i.jpg",
        "https://www.example.org/i.jpg",
        "https://h.net/i.jpg",
        "https://www.example.org/a/i.jpg",
        "https://www.example.org/a/b/page.html?i",
        "https://h.net/i.jpg",
    ]
    assert normalise(["i.jpg"], base_href="/c/")[0] == ["https://www.example.org/c/i.jpg"]
    assert normalise(["i.jpg"], base_href="http://h.net")[0] == ["http://h.net/i.jpg"]
    assert normalise(["i.jpg", "http://h.net/i.jpg"], page="")[0] == [None, "http://h.net/i.jpg"]


def test_whatwg_test_data(shared_data):
    name = "robots/crawler_commons/src/test/resources/url-utils/wpt-urltestdata.json"
    with tarfile.open(shared_data / "torture" / "robots_and_urls.tar.xz") as tar:
        member = next(m for m in tar if m.name.endswith(name))
        cases = [c for c in json.load(tar.extractfile(member)) if isinstance(c, dict)]
    checked = 0
    for case in cases:
        text, page = case["input"], case.get("base") or ""
        try:
            text.encode()
        except UnicodeEncodeError:
            continue
        (url,), (outcome,) = normalise([text], page=page)
        right = None if case.get("failure") else case["href"].partition("#")[0]
        if outcome == "extracted":
            assert url == right, case
        elif outcome == "bad_url":
            assert right is None, case
        checked += 1
    assert checked > 800


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_slices_of_arrays_are_read_from_their_own_start(rows):
    texts = pa.array(["x", *(["https://a.org/i.jpg"] * rows), "y"])
    assert urls.is_normal(texts[1 : 1 + rows]).tolist() == [True] * rows
