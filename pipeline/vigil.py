"""What a lane keeps an eye on while it fetches: the alarm, the limits, and how far it is."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline.fetch.alarm import (
    Alarm,
    Evidence,
    Example,
    judge_hosts,
    judge_placeholders,
    site_of,
    unreached,
)
from pipeline.limits import Over, limits_of
from pipeline.pulse import Pulse
from pipeline.run import Run
from wit import storage
from wit.errors import UserError

if TYPE_CHECKING:
    from pipeline.fetch.fetched import Fetched
    from pipeline.fetch.slowest import SlowHost
    from pipeline.stages import Progress, Reach

FEWEST_SITES = 20  # without a single answer, so that a wave's hosts are no evidence of dead links
PAUSE = 0.2  # seconds between two looks of a shard that has to wait
SILENT = ("unreachable", "forbidden_address")
ANSWERED = ("allow_all", "rules", "disallow_all")
_MAKING = threading.Lock()


class Vigil:
    """A lane's watch over its shards; the alarm is the process's, so that lanes add up.

    reach: `keep_going` leaves the alarm out. done, total: of the lane's rows. batched: the engine
    hands out a shard's results at its end, successes first; they are looked at in the rows' order.
    slowest: gives the hosts that the lane waits for longest.
    """

    def __init__(
        self,
        run: Run,
        reach: Reach,
        progress: Progress,
        done: int,
        total: int,
        batched: bool,
        slowest: Callable[[], Sequence[SlowHost]],
    ) -> None:
        self._run, self._progress = run, progress
        self._alarm = None if reach.keep_going else shared_alarm(run.out, reach.session)
        self._limits = limits_of(run.out, reach)
        self._done, self._total, self._bytes = done, total, 0
        self._pulse = Pulse(slowest)
        self._name = ""
        self._urls: Sequence[str] = ()
        self._held: list[Fetched] | None = [] if batched else None

    def may_begin(self) -> None:
        """Raises limits.Over where no other shard is to be begun."""
        if self._limits.reached():
            raise Over

    def begin(self, name: str, rows: int, urls: Sequence[str]) -> None:
        """Starts with a shard of so many rows, of which `urls` are asked for."""
        self._name, self._urls = name, urls
        self._done += rows - len(urls)

    def see(self, fetched: Fetched) -> None:
        """Takes a result, whose index is that of its URL.

        Raises:
            UserError: with the evidence, where everything goes wrong.
            limits.Over: where the shard has to be given up.
        """
        self._done += 1
        self._bytes += fetched.bytes_read
        self._pulse.see(fetched.outcome, fetched.bytes_read)
        if self._held is not None:
            self._held.append(replace(fetched, image=None))
        elif self._alarm is not None:
            url = self._urls[fetched.index]
            self._stop_for(self._alarm.see(fetched, url, time.monotonic()))
        self.look()

    def look(self) -> None:
        """Does what is to be done also while no result comes; raises as `see` does."""
        self._progress(self._done, self._total, self._bytes, self._pulse)
        self._limits.check()

    def settle(self) -> None:
        """Is called before a shard is committed: waits where things look bad; raises as `see`."""
        if self._alarm is None:
            return
        for fetched in sorted(self._held or [], key=lambda held: held.index):
            url = self._urls[fetched.index]
            self._stop_for(self._alarm.see(fetched, url, time.monotonic()))
        if self._held:
            self._held.clear()
        while self._alarm.waits(time.monotonic()):
            time.sleep(PAUSE)
            self.look()
        self._stop_for(self._alarm.verdict())

    def weigh_placeholders(self, urls: pa.ChunkedArray, found: np.ndarray) -> None:
        """Looks at a shard's pictures, of which `found` (bool [n]) are placeholders; may raise."""
        if self._alarm is not None and found.any():
            self._stop_for(judge_placeholders(urls.to_pylist(), found.tolist()))

    def _stop_for(self, evidence: Evidence | None) -> None:
        if evidence is not None:
            where = f"{storage.join(self._run.path('shards'), self._name)}: given up"
            raise UserError(stop_line(where, evidence))


def stop_line(where: str, evidence: Evidence) -> str:
    """Returns a person's line."""
    return (
        f"{where}, for everything goes wrong: {evidence.line()}; then the same command goes on "
        "(with --keep-going it does in any case)"
    )


def shared_alarm(out: str, session: str) -> Alarm:
    """Returns the process's alarm, which its lanes share."""
    with _MAKING:
        return _make_alarm(out, session)


@functools.lru_cache(maxsize=1)
def _make_alarm(out: str, session: str) -> Alarm:
    return Alarm()


# --- hosts ------------------------------------------------------------------------------------


def watched(ask: Callable[[list[str]], pa.Table], where: str) -> Callable[[list[str]], pa.Table]:
    """Returns `ask` (hosts -> ROBOTS) that raises a UserError where the network went away."""

    def ask_and_look(hosts: list[str]) -> pa.Table:
        table = ask(hosts)
        evidence = judge_hosts(table["host"].to_pylist(), table["robots"].to_pylist())
        if evidence is not None:
            raise UserError(stop_line(f"{where}: stopped", evidence))
        return table

    return ask_and_look


def check_hosts(run: Run, buckets: Sequence[int], reach: Reach) -> None:
    """Looks at the hosts of the first wave before anything is planned from them.

    Raises:
        UserError: where none of many sites has answered. What was found out about them is removed,
            so that they are asked again.
    """
    if reach.keep_going:
        return
    paths = [run.wave_path("hosts", run.waves.start, f"{bucket:04d}.parquet") for bucket in buckets]
    silent: dict[str, Example] = {}
    for path in paths:
        table = storage.read_table(path, ["host", "robots"])
        for host, robots in zip(
            table["host"].to_pylist(), table["robots"].to_pylist(), strict=True
        ):
            if robots in ANSWERED:
                return
            if robots in SILENT:
                silent[site_of(host)] = robots, host, None
    if len(silent) >= FEWEST_SITES:
        for path in paths:
            storage.remove(path)
        evidence = unreached(silent.values(), "asked for their robots.txt")
        raise UserError(stop_line(f"{run.out}: stopped", evidence))
