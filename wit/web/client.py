"""One HTTP request as a guest makes it: to a checked address, bounded in time, bytes and headers.

aiohttp speaks the protocol; what it would decide by itself is decided here. Names are resolved
once, every address is checked, and the connection goes to a checked address (no second look-up
that could answer otherwise); redirects are handed back, so that each hop is judged again; nothing
is retried, unpacked, proxied or remembered (no cookies, no environment) behind the caller's back.
TLS certificates are always verified. Other content encodings than gzip and deflate are refused:
`identity` is asked for.
"""

import asyncio
import errno
import functools
import os
import socket
import ssl
import time
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
import yarl
from aiohttp import http_exceptions
from multidict import CIMultiDictProxy

from wit.errors import UserError
from wit.outcomes import SUCCESS
from wit.web.guard import Guard, Refused, Target, parse_url
from wit.web.policy import WebPolicy
from wit.web.rates import parse_retry_after
from wit.web.resolver import GuardedResolver, Lookup, look_up

REDIRECT = "redirect"  # an Answer's outcome beside those of wit.outcomes: look at `location`
REDIRECTS = (301, 302, 303, 307, 308)
DENIED = (401, 402, 403, 407, 451)
MAX_HEADERS = 128
IDLE_SECONDS = 15.0
MAX_HEADER = 8190  # bytes of one line
MAX_DRAIN = 16 * 1024  # an error page up to this size is read, so that the connection stays of use
LIGHT = 1024 * 1024  # bytes; of bodies above it, HEAVY_AT_ONCE are held at a time
HEAVY_AT_ONCE = 8
OUT_OF_SOCKETS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Refuse = Callable[[CIMultiDictProxy[str]], tuple[str, str] | None]


@dataclass(slots=True)
class Answer:
    """What became of one request. `body` is set where `outcome` is success."""

    outcome: str
    target: Target
    message: str | None = None
    status: int | None = None
    content_type: str | None = None  # the media type, lower case, without parameters
    body: bytes = b""
    location: Target | None = None
    retry_after: float | None = None  # seconds
    bytes_read: int = 0
    heavy: bool = False  # holds one of the HEAVY_AT_ONCE places: `Client.put_down` when done


class _Failed(Exception):
    """Ends a request with an outcome, inside this file."""

    def __init__(self, outcome: str, message: str | None = None):
        super().__init__(outcome)
        self.outcome = outcome
        self.message = message


