"""What the demo's hosts have for crawlers beside their pages: sitemaps, detours and traps.

Every host has a sitemap of its pages and their pictures; robots.txt names the shop's and the
museum's, which is an index of a packed one. The calendar of the blog and the maze of the museum
have no end; a link with rel=nofollow is the only way into the maze.
"""

import functools
import gzip
from urllib.parse import urljoin
from xml.sax.saxutils import escape

from pipeline.demo import pages

SITEMAP = "/sitemap.xml"
INDEX, PACKED = "/maps/index.xml", "/maps/rooms.xml.gz"  # of the museum
REDIRECT = ("http://blog.example/posts/newest/", "http://blog.example/posts/10/")
XML = (("Content-Type", "application/xml"),)
HTML = (("Content-Type", "text/html; charset=utf-8"),)
Reply = tuple[int, tuple[tuple[str, str], ...], bytes]


def reply(url: str) -> Reply | None:
    """(status, headers, body) for a URL without its query; None for all others."""
    host, _, path = url.removeprefix("http://").partition("/")
    path = f"/{path}"
    if url == REDIRECT[0]:
        return 302, (*HTML, ("Location", REDIRECT[1])), _page("Moved", "")
    if url == "http://blog.example/drafts/":
        return 200, HTML, _page("Drafts", "", '<meta name="robots" content="noindex">')
    if host == "blog.example" and path.startswith("/calendar/"):
        return _calendar(path)
    if host == "museum.example" and path.startswith("/maze/"):
        return _maze(path)
    if host == "museum.example" and path in (INDEX, PACKED):
        body = _index() if path == INDEX else gzip.compress(sitemap(host), mtime=0)
        return 200, XML if path == INDEX else (("Content-Type", "application/gzip"),), body
    if path == SITEMAP and host != "museum.example" and listed(host):
        return 200, XML, sitemap(host)
    return None


@functools.cache
def listed(host: str) -> dict[str, list[str]]:
    """What a host's sitemap lists: its pages, and the pictures on each of them."""
    return {
        page.url: list(dict.fromkeys(urljoin(page.url, picture) for picture, _, _ in page.pairs))
        for page in pages.pages()
        if page.url.split("/")[2] == host
    }


def sitemap(host: str) -> bytes:
    """A host's sitemap, with the pictures as Google's extension of the protocol lists them."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'
        ' xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">',
    ]
    for page, pictures in listed(host).items():
        lines.append(f"<url><loc>{escape(page)}</loc>")
        lines += [
            f"<image:image><image:loc>{escape(url)}</image:loc></image:image>" for url in pictures
        ]
        lines.append("</url>")
    return "\n".join([*lines, "</urlset>\n"]).encode()


def _index() -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<sitemapindex xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
        f"<sitemap><loc>http://museum.example{PACKED}</loc></sitemap></sitemapindex>\n"
    ).encode()


def _page(title: str, body: str, head: str = "") -> bytes:
    return f"<!doctype html><title>{title}</title>{head}<h1>{title}</h1>{body}".encode()


def _calendar(path: str) -> Reply | None:
    """A month, with links to the one before and the one after, for all time."""
    year, _, month = path.removeprefix("/calendar/").strip("/").partition("/")
    if not (year.isascii() and year.isdigit() and len(year) < 6):
        return None
    if not (month.isascii() and month.isdigit() and 1 <= int(month[:3]) <= 12):
        return None
    at = int(year) * 12 + int(month) - 1
    beside = [f"/calendar/{n // 12}/{n % 12 + 1:02d}/" for n in (at - 1, at + 1)]
    links = " ".join(f'<a href="{link}">{link[10:17]}</a>' for link in beside)
    return 200, HTML, _page(f"{year}/{month}", links)


def _maze(path: str) -> Reply | None:
    """A room with two doors, for ever."""
    room = path.removeprefix("/maze/").strip("/")
    if not (room.isascii() and room.isdigit() and len(room) < 20):
        return None
    doors = "".join(f'<a href="/maze/{2 * int(room) + i}/">door</a> ' for i in (0, 1))
    return 200, HTML, _page(f"Room {room} of the maze", doors)
