"""The demo's web: the same bytes everywhere, and the trouble it promises."""

import gzip
import hashlib
import io
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from protego import Protego

from pipeline import fetch
from pipeline.demo import answers, pages, pictures, routes, server, site, truth, words
from tests.pipeline.demo_run import all_pairs, all_urls
from wit.outcomes import OUTCOMES
from wit.web import robots
from wit.web.guard import origin_of

ROOT = Path(__file__).resolve().parents[2]
AGENT = "WebImageText-test/1.0 (+https://example.org/bot)"


def written(folder: Path) -> dict[str, str]:
    paths = [*site.write_warcs(str(folder)), site.write_table(str(folder))]
    return {Path(p).name: hashlib.sha256(Path(p).read_bytes()).hexdigest() for p in paths}


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crawl")
    written(folder)
    return folder


# --- the pictures -------------------------------------------------------------------------------


def test_the_pictures_are_the_published_ones_and_small_enough_to_be_kept_here() -> None:
    data = (pictures.DATA / "clothing_cc0_300.tar").read_bytes()
    note = (pictures.DATA / "README.md").read_text("utf-8")
    assert f"`{hashlib.sha256(data).hexdigest()}`" in note
    assert "CC0 1.0" in note
    assert sum(f.stat().st_size for f in pictures.DATA.iterdir()) < 8_000_000


def test_every_picture_is_described_once() -> None:
    shown = pictures.pictures()
    assert len(shown) == 298
    assert len(pictures._files()) == 298
    assert Counter(p.garment for p in shown.values()).keys() == set(pictures.GARMENTS)
    assert {p.colour for p in shown.values()} <= set(words.COLOURS)


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        *(("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("gif", "GIF"), ("anim", "GIF")),
        *(("grey", "JPEG"), ("cmyk", "JPEG"), ("turned", "JPEG")),
    ],
)
def test_each_form_decodes_as_what_it_says(kind: str, form: str) -> None:
    image = Image.open(io.BytesIO(pictures.form("dress-03", kind, 200)))
    image.load()
    assert image.format == form
    assert (kind == "anim") == getattr(image, "is_animated", False)
    assert image.width == {"anim": 150, "turned": 267}.get(kind, 200)
    assert image.mode == {"grey": "L", "cmyk": "CMYK"}.get(kind, image.mode)


# --- the pages ----------------------------------------------------------------------------------


def test_the_web_has_the_size_it_should() -> None:
    pairs = all_pairs()
    assert len(site.pages()) == 54
    assert len(pairs) == 1_833
    assert len({(url, text) for url, text, _ in pairs}) == 1_673
    assert len(all_urls()) == 1_409
    assert len(site.table_rows()) == 160
    assert 8 <= len(routes.HOSTS) <= 20


def test_every_trouble_is_met_on_the_pages_and_has_an_outcome() -> None:
    met = Counter(truth.trouble(url) for url in all_urls())
    assert set(met) == set(truth.TROUBLES)
    assert {outcome for outcome, _ in truth.TROUBLES.values()} <= set(OUTCOMES)
    assert met["picture"] > 1_000
    assert met["placeholder"] > 80


def test_some_words_go_over_a_small_cap_and_most_do_not() -> None:
    distinct = {(url, text) for url, text, _ in all_pairs()}
    counts = Counter(word for _, text in distinct for word in set(text.lower().split()))
    for word in ("the", "dress", "shirt", "black", "of"):
        assert counts[word] > 80, word
    assert sum(count <= 3 for count in counts.values()) > 300


def test_one_picture_has_several_urls_and_one_url_several_texts() -> None:
    texts = defaultdict(set)
    for url, text, _ in all_pairs():
        texts[url].add(text)
    assert sum(len(found) > 1 for found in texts.values()) > 100
    names = Counter(routes.place(url)[2] for url in texts)
    assert names.most_common(3)[-1][1] >= 6


