"""How long and how much one command may fetch: `--max-hours` and `--max-bytes`.

Whoever finds a limit reached says so in OUT/progress/SESSION.stop.json: workers for the time, which
they know as a moment of the clock, the driver for the bytes, which it sums from the heartbeats.
From then on no task and no shard is begun, those under way have GRACE seconds more, and no later
stage runs. A shard is whole or absent, so limits decide how far a command comes and no byte of it.
"""

from __future__ import annotations

import functools
import threading
import time
from typing import TYPE_CHECKING, Any

from pipeline.run import Run, read_many
from wit import shards, storage

if TYPE_CHECKING:
    from pipeline.stages import Reach

GRACE = 300.0  # seconds for shards under way
LOCAL_PAUSE, REMOTE_PAUSE = 0.5, 10.0  # seconds between two looks for the word to stop
HOURS, BYTES = "--max-hours", "--max-bytes"
STATS = "_stats.json"


class Over(Exception):
    """A limit was reached and the grace is over: a shard under way is given up."""


class Limits:
    """A session's limits as a process looks at them; its threads share it."""

    def __init__(self, out: str, reach: Reach) -> None:
        self._path = stop_path(out, reach.session)
        self._deadline, self._limited = reach.deadline, reach.limited
        self._pause = LOCAL_PAUSE if storage.is_local(out) else REMOTE_PAUSE
        self._lock = threading.Lock()
        self._due = 0.0
        self._since: float | None = None  # when a limit was reached

    def reached(self, at_once: bool = False) -> bool:
        """Whether nothing more is to be begun; `at_once` also if somebody said so just now."""
        with self._lock:
            now = time.time()
            if self._since is None and self._deadline is not None and now >= self._deadline:
                self._since = self._deadline
                say_stop(self._path, HOURS, self._since)
            is_due = at_once or time.monotonic() >= self._due
            if self._since is None and self._limited and is_due:
                self._due = time.monotonic() + self._pause
                if storage.exists(self._path):
                    self._since = storage.read_json(self._path)["since"]
            return self._since is not None

    def check(self) -> None:
        """Raises Over where even what is under way has to end."""
        if self.reached() and self._since is not None and time.time() >= self._since + GRACE:
            raise Over


@functools.lru_cache(maxsize=1)
def limits_of(out: str, reach: Reach) -> Limits:
    """Returns the process's limits of a session."""
    return Limits(out, reach)


def stop_path(out: str, session: str) -> str:
    """Returns the file that tells a session's workers to stop."""
    return storage.join(out, "progress", f"{session}.stop.json")


def say_stop(path: str, limit: str, since: float) -> None:
    """Writes it: which limit was reached, and when (seconds since 1970)."""
    storage.write_json(path, {"limit": limit, "since": since})


class ByteCount:
    """The driver's sum of the bytes that a session has fetched."""

    def __init__(self, run: Run, session: str, most: int | None) -> None:
        self._path, self._most = stop_path(run.out, session), most
        self._bytes: dict[str, float] = {}
        self._said = False

    def note(self, stage: str, fetched: float) -> None:
        """Takes what a stage has fetched so far; says to stop where it is too much."""
        self._bytes[stage] = fetched
        if self._most is not None and not self._said and sum(self._bytes.values()) >= self._most:
            self._said = True
            say_stop(self._path, BYTES, time.time())


def stopped_by(run: Run, session: str) -> str | None:
    """Returns the limit that ended a session before the run's end; None where none did."""
    path = stop_path(run.out, session)
    if not storage.exists(path) or is_at_end(run):
        return None
    limit: str = storage.read_json(path)["limit"]
    return limit


def is_at_end(run: Run) -> bool:
    """Returns whether every stage is finished; what is left is to sum up."""
    made = set(storage.list_names(run.own("coverage")))
    return all(f"{group:04d}.npy" in made for group in range(len(run.groups)))


def standing(run: Run) -> dict[str, int]:
    """Returns the shards that stand, the pictures in them, and the shards planned so far."""
    folder = run.path("shards")
    names = shards.list_shards(folder)
    stats = read_many(storage.join(folder, name + STATS) for name in names)
    found: dict[str, Any] = {"shards": len(names), "planned": 0}
    found["pictures"] = sum(shard["successes"] for shard in stats)
    for wave in range(1, run.waves.stop):
        path = run.wave_path("lanes", wave, "shards.json")
        if storage.exists(path):
            found["planned"] = storage.read_json(path)["next"]
    return found


def last_lines(run: Run, limit: str, before: int) -> list[str]:
    """Returns what a person is told at the end; `before` shards stood when the command began."""
    found = standing(run)
    lines = [f"stopped by {limit}, as asked; all that is finished stands in {run.out}"]
    if found["planned"]:
        lines.append(
            f"{found['shards']:,} of {found['planned']:,} shards planned so far, with "
            f"{found['pictures']:,} pictures"
        )
        if found["shards"] == before:
            lines.append(
                f"no shard could be finished: give {limit} more, or begin another run with a "
                "smaller --shard-size"
            )
    else:
        lines.append("no shard is planned yet")
    report = f"report   {run.path('report.html')}"
    return [*lines, report, "the same command goes on from here"]
