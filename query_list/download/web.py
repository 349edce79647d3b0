"""Polite requests: who asks is named in each, and a server that asks to wait is waited for.

A `Web` holds one connection to a host at a time. All of them share a `Pace`: they rest together
when a server answers 429 or 503, for as long as Retry-After says.
"""

from __future__ import annotations

import contextlib
import email.utils
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urljoin

import requests
import urllib3

from query_list.download.urls import check_url, is_loopback
from wit.console import duration
from wit.errors import UserError

TIMEOUT = (30, 60)  # seconds to connect, and between two pieces of an answer
TRIES = 5  # without progress
FIRST_TRIES = 3  # while nothing has come: a missing network is told soon
PROGRESS = 1 << 20  # bytes, which make earlier failures forgotten
PAUSE = 1.0  # seconds after a failure, doubled with each
BUSY_TRIES = 10
BUSY_PAUSE = 5.0  # seconds where a busy server does not say how long
LONGEST_PAUSE = 600.0
LONGEST_WAIT = 3600.0  # seconds that a server may ask for
BLOCK = 1 << 16  # bytes
MOST_TEXT = 64 << 20  # bytes of a page or a list
MOST_FILE = 1 << 42  # bytes
REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 5
ABSENT = (404, 410)
FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)

Result = TypeVar("Result")


class Unreachable(UserError):
    """A server did not answer, or every answer broke off."""


class Stopped(Exception):
    """Another connection failed for good, or the user stops."""


class Cut(Exception):
    """An answer that did not come, or not whole, or not as asked: it is tried again."""


class Busy(Exception):
    """A server asks to wait."""

    def __init__(self, status: int, seconds: float | None) -> None:
        super().__init__(status)
        self.status, self.seconds = status, seconds


class Pace:
    """When the next request may be made, for all connections together.

    `tell` is told when a server asks to wait.
    """

    def __init__(self, tell: Callable[[str], None] = lambda line: None) -> None:
        self.tell = tell
        self.stop = threading.Event()
        self.until = 0.0  # of time.monotonic

    def rest(self, seconds: float) -> None:
        """Waits; raises Stopped at once when the others stop."""
        if self.stop.wait(max(0.0, seconds)):
            raise Stopped

    def hold(self, seconds: float) -> None:
        """Lets nobody ask for so long."""
        self.until = max(self.until, time.monotonic() + seconds)
        self.tell(f"the server asks to wait: {duration(seconds)}")

    def left(self) -> float:
        """Seconds until somebody may ask."""
        return max(0.0, self.until - time.monotonic())

    def wait(self) -> None:
        """Waits for one's turn."""
        while left := self.left():
            self.rest(left)
        self.rest(0)


@dataclass(frozen=True)
class Version:
    """What a server says of a file: bytes, and by what it would be known again."""

    size: int | None
    etag: str | None
    last_modified: str | None

    @property
    def validator(self) -> str | None:
        """What If-Range takes; a weak entity tag does not do."""
        weak = self.etag is None or self.etag.startswith("W/")
        return self.last_modified if weak else self.etag


