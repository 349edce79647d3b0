"""A crawl that was stopped at any instant goes on, and ends with the same records."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.crawl import state, warc
from tests.pipeline.crawl_web import (
    Web,
    arguments,
    crawl,
    files,
    is_sound,
    moved,
    page,
    records,
    rows,
)
from wit import storage


def shop(host: str, path: str) -> bytes | None:
    """A site of 200 pages with a redirect and a canonical duplicate here and there."""
    if path == "/":
        return page(*(f"/{n}" for n in range(1, 60)))
    if not path[1:].isdigit() or int(path[1:]) > 200:
        return None
    number = int(path[1:])
    if number % 17 == 0:
        return moved(f"/{number + 1}")
    canonical = f'<link rel=canonical href="/{number - 1}">' if number % 23 == 0 else ""
    return page(f"/{3 * number}", f"/{3 * number + 1}", head=canonical, title="x" * number)


OPTIONS = ("--warc-size", "9000", "--max-pages", "150")
SEEDS = "http://a.test/ http://b.test/"


@pytest.fixture
def short_rounds(monkeypatch):
    """Rounds of seven URLs of a host, so that a small crawl has many."""
    monkeypatch.setattr("pipeline.crawl.plan.BATCH", 7)


def settled(out: Path) -> tuple[list[tuple[str, ...]], list[dict], list[str]]:
    """What must be the same: records, the table without offsets, the files' names."""
    table = [{**row, "offset": row["offset"] is not None} for row in rows(out)]
    return records(out), table, [path.name for path in files(out)]


def test_two_crawls_write_the_same_records_in_the_same_order(tmp_path):
    with Web(shop) as server:
        crawl(server, tmp_path / "a", SEEDS, *OPTIONS, "--host-concurrency", "8")
        crawl(server, tmp_path / "b", SEEDS, *OPTIONS, "--host-concurrency", "8")
    assert settled(tmp_path / "a") == settled(tmp_path / "b")
    assert len(files(tmp_path / "a")) > 3


class Crash(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.usefixtures("short_rounds")
@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.long)])
def test_a_crash_between_any_two_writes_changes_nothing(tmp_path, monkeypatch, every):
    steps = [
        (storage, "write_table"),
        (storage, "write_json"),
        (warc.WarcFiles, "append"),
        (warc.WarcFiles, "flush"),
        (warc.WarcFiles, "finish"),
    ]
    left = [0]

    def crashing(real):
        def step(*args, **options):
            left[0] -= 1
            if left[0] == 0:
                raise Crash
            return real(*args, **options)

        return step

    small = ("--warc-size", "5000", "--max-pages", "40")
    with Web(shop) as server:
        crawl(server, tmp_path / "whole", SEEDS, *small)
        whole = settled(tmp_path / "whole")
        for owner, name in steps:
            monkeypatch.setattr(owner, name, crashing(getattr(owner, name)))
        crashes, at = 0, 1
        while True:
            out = tmp_path / f"crash-{at}"
            left[0] = at
            try:
                crawl(server, out, SEEDS, *small)
                break
            except Crash:
                crashes += 1
                left[0] = 0
                crawl(server, out, SEEDS, *small)
                assert settled(out) == whole, at
            at += every
    assert crashes >= 10
    assert is_sound(tmp_path / "whole")


def spawn(server: Web, out: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "wit.cli", "crawl", *arguments(server, out, SEEDS, *more)]
    environment = {**os.environ, "PYTHONHASHSEED": "random"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


SLOWLY = (*OPTIONS, "--host-rate", "80")


@pytest.mark.long
def test_killed_three_times_and_resumed_it_writes_the_same_records(tmp_path):
    rng = random.Random(7)
    with Web(shop) as server:
        crawl(server, tmp_path / "whole", SEEDS, *SLOWLY)
        killed = 0
        for _ in range(3):
            child = spawn(server, tmp_path / "out", *SLOWLY)
            folder = tmp_path / "out" / ".crawl"
            before = len(list(folder.glob("*.json")))
            deadline = time.monotonic() + 30
            while len(list(folder.glob("*.json"))) == before and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 0.5))
            if child.poll() is None:
                killed += 1
            child.kill()
            child.communicate()
        child = spawn(server, tmp_path / "out", *SLOWLY)
        said = child.communicate(timeout=60)
        assert child.returncode == 0, said
    assert killed == 3
    assert settled(tmp_path / "out") == settled(tmp_path / "whole")
    assert is_sound(tmp_path / "out")
    hidden = [p.name for p in (tmp_path / "out").rglob(".*") if p.name not in (".crawl", ".lock")]
    assert hidden == []


