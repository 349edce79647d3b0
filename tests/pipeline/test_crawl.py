"""A crawl takes what it may, in an order that only the web decides, and says what became of all."""

import gzip
import io
from collections import Counter

import pytest
from warcio.archiveiterator import ArchiveIterator

from tests.faulty import answer
from tests.pipeline.crawl_web import (
    HTML,
    Web,
    crawl,
    files,
    is_sound,
    moved,
    outcomes,
    page,
    records,
    rows,
    web,
)


def endless(host: str, path: str) -> bytes | None:
    """Every page leads to two new ones."""
    if not path.startswith("/n/"):
        return None
    number = int(path[3:])
    return page(f"/n/{2 * number}", f"/n/{2 * number + 1}")


def test_pages_are_asked_breadth_first_in_the_order_of_their_links(tmp_path):
    with Web(endless) as server:
        crawl(server, tmp_path, "http://a.test/n/1", "--max-pages", "40")
    responses = [url for kind, url, *_ in records(tmp_path) if kind == "response"]
    assert responses == [f"http://a.test/n/{n}" for n in range(1, 41)]
    found = rows(tmp_path)
    assert [row["url"] for row in found] == [f"http://a.test/n/{n}" for n in range(1, 82)]
    assert [row["depth"] for row in found] == [n.bit_length() - 1 for n in range(1, 82)]
    parents = [f"http://a.test/n/{n // 2}" for n in range(2, 82)]
    assert [row["parent"] for row in found] == [None, *parents]


def test_the_number_of_pages_is_exact_and_not_one_more_is_asked(tmp_path):
    with Web(endless) as server:
        facts = crawl(server, tmp_path, "http://a.test/n/1", "--max-pages", "23")
        assert len(server.asked("a.test")) == 23
    assert facts["outcomes"] == {"fetched": 23, "over_pages": 24}
    assert facts["complete"]


def test_pages_that_fail_do_not_count_towards_the_limit(tmp_path):
    def some(host, path):
        return endless(host, path) if path.endswith(tuple("13579")) or path == "/n/2" else None

    with Web(some) as server:
        facts = crawl(server, tmp_path, "http://a.test/n/1", "--max-pages", "9")
    assert facts["outcomes"]["fetched"] == 9
    assert facts["outcomes"]["not_found"] > 0


def test_the_pages_of_a_host_and_the_depth_are_exact(tmp_path):
    seeds = "http://a.test/n/1 http://b.test/n/1"
    with Web(endless) as server:
        facts = crawl(server, tmp_path / "hosts", seeds, "--max-host-pages", "7")
        assert (len(server.asked("a.test")), len(server.asked("b.test"))) == (7, 7)
        assert facts["outcomes"] == {"fetched": 14, "over_host_pages": 16}
        facts = crawl(server, tmp_path / "depth", "http://c.test/n/1", "--max-depth", "3")
        assert facts["outcomes"] == {"fetched": 15, "over_depth": 16}
        assert max(int(path[3:]) for path in server.asked("c.test")) == 15


def test_the_page_that_reaches_the_bytes_is_the_last(tmp_path):
    with Web(endless) as server:
        facts = crawl(server, tmp_path, "http://a.test/n/1", "--max-bytes", "1000")
    kept = [row for row in rows(tmp_path) if row["outcome"] == "fetched"]
    sizes = [row["bytes"] for row in kept]
    assert sum(sizes[:-1]) < 1000 <= sum(sizes) == facts["bytes"]
    assert facts["outcomes"].keys() == {"fetched", "over_bytes"}


