"""A web server on loopback that does everything wrong on request: the path says how.

It speaks raw sockets, because a good HTTP library refuses to misbehave. It keeps a log of
(seconds, Host header, path) in the order of arrival.
"""

import asyncio
import gzip
import io
import ssl
import threading
import time
from collections import Counter
from pathlib import Path

from PIL import Image

# A key pair for the name tls.test, signed by itself: of no use anywhere else.
KEY = """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgoA9rO35fNhz2yLJN
3zpDb4IXrr7c6Zb9t1FTUuPbKlqhRANCAAQ/P+YrKFDWITbTO0bVp7fgyEn905aB
feRrDJeWqyAjrKKPsOIYmNRRj10srdpwKPSWeitW94g8BYFWqA6LkUAM
-----END PRIVATE KEY-----
"""
CERTIFICATE = """-----BEGIN CERTIFICATE-----
MIIBPjCB5aADAgECAgEBMAoGCCqGSM49BAMCMBMxETAPBgNVBAMMCHRscy50ZXN0
MCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAwWjATMREwDwYDVQQDDAh0
bHMudGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABD8/5isoUNYhNtM7RtWn
t+DISf3TloF95GsMl5arICOsoo+w4hiY1FGPXSyt2nAo9JZ6K1b3iDwFgVaoDouR
QAyjKDAmMBMGA1UdEQQMMAqCCHRscy50ZXN0MA8GA1UdEwEB/wQFMAMBAf8wCgYI
KoZIzj0EAwIDSAAwRQIhAJRLLKz4FSYAXJf3lOwmgJdyu0y36KECdRe4KkiYOrDu
AiBxlNtYEgMXe9lsWYnDY6+i7bK0GnP4v59TatPibnzIXA==
-----END CERTIFICATE-----
"""

# The same key, valid until 2021.
EXPIRED = """-----BEGIN CERTIFICATE-----
MIIBPDCB46ADAgECAgECMAoGCCqGSM49BAMCMBMxETAPBgNVBAMMCHRscy50ZXN0
MB4XDTIwMDEwMTAwMDAwMFoXDTIxMDEwMTAwMDAwMFowEzERMA8GA1UEAwwIdGxz
LnRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQ/P+YrKFDWITbTO0bVp7fg
yEn905aBfeRrDJeWqyAjrKKPsOIYmNRRj10srdpwKPSWeitW94g8BYFWqA6LkUAM
oygwJjATBgNVHREEDDAKggh0bHMudGVzdDAPBgNVHRMBAf8EBTADAQH/MAoGCCqG
SM49BAMCA0gAMEUCIAjvqaD7StXkKlHdRjqyRvWxrIgQlrHlGFGs/1bUuVD5AiEA
3tos1yltuE6/AHUhM5QXAUpPSqJUnh6jEiNqOsa5CAw=
-----END CERTIFICATE-----
"""


def picture(width: int = 320, height: int = 240, kind: str = "JPEG") -> bytes:
    """A picture with something on it."""
    image = Image.linear_gradient("L").resize((width, height))
    stored = io.BytesIO()
    Image.merge("RGB", [image, image.rotate(90), image.rotate(180)]).save(stored, kind)
    return stored.getvalue()


