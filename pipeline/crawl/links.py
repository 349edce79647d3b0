"""What a crawler reads from a page: its links, its canonical URL, what it says to robots.

Links are those of <a>, <area>, <frame>, <iframe>, <link rel=next|prev> and <meta refresh> in the
order of the page. The page is walked through as `pipeline.extract.tokens` does, in one pass:
comments, scripts and raw text hold no links. What stands in <template> or <noscript> counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from pipeline.crawl.scope import Scope, host_of, normal_url, site_of
from pipeline.extract import tokens
from pipeline.extract.html import parse_attributes
from pipeline.extract.urls import Base, make_bases
from wit.web.optouts import opted_out, reserved

MOST_LINKS = 10_000  # of a page; what follows is not looked at
MOST_BYTES = 2**20  # of a page's links

_TAG = re.compile(
    rb"<(?:(!--)|(?:(script|style|textarea|title|xmp|noembed|noframes|plaintext)"
    rb"|(a|area|base|frame|iframe|link|meta))(?=[ \t\n\r\f/>]))",
    re.IGNORECASE,
)
_REFRESH = re.compile(r"url\s*=(.*)", re.IGNORECASE | re.DOTALL)
_ADDRESS = {b"a": "href", b"area": "href", b"frame": "src", b"iframe": "src"}


@dataclass(slots=True)
class PageLinks:
    """Links of a page.

    Attributes:
        follow: normal URLs that belong to the crawl and may be followed, each once.
        nofollow: those that belong to it, but must not be followed from here.
        off_site: those that do not belong to it.
        canonical: the normal URL that the page names as its own, of the same site; else None.
        opt_out: the word by which the page opts out, else None.
    """

    follow: list[str] = field(default_factory=list)
    nofollow: list[str] = field(default_factory=list)
    off_site: list[str] = field(default_factory=list)
    canonical: str | None = None
    opt_out: str | None = None


@dataclass(slots=True)
class _Tags:
    """What the tags of a page say, as written."""

    links: list[tuple[str, bool]]  # (address, whether rel has nofollow)
    canonicals: list[str]
    robots: list[str]  # as X-Robots-Tag would say it
    base: str | None = None
    refused: bool = False  # TDM-Reservation: 1


def read_page(
    page: bytes,
    url: str,
    scope: Scope,
    *,
    token: str,
    opt_outs: Iterable[str],
    tags: Iterable[str] = (),
    link_headers: Iterable[str] = (),
    now: float = 0.0,
) -> PageLinks:
    """Reads a page.

    Args:
        page: HTML in UTF-8.
        url: its normal URL.
        scope: which URLs belong to the crawl.
        token: our product token, to which robots' words may be addressed.
        opt_outs: the words by which a page opts out.
        tags: values of its X-Robots-Tag headers.
        link_headers: values of its Link headers, where rel=canonical may stand.
        now: Unix time, for pages that are not available after a date.
    """
    said = _read_tags(page, token)
    robots = [*tags, *said.robots]
    found = PageLinks(opt_out=opted_out(robots, token, opt_outs, now))
    if found.opt_out is None and said.refused:
        found.opt_out = "tdm-reservation"
    base = make_bases([url], [said.base])[0]
    own = make_bases([url], [None])[0]
    headers = [(address, own) for address in map(_canonical_of, link_headers) if address]
    found.canonical = _canonical([*headers, *((a, base) for a in said.canonicals)], url, scope)
    none_to_follow = opted_out(robots, token, ("nofollow", "none")) is not None
    seen: set[str] = set()
    kept: dict[str, None] = {}
    size = 0
    for address, nofollow in said.links:
        link = normal_url(address, base)
        if link is None or link == url:
            continue
        size += len(link) if link not in seen else 0
        if size > MOST_BYTES:
            break
        seen.add(link)
        if not scope.allows(link):
            found.off_site.append(link)
        elif nofollow or none_to_follow:
            found.nofollow.append(link)
        else:
            kept[link] = None
    found.follow = list(kept)
    found.nofollow = [link for link in dict.fromkeys(found.nofollow) if link not in kept]
    found.off_site = list(dict.fromkeys(found.off_site))
    return found


def _canonical(named: list[tuple[str, Base]], url: str, scope: Scope) -> str | None:
    """The canonical URL that is named; None where none is, or two are, or one elsewhere."""
    urls = {normal_url(address, base) for address, base in named}
    if len(urls) != 1:
        return None
    canonical = urls.pop()
    if canonical is None or not scope.allows(canonical):
        return None
    return canonical if site_of(host_of(canonical)) == site_of(host_of(url)) else None


def _canonical_of(header: str) -> str | None:
    """The target of a Link header that says rel=canonical (RFC 8288, RFC 6596)."""
    for part in re.split(r",(?=\s*<)", header):
        target, _, parameters = part.strip().partition(">")
        if target.startswith("<") and re.search(
            r";\s*rel\s*=\s*(\"[^\"]*\bcanonical\b[^\"]*\"|canonical\b)", parameters, re.IGNORECASE
        ):
            return target[1:]
    return None


def _read_tags(page: bytes, token: str) -> _Tags:
    said = _Tags([], [], [])
    data = np.frombuffer(page, np.uint8)
    at = 0
    while len(said.links) < MOST_LINKS and (tag := _TAG.search(page, at)):
        if tag[1]:
            at = tokens._skip_comment(data, tag.end())
            continue
        end = tokens._skip_attributes(data, tag.end())
        at = end + 1
        if tag[2]:
            name = tag[2].lower()
            if name == b"plaintext":
                break
            at = tokens._skip_raw(data, at, tag.start(2), len(name), name == b"script")
        elif end < len(page):
            _read_tag(tag[3].lower(), parse_attributes(page[tag.end() : end]), token, said)
    return said


def _read_tag(name: bytes, found: dict[str, str], token: str, said: _Tags) -> None:
    rel = found.get("rel", "").lower().split()
    if name == b"base":
        if said.base is None:
            said.base = found.get("href")
    elif name == b"link":
        if "canonical" in rel and "href" in found:
            said.canonicals.append(found["href"])
        elif {"next", "prev"} & set(rel) and "href" in found:
            said.links.append((found["href"], "nofollow" in rel))
    elif name == b"meta":
        _read_meta(found, token, said)
    elif address := found.get(_ADDRESS[name], "").strip():
        said.links.append((address, "nofollow" in rel))


def _read_meta(found: dict[str, str], token: str, said: _Tags) -> None:
    name, content = found.get("name", "").strip().lower(), found.get("content", "")
    if found.get("http-equiv", "").strip().lower() == "refresh":
        if match := _REFRESH.search(content):
            said.links.append((match[1].strip(" \t\r\n'\""), False))
    elif name in ("robots", token):
        said.robots.append(content)
    elif name == "tdm-reservation":
        said.refused |= reserved(content)
