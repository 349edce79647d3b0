"""One round's requests: hosts side by side, each at its rate; what comes is spooled to disk.

Every host is served in the order planned, by as many requests at once as allowed. What becomes of a
URL does not depend on when it was asked, and the results are in planned order.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field

import orjson
from multidict import CIMultiDictProxy

from pipeline.crawl.links import PageLinks, read_page
from pipeline.crawl.outcomes import FETCHED, NOT_HTML, OPTED_OUT, REDIRECT
from pipeline.crawl.scope import Scope, normal_url
from pipeline.crawl.spool import Spool
from pipeline.crawl.warc import pack_exchange
from pipeline.extract.encoding import to_utf8
from pipeline.sources.crawl import PAGES, is_page
from wit.outcomes import HOST_FAILURES, SUCCESS, TRANSIENT
from wit.web import client as web
from wit.web.client import Answer, Client
from wit.web.guard import Target
from wit.web.optouts import reserved
from wit.web.rates import WHOLE, HostRates, retry_delay
from wit.web.recording import Recording
from wit.web.robots import HostRule, fetch_rule, product_token

HEADERS = {
    "Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.1",
    "Accept-Encoding": "gzip",
}
RULES_AT_ONCE = 64
LONGEST_WAIT = 300.0  # seconds; a host that asks for more is not asked again in this run
GIVE_UP_AFTER = 5  # failures in a row of one host: the rest of a round is not asked
BUSY_SECONDS = 0.02  # until a full address is looked at again


@dataclass(frozen=True, slots=True)
class Job:
    """A URL to ask for: its place, its target, and the rule of its host."""

    place: int
    url: str
    target: Target
    rule: HostRule


@dataclass(slots=True)
class Visit:
    """What became of a URL; `records`, `links` are [start, end) in the spool.

    Attributes:
        place: of the URL.
        url: its normal form.
        outcome: of `pipeline.crawl.outcomes.ALL`.
        message: more about a failure.
        status: HTTP's.
        content_type: without parameters.
        bytes: of the body as sent.
        content: bytes of the request and the response before packing.
        records: of the packed request, then of the packed response; empty where nothing is kept.
        links: `follow`, `nofollow` and `off_site` as JSON.
        redirect: the normal URL that the answer leads to.
        canonical: the normal URL that the page names as its own.
    """

    place: int
    url: str
    outcome: str
    message: str | None = None
    status: int | None = None
    content_type: str | None = None
    bytes: int = 0
    content: int = 0
    records: list[tuple[int, int]] = field(default_factory=list)
    links: tuple[int, int] | None = None
    redirect: str | None = None
    canonical: str | None = None


async def together(coroutines: Iterable[Coroutine[None, None, None]]) -> None:
    """Awaits all; where one fails, the others are stopped first."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Visitor:
    """Asks hosts for pages, politely; kept over a crawl's rounds."""

    def __init__(self, client: Client, scope: Scope, concurrency: int, keep_others: bool) -> None:
        """`keep_others` keeps answers that are no HTML pages, too."""
        self.client, self.scope, self.keep_others = client, scope, keep_others
        self.policy = client.policy
        self.token = product_token(self.policy.user_agent)
        self.rates = HostRates(self.policy.host_rate, self.policy.per_host_concurrency)
        self._places = asyncio.Semaphore(concurrency)

    async def ask_rules(self, origins: Sequence[str]) -> dict[str, HostRule]:
        """The robots.txt of hosts, in their order."""
        rules: dict[str, HostRule] = {}
        at_once = asyncio.Semaphore(RULES_AT_ONCE)

        async def ask(origin: str) -> None:
            async with at_once:
                rules[origin] = await fetch_rule(self.client, origin, self.rates)

        await together(map(ask, origins))
        return {origin: rules[origin] for origin in origins}

    async def visit(
        self, jobs: Sequence[Job], spool: Spool, tell: Callable[[Visit], None]
    ) -> list[Visit]:
        """What became of each job, in their order; `tell` hears of each as it is done."""
        visits: dict[int, Visit] = {}
        lines: dict[str, deque[Job]] = defaultdict(deque)
        for job in jobs:
            lines[job.target.server].append(job)
        failures: Counter[str] = Counter()

        async def serve(server: str, line: deque[Job]) -> None:
            while line:
                job = line.popleft()
                if failures[server] >= GIVE_UP_AFTER:
                    message = f"not asked: {GIVE_UP_AFTER} failures of the host in a row"
                    visit = Visit(job.place, job.url, "host_gave_up", message)
                else:
                    visit = await self._visit(job, spool)
                    failed = visit.outcome in HOST_FAILURES or visit.outcome == "total_timeout"
                    failures[server] = failures[server] + 1 if failed else 0
                visits[job.place] = visit
                tell(visit)

        await together(
            serve(server, line)
            for server, line in lines.items()
            for _ in range(min(self.policy.per_host_concurrency, len(line)))
        )
        return [visits[job.place] for job in jobs]

    async def _turn(self, target: Target, crawl_delay: float | None) -> str | None:
        """Waits for the host's turn and a place at its address; None where that takes too long.

        What is returned is the address, which is to be given back.
        """
        loop, server = asyncio.get_running_loop(), target.server
        address = await self.client.place_of(target)
        while True:
            wait = self.rates.turn(server, loop.time(), crawl_delay, WHOLE) - loop.time()
            if wait > LONGEST_WAIT:
                return None
            if wait > 0:
                await asyncio.sleep(wait)
                continue
            # A place that was waited for may come when the turn is another's.
            await self._places.acquire()
            now = loop.time()
            if self.rates.turn(server, now, crawl_delay, WHOLE) <= now:
                if self.client.take_place(address):
                    self.rates.book(server, now, crawl_delay)
                    return address
                wait = BUSY_SECONDS
            self._places.release()
            await asyncio.sleep(max(wait, 0))

    async def request(
        self, target: Target, rule: HostRule, max_bytes: int, pages_only: bool
    ) -> tuple[Answer, Recording] | None:
        """Asks, again after failures that may pass; None where the host wants no more for long.

        Unless that is None, the caller holds one of our places: `leave` gives it back.
        """
        attempt = 0
        while (address := await self._turn(target, rule.crawl_delay)) is not None:
            held = True
            try:
                recording = Recording()
                answer = await self.client.request(
                    target,
                    max_bytes=max_bytes,
                    refuse=_refuse if pages_only else None,
                    headers=HEADERS,
                    recording=recording,
                )
                self._note(answer)
                if answer.outcome not in TRANSIENT or attempt == self.policy.retries:
                    held = False
                    return answer, recording
            finally:
                self.client.give_place(address)
                if held:
                    self._places.release()
            await asyncio.sleep(retry_delay(self.policy.seed, target.url, attempt))
            attempt += 1
        return None

    def _note(self, answer: Answer) -> None:
        """Asks a host that is busy less often, and not before it says."""
        server = answer.target.server
        if answer.status in (429, 503):
            self.rates.slow_down(server)
        elif answer.status is not None:
            self.rates.recover(server)
        if answer.outcome in TRANSIENT and answer.retry_after is not None:
            now = asyncio.get_running_loop().time()
            self.rates.pause(server, now + answer.retry_after)

    def leave(self, answer: Answer) -> None:
        """Gives back the place of an answer that is no longer held."""
        self.client.put_down(answer)
        self._places.release()

    async def _visit(self, job: Job, spool: Spool) -> Visit:
        asked = await self.request(
            job.target, job.rule, self.policy.max_bytes, not self.keep_others
        )
        if asked is None:
            message = f"not asked: the host wants a pause of over {LONGEST_WAIT:.0f} s"
            return Visit(job.place, job.url, "host_paused", message)
        answer, recording = asked
        try:
            visit, links, records = await asyncio.to_thread(self._judge, job, answer, recording)
            visit.records = [spool.write(record) for record in records]
            if links is not None:
                lists = [links.follow, links.nofollow, links.off_site]
                visit.links = spool.write(orjson.dumps(lists))
            return visit
        finally:
            self.leave(answer)

    def _judge(
        self, job: Job, answer: Answer, recording: Recording
    ) -> tuple[Visit, PageLinks | None, tuple[bytes, ...]]:
        """What an answer is: the visit, the page's links, and the records to keep, packed."""
        visit = Visit(job.place, job.url, answer.outcome, answer.message, answer.status)
        visit.content_type, visit.bytes = answer.content_type, len(recording.body)
        links, body = None, answer.body
        if answer.outcome == web.REDIRECT and answer.location is not None:
            visit.outcome, visit.redirect = REDIRECT, normal_url(answer.location.url)
        elif answer.outcome == SUCCESS and not is_page(answer.content_type or "", body):
            visit.outcome, visit.message = NOT_HTML, answer.content_type
        elif answer.outcome == SUCCESS:
            visit.outcome = FETCHED
            links = self._read(job.url, body, recording)
            visit.canonical = links.canonical if links.canonical != job.url else None
            if links.opt_out is not None:
                visit.outcome, visit.message = OPTED_OUT, links.opt_out
        keeps = recording.head and visit.outcome != OPTED_OUT
        if not keeps or (visit.outcome == NOT_HTML and not self.keep_others):
            return visit, links, ()
        visit.content = len(recording.asked) + len(recording.head) + len(recording.body)
        return visit, links, pack_exchange(job.url, recording)

    def _read(self, url: str, body: bytes, recording: Recording) -> PageLinks:
        headers = recording.headers
        found = read_page(
            to_utf8(body, headers.get("Content-Type", "")),
            url,
            self.scope,
            token=self.token,
            opt_outs=self.policy.opt_outs,
            tags=headers.getall("X-Robots-Tag", ()),
            link_headers=headers.getall("Link", ()),
            now=recording.moment,
        )
        if found.opt_out is None and reserved(headers.get("TDM-Reservation")):
            found.opt_out = "TDM-Reservation: 1"
        return found


def _refuse(headers: CIMultiDictProxy[str]) -> tuple[str, str] | None:
    """Ends a request for what says that it is no page before its body comes."""
    media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return (NOT_HTML, media_type[:100]) if media_type and media_type not in PAGES else None
