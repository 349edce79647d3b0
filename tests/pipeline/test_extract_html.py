"""From HTML: every image that a parser finds, one address each, its texts, in linear time."""

import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.extract import encoding, html, http, tokens
from pipeline.extract.rows import Rows
from pipeline.sources.crawl import _is_wanted
from pipeline.sources.records import read_records
from pipeline.tally import Tally

PAGE = "https://example.org/a/page.html"


def extract(page):
    """(links as (url, text, attribute), counts) of a page."""
    tally, rows = Tally(), Rows()
    html.extract(page.encode() if isinstance(page, str) else page, PAGE, 0, rows, tally)
    batch = rows.take(tally)
    assert tally.unaccounted == 0
    links = zip(*(batch[name].to_pylist() for name in ("url", "text", "attribute")), strict=True)
    return list(links), tally


def address(tag):
    """What is chosen for the only image of a piece of HTML."""
    (image,), _, _ = html.find_images(tag.encode())
    return html.choose_address(image)


@pytest.fixture(scope="module")
def pages(shared_data):
    path = shared_data / "warc" / "real_pages.warc.gz"
    found = []
    with open(path, "rb") as file:
        for record in read_records(file, str(path), Tally(), wanted=_is_wanted):
            fields, body = http.split_response(bytes(record.block))
            found.append(encoding.to_utf8(body, fields["content-type"]))
    return found


def test_on_real_pages_the_images_and_their_attributes_are_those_that_lexbor_finds(pages):
    lexbor = pytest.importorskip("selectolax.lexbor")
    images = 0
    for page in pages:
        theirs = [
            {name: (value or "").replace("\r\n", "\n") for name, value in node.attributes.items()}
            for node in lexbor.LexborHTMLParser(page).css("img, amp-img")
        ]
        ours = [
            {name: value.replace("\r\n", "\n") for name, value in image.attributes.items()}
            for image in html.find_images(page)[0]
        ]
        assert ours == theirs
        images += len(ours)
    assert images == 24_515


