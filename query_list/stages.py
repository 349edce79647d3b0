"""The stages of a build as Beam runs them: list the tasks whose file is absent, do them, wait.

Elements are the numbers of tasks, and what tasks make are files, whole or not at all, so a build
that was stopped goes on where it was, and every runner does the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam

import wit
from query_list import work
from query_list.run import Run, load_run
from wit import storage
from wit.console import Screen, duration
from wit.errors import UserError


@dataclass(frozen=True)
class Stage:
    """One step of a build.

    Attributes:
        name: on the screen.
        tasks: lists the numbers of its tasks; before that it writes what sums up the stage before.
        output: the file that a task writes last.
        work: does a task.
    """

    name: str
    tasks: Callable[[Run], Sequence[int]]
    output: Callable[[Run, int], str]
    work: Callable[[Run, int], None]


def _file(room: str, suffix: str) -> Callable[[Run, int], str]:
    return lambda run, task: run.work(room, task, suffix)


STAGES = (
    Stage("hash inputs", work.inputs, _file("inputs", ".json"), work.hash_input),
    Stage("extract", work.splits, _file("extract", ".json"), work.extract),
    Stage("words", work.buckets, _file("vocabulary", ".json"), work.merge_words),
    Stage("bigrams", work.groups, _file("bigrams", ".json"), work.count_bigrams),
    Stage("pmi", work.partitions, _file("pmi", ".parquet"), work.add_bigrams),
    Stage("titles", work.title_tasks, _file("titles", ".json"), work.index_titles),
    Stage("views", work.view_files, _file("views", ".parquet"), work.count_views),
)


def _find(out: str, name: str, version: str) -> tuple[Run, Stage]:
    if version != wit.__version__:
        raise UserError(
            f"this worker has webimagetext {wit.__version__}, the driver {version}; install the "
            "driver's wheel on the workers"
        )
    return load_run(out), next(stage for stage in STAGES if stage.name == name)


class Plan(beam.DoFn):
    """Lists a stage's unfinished tasks."""

    def __init__(self, out: str, stage: str) -> None:
        self.out, self.stage, self.version = out, stage, wit.__version__

    def process(self, _: Any) -> Iterator[tuple[int, int]]:
        """Yields (task, task); the first is no task, so that the barrier always has an element."""
        run, stage = _find(self.out, self.stage, self.version)
        yield -1, -1
        tasks = list(stage.tasks(run))
        present = set(_present(run, stage, tasks))
        yield from ((task, task) for task in tasks if task not in present)
        storage.write_json(plan_path(run, stage), {"tasks": len(tasks), "before": len(present)})


class Do(beam.DoFn):
    """Does a task."""

    def __init__(self, out: str, stage: str) -> None:
        self.out, self.stage, self.version = out, stage, wit.__version__

    def process(self, element: tuple[int, Any]) -> Iterator[tuple[int, int]]:
        """Yields (0, 1): all meet at the barrier."""
        run, stage = _find(self.out, self.stage, self.version)
        if element[0] >= 0:
            stage.work(run, element[0])
        yield 0, 1


def _present(run: Run, stage: Stage, tasks: Sequence[int]) -> list[int]:
    """The tasks whose output is there, by one listing of its folder."""
    if not tasks:
        return []
    outputs = {task: storage.split(stage.output(run, task)) for task in tasks}
    names = set(storage.list_names(outputs[tasks[0]][0]))
    return [task for task, (_, name) in outputs.items() if name in names]


def is_finished(run: Run) -> bool:
    """Whether no stage has a task left, so that no runner is needed."""
    for stage in STAGES:
        if not storage.exists(plan_path(run, stage)):
            return False
        tasks = range(storage.read_json(plan_path(run, stage))["tasks"])
        if len(_present(run, stage, tasks)) < len(tasks):
            return False
    return True


def chain(pipeline: beam.Pipeline, run: Run) -> None:
    """Adds every stage to a pipeline, each waiting for the one before."""
    state = pipeline | "start" >> beam.Create([None])
    for stage in STAGES:
        state = (
            state
            | f"{stage.name}: plan" >> beam.ParDo(Plan(run.out, stage.name))
            | f"{stage.name}: spread" >> beam.GroupByKey()
            | f"{stage.name}: do" >> beam.ParDo(Do(run.out, stage.name))
            | f"{stage.name}: wait" >> beam.GroupByKey()
            | f"{stage.name}: done" >> beam.Map(lambda done: None)
        )


# --- what a person sees -----------------------------------------------------------------------


def plan_path(run: Run, stage: Stage) -> str:
    """Returns the file with the number of a stage's tasks."""
    return run.path("work", "progress", f"{stage.name.replace(' ', '-')}.json")


def forget_plans(run: Run) -> None:
    """Removes the plans of a command before, so that the screen shows this one's."""
    for stage in STAGES:
        storage.remove(plan_path(run, stage))


def board(run: Run, screen: Screen) -> Callable[[], None]:
    """Shows each stage once it is finished, and the one under way; returns what looks."""
    waiting = list(STAGES)
    begun: dict[str, float] = {}
    screen.begin("starting the workers")
    return partial(_look, run, screen, waiting, begun)


def _look(run: Run, screen: Screen, waiting: list[Stage], begun: dict[str, float]) -> None:
    while waiting:
        stage = waiting[0]
        if not storage.exists(plan_path(run, stage)):
            return
        since = begun.setdefault(stage.name, time.monotonic())
        plan = storage.read_json(plan_path(run, stage))
        done = len(_present(run, stage, range(plan["tasks"])))
        took = time.monotonic() - since
        if done < plan["tasks"]:
            new = done - plan["before"]
            left = f", {duration(took / new * (plan['tasks'] - done))} left" if new > 0 else ""
            screen.now(f"{stage.name:<12} {done:,} of {plan['tasks']:,}{left}")
            return
        if plan["tasks"]:
            screen.done(f"{stage.name:<12} {plan['tasks']:>6,}  {duration(took):>10}")
        waiting.pop(0)
