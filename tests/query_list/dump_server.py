"""A small dumps.wikimedia.org on 127.0.0.1 that fails as it is told to.

It knows Range, If-Range and entity tags, keeps a log of what was asked, and counts how many
requests it answers at once.
"""

import hashlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

MODIFIED = "Tue, 01 Sep 2026 10:00:00 GMT"
Fault = Callable[["Handler", bytes], bool]  # answers, or leaves it to the server (False)


class Asked(NamedTuple):
    """A request."""

    seconds: float
    method: str
    path: str
    headers: dict[str, str]


class DumpServer:
    """Serves `files` (path -> bytes) while the `with` block lasts.

    `faults[path]` are used up one a GET of that path; `always[path]` is not used up.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.always: dict[str, Fault] = {}
        self.log: list[Asked] = []
        self.delay = 0.0  # seconds before each answer to a GET
        self.at_once = self.most_at_once = 0
        self.exhausted = False  # whether an answer without an end was read to its end
        self.lock = threading.Lock()

    def __enter__(self) -> "DumpServer":
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.dumps = self
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def asked(self, method: str, ending: str = "") -> list[Asked]:
        """The requests of a method for paths that end so."""
        return [one for one in self.log if one.method == method and one.path.endswith(ending)]

    def add_dump(self, wiki: str, day: str, files: dict[str, bytes], **jobs: str) -> None:
        """Adds a dump of these files; `jobs` are states of jobs other than `done`."""
        folder = f"/{wiki}/{day}"
        status: dict[str, dict] = {}
        for name, data in files.items():
            whole = "multistream.xml" in name and len(files) > 1
            job = "articlesmultistreamdump" + ("recombine" if whole else "")
            said = {"size": len(data), "sha1": hashlib.sha1(data).hexdigest(), "url": "/x/../y"}
            status.setdefault(job, {"status": "done", "files": {}})["files"][name] = said
            self.files[f"{folder}/{name}"] = data
        for job, state in jobs.items():
            status.setdefault(job, {"files": {}})["status"] = state
        self.files[f"{folder}/dumpstatus.json"] = json.dumps({"jobs": status}).encode()
        days = {path.split("/")[2] for path in self.files if path.startswith(f"/{wiki}/2")}
        links = "".join(f'<a href="{one}/">{one}/</a>\n' for one in [*sorted(days), "latest"])
        self.files[f"/{wiki}/"] = f"<html><pre>{links}</pre></html>".encode()


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._count(self._head)

    def do_GET(self) -> None:
        self._count(self._get)

    def _count(self, answer: Callable[[], None]) -> None:
        web = self.server.dumps
        with web.lock:
            headers = {name.lower(): value for name, value in self.headers.items()}
            web.log.append(Asked(time.monotonic(), self.command, self.path, headers))
            web.at_once += 1
            web.most_at_once = max(web.most_at_once, web.at_once)
        try:
            answer()
        finally:
            with web.lock:
                web.at_once -= 1

    def _head(self) -> None:
        data = self.server.dumps.files.get(self.path)
        if data is None:
            self.reply(404)
        else:
            self.reply(200, length=len(data), **self.version(data))

    def _get(self) -> None:
        web = self.server.dumps
        time.sleep(web.delay)
        data = web.files.get(self.path)
        faults = web.faults[self.path]
        fault = faults.pop(0) if faults else web.always.get(self.path)
        if fault is not None and fault(self, data or b""):
            return
        if data is None:
            self.reply(404, b"no such file")
            return
        data = web.files[self.path]  # a fault may have changed it
        version = self.version(data)
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range") in (None, *version.values()):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self.reply(416, b"", Content_Range=f"bytes */{len(data)}")
                return
            place = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.reply(206, data[start:], Content_Range=place, **version)
            return
        self.reply(200, data, **version)

    def version(self, data: bytes) -> dict[str, str]:
        """By what a file is known again."""
        return {"ETag": f'"{hashlib.md5(data).hexdigest()}"', "Last_Modified": MODIFIED}

    def reply(self, status: int, body: bytes = b"", length: int | None = None, **headers: str):
        """Sends an answer that may promise another length than it has."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


# --- faults -----------------------------------------------------------------------------------


def cut_at(count: int) -> Fault:
    """The connection breaks after so many bytes of the body."""

    def fault(handler: Handler, data: bytes) -> bool:
        handler.reply(200, data[:count], length=len(data), **handler.version(data))
        handler.wfile.flush()
        handler.close_connection = True
        return True

    return fault


def says(status: int, body: bytes = b"", **headers: str) -> Fault:
    """Another answer."""

    def fault(handler: Handler, data: bytes) -> bool:
        handler.reply(status, body, **headers)
        return True

    return fault


def whole(handler: Handler, data: bytes) -> bool:
    """Range is not known: everything is sent."""
    handler.reply(200, data, **handler.version(data))
    return True


def endless(handler: Handler, data: bytes) -> bool:
    """More than was announced, in chunks: 128 MB, unless the other side ends it."""
    handler.send_response(200)
    for name, value in handler.version(data).items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    try:
        for _ in range(2000):
            handler.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        handler.server.dumps.exhausted = True
    except OSError:
        handler.close_connection = True
    return True


def changes_to(data: bytes) -> Fault:
    """The file is another one from now on."""

    def fault(handler: Handler, _: bytes) -> bool:
        handler.server.dumps.files[handler.path] = data
        return False

    return fault
