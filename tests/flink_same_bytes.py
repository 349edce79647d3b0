"""The demo's harvest on a real Flink writes the same bytes as on one machine, also after a crash.

    python -m tests.flink_same_bytes --up ../shared/tools/flink-up --cluster /tmp/flink

`--up DIR` starts a Flink cluster with two task managers in DIR (or what of it is not running),
leaves their process ids in DIR/taskmanager-1.pid and -2.pid, and prints the options by which Beam
reaches it; the task managers take their Python workers from the PATH. Three harvests are compared:
on one machine, on Flink, and on Flink with a task manager killed while pictures are fetched and
started again.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.demo import server, site
from tests.pipeline.demo_run import arguments, digests, run

PICTURES_UNDER_WAY = 3  # shards, when the task manager is killed


def start_cluster(up: str, cluster: str) -> list[str]:
    """Starts what does not run; Beam's options for it."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [up, cluster],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PATH": path, "WORKER_PATH": path},
    )
    return done.stdout.split()


def crash(up: str, cluster: str, command: list[str], out: Path) -> int:
    """Runs a harvest, kills a task manager in its middle and starts it again; its exit code."""
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while len(list(out.glob("shards/*.tar"))) < PICTURES_UNDER_WAY:
        if driver.poll() is not None:
            raise SystemExit("the harvest ended before a task manager could be killed")
        time.sleep(0.1)
    victim = int((Path(cluster) / "taskmanager-2.pid").read_text())
    os.kill(victim, signal.SIGKILL)
    print(f"killed task manager {victim} with {len(list(out.glob('shards/*.tar')))} shards done")
    time.sleep(3)
    start_cluster(up, cluster)
    return driver.wait()


def main() -> int:
    """Prints what was compared; 0 if all bytes are the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--up", required=True)
    parser.add_argument("--cluster", required=True)
    options = parser.parse_args()
    flink = start_cluster(options.up, options.cluster)
    with tempfile.TemporaryDirectory() as folder, server.child_server() as port:
        base = Path(folder)
        inputs = [*site.write_warcs(folder), site.write_table(folder)]
        queries = base / "queries.txt"
        import wordfreq

        queries.write_text("\n".join(wordfreq.top_n_list("en", 20_000)))

        def command(name: str, *more: str) -> list[str]:
            return arguments(inputs, str(queries), port, base / name, *more)

        started = time.monotonic()
        assert run(command("local")).returncode == 0
        print(f"one machine: {time.monotonic() - started:.0f} s")
        started = time.monotonic()
        done = run(command("flink", *flink))
        assert done.returncode == 0, done.stderr
        print(f"Flink: {time.monotonic() - started:.0f} s")
        code = crash(options.up, options.cluster, command("crash", *flink), base / "crash")
        assert code == 0
        expected = digests(base / "local")
        same = {name: digests(base / name) == expected for name in ("flink", "crash")}
    print(f"{len(expected)} files; the same bytes: {same}")
    return 0 if all(same.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
