"""Heartbeats add up to a stage's state; a worker's error comes out as its one line."""

import io

from pipeline import monitor, progress
from pipeline.progress import Heartbeat, announce, read_stage
from pipeline.run import Config, Run
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


def test_a_workers_user_error_is_found_in_what_the_runner_makes_of_it():
    runner = RuntimeError(
        "Traceback (most recent call last):\n  File ...\n"
        "wit.errors.DiskFull: out/x: cannot write: No space left; free space there, then run the "
        "same command again to resume [while running '00-extract: do']\n"
    )
    found = monitor.explained(runner)
    assert isinstance(found, UserError)
    assert str(found).startswith("out/x: cannot write")
    assert str(found).endswith("to resume")
    fault = KeyError("ours")
    assert monitor.explained(fault) is fault


def test_where_there_is_no_terminal_progress_is_seldom_and_plain():
    with Screen() as screen:
        screen.out, screen.live = io.StringIO(), False
        screen.now("begun")
        screen.due = 0.0  # the pause is over
        for _ in range(100):
            screen.now("half way")
        screen.done("done")
        assert screen.out.getvalue() == "half way\ndone\n"


def test_numbers_are_written_as_people_say_them():
    assert [duration(s) for s in (4.21, 187, 18720)] == ["4.2 s", "3:07 min", "5:12 h"]
    assert [rate_of(12_345_678, "bytes"), rate_of(45.2, "pictures"), rate_of(3, "")] == [
        "12.3 MB/s",
        "45 pictures/s",
        "",
    ]
