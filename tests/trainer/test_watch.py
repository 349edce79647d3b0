"""One rank's end is every rank's, within a minute and with its message, without torchrun's help."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip("torch", reason="the trainer's install has torch: [train]")


GONE = 8.0  # seconds of silence, instead of 40


def start(how: str, ranks: int = 3) -> list[subprocess.Popen]:
    """Ranks as Slurm starts them: no process looks after them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(ranks):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
        environment = {**os.environ, **{key: str(value) for key, value in place.items()}}
        command = [sys.executable, "-m", "tests.trainer.failing_rank", how, str(GONE)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, env=environment, **pipes))
    return processes


def ends(processes: list[subprocess.Popen], within: float) -> list[str]:
    """What each said; all must end within so many seconds."""
    until = time.monotonic() + within
    try:
        return [p.communicate(timeout=max(0.1, until - time.monotonic()))[1] for p in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize(
    ("how", "message", "code"),
    [
        ("user error", "rank 1: 00001.tar: cut off; harvest it again", 2),
        ("bug", "ZeroDivisionError: a bug", 1),
    ],
)
def test_an_exception_of_one_rank_ends_all_with_its_message(how, message, code):
    processes = start(how)
    assert processes[1].stdout.readline() == "met\n"
    said = ends(processes, 60)
    assert all(message in lines for lines in said)
    assert [process.returncode for process in processes] == [1, code, 1]
    assert ("Traceback" in said[1]) == (how == "bug")
    assert "Traceback" not in said[0]


def test_a_rank_of_which_nothing_is_heard_ends_all():
    """Stopped, so that not even its connections close, as when a machine loses its network."""
    processes = start("silent")
    assert processes[1].stdout.readline() == "met\n"
    processes[1].send_signal(signal.SIGSTOP)
    try:
        said = ends([processes[0], processes[2]], 20 + GONE)
    finally:
        processes[1].kill()
        processes[1].wait()
    assert all("rank 1: no sign of life" in lines for lines in said)
