"""When a host may be asked next: a rate and a number of requests at once, per host name.

Plain arithmetic on times that the caller gives, so a schedule can be tested without a clock. A
host is a name without scheme and port: http://x, https://x and https://x:8443 are one server's
work.
"""

import email.utils
import hashlib
from collections import OrderedDict
from dataclasses import dataclass

REMEMBERED_HOSTS = 100_000


@dataclass(slots=True)
class _Host:
    free_at: float = float("-inf")  # seconds; the next request may start then
    running: int = 0


class HostRates:
    """Requests a second and requests at once for each host, kept over a lane's shards.

    `per_second` of 0 is no limit (a crawl delay still is one); `at_once` requests run to one host
    at a time. All times are seconds of one clock that does not run backwards.
    """

    def __init__(self, per_second: float, at_once: int):
        self.interval = 1 / per_second if per_second else 0.0
        self.at_once = at_once
        self._hosts: OrderedDict[str, _Host] = OrderedDict()

    def _host(self, host: str) -> _Host:
        entry = self._hosts.get(host)
        if entry is None:
            entry = self._hosts[host] = _Host()
            if len(self._hosts) > REMEMBERED_HOSTS:
                self._forget()
        return entry

    def _forget(self) -> None:
        """Drop the half of the idle hosts that may be asked soonest: they lose least."""
        idle = sorted(
            (entry.free_at, name) for name, entry in self._hosts.items() if not entry.running
        )
        for _, name in idle[: len(idle) // 2]:
            del self._hosts[name]

    def free_at(self, host: str) -> float:
        """The time from which the next request to this host may start; in the past when idle."""
        return self._host(host).free_at

    def is_full(self, host: str) -> bool:
        """Whether as many requests as allowed are running to this host."""
        return self._host(host).running >= self.at_once

    def book(self, host: str, now: float, crawl_delay: float | None, share: float) -> float:
        """Take the host's next turn; returns the time at which the request may start.

        `share` is this lane's part of the host's rate (1 for a host in one lane): with k lanes,
        1/k stretches the interval k times. `crawl_delay` is robots.txt's, in seconds.
        """
        entry = self._host(host)
        turn = max(now, entry.free_at)
        entry.free_at = turn + max(self.interval, crawl_delay or 0.0) / share
        return turn

    def start(self, host: str) -> None:
        """Count a request as running."""
        self._host(host).running += 1

    def finish(self, host: str) -> None:
        """Count a running request as done."""
        self._host(host).running -= 1

    def pause(self, host: str, until: float) -> None:
        """Ask nothing of the host before this time (Retry-After)."""
        entry = self._host(host)
        entry.free_at = max(entry.free_at, until)


def retry_delay(seed: int, url: str, attempt: int, first: float = 1.0, most: float = 60.0) -> float:
    """Seconds before the retry after attempt 0, 1, ...: doubling, spread by 50 to 150 percent.

    The spread keeps many clients apart; it comes from the seed and the URL, so a run repeats.
    """
    digest = hashlib.blake2b(f"{seed} {attempt} {url}".encode(errors="replace"), digest_size=8)
    spread = 0.5 + int.from_bytes(digest.digest()) / 2**64
    return min(first * 2**attempt, most) * spread


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3), None where it says nothing.

    `now` is Unix time, for the form that names a date.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None