@pytest.mark.parametrize(
    ("options", "fetched"),
    [
        ((), {"http://www.a.test/", "http://a.test/"}),
        (("--scope", "host"), {"http://www.a.test/"}),
        (("--scope", "host", "--hosts", "*.b.test"), {"http://www.a.test/", "http://x.b.test/"}),
        (("--hosts", "c.test"), {"http://www.a.test/", "http://a.test/", "http://c.test/"}),
    ],
)
def test_a_crawl_stays_where_it_was_told_to(tmp_path, options, fetched):
    links = ("http://a.test/", "http://x.b.test/", "http://c.test/", "mailto:x@a.test", "#top")
    with web({"/": page(*links)}) as server:
        crawl(server, tmp_path, "http://www.a.test/", *options)
        assert {host for _, host, _ in server.log} == {url[7:-1] for url in fetched}
    found = outcomes(tmp_path)
    assert {url for url, outcome in found.items() if outcome == "fetched"} == fetched
    assert set(found.values()) <= {"fetched", "off_site"}


def test_redirects_are_rows_and_records_of_their_own_and_end(tmp_path):
    def pages(host, path):
        if path.startswith("/hop/"):
            return moved(f"/hop/{int(path[5:]) + 1}")
        return {
            "/": page("/loop", "/self", "/old", "/away", "/inside", "/file", "/nowhere", "/hop/0"),
            "/loop": moved("/pool"),
            "/pool": moved("/loop"),
            "/self": moved("/self"),
            "/old": moved("/new", "301 Moved"),
            "/new": page(),
            "/away": moved("http://d.test/"),
            "/inside": moved("http://10.1.2.3/"),
            "/file": moved("file:///etc/passwd"),
            "/nowhere": answer(b"", HTML, "302 Found"),
        }.get(path)

    with Web(pages) as server:
        crawl(server, tmp_path, "http://a.test/")
        assert server.asked("d.test") == []
    found = {
        url.removeprefix("http://a.test"): outcome for url, outcome in outcomes(tmp_path).items()
    }
    assert {path: found[path] for path in ("/loop", "/pool", "/old", "/new", "/self")} == {
        "/loop": "redirect",
        "/pool": "redirect",
        "/old": "redirect",
        "/new": "fetched",
        "/self": "redirect_loop",
    }
    assert (found["http://d.test/"], found["http://10.1.2.3/"]) == ("off_site", "off_site")
    assert (found["/file"], found["/nowhere"]) == ("unsupported_scheme", "invalid_redirect")
    hops = [found[f"/hop/{n}"] for n in range(6)]
    assert hops == [*["redirect"] * 5, "too_many_redirects"]
    archived = {url for kind, url, *_ in records(tmp_path) if kind == "response"}
    assert {"http://a.test/loop", "http://a.test/old", "http://a.test/new"} <= archived


def test_addresses_that_are_not_public_are_never_asked(tmp_path):
    inside = ("http://10.1.2.3/", "http://localhost/", "http://[::1]/", "http://169.254.169.254/x")
    with web({"/": page(*inside)}) as server:
        crawl(server, tmp_path, "http://a.test/", "--scope", "any")
        assert {host for _, host, _ in server.log} == {"a.test"}
    found = outcomes(tmp_path)
    assert {found[url] for url in inside} == {"forbidden_address"}


def test_robots_txt_is_obeyed_and_a_host_that_fails_it_is_left_alone(tmp_path):
    rules = answer(b"User-agent: *\nDisallow: /private\nDisallow: /sitemap.xml\n", "text/plain")
    broken = answer(b"", "text/plain", "500 Oops")
    pages = {
        "a.test/robots.txt": rules,
        "b.test/robots.txt": broken,
        "/": page("/private/x", "/open"),
        "/private/x": page(),
        "/open": page(),
    }
    with web(pages) as server:
        crawl(server, tmp_path, "http://a.test/ http://b.test/")
        assert server.asked("a.test") == ["/", "/open"]
        assert "/sitemap.xml" not in server.paths("a.test")
        assert set(server.paths("b.test")) == {"/robots.txt"}
    found = outcomes(tmp_path)
    assert found["http://a.test/private/x"] == found["http://b.test/"] == "robots_disallowed"


