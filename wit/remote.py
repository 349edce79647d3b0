"""The remote half of `wit.storage`: fsspec stores, where a file shows whole or not at all.

Object stores put atomically, so a file goes there in one put under its name; elsewhere (HDFS,
memory) it is put under a hidden name and moved. Listings are never taken from fsspec's cache:
other processes write into the same folders.
"""

import contextlib
import secrets
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from wit.errors import StorageError

OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl"}


def open_store(path: str) -> tuple[Any, str]:
    """The fsspec file system of a path and the path inside it."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(path, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise StorageError(f"{path}: cannot be opened: {error}") from error


def is_object_store(fs: Any) -> bool:
    """Whether a put of this file system is atomic and a rename is a copy."""
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    return bool(protocols & OBJECT_STORES)


def temporary_name(name: str, attempt: str | None = None) -> str:
    """The hidden name that a file bears while it is written."""
    return f".{name}.{attempt or secrets.token_hex(8)}.tmp"


def exists(path: str) -> bool:
    """Whether a file or folder of this name is there."""
    fs, inner = open_store(path)
    return bool(fs.exists(inner))


def is_folder(path: str) -> bool:
    """Whether a folder of this name is there."""
    fs, inner = open_store(path)
    return bool(fs.isdir(inner))


def size(path: str) -> int:
    """Bytes of a file; FileNotFoundError where it is absent."""
    fs, inner = open_store(path)
    return int(fs.info(inner)["size"])


def list_names(folder: str) -> list[str]:
    """Names in a folder, sorted; FileNotFoundError where it is absent."""
    fs, inner = open_store(folder)
    inner = inner.rstrip("/")
    found = {name.rstrip("/") for name in fs.ls(inner, detail=False)} - {inner}
    return sorted({name.rpartition("/")[2] for name in found} - {""})


def read_bytes(path: str, start: int | None = None, end: int | None = None) -> bytes:
    """The bytes of [start, end)."""
    fs, inner = open_store(path)
    if end is not None and end <= (start or 0):
        return b""
    return fs.cat_file(inner, start=start, end=end)


def open_read(path: str) -> BinaryIO:
    """The file, opened to read, seekable."""
    fs, inner = open_store(path)
    return fs.open(inner, "rb")


@contextlib.contextmanager
def open_write(path: str) -> Iterator[BinaryIO]:
    """A local temporary file that is copied to `path` after a clean exit."""
    with tempfile.NamedTemporaryFile() as file:
        yield file
        file.flush()
        put(file.name, path)


def put(source: str, path: str) -> None:
    """Copies a finished local file to a remote path, atomically."""
    fs, inner = open_store(path)
    try:
        if is_object_store(fs):
            fs.put_file(source, inner)
            return
        folder, _, name = inner.rpartition("/")
        fs.makedirs(folder or "/", exist_ok=True)
        temporary = f"{folder}/{temporary_name(name)}"
        fs.put_file(source, temporary)
        _move(fs, temporary, inner)
    except FileNotFoundError as error:
        raise StorageError(f"{path}: no such bucket or folder; make it, then run again") from error


def write_new(path: str, data: bytes) -> bool:
    """Writes the file if it is absent; False if another was first.

    Atomic by a conditional put on S3, Google Cloud and Azure; elsewhere a look, then a move.
    """
    fs, inner = open_store(path)
    if not is_object_store(fs):
        if fs.exists(inner):
            return False
        with open_write(path) as file:
            file.write(data)
        return True
    try:
        fs.pipe_file(inner, data, mode="create")
    except FileExistsError:
        return False
    except FileNotFoundError as error:
        raise StorageError(f"{path}: no such bucket; make it, then run again") from error
    except OSError:
        if fs.exists(inner):  # S3 answers 409 when two conditional puts meet
            return False
        raise
    return True


def remove(path: str) -> None:
    """Removes a file; FileNotFoundError where it is absent."""
    fs, inner = open_store(path)
    fs.rm_file(inner)


def rename(old: str, new: str) -> None:
    """Gives a file another name in the same store, replacing what is there."""
    fs, inner = open_store(old)
    _move(fs, inner, open_store(new)[1])


def _move(fs: Any, old: str, new: str) -> None:
    try:
        fs.mv(old, new)
    except OSError:
        # HDFS does not move onto a file; but where `old` is gone, another process moved it first.
        if is_object_store(fs) or not (fs.exists(old) and fs.exists(new)):
            raise
        fs.rm_file(new)
        fs.mv(old, new)


def find(folder: str) -> list[str]:
    """Full paths of all files in a folder and below it, sorted; [] where it is absent."""
    fs, inner = open_store(folder)
    try:
        return sorted(fs.unstrip_protocol(name) for name in fs.find(inner))
    except FileNotFoundError:
        return []
