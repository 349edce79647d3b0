"""A worker of the harvest for 30 minutes on a web of which a tenth misbehaves: is anything growing?

    python -m benchmarks.soak [--minutes 30] [--host-rate 0.7]

What the harvest's fetch stage does in a worker: one Fetcher for LANES lanes at a time, each with
shard after shard of real pictures (benchmarks/pictures.py) from HOSTS hosts on loopback, through a
ShardWriter onto the disk. A tenth of the hosts, new ones in each shard, misbehave, in another way
each (WAYS in benchmarks/soak_web.py: hangs, drips, resets, lies, bombs, redirects, certificates,
invalid HTTP, ...). Hosts are asked at a rate that leaves most of a core idle. The limits of time
are shorter than the defaults, so that more goes wrong.

A line a minute, then the verdict as JSON; the exit code is 1 where something is not flat. The last
third is compared with the second (the first fills caches and pools):

    rate     pictures a second: at least 90 %. It is set by the hosts' rate; what is left is which
             ways to misbehave fall into a third.
    memory   proportional memory of all processes, medians: at most 5 % more. Of a leak of two
             kilobytes a picture ten minutes leave more than that.
    files, threads, tasks   open files of all processes, threads, tasks on the event loop: at most a
             tenth and five more. They go up and down with the hosts that hang.

Minutes in which the event loop waited for a processor for more than BUSY of the time say nothing of
all these but the memory: they are left out.

Also: every picture of a host that behaves is a success (unless a minute was busy), and nothing is
an `internal_error` or the death of a decoder.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import descendants, proportional_memory
from benchmarks.fetch_worker import AGENT, rows_of
from benchmarks.soak_web import PICTURES, TRUSTED, WAYS
from pipeline.fetch import Fetcher, FetchPolicy, HostRule, HostRules
from tests.faulty import CERTIFICATE
from wit import shards

HERE = Path(__file__).resolve().parent
HOSTS, BAD = 50, 5
PER_HOST = 20  # pictures of a host in a shard
LANES = 3
SAMPLED_EVERY = 5.0  # seconds
BUSY = 0.25
LOOPBACK = "127.0.0.1"
FAULTS = ("internal_error", "decoder_crashed", "decoder_timeout", "decoder_out_of_memory")
MEASURED = ("memory", "files", "threads", "tasks")
# name -> (the least, the most that the last third may be of the second, and how much beyond that)
LIMITS = {
    "rate": (0.9, float("inf"), 0.0),
    "memory": (0.0, 1.05, 0.0),
    **dict.fromkeys(("files", "threads", "tasks"), (0.0, 1.1, 5.0)),
}


def look_up(host: str) -> list[str]:
    """Stands in for the name server: all names of the soak are on loopback."""
    if host.endswith(".soak.test"):
        return [LOOPBACK]
    raise socket.gaierror(socket.EAI_NONAME, "no such name")


class Soak:
    """A Fetcher, the lanes that use it, and what has become of their pictures."""

    def __init__(self, ports: dict[str, int], folder: Path, host_rate: float) -> None:
        self.folder, self.ports = folder, ports
        self.ports |= dict.fromkeys(("no tls", "no name"), ports["http"])
        authority = folder / "authority.pem"
        authority.write_text(CERTIFICATE)
        self.good = [f"host{number:02d}.soak.test" for number in range(HOSTS - BAD - 1)]
        policy = FetchPolicy(
            AGENT,
            host_rate=host_rate,
            allow_addresses=tuple(f"{LOOPBACK}:{port}" for port in set(ports.values())),
            resolve=dict.fromkeys([*self.good, TRUSTED], LOOPBACK),
            ca_file=str(authority),
            connect_seconds=2.0,
            read_seconds=2.0,
            slow_seconds=2.0,
            total_seconds=6.0,
            host_rest=5.0,
            retries=1,
            max_bytes=5_000_000,
            shard_seconds=120.0,
        )
        self.fetcher = Fetcher(policy, look_up)
        self.outcomes: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()  # what became of pictures of hosts that behave
        self.shards = 0
        self.fault: BaseException | None = None
        self._ids = itertools.count()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._lanes = [threading.Thread(target=self._lane, name="lane") for _ in range(LANES)]

    def start(self) -> None:
        """Starts the lanes."""
        for lane in self._lanes:
            lane.start()

    def stop(self) -> None:
        """Ends the lanes, in the middle of their shards, and the Fetcher."""
        self._over.set()
        for lane in self._lanes:
            lane.join()
        self.fetcher.close()

    def tasks(self) -> int:
        """How many tasks the event loop has."""
        loop = self.fetcher._loop
        return len(asyncio.all_tasks(loop)) if loop else 0

    def waited(self) -> float:
        """Seconds that the event loop's thread has waited for a processor (Linux)."""
        thread = self.fetcher._thread
        if thread is None:
            return 0.0
        told = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text()
        return int(told.split()[1]) / 1e9

    def _urls(self, shard: int) -> tuple[list[str], int]:
        """A shard's URLs, those of hosts that behave first, and how many these are."""
        good = [f"http://{name}:{self.ports['http']}" for name in self.good]
        good.append(f"https://{TRUSTED}:{self.ports['tls']}")
        numbers = ((shard * PER_HOST + i) % PICTURES for i in range(PER_HOST))
        names = [f"{number:05d}.jpg" for number in numbers]
        urls = [f"{origin}/picture/{name}" for name in names for origin in good]
        well = len(urls)
        ways = list(WAYS.items())
        for i in range(BAD):
            _, (server, path) = ways[(shard * BAD + i) % len(ways)]
            port = self.ports[server]
            scheme = "http" if server in ("http", "no name") else "https"
            name = f"bad{i}-{shard}.soak.{'example' if server == 'no name' else 'test'}"
            for each in range(PER_HOST):
                number = f"{i}-{shard}-{each}"
                fresh = f"new{number}.soak.test:{port}"
                at = path.replace("{number}", number).replace("{fresh}", fresh)
                urls.append(f"{scheme}://{name}:{port}{at}")
        return urls, well

    def _rules(self, urls: list[str]) -> HostRules:
        """A table that allows all; the hosts that redirects lead to are not in it."""
        origins = {url[: url.index("/", 8)] for url in urls}
        return HostRules({origin: HostRule("allow_all") for origin in sorted(origins)})

    def _lane(self) -> None:
        try:
            while not self._over.is_set():
                self._fetch_shard(next(self._ids))
        except BaseException as fault:
            self.fault = self.fault or fault

    def _fetch_shard(self, number: int) -> None:
        urls, good = self._urls(number)
        place = str(self.folder / "shards")
        with shards.ShardWriter(place, number, rows_of(urls), attempt="soak") as writer:
            for fetched in self.fetcher.run(urls, self._rules(urls)):
                with self._lock:
                    self.outcomes[fetched.outcome] += 1
                    if fetched.index < good and fetched.outcome != "success":
                        self.lost[fetched.outcome] += 1
                writer.add(fetched)
                if self._over.is_set():
                    return
            writer.commit({})
        for path in (self.folder / "shards").glob(f"{writer.name}*"):
            path.unlink()
        self.shards += 1