def test_words_to_robots_are_kept(tmp_path):
    noindex = '<meta name="robots" content="noindex">'
    nofollow = '<META NAME=ROBOTS CONTENT="NoFollow">'
    ours = '<meta name="webimagetext" content="noai">'
    others = '<meta name="googlebot" content="noindex, nofollow">'
    pages = {
        "/": page("/noindex", "/nofollow", "/ours", "/others", "/header", "/tdm", "nofollow:/trap"),
        "/noindex": page("/1", head=noindex),
        "/nofollow": page("/2", head=nofollow),
        "/ours": page("/3", head=ours),
        "/others": page("/4", head=others),
        "/header": page("/5", X_Robots_Tag="none"),
        "/tdm": page(TDM_Reservation="1"),
        **{f"/{n}": page() for n in range(1, 6)},
    }
    with web(pages) as server:
        crawl(server, tmp_path, "http://a.test/")
        assert "/trap" not in server.paths("a.test")
    found = {url[13:]: outcome for url, outcome in outcomes(tmp_path).items()}
    assert [found[f"/{n}"] for n in range(1, 6)] == [
        *("fetched", "nofollow", "fetched", "fetched", "nofollow")
    ]
    kept_out = {path for path, outcome in found.items() if outcome == "opted_out"}
    assert kept_out == {"/noindex", "/ours", "/header", "/tdm"}
    assert found["/trap"] == "nofollow"
    archived = {url[13:] for kind, url, *_ in records(tmp_path) if kind == "response"}
    assert not archived & kept_out


def test_a_page_is_kept_once_under_its_canonical_url(tmp_path):
    def canonical(url):
        return f'<link rel="canonical" href="{url}">'

    pages = {
        "/": page("/list", "/list?sort=1", "/a?utm=1", "/a?utm=2", "/elsewhere", "/by-header"),
        "/list": page("/item", head=canonical("/list")),
        "/list?sort=1": page("/list?sort=2", head=canonical("/list")),
        "/a?utm=1": page(head=canonical("/a")),
        "/a?utm=2": page("/a", head=canonical("http://a.test/a")),
        "/a": page(),
        "/elsewhere": page(head=canonical("http://c.test/")),
        "/by-header": page(Link='<http://a.test/list>; rel="canonical"'),
        "/item": page(),
    }
    with web(pages) as server:
        crawl(server, tmp_path, "http://a.test/")
        assert "/a" not in server.asked("a.test")
        assert "/list?sort=2" not in server.asked("a.test")
    found = {url[13:]: outcome for url, outcome in outcomes(tmp_path).items()}
    assert {path for path, outcome in found.items() if outcome == "duplicate"} == {
        *("/list?sort=1", "/a?utm=2", "/a", "/by-header")
    }
    assert {found[p] for p in ("/list", "/a?utm=1", "/elsewhere", "/item")} == {"fetched"}


def test_what_is_no_page_is_not_downloaded_unless_asked_for(tmp_path):
    picture = answer(bytes(200_000), "image/png")
    untyped = b"HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n<!doctype html><p>untyped"
    pages = {
        "/": page("/picture", "/untyped", "/text"),
        "/picture": picture,
        "/untyped": untyped,
        "/text": answer(b"plain", "text/plain"),
    }
    with web(pages) as server:
        crawl(server, tmp_path / "pages", "http://a.test/")
        facts = crawl(server, tmp_path / "all", "http://a.test/", "--other-types")
    found = outcomes(tmp_path / "pages")
    assert found["http://a.test/picture"] == found["http://a.test/text"] == "not_html"
    assert found["http://a.test/untyped"] == "fetched"
    archived = [url for kind, url, *_ in records(tmp_path / "pages") if kind == "response"]
    assert "http://a.test/picture" not in archived
    assert facts["bytes"] > 200_000
    assert outcomes(tmp_path / "all") == found
    assert is_sound(tmp_path / "all")


