"""Files over HTTP, read from front to back or in parts; what breaks off is gone on with.

Every request after the first asks for what is left (RFC 9110, section 14) of the same file: where
the server says that it is another by now, the read is an error and not a mixture.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import requests
import urllib3

from wit import __version__, storage
from wit.errors import UserError

WEB = ("http://", "https://")
Tell = Callable[[str], None]
CAUSE = re.compile(r"Caused by (\w+)\(.*?: (.*?)[\"')]*$")  # in urllib3's errors

ATTEMPTS = 6  # without a byte between them
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 120.0  # seconds; doubled from attempt to attempt
TIMEOUT = (10, 60)  # seconds to connect, and of silence
AGENT = f"WebImageText/{__version__} (reads crawl files)"
PASSING = {408, 425, 429}  # statuses below 500 that a later attempt may not meet


class WebFile(io.RawIOBase):
    """A file at an http(s) address, opened to read; seekable.

    Its errors are UserErrors: for an answer that will stay (404, 403), for a file that changed
    while it was read, and after ATTEMPTS that failed.
    """

    def __init__(self, url: str, pause: float, advice: str, tell: Tell = lambda line: None) -> None:
        self.url = url
        self._tell = tell
        self._pause = pause
        self._advice = advice
        self._at = 0
        self._answer: requests.Response | None = None
        self._size: int | None = None
        self._tag: str | None = None
        self._session = requests.Session()

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Goes to a place; returns it."""
        if whence == io.SEEK_END:
            if self._size is None:
                self._attempt(self._connect)
            offset += self._size or 0
        elif whence == io.SEEK_CUR:
            offset += self._at
        if offset != self._at:
            self._disconnect()
            self._at = offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:
        """Reads at most len(buffer) bytes; 0 only at the end."""
        return self._attempt(lambda: self._fill(buffer))

    def close(self) -> None:
        """Lets go of the connection."""
        if not self.closed:
            self._disconnect()
            self._session.close()
        super().close()

    def _fill(self, buffer: memoryview) -> int:
        if self._size is not None and self._at >= self._size:
            return 0
        if self._answer is None:
            self._connect()
        data = self._answer.raw.read(len(buffer)) if self._answer is not None else b""
        if not data:
            self._disconnect()
            if self._size is None or self._at >= self._size:
                self._size = self._at
                return 0
            raise ConnectionError("the transfer broke off")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _attempt(self, step: Callable[[], Any]) -> Any:
        """Does a step; again, after a pause, where the network fails."""
        said: Exception | None = None
        for attempt in range(ATTEMPTS):
            if attempt:
                wished = float(getattr(said, "retry_after", 0) or 0)
                pause = max(wished, self._pause * 2 ** (attempt - 1))
                pause = min(pause, LONGEST_PAUSE)
                self._tell(
                    f"{self.url}: {_in_short(said)}; attempt {attempt + 1} of {ATTEMPTS} in "
                    f"{pause:.0f} s"
                )
                time.sleep(pause)
            try:
                return step()
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                said = error
                self._disconnect()
        raise UserError(
            f"{self.url}: not to be had after {ATTEMPTS} attempts ({_in_short(said)}); check the "
            "network, then run the same command again"
        ) from said

    def _connect(self) -> None:
        """Asks for the file from the present place on."""
        headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
        if self._at:
            headers["Range"] = f"bytes={self._at}-"
            if self._tag:
                headers["If-Range"] = self._tag
        answer = self._session.get(self.url, headers=headers, timeout=TIMEOUT, stream=True)
        status = answer.status_code
        if status == 416 and self._at:
            answer.close()
            self._size = self._at
            return
        if status >= 500 or status in PASSING:
            answer.close()
            raise _Refused(status, answer.headers.get("Retry-After", ""))
        if status not in (200, 206):
            answer.close()
            raise UserError(f"{self.url}: HTTP {status} {answer.reason}; {self._advice}")
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        length = answer.headers.get("Content-Length", "")
        start = self._at if status == 206 else 0
        size = start + int(length) if length.isdigit() else None
        if self._size is not None and (size, tag) != (self._size, self._tag):
            answer.close()
            raise UserError(f"{self.url}: changed while it was read; run the same command again")
        self._size, self._tag, self._answer = size, tag, answer
        if start < self._at:  # a server without ranges
            self._pass(self._at)

    def _pass(self, n: int) -> None:
        while n and self._answer is not None:
            data = self._answer.raw.read(min(n, 2**16))
            if not data:
                raise ConnectionError("the transfer broke off")
            n -= len(data)

    def _disconnect(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None


class _Refused(ConnectionError):
    """An answer that asks to come back later."""

    def __init__(self, status: int, retry_after: str) -> None:
        super().__init__(f"HTTP {status}")
        self.retry_after = int(retry_after) if retry_after.isdigit() else 0


def _in_short(error: Exception | None) -> str:
    text = " ".join(str(error).split())
    cause = CAUSE.search(text)
    if cause:
        return f"{cause[1]}: {cause[2][:160]}"
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


def open_web(
    url: str,
    pause: float = FIRST_PAUSE,
    advice: str = "check the address",
    tell: Tell = lambda line: None,
) -> io.BufferedReader:
    """The file at an http(s) address, opened to read bytes, seekable; the caller closes it.

    Args:
        url: the address.
        pause: seconds before the second attempt; doubled from attempt to attempt.
        advice: what to do about a status that will stay.
        tell: is told, in a line, why there will be another attempt.
    """
    return io.BufferedReader(WebFile(url, pause, advice, tell), 2**20)


def open_source(path: str) -> BinaryIO:
    """A file of a harvest, local or remote, opened to read bytes, seekable.

    Raises:
        UserError: if it is absent or cannot be read.
    """
    if path.startswith(WEB):
        return open_web(path)
    try:
        return storage.open_read(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check it") from error