def sample(soak: Soak, server: int) -> dict[str, float]:
    """What is measured at one moment, without the server's processes."""
    own = os.getpid()
    processes = {own, *descendants(own)} - {server, *descendants(server)}
    files = 0
    for process in processes:
        try:
            files += len(os.listdir(f"/proc/{process}/fd"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    memory = proportional_memory(own) - proportional_memory(server)
    threads = len(os.listdir(f"/proc/{own}/task"))
    return {"memory": memory, "files": files, "threads": threads, "tasks": soak.tasks()}


def watch(soak: Soak, server: int, minutes: int) -> Iterator[dict[str, Any]]:
    """Yields what was measured in each minute: medians of the samples, counts of what came."""
    end = time.monotonic()
    for minute in range(1, minutes + 1):
        start, end = end, end + 60
        before, waited = soak.outcomes.copy(), soak.waited()
        samples = []
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(SAMPLED_EVERY, left))
            samples.append(sample(soak, server))
            if soak.fault is not None:
                raise soak.fault
        came = soak.outcomes - before
        found: dict[str, Any] = {"minute": minute}
        seconds = time.monotonic() - start
        found["rate"] = round(came["success"] / seconds, 2)
        found["waited"] = round((soak.waited() - waited) / seconds, 3)
        for name in MEASURED:
            found[name] = statistics.median(each[name] for each in samples)
        found["outcomes"] = dict(sorted(came.items()))
        yield found


def judge(minutes: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns for each measured name its second and last third, and whether it is `flat`."""
    third = len(minutes) // 3
    second, last = minutes[third : 2 * third], minutes[-third:]
    found = {}
    for name, (least, most, beyond) in LIMITS.items():
        parts = (second, last)
        if name != "memory":
            parts = tuple([each for each in part if each["waited"] <= BUSY] for part in parts)
        if not all(parts):
            found[name] = {"flat": False, "message": "the machine was too busy to tell"}
            continue
        middle = statistics.mean if name == "rate" else statistics.median
        before, after = (middle(each[name] for each in part) for part in parts)
        flat = least * before <= after <= most * before + beyond
        found[name] = {"second third": before, "last third": after, "flat": flat}
    return found


def line(found: dict[str, Any]) -> str:
    """A minute in words."""
    counts = ", ".join(f"{n} {name}" for name, n in found["outcomes"].items())
    return (
        f"minute {found['minute']}: {found['rate']:.1f} pictures/s, "
        f"{found['memory'] / 1e6:.1f} MB, {found['files']:.0f} files, "
        f"{found['threads']:.0f} threads, {found['tasks']:.0f} tasks, "
        f"{found['waited']:.0%} waited for a processor; {counts}"
    )


def main() -> int:
    """Prints a line a minute and the verdict; 1 where something is not flat."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=int, default=30, help="at least 3")
    parser.add_argument("--host-rate", type=float, default=0.7, help="requests a second to a host")
    options = parser.parse_args()
    if options.minutes < 3:
        parser.error("--minutes: thirds of less than 3 minutes say nothing")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "shards").mkdir()
        command = [sys.executable, "-m", "benchmarks.soak_web", str(folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, cwd=HERE.parent, **pipes) as server:
            assert server.stdout is not None
            soak = Soak(json.loads(server.stdout.readline()), folder, options.host_rate)
            soak.start()
            minutes = []
            try:
                for found in watch(soak, server.pid, options.minutes):
                    minutes.append(found)
                    print(line(found), flush=True)
            finally:
                soak.stop()
                server.communicate(b"")
    measured = judge(minutes)
    faults = {name: soak.outcomes[name] for name in FAULTS if soak.outcomes[name]}
    flat = all(entry["flat"] for entry in measured.values())
    verdict = {"flat": flat, "measured": measured, "minutes": options.minutes}
    verdict |= {"shards": soak.shards, "lost": dict(soak.lost), "faults": faults}
    verdict |= {"outcomes": dict(sorted(soak.outcomes.items())), "each minute": minutes}
    print(json.dumps(verdict))
    busy = any(each["waited"] > BUSY for each in minutes)
    return 0 if flat and not faults and (busy or not soak.lost) else 1


if __name__ == "__main__":
    sys.exit(main())
