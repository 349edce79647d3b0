"""What a crawl does when it comes to a host: robots.txt, then the sitemaps that it has."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from pipeline.crawl.plan import quota
from pipeline.crawl.sitemaps import MOST_BYTES, named_in, read_sitemap
from pipeline.crawl.spool import Spool
from pipeline.crawl.visit import Visitor, together
from wit.outcomes import SUCCESS
from wit.web.client import REDIRECT
from wit.web.guard import Refused, parse_url
from wit.web.robots import HostRule

MOST_SITEMAPS = 200  # of a host
MOST_REDIRECTS = 3


@dataclass(frozen=True, slots=True)
class Sitemap:
    """A sitemap that was read; `pages` is where the spool has its URLs as JSON."""

    url: str
    fault: str | None
    pages: tuple[int, int]


async def read_sitemaps(
    visitor: Visitor, rules: Mapping[str, HostRule], spool: Spool
) -> list[Sitemap]:
    """The sitemaps of newly entered hosts, in their order: robots.txt's, then /sitemap.xml.

    Only those at the same origin, for which its robots.txt speaks; of an index, what it lists. A
    host that allows a request every ten seconds is not asked for hundreds: see `plan.quota`.
    """
    found: dict[str, list[Sitemap]] = {origin: [] for origin in rules}
    await together(
        _read_all(visitor, origin, rule, spool, found[origin])
        for origin, rule in rules.items()
        if rule.robots in ("rules", "allow_all")
    )
    return [sitemap for sitemaps in found.values() for sitemap in sitemaps]


async def _read_all(
    visitor: Visitor, origin: str, rule: HostRule, spool: Spool, found: list[Sitemap]
) -> None:
    most = max(3, min(MOST_SITEMAPS, quota(visitor.policy.host_rate, rule.crawl_delay)))
    waiting = deque((url, False) for url in [*named_in(rule.rules), f"{origin}/sitemap.xml"])
    seen: set[str] = set()
    while waiting and len(seen) < most:
        url, listed = waiting.popleft()
        if url in seen or not url.startswith(f"{origin}/"):
            continue
        seen.add(url)
        body = await _ask(visitor, url, origin, rule)
        if body is None:
            continue
        pages, sitemaps, fault = await asyncio.to_thread(read_sitemap, body)
        found.append(Sitemap(url, fault, spool.write(orjson.dumps(pages))))
        if not listed:
            waiting.extend((further, True) for further in sitemaps)


async def _ask(visitor: Visitor, url: str, origin: str, rule: HostRule) -> bytes | None:
    """The body of a sitemap; redirects are followed at the same origin."""
    for _ in range(MOST_REDIRECTS + 1):
        try:
            target = parse_url(url)
        except Refused:
            return None
        if target.origin != origin or rule.verdict(target.url, visitor.token) is not None:
            return None
        asked = await visitor.request(target, rule, MOST_BYTES, False)
        if asked is None:
            return None
        answer = asked[0]
        body = answer.body if answer.outcome == SUCCESS else None
        visitor.leave(answer)
        if answer.outcome != REDIRECT or answer.location is None:
            return body
        url = answer.location.url
    return None
