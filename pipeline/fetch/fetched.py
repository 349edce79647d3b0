"""A URL on its way through the fetcher, and what is given back for it."""

import asyncio
from dataclasses import dataclass
from typing import Any

from wit.web.guard import Target


@dataclass(slots=True)
class Fetched:
    """What became of one URL; `index` is its position in what `Fetcher.run` was given.

    `outcome` is a key of `wit.outcomes.OUTCOMES`. `image` (the bytes to store, without metadata),
    `extension`, `width`, `height`, `sha256` (of `image`) and `phash` (`pipeline.fetch.phash`) are
    set on success; the original sizes (upright) as soon as they are known. `exif` is JSON of how
    the picture was taken, or None; `animated` says of a decoded file whether it has a second frame.
    `phash` and `animated` are None where another program decodes.
    `bytes_read` and `elapsed_ms` count all requests made for it.
    """

    index: int
    outcome: str
    message: str | None = None
    image: bytes | None = None
    extension: str = ""
    width: int | None = None
    height: int | None = None
    original_width: int | None = None
    original_height: int | None = None
    content_type: str | None = None
    exif: str | None = None
    sha256: str | None = None
    phash: int | None = None
    animated: bool | None = None
    final_url: str | None = None
    bytes_read: int = 0
    elapsed_ms: int = 0


@dataclass(slots=True)
class Job:
    """A URL that is not done: where it has led so far, and what that took."""

    index: int
    target: Target
    attempt: int = 0
    visited: tuple[Target, ...] = ()
    begun: float | None = None  # when the first request started
    spent: float = 0.0  # seconds in the requests of this attempt
    bytes_read: int = 0

    def result(self, **fields: Any) -> Fetched:
        """What became of it; `fields` are those of Fetched that only the caller knows."""
        now = asyncio.get_running_loop().time()
        elapsed = 0 if self.begun is None else round((now - self.begun) * 1000)
        return Fetched(
            self.index,
            final_url=self.target.url,
            bytes_read=self.bytes_read,
            elapsed_ms=elapsed,
            **fields,
        )
