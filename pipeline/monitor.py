"""The screen of a run: what each stage has done, how fast, and how long it will take."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TextIO

from pipeline.limits import ByteCount
from pipeline.progress import START, StageState, read_stage
from pipeline.run import Run
from pipeline.session import Record
from pipeline.stage_lines import StageRow, under_way
from pipeline.stages import Stage, in_order
from wit import storage
from wit.console import Screen
from wit.errors import UserError

PAUSE, REMOTE_PAUSE = 0.5, 5.0  # seconds between two looks
FEW, LONGEST = 8, 500  # lines and characters of an error that are said whole
MISSING = {  # what Beam says where a part of a runner is not there, and what to do
    r"remote job server jar at (\S+?):? ": "its job server (a jar) is not on this machine and "
    "cannot be downloaded; get {} and name it with --flink_job_server_jar (or --spark_...)",
    r"remote prism binary at (\S+?):? ": "its program is not on this machine and cannot be "
    "downloaded; get {} and name it with --prism_location",
    r"No such file or directory: '(java)'": "its job server needs {}, which is not installed; "
    "install it, or name it with --job_server_java_launcher",
}
USER_ERROR = re.compile(r"wit\.errors\.\w+: (.+?)(?: \[while running|\\n|\n|$)")


def watch(
    run: Run,
    session: str,
    runner: str,
    execute: Callable[[], None],
    max_bytes: int | None = None,
    repair: tuple[int, ...] = (),
    record: Record | None = None,
) -> None:
    """Calls `execute` in a thread and shows the stages' progress until it ends.

    Ctrl-C reaches this thread alone: the workers never see it, and end with this process. They are
    told to stop once `max_bytes` are fetched. `record` gets what the screen shows.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        UserError: with the line of the one that a worker met, or else the last line of what went
            wrong and the file that holds all of it.
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
        board = Board(run, session, screen, ByteCount(run, session, max_bytes), repair, record)
        while thread.is_alive():
            thread.join(pause)
            board.look()
        board.look()
        if failure:
            os.write(2, "".join(traceback.format_exception(failure[0])).encode())
    if failure:
        raise explained(failure[0], runner, log_path(run, session)) from failure[0]


def log_path(run: Run, session: str) -> str:
    """Returns the file that gets what workers and libraries write in a session."""
    return run.path("progress", f"{session}.log")


@contextlib.contextmanager
def muted(run: Run, session: str) -> Iterator[TextIO]:
    """Gives standard error for our own lines; what workers and libraries write goes to a log."""
    sys.stderr.flush()
    ours = os.dup(2)
    path = log_path(run, session)
    with contextlib.ExitStack() as stack:
        if storage.is_local(path):
            storage.make_folder(run.path("progress"))
            log: BinaryIO = stack.enter_context(open(storage.local_path(path), "wb"))
        else:
            log = stack.enter_context(storage.spool(run.out))
        out = stack.enter_context(os.fdopen(ours, "w"))
        os.dup2(log.fileno(), 2)
        try:
            yield out
        finally:
            out.flush()
            sys.stderr.flush()
            os.dup2(ours, 2)
        if not storage.is_local(path) and log.seek(0, os.SEEK_END):
            log.seek(0)
            storage.write_bytes(path, log.read())


def explained(error: BaseException, runner: str, log: str) -> UserError:
    """Returns the UserError that a worker raised, out of what the runner made of it.

    Of another error it says the last line, and that `log` holds the rest.
    """
    said = str(error)
    if isinstance(error, UserError):  # Beam adds to it where it works in this process
        return UserError(said.partition(" [while running")[0])
    found = USER_ERROR.findall(said)
    if found:
        return UserError(found[-1].strip())
    for pattern, advice in MISSING.items():
        missing = re.search(pattern, said)
        if missing:
            return UserError(f"--runner {runner}: {advice.format(missing[1])}")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    short = len(lines) <= FEW and "Traceback" not in said
    line = " ".join(lines if short else lines[-1:])[:LONGEST]
    name = "" if "Traceback" in said or not short else f"{type(error).__name__}: "
    return UserError(f"--runner {runner} failed: {name}{line} (all of it: {log})")


class Board:
    """Shows each stage once it is finished, and the one under way."""

    def __init__(
        self,
        run: Run,
        session: str,
        screen: Screen,
        count: ByteCount,
        repair: tuple[int, ...] = (),
        record: Record | None = None,
    ) -> None:
        self.run, self.session, self.screen, self.count = run, session, screen, count
        self.record = record
        self.waiting = list(in_order(run, repair))
        if record is not None:
            record.plan(
                [(key, name_of(stage, wave), stage.unit) for key, wave, stage in self.waiting]
            )
        self.started: dict[str, float] = {}
        self.since = 0.0  # when the last row ended; a row lasts until the next stage is planned
        self.final: dict[str, dict[str, dict[str, Any]]] = {}

    def look(self) -> None:
        """Reads the heartbeats, draws what is new, and has the record keep it."""
        self._look()
        if self.record is not None:
            self.record.save()

    def _look(self) -> None:
        while self.waiting:
            key, wave, stage = self.waiting[0]
            state = read_stage(self.run, key, self.session, self.final.setdefault(key, {}))
            if state is None:
                if not self.started:
                    self.screen.begin("starting the workers")
                return
            self.count.note(key, state.fetched)
            if not self.started:
                self._show_start(state)
            started = self.started.setdefault(key, time.monotonic())
            planned_next = len(self.waiting) > 1 and read_stage(
                self.run, self.waiting[1][0], self.session
            )
            name = name_of(stage, wave)
            if not planned_next and state.done < state.tasks:
                elapsed = time.monotonic() - started
                self.screen.now(under_way(name, stage.unit, state, elapsed).line())
                return
            self.waiting.pop(0)
            self.final.pop(key)
            end = (planned_next or state).spans[self.session][0 if planned_next else 1]
            took = max(0.0, end - self.since) if state.tasks and state.wall else None
            self.since = self.since if took is None else end
            row = StageRow(
                key,
                name,
                self.session,
                state.tasks,
                took,
                state.units / max(state.wall, 0.001),
                stage.unit,
                state.done / max(1, state.tasks),
                state.fetched,
            )
            if row.tasks:
                self.screen.done(row.line())
            self._keep(row)

    def _show_start(self, first: StageState) -> None:
        began = read_stage(self.run, START, self.session)
        self.since = first.spans[self.session][0]
        if began:
            took = self.since - began.spans[self.session][0]
            row = StageRow(START, START, self.session, 0, took)
            self.screen.done(row.line())
            self._keep(row)

    def _keep(self, row: StageRow) -> None:
        if self.record is not None:
            self.record.finish(row)


def name_of(stage: Stage, wave: int) -> str:
    """Returns a stage's name with its wave."""
    return f"{stage.name} {wave}" if wave else stage.name
