"""One shard's requests in time: mixed over hosts, each host at its rate, none waiting for another.

Each server (`Target.server`) has a queue; a heap of turns says which queue may be served when. A
redirect and a retry are new requests in the queue of the server they go to, so that every request
there is has been through the server's rate, its limits of requests at once (by name and by
address), its robots.txt and the breaker. Equal turns are served in the order of arrival, so
servers take turns. A server that is waited for (its rules, its address, a place at its address)
is out of the heap until that has come.

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
from dataclasses import replace
from typing import Any

from pipeline.fetch.fetched import Fetched, Job
from pipeline.fetch.images import Decoded
from pipeline.fetch.office import Office
from pipeline.fetch.slowest import Slowest
from wit.outcomes import SUCCESS, TRANSIENT
from wit.web.breaker import Breaker
from wit.web.client import REDIRECT, Answer
from wit.web.guard import Refused, Target, parse_url
from wit.web.rates import retry_delay
from wit.web.robots import HostRule, HostRules

RESOLVED_AHEAD = 64  # hosts whose addresses are looked up at a time
CROWD_SECONDS = 0.25  # after which a full address is looked at again: others free places, too


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
        self._queues: dict[str, deque[Job]] = {}
        self._turns: list[tuple[float, int, str]] = []
        self._waiting_turn: set[str] = set()
        self._later: list[tuple[float, int, Job]] = []
        # A shard's own, so that what becomes of it does not depend on which shards ran before it.
        self._breaker = Breaker(self.policy.host_failures, self.policy.host_rest)
        self.slowest = Slowest(office, hosts, self._breaker)
        self._kept_back: dict[str, list[Fetched]] = {}  # by server: failures that may be its end
        self._kept = 0
        self._awaited: dict[str, asyncio.Task[Any]] = {}
        self._resolving = 0
        self._crowds: dict[str, deque[str]] = {}  # address -> servers that wait for a place there
        self._crowded: set[str] = set()
        self._look_again = 0.0
        self._deadline = float("inf")
        self._order = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault: Exception | None = None
        self._stopped = False
        self._wake = asyncio.Event()

    # --- called from outside ------------------------------------------------------------------

    def taken(self, results: int) -> None:
        """The caller has taken so many results: their places are free."""
        self._held -= results
        self._wake.set()

    def stop(self) -> None:
        """End without further results."""
        self._stopped = True
        self._wake.set()

    async def drive(self) -> None:
        """Make all requests; puts every index into `results` exactly once unless stopped."""
        loop = asyncio.get_running_loop()
        self.office.rates.begin(begun := loop.time())
        self.office.shards.append(self)
        try:
            self._admit_all()
            planned = self.office.seconds_planned(self._queues, self.hosts)
            deadline = self._deadline = begun + self.policy.shard_seconds + planned
            while len(self._open) > self._kept and not self._stopped and self._fault is None:
                now = loop.time()
                moment = min(self._start_due(now), deadline)
                self.slowest.look(now, self._queues, self._later)
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
                for server in list(self._kept_back):
                    self._release(server)
                for index in sorted(self._open):
                    self._report(Fetched(index, "deadline_exceeded"), holds_place=False)
            self.results.put(self._fault)

    # --- the schedule -------------------------------------------------------------------------

    def _admit_all(self) -> None:
        for index, url in enumerate(self._urls):
            try:
                self._enqueue(Job(index, parse_url(url)))
            except Refused as refused:
                self._report(Fetched(index, refused.outcome, refused.message), holds_place=False)

    def _enqueue(self, job: Job, first: bool = False) -> None:
        line = self._queues.setdefault(job.target.server, deque())
        (line.appendleft if first else line.append)(job)
        self.offer(job.target.server)

    def offer(self, server: str) -> None:
        """Give a server that has something to be asked its turn, at the time its rate allows."""
        if server in self._waiting_turn or server in self._awaited or server in self._crowded:
            return
        if not self._queues.get(server):
            return
        rates, breaker, share = self.office.rates, self._breaker, self.hosts.share(server)
        if self._hopeless(server):
            self._due(server, 0.0)
        elif not rates.is_full(server, share) and not breaker.is_probing(server):
            self._due(server, max(rates.free_at(server, share), breaker.may_ask_at(server)))

    def _due(self, server: str, moment: float) -> None:
        self._waiting_turn.add(server)
        heapq.heappush(self._turns, (moment, next(self._order), server))
        self._wake.set()

    def left(self, address: str) -> None:
        """A place at an address is free: the next of the servers that wait for it may try."""
        if line := self._crowds.get(address):
            server = line.popleft()
            if not line:
                del self._crowds[address]
            self._crowded.discard(server)
            self.offer(server)

    def _start_due(self, now: float) -> float:
        """Start what may start; returns the time at which something more may."""
        while self._later and self._later[0][0] <= now:
            self._enqueue(heapq.heappop(self._later)[2], first=True)
        if self._crowds and now >= self._look_again:
            self._look_again = now + CROWD_SECONDS
            for address in list(self._crowds):
                self.left(address)
        while self._goes_on() and self._turns and self._turns[0][0] <= now:
            _, _, server = heapq.heappop(self._turns)
            self._waiting_turn.discard(server)
            self._start(server, now)
            self.offer(server)
        moments = [self._later[0][0]] if self._later else []
        if self._turns and self._goes_on():
            moments.append(self._turns[0][0])
        if self._crowds:
            moments.append(self._look_again)
        return min(moments, default=float("inf"))

    def _has_place(self) -> bool:
        return self._held < self.office.places()

    def _goes_on(self) -> bool:
        return self._has_place() and self._resolving < RESOLVED_AHEAD

    def _hopeless(self, server: str) -> tuple[str, str | None] | None:
        """Outcome and message of all that is left of a server that is not to be asked any more."""
        if self._breaker.is_gone(server):
            return "host_gave_up", None
        if self.office.rates.paused_until(server) > self._deadline:
            return "host_paused", None
        return None

    def _start(self, server: str, now: float) -> None:
        """Begin a server's next request, unless its rules or its state are against it."""
        office, share, line = self.office, self.hosts.share(server), self._queues[server]
        if end := self._hopeless(server):
            for job in self._queues.pop(server):
                self._end(job, *end, holds_place=False)
            self._release(server)
            return
        rest = self._breaker.may_ask_at(server)
        if office.rates.is_full(server, share) or self._breaker.is_probing(server) or rest > now:
            return
        if rest:  # one request finds out whether the server is back: not one that has just failed
            line.rotate(-min(range(len(line)), key=lambda place: (line[place].attempt, place)))
        job = line[0]
        try:
            office.client.guard.admit(job.target)
            rule = self._rule(job.target)
            if rule is None:
                return
            verdict = rule.verdict(job.target.url, office.token)
        except Refused as refused:
            verdict = refused.outcome, refused.message
        if verdict is None:
            moment = office.rates.turn(server, now, rule.crawl_delay, share)
            if moment > now:
                self._due(server, moment)
                return
            address = self._take_place(job.target)
            if address is None:
                return
        line.popleft()
        if not line:
            del self._queues[server]
        if verdict is not None:
            self._end(job, *verdict, holds_place=False)
            return
        office.rates.book(server, now, rule.crawl_delay, share)
        office.rates.start(server, share)
        self._held += 1
        self.slowest.ask(job.target)
        self._keep(self._work(job, address, self._breaker.start(server)))

    def _rule(self, target: Target) -> HostRule | None:
        """The rule of a target's host; None where it must be asked first: the server then waits."""
        rule = self.hosts.get(target.origin)
        if rule is None:
            asked = self.office.ask_rule(target.origin, self.hosts)
            if not asked.done():
                self._await(target.server, asked)
                return None
            rule = asked.result()
        return rule

    def _take_place(self, target: Target) -> str | None:
        """Where a place was taken; None where the server must wait for its address or a place."""
        address = self.office.addresses.get(target.host)
        if address is None:
            self._resolving += 1
            self._await(target.server, asyncio.create_task(self._find_address(target)))
        elif not self.office.client.take_place(address):
            self._crowds.setdefault(address, deque()).append(target.server)
            self._crowded.add(target.server)
            address = None
        return address

    async def _find_address(self, target: Target) -> None:
        try:
            await self.office.find_address(target)
        finally:
            self._resolving -= 1

    def _await(self, server: str, task: "asyncio.Task[Any]") -> None:
        self._awaited[server] = task
        task.add_done_callback(lambda _: self._came(server))

    def _came(self, server: str) -> None:
        task = self._awaited.pop(server)
        if not task.cancelled() and isinstance(fault := task.exception(), Exception):
            self._fault = self._fault or fault
        self.offer(server)
        self._wake.set()

    def _is_stuck(self) -> bool:
        """Whether only time can bring something to do: no request, host or caller is awaited."""
        rates, breaker = self.office.rates, self._breaker
        awaited = self._tasks or self._awaited or self._crowds or not self._has_place()
        return not awaited and not any(
            rates.is_full(server, self.hosts.share(server)) or breaker.is_probing(server)
            for server in self._queues
        )

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

    async def _work(self, job: Job, address: str, probe: bool) -> None:
        office, server = self.office, job.target.server
        share, loop = self.hosts.share(server), asyncio.get_running_loop()
        begun = loop.time()
        job.begun = job.begun or begun
        answer = Answer("internal_error", job.target)
        try:
            answer = await office.client.request(
                job.target,
                seconds=max(0.001, self.policy.total_seconds - job.spent),
                keep_alive=bool(self._queues.get(server)),
                refuse=office.refuse,
            )
        finally:
            office.rates.finish(server, share)
            office.client.give_place(address)
            self.slowest.answered(job.target, loop.time() - begun)
            answered = office.learn(answer, self._breaker, probe, loop.time())
            if answered:
                self._release(server)
            for shard in office.shards:
                shard.offer(server)
                shard.left(address)
        job.spent += loop.time() - begun
        job.bytes_read += answer.bytes_read
        if answer.outcome == SUCCESS:
            try:
                decoded = await self.office.pool.decode(*answer.parts)
            finally:
                self.office.client.put_down(answer)
            self._finish(job, answer, decoded)
        elif answer.outcome == REDIRECT and answer.location is not None:
            self._redirect(job, answer.location)
        elif answer.outcome in TRANSIENT and job.attempt < self.policy.retries:
            self._retry(job, answer, loop.time())
        elif answered is False:
            self._keep_back(server, job, answer)
        else:
            self._end(job, answer.outcome, answer.message, content_type=answer.content_type)

    def _redirect(self, job: Job, location: Target) -> None:
        visited = (*job.visited, job.target)
        if location in visited:
            self._end(job, "redirect_loop", f"back to {location.url}"[:200])
        elif len(visited) > self.policy.max_redirects:
            self._end(job, "too_many_redirects", f"more than {self.policy.max_redirects}")
        else:
            job.visited, job.target = visited, location
            self._held -= 1
            self._enqueue(job, first=True)

    def _retry(self, job: Job, answer: Answer, now: float) -> None:
        delay = retry_delay(self.policy.seed, job.target.url, job.attempt)
        if now + (answer.retry_after or 0.0) > self._deadline:
            message = f"{answer.message}, Retry-After: {answer.retry_after:.0f} seconds"
            self._end(job, "host_paused", message, content_type=answer.content_type)
            return
        job.attempt += 1
        job.spent = 0.0
        self._held -= 1
        moment = now + max(delay, answer.retry_after or 0.0)
        heapq.heappush(self._later, (moment, next(self._order), job))

    def _keep_back(self, server: str, job: Job, answer: Answer) -> None:
        """Hold a failure until it is known whether it was the host's end: see `_release`."""
        names = {"outcome": answer.outcome, "message": answer.message}
        failure = job.result(content_type=answer.content_type, **names)
        self._kept_back.setdefault(server, []).append(failure)
        self._kept += 1
        self._held -= 1

    def _release(self, server: str) -> None:
        """Report a host's failures; as `host_gave_up`, all alike, if it failed for good.

        Which of its pictures were the ones that were asked for is a matter of time alone.
        """
        has_failed = self._breaker.has_failed(server)
        for failure in self._kept_back.pop(server, ()):
            self._kept -= 1
            if has_failed:
                failure = replace(failure, outcome="host_gave_up", message=None, content_type=None)
            self._report(failure, holds_place=False)

    # --- results ------------------------------------------------------------------------------

    def _finish(self, job: Job, answer: Answer, decoded: Decoded) -> None:
        fields = {"image": decoded.image, **decoded.to_json()}
        self._report(job.result(content_type=answer.content_type, **fields))

    def _end(
        self,
        job: Job,
        outcome: str,
        message: str | None,
        content_type: str | None = None,
        holds_place: bool = True,
    ) -> None:
        fields = {"outcome": outcome, "message": message, "content_type": content_type}
        self._report(job.result(**fields), holds_place)

    def _report(self, fetched: Fetched, holds_place: bool = True) -> None:
        """Hand out a result; one without a place takes it until the caller has it."""
        self._open.discard(fetched.index)
        if not holds_place:
            self._held += 1
        self.results.put(fetched)
