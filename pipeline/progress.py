"""What is going on: workers write a heartbeat each, the driver reads them and shows a person.

Heartbeats are files in OUT/progress/STAGE/, so they work on every runner, survive the run, and tell
the report what each stage cost. Nothing of the result is read from them.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from dataclasses import dataclass
from typing import Any

from pipeline.run import Run, read_many
from wit import storage

LOCAL_PAUSE, REMOTE_PAUSE = 0.5, 10.0  # seconds between heartbeats
PLAN = ".plan.json"


def announce(run: Run, stage: str, session: str, tasks: int, pending: int) -> None:
    """Writes how many tasks a stage has and how many are left in this session."""
    facts = {"tasks": tasks, "pending": pending, "time": time.time()}
    storage.write_json(run.path("progress", stage, f"{session}{PLAN}"), facts)


class Heartbeat:
    """A work element's sign of life; `update` may be called as often as one likes."""

    def __init__(self, run: Run, stage: str, session: str, tasks: list[int]) -> None:
        self.path = run.path("progress", stage, f"{session}.{tasks[0]:06d}.json")
        self.tasks = tasks
        self.parts: dict[int, tuple[float, float]] = {}
        self.started, self.cpu = time.time(), _cpu_seconds()
        self.pause = LOCAL_PAUSE if storage.is_local(run.out) else REMOTE_PAUSE
        self.due = time.monotonic() + self.pause
        self.lock = threading.Lock()

    def update(self, task: int, done: float, total: float) -> None:
        """Notes that `done` of `total` units of a task are finished."""
        self.parts[task] = (done, total)
        with self.lock:
            if time.monotonic() >= self.due:
                self.due = time.monotonic() + self.pause
                self._write(False)

    def finish(self) -> None:
        """Notes that all tasks of the element are finished."""
        with self.lock:
            self._write(True)

    def _write(self, finished: bool) -> None:
        parts = list(self.parts.values())
        share = sum(min(1.0, done / total) for done, total in parts if total)
        facts = {
            "tasks": len(self.tasks),
            "share": len(self.tasks) if finished else share,
            "finished": finished,
            "units": sum(done for done, _ in parts),
            "started": self.started,
            "wall": time.time() - self.started,
            "cpu": _cpu_seconds() - self.cpu,
            "pid": os.getpid(),
        }
        storage.write_json(self.path, facts)


def _cpu_seconds() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


@dataclass(frozen=True)
class StageState:
    """How far a stage is.

    Attributes:
        tasks: all of them.
        done: finished ones and the shares of those under way.
        units: bytes, rows or pictures handled in this session.
        wall: seconds from the first heartbeat to the last, of all sessions.
        cpu: core-seconds of the finished elements.
    """

    tasks: int
    done: float
    units: float
    wall: float
    cpu: float


def read_stage(
    run: Run, stage: str, session: str | None, final: dict[str, dict[str, Any]] | None = None
) -> StageState | None:
    """Returns a stage's state in a session, or its cost over all; None before it was planned.

    `final`, kept by the caller from look to look, holds what will not change any more, so that each
    file of a stage with very many tasks is read once.
    """
    folder = run.path("progress", stage)
    tasks, done, units, cpu = 0, 0.0, 0.0, 0.0
    spans: dict[str, list[float]] = {}
    final = {} if final is None else final
    names = [
        name
        for name in storage.list_names(folder)
        if not name.startswith(".") and (not session or name.split(".")[0] == session)
    ]
    new = [name for name in names if name not in final]
    found = dict(zip(new, read_many((storage.join(folder, n) for n in new), _read), strict=True))
    final.update({n: f for n, f in found.items() if f and (n.endswith(PLAN) or f["finished"])})
    for name in names:
        facts = final.get(name) or found[name]
        if facts is None:
            continue
        span = spans.setdefault(name.split(".")[0], [float("inf"), 0.0])
        if name.endswith(PLAN):
            tasks = facts["tasks"]
            done += tasks - facts["pending"]
            span[0] = min(span[0], facts["time"])
            span[1] = max(span[1], facts["time"])
        else:
            done += facts["share"]
            cpu += facts["cpu"]
            units += facts["units"]
            span[1] = max(span[1], facts["started"] + facts["wall"])
    if not spans:
        return None
    wall = sum(max(0.0, end - start) for start, end in spans.values())
    return StageState(tasks, min(done, tasks), units, wall, cpu)


def _read(path: str) -> dict[str, Any] | None:
    try:
        return storage.read_json(path)
    except FileNotFoundError:  # listed, then replaced
        return None
