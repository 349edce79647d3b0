"""How many requests run to one address at a time: many host names may be one server.

The count is the process's, over all its event loops: a process that asks for the robots.txt of
10,000 blogs in many threads still meets their one server as one guest.
"""

import threading
from collections import Counter

DEFAULT = 16


class Places:
    """Requests under way by address."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, address: str, at_once: int) -> bool:
        """Take a place where fewer than `at_once` are taken; 0 is no limit."""
        with self._lock:
            if at_once and self._running[address] >= at_once:
                return False
            self._running[address] += 1
            return True

    def give(self, address: str) -> None:
        """Give a place back."""
        with self._lock:
            self._running[address] -= 1
            if not self._running[address]:
                del self._running[address]


PLACES = Places()  # the process's
