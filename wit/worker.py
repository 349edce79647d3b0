"""A worker process of the local runner: Beam's own, but quiet, and gone when its driver is gone.

python -m wit.worker DRIVER_PID
"""

import logging
import sys

from wit.lifeline import die_with


def main(argv: list[str]) -> None:
    """Works for the driver with the process id argv[1] until it has no more to do."""
    die_with(int(argv[1]))  # before anything slow: a driver may be killed while its workers start
    from apache_beam.runners.worker import sdk_worker_main

    logging.disable(logging.WARNING)
    sdk_worker_main.main(argv[:1])


if __name__ == "__main__":
    main(sys.argv)
