"""One shard's requests in time: mixed over hosts, each host at its rate, none waiting for another.

Each host name has a queue; a heap of turns says which queue may be served when. A redirect and a
retry are new requests in the queue of the host they go to, so that every request there is has been
through the host's rate, its limit of requests at once and its robots.txt. Equal turns are served
in the order of arrival, so hosts take turns.

A picture holds one of the policy's `concurrency` places from its request until the caller has
taken its result: this bounds memory and slows the requests down to what decoding and writing can
take. Shards that run at the same time have equal parts of the places.
"""

import asyncio
import heapq
import itertools
import queue
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from multidict import CIMultiDictProxy

from pipeline.fetch.images import Decoded
from pipeline.fetch.policy import FetchPolicy
from pipeline.fetch.pool import DecoderPool
from wit.outcomes import SUCCESS, TRANSIENT
from wit.web.client import REDIRECT, Answer, Client
from wit.web.guard import Refused, Target, parse_url
from wit.web.rates import HostRates, retry_delay
from wit.web.robots import HostRule, HostRules, fetch_rule, opted_out, product_token

OWN_RULES = 20_000  # hosts outside the table whose robots.txt is remembered
RULES_AT_ONCE = 32  # of them asked at a time


@dataclass(slots=True)
class Fetched:
    """What became of one URL; `index` is its position in what `Fetcher.run` was given.

    `outcome` is a key of `wit.outcomes.OUTCOMES`. `image` (the bytes to store, without metadata),
    `extension`, `width`, `height` and `sha256` (of `image`) are set on success; the original sizes
    (upright) as soon as they are known. `exif` is JSON of how the picture was taken, or None.
    `bytes_read` and `elapsed_ms` count all requests made for it.
    """

    index: int
    outcome: str
    message: str | None = None
    image: bytes | None = None
    extension: str = ""
    width: int | None = None
    height: int | None = None
    original_width: int | None = None
    original_height: int | None = None
    content_type: str | None = None
    exif: str | None = None
    sha256: str | None = None
    final_url: str | None = None
    bytes_read: int = 0
    elapsed_ms: int = 0


@dataclass(slots=True)
class _Job:
    index: int
    target: Target
    attempt: int = 0
    visited: tuple[Target, ...] = ()
    begun: float | None = None  # when the first request started
    spent: float = 0.0  # seconds in the requests of this attempt
    bytes_read: int = 0


class Office:
    """What outlives a shard: connections, decoders, rates, rules found on the way."""

    def __init__(self, policy: FetchPolicy, client: Client, pool: DecoderPool):
        self.policy = policy
        self.client = client
        self.pool = pool
        self.rates = HostRates(policy.host_rate, policy.per_host_concurrency)
        self.token = product_token(policy.user_agent)
        self.rules: dict[str, asyncio.Task[HostRule]] = {}
        self.shards: list[Shard] = []
        self._asking = asyncio.Semaphore(RULES_AT_ONCE)

    def refuse(self, headers: CIMultiDictProxy[str]) -> tuple[str, str] | None:
        """Outcome and message for an answer whose headers opt out."""
        values = headers.getall("X-Robots-Tag", ())
        if values and (word := opted_out(values, self.token, self.policy.opt_outs)):
            return "opted_out", f"X-Robots-Tag: {word}"
        if headers.get("TDM-Reservation", "").strip() == "1":
            return "opted_out", "TDM-Reservation: 1"
        return None

    def ask_rule(self, origin: str, share: float) -> "asyncio.Task[HostRule]":
        """The rule of a host that is in no table, asked once."""
        task = self.rules.get(origin)
        if task is None:
            if len(self.rules) >= OWN_RULES:
                del self.rules[next(iter(self.rules))]
            task = self.rules[origin] = asyncio.create_task(self._ask_rule(origin, share))
        return task

    async def _ask_rule(self, origin: str, share: float) -> HostRule:
        async with self._asking:
            return await fetch_rule(self.client, origin, self.rates, share)


