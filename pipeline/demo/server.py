"""The demo's server: all hosts of the demo's web on one port of 127.0.0.1, plain HTTP/1.1.

    python -m pipeline.demo.server --port-file F [--log L] [--max-seconds 3600] [--port 0]

It answers by Host header and path, as a function of the URL alone (`pipeline.demo.answers`). A
harvest asks for `http://museum.example/...` (port 80) and is told where that is: its address guard
gets `--allow-address 127.0.0.1:PORT`, and the fetcher's `FetchPolicy.resolve` maps each host to
"127.0.0.1:PORT" (`resolve_map`), as curl's `--resolve` does. So neither the crawl files nor any
hash depends on the port. A person opens `http://127.0.0.1:PORT/` in a browser, which lists the
hosts under `http://HOST.localhost:PORT/`.

The server stops by itself when its parent process is gone or after `--max-seconds`. The access log
has one line a request: monotonic seconds, host, path with query, status, user agent; between tabs.
"""

import argparse
import asyncio
import contextlib
import functools
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import TextIO

from pipeline.demo import answers, routes
from pipeline.demo.answers import Answer
from wit.errors import UserError

ADDRESS = "127.0.0.1"
HEAD_LIMIT = 16 * 1024  # bytes of a request's head
IDLE = 30.0  # seconds an idle connection is kept
FLOOD = 64 * 1024 * 1024  # bytes sent at most of an answer that never ends
PIECE = 64 * 1024
DRIPS = 8
HUGE = 4_000_000_000  # bytes announced by an answer that is too large
BROWSER_SUFFIX = ".localhost"
STARTS_WITHIN = 20.0  # seconds
CONTROL = re.compile(r"[\x00-\x1f]+")
OUR_LINKS = re.compile(rb"(?:http:)?//([a-z.-]+\.example)(?![a-z.-])")


def resolve_map(port: int) -> dict[str, str]:
    """Where each host of the demo is found: host -> "127.0.0.1:PORT"."""
    return dict.fromkeys(routes.HOSTS, f"{ADDRESS}:{port}")


