"""When a host may be asked next: a rate and a number of requests at once, per host name.

Plain arithmetic on times that the caller gives, so a schedule can be tested without a clock. A
host is a name without scheme, port and leading `www.` (`Target.server`): http://x, https://x:8443
and https://www.x are one server's work.

Lanes share a host without speaking to each other: a lane has one turn in so many, and where lanes
could meet, its turns are moments of the clock that all machines have, so that two lanes' turns are
never closer than the host's rate allows (as far as the machines' clocks agree).
"""

import email.utils
import hashlib
import math
import time
from collections import OrderedDict
from dataclasses import dataclass

REMEMBERED_HOSTS = 100_000
SLOWEST = 64.0  # how many times slower than its rate a host that says 429 or 503 is asked
SLOWED_INTERVAL = 0.1  # seconds, of a host without a rate that wants to be asked more slowly
RECOVERY = 0.97  # of the slowness is left after an answer: half after 23
LATE = 0.2  # of the time between two lanes' turns, within which a turn can still be taken


@dataclass(frozen=True, slots=True)
class Share:
    """A lane's part of a host: one turn in `of`, as number `slot` of `slots` lanes.

    With several slots the turns lie on the common clock and the requests at once are divided, too
    (at least one for each lane).
    """

    of: float = 1.0
    slot: int = 0
    slots: int = 1

    @classmethod
    def part(cls, part: float, slot: int = 0, slots: int = 1) -> "Share":
        """Number `slot` of the `slots` that divide a part (0 to 1) of a host's rate."""
        return cls(slots / part, slot, slots)


WHOLE = Share()


@dataclass(slots=True)
class _Turns:
    free_at: float = -math.inf  # seconds; the next request may start then
    running: int = 0


class HostRates:
    """Requests a second and requests at once for each host, kept over a lane's shards.

    `per_second` of 0 is no limit (a crawl delay still is one); `at_once` requests run to one host
    at a time, over all lanes that share it. All times are seconds of one clock that does not run
    backwards; `common` is to be added to it for the clock that all machines have.
    """

    def __init__(self, per_second: float, at_once: int, common: float | None = None):
        self.interval = 1 / per_second if per_second else 0.0
        self.at_once = at_once
        self.common = time.time() - time.monotonic() if common is None else common
        self._turns: OrderedDict[tuple[str, Share], _Turns] = OrderedDict()
        self._paused: dict[str, float] = {}  # host -> until
        self._slow: dict[str, float] = {}  # host -> how many times slower than its rate
        self._begun = -math.inf

    def _entry(self, host: str, share: Share) -> _Turns:
        entry = self._turns.get((host, share))
        if entry is None:
            entry = self._turns[host, share] = _Turns()
            if len(self._turns) > REMEMBERED_HOSTS:
                self._forget()
        return entry

    def _forget(self) -> None:
        """Drop the half of the idle hosts that may be asked soonest: they lose least."""
        idle = sorted(
            ((self.free_at(*key), key) for key, entry in self._turns.items() if not entry.running),
            key=lambda pair: pair[0],
        )
        for _, key in idle[: len(idle) // 2]:
            del self._turns[key]
            self._paused.pop(key[0], None)
            self._slow.pop(key[0], None)

    def begin(self, now: float) -> None:
        """Say that work begins: hosts not asked so far may have been asked just now by others.

        They are left alone for the time between two requests: their robots.txt was asked for, or
        a run was stopped and goes on.
        """
        self._begun = now

    def free_at(self, host: str, share: Share = WHOLE) -> float:
        """The time from which the next request to this host may start; in the past when idle."""
        return max(self._entry(host, share).free_at, self.paused_until(host))

    def is_full(self, host: str, share: Share = WHOLE) -> bool:
        """Whether as many requests as allowed are running to this host."""
        return self._entry(host, share).running >= self.places(share)

    def places(self, share: Share = WHOLE) -> int:
        """How many requests of a share may run to a host at a time."""
        return max(1, self.at_once // share.slots)

    def seconds_between(self, crawl_delay: float | None, share: Share = WHOLE) -> float:
        """Seconds from one turn of a share to its next, of a host that was not slowed down."""
        return max(self.interval, crawl_delay or 0.0) * share.of

    def pace(self, host: str, crawl_delay: float | None, share: Share = WHOLE) -> float:
        """The same of this host, as it is asked now: more where it was slowed down."""
        cycle, slow = self.seconds_between(crawl_delay, share), self._slow.get(host, 1.0)
        return max(cycle, SLOWED_INTERVAL) * slow if slow > 1 else cycle

    def turn(self, host: str, now: float, crawl_delay: float | None, share: Share) -> float:
        """The first time from `now` at which a request may start."""
        return self._turn(host, now, crawl_delay, share)[0]

    def _turn(
        self, host: str, now: float, crawl_delay: float | None, share: Share
    ) -> tuple[float, float]:
        """(When a request may start, the lane's moment on the common clock that it takes)."""
        cycle = self.seconds_between(crawl_delay, share)
        moment = max(now, self.free_at(host, share))
        if self._entry(host, share).free_at == -math.inf:
            moment = max(moment, self._begun + cycle / share.of)
        if share.slots == 1 or not cycle:
            return moment, moment
        late = (moment + self.common - cycle * share.slot / share.slots) % cycle
        if late <= LATE * cycle / share.slots:
            return moment, moment - late  # else delays would add up
        return moment + cycle - late, moment + cycle - late

    def book(
        self, host: str, now: float, crawl_delay: float | None = None, share: Share = WHOLE
    ) -> float:
        """Take the host's next turn; returns the time at which the request may start.

        `crawl_delay` is robots.txt's, in seconds. A host that was slowed down is asked less often.
        """
        moment, taken = self._turn(host, now, crawl_delay, share)
        self._entry(host, share).free_at = taken + self.pace(host, crawl_delay, share)
        return moment

    def start(self, host: str, share: Share = WHOLE) -> None:
        """Count a request as running."""
        self._entry(host, share).running += 1

    def finish(self, host: str, share: Share = WHOLE) -> None:
        """Count a running request as done."""
        self._entry(host, share).running -= 1

    def pause(self, host: str, until: float) -> None:
        """Ask nothing of the host before this time (Retry-After)."""
        self._paused[host] = max(self.paused_until(host), until)

    def paused_until(self, host: str) -> float:
        """The time before which the host wants no request; minus infinity where it said nothing."""
        return self._paused.get(host, -math.inf)

    def slow_down(self, host: str) -> None:
        """Halve the host's rate: it said 429 or 503."""
        self._slow[host] = min(SLOWEST, 2 * self._slow.get(host, 1.0))

    def recover(self, host: str) -> None:
        """Bring a slowed host nearer to its rate: it answered."""
        slow = self._slow.get(host)
        if slow is not None:
            self._slow[host] = slow * RECOVERY
            if slow * RECOVERY <= 1:
                del self._slow[host]


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
