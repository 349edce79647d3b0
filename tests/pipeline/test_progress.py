"""Heartbeats add up to a stage's state; a worker's error comes out as its one line."""

import io

import pytest

import wit.runner
from pipeline import monitor, progress
from pipeline.progress import (
    START,
    SUMMARY,
    Clock,
    Heartbeat,
    announce,
    read_stage,
    read_times,
)
from pipeline.run import Config, Run
from wit import storage
from wit.console import Screen, duration, rate_of
from wit.errors import UserError


def make_run(tmp_path) -> Run:
    return Run(str(tmp_path), Config(sources=[{}], queries={"queries": 1}))


def test_a_stage_is_unknown_then_planned_then_under_way_then_done(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "LOCAL_PAUSE", 0.0)
    run = make_run(tmp_path)
    assert read_stage(run, "00-extract", "s") is None
    announce(run, "00-extract", "s", tasks=4, pending=3)
    assert read_stage(run, "00-extract", "s").done == 1
    beat = Heartbeat(run, "00-extract", "s", [2])
    beat.update(2, 25, 100)
    state = read_stage(run, "00-extract", "s")
    assert (state.tasks, state.done, state.units) == (4, 1.25, 25)
    beat.finish()
    assert read_stage(run, "00-extract", "s").done == 2


def test_what_a_stage_cost_is_summed_over_sessions(tmp_path):
    run = make_run(tmp_path)
    for session in ("a", "b"):
        announce(run, "00-extract", session, 1, 1)
        Heartbeat(run, "00-extract", session, [0]).finish()
    assert read_stage(run, "00-extract", None).cpu >= read_stage(run, "00-extract", "a").cpu
    assert read_stage(run, "00-extract", "a").done == 1


def test_the_times_of_all_steps_add_up_to_those_of_the_sessions(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    stages = ["00-extract", "01-size", "02-select"]
    clock = Clock()
    for session, began, plans, end in (
        ("b", 100.0, [(103.0, 2), (107.5, 0), (108.0, 4)], 112.0),
        ("a", 500.0, [(501.0, 2), (501.5, 0), (502.0, 4)], 504.5),  # resumed, a while later
    ):
        monkeypatch.setattr(progress.time, "time", lambda end=end: end)
        announce(run, START, session, 1, 1, began)
        for stage, (moment, tasks) in zip(stages, plans, strict=True):
            announce(run, stage, session, tasks, tasks, moment)
        clock.started = end - 2
        clock.note(run, SUMMARY, session)
    walls = {key: wall for key, (_, wall, _) in read_times(run, stages).items()}
    # A stage without tasks has no row: the next one's begins where the one before ended.
    assert walls == {
        "start": 3.0 + 1.0,
        "00-extract": 4.5 + 0.5,
        "02-select": 2.5 + 1.0,
        "summary": 2.0 + 2.0,
    }
    assert sum(walls.values()) == (112.0 - 100.0) + (504.5 - 500.0)
    assert read_times(run, stages, "b")["summary"][1] == 2.0


def test_a_step_that_was_noted_again_counts_once(tmp_path):
    run = make_run(tmp_path)
    clock = Clock()
    for _ in range(2):
        clock.note(run, SUMMARY, "a")
    assert list(read_times(run, [])) == ["summary"]
    assert read_times(run, [])["summary"][0] == 1


def test_a_workers_user_error_is_found_in_what_the_runner_makes_of_it():
    runner = RuntimeError(
        "Traceback (most recent call last):\n  File ...\n"
        "wit.errors.DiskFull: out/x: cannot write: No space left; free space there, then run the "
        "same command again to resume [while running '00-extract: do']\n"
    )
    found = wit.runner.explained(runner, "FnApiRunner", "out/log")
    assert isinstance(found, UserError)
    assert str(found).startswith("out/x: cannot write")
    assert str(found).endswith("to resume")
    here = UserError("a.csv: no column 'x' [while running '00-extract: do']")
    assert str(wit.runner.explained(here, "FnApiRunner", "out/log")) == "a.csv: no column 'x'"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError("ours"), "--runner R failed: KeyError: 'ours' (all of it: out/log)"),
        (
            ValueError("Pipeline has errors: \nMissing option: project.\nMissing option: region."),
            "--runner R failed: ValueError: Pipeline has errors: Missing option: project. "
            "Missing option: region. (all of it: out/log)",
        ),
        (
            RuntimeError("Traceback (most recent call last):\n  File x\nKeyError: 'ours'\n"),
            "--runner R failed: KeyError: 'ours' (all of it: out/log)",
        ),
        (
            RuntimeError("Unable to fetch remote job server jar at https://a/b-1.jar: HTTP 404"),
            "--runner R: its job server (a jar) is not on this machine and cannot be downloaded; "
            "get https://a/b-1.jar and name it with --flink_job_server_jar (or --spark_...)",
        ),
        (
            FileNotFoundError(2, "No such file or directory", "java"),
            "--runner R: its job server needs java, which is not installed; install it, or name it "
            "with --job_server_java_launcher",
        ),
    ],
)
def test_what_else_goes_wrong_in_a_runner_is_one_line_that_says_what_or_where(error, line):
    assert str(wit.runner.explained(error, "R", "out/log")) == line


@pytest.mark.parametrize("out", ["local", "memory://muted/out"])
def test_the_whole_of_what_went_wrong_stands_in_the_runs_folder(tmp_path, out):
    run = Run(str(tmp_path) if out == "local" else out, Config(sources=[{}], queries={}))

    def execute() -> None:
        raise KeyError("ours")

    with pytest.raises(UserError, match="all of it") as error:
        monitor.watch(run, "s", "R", execute)
    log = str(error.value).partition("all of it: ")[2].rstrip(")")
    assert storage.read_bytes(log).decode().rstrip().endswith("KeyError: 'ours'")


def test_where_there_is_no_terminal_progress_is_seldom_and_plain():
    with Screen() as screen:
        screen.out, screen.live = io.StringIO(), False
        screen.now("begun")
        screen.due = 0.0  # the pause is over
        for _ in range(100):
            screen.now("half way")
        screen.done("done")
        assert screen.out.getvalue() == "half way\ndone\n"


def test_where_there_is_no_terminal_each_phase_is_told_once_and_at_once():
    with Screen(io.StringIO()) as screen:
        for phase in ("reading", "reading", "working", "working"):
            screen.begin(phase)
        assert screen.out.getvalue() == "reading\nworking\n"


def test_numbers_are_written_as_people_say_them():
    assert [duration(s) for s in (4.21, 187, 18720)] == ["4.2 s", "3:07 min", "5:12 h"]
    assert [rate_of(12_345_678, "bytes"), rate_of(45.2, "pictures"), rate_of(3, "")] == [
        "12.3 MB/s",
        "45 pictures/s",
        "",
    ]
