"""What a crawler reads from a page and from a sitemap, however they are written."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.crawl.links import MOST_LINKS, PageLinks, read_page
from pipeline.crawl.scope import Scope, host_of, site_of
from pipeline.crawl.sitemaps import named_in, read_sitemap

URL = "http://www.a.test/dir/page?x=1"
SCOPE = Scope("site", [URL])


def read(text: str | bytes, **more: object) -> PageLinks:
    body = text.encode() if isinstance(text, str) else text
    options = {"token": "webimagetext", "opt_outs": ("noindex", "none", "noai"), **more}
    return read_page(body, URL, SCOPE, **options)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("<a href=next>", ["http://www.a.test/dir/next"]),
        ("<A HREF='/x y'>", ["http://www.a.test/x%20y"]),
        ('<a class=b href = "?y=2#z">', ["http://www.a.test/dir/page?y=2"]),
        ("<a href='&#x2F;amp?a=1&amp;b=2'>", ["http://www.a.test/amp?a=1&b=2"]),
        ("<a\nhref=//b.a.test>", ["http://b.a.test/"]),
        ("<map><area href=/area></map>", ["http://www.a.test/area"]),
        ("<frameset><frame src=/frame></frameset>", ["http://www.a.test/frame"]),
        ("<iframe src=/iframe></iframe>", ["http://www.a.test/iframe"]),
        ("<link rel='next' href=/2><link rel=stylesheet href=/css>", ["http://www.a.test/2"]),
        ("<meta http-equiv=Refresh content='0; URL=\"/there\"'>", ["http://www.a.test/there"]),
        ("<base href=/other/><a href=x>", ["http://www.a.test/other/x"]),
        ("<a href=/1><a href=/2><a href=/1>", ["http://www.a.test/1", "http://www.a.test/2"]),
        ("<noscript><a href=/no></noscript>", ["http://www.a.test/no"]),
        ("<a href='#top'><a href=page?x=1><a href=mailto:x@y><a href=javascript:x()><a>", []),
        ("<!-- <a href=/x> --><script>'<a href=/x>'</script><textarea><a href=/x></textarea>", []),
        ("<title><a href=/x></title><style><a href=/x></style><abbr href=/x>", []),
        ("<a href='/open", []),
        ("<a rel=nofollow href=/x><a href=/x>", ["http://www.a.test/x"]),
    ],
)
def test_links_are_read_as_browsers_read_them(written, found):
    assert read(f"<!doctype html><html>{written}").follow == found


def test_links_that_must_not_be_followed_or_lead_elsewhere_stand_apart():
    found = read("<a rel='x NoFollow' href=/n><a href=http://b.test/><a href=http://c.a.test/>")
    assert found.nofollow == ["http://www.a.test/n"]
    assert found.off_site == ["http://b.test/"]
    assert found.follow == ["http://c.a.test/"]
    assert read("<meta name=robots content='x, none'><a href=/n>").nofollow == found.nofollow
    assert read("<a href=/n>", tags=["other: nofollow", "nofollow"]).nofollow == found.nofollow
    assert read("<a href=/n>", tags=["other: nofollow"]).follow == found.nofollow


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("<link rel=canonical href=/c>", "http://www.a.test/c"),
        ("<link rel='CANONICAL x' href='http://a.test/c#f'>", "http://a.test/c"),
        ("<link rel=canonical href=http://b.test/>", None),
        ("<link rel=canonical href=/c><link rel=canonical href=/d>", None),
        ("<link rel=canonical><link href=/c>", None),
        ("<link rel=canonical href=mailto:x>", None),
    ],
)
def test_a_canonical_url_counts_if_it_is_one_and_of_the_site(written, canonical):
    assert read(written).canonical == canonical
    header = read("x", link_headers=['</css>; rel=preload, </c>; title="a, b"; rel="canonical"'])
    assert header.canonical == "http://www.a.test/c"


@pytest.mark.parametrize(
    "piece",
    [
        b"<a ",
        b"<!--",
        b"<script>",
        b"<a href='",
        b'<a "',
        b"<meta content='url=",
        b"<",
        b"<a href=x>",
    ],
)
def test_a_hostile_page_is_read_in_a_time_that_grows_with_its_length(piece):
    read(b"<a href=x>")  # compiles the kernels
    began = time.perf_counter()
    found = read(piece * (3_000_000 // len(piece)))
    assert time.perf_counter() - began < 2
    assert len(found.follow) <= MOST_LINKS


@given(st.binary(max_size=300), st.text(max_size=300))
def test_any_bytes_are_a_page_and_a_sitemap(body, text):
    for written in (body, b"<a " + body, b"<a href='" + text.encode("utf-8", "replace") + b"'>"):
        read(written or b" ")
        pages, sitemaps, _ = read_sitemap(b"<urlset><url><loc>" + written)
        assert len(pages) + len(sitemaps) <= 1
    assert isinstance(named_in(text), list)


def test_sites_are_registrable_domains():
    assert site_of("www.shop.example.co.uk") == "example.co.uk"
    assert site_of("a.github.io") != site_of("b.github.io")
    assert site_of("shop-one.example") == "shop-one.example"
    assert site_of("co.uk") == "co.uk"
    assert site_of("10.0.0.1") == "10.0.0.1"
    assert host_of("http://[2001:db8::1]:8080/x") == "[2001:db8::1]"
    assert host_of("https://a.test:8443") == "a.test"
