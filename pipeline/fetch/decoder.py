"""The process that meets strangers' pictures: `python -m pipeline.fetch.decoder PARENT MEMORY`.

Pictures lie in memory shared with the parent (the file descriptor MEMORY, read here only), in
DEPTH slots of the policy's `max_bytes`; all else goes over the socket that is its standard input.
The first message it gets is a length and the policy as JSON; from then on a slot and a length for
each picture. It answers in order, each time with two lengths, JSON, and bytes: to the policy with
a list of what keeps it from working, empty if nothing, and to a picture with `Decoded` and the
image. Numbers are four bytes, big-endian.

It may not hold more memory than the policy says beyond what it has at the start, open no file for
writing that grows, leave no core file; it ends when the parent closes the socket, and on Linux
also when the parent dies.
"""

import contextlib
import ctypes
import json
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import warnings
from typing import Any

import orjson

DEPTH = 2  # pictures on their way to a decoder
LENGTH = struct.Struct(">I")
PAIR = struct.Struct(">II")
PR_SET_PDEATHSIG = 1


def slot_bytes(max_bytes: int) -> int:
    """The distance of two slots in the shared memory: whole pages."""
    return -(-max_bytes // mmap.PAGESIZE) * mmap.PAGESIZE


def main(parent: int, memory: int) -> None:
    """Serve until the parent hangs up."""
    _end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with socket.socket(fileno=0) as connection:
        size = _read(connection, LENGTH)
        if size is None:
            return
        settings = connection.recv(*size, socket.MSG_WAITALL)
        faults = []
        try:
            decode_resize, policy = _prepare(settings)
        except Exception as error:
            faults.append(f"{type(error).__name__}: {error}")
        _answer(connection, faults, b"")
        if faults:
            return
        distance = slot_bytes(policy.max_bytes)
        shared = mmap.mmap(memory, DEPTH * distance, prot=mmap.PROT_READ)
        with contextlib.suppress(ConnectionError):
            while (asked := _read(connection, PAIR)) is not None:
                slot, size = asked
                result = decode_resize(shared[slot * distance : slot * distance + size], policy)
                _answer(connection, result.to_json(), result.image or b"")


def _prepare(settings: bytes):
    """Import what decodes, prove that it works, then give up the right to more."""
    from PIL import AvifImagePlugin, Image

    from pipeline.fetch.images import check_codecs, decode_resize
    from pipeline.fetch.policy import FetchPolicy

    policy = FetchPolicy.from_json(json.loads(settings))
    warnings.simplefilter("ignore")
    # The policy's limit is checked before decoding; but a GIF reserves its first frame when it is
    # opened, unless that is of more than twice this.
    Image.MAX_IMAGE_PIXELS = policy.max_pixels
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    check_codecs()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as statm:
            used = int(statm.read().split()[0]) * resource.getpagesize()
        most = used + policy.decode_memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    return decode_resize, policy


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(0)


def _read(connection: socket.socket, numbers: struct.Struct) -> tuple[int, ...] | None:
    """Numbers from the parent, None at the end."""
    data = connection.recv(numbers.size, socket.MSG_WAITALL)
    return numbers.unpack(data) if len(data) == numbers.size else None


def _answer(connection: socket.socket, said: Any, image: bytes) -> None:
    head = orjson.dumps(said)
    connection.sendall(b"".join((PAIR.pack(len(head), len(image)), head, image)))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
