"""What the last command on a run does or did: OUT/progress/session.json, for `wit harvest status`.

The driver writes it as stages end and when the command ends, whatever ends it; nothing of the
result is read from it. A record without an end whose owner is dead is that of a killed command.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.run import Run
from pipeline.stage_lines import StageRow
from wit import storage
from wit.errors import UserError

NAME = "session.json"
PAUSE = 30.0  # seconds after which it is written again though nothing is new
START, STAGES, SUMMARY = "start", "stages", "summary"  # its steps
FINISHED, STOPPED, INTERRUPTED, FAILED = "finished", "stopped", "interrupted", "failed"


class Record:
    """The file, as its only writer has it.

    owner: of the folder's lock. began: seconds since 1970. limits: the options that limit the
    command, as they were given. Rows of earlier sessions of the same crawl stay.
    """

    def __init__(self, run: Run, owner: str, began: float, limits: dict[str, Any]) -> None:
        self._path = run.path("progress", NAME)
        self.session = secrets.token_hex(4)
        former = read_record(run) or {}
        rows = former.get("rows", []) if former.get("crawl") == run.crawl else []
        self._rows = {row["key"]: row for row in rows if row["key"] not in (START, SUMMARY)}
        self._facts: dict[str, Any] = {
            "session": self.session,
            "owner": owner,
            "began": began,
            "crawl": run.crawl,
            "limits": limits,
            "step": START,
            "stages": [],
            "over": [],
            "ended": None,
            "how": None,
            "said": None,
        }
        self._changed, self._due = True, 0.0
        self.save()

    def plan(self, stages: Sequence[tuple[str, str, str]]) -> None:
        """Takes (key, name, unit) of the stages in order: they begin."""
        self._facts |= {"step": STAGES, "stages": [list(stage) for stage in stages]}
        self._changed = True

    def finish(self, row: StageRow) -> None:
        """Takes a stage that is over."""
        self._facts["over"].append(row.key)
        if row.seconds is not None or row.key not in self._rows:
            self._rows[row.key] = row.to_json()
        self._changed = True

    def sum_up(self) -> None:
        """Says that the stages are over."""
        self._facts["step"] = SUMMARY
        self._changed = True
        self.save()

    def stop(self, why: str) -> None:
        """Says how the command ends before the run does; `why` ends a sentence."""
        self._facts |= {"how": STOPPED, "said": why}

    def end(self, how: str, said: str | None = None) -> None:
        """Writes that the command is over, and how; `said` is the line of an error."""
        if how != FINISHED or self._facts["how"] is None:
            self._facts |= {"how": how, "said": said}
        self._facts["ended"] = time.time()
        if self._facts["how"] == FINISHED:
            # With it the rows add up to the time from the command to its end.
            mine = [row for row in self._rows.values() if row["session"] == self.session]
            took = self._facts["ended"] - self._facts["began"]
            took = max(0.0, took - sum(row["seconds"] or 0.0 for row in mine))
            self.finish(StageRow(SUMMARY, SUMMARY, self.session, 0, took))
        self._changed = True
        self.save()

    def save(self) -> None:
        """Writes the file, if there is something new or it has not been written for a while."""
        if self._changed or time.monotonic() >= self._due:
            self._changed, self._due = False, time.monotonic() + PAUSE
            facts = {**self._facts, "rows": list(self._rows.values()), "written": time.time()}
            storage.write_json(self._path, facts)


@contextlib.contextmanager
def recorded(run: Run, owner: str, began: float, limits: dict[str, Any]) -> Iterator[Record]:
    """Gives the record of a command, and writes how it ended."""
    record = Record(run, owner, began, limits)
    try:
        yield record
    except BaseException as error:
        how = INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
        said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        with contextlib.suppress(UserError, OSError):  # the first error is to be told
            record.end(how, " ".join(said.split()) if how == FAILED else None)
        raise
    record.end(FINISHED)


def read_record(run: Run) -> dict[str, Any] | None:
    """Returns what the file says; None where there is none."""
    try:
        return storage.read_json(run.path("progress", NAME))
    except FileNotFoundError:
        return None
