"""A node's copies of shards: each brought once, shared by its ranks, bounded in bytes.

The folder holds `HASH.tar`, a copy of a remote shard, and `HASH.arrow`, a table of what is in a
shard, for local ones too. They are named by what is in them (the sha256 that the manifest says of
the tar, of its Parquet file), written under a hidden name and renamed, under a lock of the kernel's
that a killed process does not keep. Who brings a file makes room for it: those go that the order
needs last, and only those that it needs later than the new one. A folder belongs to one run.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pyarrow as pa

from trainer.index import Index
from trainer.order import NEVER
from trainer.store import patiently
from trainer.table import REMEDY, read_rows
from wit import storage
from wit.errors import StorageError

PART = 32 << 20  # bytes of one request of a download
OPEN_TABLES = 512  # each holds a file descriptor
NAME = 32  # hexadecimal digits of a sha256 in a file's name
PARTS = (".tar", ".arrow")

Brought = Literal["here", "missing", "no room", "busy"]
log = logging.getLogger("trainer.cache")


class Closed(Exception):
    """The cache was closed while it brought a shard."""


class Cache:
    """The copies of one node; its ranks open one each on the same folder.

    limit: bytes of the files in the folder; only tables of shards that are being read may go beyond
    it. `downloaded` is how many bytes this process brought.
    """

    def __init__(self, index: Index, folder: str, limit: int) -> None:
        if not storage.is_local(folder):
            raise StorageError(f"{folder}: a cache stands on a local disk; choose another folder")
        self.index, self.folder, self.limit = index, storage.local_path(folder), limit
        self.downloaded = 0
        self.needed = np.full(len(index.samples), NEVER)  # by any rank of the node
        self.remote = np.array([not storage.is_local(path) for path in index.folders])[index.source]
        self._shards_of: dict[str, list[int]] = {}
        for shard in range(len(index.samples)):
            for part in PARTS:
                self._shards_of.setdefault(self._name(shard, part), []).append(shard)
        self._tables: OrderedDict[int, pa.RecordBatch] = OrderedDict()
        self._missing: set[int] = set()
        self._guard = threading.Lock()
        self._wanted: deque[int] = deque()
        self._closed = False
        self._full_from: int | None = None  # what is needed then or later finds no room
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        storage.make_folder(self.folder)
        self._sweep()

    def _name(self, shard: int, part: str) -> str:
        of = self.index.tar_sha256 if part == ".tar" else self.index.table_sha256
        return of[shard][:NAME] + part

    # --- what is read -------------------------------------------------------------------------

    def table(self, shard: int) -> pa.RecordBatch:
        """The samples of a shard (trainer.table.TABLE), mapped from the disk.

        Raises:
            UserError: for a Parquet file that is missing, or is not the one of the manifest.
        """
        with self._guard:
            if shard in self._tables:
                self._tables.move_to_end(shard)
                return self._tables[shard]
        path = os.path.join(self.folder, self._name(shard, ".arrow"))
        table = None
        while table is None:
            self._make_table(shard, path)
            try:
                table = pa.ipc.open_file(pa.memory_map(path)).get_batch(0)
            except FileNotFoundError:  # evicted by another rank meanwhile
                continue
            except pa.ArrowInvalid:  # a machine that crashed may leave a file without its bytes
                os.unlink(path)
        with self._guard:
            self._tables[shard] = table
            while len(self._tables) > OPEN_TABLES:
                self._tables.popitem(last=False)
        return table

    def tar(self, shard: int) -> str | None:
        """The local path of a shard's tar, None while it is not here."""
        if not self.remote[shard]:
            return storage.local_path(self.index.tar(shard))
        path = os.path.join(self.folder, self._name(shard, ".tar"))
        return path if os.path.exists(path) else None

    def fetch(self, shard: int) -> str | None:
        """Brings a remote shard's tar and returns its local path; None: no room, or no such tar.

        A tar whose bytes are not those of the manifest is brought again, then kept with a warning.
        """
        brought = "missing" if shard in self._missing else self._bring(shard, wait=True)
        return self.tar(shard) if brought == "here" else None

    # --- ahead of the reader ------------------------------------------------------------------

    def follow(self, mine: np.ndarray, node: np.ndarray) -> None:
        """Says when shards are needed (int64 [S], as `Order.needed`): by this rank, by the node.

        The threads of `start` bring what this rank needs, the soonest first.
        """
        order = np.argsort(mine, kind="stable")
        order = order[: np.searchsorted(mine[order], NEVER)]
        with self._changed:
            self.needed = node
            self._wanted = deque(order[self.remote[order]].tolist())
            self._full_from = None
            self._changed.notify_all()

    def start(self, threads: int) -> None:
        """Starts threads that bring shards ahead of the reader; none where all are local."""
        for _ in range(threads if self.remote.any() else 0):
            self._threads.append(threading.Thread(target=self._work, name="shards", daemon=True))
            self._threads[-1].start()

    def close(self) -> None:
        """Ends the threads, each after the request it is at."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (self._full_from is not None or not self._wanted):
                    self._changed.wait()
                if self._closed:
                    return
                shard = self._wanted.popleft()
            try:
                self._bring(shard, wait=False)
            except Closed:
                return
            except Exception as error:  # who reads the shard meets it again, and says so
                log.warning("%s: not brought ahead: %s", self.index.tar(shard), error)
                self._full_from = int(self.needed[shard])

    # --- bringing -----------------------------------------------------------------------------

    def _bring(self, shard: int, *, wait: bool) -> Brought:
        if shard in self._missing:
            return "missing"
        name, size = self._name(shard, ".tar"), int(self.index.tar_bytes[shard])
        path = os.path.join(self.folder, name)
        if os.path.exists(path):
            return "here"
        need, full_from = int(self.needed[shard]), self._full_from
        if full_from is not None and need >= full_from:
            return "no room"
        with self._locked(name, wait=wait) as mine:
            if not mine:
                return "busy"
            if os.path.exists(path):
                return "here"
            if not self._make_room(name, size, need):
                self._full_from = need  # until `follow` says what is no longer needed
                return "no room"
            try:
                with self._writing(name) as temporary:
                    self._download(shard, temporary)
            except FileNotFoundError:
                self._missing.add(shard)
                log.warning("%s: is not there; its samples are skipped", self.index.tar(shard))
                return "missing"
        return "here"

    def _download(self, shard: int, temporary: str) -> None:
        path, size = self.index.tar(shard), int(self.index.tar_bytes[shard])
        for _ in range(2):
            found = patiently(path, lambda: storage.size(path))
            if found is None:
                raise FileNotFoundError(path)
            digest = hashlib.sha256()
            with storage.explained(temporary), open(temporary, "r+b") as file:
                for start in range(0, min(size, found), PART):
                    if self._closed:
                        raise Closed
                    data = self._read(path, start, min(start + PART, size, found))
                    digest.update(data)
                    file.write(data)
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
            if found == size and digest.hexdigest() == self.index.tar_sha256[shard]:
                return
        log.warning(
            "%s: its bytes are not those that %s names; samples that are not where they should be "
            "are skipped; run wit shards verify on its folder",
            path,
            self.index.manifest(shard),
        )

    def _read(self, path: str, start: int, end: int) -> bytes:
        data = patiently(path, lambda: storage.read_bytes(path, start, end))
        with self._guard:
            self.downloaded += len(data)
        return data

    def _make_table(self, shard: int, path: str) -> None:
        name, source = self._name(shard, ".arrow"), self.index.table(shard)
        if os.path.exists(path):
            return
        with self._locked(name, wait=True):
            if os.path.exists(path):
                return
            try:
                data = self._read(source, 0, int(self.index.table_bytes[shard]))
            except FileNotFoundError as error:
                raise StorageError(
                    f"{source}: missing, though {self.index.manifest(shard)} lists it; {REMEDY}"
                ) from error
            if hashlib.sha256(data).hexdigest() != self.index.table_sha256[shard]:
                raise StorageError(
                    f"{source}: is not the file that {self.index.manifest(shard)} names; {REMEDY}"
                )
            rows = read_rows(source, data, int(self.index.samples[shard]))
            sink = pa.BufferOutputStream()
            with pa.ipc.new_file(sink, rows.schema) as writer:
                writer.write_batch(rows)
            arrow = sink.getvalue()
            self._make_room(name, arrow.size, int(self.needed[shard]))
            with self._writing(name) as temporary, open(temporary, "wb") as file:
                file.write(arrow)
                file.flush()
                os.fsync(file.fileno())

    # --- files and room -----------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[str]:
        """The hidden path of a file that gets its name after a clean exit."""
        temporary = self._temporary(name)
        try:
            with storage.explained(temporary):
                yield temporary
                os.replace(temporary, os.path.join(self.folder, name))
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise

    def _temporary(self, name: str) -> str:
        return os.path.join(self.folder, f".{name}.tmp")

    @contextlib.contextmanager
    def _locked(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Holds a lock among the node's threads and processes; False if another does."""
        path = os.path.join(self.folder, f".{name}.lock")
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                except BlockingIOError:
                    yield False
                    return
                # Who had it removed the file: then another may hold a lock on a new one.
                if not _is_file(handle, path):
                    continue
                try:
                    yield True
                finally:
                    os.unlink(path)
                return
            finally:
                os.close(handle)

    def _make_room(self, name: str, size: int, need: int) -> bool:
        """Evicts for a file, and reserves its bytes by its hidden name; False if it does not fit.

        A table must be here to be read, so tars that are needed when it is, too, go for it.
        """
        with self._locked("room", wait=True):
            files = _sizes(self.folder)
            over = sum(files.values()) + size - self.limit
            table = name.endswith(".arrow")
            later = [
                (when, files[found], found)
                for found in files
                if found.endswith(PARTS)
                and (when := self._needed_from(found)) > need - (table and found.endswith(".tar"))
            ]
            fits = over <= sum(size for _, size, _ in later)
            for _, bytes_, victim in sorted(later, reverse=True):
                if over <= 0 or not (fits or table):
                    break
                self._evict(victim)
                over -= bytes_
            if fits and not table:
                with storage.explained(self.folder), open(self._temporary(name), "wb") as file:
                    file.truncate(size)
            return fits

    def _needed_from(self, name: str) -> int:
        return min(
            (int(self.needed[shard]) for shard in self._shards_of.get(name, ())), default=NEVER
        )

    def _evict(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.folder, name))
        if name.endswith(".arrow"):
            with self._guard:
                for shard in self._shards_of.get(name, ()):
                    self._tables.pop(shard, None)

    def _sweep(self) -> None:
        """Removes what a killed process was writing; what another writes is locked and stays."""
        for entry in _entries(self.folder):
            if entry.name.startswith(".") and entry.name.endswith(".tmp"):
                with self._locked(entry.name[1:-4], wait=False) as mine:
                    if mine:
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(entry.path)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _sizes(folder: str) -> dict[str, int]:
    sizes = {}
    for entry in _entries(folder):
        with contextlib.suppress(FileNotFoundError):  # renamed or evicted meanwhile
            sizes[entry.name] = entry.stat().st_size
    return sizes


def _is_file(handle: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
