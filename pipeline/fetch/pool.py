"""Decoder processes: one picture's crash, hang or hunger costs that picture and no other.

Each process gets up to DEPTH pictures ahead, so that it never waits for the event loop. It answers
in order, so when it dies the first unanswered picture is the culprit and the next ones go to its
successor. Works inside any process, also a daemonic one: nothing of multiprocessing is used.
"""

import asyncio
import contextlib
import copy
import fcntl
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

import pipeline
from pipeline.fetch.decoder import DEPTH, LENGTH, PAIR, slot_bytes
from pipeline.fetch.images import Decoded
from pipeline.fetch.policy import FetchPolicy
from wit.errors import UserError

DECODER = "pipeline.fetch.decoder"
START_SECONDS = 60.0
MAX_ANSWER = 1 << 30
MOST_NONSENSE = 3  # processes in a row that answer nonsense and nothing else
KEPT = 1024 * 1024  # bytes of a slot that stay in memory after a larger picture

Job = tuple[Sequence[bytes], "asyncio.Future[Decoded]"]  # the parts of a file, and the answer


class DecoderPool:
    """`decode_workers` processes for one event loop; start with `start`, end with `close`."""

    def __init__(self, policy: FetchPolicy):
        self.policy = policy
        self._jobs: deque[Job] = deque()  # that no process has
        self._at_work: list[_Child] = []
        self._surplus = asyncio.Event()  # set where there are more than the processes can take
        self._workers: list[asyncio.Task[None]] = []
        self._fault: Exception | None = None
        self._nonsense = 0  # processes that have answered it since the last good answer

    def start(self) -> None:
        """Start the processes; returns at once."""
        self._workers = [
            asyncio.create_task(self._keep_one()) for _ in range(self.policy.decode_workers)
        ]

    async def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def decode(self, *parts: bytes) -> Decoded:
        """Decode, resize and encode one picture, given in as many parts as it came in.

        Raises UserError where no decoder can be started, or none that answers as it should.
        """
        if self._fault is not None:
            raise copy.copy(self._fault)  # whoever raises one and the same lengthens its traceback
        if sum(map(len, parts)) > self.policy.max_bytes:
            return Decoded("too_many_bytes", f"more than {self.policy.max_bytes} bytes")
        future: asyncio.Future[Decoded] = asyncio.get_running_loop().create_future()
        self._jobs.append((parts, future))
        self._hand_out()
        return await future

    def _hand_out(self) -> None:
        """Give pictures to the processes that have the fewest."""
        while self._jobs:
            child = min(self._at_work, key=lambda child: len(child.pending), default=None)
            if child is None or len(child.pending) >= DEPTH:
                self._surplus.set()
                return
            job = self._jobs.popleft()
            if not job[1].done():  # else given up by whoever waited for it
                child.take(job)

    async def _keep_one(self) -> None:
        """Keep one process at work, and start another after it dies."""
        pending: deque[Job] = deque()
        try:
            while True:
                was_idle = await self._serve(pending)
                if was_idle:  # the next one starts when there is something to do
                    self._surplus.clear()
                    self._hand_out()
                    await self._surplus.wait()
        except Exception as fault:
            self._fault = fault
            pending.extend(self._jobs)
            self._jobs.clear()
            for _, future in pending:
                if not future.done():
                    future.set_exception(copy.copy(fault))

    async def _serve(self, pending: deque[Job]) -> bool:
        """Run one process until it dies; the first of `pending` is then answered for it.

        Returns whether there was none. UserError where one process after the other answers
        nonsense.
        """
        child = _Child(self.policy, pending, self._answered)
        try:
            await child.start()
            self._at_work.append(child)
            self._hand_out()
            decoded = await child.ended
        except (EOFError, ConnectionError):
            decoded = Decoded("decoder_crashed", child.reason())
        except (ValueError, TypeError) as nonsense:
            self._nonsense += 1
            if self._nonsense >= MOST_NONSENSE:
                raise UserError(
                    f"{MOST_NONSENSE} picture decoders in a row answer nonsense ({nonsense}): look "
                    "for another version of this package on the PYTHONPATH, or install it again"
                ) from nonsense
            decoded = Decoded("decoder_crashed", str(nonsense))
        finally:
            if child in self._at_work:
                self._at_work.remove(child)
            child.end()
        return not _answer(pending, decoded)

    def _answered(self) -> None:
        self._nonsense = 0
        self._hand_out()


def _answer(pending: deque[Job], decoded: Decoded) -> bool:
    """Answer the oldest; False where there is none."""
    if not pending:
        return False
    _, future = pending.popleft()
    if not future.done():
        future.set_result(decoded)
    return True


