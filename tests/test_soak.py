"""What a soak calls flat, and that it measures a worker at work."""

import json
import subprocess
import sys

import pytest

from benchmarks import soak
from benchmarks.soak import judge
from tests.script import ROOT


def _minutes(**changes) -> list[dict]:
    """30 flat minutes, or with changes by the minute: name -> what is added each minute."""
    flat = {"rate": 30.0, "waited": 0.01, "memory": 400e6, "files": 100, "threads": 15, "tasks": 8}
    return [
        {name: value + changes.get(name, 0) * minute for name, value in flat.items()}
        for minute in range(30)
    ]


def _not_flat(minutes: list[dict]) -> set[str]:
    return {name for name, found in judge(minutes).items() if not found["flat"]}


def test_flat_minutes_are_flat():
    assert _not_flat(_minutes()) == set()


@pytest.mark.parametrize(
    ("name", "a_minute"),
    [("rate", -0.4), ("memory", 3e6), ("files", 2), ("threads", 1), ("tasks", 1)],
)
def test_what_grows_or_falls_minute_by_minute_is_named(name, a_minute):
    assert _not_flat(_minutes(**{name: a_minute})) == {name}


def test_two_kilobytes_lost_with_each_picture_are_named():
    assert _not_flat(_minutes(memory=30 * 60 * 2048)) == {"memory"}


def test_the_rate_of_minutes_without_a_processor_says_nothing():
    minutes = _minutes()
    minutes[-1] |= {"rate": 1.0, "waited": 0.5}
    assert _not_flat(minutes) == set()
    for minute in minutes[20:]:
        minute["waited"] = 0.5
    assert judge(minutes)["rate"] == {"flat": False, "message": "the machine was too busy to tell"}


@pytest.mark.long
def test_a_soak_of_three_minutes_measures_a_worker_and_leaves_nothing_running(shared_data):
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    *lines, verdict = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["minute 1", "minute 2", "minute 3"]
    found = json.loads(verdict)
    assert set(found["measured"]) == set(soak.LIMITS)
    assert found["outcomes"]["success"] > 1000
    assert len(found["outcomes"]) > 10
    assert not found["faults"]
    assert done.stderr == ""
