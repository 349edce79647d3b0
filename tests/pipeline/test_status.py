"""`wit harvest status` says how a run stands, whatever became of it, and touches nothing."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline import harvest as harvesting
from pipeline import progress, session, status
from pipeline.fetch.slowest import SlowHost
from pipeline.progress import Heartbeat, announce
from pipeline.pulse import Pulse
from pipeline.run import Config, Run
from pipeline.stage_lines import StageRow
from pipeline.status_screen import render
from tests.pipeline.demo_run import run as command_of
from tests.script import ROOT, script
from wit import remote, storage
from wit.errors import UserError

STAGES = [("00-extract", "extract", "bytes"), ("12-fetch", "fetch 1", "pictures")]
SLOW = [SlowHost("slow.example", 40, 80.0, "crawl-delay 2 s")]
OWNER = "wit harvest a.csv (process {} on {}, since 2026-01-01 00:00:00 +0000)"


def make_run(out: str, **changes) -> Run:
    run = Run(out, Config(sources=[{"path": "a.csv"}], queries={"queries": 1}, **changes))
    run.save()
    return run


@pytest.fixture
def run(tmp_path) -> Run:
    return make_run(str(tmp_path / "out"))


@contextlib.contextmanager
def owned(run: Run, **limits):
    """A command that owns the folder and has told its stages; its record."""
    owner = storage.owner_text()
    with (
        storage.FolderLock(run.out, owner),
        session.recorded(run, owner, time.time() - 100, limits) as record,
    ):
        record.plan(STAGES)
        record.finish(StageRow("start", "start", record.session, 0, 2.5))
        record.finish(StageRow("00-extract", "extract", record.session, 7, 60.0, 2e6, "bytes"))
        record.save()
        yield record


def fetch(run: Run, record, outcomes: dict[str, int], hosts=SLOW) -> Heartbeat:
    """The stage `fetch` under way since 20 seconds: two lanes of four are half done."""
    announce(run, "12-fetch", record.session, 4, 4, time.time() - 20)
    beat = Heartbeat(run, "12-fetch", record.session, [0, 1])
    pulse = Pulse(lambda: hosts)
    for outcome, count in outcomes.items():
        for _ in range(count):
            pulse.see(outcome, 1_000_000)
    beat.due = 0.0
    for lane in (0, 1):
        beat.update(lane, 50, 100, 0.0, pulse if lane else None)
        beat.due = 0.0
    return beat


def fail(run: Run, error: BaseException, first=lambda record: None) -> None:
    """A command that does something first, and ends with an error."""

    def command() -> None:
        with owned(run) as record:
            first(record)
            raise error

    with pytest.raises(type(error)):
        command()


def screen(run: Run) -> str:
    return render(status.look(run.out))


# --- while it runs ----------------------------------------------------------------------------


def test_a_run_under_way_shows_its_stages_rates_failures_and_slowest_hosts(run):
    with owned(run, hours=1.0, bytes=10**9) as record:
        fetch(run, record, {"success": 60, "not_found": 30, "too_slow": 10})
        found = status.look(run.out)
        shown = render(found)
    assert found["state"] == "running"
    assert shown.startswith(f"{run.out}: running for 1:40 min, since ")
    assert f"(process {os.getpid()} on " in shown.splitlines()[0]
    assert "of 1 input and 1 query" in shown
    assert "extract                   7 tasks   1:00 min          2.0 MB/s" in shown
    assert "fetch 1               25% of 4 tasks" in shown
    lately = found["fetching"]
    assert (lately["pictures"], lately["successes"]) == (100, 60)
    assert lately["failures"] == {"not_found": 30, "too_slow": 10}
    assert lately["pictures_per_second"] == pytest.approx(5.0, rel=0.2)
    assert lately["bytes_per_second"] == pytest.approx(5e6, rel=0.2)
    assert "30   30%  not_found" in shown
    assert "slow.example                         40 pictures left    1:20 min  crawl-delay 2 s" in (
        shown
    )
    assert found["stage"]["left"] == 80.0
    assert "--max-hours 1: 58:" in shown
    assert "--max-bytes: 0% of 1.0 GB came" in shown
    assert found["disk_free"] > 0


def test_the_time_left_counts_what_this_session_did_and_no_less_than_the_slowest_host(run):
    with owned(run) as record:
        announce(run, "12-fetch", record.session, 100, 20, time.time() - 100)
        beat = Heartbeat(run, "12-fetch", record.session, list(range(20)))
        for lane in range(10):
            beat.update(lane, 1, 1)
        beat.finish(whole=False)
        # 10 of the 20 tasks in 100 s: as much again, though 90 of all 100 tasks are done.
        assert status.look(run.out)["stage"]["left"] == pytest.approx(100, rel=0.1)
        beat.pulses[0] = Pulse(lambda: [SlowHost("a.example", 9, 4000.0, "its rate")])
        beat._write(False)
        assert status.look(run.out)["stage"]["left"] == 4000.0


def test_a_worker_that_fetched_nothing_lately_says_so(run, monkeypatch):
    with owned(run) as record:
        beat = fetch(run, record, {"success": 9})
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3600)
        beat.update(0, 50, 100)
        assert "in the last 5:00 min nothing came" not in screen(run)
        found = status.look(run.out)
        assert found["fetching"]["pictures"] == 0
        assert "nothing came" in render(found)


def test_the_summary_of_a_run_is_a_step_of_its_own(run):
    with owned(run) as record:
        record.sum_up()
        assert "writing the summary and the report" in screen(run)


# --- after it has ended -----------------------------------------------------------------------


def test_an_empty_folder_is_no_harvest(tmp_path):
    for out in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="no harvest there"):
            status.look(str(out))
    done = command_of([sys.executable, "-m", "wit.cli", "harvest", "status", str(tmp_path)])
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "no harvest there" in done.stderr


def test_a_run_of_which_no_command_has_left_word_is_not_finished(run):
    assert "not finished: no command works on it" in screen(run)


def test_a_failed_run_says_when_and_why_without_what_a_terminal_would_obey(run):
    error = UserError("a.csv: no column\x1b[2J 'x'\nand more")
    fail(run, error, lambda record: fetch(run, record, {"not_found": 100}))
    shown = screen(run)
    assert ": not finished: failed at 20" in shown
    assert "a.csv: no column?[2J 'x' and more; the same command goes on from there" in shown
    assert "fetch 1               25% of 4 tasks" in shown
    assert " left\n" not in shown.partition("slowest")[0]


def test_a_failure_of_the_program_itself_is_a_failure(run):
    fail(run, ZeroDivisionError("division by zero"))
    assert "failed at" in screen(run)
    assert "ZeroDivisionError: division by zero" in screen(run)


def test_ctrl_c_and_a_limit_are_said_as_what_they_are(run):
    fail(run, KeyboardInterrupt())
    assert "not finished: stopped with Ctrl-C at" in screen(run)
    with owned(run) as record:
        record.stop("by --max-bytes, as asked")
    assert "not finished: stopped by --max-bytes, as asked, at" in screen(run)
    fail(run, UserError("no room"), lambda record: record.stop("by --max-bytes, as asked"))
    assert "not finished: failed at" in screen(run)


HOLD = """
import os, sys, time
from pipeline import session
from pipeline.run import load_run
from wit import storage
owner = storage.owner_text()
with storage.FolderLock(sys.argv[1], owner):
    with session.recorded(load_run(sys.argv[1]), owner, time.time(), {}):
        print("ready", flush=True)
        time.sleep(60)
