"""`wit harvest status` of whole harvests, at each of their steps and ends."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import status
from pipeline.status_screen import render
from tests.faulty import FIXED, FaultyServer, answer, picture
from tests.pipeline.demo_run import manifest
from tests.pipeline.demo_run import run as command_of
from tests.script import ROOT

BROKEN = """
import sys
from pipeline.fetch import pool
from wit import cli
pool.DECODER = "tests.broken_codec"
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_finished_run_says_what_it_has(finished):
    found = status.look(str(finished))
    shown = render(found)
    assert found["state"] == "finished"
    assert found["pictures"] == manifest(finished)["totals"]["successes"]
    tars = len(list((finished / "shards").glob("*.tar")))
    assert found["shards"]["standing"] == found["shards"]["planned"] == tars
    assert f"{found['pictures']:,} pictures in {tars} shards" in shown.splitlines()[0]
    rows = {row["name"]: row for row in found["stages"]}
    assert {"start", "extract", "robots 1", "pilot 1", "fetch 3", "coverage", "summary"} <= set(
        rows
    )
    assert [*rows][:: len(rows) - 1] == ["start", "summary"]
    took = sum(row["seconds"] for row in rows.values())
    assert took == pytest.approx(found["ended"] - found["began"], rel=0.05)
    heartbeats = [json.loads(p.read_text()) for p in finished.glob("progress/*-fetch/*.0*.json")]
    came = sum(sum(m["outcomes"].values()) for beat in heartbeats for m in beat.get("minutes", []))
    assert came > 0
    assert json.loads(json.dumps(found))["stage"] is None


@pytest.mark.long
def test_a_harvest_says_how_it_stands_from_its_first_step_to_a_failure(tmp_path, monkeypatch):
    monkeypatch.setitem(FIXED, "/ok.webp", answer(picture(kind="WEBP"), "image/webp"))
    hosts = [*(f"shop{i}.example" for i in range(120)), "slow.example"]
    with FaultyServer() as server:
        server.robots["slow.example"] = b"User-agent: *\nCrawl-delay: 20\n"
        rows = [f"http://{host}/ok.webp,a red dress" for host in hosts]
        rows += [f"http://{host}/status/404?{i},a red dress" for i, host in enumerate(hosts[:60])]
        rows += [f"http://slow.example/slow-ok/?{i},a red dress" for i in range(9)]
        (tmp_path / "in.csv").write_text("\n".join(["url,text", *rows]))
        (tmp_path / "queries.txt").write_text("dress\n")
        out = tmp_path / "out"
        arguments = [
            *("harvest", str(tmp_path / "in.csv"), "--queries", str(tmp_path / "queries.txt")),
            *("--out", str(out), "--contact", "test@example.org", "--workers", "1", "--lanes", "1"),
            *("--waves", "1", "--host-rate", "0", "--retries", "0", "--no-tdmrep"),
            *(f"--allow-address={server.address}", "--wave-hours", "24"),
            *(f"--resolve={host}:{server.address}" for host in hosts),
        ]
        done = command_of([sys.executable, "-m", "wit.cli", *arguments, "--until", "select"])
        assert done.returncode == 0, done.stderr
        shown = render(status.look(str(out)))
        assert "not finished: stopped after select, as asked, at" in shown
        assert "select 1" in shown

        command = [sys.executable, "-m", "wit.cli", *arguments]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, cwd=ROOT, **quiet) as running:
            try:
                found = wait_for_fetching(out)
            finally:
                running.kill()
        assert found["state"] == "running"
        assert found["stage"]["name"] in ("pilot 1", "fetch 1")
        assert found["fetching"]["failures"] == {"not_found": 60}
        assert found["fetching"]["hosts"][0]["host"] == "slow.example"
        assert found["fetching"]["hosts"][0]["why"] == "crawl-delay 20 s"
        assert found["fetching"]["hosts"][0]["seconds"] > 100
        assert "select 1                  1 tasks" in render(found)
        assert status.look(str(out))["state"] == "killed"

        done = command_of([sys.executable, "-c", BROKEN, *arguments])
        assert done.returncode == 2, done.stderr
        found = status.look(str(out))
        assert found["state"] == "failed"
        assert "undecodable" in found["said"]
        assert found["said"] in done.stderr


def wait_for_fetching(out: Path) -> dict:
    """What is known once all but the slow host's pictures have come."""
    for _ in range(600):
        found = status.look(str(out))
        lately = found["fetching"] or {"pictures": 0, "hosts": []}
        if lately["pictures"] >= 180 and lately["hosts"]:
            return found
        time.sleep(0.1)
    raise AssertionError(f"nothing was fetched: {found}")
