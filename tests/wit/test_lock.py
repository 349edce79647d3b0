"""One run at a time owns an output folder, and a dead one does not keep it."""

import os
import signal
import threading
import time
import uuid

import pytest

from tests.script import script
from wit import lock, storage
from wit.errors import FolderInUse

OWNER = """
import os, sys, time
from wit import storage
with storage.FolderLock(sys.argv[1], "wit harvest of host A", renew=0.2, dead=2.0):
    if sys.argv[2] == "forks" and os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
    if sys.argv[2] != "forks":
        print("owned", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["plain", "forks"])
def test_a_second_owner_is_refused_by_name_and_a_killed_one_frees_the_folder(tmp_path, kind):
    out = str(tmp_path / "out")
    owner = script(OWNER, out, kind)
    try:
        said = owner.stdout.readline().strip()
        with pytest.raises(FolderInUse, match="in use by wit harvest of host A; wait until"):
            storage.FolderLock(out).__enter__()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        with storage.FolderLock(out, "the next") as mine:
            mine.check()
            if kind == "forks":
                os.kill(int(said), 0)  # the owner's child lives on and does not hold the lock
    finally:
        owner.kill()
        if kind == "forks":
            os.kill(int(said), signal.SIGKILL)


def test_a_folder_is_free_after_its_owner_ends(base):
    for _ in range(2):
        with (
            storage.FolderLock(base, "first", renew=0.1, dead=1.0),
            pytest.raises(FolderInUse, match="first"),
        ):
            storage.FolderLock(base, "second", renew=0.1, dead=1.0).__enter__()


def test_a_lease_whose_owner_was_killed_is_taken_over(s3):
    out = f"{s3}/{uuid.uuid4().hex}"
    owner = script(OWNER, out, "plain")
    try:
        assert owner.stdout.readline() == "owned\n"
        with pytest.raises(FolderInUse, match="host A"):
            storage.FolderLock(out, renew=0.2, dead=2.0).__enter__()
        owner.kill()
        owner.wait()
        with pytest.raises(FolderInUse, match="a killed run frees it after 2 s"):
            storage.FolderLock(out, renew=0.2, dead=2.0).__enter__()
        time.sleep(2.1)
        with storage.FolderLock(out, "the next", renew=0.2, dead=2.0) as mine:
            mine.check()
    finally:
        owner.kill()


def test_a_lease_that_is_renewed_stands_although_its_owner_s_clock_is_an_hour_behind(monkeypatch):
    out = f"memory://{uuid.uuid4().hex}"
    stop = threading.Event()

    def renew(beat: int) -> None:
        lease = {"owner": "alive", "token": "1", "beat": beat, "time": time.time() - 3600}
        storage.write_json(f"{out}/.lock", lease)

    def keep() -> None:
        beat = 0
        while not stop.wait(0.15):
            beat += 1
            renew(beat)

    taken: list[str] = []
    monkeypatch.setattr(lock._Lease, "_write", lambda lease: taken.append(lease.owner))
    renew(0)
    thread = threading.Thread(target=keep)
    thread.start()
    try:
        with pytest.raises(FolderInUse, match="alive"):
            storage.FolderLock(out, renew=0.3, dead=2.0).__enter__()
    finally:
        stop.set()
        thread.join()
    assert taken == []


def test_an_owner_that_lost_its_lease_is_told():
    out = f"memory://{uuid.uuid4().hex}"
    with storage.FolderLock(out, "first", renew=0.05, dead=0.5) as mine:
        mine.check()
        storage.write_json(f"{out}/.lock", {"owner": "second", "token": "x", "time": time.time()})
        time.sleep(0.3)
        with pytest.raises(FolderInUse, match="another one took the folder over"):
            mine.check()
    assert storage.read_json(f"{out}/.lock")["owner"] == "second"
