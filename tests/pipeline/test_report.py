"""The report: every count shown and summed, every string escaped, nothing from the network."""

import base64
import hashlib
import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline import report
from pipeline.report import page

HOSTILE = "<script>alert(1)</script> '\"><img src=x onerror=alert(2)> {{ 7*7 }} </style>]]>"


def picture(size: tuple[int, int] = (30, 40), kind: str = "JPEG") -> bytes:
    out = BytesIO()
    Image.new("RGB", size, "teal").save(out, kind)
    return out.getvalue()


def run(text: str = "a blue dress", pictures: int = 3) -> report.ReportData:
    return report.ReportData(
        title=text,
        links=1_000,
        fates=[
            report.Fate("Reading", text, text, 200),
            report.Fate("Fetching", "not_found", "404 or 410", 100),
            report.Fate("Fetching", "success", "In the shards.", 700, kept=True),
        ],
        cap=20,
        facts=[("seed", text)],
        queries=[report.QueryRow(text, 90, 80, 20, 30, 0), report.QueryRow("hat", 9, 8, 7, 7, 1)],
        query_count=400_000,
        queries_present=2,
        queries_short=1,
        curve=report.make_curve(np.array([80, 8]), np.array([20, 7])),
        attempts=800,
        failures=[report.Failure("not_found", text, 100, [(f"http://a.example/{text}", text)])],
        hosts=[report.HostRow(text, 800, 700, text, 0.5)],
        host_count=1,
        galleries=[
            report.Gallery(text, [report.Card(picture(), text, text, text)] * pictures),
        ],
        stages=[report.StageRow(text, 3, 61.0, 30.5)],
        stored=700,
        bytes=12_345_678,
        histograms=[report.Histogram("Length", "Median 3.", [("1", 200), ("2", 500)], [(0, "1")])],
        breakdowns=[report.Breakdown(text, [(text, 600)], (3, 100))],
    )


