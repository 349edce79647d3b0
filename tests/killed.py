"""Death before a file operation: for tests that what was killed at any instant can be repeated."""

import os
import signal
import sys
from collections.abc import Callable

FILE_OPERATIONS = ("open", "os.rename", "os.link", "os.remove", "os.listdir", "os.mkdir")


def die_at(step: int, work: Callable[[], object]) -> None:
    """Does work in a process of its own that is killed just before its step-th file operation."""
    seen = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event in FILE_OPERATIONS:
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    work()