def test_ctrl_c_leaves_whole_files_and_the_same_command_goes_on(tmp_path):
    with Web(shop) as server:
        child = spawn(server, tmp_path / "out", *SLOWLY)
        deadline = time.monotonic() + 30
        while len(server.asked("a.test")) < 30 and time.monotonic() < deadline:
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=20)
        assert child.returncode == 130, said
        assert said.strip().splitlines()[-1].endswith("the same command goes on from here")
        assert "Traceback" not in said
        assert is_sound(tmp_path / "out")
        crawl(server, tmp_path / "out", SEEDS, *SLOWLY)
        crawl(server, tmp_path / "whole", SEEDS, *SLOWLY)
    assert settled(tmp_path / "out") == settled(tmp_path / "whole")


def test_a_crawl_that_is_done_is_left_as_it_is(tmp_path):
    with Web(shop) as server:
        facts = crawl(server, tmp_path, SEEDS, *OPTIONS)
        times = {path: path.stat().st_mtime_ns for path in files(tmp_path)}
        asked = len(server.log)
        assert crawl(server, tmp_path, SEEDS, *OPTIONS) == facts
        assert len(server.log) == asked
    assert {path: path.stat().st_mtime_ns for path in files(tmp_path)} == times


@pytest.mark.usefixtures("short_rounds")
def test_max_hours_stops_between_two_rounds_and_the_rest_waits(tmp_path):
    with Web(shop) as server:
        facts = crawl(server, tmp_path / "out", SEEDS, *OPTIONS, "--max-hours", "0.00003")
        assert not facts["complete"]
        assert facts["outcomes"]["waiting"] > 0
        assert facts["urls"] == sum(facts["outcomes"].values()) == len(rows(tmp_path / "out"))
        assert crawl(server, tmp_path / "out", SEEDS, *OPTIONS)["complete"]
        crawl(server, tmp_path / "whole", SEEDS, *OPTIONS)
    assert settled(tmp_path / "out") == settled(tmp_path / "whole")


def test_a_state_knows_after_a_start_what_it_knew_before(tmp_path):
    with Web(shop) as server:
        crawl(server, tmp_path, SEEDS, *OPTIONS)
    found = state.State(str(tmp_path))
    kept = [row for row in rows(tmp_path) if row["outcome"] == "fetched"]
    assert found.fetched == len(kept) == 150
    assert dict(zip(found.hosts, found.fetched_of.tolist(), strict=True)) == {
        host: sum(f"//{host}/" in row["url"] for row in kept) for host in ("a.test", "b.test")
    }
    waiting = {row["url"] for row in rows(tmp_path) if row["outcome"] == "over_pages"}
    pending = [place for places in found.pending.values() for place in places]
    assert set(found.urls_of(state.np.array(pending))) == waiting


def test_a_crash_before_the_last_file_has_its_name_is_made_good(tmp_path, monkeypatch):
    def crash(self):
        raise Crash

    with Web(shop) as server:
        with monkeypatch.context() as patch:
            patch.setattr(warc.WarcFiles, "finish", crash)
            with pytest.raises(Crash):
                crawl(server, tmp_path, "http://a.test/", "--max-pages", "20")
        assert files(tmp_path) == []
        crawl(server, tmp_path, "http://a.test/", "--max-pages", "20")
    assert len(files(tmp_path)) == 1
    assert sum(record[0] == "response" for record in records(tmp_path)) >= 20