class Outline(HTMLParser):
    """Collects the tags, the addresses and the visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_strings_are_shown_and_not_run() -> None:
    plain, hostile = Outline(report.render(run())), Outline(report.render(run(HOSTILE)))
    assert hostile.tags.count("script") == 1
    assert hostile.handlers == []
    assert [t for t in hostile.tags if t != "mark"] == [t for t in plain.tags if t != "mark"]
    assert hostile.text.count("alert(1)") >= 10
    assert "123123" not in Outline(report.render(run("{{ 123*1001 }}"))).text


@given(st.text(max_size=60), st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_a_marked_text_is_the_text(text: str, query: str) -> None:
    pieces = page.marked(text, query)
    line = " ".join(text.split())
    if len(line) <= page.AROUND:
        assert "".join(piece for piece, _ in pieces) == line
    assert sum(is_query for _, is_query in pieces) <= 1


@pytest.mark.parametrize(
    ("text", "query", "found"),
    [
        ("The Blue-Dress of June", "blue dress", "Blue-Dress"),
        ("undressed, dress", "dress", "dress"),
        ("青いワンピース", "ワンピース", "ワンピース"),
        ("word " * 500 + "dress " + "word " * 500, "dress", "dress"),
        ("a hat", "dress", None),
    ],
)
def test_the_query_is_marked_in_the_text(text: str, query: str, found: str | None) -> None:
    pieces = page.marked(text, query)
    assert [piece for piece, is_query in pieces if is_query] == ([found] if found else [])
    assert sum(len(piece) for piece, _ in pieces) < 400


def test_nothing_comes_from_the_network() -> None:
    text = report.render(run())
    outline = Outline(text)
    assert all(address.startswith(("data:image/", "#")) for address in outline.addresses)
    assert not re.search(r"@import|url\((?!#)|<link|<iframe|<base", text)
    assert "default-src 'none'" in text


def test_the_only_script_is_the_one_that_the_policy_names() -> None:
    text = report.render(run(HOSTILE))
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_the_sums_are_shown_to_agree() -> None:
    text = Outline(report.render(run())).text
    assert re.search(r"Sum of the rows\s*1,000", text)
    assert "the sums agree" in text
    assert "sums differ" not in text


def test_sums_that_differ_are_said_to_differ() -> None:
    text = Outline(report.render(replace(run(), links=1_003))).text
    assert "the sums differ by 3" in text


def test_the_rows_tile_the_links() -> None:
    tiles = [(s, s + f.count) for g in page.funnel(run()) for f, s in g.rows]
    assert sorted(tiles) == [(0, 700), (700, 800), (800, 1_000)]
    assert [(g.name, g.left) for g in page.funnel(run())] == [("Reading", 800), ("Fetching", 700)]


def test_a_host_s_robots_txt_is_said_beside_it_and_on_a_phone_below_it() -> None:
    host = report.HostRow("http://192.168.1.20", 2, 0, "forbidden_address")
    text = Outline(report.render(replace(run(), hosts=[host]))).text
    assert text.count("forbidden address") == 2


def test_times_are_shown_with_their_sum() -> None:
    stages = [report.StageRow("start", 0, 61.0, 1.0), report.StageRow("fetch 1", 4, 60.0, 2.0)]
    text = Outline(report.render(replace(run(), stages=stages))).text
    assert re.search(r"Together\s*2 min 01 s\s*3\.0 s", text)


def test_an_empty_run_is_a_page() -> None:
    empty = report.ReportData(title="nothing", links=0, fates=[], cap=20)
    text = Outline(report.render(empty)).text
    assert "the sums agree" in text
    assert "No query has a pair." in text
    assert "No pair was selected." in text


def test_a_large_run_stays_under_five_megabytes() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (400, 300, 3), dtype=np.uint8)
    out = BytesIO()
    Image.fromarray(noise).save(out, "PNG")
    small = report.thumbnail(out.getvalue())
    long = HOSTILE * 40
    large = replace(
        run(long),
        queries=[report.QueryRow(long, n, n, n, n, n) for n in range(5_000)],
        hosts=[report.HostRow(f"{n}.{long}", n, n) for n in range(5_000)],
        galleries=[
            report.Gallery(f"dress {n}", [report.Card(small, long, long)] * 50) for n in range(50)
        ],
    )
    text = report.render(large)
    assert len(text.encode()) < 5_000_000
    assert Outline(text).tags.count("img") == page.MOST_CARDS


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_thumbnail_is_a_small_jpeg(kind: str) -> None:
    small = report.thumbnail(picture((900, 600), kind))
    assert Image.open(BytesIO(small)).size == (220, 147)


def test_a_picture_that_cannot_be_read_has_no_thumbnail_and_no_card() -> None:
    assert report.thumbnail(b"GIF89a no more") is None
    assert report.thumbnail(b"") is None
    gallery = report.Gallery("dress", [report.Card(None, "a dress", "http://a.example/")])
    assert "img" not in Outline(report.render(replace(run(), galleries=[gallery]))).tags


def test_bytes_that_are_no_picture_are_refused() -> None:
    card = report.Card(b"<svg onload=alert(1)>", "a dress", "http://a.example/x")
    data = replace(run(), galleries=[report.Gallery("dress", [card])])
    with pytest.raises(ValueError, match=r"a\.example/x: the thumbnail is no JPEG"):
        report.render(data)


def test_the_curve_keeps_both_ends() -> None:
    counts = np.arange(100_000)
    curve = report.make_curve(counts, np.minimum(counts, 20), counts // 2)
    assert (curve.ranks[0], curve.before[0], curve.after[0]) == (1, 99_999, 20)
    assert curve.present[0] == 49_999
    assert (curve.ranks[-1], curve.before[-1]) == (99_999, 1)
    assert len(curve.ranks) <= 160
    assert report.make_curve(np.zeros(5, int), np.zeros(5, int)).ranks == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"unfinished": "This run is not finished: stopped."},
            "This run is not finished: stopped.",
        ),
        ({"links": 0, "attempts": 0, "fates": []}, "This run is empty"),
        ({"attempts": 0, "fates": [report.Fate("Reading", "no_query", "", 1_000)]}, "No pair was"),
        ({"fates": [report.Fate("Fetching", "no picture", "", 1_000)]}, "No picture could be"),
        ({}, ""),
    ],
)
def test_what_a_run_lacks_is_said_before_all_else(changes: dict, said: str) -> None:
    text = report.render(replace(run(), **changes))
    verdict = re.search(r'<p class="verdict" role="status">(.*?)</p>', text)
    assert (verdict[1] if verdict else "").startswith(said)
    assert bool(verdict) == bool(said)


def test_a_count_below_zero_is_refused() -> None:
    fates = [report.Fate("Reading", "no_text", "", -1)]
    with pytest.raises(ValueError, match="no_text: a count below zero"):
        report.render(replace(run(), fates=fates))


def test_two_renderings_are_equal() -> None:
    assert report.render(run()) == report.render(run())
    assert html.unescape(report.render(run("naïve 服"))).count("naïve 服") > 8
