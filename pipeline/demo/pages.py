"""The demo's pages as bytes, and the pairs that their authors meant."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urljoin

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.demo import hosts

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Page:
    """A web page as its host serves it.

    `pairs` are the (url, text, attribute) that the page's author meant: an absolute http URL
    (percent-encoded, not otherwise normalised), a text that is not empty, white space collapsed. A
    pair that stands twice on the page is twice in it. The further addresses of a `srcset` or a
    `<source>` are not in it.
    """

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    pairs: tuple[tuple[str, str, str], ...]


@functools.cache
def pages() -> tuple[Page, ...]:
    """All pages of all hosts, in a fixed order."""
    return tuple(page for host in hosts.HOSTS for page in _pages_of(host))


@functools.cache
def pages_by_url() -> dict[str, Page]:
    """All pages by their URL."""
    return {page.url: page for page in pages()}


def _pages_of(host: str) -> Iterator[Page]:
    name, make = hosts.HOSTS[host]
    sheets = list(make())
    template = _environment().get_template("page.html")
    for sheet in sheets:
        text = template.render(
            vars(sheet),
            host=host,
            name=name,
            menu=[(s.title, s.path) for s in sheets[:6]],
            hue=sum(host.encode()) * 47 % 360,
        )
        url = f"http://{host}{sheet.path}"
        headers = (("Content-Type", sheet.content_type),)
        body = text.encode(sheet.encoding, "xmlcharrefreplace")
        yield Page(url, headers, body, tuple(_pairs(url, name, sheet)))


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined
    )


def _pairs(page_url: str, name: str, sheet: hosts.Sheet) -> Iterator[tuple[str, str, str]]:
    yield urljoin(page_url, "/static/logo.png"), name, "alt"
    for item in (*sheet.items, *sheet.strip):
        url = _absolute(sheet.base or page_url, item.src)
        texts = ((item.alt or "", "alt"), (item.title, "title"), (item.caption, "figcaption"))
        for text, attribute in texts:
            collapsed = " ".join(text.split())
            if url and collapsed:
                yield from [(url, collapsed, attribute)] * (2 if item.noscript else 1)


def _absolute(base: str, src: str) -> str | None:
    try:
        url = urljoin(base, src)
    except ValueError:  # a bracket that is not closed
        return None
    return quote(url, safe=":/?&=%[]@+,;'") if url.startswith("http://") else None