def answer(
    body: bytes, content_type: str = "image/jpeg", status: str = "200 OK", **headers: str
) -> bytes:
    """A well-formed HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


JPEG = picture()
FIXED = {
    "/ok.jpg": answer(JPEG),
    "/robots.txt": answer(b"User-agent: *\nDisallow: /private\n", "text/plain"),
    "/private/ok.jpg": answer(JPEG),
    "/html.jpg": answer(b"<!DOCTYPE html><html><p>Please log in</p></html>"),
    "/cut.jpg": answer(JPEG[: len(JPEG) // 2]),
    "/wrong-type": answer(JPEG, "text/html; charset=utf-8"),
    "/noai": answer(JPEG, X_Robots_Tag="noai"),
    "/noai-for-us": answer(JPEG, X_Robots_Tag="otherbot: nofollow, testbot: all, noimageai"),
    "/noindex-for-others": answer(JPEG, X_Robots_Tag="otherbot: noindex, unavailable_after: never"),
    "/expired": answer(JPEG, X_Robots_Tag="unavailable_after: 25 Jun 2010 15:00:00 PST"),
    "/tdm": answer(JPEG, TDM_Reservation="1"),
    "/empty": answer(b""),
    "/no-content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "/gzip": answer(gzip.compress(JPEG), Content_Encoding="gzip"),
    "/gzip-bomb": answer(gzip.compress(bytes(60_000_000)), Content_Encoding="gzip"),
    "/gzip-cut": answer(gzip.compress(JPEG)[:-1000], Content_Encoding="gzip"),
    "/gzip-not": answer(JPEG, Content_Encoding="gzip"),
    "/brotli": answer(b"\x0b\x02\x80hello\x03", Content_Encoding="br"),
    "/brotli-bomb": answer(bytes(60_000_000), Content_Encoding="BR"),
    "/zstd": answer(b"\x28\xb5\x2f\xfd", Content_Encoding="zstd"),
    "/packed-twice": answer(gzip.compress(gzip.compress(JPEG)), Content_Encoding="gzip, gzip"),
    "/too-long": answer(bytes(3_000_000)),
    "/lies": b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
    "/loop-a": answer(b"", status="302 Found", Location="/loop-b"),
    "/loop-b": answer(b"", status="302 Found", Location="/loop-a"),
    "/nowhere": answer(b"", status="302 Found"),
    "/two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "/bad-status": b"HTTP/1.1 2OO OK\r\nContent-Length: 0\r\n\r\n",
    "/garbage": b"SSH-2.0-OpenSSH_9.2\r\n",
    "/bad-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\nhello\r\n",
    "/bad-second-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n" + bytes(70_000) + b"zzz\r\n",
    "/many-headers": b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 5000 + b"\r\n",
    "/long-header": b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 100_000 + b"\r\n\r\n",
}


class FaultyServer:
    """Serves on a loopback address from a thread while the `with` block lasts."""

    def __init__(
        self,
        tls_folder: Path | None = None,
        certificate: str = CERTIFICATE,
        address: str = "127.0.0.1",
    ):
        self._address = address
        self.log: list[tuple[float, str, str]] = []
        self.running: Counter[str] = Counter()
        self.most_at_once: Counter[str] = Counter()
        self.most_in_all = 0
        self.robots: dict[str, bytes] = {}  # by host, instead of the fixed one
        self._seen: Counter[str] = Counter()
        self._bursts: Counter[str] = Counter()
        self._context = None
        if tls_folder is not None:
            chain = tls_folder / "tls.pem"
            chain.write_text(KEY + certificate)
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(chain)

    def __enter__(self) -> "FaultyServer":
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._run(
            asyncio.start_server(self._serve, self._address, 0, ssl=self._context)
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    @property
    def address(self) -> str:
        return f"{self._address}:{self.port}"

    def paths(self, host: str) -> list[str]:
        """What was asked of a host name, in order."""
        return [path for _, name, path in self.log if name == host]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                path = head.split(" ", 2)[1]
                lines = [line.partition(":") for line in head.split("\r\n")[1:]]
                headers = {name.lower(): value.strip() for name, _, value in lines}
                host = headers["host"].partition(":")[0]
                self.log.append((time.monotonic(), host, path))
                self.running[host] += 1
                self.most_at_once[host] = max(self.most_at_once[host], self.running[host])
                self.most_in_all = max(self.most_in_all, self.running.total())
                try:
                    await self._answer(path, host, writer)
                    await writer.drain()
                finally:
                    self.running[host] -= 1
                if headers.get("connection") == "close" or path in ENDING:
                    return
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, host: str, writer: asyncio.StreamWriter) -> None:
        self._seen[path] += 1
        first = self._seen[path] == 1
        plain, _, query = path[1:].partition("?")
        name, _, rest = plain.partition("/")
        if path == "/robots.txt" and host in self.robots:
            writer.write(answer(self.robots[host], "text/plain"))
        elif path in FIXED:
            writer.write(FIXED[path])
        elif name == "slow-ok":
            await asyncio.sleep(0.05)
            writer.write(answer(JPEG))
        elif name == "status":
            writer.write(answer(b"", "text/plain", f"{rest} Whatever"))
        elif name == "flaky":
            writer.write(answer(b"", status="500 Oops") if first else answer(JPEG))
        elif name == "busy":
            wait = {"Retry_After": rest}
            busy = answer(b"", status="429 Too Many", **wait)
            writer.write(busy if first else answer(JPEG))
        elif name == "burst":  # the host's first so many requests of this kind meet a 503
            self._bursts[host] += 1
            burst = answer(b"", status="503 Busy")
            writer.write(burst if self._bursts[host] <= int(rest.split("/")[0]) else answer(JPEG))
        elif name == "chain":
            left = int(rest)
            target = f"/chain/{left - 1}" if left else "/ok.jpg"
            writer.write(answer(b"", status="301 Moved", Location=target))
        elif name == "to":
            writer.write(answer(b"", status="302 Found", Location=query))
        elif name == "silent":
            await asyncio.sleep(30)
        elif name == "silent-body":
            writer.write(answer(JPEG)[:200])
            await asyncio.sleep(30)
        elif name == "drip":
            for byte in answer(JPEG):
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)
        elif name == "drip-body":
            head, _, body = answer(JPEG).partition(b"\r\n\r\n")
            writer.write(head + b"\r\n\r\n")
            for byte in body:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)
        elif name == "only-hints":
            while True:
                writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        elif name == "endless-headers":
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                writer.write(b"X-A: b\r\n")
                await writer.drain()
        elif name == "endless":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n")
            while True:
                writer.write(bytes(65536))
                await writer.drain()
        elif name == "cut-short":
            writer.write(answer(JPEG)[:-100])
        elif name == "reset":
            writer.transport.abort()
        else:
            writer.write(answer(b"", status="404 Not Found"))


ENDING = (
    "/bad-status",
    "/two-lengths",
    "/cut-short",
    "/lies",
    "/garbage",
    "/bad-chunk",
    "/bad-second-chunk",
    "/many-headers",
    "/long-header",
)


def fetch_one(settings, url: str, origin: str, results) -> None:
    """Put the outcomes of a run of one URL into a queue: for a process of its own."""
    from pipeline.fetch import Fetcher, HostRule, HostRules

    with Fetcher(settings) as fetcher:
        hosts = HostRules({origin: HostRule("allow_all")})
        results.put([result.outcome for result in fetcher.run([url], hosts)])
