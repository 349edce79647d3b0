"""One exchange as it went over the wire, for whoever archives it.

aiohttp takes the chunks of a body apart and does not keep what they were. So the head of a chunked
answer is archived as Common Crawl does: `Transfer-Encoding` under the name
`X-Crawler-Transfer-Encoding`, and a `Content-Length` of what is there. All else is as sent, content
codings too.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy

MOST_OF_ERROR = 256 * 1024  # bytes of an error's page that are archived
CHUNKED = b"transfer-encoding"


class PeerResponse(aiohttp.ClientResponse):
    """A response that remembers the address it came from: its connection may be gone soon."""

    peer: str | None = None

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        """Begin to read the answer."""
        name = connection.transport and connection.transport.get_extra_info("peername")
        self.peer = name[0] if name else None
        return await super().start(connection)


@dataclass(slots=True)
class Recording:
    """What was asked and what came back: given to `Client.request`, which fills it.

    `asked` and `head` end with their empty line; `body` is without chunks, content codings as
    sent. `truncated` is None, or why the body is not whole, in the words of WARC-Truncated.
    `moment` is Unix time. `head` is empty where no answer came to its end.
    """

    asked: bytes = b""
    head: bytes = b""
    body: bytearray = field(default_factory=bytearray)
    headers: CIMultiDictProxy[str] = field(default_factory=lambda: CIMultiDictProxy(CIMultiDict()))
    address: str | None = None
    moment: float = 0.0
    truncated: str | None = None
    _lines: list[bytes] = field(default_factory=list)
    _chunked: bool = False

    def begin(self, response: aiohttp.ClientResponse) -> None:
        """Note the request and the head of its answer."""
        request = response.request_info
        lines = [f"{request.method} {request.url.raw_path_qs} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        self.asked = _head([line.encode("utf-8", "surrogateescape") for line in lines])
        self.moment = time.time()
        self.address = getattr(response, "peer", None)
        self.headers = response.headers
        major, minor = response.version or (1, 1)
        status = f"HTTP/{major}.{minor} {response.status} {response.reason or ''}".rstrip()
        self._lines = [status.encode("utf-8", "surrogateescape")]
        self._chunked = any(name.lower() == CHUNKED for name, _ in response.raw_headers)
        for name, value in response.raw_headers:
            if self._chunked and name.lower() == b"content-length":
                continue
            self._lines.append((b"X-Crawler-" if name.lower() == CHUNKED else b"") + name)
            self._lines[-1] += b": " + value

    def end(self) -> None:
        """Write the head: the body is as long as it will be."""
        length = [b"Content-Length: %d" % len(self.body)] if self._chunked else []
        self.head = _head(self._lines + length)

    async def drain(self, response: aiohttp.ClientResponse) -> int:
        """Read the page of an error or a redirect, up to MOST_OF_ERROR; the bytes that came."""
        try:
            async for chunk in response.content.iter_any():
                self.body += chunk
                if len(self.body) > MOST_OF_ERROR:
                    del self.body[MOST_OF_ERROR:]
                    self.truncated = "length"
                    response.close()
                    break
        except (aiohttp.ClientError, OSError):
            self.truncated = "disconnect"
            response.close()
        self.end()
        return len(self.body)


def _head(lines: list[bytes]) -> bytes:
    return b"\r\n".join([*lines, b"", b""])