HOSTILE = {
    "many attributes": lambda n: b"<img " + b" ".join(b"a%d=1" % i for i in range(n // 9)) + b">",
    "deep nesting": lambda n: b"<div>" * (n // 5),
    "open formatting": lambda n: b"".join(b"<b a=%d>" % i for i in range(n // 10)),
    "tags that never end": lambda n: b"<a " * (n // 3),
    "quotes that never end": lambda n: b'<a b="' * (n // 6),
    "comments that never end": lambda n: b"<!--" * (n // 4),
    "scripts that never end": lambda n: b"<script>" * (n // 8),
    "captions with open comments": lambda n: b"<figure><figcaption><!--<svg>" * (n // 29),
    "captions": lambda n: b"<figure><figcaption>x</figcaption><img src=a>" * (n // 45),
    "figures": lambda n: b"<figure>" * (n // 8) + b"<img src=a alt=b>",
    "images": lambda n: b"<img src=a alt=b>" * (n // 17),
    "a long srcset": lambda n: b'<img alt=a srcset="' + b"a" * n + b' b">',
    "many candidates": lambda n: b'<img alt=a srcset="' + b"a 1x," * (n // 5) + b'">',
    "entities": lambda n: b'<img alt="' + b"&amp" * (n // 4) + b'" src=a>',
    "spaces": lambda n: b"<img alt" + b" " * n + b"=a>",
    "brackets": lambda n: b"<" * n,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_megabyte_takes_seconds_at_most(name):
    page = HOSTILE[name](2**20)
    start = time.process_time()
    extract(page)
    assert time.process_time() - start < 3


def test_images_beyond_the_twenty_thousandth_are_counted():
    _, tally = extract(b"<img src=a alt=b>" * (html.MOST_IMAGES + 5))
    assert tally.counts == {"extracted": html.MOST_IMAGES, "too_many_images": 5}


PIECE = st.sampled_from(
    [
        *(
            b"<",
            b">",
            b"/",
            b"!",
            b"--",
            b"=",
            b'"',
            b"'",
            b" ",
            b"\n",
            b"a",
            b"&amp;",
            b"\xff",
            b"]]>",
        ),
        *(b"<img src=x alt=y>", b"<img ", b"<noscript>", b"</noscript>", b"<script>", b"</script>"),
        *(b"<svg>", b"</svg>", b"<title>", b"<figure>", b"<figcaption>", b"</figcaption>", b"<!--"),
        *(b"<template>", b"</template>", b"<picture>", b"<source srcset=z>", b"<base href=/b/>"),
        *(b"<![CDATA[", b"<plaintext>", b"<textarea>", b"</textarea>", b"\0", b"<a b=", b"<p>"),
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECE, max_size=25).map(b"".join))
def test_any_markup_is_tokenised_within_its_bounds_and_every_link_counted(page):
    for kind, start, end in tokens.find_tags(page).tolist():
        assert 0 <= start <= end < len(page)
        assert page[end : end + 1] == b">"
        assert abs(kind) in set(tokens.KINDS.values())
    extract(page)


def test_tags_in_comments_scripts_attributes_and_text_areas_are_none():
    page = """<!-- <img src=1 alt=x> --><script>"<img src=2 alt=x>"</script><!><img src=a alt=a>
    <a title="<img src=3 alt=x>">b</a><textarea><img src=4 alt=x></textarea><title><img></title>
    <script><!-- <script>x</script> <img src=5 alt=x> --></script><img alt=b src=b><!--> <img
    src=c alt=c><template><img src=6 alt=x></template><svg><title/><image href=7 /></svg>
    <image src=d alt=d><svg><![CDATA[<img src=8 alt=x>]]></svg><img/src=e/alt=e><img src=f alt='f'/>
    """
    links, _ = extract(page)
    assert [text for _, text, _ in links] == ["a", "b", "c", "d", "f"]
    assert html.find_images(b"<img/src=e/alt=e>")[0][0].attributes == {"src": "e/alt=e"}


@pytest.mark.parametrize(
    ("tag", "chosen"),
    [
        ("<img src=a.jpg>", ("a.jpg", "src")),
        ("<img src=' a.jpg\n'>", ("a.jpg", "src")),
        ("<img src=data:x data-src=/b.jpg>", ("/b.jpg", "lazy")),
        ("<img src=/pixel.gif data-src=/b.jpg>", ("/b.jpg", "lazy")),
        ("<img src=/pixel.gif data-src='{{x}}'>", ("/pixel.gif", "src")),
        ("<img src=/a.jpg data-lazy=true data-original=800x600>", ("/a.jpg", "src")),
        (
            "<img src=/a.jpg?w=1 data-lazy-src='/a.jpg?w=1&is-pending-load=1'>",
            ("/a.jpg?w=1", "src"),
        ),
        ("<img src=/pixel.gif data-srcset='/s.jpg 1w, /l.jpg 2w'>", ("/l.jpg", "lazy")),
        ("<img src=data:x srcset='/s.jpg, /l.jpg 1.5x'>", ("/l.jpg", "srcset")),
        ("<picture><source srcset='/p.webp 2x'><img></picture>", ("/p.webp", "picture")),
        ("<img data-hero-image='https://x.org/h.jpg?a'>", ("https://x.org/h.jpg?a", "other")),
        ("<img src=data:x>", ("data:x", "src")),
        ("<img alt=x>", ("", "src")),
        ("<amp-img src=a.jpg></amp-img>", ("a.jpg", "src")),
    ],
)
def test_one_address_counts(tag, chosen):
    assert address(tag) == chosen


def test_a_source_outside_a_picture_is_none_of_an_image():
    assert address("<video><source srcset=/v.jpg></video><img>") == ("", "src")


@pytest.mark.parametrize(
    ("srcset", "best"),
    [
        ("a.jpg 1x, b.jpg 2x", "b.jpg"),
        ("a,b.jpg 100w,c.jpg 50w", "a,b.jpg"),
        ("data:image/png;base64,AA== 9x, x.jpg 2x", "x.jpg"),
        ("a.jpg 100w 50h, b.jpg 20w", "a.jpg"),
        ("https://x/w_1,a.jpg 1w, https://x/w_2,a.jpg 2w,", "https://x/w_2,a.jpg"),
        ("a.jpg, b.jpg", "a.jpg"),
        (" , ", None),
        ("", None),
    ],
)
def test_the_widest_picture_of_a_srcset(srcset, best):
    assert html.best_of_srcset(srcset) == best


def test_texts_of_an_image_are_distinct_and_tidy():
    page = """<figure><img src=a.jpg alt=" A&nbsp;cat " title="A cat" data-image-title=cat_1>
    <figcaption>A <b>big</b><br>cat<!-- x --> &amp; <script>y</script>dog</figcaption></figure>
    <img src=b.jpg alt=" "><img src=c.jpg>"""
    links, tally = extract(page)
    assert links == [
        ("https://example.org/a/a.jpg", "A cat", "alt"),
        ("https://example.org/a/a.jpg", "cat_1", "data-image-title"),
        ("https://example.org/a/a.jpg", "A big cat & dog", "figcaption"),
    ]
    assert tally.counts == {"extracted": 3, "no_text": 2}
    assert tally.seen == {"pages": 1, "images": 3, "extra_texts": 2}


def test_a_caption_belongs_to_the_innermost_figure():
    page = """<figure><figcaption>gallery</figcaption><figure><img src=1><figcaption>one
    </figcaption></figure><img src=2></figure><img src=3 alt=none><figcaption>x</figcaption>"""
    links, _ = extract(page)
    assert [(url[-1], text) for url, text, _ in links] == [
        ("1", "one"),
        ("2", "gallery"),
        ("3", "none"),
    ]


def test_a_noscript_twin_is_counted_wherever_it_stands():
    page = """<noscript><img src=/b.jpg alt=x title=y></noscript>
    <img src=data:z data-src=/b.jpg alt=x><noscript><img src=/c.jpg alt=x></noscript>"""
    links, tally = extract(page)
    assert Counter(links) == Counter(
        [
            ("https://example.org/b.jpg", "y", "title"),
            ("https://example.org/b.jpg", "x", "alt"),
            ("https://example.org/c.jpg", "x", "alt"),
        ]
    )
    assert tally.counts == {"extracted": 3, "noscript_twin": 1}


def test_the_first_base_counts():
    page = "<base target=_top><base href=/x/><base href=/y/><img src=i.jpg alt=a>"
    assert extract(page)[0] == [("https://example.org/x/i.jpg", "a", "alt")]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("?a=1&copy=2", "?a=1&copy=2"),
        ("?a=1&amp;b=2", "?a=1&b=2"),
        ("&copy", "©"),
        ("&notit;", "&notit;"),
        ("&#8222;a&#x201c", "„a“"),
        ("&#128;", "€"),
        ("&", "&"),
    ],
)
def test_character_references_in_attributes(written, meant):
    assert html.parse_attributes(f'alt="{written}"'.encode())["alt"] == meant