def test_texts_are_natural_and_hard_ones_are_among_them() -> None:
    texts = {text for _, text, _ in all_pairs()}
    assert "Ostrava Works two-tone office dress, sky blue and navy, size S" in texts
    assert max(map(len, texts)) > 3_000
    assert any("<script>" in text for text in texts)
    assert "ｒｅｄ ｊａｃｋｅｔ" in texts
    for language in words.ABROAD:
        noun = words.GARMENTS_ABROAD[language].split()[0]
        assert any(noun in text for text in texts), language


def test_legacy_encodings_are_what_the_pages_are_written_in() -> None:
    for host, encoding, piece in (
        ("fuku", "shift_jis", "の写真"),
        ("odezhda", "windows-1251", "на каждый день"),
        ("kaufhaus", "windows-1252", "Größe zählt – bei"),
        ("mode", "utf-8", "L'élégance"),
    ):
        page = pages.pages_by_url()[f"http://{host}.example/"]
        assert piece in page.body.decode(encoding).replace("&#39;", "'")
        if encoding != "utf-8":
            with pytest.raises(UnicodeDecodeError):
                page.body.decode("utf-8")


def test_lazy_pictures_srcset_base_and_captions_are_on_the_pages() -> None:
    bodies = b"".join(page.body for page in site.pages())
    for piece in (
        b'src="data:image/gif;base64,',
        b'data-src="',
        b'src="/static/spacer.gif" data-original="',
        b"<noscript><img",
        b'srcset="',
        b"<picture><source",
        b"<base href",
        b"<figcaption>",
        b'src="//cdn.example/',
        b'src="../../uploads/',
        b'alt=""',
        b"utm_source=letter",
    ):
        assert bodies.count(piece) >= 5, piece


# --- the files ----------------------------------------------------------------------------------


def test_the_files_are_the_same_in_every_process(tmp_path: Path) -> None:
    program = (
        "import sys; from pipeline.demo import site; "
        "site.write_warcs(sys.argv[1]); site.write_table(sys.argv[1])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "TZ": "Asia/Tokyo"}
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a")], check=True, cwd=ROOT, env=environment
    )
    mine = written(tmp_path / "b")
    there = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / "a").iterdir()}
    assert mine == there
    assert sorted(mine) == sorted([*site.CRAWLS, site.TABLE])


def test_the_crawl_files_hold_every_page_as_it_is_served(crawl: Path) -> None:
    found, kinds, urls = {}, Counter(), []
    for name in site.CRAWLS:
        with (crawl / name).open("rb") as file:
            for record in ArchiveIterator(file, parse_http=False):
                kinds[record.headers["WARC-Type"]] += 1
                if record.record_type == WarcRecordType.response:
                    urls.append(record.headers["WARC-Target-URI"])
                    assert record.verify_block_digest(), record.record_id
                    record.parse_http(auto_decode="all")
                    if urls[-1] != site.DAMAGED:
                        found[urls[-1]] = record.reader.read()
    served = {page.url: page.body for page in site.pages()}
    assert {url: found[url] for url in served} == served
    assert set(urls) - set(served) == {*site.NOT_PAGES, site.DAMAGED}
    assert (kinds["warcinfo"], kinds["revisit"], kinds["request"]) == (3, 1, len(urls))


def test_each_record_is_a_gzip_member_of_its_own(crawl: Path) -> None:
    for name in site.CRAWLS:
        data = (crawl / name).read_bytes()
        with (crawl / name).open("rb") as file:
            offsets = [r.stream_pos for r in ArchiveIterator(file, parse_http=False)]
        assert len(offsets) > 20
        assert all(data[offset : offset + 2] == b"\x1f\x8b" for offset in offsets)
        assert gzip.decompress(data[offsets[-1] :]).startswith(b"WARC/1.0\r\n")


