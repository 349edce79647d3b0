"""A crawl is a guest: rates and pauses in the server's log, sitemaps, and errors in one line."""

import gzip
import time
from pathlib import Path

import pytest

from pipeline.crawl import command
from tests.faulty import answer
from tests.pipeline.crawl_web import Web, arguments, crawl, keep_apart, outcomes, page, rows, web
from wit.errors import UserError

XML = "application/xml"


def urlset(*urls: str) -> bytes:
    text = "".join(f"<url><loc>{url}</loc></url>" for url in urls)
    space = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'
    return f'<?xml version="1.0"?><urlset {space}>{text}</urlset>'.encode()


def index(*urls: str) -> bytes:
    text = "".join(f"<sitemap><loc>{url}</loc></sitemap>" for url in urls)
    return f"<sitemapindex>{text}</sitemapindex>".encode()


def test_a_host_is_asked_at_its_rate_and_never_too_often_at_once(tmp_path):
    pages = {"/": page(*(f"/{n}" for n in range(30))), **{f"/{n}": page() for n in range(30)}}
    with web(pages) as server:
        crawl(server, tmp_path, "http://a.test/ http://b.test/", "--host-rate", "20")
        for host in ("a.test", "b.test"):
            times = [moment for moment, name, _ in server.log if name == host]
            assert len(times) >= 33
            assert keep_apart(times, 1 / 20)
    assert set(outcomes(tmp_path).values()) == {"fetched"}


def test_requests_at_once_are_bounded_for_a_host_with_and_without_www(tmp_path):
    pages = {"/": page(*(f"/{n}" for n in range(12)))}

    def slowly(host: str, path: str) -> bytes | float | None:
        return 0.1 if path[1:].isdigit() else pages.get(path)

    with Web(slowly) as server:
        seeds = "http://a.test/ http://www.a.test/ http://b.test/"
        crawl(server, tmp_path, seeds, "--host-concurrency", "3")
        assert max(server.most_at_once.values()) == 3
        assert server.most_at_once["a.test"] + server.most_at_once["www.a.test"] <= 6


def test_crawl_delay_is_kept(tmp_path):
    rules = answer(b"User-agent: *\nCrawl-delay: 0.3\n", "text/plain")
    with web({"/robots.txt": rules, "/": page("/1", "/2"), "/1": page(), "/2": page()}) as server:
        crawl(server, tmp_path, "http://a.test/")
        times = [moment for moment, _, path in server.log if path != "/robots.txt"]
    assert keep_apart(times, 0.3)


def test_retry_after_is_kept_and_a_long_one_is_not_waited_for(tmp_path):
    seen: list[str] = []

    def pages(host: str, path: str) -> bytes | None:
        seen.append(path)
        if path == "/busy" and seen.count(path) == 1:
            return answer(b"", "text/plain", "503 Busy", Retry_After="2")
        if path == "/go-away":
            return answer(b"", "text/plain", "429 Too Many", Retry_After="4000")
        links = [f"/{n}" for n in range(5)]
        return page("/busy", "/go-away", *links) if path == "/" else page()

    with Web(pages) as server:
        began = time.monotonic()
        options = ("--retries", "1", "--host-concurrency", "1")
        crawl(server, tmp_path, "http://a.test/", *options)
        assert time.monotonic() - began < 20
        busy = [moment for moment, _, path in server.log if path == "/busy"]
        assert busy[1] - busy[0] >= 2
        assert [path for _, _, path in server.log][-1] == "/go-away"
    found = outcomes(tmp_path)
    assert found["http://a.test/busy"] == "fetched"
    assert {found[f"http://a.test/{n}"] for n in range(5)} == {"host_paused"}


# --- sitemaps -----------------------------------------------------------------------------------


def test_sitemaps_are_found_by_robots_txt_by_index_and_at_their_usual_place(tmp_path):
    host = "http://a.test"
    robots = answer(
        f"Sitemap: {host}/maps.xml\nSitemap: http://d.test/m.xml\n".encode(), "text/plain"
    )
    pages = {
        "/robots.txt": robots,
        "/maps.xml": answer(index(f"{host}/1.xml.gz", f"{host}/2.txt", f"{host}/maps.xml"), XML),
        "/1.xml.gz": answer(gzip.compress(urlset(f"{host}/one", "http://c.test/")), "text/html"),
        "/2.txt": answer(f"{host}/two\nnonsense\n{host}/three\n".encode(), "text/plain"),
        "/sitemap.xml": answer(urlset(f" {host}/four&amp;x=1 ", "ftp://a.test/x"), XML),
        "/": page("/five"),
        **{f"/{n}": page() for n in ("one", "two", "three", "four&x=1", "five")},
    }
    with web(pages) as server:
        crawl(server, tmp_path, host)
        assert server.paths("d.test") == server.paths("c.test") == []
    found = [(row["url"][14:], row["depth"], row["parent"]) for row in rows(tmp_path)]
    assert found[1:] == [
        ("four&x=1", 1, f"{host}/sitemap.xml"),
        ("one", 1, f"{host}/1.xml.gz"),
        ("", 1, f"{host}/1.xml.gz"),
        ("two", 1, f"{host}/2.txt"),
        ("three", 1, f"{host}/2.txt"),
        ("five", 1, f"{host}/"),
    ]
    assert outcomes(tmp_path)["http://c.test/"] == "off_site"


