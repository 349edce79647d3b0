"""The web of `benchmarks.soak`: hosts that serve real pictures, and hosts that misbehave.

    python -m benchmarks.soak_web FOLDER

A process of its own on loopback: makes its pictures, prints its ports as a line of JSON and ends
when its standard input does. The ways to misbehave are those of the tests' server, tests/faulty.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections import deque
from pathlib import Path

from benchmarks.pictures import write_pictures
from tests.faulty import CERTIFICATE, EXPIRED, FaultyServer, answer

TRUSTED = "tls.test"  # the one name that the certificate is for
PICTURES, SIDE, PROGRESSIVE = 200, 500, 0.1
KEPT = 1000  # requests in the log
# A way to misbehave: which server, or `no tls`, `no name`, and the path: `{fresh}` is a new
# host and port, `{number}` a new number.
WAYS: dict[str, tuple[str, str]] = {
    "hangs before the head": ("http", "/silent"),
    "hangs in the body": ("http", "/silent-body"),
    "drips the head": ("http", "/drip"),
    "drips the body": ("http", "/drip-body"),
    "resets": ("http", "/reset"),
    "announces a terabyte": ("http", "/lies"),
    "sends less than it says": ("http", "/cut-short"),
    "says two lengths": ("http", "/two-lengths"),
    "endless body": ("http", "/endless"),
    "endless headers": ("http", "/endless-headers"),
    "hints for ever": ("http", "/only-hints"),
    "gzip bomb": ("http", "/gzip-bomb"),
    "Brotli bomb": ("http", "/brotli-bomb"),
    "gzip cut short": ("http", "/gzip-cut"),
    "redirects in a circle": ("http", "/loop-a"),
    "redirects without end": ("http", "/chain/9"),
    "redirects to metadata": ("http", "/to?http://169.254.169.254/latest/"),
    "redirects to a file": ("http", "/to?file:///etc/passwd"),
    "redirects to a new host": ("http", "/to?http://{fresh}/ok.jpg"),
    "redirects to no host": ("http", "/to?http://new{number}.example/ok.jpg"),
    "no such host": ("no name", "/ok.jpg"),
    "429 with Retry-After": ("http", "/limited"),
    "503": ("http", "/status/503"),
    "bursts of 503": ("http", "/burst/4"),
    "500 at first": ("http", "/flaky/{number}"),
    "certificate expired": ("expired", "/ok.jpg"),
    "certificate of another name": ("tls", "/ok.jpg"),
    "no TLS where it should be": ("no tls", "/ok.jpg"),
    "no HTTP": ("http", "/garbage"),
    "status that is none": ("http", "/bad-status"),
    "bad chunks": ("http", "/bad-second-chunk"),
    "many headers": ("http", "/many-headers"),
    "a long header": ("http", "/long-header"),
    "truncated picture": ("http", "/cut.jpg"),
    "a page for a picture": ("http", "/html.jpg"),
    "nothing": ("http", "/empty"),
    "opts out": ("http", "/noai"),
}


class Web(FaultyServer):
    """The tests' server with real pictures under /picture/NAME; its log is short."""

    def __init__(
        self, pictures: dict[str, bytes], tls_folder: Path | None, certificate: str
    ) -> None:
        super().__init__(tls_folder, certificate)
        self.log = deque(maxlen=KEPT)
        self._pictures = pictures

    async def _answer(self, path: str, host: str, writer: asyncio.StreamWriter) -> None:
        if path.startswith("/picture/"):
            writer.write(self._pictures[path.rpartition("/")[2]])
        elif path == "/limited":
            writer.write(answer(b"", "text/plain", "429 Too Many", Retry_After="2"))
        else:
            await super()._answer(path, host, writer)


def main(folder: Path) -> None:
    """Serves until the standard input ends."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # who hangs up on a bomb is no news
    paths = write_pictures(folder / "pictures", SIDE, PICTURES, PROGRESSIVE)
    pictures = {path.name: answer(path.read_bytes()) for path in paths}
    places = {"http": (None, CERTIFICATE), "tls": (folder, CERTIFICATE)}
    places["expired"] = (folder, EXPIRED)
    servers = {name: Web(pictures, *place) for name, place in places.items()}
    with contextlib.ExitStack() as stack:
        for server in servers.values():
            stack.enter_context(server)
        print(json.dumps({name: server.port for name, server in servers.items()}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
