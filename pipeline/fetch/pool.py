"""Decoder processes: one picture's crash, hang or hunger costs that picture and no other.

Each process gets up to DEPTH pictures ahead, so that it never waits for the event loop. It answers
in order, so when it dies the first unanswered picture is the culprit and the next ones go to its
successor. Works inside any process, also a daemonic one: nothing of multiprocessing is used.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path

import pipeline
from pipeline.fetch.decoder import LENGTH
from pipeline.fetch.images import Decoded
from pipeline.fetch.policy import FetchPolicy
from wit.errors import UserError

DECODER = "pipeline.fetch.decoder"
DEPTH = 2
START_SECONDS = 60.0
BUFFER = 1024 * 1024
MAX_FRAME = 1 << 30

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
    """One decoder process and the socket to it."""

    def __init__(self, policy: FetchPolicy):
        self.policy = policy
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
            with theirs:
                self._process = subprocess.Popen(
                    command,
                    stdin=theirs,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,  # Ctrl-C is for the parent, which ends this
                    env={**os.environ, "PYTHONPATH": path},
                )
            self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=BUFFER)
            self.send(json.dumps(self.policy.to_json()).encode())
            try:
                async with asyncio.timeout(START_SECONDS):
                    faults = json.loads(await self._frame())
            except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
                errors.seek(0)
                faults = errors.read()[-500:].decode("utf-8", "replace").split("\n")[-2:]
                faults = faults or ["no answer"]
        if faults:
            raise UserError(f"the picture decoder does not start: {' '.join(faults).strip()}")

    def send(self, data: bytes) -> None:
        """Hand over a frame; never waits, DEPTH bounds what is on its way."""
        assert self._writer is not None
        self._writer.write(LENGTH.pack(len(data)) + data)

    async def receive(self) -> Decoded:
        """The next answer; IncompleteReadError when the process is dead."""
        fields = json.loads(await self._frame())
        image = await self._frame()
        return Decoded(**fields, image=image or None)

    def has_ended(self) -> bool:
        """Whether the process is known to be dead."""
        return self._reader is None or self._reader.at_eof()

    async def _frame(self) -> bytes:
        assert self._reader is not None
        size = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))[0]
        if size > MAX_FRAME:
            raise ValueError("the decoder sends more than any picture has")
        return await self._reader.readexactly(size)

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
