"""Decoder processes: one picture's crash, hang or hunger costs that picture and no other.

Each process gets up to DEPTH pictures ahead, so that it never waits for the event loop. It answers
in order, so when it dies the first unanswered picture is the culprit and the next ones go to its
successor. Works inside any process, also a daemonic one: nothing of multiprocessing is used.
"""

import asyncio
import contextlib
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
from collections.abc import Iterator
from pathlib import Path

import pipeline
from pipeline.fetch.decoder import DEPTH, LENGTH, PAIR, slot_bytes
from pipeline.fetch.images import Decoded
from pipeline.fetch.policy import FetchPolicy
from wit.errors import UserError

DECODER = "pipeline.fetch.decoder"
START_SECONDS = 60.0
BUFFER = 1024 * 1024
MAX_ANSWER = 1 << 30
KEPT = 1024 * 1024  # bytes of a slot that stay in memory after a larger picture

Job = tuple[bytes, "asyncio.Future[Decoded]"]


class DecoderPool:
    """`decode_workers` processes for one event loop; start with `start`, end with `close`."""

    def __init__(self, policy: FetchPolicy):
        self.policy = policy
        self._jobs: asyncio.Queue[Job] = asyncio.Queue()
        self._workers: list[asyncio.Task[None]] = []
        self._fault: Exception | None = None

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

    async def decode(self, data: bytes) -> Decoded:
        """Decode, resize and encode one picture.

        Raises UserError where no decoder can be started.
        """
        if self._fault is not None:
            raise self._fault
        if len(data) > self.policy.max_bytes:
            return Decoded("too_many_bytes", f"more than {self.policy.max_bytes} bytes")
        future: asyncio.Future[Decoded] = asyncio.get_running_loop().create_future()
        self._jobs.put_nowait((data, future))
        return await future

    async def _keep_one(self) -> None:
        """Keep one process at work, and start another after it dies."""
        pending: deque[Job] = deque()
        try:
            while True:
                await self._serve(pending)
        except Exception as fault:
            self._fault = fault
            while not self._jobs.empty():
                pending.append(self._jobs.get_nowait())
            for _, future in pending:
                if not future.done():
                    future.set_exception(fault)

    async def _serve(self, pending: "deque[Job]") -> None:
        """Run one process until it dies; the first of `pending` is then answered for it."""
        child = _Child(self.policy)
        try:
            await child.start()
            for data, _ in pending:
                child.send(data)
            await self._feed(child, pending)
            return
        except (asyncio.IncompleteReadError, ConnectionError, ValueError, TypeError):
            decoded = Decoded("decoder_crashed", child.reason())
        except TimeoutError:
            decoded = Decoded("decoder_timeout")
        finally:
            child.end()
        _answer(pending, decoded)

    async def _feed(self, child: "_Child", pending: "deque[Job]") -> None:
        """Hand out pictures and take answers; returns if the process died with nothing to do."""
        while True:
            while len(pending) < DEPTH and not (pending and self._jobs.empty()):
                data, future = await self._jobs.get()
                if future.done():  # given up by whoever waited for it
                    continue
                pending.append((data, future))
                if child.has_ended() and len(pending) == 1:
                    return
                child.send(data)
            async with asyncio.timeout(self.policy.decode_seconds):
                decoded = await child.receive()
            _answer(pending, decoded)


def _answer(pending: "deque[Job]", decoded: Decoded) -> None:
    if pending:
        _, future = pending.popleft()
        if not future.done():
            future.set_result(decoded)


class _Child:
    """One decoder process, the socket to it, and the memory in which it finds the pictures."""

    def __init__(self, policy: FetchPolicy):
        self.policy = policy
        self._distance = slot_bytes(policy.max_bytes)
        self._memory: mmap.mmap | None = None
        self._free = deque(range(DEPTH))  # slots
        self._sent: deque[tuple[int, int]] = deque()  # slot and size of what is on its way
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def start(self) -> None:
        """Start the process and wait until it is ready; UserError with its reason if it is not."""
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
                    env={**os.environ, "PYTHONPATH": path},
                )
            self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=BUFFER)
            settings = json.dumps(self.policy.to_json()).encode()
            self._writer.write(LENGTH.pack(len(settings)) + settings)
            try:
                async with asyncio.timeout(START_SECONDS):
                    (size,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
                    faults = json.loads(await self._reader.readexactly(size))
            except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
                errors.seek(0)
                faults = errors.read()[-500:].decode("utf-8", "replace").split("\n")[-2:]
                faults = faults or ["no answer"]
        if faults:
            raise UserError(f"the picture decoder does not start: {' '.join(faults).strip()}")

    def send(self, data: bytes) -> None:
        """Hand over a picture (of `max_bytes` at most, DEPTH at most at a time); never waits."""
        assert self._writer is not None
        assert self._memory is not None
        slot, size = self._free.popleft(), len(data)
        start = slot * self._distance
        self._memory[start : start + size] = data
        self._writer.write(PAIR.pack(slot, size))
        self._sent.append((slot, size))

    async def receive(self) -> Decoded:
        """The next answer; IncompleteReadError when the process is dead."""
        assert self._reader is not None
        head, image = PAIR.unpack(await self._reader.readexactly(PAIR.size))
        if head + image > MAX_ANSWER:
            raise ValueError("the decoder sends more than any picture has")
        answer = await self._reader.readexactly(head + image)
        self._put_back(*self._sent.popleft())
        return Decoded(**json.loads(answer[:head].decode()), image=answer[head:] or None)

    def _put_back(self, slot: int, size: int) -> None:
        self._free.append(slot)
        if size > KEPT and hasattr(mmap, "MADV_REMOVE"):
            assert self._memory is not None
            self._memory.madvise(mmap.MADV_REMOVE, slot * self._distance, size)

    def has_ended(self) -> bool:
        """Whether the process is known to be dead."""
        return self._reader is None or self._reader.at_eof()

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
        if self._writer is not None:
            self._writer.close()
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
