"""One HTTP request as a guest makes it: to a checked address, bounded in time, bytes and headers.

aiohttp speaks the protocol; what it would decide by itself is decided here. Names are resolved
once, every address is checked, and the connection goes to a checked address (no second look-up
that could answer otherwise); redirects are handed back, so that each hop is judged again; nothing
is retried, unpacked, proxied or remembered (no cookies, no environment) behind the caller's back.
TLS certificates are always verified. Other content encodings than gzip and deflate are refused:
`identity` is asked for.

HTTP/1.1 is all that is spoken. HTTP/2 saves round trips by many requests over one connection, and
a guest makes one or two at a time to a host: there is nothing to interleave, and a kept connection
saves the handshake as well. See docs/outcomes.md.
"""

import asyncio
import errno
import functools
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
import yarl
from multidict import CIMultiDictProxy

from wit.errors import UserError
from wit.outcomes import SUCCESS
from wit.web.failures import Failed, explain
from wit.web.guard import Guard, Refused, Target, parse_url
from wit.web.places import DEFAULT, PLACES
from wit.web.policy import WebPolicy
from wit.web.rates import parse_retry_after
from wit.web.recording import PeerResponse, Recording
from wit.web.resolver import GuardedResolver, Lookup, look_up
from wit.web.unpacking import unpacker

REDIRECT = "redirect"  # an Answer's outcome beside those of wit.outcomes: look at `location`
REDIRECTS = (301, 302, 303, 307, 308)
DENIED = (401, 402, 403, 407, 451)
MAX_HEADERS = 128
IDLE_SECONDS = 15.0
MAX_HEADER = 8190  # bytes of one line
MAX_DRAIN = 16 * 1024  # an error page up to this size is read, so that the connection stays of use
READ_BYTES = 256 * 1024  # as much as the event loop takes from a socket at a time
LIGHT = 1024 * 1024  # bytes; of bodies above it, HEAVY_AT_ONCE are held at a time
HEAVY_AT_ONCE = 8

Refuse = Callable[[CIMultiDictProxy[str]], tuple[str, str] | None]