@functools.cache
def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """The process's one TLS context: making one costs as much CPU as many requests."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise UserError(f"{ca_file}: cannot read certificates: {error}") from error
    return context


class Client:
    """Makes requests under a policy; use it inside one event loop, as `async with Client(...)`.

    `lookup` resolves a name to addresses and blocks (it runs in a thread).
    """

    def __init__(self, policy: WebPolicy, lookup: Lookup = look_up):
        self.policy = policy
        self.guard = Guard(policy.allow_addresses, policy.resolve)
        self._heavy = asyncio.Semaphore(HEAVY_AT_ONCE)
        self._resolver = GuardedResolver(self.guard, policy, lookup)
        self._kept = self._session(force_close=False)
        self._single = self._session(force_close=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._kept.close()
        await self._single.close()
        await self._resolver.close()

    def _session(self, force_close: bool) -> aiohttp.ClientSession:
        """A session that keeps its connections for further requests, or one that closes each."""
        policy = self.policy
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            use_dns_cache=False,
            ssl=tls_context(policy.ca_file),
            limit=0,
            socket_factory=self._socket,
            **({"force_close": True} if force_close else {"keepalive_timeout": IDLE_SECONDS}),
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            headers={
                "User-Agent": policy.user_agent,
                "Accept": "image/*,*/*;q=0.5",
                "Accept-Encoding": "identity",
            },
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=policy.connect_seconds, sock_read=policy.read_seconds
            ),
            max_line_size=MAX_HEADER,
            max_field_size=MAX_HEADER,
            max_headers=MAX_HEADERS,
        )
        # A second request for a connection that was closed would go round the host's rate.
        session._retry_connection = False
        return session

    def _socket(self, info: Any) -> socket.socket:
        """Check once more, at the last place before the connection."""
        family, kind, protocol, _, address = info
        try:
            self.guard.check(address[0], address[1])
        except Refused as error:
            raise PermissionError(errno.EPERM, error.message) from None
        return socket.socket(family, kind, protocol)

    def put_down(self, answer: Answer) -> None:
        """Give back the place of a heavy body once it is no longer held."""
        if answer.heavy:
            answer.heavy = False
            self._heavy.release()

    async def request(
        self,
        target: Target,
        *,
        seconds: float | None = None,
        max_bytes: int | None = None,
        cut: bool = False,
        keep_alive: bool = True,
        refuse: Refuse | None = None,
    ) -> Answer:
        """Ask for one URL, without following redirects; never raises for what a server does.

        `seconds` is the time for all of it. A body above `max_bytes` is `too_many_bytes`, or cut
        there with `cut`. `refuse` looks at the headers of a 200 and may end the request with
        (outcome, message) before the body is read. UserError where this machine has no sockets.
        """
        answer = Answer("internal_error", target)
        try:
            self.guard.admit(target)
            async with asyncio.timeout(seconds or self.policy.total_seconds):
                await self._exchange(
                    answer, max_bytes or self.policy.max_bytes, cut, keep_alive, refuse
                )
        except (_Failed, Refused) as error:
            answer.outcome, answer.message = error.outcome, error.message
        except Exception as error:
            answer.outcome, answer.message = _explain(error, answer)
        finally:
            if answer.outcome != SUCCESS:
                answer.body = b""
                self.put_down(answer)
        return answer

    async def get(
        self,
        target: Target,
        *,
        before: Callable[[Target], Awaitable[None]],
        max_redirects: int | None = None,
        **options: Any,
    ) -> Answer:
        """Ask for a URL and follow redirects; `before` is awaited before each request (rates)."""
        limit = self.policy.max_redirects if max_redirects is None else max_redirects
        for _ in range(limit + 1):
            await before(target)
            answer = await self.request(target, **options)
            if answer.outcome != REDIRECT or answer.location is None:
                return answer
            target = answer.location
        answer.outcome, answer.message = "too_many_redirects", f"more than {limit}"
        return answer

    async def _exchange(
        self, answer: Answer, max_bytes: int, cut: bool, keep_alive: bool, refuse: Refuse | None
    ) -> None:
        url = yarl.URL(answer.target.url, encoded=True)
        headers = None if keep_alive else {"Connection": "close"}
        session = self._kept if keep_alive else self._single
        async with session.get(url, allow_redirects=False, headers=headers) as response:
            answer.status = response.status
            answer.content_type = _media_type(response.headers.get("Content-Type"))
            answer.retry_after = parse_retry_after(response.headers.get("Retry-After"), time.time())
            outcome, message = self._judge(answer, response.headers.get("Location"))
            if outcome != SUCCESS:
                await _drain(response, answer)
                raise _Failed(outcome, message)
            if refuse is not None and (refusal := refuse(response.headers)):
                raise _Failed(*refusal)
            await self._read(response, answer, max_bytes, cut)
        if not answer.body:
            raise _Failed("empty_body")
        answer.outcome = SUCCESS

    def _judge(self, answer: Answer, location: str | None) -> tuple[str, str | None]:
        """Outcome and message that a status line and a Location header give."""
        status = answer.status or 0
        message = f"HTTP {status}"
        if status in (200, 203):
            return SUCCESS, None
        if status in REDIRECTS:
            if location is None:
                return "invalid_redirect", f"{message} without a Location"
            try:
                answer.location = parse_url(location, answer.target)
            except Refused as error:
                outcome = "invalid_redirect" if error.outcome == "invalid_url" else error.outcome
                return outcome, f"redirect: {error.message}"
            return REDIRECT, message
        if status in (404, 410):
            return "not_found", message
        if status in DENIED:
            return "access_denied", message
        if status == 429:
            return "rate_limited", message
        if 400 <= status < 500:
            return "client_error", message
        return ("server_error" if 500 <= status < 600 else "unexpected_status"), message

    async def _read(
        self, response: aiohttp.ClientResponse, answer: Answer, max_bytes: int, cut: bool
    ) -> None:
        """Read and unpack the body, stopping as soon as it is larger than allowed."""
        too_many = _Failed("too_many_bytes", f"more than {max_bytes} bytes")
        coding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise _Failed("bad_content_encoding", coding[:40])
        unpack = None if coding in ("", "identity") else _Unpacker()
        if (response.content_length or 0) > max_bytes and not cut:
            raise too_many
        body = bytearray()
        async for chunk in response.content.iter_any():
            answer.bytes_read += len(chunk)
            body += unpack(chunk, max_bytes + 1 - len(body)) if unpack else chunk
            if len(body) > max_bytes or answer.bytes_read > max_bytes:
                if not cut:
                    raise too_many
                del body[max_bytes:]
                break
            if len(body) > LIGHT and not answer.heavy:
                await self._heavy.acquire()
                answer.heavy = True
        else:
            if unpack and body and not unpack.finished:
                raise _Failed("truncated_body", "the packed body is cut short")
        answer.body = bytes(body)


class _Unpacker:
    """gzip and deflate (with or without zlib's header), never giving more than asked for."""

    def __init__(self) -> None:
        self._inflate: Any = None
        self.finished = False

    def __call__(self, data: bytes, most: int) -> bytes:
        if self.finished or not data:
            return b""  # what follows the end (a second member, padding) is no part of a picture
        if self._inflate is None:
            wrapped = data[:1] == b"\x1f" or data[0] & 0x0F == 8
            self._inflate = zlib.decompressobj(wbits=47 if wrapped else -15)
        try:
            unpacked = self._inflate.decompress(data, most)
        except zlib.error:
            raise _Failed("bad_content_encoding", "the packed body is damaged") from None
        self.finished = self._inflate.eof
        return unpacked


def _media_type(value: str | None) -> str | None:
    media_type = (value or "").partition(";")[0].strip().lower()[:100]
    return media_type if media_type.isascii() and media_type.isprintable() and media_type else None


async def _drain(response: aiohttp.ClientResponse, answer: Answer) -> None:
    """Read a short error page, so that the connection can be used again."""
    length = response.content_length or 0
    if length <= MAX_DRAIN and "Transfer-Encoding" not in response.headers:
        try:
            answer.bytes_read += len(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError):
            response.close()


def _explain(error: Exception, answer: Answer) -> tuple[str, str | None]:
    """Outcome and message for what aiohttp and the system raise.

    Messages hold no addresses, ports or times: the same failure reads the same in every run.
    Raises UserError where the fault is this machine's.
    """
    number = getattr(error, "errno", None)
    if number in OUT_OF_SOCKETS:
        raise UserError(
            f"{os.strerror(number)}: the system gives no more sockets; raise `ulimit -n` or lower "
            "the number of requests at once"
        ) from error
    match error:
        case aiohttp.ConnectionTimeoutError():
            return "connect_timeout", None
        case aiohttp.ServerTimeoutError():
            return "read_timeout", None
        case TimeoutError():
            return "total_timeout", None
        case aiohttp.ClientConnectorCertificateError():
            reason = getattr(error.certificate_error, "verify_message", None)
            return "tls_failure", reason or "the certificate does not fit the name"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return "tls_failure", getattr(error.__cause__, "reason", None)
        case aiohttp.ClientConnectorError() if number == errno.EPERM:
            return "forbidden_address", "not a globally reachable address"
        case aiohttp.ClientConnectorError() if number == errno.ETIMEDOUT:
            return "connect_timeout", None
        case aiohttp.ClientConnectorError():
            return "connect_failed", os.strerror(number) if number else None
        case aiohttp.ClientPayloadError():
            broken = isinstance(error.__cause__, http_exceptions.TransferEncodingError)
            return ("invalid_response" if broken else "truncated_body"), None
        case aiohttp.ClientResponseError():
            if error.message.startswith(("Got more than", "Too many headers")):
                return "headers_too_large", None
            return "invalid_response", None
        case aiohttp.ClientConnectionError() | ConnectionError():
            return "connection_lost", None
    return "internal_error", f"{type(error).__name__}: {error}"[:200]
