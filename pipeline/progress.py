"""What is going on: workers write a heartbeat each, the driver reads them and shows a person.

Heartbeats are files in OUT/progress/STAGE/, so they work on every runner, survive the run, and tell
the report what each stage cost. Nothing of the result is read from them.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.pulse import Pulse, add_hosts, add_minutes, beat
from pipeline.run import Run, read_many
from wit import storage

LOCAL_PAUSE, REMOTE_PAUSE = 0.5, 10.0  # seconds between heartbeats
PLAN = ".plan.json"
START, SUMMARY = "start", "summary"  # what the driver does before and after the stages


def announce(
    run: Run, stage: str, session: str, tasks: int, pending: int, started: float | None = None
) -> None:
    """Writes how many tasks a stage has and how many are left in this session."""
    facts = {"tasks": tasks, "pending": pending, "time": started or time.time()}
    storage.write_json(run.path("progress", stage, f"{session}{PLAN}"), facts)


class Clock:
    """Runs while the driver does a step of its own; `note` may be called again."""

    def __init__(self) -> None:
        self.started, self.cpu = time.time(), _cpu_seconds()

    def note(self, run: Run, step: str, session: str) -> None:
        """Writes what START or SUMMARY took until now."""
        announce(run, step, session, 1, 1, self.started)
        heartbeat = Heartbeat(run, step, session, [0])
        heartbeat.started, heartbeat.cpu = self.started, self.cpu
        heartbeat.finish()


class Heartbeat:
    """A work element's sign of life; `update` may be called as often as one likes."""

    def __init__(self, run: Run, stage: str, session: str, tasks: list[int]) -> None:
        self.path = run.path("progress", stage, f"{session}.{tasks[0]:06d}.json")
        self.tasks = tasks
        self.parts: dict[int, tuple[float, float]] = {}
        self.fetched: dict[int, float] = {}
        self.pulses: dict[int, Pulse] = {}
        self.started, self.cpu = time.time(), _cpu_seconds()
        self.pause = LOCAL_PAUSE if storage.is_local(run.out) else REMOTE_PAUSE
        self.due = time.monotonic() + self.pause
        self.lock = threading.Lock()

    def update(
        self,
        task: int,
        done: float,
        total: float,
        fetched: float = 0.0,
        pulse: Pulse | None = None,
    ) -> None:
        """Notes that `done` of `total` units of a task are finished, and what it has fetched."""
        self.parts[task] = (done, total)
        self.fetched[task] = fetched
        if pulse is not None:
            self.pulses[task] = pulse
        with self.lock:
            if time.monotonic() >= self.due:
                self.due = time.monotonic() + self.pause
                self._write(False)

    def finish(self, whole: bool = True) -> None:
        """Notes that all tasks of the element are finished, or have stopped where they are."""
        with self.lock:
            self._write(True, whole)

    def _write(self, finished: bool, whole: bool = False) -> None:
        parts = list(self.parts.values())
        share = sum(min(1.0, done / total) for done, total in parts if total)
        facts = {
            "tasks": len(self.tasks),
            "share": len(self.tasks) if whole else share,
            "finished": finished,
            "units": sum(done for done, _ in parts),
            "fetched": sum(list(self.fetched.values())),
            "started": self.started,
            "wall": time.time() - self.started,
            "cpu": _cpu_seconds() - self.cpu,
            "pid": os.getpid(),
            **beat(list(self.pulses.values()), finished),
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
        spans: when its plan was made and when its last heartbeat came, of each session.
        fetched: bytes of pictures that were fetched.
        before: tasks that were finished when the stage was planned.
        minutes, hosts: what came in the last minutes, and the slowest hosts (pipeline.pulse).
    """

    tasks: int
    done: float
    units: float
    wall: float
    cpu: float
    spans: dict[str, tuple[float, float]]
    fetched: float = 0.0
    before: int = 0
    minutes: list[dict[str, Any]] = field(default_factory=list)
    hosts: list[dict[str, Any]] = field(default_factory=list)


def read_stage(
    run: Run,
    stage: str,
    session: str | None,
    final: dict[str, dict[str, Any]] | None = None,
    most: int | None = None,
) -> StageState | None:
    """Returns a stage's state in a session, or its cost over all; None before it was planned.

    `final`, kept by the caller from look to look, holds what will not change any more, so that each
    file of a stage with very many tasks is read once. Of more than `most` heartbeats so many are
    read, evenly spread, and their sums are scaled.
    """
    folder = run.path("progress", stage)
    tasks, before, done, units, fetched, cpu = 0, 0, 0.0, 0.0, 0.0, 0.0
    minutes: list[dict[str, Any]] = []
    hosts: list[dict[str, Any]] = []
    spans: dict[str, list[float]] = {}
    final = {} if final is None else final
    names = [
        name
        for name in storage.list_names(folder)
        if not name.startswith(".") and (not session or name.split(".")[0] == session)
    ]
    beats = [name for name in names if not name.endswith(PLAN)]
    scale = 1.0
    if most is not None and len(beats) > most:
        chosen = {beats[i * len(beats) // most] for i in range(most)}
        scale = len(beats) / most
        names = [name for name in names if name.endswith(PLAN) or name in chosen]
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
            before += tasks - facts["pending"]
            span[0] = min(span[0], facts["time"])
            span[1] = max(span[1], facts["time"])
        else:
            done += scale * facts["share"]
            cpu += scale * facts["cpu"]
            units += scale * facts["units"]
            fetched += scale * facts.get("fetched", 0.0)
            minutes += facts.get("minutes", [])
            hosts += facts.get("hosts", [])
            span[1] = max(span[1], facts["started"] + facts["wall"])
    if not spans:
        return None
    wall = sum(max(0.0, end - start) for start, end in spans.values())
    pairs = {name: (start, end) for name, (start, end) in spans.items()}
    return StageState(
        tasks,
        min(before + done, tasks),
        units,
        wall,
        cpu,
        pairs,
        fetched,
        before,
        add_minutes(minutes),
        add_hosts(hosts),
    )


def read_times(
    run: Run, stages: Sequence[str], session: str | None = None
) -> dict[str, tuple[int, float, float]]:
    """Returns (tasks, wall, core-seconds) of START, the stages that have tasks, and SUMMARY.

    In a session, each lasts from the end of the one before to the next one's plan, so the walls add
    up to the time from the command to its report. A run that was resumed is the sum of its
    sessions; the time between them counts nowhere. `session` names one, else all count.
    """
    found = {key: read_stage(run, key, session) for key in (START, *stages, SUMMARY)}
    states = {key: state for key, state in found.items() if state}
    times = {key: [state.tasks, 0.0, state.cpu] for key, state in states.items() if state.tasks}
    for name in sorted(set().union(*(state.spans for state in states.values()))):
        steps = [(key, *state.spans[name]) for key, state in states.items() if name in state.spans]
        ends = [start for _, start, _ in steps[1:]] + [steps[-1][2]]
        since = steps[0][1]
        for (key, _, _), end in zip(steps, ends, strict=True):
            if key in times:
                times[key][1] += max(0.0, end - since)
                since = max(end, since)
    return {key: (tasks, wall, cpu) for key, (tasks, wall, cpu) in times.items()}


def _read(path: str) -> dict[str, Any] | None:
    try:
        return storage.read_json(path)
    except FileNotFoundError:  # listed, then replaced
        return None
