"""One run at a time owns an output folder, and a dead owner does not keep it.

A local folder: flock(2) on `OUT/.lock`, which holds the owner's text; the kernel frees it with its
owner. A remote folder, and a local file system without flock: a lease, that is a JSON file
`OUT/.lock` that its owner renews every `renew` seconds and that is dead after `dead` seconds.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import sys
import threading
import time
from typing import Any

from wit import remote
from wit.errors import FolderInUse, NotAllowed, StorageError

BUSY = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}

_held: set[int] = set()


def _close_in_child() -> None:
    # A forked worker shares the lock and would keep it when its parent is killed.
    for handle in _held:
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


def owner_text() -> str:
    """Who runs this: host, process, start and command, for the message that a second run gets."""
    started = time.strftime("%Y-%m-%d %H:%M:%S %z")
    command = " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]])
    return f"{command} (process {os.getpid()} on {socket.gethostname()}, since {started})"


class FolderLock:
    """`with FolderLock(out):` owns the folder `out`, local or remote, or raises FolderInUse.

    `check()` raises if a lease was lost meanwhile (this process slept longer than `dead` and
    another run took the folder over).
    """

    def __init__(
        self, out: str, owner: str | None = None, *, renew: float = 10.0, dead: float = 60.0
    ) -> None:
        """`renew` and `dead` in seconds, for leases; equal for all runs on one folder."""
        self.out = out
        self.owner = owner or owner_text()
        self.renew, self.dead = renew, dead
        self._handle: int | None = None
        self._lease: _Lease | None = None

    def __enter__(self) -> "FolderLock":
        if "://" in self.out and not self.out.startswith("file://"):
            self._take_lease(self.out)
            return self
        folder = self.out.removeprefix("file://") or "."
        try:
            os.makedirs(folder, exist_ok=True)
            self._flock(os.path.join(folder, ".lock"), folder)
        except PermissionError as error:
            raise NotAllowed(
                f"{folder}: cannot write: permission denied; give this user the rights, or choose "
                "another --out"
            ) from error
        except OSError as error:
            raise StorageError(
                f"{folder}: cannot be used as the output folder: {os.strerror(error.errno or 0)}; "
                "choose another --out, or free space and run the same command again"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, 0)
            _held.discard(self._handle)
            os.close(self._handle)
            self._handle = None
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def check(self) -> None:
        """Raises FolderInUse if another run has taken the folder over."""
        if self._lease is not None and self._lease.lost:
            raise FolderInUse(
                f"{self.out}: this run stood still for over {self.dead:.0f} s and another one took "
                "the folder over; let that one finish"
            )

    def _flock(self, path: str, folder: str) -> None:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            text = os.pread(handle, 4096, 0).decode("utf-8", "replace").strip()
            os.close(handle)
            if error.errno in UNSUPPORTED:
                self._take_lease(f"file://{os.path.abspath(folder)}")
                return
            if error.errno in BUSY:
                raise _in_use(self.out, text) from None
            raise
        os.ftruncate(handle, 0)
        os.pwrite(handle, self.owner.encode("utf-8"), 0)
        _held.add(handle)
        self._handle = handle

    def _take_lease(self, out: str) -> None:
        self._lease = _Lease(out, self.owner, self.renew, self.dead)


class _Lease:
    """A lock file that says when it was renewed, kept fresh by a thread."""

    def __init__(self, out: str, owner: str, renew: float, dead: float) -> None:
        self.path = f"{out.rstrip('/')}/.lock"
        self.out, self.owner, self.renew, self.dead = out, owner, renew, dead
        self.token = secrets.token_hex(8)
        self.beat = 0
        self.lost = False
        if not remote.write_new(self.path, self._text()):
            self._take_over()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="wit-lease", daemon=True)
        self._thread.start()

    def _text(self) -> bytes:
        fields = {"owner": self.owner, "token": self.token, "beat": self.beat, "time": time.time()}
        return json.dumps(fields).encode("utf-8")

    def _write(self) -> None:
        with remote.open_write(self.path) as file:
            file.write(self._text())

    def _read(self) -> dict[str, Any]:
        try:
            value = json.loads(remote.read_bytes(self.path))
        except (FileNotFoundError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def _take_over(self) -> None:
        """Takes a dead lease, or raises. Clocks differ: one that looks dead is watched first."""
        seen = self._read()
        renewed = seen.get("time")
        age = time.time() - renewed if isinstance(renewed, int | float) else self.dead
        if age < self.dead:
            raise _in_use(self.out, str(seen.get("owner", "")), self.dead)
        time.sleep(self.renew * 1.5)
        if self._read() != seen:
            raise _in_use(self.out, str(seen.get("owner", "")), self.dead)
        self._write()
        time.sleep(self.renew * 0.2)  # of two that take over at once the last writer stays
        if self._read().get("token") != self.token:
            raise _in_use(self.out, str(self._read().get("owner", "")), self.dead)

    def _keep(self) -> None:
        while not self._stop.wait(self.renew):
            # A store that is out of reach for a moment is tried again at the next beat.
            with contextlib.suppress(Exception):
                if self._read().get("token", self.token) != self.token:
                    self.lost = True
                    return
                self.beat += 1
                self._write()

    def release(self) -> None:
        """Stops renewing and removes the lease if it is still ours."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(Exception):
            if self._read().get("token") == self.token:
                remote.remove(self.path)


def _in_use(out: str, owner: str, dead: float | None = None) -> FolderInUse:
    wait = "" if dead is None else f" (a killed run frees it after {dead:.0f} s)"
    return FolderInUse(
        f"{out}: in use by {owner or 'another run'}; wait until it ends or choose another --out"
        f"{wait}"
    )