class Web:
    """One connection to a host at a time."""

    def __init__(self, agent: str, pace: Pace, tries: int = TRIES) -> None:
        self.pace, self.tries = pace, tries
        self.session = requests.Session()
        self.session.headers.update({"User-Agent": agent, "Accept-Encoding": "identity"})

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def text(self, url: str) -> str | None:
        """Returns a page; None where there is none. At most MOST_TEXT bytes are read."""

        def read() -> str | None:
            with closing(self.ask("GET", url)) as response:
                if response.status_code in ABSENT:
                    return None
                whole(response)
                found = b""
                for block in blocks(response):
                    found += block
                    if len(found) > MOST_TEXT:
                        raise UserError(f"{url}: longer than such a page is; is it the right one?")
                return found.decode("utf-8", "replace")

        return self.steady(url, read)

    def head(self, url: str) -> Version | None:
        """Returns what the server says of a file; None where there is none."""

        def ask() -> Version | None:
            with closing(self.ask("HEAD", url)) as response:
                if response.status_code in ABSENT:
                    return None
                return version_of(whole(response))

        return self.steady(url, ask)

    def steady(
        self, url: str, work: Callable[[], Result], size: Callable[[], int] = lambda: 0
    ) -> Result:
        """Does work until it succeeds, with growing pauses; `size` is how far it came.

        Raises:
            Unreachable: after `tries` failures in which not PROGRESS bytes came.
            UserError: if a server asks to wait too often or too long.
        """
        failures = busy = before = 0
        while True:
            self.pace.wait()
            try:
                return work()
            except Busy as error:
                busy += 1
                seconds = error.seconds
                if seconds is None:
                    seconds = min(LONGEST_PAUSE, BUSY_PAUSE * 2 ** (busy - 1))
                if busy > BUSY_TRIES or seconds > LONGEST_WAIT:
                    raise UserError(
                        f"{url}: the server is busy (status {error.status}) and asks to wait; run "
                        "the same command later, it goes on from here"
                    ) from error
                self.pace.hold(seconds)
            except Cut as error:
                failures += 1
                if size() >= before + PROGRESS:
                    before, failures, busy = size(), 1, 0
                if failures >= self.tries:
                    raise Unreachable(f"{url}: {error}") from error
                self.pace.rest(min(LONGEST_PAUSE, PAUSE * 2 ** (failures - 1)))

    def ask(
        self, method: str, url: str, headers: dict[str, str] | None = None
    ) -> requests.Response:
        """Returns an open answer of status 200, 206, 404, 410 or 416, from wherever redirects lead.

        Raises:
            Cut, Busy: what may pass.
            UserError: a refusal, or a redirect to what is not https.
        """
        plain = is_loopback(url)
        for _ in range(MOST_REDIRECTS + 1):
            self.session.trust_env = not is_loopback(url)  # a proxy does not reach this machine
            try:
                response = self.session.request(
                    method,
                    url,
                    headers=headers,
                    stream=True,
                    timeout=TIMEOUT,
                    allow_redirects=False,
                )
            except FAILURES as error:
                raise Cut(told(error)) from error
            status = response.status_code
            if status not in REDIRECTS:
                break
            response.close()
            target = urljoin(url, response.headers.get("Location", ""))
            check_url(target, f"{url}: redirected", plain)
            url = target
        if status in (200, 206, 416, *ABSENT):
            return response
        response.close()
        if status in (429, 503):
            raise Busy(status, _retry_after(response))
        if status >= 500 or status == 408:
            raise Cut(f"the server answers with status {status}")
        hint = "choose another --mirror or bring the file by hand"
        if status == 403:
            hint = "Wikimedia's servers want a user agent with a contact: see --contact"
        raise UserError(f"{url}: the server refuses with status {status}; {hint}")


def whole(response: requests.Response) -> requests.Response:
    """Returns an answer to a request without Range; Cut where it answers another one."""
    if response.status_code != 200:
        raise Cut(f"the server answers with status {response.status_code} what was not asked")
    return response


def version_of(response: requests.Response) -> Version:
    """Returns what the head of an answer says of the file."""
    length = response.headers.get("Content-Length", "")
    known = length.isascii() and length.isdecimal() and int(length) <= MOST_FILE
    headers = response.headers
    return Version(
        int(length) if known else None, headers.get("ETag"), headers.get("Last-Modified")
    )


def blocks(response: requests.Response) -> Iterator[bytes]:
    """Yields an answer's bytes as they were sent: what is packed stays packed."""
    while True:
        try:
            block = response.raw.read(BLOCK, decode_content=False)
        except FAILURES as error:
            raise Cut(told(error)) from error
        if not block:
            return
        yield block


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that a server asks to wait, from a number or a date by its own clock."""
    said = response.headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdecimal():
        return float(said[:9])
    with contextlib.suppress(ValueError, TypeError):
        until = email.utils.parsedate_to_datetime(said).timestamp()
        now = response.headers.get("Date")
        base = email.utils.parsedate_to_datetime(now).timestamp() if now else time.time()
        return max(0.0, until - base)
    return None


def told(error: BaseException) -> str:
    """Returns what went wrong with a connection, in a few words."""
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "no answer in time"
    inner: BaseException | None = error
    for _ in range(10):
        if isinstance(inner, OSError) and inner.strerror:
            said = os.strerror(inner.errno) if inner.errno and inner.errno > 0 else inner.strerror
            return f"no connection ({said})"
        reason = getattr(inner, "reason", None)
        inner = (
            reason if isinstance(reason, BaseException) else inner.__cause__ or inner.__context__
        )
        if inner is None:
            break
    return f"the connection broke off ({' '.join(str(error).split())[:200]})"
