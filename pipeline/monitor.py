"""The screen of a run: what each stage has done, how fast, and how long it will take."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from pipeline.progress import StageState, read_stage
from pipeline.run import Run
from pipeline.stages import in_order
from wit import storage
from wit.console import Screen, duration, rate_of
from wit.errors import UserError

PAUSE, REMOTE_PAUSE = 0.5, 5.0  # seconds between two looks
USER_ERROR = re.compile(r"wit\.errors\.\w+: (.+?)(?: \[while running|\\n|\n|$)")


def watch(run: Run, session: str, execute: Callable[[], None]) -> None:
    """Calls `execute` in a thread and shows the stages' progress until it ends.

    Ctrl-C reaches this thread alone: the workers never see it, and end with this process.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        UserError: where a worker met one; its line is found in the runner's error.
    """
    failure: list[BaseException] = []

    def guarded() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            execute()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=guarded, name="pipeline", daemon=True)
    thread.start()
    pause = PAUSE if storage.is_local(run.out) else REMOTE_PAUSE
    with muted(run, session) as out, Screen(out) as screen:
        board = Board(run, session, screen)
        while thread.is_alive():
            thread.join(pause)
            board.look()
        board.look()
    if failure:
        raise explained(failure[0])


@contextlib.contextmanager
def muted(run: Run, session: str) -> Iterator[TextIO]:
    """Gives standard error for our own lines; what workers and libraries write goes to a log."""
    sys.stderr.flush()
    ours = os.dup(2)
    name = os.devnull
    if storage.is_local(run.out):
        name = storage.local_path(run.path("progress", f"{session}.log"))
        storage.make_folder(run.path("progress"))
    with open(name, "wb") as log, os.fdopen(ours, "w") as out:
        os.dup2(log.fileno(), 2)
        try:
            yield out
        finally:
            out.flush()
            os.dup2(ours, 2)


def explained(error: BaseException) -> BaseException:
    """Returns the UserError that a worker raised, out of what the runner made of it."""
    if isinstance(error, UserError):
        return error
    found = USER_ERROR.findall(str(error))
    return UserError(found[-1].strip()) if found else error


class Board:
    """Shows each stage once it is finished, and the one under way."""

    def __init__(self, run: Run, session: str, screen: Screen) -> None:
        self.run, self.session, self.screen = run, session, screen
        self.waiting = list(in_order(run.config.waves))
        self.started: dict[str, float] = {}
        self.final: dict[str, dict[str, dict[str, Any]]] = {}

    def look(self) -> None:
        """Reads the heartbeats and draws what is new."""
        while self.waiting:
            key, wave, stage = self.waiting[0]
            state = read_stage(self.run, key, self.session, self.final.setdefault(key, {}))
            if state is None:
                if not self.started:
                    self.screen.now("starting the workers")
                return
            started = self.started.setdefault(key, time.monotonic())
            planned_next = len(self.waiting) > 1 and read_stage(
                self.run, self.waiting[1][0], self.session
            )
            name = f"{stage.name} {wave}" if 1 <= wave <= self.run.config.waves else stage.name
            if not planned_next and state.done < state.tasks:
                line = self._line(name, stage.unit, state, time.monotonic() - started)
                self.screen.now(line)
                return
            self.waiting.pop(0)
            self.final.pop(key)
            if state.tasks and not state.wall:
                self.screen.done(f"{name:<20} {state.tasks:>6} tasks  done before")
            elif state.tasks:
                rate = rate_of(state.units / max(state.wall, 0.001), stage.unit)
                took = duration(state.wall)
                self.screen.done(
                    f"{name:<20} {state.tasks:>6} tasks  {took:>9}  {rate:>16}".rstrip()
                )

    def _line(self, name: str, unit: str, state: StageState, elapsed: float) -> str:
        share = state.done / state.tasks
        rate = rate_of(state.units / elapsed, unit) if unit and elapsed > 2 else ""
        left = elapsed / share - elapsed if share > 0.01 and elapsed > 2 else None
        text = f"{name:<20} {share:>4.0%} of {state.tasks} tasks  {rate:>16}"
        return text + (f"  {duration(left)} left" if left is not None else "")
