"""Which URLs a round asks for: breadth first, in an order that nothing but the web decides.

The order is by depth; within a depth, by turns: each turn takes of every host what its rate lets be
asked in about SECONDS, in the order of discovery. So no round waits long for one slow host, and a
host with a million pages does not keep the others waiting.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.crawl.config import Config
from pipeline.crawl.outcomes import FETCHED
from pipeline.crawl.scope import host_of
from pipeline.crawl.state import State
from pipeline.crawl.visit import Job, Visit
from wit.web.client import Client
from wit.web.guard import Refused, Target, parse_url
from wit.web.robots import HostRule, product_token

BATCH = 4096  # URLs of a round at most
WINDOW = 2**18  # waiting URLs among which a round chooses
SECONDS = 30.0


def quota(host_rate: float, crawl_delay: float | None) -> int:
    """How many requests to one host fill a round's time; `host_rate` 0 is no limit."""
    interval = max(1 / host_rate if host_rate else 0.0, crawl_delay or 0.0)
    return max(1, min(BATCH, int(SECONDS / interval))) if interval else BATCH


def is_over(state: State, config: Config) -> bool:
    """Whether a limit of the whole crawl is reached."""
    pages, size = config.max_pages, config.max_bytes
    return state.fetched >= pages or (size is not None and state.received >= size)


def choose(state: State, config: Config) -> np.ndarray:
    """Places of the URLs that are next, in order; none where the crawl is at its end.

    URLs whose host has all the pages it may have leave the state's `pending`.
    """
    if is_over(state, config):
        return np.empty(0, np.int64)
    quotas = np.full(len(state.hosts), quota(config.fetch["host_rate"], None))
    numbers = {host: number for number, host in enumerate(state.hosts)}
    for origin, rule in state.rules.items():
        number = numbers.get(host_of(origin))
        if rule.crawl_delay and number is not None:
            most = quota(config.fetch["host_rate"], rule.crawl_delay)
            quotas[number] = min(quotas[number], most)
    for depth in sorted(state.pending):
        places = state.pending[depth]
        if config.max_host_pages is not None:
            full = state.fetched_of >= config.max_host_pages
            places = places[~full[state.queue.host[places]]]
        if not len(places):
            del state.pending[depth]
            continue
        state.pending[depth] = places
        window = places[:WINDOW]
        hosts = state.queue.host[window]
        return window[_rank_in_group(hosts) < quotas[hosts]][:BATCH]
    return np.empty(0, np.int64)


def _rank_in_group(groups: np.ndarray) -> np.ndarray:
    """Of each element, how many before it are of its group."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ranks = np.empty(len(groups), np.int64)
    lengths = np.diff(np.r_[starts, len(groups)])
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, lengths)
    return ranks


class Allotment:
    """What a round asks for of the URLs that it chose, so that no limit can be exceeded.

    Each call of `next` gives as many jobs as could all become pages. What failed leaves room for
    further ones, so it is called, with what became of the jobs, until it gives none.
    """

    def __init__(
        self,
        state: State,
        config: Config,
        client: Client,
        urls: Sequence[tuple[int, str]],
        rules: Mapping[str, HostRule],
    ) -> None:
        """`urls` are (place, URL) in order, `rules` those of all their hosts."""
        self._state, self._config, self._client, self._rules = state, config, client, rules
        self._token = product_token(config.fetch["user_agent"])
        self._waiting = deque(urls)
        self._asked: Counter[int] = Counter()  # by host
        self._kept: Counter[int] = Counter()
        self.refused: list[Visit] = []

    def next(self, done: Sequence[Visit]) -> list[Job]:
        """The next jobs; `done` is what became of the last ones. What is refused is added up."""
        state, config = self._state, self._config
        for visit in done:
            self._kept[int(state.queue.host[visit.place])] += visit.outcome == FETCHED
        room = config.max_pages - state.fetched - self._kept.total()
        jobs: list[Job] = []
        of_host: Counter[int] = Counter()
        later: list[tuple[int, str]] = []
        while self._waiting and len(jobs) < room:
            place, url = self._waiting.popleft()
            job = self._judge(place, url)
            if job is None:
                continue
            host = int(state.queue.host[place])
            if self._asked[host] >= quota(config.fetch["host_rate"], job.rule.crawl_delay):
                continue  # it goes on waiting
            if config.max_host_pages is not None:
                kept = int(state.fetched_of[host]) + self._kept[host]
                if kept + of_host[host] >= config.max_host_pages:
                    later.append((place, url))
                    continue
            self._asked[host] += 1
            of_host[host] += 1
            jobs.append(job)
        self._waiting.extendleft(reversed(later))
        return jobs

    def _judge(self, place: int, url: str) -> Job | None:
        """The job for a URL; None, with an entry in `refused`, where it must not be asked."""
        target = admit(self._client, url)
        if isinstance(target, Refused):
            verdict: tuple[str, str] | None = (target.outcome, target.message)
        else:
            rule = self._rules[target.origin]
            verdict = rule.verdict(target.url, self._token)
            if rule.robots == "forbidden_address":
                verdict = ("forbidden_address", "not a globally reachable address")
            if verdict is None:
                return Job(place, url, target, rule)
        self.refused.append(Visit(place, url, *verdict))
        return None


def admit(client: Client, url: str) -> Target | Refused:
    """The target of a URL, or why it may not be asked."""
    try:
        target = parse_url(url)
        client.guard.admit(target)
    except Refused as refused:
        return refused
    return target
