"""A stage as Beam runs it: plan its tasks, work on each, wait for all; and the stages in order.

A stage's plan lists the tasks whose output is absent, so what is finished is skipped, whoever
finished it. Its work writes that output, whole or not at all. Elements are the numbers of tasks and
what they move travels in files (Arrow tables, packed blocks), so a stage needs no memory of the
runner's, and every stage is the same on FnApiRunner, Flink, Spark and Dataflow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import Any

import apache_beam as beam

import wit
from pipeline import candidates, coverage, dedupe, fetching, plans, waves
from pipeline.limits import limits_of
from pipeline.progress import Heartbeat, announce
from pipeline.pulse import Pulse
from pipeline.run import Run, load_run
from wit import storage
from wit.errors import UserError

FETCH = "fetch"
Tasks = Callable[[Run, int], Iterable[int]]  # (run, wave) -> the numbers of all its tasks
Output = Callable[[Run, int, int], str]  # (run, wave, task) -> the file written last
Progress = Callable[..., None]  # (done, total), and from a lane its bytes and its pipeline.pulse


@dataclass(frozen=True)
class Reach:
    """What workers must know that does not decide the result.

    Attributes:
        session: the driver's name in OUT/progress.
        version: of the driver's program; workers of another version refuse to work.
        fetch: FetchPolicy as JSON, of it the part that does not decide the result.
        workers: processes that share the work on one machine; 0 where a cluster decides.
        seat: which of them has the task, where tasks that wait for servers are dealt out to all.
        deadline: after which nothing is begun, in seconds since 1970; None for no limit.
        limited: whether there is any limit, so that others may tell to stop (pipeline.limits).
        keep_going: whether no jump of failures stops the run (pipeline.vigil).
        repair: waves of earlier crawls of which lost shards are made again.
    """

    session: str
    version: str = wit.__version__
    fetch: str = "{}"
    workers: int = 0
    seat: int = 0
    deadline: float | None = None
    limited: bool = False
    keep_going: bool = False
    repair: tuple[int, ...] = ()


@dataclass(frozen=True)
class Stage:
    """One step of the harvest.

    Attributes:
        name: on the screen and in OUT/progress.
        tasks: lists its tasks; before that it writes what sums up the stage before.
        output: shows that a task is finished.
        work: does a task: (run, wave, task, progress, reach).
        together: whether a worker does its tasks at the same time (they wait for other servers).
        check: looks at what the stage before has made, and raises where it is of no use.
        unit: what its progress counts, where that says more than tasks do.
        first_only: whether only the first wave of a crawl has it.
    """

    name: str
    tasks: Tasks
    output: Output
    work: Callable[[Run, int, int, Progress, Reach], None]
    together: bool = False
    check: Callable[[Run, int, Reach], None] | None = None
    unit: str = ""
    first_only: bool = False


# --- the stages in order ----------------------------------------------------------------------


def _plain(work: Callable[..., None]) -> Callable[..., None]:
    return partial(_without_wave, work)


def _without_wave(
    work: Callable[..., None], run: Run, _: int, task: int, progress: Progress, reach: Reach
) -> None:
    work(run, task, progress)


def _with_wave(
    work: Callable[..., None], run: Run, wave: int, task: int, progress: Progress, reach: Reach
) -> None:
    work(run, wave, task, progress)


def _waved(work: Callable[..., None]) -> Callable[..., None]:
    return partial(_with_wave, work)


def _file(room: str, suffix: str) -> Output:
    return lambda run, wave, task: run.wave_path(room, wave, f"{task:04d}{suffix}")


def _again_file(suffix: str) -> Output:
    return lambda run, wave, task: run.wave_path("balance", wave, f"again.{task:04d}{suffix}")


FIRST = (
    Stage(
        "extract",
        plans.sources,
        lambda run, _, task: run.candidates(task, ".json"),
        _plain(candidates.extract),
        unit="bytes",
    ),
    Stage(
        "keys",
        plans.groups_to_key,
        lambda run, _, task: dedupe.key_files(run, task)[-1],
        _plain(dedupe.gather_keys),
    ),
    Stage(
        "unique",
        plans.url_buckets,
        lambda run, _, task: run.own("unique", f"{task:04d}.losers"),
        _plain(dedupe.find_duplicates),
    ),
    Stage(
        "count",
        plans.groups,
        lambda run, _, task: run.path("counts", f"{task:04d}.npy"),
        _plain(dedupe.count),
    ),
    Stage(
        "size",
        plans.groups_to_size,
        lambda run, _, task: run.own("counts", f"{task:04d}.sizes.npy"),
        _plain(dedupe.estimate),
    ),
)
WAVE = (
    Stage("collect", plans.groups_to_collect, _file("balance", ".json"), _waved(waves.collect)),
    Stage(
        "thresholds",
        plans.query_buckets,
        _file("balance", ".thresholds.npy"),
        _waved(waves.find_thresholds),
    ),
    Stage("collect-again", plans.groups_again, _again_file(".json"), _waved(waves.collect_again)),
    Stage(
        "thresholds-again",
        plans.query_buckets_again,
        _again_file(".thresholds.npy"),
        _waved(waves.find_thresholds_again),
    ),
    Stage("select", plans.groups_to_select, _file("selection", ".json"), _waved(waves.select)),
    Stage(
        "robots", plans.host_buckets, _file("hosts", ".parquet"), fetching.ask_hosts, together=True
    ),
    Stage(
        "lanes",
        plans.lanes_to_plan,
        _file("lanes", ".json"),
        fetching.plan_lane,
        check=fetching.check_hosts,
    ),
    Stage(
        "pilot",
        plans.lanes_to_pilot,
        _file("fetched", ".pilot"),
        fetching.fetch_pilot,
        together=True,
        unit="pictures",
        first_only=True,
    ),
    Stage(
        FETCH,
        plans.lanes_to_fetch,
        _file("fetched", ".results"),
        fetching.fetch_lane,
        together=True,
        unit="pictures",
    ),
)
LAST = (
    Stage(
        "coverage",
        plans.groups,
        lambda run, _, task: run.own("coverage", f"{task:04d}.npy"),
        _plain(coverage.cover),
    ),
    Stage(
        "evict",
        plans.lanes_to_evict,
        lambda run, _, task: run.own("evicted", f"{task:04d}.parquet"),
        _plain(coverage.evict),
    ),
)


def in_order(run: Run, repair: Collection[int] = ()) -> Iterator[tuple[str, int, Stage]]:
    """Yields (key, wave, stage) of a run's last crawl; the key names the stage in OUT/progress.

    The wave is 0 for stages that belong to none. `repair` are waves of earlier crawls of which
    shards were lost: these are fetched again first.
    """
    plan = [(0, stage) for stage in FIRST]
    for wave in range(1, run.waves.stop):
        plan += [(wave, stage) for stage in WAVE if run.is_first(wave) or not stage.first_only]
    plan += [(0, stage) for stage in LAST]
    for number, (wave, stage) in enumerate(plan):
        if not wave or wave in run.waves or (wave in repair and stage.name == FETCH):
            yield f"{number:02d}-{stage.name}", wave, stage


# --- a stage in Beam --------------------------------------------------------------------------


class Plan(beam.DoFn):
    """Lists a stage's unfinished tasks, as (number, tasks that belong together)."""

    def __init__(self, out: str, key: str, reach: Reach) -> None:
        self.out, self.key, self.reach = out, key, reach

    def process(self, _: Any) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yields one element a task; the first is empty, so that the barrier always has one."""
        run, wave, stage = _find(self.out, self.key, self.reach)
        yield -1, ()
        # Tasks of the stage before may have been left out, by a worker whose clock is ahead, too.
        if limits_of(self.out, self.reach).reached(at_once=True):
            announce(run, self.key, self.reach.session, 0, 0)
            return
        if stage.check is not None:
            stage.check(run, wave, self.reach)
        tasks = list(stage.tasks(run, wave))
        pending = _unfinished(run, wave, stage, tasks)
        announce(run, self.key, self.reach.session, len(tasks), len(pending))
        bundles = [(task,) for task in pending]
        if stage.together and self.reach.workers:
            bundles = [tuple(pending[i :: self.reach.workers]) for i in range(self.reach.workers)]
        yield from enumerate(bundle for bundle in bundles if bundle)


def _unfinished(run: Run, wave: int, stage: Stage, tasks: list[int]) -> list[int]:
    """Returns the tasks whose output is absent, by one listing of its folder."""
    if not tasks:
        return []
    outputs = [stage.output(run, wave, task).rpartition("/") for task in tasks]
    present = set(storage.list_names(outputs[0][0]))
    return [task for task, (_, _, name) in zip(tasks, outputs, strict=True) if name not in present]


class Do(beam.DoFn):
    """Does the tasks of an element."""

    def __init__(self, out: str, key: str, reach: Reach) -> None:
        self.out, self.key, self.reach = out, key, reach

    def process(self, element: tuple[int, Iterable[tuple[int, ...]]]) -> Iterator[tuple[int, int]]:
        """Yields (0, tasks done): all meet at the barrier."""
        run, wave, stage = _find(self.out, self.key, self.reach)
        limits = limits_of(self.out, self.reach)
        reach = replace(self.reach, seat=element[0])
        for tasks in element[1]:
            if tasks and not limits.reached():
                heartbeat = Heartbeat(run, self.key, self.reach.session, list(tasks))

                def do(task: int, progress: Progress) -> None:
                    stage.work(run, wave, task, progress, reach)

                do_together(tasks, heartbeat.update, do)
                heartbeat.finish(whole=not limits.reached())
            yield 0, len(tasks)


class Stopped(Exception):
    """A task was ended because another that ran beside it failed."""


def do_together(
    tasks: Sequence[int],
    update: Callable[[int, float, float, float, Pulse | None], None],
    do: Callable[[int, Progress], None],
) -> None:
    """Does tasks, each in a thread; the first error ends the others and is raised.

    A task is ended where it next tells its progress, so what it has committed stands.
    """
    failed = Event()

    def progress(
        task: int, done: float, total: float, fetched: float = 0.0, pulse: Pulse | None = None
    ) -> None:
        if failed.is_set():
            raise Stopped
        update(task, done, total, fetched, pulse)

    with ThreadPoolExecutor(len(tasks)) as threads:
        futures = [threads.submit(do, task, partial(progress, task)) for task in tasks]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            failed.set()
            raise


def _find(out: str, key: str, reach: Reach) -> tuple[Run, int, Stage]:
    if reach.version != wit.__version__:
        raise UserError(
            f"this worker has webimagetext {wit.__version__}, the driver {reach.version}; "
            "install the driver's wheel on the workers"
        )
    run = load_run(out)
    return next((run, w, s) for k, w, s in in_order(run, reach.repair) if k == key)


def chain(pipeline: beam.Pipeline, run: Run, reach: Reach, until: str | None = None) -> None:
    """Adds every stage to a pipeline, each waiting for the one before, or those up to a stage."""
    state = pipeline | "start" >> beam.Create([None])
    for key, _, stage in in_order(run, reach.repair):
        state = (
            state
            | f"{key}: plan" >> beam.ParDo(Plan(run.out, key, reach))
            | f"{key}: spread" >> beam.GroupByKey()
            | f"{key}: do" >> beam.ParDo(Do(run.out, key, reach))
            | f"{key}: wait" >> beam.GroupByKey()
            | f"{key}: done" >> beam.Map(lambda done: None)
        )
        if stage.name == until:
            break
