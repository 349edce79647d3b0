"""A worker process that ends with the driver that started it, also when that is killed."""

from __future__ import annotations

import functools
import os
import select
import socket
import threading


@functools.cache
def die_with(host: str, pid: int) -> None:
    """Ends this process when process `pid` ends, if both run on `host`; once a process.

    A pidfd is asked, so a process that gets the same number later is not mistaken for the driver.
    """
    if host != socket.gethostname() or pid == os.getpid():
        return
    try:
        driver = os.pidfd_open(pid)
    except ProcessLookupError:
        os._exit(1)

    def watch() -> None:
        select.select([driver], [], [])
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