"""


def test_a_killed_run_is_no_running_one(run):
    process = script(HOLD, run.out)
    assert process.stdout.readline() == "ready\n"
    assert status.look(run.out)["state"] == "running"
    assert ": running for" in screen(run)
    process.kill()
    process.wait()
    process.stdout.close()
    found = status.look(run.out)
    assert found["state"] == "killed"
    assert "not finished: killed at 20" in render(found)
    assert abs(found["seen"] - time.time()) < 60


def test_another_command_in_the_folder_is_named_beside_how_the_run_stands(run):
    fail(run, UserError("no such host"))
    with storage.FolderLock(run.out, OWNER.format(1, "there").replace("harvest", "shards")):
        shown = screen(run).splitlines()[0]
    assert "failed at" in shown
    assert shown.endswith("in use now by wit shards a.csv (process 1 on there)")


@pytest.mark.parametrize(("age", "state"), [(10, "running"), (1000, "out of sight")])
def test_an_owner_on_a_machine_out_of_sight_lives_as_long_as_there_are_signs_of_it(
    run, monkeypatch, age, state
):
    owner = OWNER.format(7, "far-away")
    session.Record(run, owner, time.time(), {})
    Path(run.path(".lock")).write_text(owner)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + age)
    found = status.look(run.out)
    assert found["state"] == state
    if age > 100:
        assert "no sign of life since" in render(found)
        assert "(process 7 on far-away)" in render(found)


# --- how it looks -----------------------------------------------------------------------------


def test_nothing_is_written_and_files_that_go_while_it_reads_are_no_error(run, monkeypatch):
    with owned(run) as record:
        beat = fetch(run, record, {"success": 60})
        before = {p: p.stat().st_mtime_ns for p in Path(run.out).rglob("*")}
        status.look(run.out)
        assert {p: p.stat().st_mtime_ns for p in Path(run.out).rglob("*")} == before
        ended = threading.Event()

        def write() -> None:
            while not ended.is_set():
                beat._write(False)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for _ in range(100):
                assert status.look(run.out)["stage"]["share"] == 0.25
        finally:
            ended.set()
            thread.join()
        names = storage.list_names
        monkeypatch.setattr(
            progress.storage, "list_names", lambda f: [*names(f), f"{record.session}.gone.json"]
        )
        assert status.look(run.out)["stage"]["share"] == 0.25


def test_a_remote_run_is_looked_at_with_few_reads_however_many_tasks_a_stage_has(monkeypatch):
    run = make_run("memory://status/out")
    monkeypatch.setattr(status, "MOST", 20)
    with owned(run) as record:
        announce(run, "12-fetch", record.session, 1000, 1000, time.time() - 100)
        for task in range(100):
            beat = Heartbeat(run, "12-fetch", record.session, [task])
            beat.update(task, 10, 10)
            beat.finish()
        reads = []
        read = remote.read_bytes
        monkeypatch.setattr(
            remote, "read_bytes", lambda path, *ends: reads.append(path) or read(path, *ends)
        )
        found = status.look(run.out)
    assert found["state"] == "running"
    assert found["stage"]["done"] == 100
    assert found["stage"]["units"] == 1000
    assert found["disk_free"] is None
    assert len(reads) < 20 + 10


def test_a_lease_that_was_not_renewed_is_that_of_a_killed_run(monkeypatch):
    run = make_run("memory://status/dead")
    with owned(run):
        assert status.look(run.out)["state"] == "running"
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 100)
        assert status.look(run.out)["state"] == "killed"


def test_json_is_the_same_for_programs_and_watch_ends_with_ctrl_c(run, capsys):
    assert harvesting.main(["status", run.out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "unknown"
    command = [sys.executable, "-m", "wit.cli", "harvest", "status", run.out, "--watch", "0.1"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        lines = [watching.stdout.readline() for _ in range(9)]
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=30)
    assert watching.returncode == 0
    assert said == ""
    assert sum("no command works on it" in line for line in lines) >= 2