class _Child(asyncio.Protocol):
    """One decoder process, the socket to it, and the memory in which it finds the pictures.

    `pending` are the pictures that it has not answered, oldest first, to begin with those of its
    predecessor; `answered` is called after each answer. `ended` gives the oldest one's outcome if
    that took too long; else it raises what ended the process: EOFError, ConnectionError, or, for
    nonsense in place of an answer, ValueError or TypeError.
    """

    def __init__(
        self, policy: FetchPolicy, pending: deque[Job], answered: Callable[[], None]
    ) -> None:
        self.policy = policy
        self.pending = pending
        self.answered = answered
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Decoded] = self._loop.create_future()
        self._ready: asyncio.Future[list[str]] = self._loop.create_future()  # what is wrong with it
        self._distance = slot_bytes(policy.max_bytes)
        self._memory: mmap.mmap | None = None
        self._free = deque(range(DEPTH))  # slots
        self._sent: deque[tuple[int, int]] = deque()  # slot and size of what is on its way
        self._parts: list[bytes] = []  # of an answer
        self._has, self._needs = 0, PAIR.size  # bytes of it
        self._overdue = float("inf")  # when the oldest picture has taken too long
        self._timer: asyncio.TimerHandle | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.Transport | None = None

    async def start(self) -> None:
        """Start the process, wait until it is ready, and give it what is pending.

        UserError with its reason if it does not start.
        """
        ours, theirs = socket.socketpair()
        folder = str(Path(pipeline.__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-P", "-m", DECODER, str(os.getpid())]
        with tempfile.TemporaryFile() as errors:
            with theirs, _shared_file(DEPTH * self._distance) as shared:
                self._memory = mmap.mmap(shared, DEPTH * self._distance)
                self._process = subprocess.Popen(
                    [*command, str(shared)],
                    pass_fds=[shared],
                    stdin=theirs,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,  # Ctrl-C is for the parent, which ends this
                    env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
                )
            self._transport, _ = await self._loop.create_connection(lambda: self, sock=ours)
            settings = json.dumps(self.policy.to_json()).encode()
            self._transport.write(LENGTH.pack(len(settings)) + settings)
            try:
                async with asyncio.timeout(START_SECONDS):
                    faults = await self._ready
            except (EOFError, ConnectionError, TimeoutError):
                errors.seek(0)
                faults = errors.read()[-500:].decode("utf-8", "replace").split("\n")[-2:]
                faults = faults or ["no answer"]
        if faults:
            raise UserError(f"the picture decoder does not start: {' '.join(faults).strip()}")
        for parts, _ in self.pending:
            self._send(parts)
        self._begin_next()
        self._watch()

    def take(self, job: Job) -> None:
        """Hand over a picture (of `max_bytes` at most, DEPTH at most at a time); never waits."""
        self.pending.append(job)
        if len(self.pending) == 1:
            self._begin_next()
        self._send(job[0])

    def _send(self, parts: Sequence[bytes]) -> None:
        assert self._transport is not None
        assert self._memory is not None
        slot, size = self._free.popleft(), 0
        for part in parts:
            start = slot * self._distance + size
            size += len(part)
            self._memory[start : start + len(part)] = part
        self._sent.append((slot, size))
        self._transport.write(PAIR.pack(slot, size))

    def _begin_next(self) -> None:
        limit = self._loop.time() + self.policy.decode_seconds
        self._overdue = limit if self.pending else float("inf")

    def _watch(self) -> None:
        """See whether the oldest picture is overdue, and again when it or a next one may be."""
        now = self._loop.time()
        if now >= self._overdue:
            self._end_with(Decoded("decoder_timeout"))
        else:
            moment = min(self._overdue, now + self.policy.decode_seconds)
            self._timer = self._loop.call_at(moment, self._watch)

    def data_received(self, data: bytes) -> None:
        """Collect answers and hand them on."""
        self._parts.append(data)
        self._has += len(data)
        if self._has < self._needs:
            return
        data, at = b"".join(self._parts), 0
        self._needs = PAIR.size
        while len(data) - at >= self._needs and not self.ended.done():
            sizes = PAIR.unpack_from(data, at)
            whole = PAIR.size + sum(sizes)
            if len(data) - at >= whole:
                start = at + PAIR.size
                image = start + sizes[0]
                at += whole
                self._take_answer(data[start:image], data[image:at])
            elif whole > MAX_ANSWER:
                self._end_with(ValueError("the decoder sends more than any picture has"))
            else:
                self._needs = whole
        self._parts = [data[at:]]
        self._has = len(data) - at

    def _take_answer(self, head: bytes, image: bytes) -> None:
        try:
            said = orjson.loads(head)
            if not self._ready.done():
                self._ready.set_result(said)
                return
            decoded = Decoded(**said, image=image or None)
            self._put_back(*self._sent.popleft())
        except (ValueError, TypeError, IndexError) as error:
            self._end_with(ValueError(f"the decoder says what is no answer: {error}"))
            return
        _answer(self.pending, decoded)
        self._begin_next()
        self.answered()

    def _put_back(self, slot: int, size: int) -> None:
        self._free.append(slot)
        if size > KEPT and hasattr(mmap, "MADV_REMOVE"):
            assert self._memory is not None
            self._memory.madvise(mmap.MADV_REMOVE, slot * self._distance, size)

    def connection_lost(self, exc: Exception | None) -> None:
        """The process is dead, or as good as dead."""
        self._end_with(exc or EOFError())

    def _end_with(self, end: Decoded | Exception) -> None:
        waited: asyncio.Future[Any] = self.ended if self._ready.done() else self._ready
        if waited.done():
            return
        if isinstance(end, Exception):
            waited.set_exception(end)
        else:
            waited.set_result(end)

    def reason(self) -> str:
        """How the process died."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        code = self._process.returncode
        if code is not None and code < 0:
            return signal.Signals(-code).name
        return f"exit code {code}"

    def end(self) -> None:
        """Kill the process and forget it."""
        self.ended.cancel()
        self._ready.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._memory is not None:
            self._memory.close()


@contextlib.contextmanager
def _shared_file(size: int) -> Iterator[int]:
    """A file without a name, in memory and of a fixed size on Linux, elsewhere on the disk."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("pictures", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(file, size)
        # Else a decoder gone wrong could shorten it under our hands.
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    else:
        file, path = tempfile.mkstemp()
        os.unlink(path)
        os.ftruncate(file, size)
    try:
        yield file
    finally:
        os.close(file)