def test_sitemaps_can_be_left_out(tmp_path):
    pages = {"/": page(), "/sitemap.xml": answer(urlset("http://a.test/one"), XML), "/one": page()}
    with web(pages) as server:
        crawl(server, tmp_path, "http://a.test/", "--no-sitemaps")
        assert server.asked("a.test") == ["/"]
        assert "/sitemap.xml" not in server.paths("a.test")


BILLION = (
    b'<!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
    b'<!ENTITY c SYSTEM "file:///etc/passwd">]>'
    b"<urlset><url><loc>http://a.test/&b;&c;</loc></url></urlset>"
)


@pytest.mark.parametrize(
    "body",
    [
        BILLION,
        gzip.compress(bytes(200_000_000), 1),
        gzip.compress(urlset("http://a.test/x"))[:-12],
        b"<urlset>" + b"<url>" * 500_000,
        urlset("http://a.test/one").replace(b"</urlset>", b"<url><loc>http://a.test/broken"),
        urlset(*(f"http://a.test/{'x' * 200}/{n}" for n in range(60_000))),
        b"<html>not a sitemap</html>",
        bytes(range(256)),
    ],
    ids=["entities", "bomb", "cut", "deep", "broken", "many", "html", "bytes"],
)
def test_a_hostile_sitemap_costs_little_and_stops_nothing(tmp_path, body):
    pages = {"/sitemap.xml": answer(body, XML), "/robots.txt": None}
    with Web(lambda host, path: pages.get(path, page("/next"))) as server:
        began = time.monotonic()
        crawl(server, tmp_path, "http://a.test/", "--max-pages", "10")
        assert time.monotonic() - began < 10
    found = outcomes(tmp_path)
    assert found["http://a.test/"] == "fetched"
    assert not any("passwd" in url or "lol" in url or "root:" in url for url in found)
    assert len(found) <= 50_002


# --- errors -------------------------------------------------------------------------------------


def refused(*argv: str) -> str:
    """The one line that a command ends with."""
    with pytest.raises(UserError) as error:
        command.main(list(argv))
    assert "\n" not in str(error.value)
    return str(error.value)


CONTACT = ("--contact", "test@example.org")


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    out = str(tmp_path / "out")
    empty = tmp_path / "seeds.txt"
    empty.write_text("# none\n\n")
    assert "--contact is needed" in refused("http://a.test/", "--out", out)
    assert "'notaurl://' is no seed" in refused("notaurl://", "--out", out)
    assert "no seeds" in refused(f"@{empty}", "--out", out, *CONTACT)
    assert "nowhere.txt" in refused("@nowhere.txt", "--out", out, *CONTACT)
    for seed in ("ftp://a.test/", "http://", "http://a b/", "http://u:p@a.test/", "mailto:x@y"):
        assert repr(seed) in refused(seed, "--out", out, *CONTACT)
    empty.write_text("http://a.test/\nhttp://[broken/\n")
    assert f"{empty}:2" in refused(f"@{empty}", "--out", out, *CONTACT)
    assert "s3://" in refused("http://a.test/", "--out", "s3://b/c", *CONTACT)
    assert "--hosts" in refused("http://a.test/", "--out", out, "--hosts", "a/b", *CONTACT)
    assert "--resolve" in refused("http://a.test/", "--out", out, "--resolve", "x", *CONTACT)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    assert str(tmp_path) in refused("http://a.test/", "--out", str(tmp_path), *CONTACT)
    assert sorted(p.name for p in tmp_path.iterdir()) in (["thesis.txt"], [".lock", "thesis.txt"])
    file = tmp_path / "thesis.txt"
    assert str(file) in refused("http://a.test/", "--out", str(file / "x"), *CONTACT)


def test_another_crawl_and_other_options_are_refused(tmp_path):
    with web({"/": page()}) as server:
        crawl(server, tmp_path, "http://a.test/")
        for more, said in (
            (("--max-pages", "7"), "--max-pages 1000, now 7"),
            (("--max-depth", "2"), "--max-depth not set, now 2"),
            (("--max-page-bytes", "7"), "--max-page-bytes 10000000, now 7"),
            (("--host-rate", "3"), "--host-rate 0.0, now 3.0"),
            (("--user-agent", "x/1 (a@b)"), "--contact or --user-agent"),
        ):
            line = refused(*arguments(server, tmp_path, "http://a.test/", *more))
            assert said in line
            assert str(tmp_path) in line
        line = refused(*arguments(server, tmp_path, "http://b.test/"))
        assert "http://b.test/" in line


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    closed = tmp_path / "closed"
    closed.write_bytes(b"")
    assert str(closed) in refused("http://a.test/", "--out", str(closed / "x"), *CONTACT)


def test_seeds_are_read_from_files_with_remarks_and_without_schemes(tmp_path: Path):
    seeds = tmp_path / "seeds.txt"
    seeds.write_text("\ufeff# mine\nhttp://A.test/x/../#top\n\nhttp://a.test\n", encoding="utf-8")
    with web({"/": page()}) as server:
        crawl(server, tmp_path / "out", f"@{seeds}")
    assert list(outcomes(tmp_path / "out")) == ["http://a.test/"]
