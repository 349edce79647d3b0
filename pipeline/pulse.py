"""What came in the last minutes: a ring of counts by outcome, and which hosts hold the work up.

A lane's is written into its worker's heartbeat, for `wit harvest status`; it is bounded, and
nothing of the result is read from it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipeline.fetch.slowest import SlowHost, slowest_of

MINUTES = 10
HOSTS = 5


class Pulse:
    """Counts of one lane; `slowest` gives the hosts that it waits for longest."""

    def __init__(self, slowest: Callable[[], Sequence[SlowHost]]) -> None:
        self.slowest = slowest
        self.minutes: dict[int, tuple[Counter[str], list[int]]] = {}

    def see(self, outcome: str, size: int) -> None:
        """Takes what became of a picture, and the bytes that came for it."""
        minute = int(time.time() // 60)
        found = self.minutes.get(minute)
        if found is None:
            found = Counter(), [0]
            self.minutes = {m: f for m, f in self.minutes.items() if m > minute - MINUTES}
            self.minutes[minute] = found
        found[0][outcome] += 1
        found[1][0] += size


def beat(pulses: Sequence[Pulse], finished: bool) -> dict[str, Any]:
    """Returns what a heartbeat says of a worker's lanes: `minutes` and `hosts`; else nothing.

    `minutes` has at most MINUTES of {minute: of the clock since 1970, bytes, outcomes: counts},
    `hosts` at most HOSTS of SlowHost as JSON, and none once the lanes are finished.
    """
    if not pulses:
        return {}
    minutes = [
        {"minute": minute, "bytes": size[0], "outcomes": dict(counts)}
        for pulse in pulses
        for minute, (counts, size) in list(pulse.minutes.items())
    ]
    found = [] if finished else [host for pulse in pulses for host in pulse.slowest()]
    hosts = [host.to_json() for host in slowest_of(found, HOSTS)]
    return {"minutes": add_minutes(minutes), "hosts": hosts}


def add_hosts(hosts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the HOSTS slowest ones of several workers."""
    found = slowest_of((SlowHost(**host) for host in hosts), HOSTS)
    return [host.to_json() for host in found]


def add_minutes(minutes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the last MINUTES minutes of several workers, added up, the oldest first."""
    sums: dict[int, tuple[Counter[str], list[float]]] = {}
    for found in minutes:
        counts, size = sums.setdefault(found["minute"], (Counter(), [0]))
        counts.update(found["outcomes"])
        size[0] += found["bytes"]
    return [
        {"minute": minute, "bytes": sums[minute][1][0], "outcomes": dict(sums[minute][0])}
        for minute in sorted(sums)
        if minute > max(sums) - MINUTES
    ]
