"""A crawl from wherever its folder is to its end: round after round, each committed as a whole."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import orjson
import pyarrow as pa

from pipeline.crawl.config import Config
from pipeline.crawl.opening import Sitemap, read_sitemaps
from pipeline.crawl.outcomes import DUPLICATE, FETCHED, NOFOLLOW, OFF_SITE
from pipeline.crawl.plan import Allotment, admit, choose
from pipeline.crawl.scope import Scope
from pipeline.crawl.spool import Spool
from pipeline.crawl.state import QUEUED, VISITS, Findings, State
from pipeline.crawl.visit import Visit, Visitor
from pipeline.crawl.warc import WarcFiles, file_name
from wit import storage
from wit.web.client import Client
from wit.web.guard import Refused
from wit.web.policy import WebPolicy
from wit.web.robots import HostRule

WARC = "warc"


@dataclass(slots=True)
class Round:
    """What the rounds need."""

    config: Config
    state: State
    visitor: Visitor
    scope: Scope
    warc: WarcFiles
    tell: Callable[[Visit], None]


def scope_of(config: Config) -> Scope:
    """Which URLs a crawl may ask for."""
    return Scope(config.scope, config.seeds, config.hosts)


async def crawl(
    out: str,
    config: Config,
    policy: WebPolicy,
    concurrency: int,
    max_hours: float | None,
    state: State,
    tell: Callable[[Visit], None],
) -> None:
    """Crawls until nothing is left, a limit is reached or time is up (then it can be resumed)."""
    deadline = None if max_hours is None else time.monotonic() + max_hours * 3600
    if state.rounds == 0:
        findings = Findings(state, config.max_depth)
        findings.add(config.seeds, QUEUED, 0, None)
        state.commit(findings.table(), pa.table([[]] * len(VISITS), VISITS), {}, state.place)
    places = choose(state, config)
    folder, agent = storage.join(out, WARC), policy.user_agent
    if not len(places) and storage.exists(storage.join(folder, file_name(state.place.number))):
        return
    warc = WarcFiles(folder, state.place, agent, config.warc_bytes)
    try:
        async with Client(policy) as client:
            scope = scope_of(config)
            visitor = Visitor(client, scope, concurrency, config.other_types)
            work = Round(config, state, visitor, scope, warc, tell)
            while len(places) and (deadline is None or time.monotonic() < deadline):
                await _do(work, places)
                places = choose(state, config)
    except BaseException:
        # What a round appended before it was stopped is no part of the crawl.
        warc.close()
        WarcFiles(folder, state.place, agent, config.warc_bytes).finish()
        raise
    warc.finish()


async def _do(work: Round, places: np.ndarray) -> None:
    state, client = work.state, work.visitor.client
    urls = list(zip(places.tolist(), state.urls_of(places), strict=True))
    targets = (admit(client, url) for _, url in urls)
    origins = dict.fromkeys(t.origin for t in targets if not isinstance(t, Refused))
    new = [origin for origin in origins if origin not in state.rules]
    with contextlib.closing(Spool(state.folder)) as spool:
        rules = await work.visitor.ask_rules(new)
        sitemaps: list[Sitemap] = []
        if work.config.sitemaps:
            sitemaps = await read_sitemaps(work.visitor, rules, spool)
        allotment = Allotment(state, work.config, client, urls, {**state.rules, **rules})
        visits: list[Visit] = []
        done: list[Visit] = []
        while jobs := allotment.next(done):
            done = await work.visitor.visit(jobs, spool, work.tell)
            visits += done
        for visit in allotment.refused:
            work.tell(visit)
        visits += allotment.refused
        visits.sort(key=lambda visit: visit.place)
        _settle(work, visits, sitemaps, rules, spool)


def _settle(
    work: Round,
    visits: list[Visit],
    sitemaps: list[Sitemap],
    rules: dict[str, HostRule],
    spool: Spool,
) -> None:
    """Takes what came, in planned order, into the WARC files and the state."""
    state, config = work.state, work.config
    findings = Findings(state, config.max_depth)
    depth = int(state.queue.depth[visits[0].place]) if visits else 0
    for sitemap in sitemaps:
        pages = orjson.loads(spool.read(sitemap.pages))
        ours = [url for url in pages if work.scope.allows(url)]
        findings.add(ours, QUEUED, depth + 1, sitemap.url)
        if len(ours) < len(pages):
            others = [url for url in pages if not work.scope.allows(url)]
            findings.add(others, OFF_SITE, depth + 1, sitemap.url)
    rows: list[tuple[object, ...]] = []
    received = state.received
    for visit in visits:
        if config.max_bytes is not None and received >= config.max_bytes:
            break
        _follow(work, visit, findings, spool)
        number = offset = None
        if visit.records:
            records = [spool.read(record) for record in visit.records]
            offset = work.warc.append(records, visit.content)[1]
            number = work.warc.place.number
            received += visit.bytes
        said = (visit.message, visit.status, visit.content_type, visit.bytes)
        rows.append((visit.place, visit.outcome, *said, number, offset))
    columns = list(zip(*rows, strict=True)) or [[]] * len(VISITS)
    work.warc.flush()
    state.commit(findings.table(), pa.table(columns, VISITS), rules, work.warc.place)


def _follow(work: Round, visit: Visit, findings: Findings, spool: Spool) -> None:
    """Notes where a page or a redirect leads, and whether the page is one known already."""
    queue = work.state.queue
    depth, hops = int(queue.depth[visit.place]), int(queue.hops[visit.place])
    if visit.redirect is not None:
        if visit.redirect == visit.url:
            visit.outcome = "redirect_loop"
        elif hops >= work.visitor.policy.max_redirects:
            visit.outcome = "too_many_redirects"
        else:
            kind = QUEUED if work.scope.allows(visit.redirect) else OFF_SITE
            findings.add([visit.redirect], kind, depth, visit.url, hops + 1)
    if visit.outcome == FETCHED and visit.canonical is not None:
        if findings.knows(visit.canonical):
            visit.outcome, visit.message, visit.records = DUPLICATE, visit.canonical, []
            return
        findings.add([visit.canonical], DUPLICATE, depth, visit.url)
    if visit.links is not None:
        follow, nofollow, off_site = orjson.loads(spool.read(visit.links))
        findings.add(follow, QUEUED, depth + 1, visit.url)
        findings.add(nofollow, NOFOLLOW, depth + 1, visit.url)
        findings.add(off_site, OFF_SITE, depth + 1, visit.url)