def test_bad_answers_cost_one_row_each_and_little_time(tmp_path):
    pages = {
        "/": page("/huge", "/bomb", "/drip", "/empty", "/garbage", "/good"),
        "/huge": answer(b"<!doctype html>" + bytes(3_000_000), HTML),
        "/bomb": answer(gzip.compress(bytes(50_000_000)), HTML, Content_Encoding="gzip"),
        "/drip": 20.0,
        "/empty": answer(b"", HTML),
        "/garbage": b"SSH-2.0-OpenSSH_9.2\r\n",
        "/good": page(),
    }
    with web(pages) as server:
        options = ("--max-page-bytes", "1000000", "--timeout", "1.5")
        crawl(server, tmp_path, "http://a.test/", *options)
    found = {url[13:]: outcome for url, outcome in outcomes(tmp_path).items()}
    assert found["/huge"] == found["/bomb"] == "too_many_bytes"
    assert found["/drip"] in ("total_timeout", "first_byte_timeout")
    assert found["/empty"] == "empty_body"
    assert found["/garbage"] == "invalid_response"
    assert found["/good"] == "fetched"
    assert is_sound(tmp_path)


def test_a_host_that_is_dead_is_given_up(tmp_path):
    pages = {"/": page(*(f"/dead/{n}" for n in range(40)))}
    with Web(lambda host, path: 9.0 if path.startswith("/dead") else pages.get(path)) as server:
        facts = crawl(server, tmp_path, "http://a.test/", "--timeout", "0.3")
        assert 5 <= len([p for p in server.asked("a.test") if p.startswith("/dead")]) <= 7
    assert facts["outcomes"]["host_gave_up"] >= 33


# --- WARC ---------------------------------------------------------------------------------------


def test_packed_and_chunked_answers_are_read_by_warcio_as_they_were_meant(tmp_path):
    text = b"<!doctype html><p>" + b"hello " * 1000
    packed = gzip.compress(text, mtime=0)
    chunks = b"5\r\n" + text[:5] + b"\r\n%x\r\n" % (len(text) - 5) + text[5:] + b"\r\n0\r\n\r\n"
    head = b"HTTP/1.1 200 Fine\r\nContent-Type: text/html\r\nX-Odd:  a b \r\n"
    pages = {
        "/": page("/packed", "/chunked"),
        "/packed": head
        + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        + packed,
        "/chunked": head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
    }
    with web(pages) as server:
        crawl(server, tmp_path, "http://a.test/")
    assert is_sound(tmp_path)
    with files(tmp_path)[0].open("rb") as file:
        found = {}
        for record in ArchiveIterator(file):
            about = record.rec_headers
            if about.get_header("WARC-Type") == "response":
                found[about.get_header("WARC-Target-URI")] = record.content_stream().read()
                assert about.get_header("WARC-IP-Address") == "127.0.0.1"
            elif about.get_header("WARC-Type") == "request":
                asked = record.http_headers
                assert asked.protocol == "GET"
                assert asked.get_header("Host").startswith("a.test")
                assert "test@example.org" in asked.get_header("User-Agent")
    assert found["http://a.test/packed"] == found["http://a.test/chunked"] == text


def test_each_record_is_a_member_of_its_own_and_the_table_says_where(tmp_path):
    with Web(endless) as server:
        options = ("--max-pages", "30", "--warc-size", "3000")
        crawl(server, tmp_path, "http://a.test/n/1", *options)
    assert len(files(tmp_path)) > 2
    kept = [row for row in rows(tmp_path) if row["outcome"] == "fetched"]
    for row in kept:
        data = (tmp_path / "warc" / row["warc"]).read_bytes()[row["offset"] :]
        record = next(ArchiveIterator(io.BytesIO(data)))
        assert record.rec_headers.get_header("WARC-Target-URI") == row["url"]
        assert record.rec_headers.get_header("WARC-Type") == "response"
    ids = [record[2] for record in records(tmp_path)]
    assert len(set(ids)) == len(ids)
    kinds = Counter(record[0] for record in records(tmp_path))
    assert kinds == {"warcinfo": len(files(tmp_path)), "request": 30, "response": 30}
