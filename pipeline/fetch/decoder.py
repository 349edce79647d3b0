"""The process that meets strangers' pictures: `python -m pipeline.fetch.decoder PARENT`.

It answers on the socket that is its standard input. Every message is a frame: four bytes of
length (big-endian), then the bytes. The first frame it gets is the policy as JSON; it answers with
a JSON list of what keeps it from working, empty if nothing. From then on each frame is a picture,
answered in order by two frames: `Decoded` without its bytes as JSON, and the bytes.

It may not hold more memory than the policy says beyond what it has at the start, open no file for
writing that grows, leave no core file; it ends when the parent closes the socket, and on Linux
also when the parent dies.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import struct
import sys
import warnings

LENGTH = struct.Struct(">I")
PR_SET_PDEATHSIG = 1


def main(parent: int) -> None:
    """Serve until the parent hangs up."""
    _end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with socket.socket(fileno=0) as connection:
        stream = connection.makefile("rb", buffering=256 * 1024)
        settings = _read(stream)
        if settings is None:
            return
        faults = []
        try:
            decode_resize, policy = _prepare(settings)
        except Exception as error:
            faults.append(f"{type(error).__name__}: {error}")
        _write(connection, json.dumps(faults).encode())
        if faults:
            return
        with contextlib.suppress(ConnectionError):
            while (data := _read(stream)) is not None:
                result = decode_resize(data, policy)
                _write(connection, json.dumps(result.to_json()).encode(), result.image or b"")


def _prepare(settings: bytes):
    """Import what decodes, prove that it works, then give up the right to more."""
    from PIL import AvifImagePlugin, Image

    from pipeline.fetch.images import check_codecs, decode_resize
    from pipeline.fetch.policy import FetchPolicy

    policy = FetchPolicy.from_json(json.loads(settings))
    warnings.simplefilter("ignore")
    # The number of pixels is checked before decoding, by the policy's own limit.
    Image.MAX_IMAGE_PIXELS = None
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


def _read(stream) -> bytes | None:
    """One frame, None at the end."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    size = LENGTH.unpack(head)[0]
    data = stream.read(size)
    return data if len(data) == size else None


def _write(connection: socket.socket, *frames: bytes) -> None:
    connection.sendall(b"".join(LENGTH.pack(len(frame)) + frame for frame in frames))


if __name__ == "__main__":
    main(int(sys.argv[1]))
