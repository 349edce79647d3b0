"""Brings files: two connections, a check of each file before it gets its name, and progress."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from query_list.download.check import Damaged, check
from query_list.download.parts import drop, fetch
from query_list.download.state import File, size_told
from query_list.download.web import Pace, Stopped, Web
from wit import storage
from wit.console import Screen, duration, rate_of
from wit.errors import UserError

CONNECTIONS = 2  # at most, as Wikimedia asks
SHOWN = 0.25  # seconds between two looks at the progress
WINDOW = 30.0  # seconds of which the rate is told
JOIN = 5.0  # seconds that a thread gets to end when the user stops


def bring(
    out: str, files: list[File], agent: str, done: Callable[[File], None], screen: Screen
) -> None:
    """Downloads files, the largest first; `done` is called with each, from one thread at a time.

    Raises:
        UserError: the first that went wrong for good; the .part files stay for the next run.
    """
    todo = iter(sorted(files, key=lambda file: (-file.bytes, file.path)))
    pace, lock = Pace(), threading.Lock()
    progress = _Progress(out, files)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with Web(agent, pace) as web:
                while True:
                    with lock:
                        file = next(todo, None)
                    if file is None:
                        return
                    whole = _bring(web, out, file, progress)
                    progress.note(file.path, whole.bytes)
                    with lock:
                        done(whole)
                        progress.finished += 1
        except Stopped:
            return
        except BaseException as error:
            errors.append(error)
            pace.stop.set()

    count = min(CONNECTIONS, len(files))
    threads = [threading.Thread(target=work, name="download", daemon=True) for _ in range(count)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive() and not errors:
                thread.join(SHOWN)
                wait = pace.left()
                asked = f", waiting {duration(wait)} as the server asks" if wait else ""
                screen.now(progress.line() + asked)
    finally:
        pace.stop.set()
        for thread in threads:
            thread.join(JOIN)
    if errors:
        raise errors[0]


def _bring(web: Web, out: str, file: File, progress: _Progress) -> File:
    """Downloads a file, once more if it comes damaged, and gives it its name."""
    path = storage.join(out, file.path)
    part = f"{path}.part"

    def checked(place: str, file: File) -> File:
        progress.checking.add(file.path)
        try:
            return check(place, file, lambda: web.pace.rest(0))
        finally:
            progress.checking.discard(file.path)

    storage.make_folder(storage.split(path)[0])
    if storage.size(path) == file.bytes:  # brought by hand, or renamed just before a kill
        with contextlib.suppress(Damaged):
            return checked(path, file)
    for again in (True, False):
        version = fetch(
            web,
            file.url,
            part,
            file.bytes,
            file.sha1 is not None,
            lambda size: progress.note(file.path, size),
        )
        size = file.bytes if version.size is None else version.size
        modified = version.last_modified or file.last_modified
        came = replace(file, bytes=size, last_modified=modified)
        try:
            whole = checked(part, came)
        except Damaged as error:
            drop(part)
            progress.note(file.path, 0)
            if not again:
                raise UserError(
                    f"{file.url}: came damaged twice: {error}; try again later, or another "
                    "--mirror, or bring the file by hand"
                ) from error
        else:
            break
    with storage.explained(path), open(part, "rb") as written:
        os.fsync(written.fileno())
    storage.rename(part, path)
    drop(part)
    return whole


# --- progress ---------------------------------------------------------------------------------


class _Progress:
    """How far the files are, for one line."""

    def __init__(self, out: str, files: list[File]) -> None:
        self.total = sum(file.bytes for file in files)
        self.count, self.finished = len(files), 0
        self.checking: set[str] = set()
        self._bytes = {
            f.path: storage.size(storage.join(out, f"{f.path}.part")) or 0 for f in files
        }
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, path: str, size: int) -> None:
        """Takes down a file's bytes."""
        self._bytes[path] = size

    def line(self) -> str:
        """Returns bytes, rate and time left."""
        now, done = time.monotonic(), sum(list(self._bytes.values()))
        self._seen.append((now, done))
        while self._seen[0][0] < now - WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        rate = max(0, done - before) / (now - since) if now > since else 0.0
        said = f"{size_told(done)} of {size_told(self.total)}, {rate_of(rate, 'bytes')}"
        if rate:
            said += f", {duration(max(0, self.total - done) / rate)} left"
        said += f", {self.finished:,} of {self.count:,} files"
        checking = [path.rpartition("/")[2] for path in sorted(self.checking)]
        return f"{said}, checking {' and '.join(checking)}" if checking else said
