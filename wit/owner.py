"""Who owns an output folder, for someone who only looks: nothing is locked and nothing written.

A lock of `wit.lock` holds its owner's text. Of a local folder the kernel's table of locks says
whether the owner lives, as far as it shows the owner's machine; of a lease the moment at which it
was renewed.
"""

import json
import os
import re
import socket
import time
from dataclasses import dataclass

from wit import remote

LOCKS = "/proc/locks"  # proc(5): number, kind, mode, access, process, device and inode, range
PROCESS = re.compile(r"\(process (\d+) on (.+), since ")


@dataclass(frozen=True)
class Owner:
    """What a lock says.

    Attributes:
        text: of `wit.lock.owner_text`: command, process, machine, start.
        alive: whether the owner lives; None where that cannot be seen from this machine.
        seen: when it gave its last sign of life, in seconds since 1970; None where locks have none.
    """

    text: str
    alive: bool | None
    seen: float | None = None


def read_owner(out: str, dead: float = 60.0) -> Owner | None:
    """Returns who owns a folder, or owned it and was killed; None where it was given back.

    `dead`: seconds after which a lease is dead, as of `wit.lock.FolderLock`.
    """
    local = "://" not in out or out.startswith("file://")
    path = f"{out.removeprefix('file://').rstrip('/') or '/'}/.lock"
    inode = None
    try:
        if local:
            with open(path, "rb") as file:
                text = file.read(65536).decode("utf-8", "replace").strip()
                inode = os.fstat(file.fileno()).st_ino
        else:
            text = remote.read_bytes(path).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    if not text:
        return None
    try:
        lease = json.loads(text)
    except ValueError:
        return Owner(text, None if inode is None else _holds(text, inode))
    if not isinstance(lease, dict) or not isinstance(lease.get("time"), int | float):
        return None
    renewed = float(lease["time"])
    return Owner(str(lease.get("owner", "")), time.time() - renewed < dead, renewed)


def _holds(text: str, inode: int) -> bool | None:
    """Whether the process of an owner's text holds the lock file; None for one out of sight."""
    found = PROCESS.search(text)
    here = found is not None and found[2] == socket.gethostname()
    try:
        with open(LOCKS, encoding="ascii", errors="replace") as file:
            fields = [line.split() for line in file]
    except OSError:  # another system: a process of that number is taken for the owner
        return _runs(int(found[1])) if found and here else None
    # Some file systems number the device otherwise there than in stat(2): the inode must do.
    held = {f[5].rpartition(":")[2] for f in fields if len(f) > 5 and f[1] == "FLOCK"}
    if str(inode) in held:
        return True
    return False if here else None


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