@dataclass(slots=True)
class Answer:
    """What became of one request. `parts` is the body where `outcome` is success, as it came."""

    outcome: str
    target: Target
    message: str | None = None
    status: int | None = None
    content_type: str | None = None  # the media type, lower case, without parameters
    parts: Sequence[bytes] = ()
    location: Target | None = None
    retry_after: float | None = None  # seconds
    bytes_read: int = 0
    heavy: bool = False  # holds one of the HEAVY_AT_ONCE places: `Client.put_down` when done

    @property
    def body(self) -> bytes:
        """The whole body, put together anew each time."""
        return b"".join(self.parts)


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
        # For the name, the connection with its handshake, and an answer's head that may drip.
        self._head_seconds = 2 * policy.connect_seconds + 2 * policy.read_seconds
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
            response_class=PeerResponse,
            headers={
                "User-Agent": policy.user_agent,
                "Accept": "image/*,*/*;q=0.5",
                "Accept-Encoding": "identity",
            },
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=policy.connect_seconds, sock_read=policy.read_seconds
            ),
            read_bufsize=READ_BYTES,
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

    async def place_of(self, target: Target) -> str:
        """The address whose places a request to this target takes; empty where none are counted."""
        address = await self._resolver.lowest(target.host)
        excepted = self.policy.per_address_concurrency is None and self.guard.is_excepted(
            target.host, address
        )
        return "" if excepted else address

    def take_place(self, address: str) -> bool:
        """Take one of an address's places of requests at once, False where all are taken."""
        at_once = self.policy.per_address_concurrency
        return not address or PLACES.take(address, DEFAULT if at_once is None else at_once)

    def give_place(self, address: str) -> None:
        """Give a place back."""
        if address:
            PLACES.give(address)

    async def request(
        self,
        target: Target,
        *,
        seconds: float | None = None,
        max_bytes: int | None = None,
        cut: bool = False,
        keep_alive: bool = True,
        refuse: Refuse | None = None,
        headers: Mapping[str, str] = {},
        recording: Recording | None = None,
    ) -> Answer:
        """Ask for one URL, without following redirects; never raises for what a server does.

        `seconds` is the time for all of it. A body above `max_bytes` is `too_many_bytes`, or cut
        there with `cut`. `refuse` looks at the headers of a 200 and may end the request with
        (outcome, message) before the body is read. `headers` are sent instead of the client's own
        of the same names; `recording` gets what went over the wire, also the pages of errors.
        UserError where this machine has no sockets.
        """
        answer = Answer("internal_error", target)
        try:
            self.guard.admit(target)
            async with asyncio.timeout(seconds or self.policy.total_seconds):
                await self._exchange(
                    answer,
                    max_bytes or self.policy.max_bytes,
                    cut,
                    keep_alive,
                    refuse,
                    headers,
                    recording,
                )
        except (Failed, Refused) as error:
            answer.outcome, answer.message = error.outcome, error.message
        except Exception as error:
            answer.outcome, answer.message = explain(error, answer.status)
        finally:
            if answer.outcome != SUCCESS:
                answer.parts = ()
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
        self,
        answer: Answer,
        max_bytes: int,
        cut: bool,
        keep_alive: bool,
        refuse: Refuse | None,
        headers: Mapping[str, str],
        recording: Recording | None,
    ) -> None:
        url = yarl.URL(answer.target.url, encoded=True)
        sent = dict(headers) if keep_alive else {**headers, "Connection": "close"}
        session = self._kept if keep_alive else self._single
        head = asyncio.timeout(self._head_seconds)
        try:
            async with head:
                response = await session.get(url, allow_redirects=False, headers=sent)
        except TimeoutError:
            if head.expired():
                raise Failed("first_byte_timeout") from None
            raise
        async with response:
            if recording is not None:
                recording.begin(response)
            answer.status = response.status
            answer.content_type = _media_type(response.headers.get("Content-Type"))
            answer.retry_after = parse_retry_after(response.headers.get("Retry-After"), time.time())
            outcome, message = self._judge(answer, response.headers.get("Location"))
            if outcome != SUCCESS:
                if recording is not None:
                    answer.bytes_read += await recording.drain(response)
                else:
                    await _drain(response, answer)
                raise Failed(outcome, message)
            if refuse is not None and (refusal := refuse(response.headers)):
                raise Failed(*refusal)
            await self._read(response, answer, max_bytes, cut, recording)
        if not any(answer.parts):
            raise Failed("empty_body")
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
        self,
        response: aiohttp.ClientResponse,
        answer: Answer,
        max_bytes: int,
        cut: bool,
        recording: Recording | None,
    ) -> None:
        """Read and unpack the body, stopping as soon as it is larger than allowed."""
        too_many = Failed("too_many_bytes", f"more than {max_bytes} bytes")
        unpack = unpacker(response.headers.get("Content-Encoding", ""))
        if (response.content_length or 0) > max_bytes and not cut:
            raise too_many
        parts, size = list[bytes](), 0
        loop = asyncio.get_running_loop()
        begun, slow_from = loop.time(), self.policy.slow_seconds
        async for chunk in response.content.iter_any():
            answer.bytes_read += len(chunk)
            seconds = loop.time() - begun
            if seconds > slow_from and answer.bytes_read < seconds * self.policy.min_speed:
                raise Failed("too_slow", f"less than {self.policy.min_speed} bytes a second")
            if recording is not None:
                recording.body += chunk
            part = unpack(chunk, max_bytes + 1 - size) if unpack else chunk
            parts.append(part)
            size += len(part)
            if size > max_bytes or answer.bytes_read > max_bytes:
                if not cut:
                    raise too_many
                break
            if size > LIGHT and not answer.heavy:
                await self._heavy.acquire()
                answer.heavy = True
        else:
            if unpack and size and not unpack.finished:
                raise Failed("truncated_body", "the packed body is cut short")
        if size > max_bytes:
            parts[-1] = parts[-1][: max_bytes - size]
        answer.parts = parts
        if recording is not None:
            recording.end()


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
