"""Another program on a leash: it ends with whoever started it, and so does all that it starts.

    python -I leash.py FOLDER COMMAND...

runs the command in a process group of its own until it ends, and ends as it did. A byte on standard
input ends the whole group at once; its closing, as when the owner dies, removes FOLDER, too. Run by
its path, since the program's environment, which it shares, knows nothing of ours.
"""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading


def main(folder: str, command: list[str]) -> int:
    """Runs the command; its exit code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_with_owner, args=(child.pid, folder), daemon=True).start()
    code = child.wait()
    _kill(child.pid)  # what it has started and left behind
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _end_with_owner(group: int, folder: str) -> None:
    told = os.read(sys.stdin.fileno(), 1)
    _kill(group)
    if not told:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