class Shard:
    """The requests of one `Fetcher.run`; results go to `results`, then None or an exception."""

    def __init__(self, office: Office, urls: Sequence[str], hosts: HostRules):
        self.office = office
        self.policy = office.policy
        self.hosts = hosts
        self.results: queue.SimpleQueue[Fetched | Exception | None] = queue.SimpleQueue()
        self._urls = urls
        self._held = 0  # places taken
        self._open = set(range(len(urls)))
        self._queues: dict[str, deque[_Job]] = {}
        self._turns: list[tuple[float, int, str]] = []
        self._waiting_turn: set[str] = set()
        self._later: list[tuple[float, int, _Job]] = []
        self._unruled: dict[str, asyncio.Task[HostRule]] = {}
        self._order = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault: Exception | None = None
        self._stopped = False
        self._wake = asyncio.Event()

    # --- called from outside ------------------------------------------------------------------

    def taken(self) -> None:
        """The caller has taken a result: its place is free."""
        self._held -= 1
        self._wake.set()

    def stop(self) -> None:
        """End without further results."""
        self._stopped = True
        self._wake.set()

    async def drive(self) -> None:
        """Make all requests; puts every index into `results` exactly once unless stopped."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.policy.shard_seconds
        self.office.shards.append(self)
        try:
            self._admit_all()
            while self._open and not self._stopped and self._fault is None:
                now = loop.time()
                moment = min(self._start_due(now), deadline)
                self._wake.clear()
                if now >= deadline or (moment >= deadline and self._is_stuck()):
                    break
                timer = loop.call_at(moment, self._wake.set)
                await self._wake.wait()
                timer.cancel()
        except Exception as fault:
            self._fault = fault
        finally:
            self.office.shards.remove(self)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._fault is None and not self._stopped:
                for index in sorted(self._open):
                    self._report(Fetched(index, "deadline_exceeded"), holds_place=False)
            self.results.put(self._fault)

    # --- the schedule -------------------------------------------------------------------------

    def _admit_all(self) -> None:
        for index, url in enumerate(self._urls):
            try:
                self._enqueue(_Job(index, parse_url(url)))
            except Refused as refused:
                self._report(Fetched(index, refused.outcome, refused.message), holds_place=False)

    def _enqueue(self, job: _Job, first: bool = False) -> None:
        line = self._queues.setdefault(job.target.host, deque())
        (line.appendleft if first else line.append)(job)
        self.offer(job.target.host)

    def offer(self, host: str) -> None:
        """Give a host that has something to ask its turn, at the time its rate allows."""
        if host in self._waiting_turn or host in self._unruled or not self._queues.get(host):
            return
        if not self.office.rates.is_full(host):
            self._waiting_turn.add(host)
            moment = self.office.rates.free_at(host)
            heapq.heappush(self._turns, (moment, next(self._order), host))
            self._wake.set()

    def _start_due(self, now: float) -> float:
        """Start what may start; returns the time at which something more may."""
        while self._later and self._later[0][0] <= now:
            self._enqueue(heapq.heappop(self._later)[2], first=True)
        while self._has_place() and self._turns and self._turns[0][0] <= now:
            _, _, host = heapq.heappop(self._turns)
            self._waiting_turn.discard(host)
            if not self.office.rates.is_full(host) and self.office.rates.free_at(host) <= now:
                self._start(host, now)
            self.offer(host)
        moments = [self._later[0][0]] if self._later else []
        if self._turns and self._has_place():
            moments.append(self._turns[0][0])
        return min(moments, default=float("inf"))

    def _has_place(self) -> bool:
        return self._held < max(1, self.policy.concurrency // len(self.office.shards))

    def _start(self, host: str, now: float) -> None:
        """Begin the first request of a host's queue, unless its rules are against it."""
        line = self._queues[host]
        job = line[0]
        try:
            self.office.client.guard.admit(job.target)
            rule = self._rule(job.target)
            if rule is None:
                return
            verdict = rule.verdict(job.target.url, self.office.token)
        except Refused as refused:
            verdict = refused.outcome, refused.message
        line.popleft()
        if not line:
            del self._queues[host]
        if verdict is not None:
            self._end(job, *verdict, holds_place=False)
            return
        self.office.rates.book(host, now, rule.crawl_delay, rule.share)
        self.office.rates.start(host)
        self._held += 1
        self._keep(self._work(job))

    def _rule(self, target: Target) -> HostRule | None:
        """The rule of a target's host; None where it must be asked first: the host then waits."""
        rule = self.hosts.get(target.origin)
        if rule is None:
            asked = self.office.ask_rule(target.origin, self.hosts.default_share)
            if not asked.done():
                self._unruled[target.host] = asked
                asked.add_done_callback(lambda _: self._ruled(target.host))
                return None
            rule = asked.result()
        return rule

    def _ruled(self, host: str) -> None:
        del self._unruled[host]
        self.offer(host)

    def _is_stuck(self) -> bool:
        """Whether only time can bring something to do: no request, host or caller is awaited."""
        awaited = self._tasks or self._unruled or not self._has_place()
        return not awaited and not any(map(self.office.rates.is_full, self._queues))

    def _keep(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            assert isinstance(fault, Exception)
            self._fault = self._fault or fault
        self._wake.set()

    # --- one request --------------------------------------------------------------------------

    async def _work(self, job: _Job) -> None:
        host = job.target.host
        loop = asyncio.get_running_loop()
        begun = loop.time()
        job.begun = job.begun or begun
        try:
            answer = await self.office.client.request(
                job.target,
                seconds=max(0.001, self.policy.total_seconds - job.spent),
                keep_alive=bool(self._queues.get(host)),
                refuse=self.office.refuse,
            )
        finally:
            self.office.rates.finish(host)
        job.spent += loop.time() - begun
        job.bytes_read += answer.bytes_read
        if answer.retry_after is not None and answer.outcome in TRANSIENT:
            self.office.rates.pause(host, loop.time() + answer.retry_after)
        for shard in self.office.shards:
            shard.offer(host)
        if answer.outcome == SUCCESS:
            try:
                decoded = await self.office.pool.decode(answer.body)
            finally:
                self.office.client.put_down(answer)
            self._finish(job, answer, decoded)
        elif answer.outcome == REDIRECT and answer.location is not None:
            self._redirect(job, answer.location)
        elif answer.outcome in TRANSIENT and job.attempt < self.policy.retries:
            self._retry(job, answer, loop.time())
        else:
            self._end(job, answer.outcome, answer.message, content_type=answer.content_type)

    def _redirect(self, job: _Job, location: Target) -> None:
        visited = (*job.visited, job.target)
        if location in visited:
            self._end(job, "redirect_loop", f"back to {location.url}"[:200])
        elif len(visited) > self.policy.max_redirects:
            self._end(job, "too_many_redirects", f"more than {self.policy.max_redirects}")
        else:
            job.visited, job.target = visited, location
            self._held -= 1
            self._enqueue(job, first=True)

    def _retry(self, job: _Job, answer: Answer, now: float) -> None:
        delay = retry_delay(self.policy.seed, job.target.url, job.attempt)
        job.attempt += 1
        job.spent = 0.0
        self._held -= 1
        moment = now + max(delay, answer.retry_after or 0.0)
        heapq.heappush(self._later, (moment, next(self._order), job))

    # --- results ------------------------------------------------------------------------------

    def _finish(self, job: _Job, answer: Answer, decoded: Decoded) -> None:
        fields = decoded.to_json()
        image = decoded.image
        self._report(self._fetched(job, content_type=answer.content_type, image=image, **fields))

    def _end(
        self,
        job: _Job,
        outcome: str,
        message: str | None,
        content_type: str | None = None,
        holds_place: bool = True,
    ) -> None:
        fields = {"outcome": outcome, "message": message, "content_type": content_type}
        self._report(self._fetched(job, **fields), holds_place)

    def _fetched(self, job: _Job, **fields: Any) -> Fetched:
        now = asyncio.get_running_loop().time()
        elapsed = 0 if job.begun is None else round((now - job.begun) * 1000)
        return Fetched(
            job.index,
            final_url=job.target.url,
            bytes_read=job.bytes_read,
            elapsed_ms=elapsed,
            **fields,
        )

    def _report(self, fetched: Fetched, holds_place: bool = True) -> None:
        """Hand out a result; one without a place takes it until the caller has it."""
        self._open.discard(fetched.index)
        if not holds_place:
            self._held += 1
        self.results.put(fetched)
