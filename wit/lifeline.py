"""A worker process that ends with the driver that started it, also when that is killed."""

import os
import select
import threading


def die_with(pid: int) -> None:
    """Ends this process when process `pid` of this machine ends, or now if it has ended already.

    A pidfd is asked, so a process that gets the same number later is not mistaken for the driver.
    """
    try:
        driver = os.pidfd_open(pid)
    except ProcessLookupError:
        os._exit(1)

    def watch() -> None:
        select.select([driver], [], [])
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
