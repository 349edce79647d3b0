"""Reading from stores that are far away: with patience, and many ranges at a time."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from wit import remote, storage
from wit.errors import NotAllowed, StorageError

TRIES = (0.5, 2.0, 8.0)  # seconds before a request is repeated, beside the store's own tries

T = TypeVar("T")


def patiently(path: str, read: Callable[[], T]) -> T:
    """`read()`, repeated when the store fails; a file that is absent or refused is raised at once.

    Raises:
        FileNotFoundError, StorageError: the latter after about ten seconds of trying.
    """
    for delay in (*TRIES, None):
        try:
            with storage.explained(path, "read"):
                return read()
        except (FileNotFoundError, NotAllowed):
            raise
        except Exception as error:  # stores raise what their libraries raise
            if delay is None:
                said = " ".join(str(error).split()) or type(error).__name__
                raise StorageError(
                    f"{path}: cannot be read after {len(TRIES) + 1} tries ({said}); when the store "
                    "answers again, run the same command to go on"
                ) from error
            time.sleep(delay)
    raise AssertionError("the last try returns or raises")


def read_ranges(paths: Sequence[str], ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
    """The bytes [start, end) of each path, all of one store, asked for at the same time.

    Fewer bytes where a file ends before, None where it is absent.
    """
    if not paths:
        return []
    fs, _ = remote.open_store(paths[0])
    inner = [remote.open_store(path)[1] for path in paths]
    starts, ends = [start for start, _ in ranges], [end for _, end in ranges]
    found = fs.cat_ranges(inner, starts, ends, on_error="return")
    return [
        data if isinstance(data, bytes) else _again(path, start, end, data)
        for path, (start, end), data in zip(paths, ranges, found, strict=True)
    ]


def _again(path: str, start: int, end: int, error: Exception) -> bytes | None:
    """One range that failed: the file may be absent or too short, or the store was out of sorts."""
    if isinstance(error, FileNotFoundError):
        return None
    size = patiently(path, lambda: storage.size(path))
    if size is None:
        return None
    return patiently(path, lambda: storage.read_bytes(path, start, max(start, min(end, size))))
