"""The demo's web as input of a harvest: crawl files and a table, always the same bytes.

`wit demo` crawls its web and takes the table from here; the crawl files, whose dates do not change
and which hold what a crawler of ours does not keep, are for tests.
"""

import gzip
import itertools
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from io import BytesIO

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from pipeline.demo import answers, hosts, words
from pipeline.demo.pages import Page, pages
from wit import storage

__all__ = ["CRAWLS", "TABLE", "Page", "pages", "table_rows", "write_table", "write_warcs"]

CRAWLED = datetime(2025, 3, 1, 6, 0, tzinfo=UTC)
CRAWLS = {  # file: the hosts in it
    "demo-00000.warc.gz": ("shop-one.example", "www.outlet.example"),
    "demo-00001.warc.gz": (
        "museum.example",
        "blog.example",
        "portfolio.example",
        "quiet.example",
        "closed.example",
        "attic.example",
        "cellar.example",
    ),
    "demo-00002.warc.gz": (
        "slow.example",
        "kaufhaus.example",
        "mode.example",
        "fuku.example",
        "odezhda.example",
    ),
}
NOT_PAGES = (  # what a crawler brings home beside pages of pictures
    "http://shop-one.example/robots.txt",
    "http://shop-one.example/img/dress-01.jpg",
    "http://blog.example/robots.txt",
    "http://blog.example/posts/99/",  # 404
    "http://museum.example/objects/hat-01.jpg",  # a redirect
    "http://kaufhaus.example/robots.txt",
)
REVISITED = "http://museum.example/rooms/1"  # met again with the same content
DAMAGED = "http://blog.example/posts/damaged/"  # a page whose gzip encoding ends too early
TABLE = "feed.tsv"
Record = Callable[..., None]


def write_warcs(folder: str) -> list[str]:
    """Write the crawl files into a folder (any path of `wit.storage`); returns their paths.

    Every page is there as request and response, some of them chunked or gzip-encoded as servers
    send them; beside them robots.txt files, a picture, a 404, redirects, a revisit, and one page
    that cannot be unpacked. Ids and dates follow from name and place.
    """
    paths = []
    for name, of_hosts in CRAWLS.items():
        out = BytesIO()
        record = _recorder(out, name)
        info = b"software: WebImageText demo\r\nformat: WARC File Format 1.0\r\n"
        record("warcinfo", None, info, content_type="application/warc-fields")
        for url, status, headers, body in _captures(of_hosts):
            host, _, path = url.removeprefix("http://").partition("/")
            asked = StatusAndHeaders(
                f"GET /{path} HTTP/1.1", [("Host", host)], is_http_request=True
            )
            phrase = f"{status} {HTTPStatus(status).phrase}"
            record("request", url, b"", asked)
            record("response", url, body, StatusAndHeaders(phrase, headers, protocol="HTTP/1.1"))
            if url == REVISITED:
                record("revisit", url, b"", StatusAndHeaders(phrase, headers, protocol="HTTP/1.1"))
        paths.append(storage.join(folder, name))
        storage.write_bytes(paths[-1], out.getvalue())
    return paths


def _recorder(out: BytesIO, name: str) -> Record:
    writer, numbers = WARCWriter(out, gzip=True, warc_version="WARC/1.0"), itertools.count()

    def record(
        kind: str,
        url: str | None,
        payload: bytes,
        http: StatusAndHeaders | None = None,
        content_type: str = "",
    ) -> None:
        number = next(numbers)
        about = {
            "WARC-Date": (CRAWLED + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{name}/{number}')}>",
        }
        if kind == "revisit":
            about["WARC-Profile"] = (
                "http://netpreserve.org/warc/1.0/revisit/identical-payload-digest"
            )
        writer.write_record(
            writer.create_warc_record(
                url,
                kind,
                payload=BytesIO(payload),
                http_headers=http,
                warc_headers_dict=about,
                warc_content_type=content_type,
            )
        )

    return record


def _captures(of_hosts: tuple[str, ...]) -> Iterator[tuple[str, int, list[tuple[str, str]], bytes]]:
    """(url, status, headers, body as sent) of what a crawler kept of some hosts, by URL order."""
    mine = [p for p in pages() if p.url.split("/")[2] in of_hosts]
    for place, page in enumerate(mine):
        headers, body = list(page.headers), page.body
        if place % 5 == 3:
            body = gzip.compress(body, mtime=0)
            headers.append(("Content-Encoding", "gzip"))
        if place % 7 == 5:
            pieces = (body[i : i + 4096] for i in range(0, len(body), 4096))
            body = b"".join(b"%x\r\n%b\r\n" % (len(x), x) for x in pieces) + b"0\r\n\r\n"
            headers.append(("Transfer-Encoding", "chunked"))
        else:
            headers.append(("Content-Length", str(len(body))))
        yield page.url, 200, headers, body
    for url in NOT_PAGES:
        if url.split("/")[2] in of_hosts:
            reply = answers.answer(url)
            length = ("Content-Length", str(len(reply.body)))
            yield url, reply.status, [*reply.headers, length], reply.body
    if DAMAGED.split("/")[2] in of_hosts:
        body = gzip.compress(pages()[0].body, mtime=0)[:40]
        headers = [("Content-Type", "text/html"), ("Content-Encoding", "gzip")]
        yield DAMAGED, 200, [*headers, ("Content-Length", str(len(body)))], body


def table_rows() -> list[tuple[str, str]]:
    """The (url, text) rows of the table: pairs of the pages again, new ones, and bad rows."""
    of_shop = [(u, t) for p in pages()[:11] for u, t, _ in p.pairs if "/img/" in u]
    rows = of_shop[::9][:40]
    for number, (url, _) in enumerate(of_shop[4::12][:30]):
        picture = hosts.some(1, "other text", number)[0]
        rows.append((url, words.text(picture, words.PLAIN, "feed", number)))
    for p in hosts.some(70, "feed"):
        rows.append((f"http://shop-one.example/img/{p.name}.jpg?w=280", _feed_text(p)))
    for p in hosts.some(12, "feed of the museum"):
        rows.append((f"http://museum.example/objects/{p.name}.jpg", _feed_text(p)))
    for p in hosts.some(4, "no text"):
        rows.append((f"http://shop-one.example/img/{p.name}.jpg?w=280", ""))
    rows += [("no address at all", "the dress"), ("ftp://ftp.example/hat.jpg", "the hat")]
    rows += [(hosts.DATA_GIF, "the shirt"), ("http://[broken/skirt.jpg", "the skirt")]
    return rows


def _feed_text(picture: hosts.Picture) -> str:
    return words.text(picture, words.SHOP, "feed")


def write_table(folder: str) -> str:
    """Write the table as tab-separated `url` and `text` with a header line; returns its path."""
    path = storage.join(folder, TABLE)
    lines = ["url\ttext", *(f"{url}\t{text}" for url, text in table_rows())]
    storage.write_bytes(path, ("\n".join(lines) + "\n").encode())
    return path
