"""Which hosts have stopped answering: they are left alone, asked once more, then given up.

After so many failures in a row a host rests; after the rest one request, and only one, finds out
whether it is back. One failure more than so many gives the host up.
"""

from dataclasses import dataclass

# HTTP answers that say that the server, not this one address, cannot answer now.
BUSY = (429, 502, 503, 504)


@dataclass(slots=True)
class _Host:
    failures: int = 0
    rest_until: float = 0.0
    probing: bool = False
    is_gone: bool = False


class Breaker:
    """Counts failures in a row by host. `failures` of 0 never gives a host up; times in seconds."""

    def __init__(self, failures: int, rest: float):
        self.failures = failures
        self.rest = rest
        self._hosts: dict[str, _Host] = {}

    def is_gone(self, host: str) -> bool:
        """Whether nothing more is to be asked of this host: it was given up."""
        entry = self._hosts.get(host)
        return entry is not None and entry.is_gone

    def has_failed(self, host: str) -> bool:
        """Whether the failures suffice to give it up, also where no request was left to find out.

        It depends on how many requests failed and not on how many ran at a time.
        """
        entry = self._hosts.get(host)
        return entry is not None and 0 < self.failures < entry.failures

    def may_ask_at(self, host: str) -> float:
        """When the host's rest is over; 0 where it has none."""
        entry = self._hosts.get(host)
        return 0.0 if entry is None else entry.rest_until

    def is_probing(self, host: str) -> bool:
        """Whether the one request that finds out is under way: no other may start."""
        entry = self._hosts.get(host)
        return entry is not None and entry.probing

    def start(self, host: str) -> bool:
        """Say that a request starts; True if it is the one that finds out."""
        entry = self._hosts.get(host)
        if entry is None or not entry.rest_until:
            return False
        entry.probing = True
        return True

    def answered(self, host: str) -> None:
        """The host answered: whatever was counted is forgotten."""
        self._hosts.pop(host, None)

    def failed(self, host: str, now: float, probe: bool) -> None:
        """The host did not answer; `probe` is what `start` said."""
        entry = self._hosts.setdefault(host, _Host())
        entry.failures += 1
        if probe and entry.probing:
            entry.probing = False
            entry.is_gone = True
        elif entry.failures == self.failures:
            entry.rest_until = now + self.rest

    def undecided(self, host: str, probe: bool) -> None:
        """The request ended for a reason of ours: another one will find out."""
        entry = self._hosts.get(host)
        if entry is not None and probe:
            entry.probing = False