def test_the_table_has_pairs_of_the_pages_new_ones_and_bad_rows(crawl: Path) -> None:
    lines = (crawl / site.TABLE).read_text("utf-8").splitlines()
    assert lines[0] == "url\ttext"
    rows = [tuple(line.split("\t")) for line in lines[1:]]
    assert rows == site.table_rows()
    on_pages = {(url, text) for url, text, _ in all_pairs()}
    assert 30 < sum(row in on_pages for row in rows) < 50
    assert sum(not text for _, text in rows) == 4
    assert sum(not url.startswith("http://") or "[" in url for url, _ in rows) == 4


# --- the truth ----------------------------------------------------------------------------------


def test_robots_files_forbid_what_the_truth_says() -> None:
    for host in routes.HOSTS:
        reply = answers.answer(f"http://{host}/robots.txt")
        if reply.way or reply.status not in (200, 404, 403):
            continue
        text = reply.body.decode() if reply.status == 200 else ""
        rules = Protego.parse(text.removeprefix("\ufeff"))
        for url in all_urls():
            if urlsplit(url).hostname == host:
                kept_out = truth.trouble(url) == "robots"
                assert rules.can_fetch(url, AGENT) != kept_out, url


def test_every_url_on_the_pages_has_the_answer_its_trouble_promises() -> None:
    statuses = {"not_found": 404, "gone": 410, "forbidden": 403, "server_error": 500, "busy": 503}
    for number, url in enumerate(all_urls()):
        kind, reply = routes.trouble(url), answers.answer(url)
        if kind in ("moved", "moved_inside", "moved_to_file", "loop", "chain"):
            assert reply.status in (301, 302, 307, 308), url
        elif kind == "inside_address":
            assert reply.status == 421, url
        else:
            assert reply.status == statuses.get(kind, 200), url
        decodes = truth.expected(url) == "success" and reply.status == 200
        if decodes and (number % 5 == 0 or kind != "picture"):
            Image.open(io.BytesIO(reply.body)).load()


def test_only_the_placeholder_stands_under_many_urls() -> None:
    under = Counter()
    for url in all_urls():
        reply = answers.answer(url)
        if truth.expected(url) == "success" and reply.status == 200:
            under[hashlib.sha256(reply.body).digest()] += 1
    (placeholder, often), (_, next_often) = under.most_common(2)
    assert placeholder == hashlib.sha256(pictures.placeholder()).digest()
    assert often > 80
    assert next_often < 15


@given(st.sampled_from(all_urls()), st.sampled_from(all_urls()))
@settings(max_examples=200, deadline=None)
def test_an_answer_does_not_depend_on_what_was_asked_before(first: str, second: str) -> None:
    before = answers.answer(first)
    answers.answer(second)
    assert answers.answer(first) == before


@given(
    st.sampled_from(routes.HOSTS),
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=30),
)
@settings(max_examples=300, deadline=None)
def test_every_path_has_an_answer_and_an_expectation(host: str, path: str) -> None:
    url = f"http://{host}/{path}"
    assert answers.answer(url).status in (200, 301, 302, 403, 404, 503)
    assert truth.expected(url) in OUTCOMES


def test_the_fetcher_meets_the_outcomes_that_the_truth_expects() -> None:
    by_kind = defaultdict(list)
    for url in all_urls():
        by_kind[truth.trouble(url)].append(url)
    urls = [url for kind in sorted(by_kind) for url in by_kind[kind][:8]]
    with server.running_server() as number:
        policy = fetch.FetchPolicy(
            AGENT,
            host_rate=0,
            per_host_concurrency=8,
            retries=0,
            allow_addresses=(f"127.0.0.1:{number}",),
            resolve=server.resolve_map(number),
        )
        table = robots.robots_table(policy, sorted({o for u in urls if (o := origin_of(u))}))
        with fetch.Fetcher(policy) as fetcher:
            got = {
                urls[f.index]: f.outcome
                for f in fetcher.run(urls, fetch.HostRules.from_table(table))
            }
    assert got == {url: truth.expected(url) for url in urls}
