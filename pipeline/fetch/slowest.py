"""The servers that a shard waits for longest: what is left of each, and how long that takes."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.fetch.fetched import Job
    from pipeline.fetch.office import Office
    from wit.web.breaker import Breaker
    from wit.web.guard import Target
    from wit.web.robots import HostRules

KEPT = 5
SLOW = 1.0  # seconds that what is left of a host takes at least
PAUSE = 2.0  # seconds between two looks at least
MOST = 0.005  # of the time that looking may take: each look goes over all servers of a shard
WEIGHT = 0.3  # of the newest answer in how long a server takes to answer


@dataclass(frozen=True)
class SlowHost:
    """A server of a shard.

    Attributes:
        host: its name, without scheme, port and `www.`.
        left: pictures that are still to come of it.
        seconds: that they need, at its rate.
        why: what makes it slow, for a person.
    """

    host: str
    left: int
    seconds: float
    why: str

    def to_json(self) -> dict[str, Any]:
        """Returns its fields."""
        return asdict(self)


def slowest_of(found: Iterable[SlowHost], most: int) -> list[SlowHost]:
    """Returns the hosts that need the longest; one that several lanes share counts once.

    Its lanes ask at the same time: their pictures add up and the slowest of them says how long.
    """
    hosts: dict[str, SlowHost] = {}
    for host in found:
        other = hosts.get(host.host)
        if other is not None:
            slower = max(host, other, key=lambda h: h.seconds)
            host = SlowHost(host.host, host.left + other.left, slower.seconds, slower.why)
        hosts[host.host] = host
    return heapq.nsmallest(most, hosts.values(), key=lambda h: (-h.seconds, h.host))


class Slowest:
    """Looks now and then at a shard's servers, in its event loop; `found` may be read anywhere."""

    def __init__(self, office: Office, hosts: HostRules, breaker: Breaker) -> None:
        self.found: list[SlowHost] = []
        self._office, self._hosts, self._breaker = office, hosts, breaker
        self._due = 0.0
        self._asked: Counter[Target] = Counter()  # requests under way
        self._took: dict[str, float] = {}  # seconds to an answer

    def ask(self, target: Target) -> None:
        """Counts a request as under way."""
        self._asked[target] += 1

    def answered(self, target: Target, seconds: float) -> None:
        """Counts it as over, after so long."""
        self._asked[target] -= 1
        if not self._asked[target]:
            del self._asked[target]
        known = self._took.get(target.server, seconds)
        self._took[target.server] = known + WEIGHT * (seconds - known)

    def look(
        self,
        now: float,
        queues: Mapping[str, Sequence[Job]],
        later: Iterable[tuple[float, int, Job]],
    ) -> None:
        """Finds them anew, unless that was done just now.

        `queues` are the jobs by server that wait for their turn, `later` (when, order, job) those
        that are to be repeated.
        """
        if now < self._due:
            return
        begun = time.monotonic()
        left = Counter({server: len(line) for server, line in queues.items()})
        origins = {server: line[0].target.origin for server, line in queues.items() if line}
        for target in itertools.chain(self._asked.elements(), (job.target for _, _, job in later)):
            left[target.server] += 1
            origins.setdefault(target.server, target.origin)
        found = (self._of(server, left[server], origin, now) for server, origin in origins.items())
        self.found = slowest_of((host for host in found if host.seconds >= SLOW), KEPT)
        self._due = now + max(PAUSE, (time.monotonic() - begun) / MOST)

    def _of(self, server: str, left: int, origin: str, now: float) -> SlowHost:
        rates, share = self._office.rates, self._hosts.share(server)
        rule, took = self._hosts.get(origin), self._took.get(server, 0.0)
        delay = rule.crawl_delay if rule else None
        planned = rates.seconds_between(delay, share)
        pace, answers = rates.pace(server, delay, share), took / rates.places(share)
        rest = max(rates.paused_until(server), self._breaker.may_ask_at(server)) - now
        if rest > left * max(pace, answers):
            paused = rates.paused_until(server) - now >= rest
            why = "it asks to be left alone" if paused else "it does not answer"
        elif answers > pace:
            why = f"it answers in {took:.1f} s"
        elif pace > planned:
            why = "it said 429 or 503"
        else:
            why = f"crawl-delay {delay:g} s" if delay and delay > rates.interval else "its rate"
        return SlowHost(server, left, max(0.0, rest) + left * max(pace, answers), why)
