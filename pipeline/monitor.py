"""The screen of a run: what each stage has done, how fast, and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import wit.runner
from pipeline.limits import ByteCount
from pipeline.progress import START, StageState, read_stage
from pipeline.run import Run
from pipeline.session import Record
from pipeline.stage_lines import StageRow, under_way
from pipeline.stages import Stage, in_order
from wit.console import Screen


def watch(
    run: Run,
    session: str,
    runner: str,
    execute: Callable[[], None],
    max_bytes: int | None = None,
    repair: tuple[int, ...] = (),
    record: Record | None = None,
) -> None:
    """Calls `execute` and shows the stages' progress until it ends, as `wit.runner.watch` does.

    Workers are told to stop once `max_bytes` are fetched. `record` gets what the screen shows.
    """

    def board(screen: Screen) -> Callable[[], None]:
        count = ByteCount(run, session, max_bytes)
        return Board(run, session, screen, count, repair, record).look

    wit.runner.watch(execute, runner, log_path(run, session), board)


def log_path(run: Run, session: str) -> str:
    """Returns the file that gets what workers and libraries write in a session."""
    return run.path("progress", f"{session}.log")


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