async def serve(
    port: int = 0, log: TextIO | None = None, started: Callable[[int], None] = lambda port: None
) -> None:
    """Serve until cancelled; `started` is called with the port once connections are accepted."""
    talking: set[asyncio.StreamWriter] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talking.add(writer)
        with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError, TimeoutError):
            while await _exchange(reader, writer, log):
                pass
        talking.discard(writer)
        writer.close()

    server = await asyncio.start_server(talk, ADDRESS, port, limit=HEAD_LIMIT, backlog=512)
    try:
        started(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()
    finally:
        # Not `wait_closed`: from Python 3.12 it waits for idle clients to go.
        server.close()
        for writer in talking:
            writer.transport.abort()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, log: TextIO | None
) -> bool:
    """One request and its answer; False where the connection is done."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), IDLE)
    lines = head.decode("latin-1").split("\r\n")
    method, _, rest = lines[0].partition(" ")
    target, _, version = rest.rpartition(" ")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines[1:])
    }
    host = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
    reply = answers.html(HTTPStatus.BAD_REQUEST, "GET or HEAD of a path, please")
    if method in ("GET", "HEAD") and target.startswith("/"):
        with contextlib.suppress(ValueError):  # a host that is no host
            reply = _reply(host.lower(), target, writer.get_extra_info("sockname")[1])
    if log:
        agent = headers.get("user-agent", "")
        fields = (f"{time.monotonic():.6f}", host, target, str(reply.status), agent)
        log.write("\t".join(CONTROL.sub(" ", field) for field in fields) + "\n")
        log.flush()
    closing = version != "HTTP/1.1" or headers.get("connection", "").lower() == "close"
    closing |= reply.status == HTTPStatus.BAD_REQUEST
    whole = await _send(writer, reply, method == "HEAD", closing)
    return whole and not closing


def _reply(host: str, target: str, port: int) -> Answer:
    if host in (ADDRESS, "localhost"):
        return _front_page(port) if target == "/" else answers.html(404, "Not found")
    reply = answers.answer(f"http://{host.removesuffix(BROWSER_SUFFIX)}{target}")
    if not host.endswith(BROWSER_SUFFIX):
        return reply
    there = rf"http://\1{BROWSER_SUFFIX}:{port}".encode()
    headers = tuple((k, OUR_LINKS.sub(there, v.encode()).decode()) for k, v in reply.headers)
    is_html = any(v.startswith("text/html") for k, v in headers if k == "Content-Type")
    body = OUR_LINKS.sub(there, reply.body) if is_html else reply.body
    return Answer(reply.status, headers, body, reply.delay, reply.drip, reply.way)


def _front_page(port: int) -> Answer:
    links = "".join(
        f'<li><a href="http://{host}{BROWSER_SUFFIX}:{port}/">{host}</a>'
        for host in routes.HOSTS
        if host != "cdn.example"
    )
    page = "<style>body{font:1.1rem/1.7 system-ui;margin:10vh auto;max-width:34rem}</style>"
    page += f"The WebImageText demo's web<ul style='font-size:1rem'>{links}</ul>"
    return Answer(200, (("Content-Type", "text/html; charset=utf-8"),), page.encode())


async def _send(writer: asyncio.StreamWriter, reply: Answer, head_only: bool, last: bool) -> bool:
    """Send an answer in its way; False where the connection cannot be used again."""
    if reply.delay:
        await asyncio.sleep(reply.delay)
    if reply.way == "reset":
        writer.transport.abort()
        return False
    flood = reply.way in ("huge", "endless")
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in reply.headers]
    if reply.way == "endless":
        lines.append("Transfer-Encoding: chunked")
    else:
        lines.append(f"Content-Length: {HUGE if flood else len(reply.body)}")
    lines.append(f"Connection: {'close' if last or reply.way else 'keep-alive'}")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    if head_only:
        await writer.drain()
        return not reply.way
    if flood:
        await _flood(writer, reply.body, chunked=reply.way == "endless")
    elif reply.way == "cut":
        writer.write(reply.body[: len(reply.body) // 2])
    elif reply.drip:
        size = -(-len(reply.body) // DRIPS)
        for start in range(0, len(reply.body), size):
            await asyncio.sleep(reply.drip / DRIPS)
            writer.write(reply.body[start : start + size])
            await writer.drain()
    else:
        writer.write(reply.body)
    await writer.drain()
    return not reply.way


async def _flood(writer: asyncio.StreamWriter, start: bytes, chunked: bool) -> None:
    piece, sent = start.ljust(PIECE, b"\0"), 0
    while sent < FLOOD:
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        await writer.drain()
        piece, sent = bytes(PIECE), sent + len(piece)


@contextlib.contextmanager
def running_server(log: Path | None = None) -> Iterator[int]:
    """Serve from a thread of this process; gives the port. For tests."""
    ready: queue.SimpleQueue[tuple[int, Callable[[], object]]] = queue.SimpleQueue()

    async def run(out: TextIO | None) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        stop = functools.partial(loop.call_soon_threadsafe, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await serve(log=out, started=lambda port: ready.put((port, stop)))

    with contextlib.ExitStack() as stack:
        out = stack.enter_context(log.open("a", encoding="utf-8")) if log else None
        thread = threading.Thread(target=lambda: asyncio.run(run(out)), daemon=True)
        thread.start()
        port, stop = ready.get(timeout=STARTS_WITHIN)
        try:
            yield port
        finally:
            stop()
            thread.join()


@contextlib.contextmanager
def child_server(log: str | Path | None = None, max_seconds: float = 3600.0) -> Iterator[int]:
    """Serve from a child process; gives the port. The child does not outlive this process."""
    with tempfile.TemporaryDirectory() as folder:
        port_file = Path(folder) / "port"
        command = [sys.executable, "-m", "pipeline.demo.server", "--port-file", str(port_file)]
        command += ["--parent", str(os.getpid()), "--max-seconds", str(max_seconds)]
        command += ["--log", str(Path(log).resolve())] if log else []
        root = Path(__file__).resolve().parents[2]
        child = subprocess.Popen(command, cwd=root, stdin=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + STARTS_WITHIN
            while not port_file.exists():
                if child.poll() is not None or time.monotonic() > deadline:
                    raise UserError("the demo's server did not start: see its message above")
                time.sleep(0.02)
            yield int(port_file.read_text())
        finally:
            child.terminate()
            child.wait()


def main(arguments: list[str] | None = None) -> None:
    """Serve as a child process, until the parent is gone, time is up, or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.demo.server", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (0: a free one)")
    parser.add_argument("--port-file", type=Path, help="written once the server listens")
    parser.add_argument("--log", type=Path, help="access log to append to")
    parser.add_argument("--max-seconds", type=float, default=3600.0, help="stop after this time")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="process to end with")
    options = parser.parse_args(arguments)

    def started(port: int) -> None:
        if options.port_file:
            draft = options.port_file.with_name(f".{options.port_file.name}.tmp")
            draft.write_text(f"{port}\n")
            draft.replace(options.port_file)
        else:
            print(f"http://{ADDRESS}:{port}/", flush=True)

    async def run(log: TextIO | None) -> None:
        task = asyncio.create_task(serve(options.port, log, started))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        deadline = time.monotonic() + options.max_seconds
        while not task.done() and os.getppid() == options.parent and time.monotonic() < deadline:
            await asyncio.wait([task], timeout=0.25)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    with contextlib.ExitStack() as stack:
        out = options.log and stack.enter_context(options.log.open("a", encoding="utf-8"))
        try:
            asyncio.run(run(out))
        except KeyboardInterrupt:
            pass
        finally:
            if options.port_file:
                options.port_file.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
