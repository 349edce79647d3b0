"""What outlives a shard: connections, decoders, rates, rules and addresses found on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from multidict import CIMultiDictProxy

from pipeline.fetch.fetched import Job
from pipeline.fetch.policy import FetchPolicy
from pipeline.fetch.pool import DecoderPool
from wit.outcomes import HOST_FAILURES, TRANSIENT
from wit.web.breaker import BUSY, Breaker
from wit.web.client import Answer, Client
from wit.web.guard import Target
from wit.web.optouts import opted_out, reserved
from wit.web.rates import HostRates
from wit.web.robots import HostRule, HostRules, fetch_rule, product_token

if TYPE_CHECKING:
    from pipeline.fetch.schedule import Shard

KEPT_RULES = 20_000  # hosts outside the table whose robots.txt is remembered
KEPT_ADDRESSES = 100_000
RULES_AT_ONCE = 256  # of those hosts asked at a time; most wait for their turn
# These say nothing about whether the host can answer.
OURS = frozenset({"forbidden_address", "internal_error"})


class Office:
    """What the shards of a Fetcher share; used inside its event loop."""

    def __init__(self, policy: FetchPolicy, client: Client, pool: DecoderPool):
        self.policy = policy
        self.client = client
        self.pool = pool
        self.rates = HostRates(policy.host_rate, policy.per_host_concurrency)
        self.token = product_token(policy.user_agent)
        self.rules: dict[str, asyncio.Task[HostRule]] = {}
        self.addresses: dict[str, str] = {}  # host -> what its places are counted by
        self.shards: list[Shard] = []
        self._asking = asyncio.Semaphore(RULES_AT_ONCE)

    def places(self) -> int:
        """Each shard's part of the policy's `concurrency`."""
        return max(1, self.policy.concurrency // max(1, len(self.shards)))

    def refuse(self, headers: CIMultiDictProxy[str]) -> tuple[str, str] | None:
        """Outcome and message for an answer whose headers opt out."""
        values = headers.getall("X-Robots-Tag", ())
        if values:
            word = opted_out(values, self.token, self.policy.opt_outs, time.time())
            if word is not None:
                return "opted_out", f"X-Robots-Tag: {word}"
        if reserved(headers.get("TDM-Reservation")):
            return "opted_out", "TDM-Reservation: 1"
        return None

    def ask_rule(self, origin: str, hosts: HostRules) -> asyncio.Task[HostRule]:
        """The rule of a host that is in no table, asked once."""
        task = self.rules.get(origin)
        if task is None:
            if len(self.rules) >= KEPT_RULES:
                del self.rules[next(iter(self.rules))]
            task = self.rules[origin] = asyncio.create_task(self._ask_rule(origin, hosts))
        return task

    async def _ask_rule(self, origin: str, hosts: HostRules) -> HostRule:
        async with self._asking:
            return await fetch_rule(self.client, origin, self.rates, hosts.share)

    def seconds_planned(self, queues: Mapping[str, Sequence[Job]], hosts: HostRules) -> float:
        """How long the slowest of the servers takes at the rate that is allowed."""
        seconds = 0.0
        for server, line in queues.items():
            rule = hosts.get(line[0].target.origin)
            delay = rule.crawl_delay if rule else None
            between = self.rates.seconds_between(delay, hosts.share(server))
            seconds = max(seconds, len(line) * between)
        return seconds

    async def find_address(self, target: Target) -> None:
        """Fill in `addresses` for a target's host."""
        if len(self.addresses) >= KEPT_ADDRESSES:
            del self.addresses[next(iter(self.addresses))]
        self.addresses[target.host] = await self.client.place_of(target)

    def learn(self, answer: Answer, breaker: Breaker, probe: bool, now: float) -> bool | None:
        """Draw the conclusions from an answer for how its host is asked from now on.

        Returns whether the host answered; None if that is not known.
        """
        server = answer.target.server
        if answer.status in (429, 503):
            self.rates.slow_down(server)
        if answer.retry_after is not None and answer.outcome in TRANSIENT:
            self.rates.pause(server, now + answer.retry_after)
        if answer.status in BUSY or (answer.status is None and answer.outcome in HOST_FAILURES):
            breaker.failed(server, now, probe)
            return False
        if answer.status is None and answer.outcome in OURS:
            breaker.undecided(server, probe)
            return None
        breaker.answered(server)
        self.rates.recover(server)
        return True
