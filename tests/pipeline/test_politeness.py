"""A whole harvest by two workers and four lanes, seen from the log of the servers it visits.

With Beam's options for a cluster in WIT_CLUSTER (as those that ../shared/tools/flink-up prints) the
harvest is made there.
"""

import csv
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.faulty import FaultyServer

RATE, AT_ONCE, LANES = 10.0, 2, 4
LATE = 0.06  # seconds that a request may take to the log, on a busy machine
SMALL = [f"small{number}.test" for number in range(6)]
HOSTS = [*SMALL, "big.test", "slow.test", "busy.test", "from.test", "target.test", "cdn.test"]


def above_rate(times: list[float], rate: float) -> float:
    """By how many requests a log goes above its rate: the worst of all stretches of time.

    A stretch from one request to a later one may hold the first and rate x seconds more.
    """
    return max(
        (later - first - rate * (times[later] - times[first]))
        for first in range(len(times))
        for later in range(first, len(times))
    )


def rows_of(server: FaultyServer) -> list[str]:
    """URLs of every kind: small hosts and a big one, redirects across hosts, what is forbidden."""

    def url(host: str, path: str) -> str:
        return f"http://{host}:{server.port}{path}"

    rows = [url(host, f"/slow-ok/{number}") for host in SMALL for number in range(6)]
    rows += [url("big.test", f"/slow-ok/{number}") for number in range(60)]
    rows += [url("slow.test", f"/slow-ok/{number}") for number in range(5)]
    rows += [url("busy.test", path) for path in ("/busy/2", "/slow-ok/1", "/slow-ok/2")]
    rows += [url("target.test", f"/slow-ok/{number}") for number in range(15)]
    for there in ("target.test", "cdn.test"):
        for host in ("from.test", *SMALL[:3]):
            rows += [url(host, f"/to?{url(there, f'/slow-ok/{host}-{n}')}") for n in range(2)]
    rows += [url(host, "/private/ok.jpg") for host in HOSTS]
    return [*rows, url("from.test", f"/to?{url('cdn.test', '/private/ok.jpg')}")]


def harvest(server: FaultyServer, folder: Path, *options: str) -> dict[str, str]:
    """The outcomes by URL of a harvest; `options` are further ones, as of a cluster's runner."""
    server.robots["slow.test"] = b"User-agent: *\nCrawl-delay: 0.5\nDisallow: /private\n"
    with open(folder / "pairs.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("url", "caption"))
        rows = rows_of(server)
        writer.writerows((row, f"a red dress {number}") for number, row in enumerate(rows))
    (folder / "queries.txt").write_text("red dress\n")
    command = [
        *(sys.executable, "-m", "wit.cli", "harvest", str(folder / "pairs.csv")),
        *("--queries", str(folder / "queries.txt"), "--out", str(folder / "out")),
        *("--contact", "test@example.org", "--lanes", str(LANES), "--shard-size", "20"),
        *("--waves", "1", "--host-rate", str(RATE), "--host-concurrency", str(AT_ONCE)),
        *(f"--allow-address={server.address}", "--timeout", "20", "--placeholder-urls", "0"),
        *(f"--resolve={host}:127.0.0.1" for host in HOSTS),
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    samples = {}
    for path in (folder / "out" / "shards").glob("*.parquet"):
        for row in pq.read_table(path, columns=["url", "outcome"]).to_pylist():
            samples[row["url"]] = row["outcome"]
    return samples


@pytest.fixture(scope="module")
def visited(tmp_path_factory):
    """The server after the harvest, and the samples by URL."""
    where = os.environ.get("WIT_CLUSTER", "--workers 2").split()
    with FaultyServer() as server:
        yield server, harvest(server, tmp_path_factory.mktemp("harvest"), *where)


def times_of(server: FaultyServer, host: str) -> list[float]:
    return sorted(moment for moment, name, _ in server.log if name == host)


@pytest.mark.long
def test_every_pair_has_its_outcome_and_only_what_is_forbidden_is_missing(visited):
    server, samples = visited
    rows = rows_of(server)
    assert set(samples) == set(rows)
    assert Counter(samples.values()) == {
        "success": len(rows) - len(HOSTS) - 1,
        "robots_disallowed": len(HOSTS) + 1,
    }


@pytest.mark.long
def test_no_host_is_asked_faster_than_its_rate_over_all_lanes_and_workers(visited):
    server, _ = visited
    redirected = {"target.test": 1, "cdn.test": 1}  # a lane that owns it and one that was led to it
    for host in HOSTS:
        excess = above_rate(times_of(server, host), RATE)
        assert excess <= RATE * LATE + redirected.get(host, 0), host
    assert above_rate(times_of(server, "slow.test"), 2.0) <= 2.0 * LATE


@pytest.mark.long
def test_no_host_meets_more_requests_at_once_than_allowed(visited):
    server, _ = visited
    for host in (*SMALL, "big.test", "slow.test", "busy.test", "from.test"):
        assert server.most_at_once[host] <= AT_ONCE, host
    for host in ("target.test", "cdn.test"):
        assert server.most_at_once[host] <= AT_ONCE + 1, host


@pytest.mark.long
def test_what_was_asked_for_is_what_the_rules_allow_and_the_rules_come_first(visited):
    server, _ = visited
    assert not [path for _, _, path in server.log if path.startswith("/private")]
    for host in HOSTS:
        paths = server.paths(host)
        assert paths[:2] == ["/robots.txt", "/.well-known/tdmrep.json"], host
    # Of a planned host they are asked once; of a redirect's target once in each process, too.
    for host in (*SMALL, "big.test", "slow.test", "busy.test", "from.test"):
        assert Counter(server.paths(host))["/robots.txt"] == 1
    for host in ("target.test", "cdn.test"):
        assert Counter(server.paths(host))["/robots.txt"] <= 3


@pytest.mark.long
def test_a_wish_to_be_left_alone_is_kept_by_all(visited):
    server, _ = visited
    asked = [(moment, path) for moment, host, path in server.log if host == "busy.test"]
    refused = next(moment for moment, path in asked if path == "/busy/2")
    later = [moment for moment, _ in asked if moment > refused + LATE]
    assert later
    assert min(later) >= refused + 2.0 - LATE
