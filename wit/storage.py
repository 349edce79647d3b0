"""Files on a local disk and on anything fsspec reaches (s3://, gs://, hdfs://, memory://), alike.

Paths are strings; one without `://` (or with `file://`) is local and goes through `os`. A file
appears under its name only when it is whole: it is written to a hidden name `.NAME.ATTEMPT.tmp`
beside it, flushed to the disk and renamed. A full disk or missing rights become `UserError`s; a
file that is absent stays Python's `FileNotFoundError`.
"""

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from typing import IO, Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from wit import remote
from wit.errors import DiskFull, NotAllowed, StorageError
from wit.lock import FolderLock as FolderLock
from wit.lock import owner_text as owner_text
from wit.remote import temporary_name

ROW_GROUP = 64 * 1024  # rows
NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
REFUSED = {errno.EACCES, errno.EPERM}
WRONG_KIND = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
REMOTE_LIBRARIES = ("botocore.", "aiobotocore.", "google.", "gcsfs.", "azure.")


# --- paths ------------------------------------------------------------------------------------


def is_local(path: str) -> bool:
    """Whether the path goes through `os`."""
    return "://" not in path or path.startswith("file://")


def local_path(path: str) -> str:
    """The path as `os` wants it: without `file://`."""
    return path.removeprefix("file://")


def join(base: str, *parts: str) -> str:
    """`base/part/part`; a part that leads out of `base` is a ValueError."""
    for part in parts:
        if part.startswith("/") or "\\" in part or "\0" in part or ".." in part.split("/"):
            raise ValueError(f"{part!r} leads out of the folder {base}")
    names = [part.strip("/") for part in parts if part.strip("/")]
    if not names:
        return base
    stem = base if base.endswith("/") else f"{base}/" if base else ""
    return stem + "/".join(names)


def split(path: str) -> tuple[str, str]:
    """(folder, name) of a path; the folder of a bare name is `.`."""
    folder, slash, name = path.rpartition("/")
    return folder or slash or ".", name


@contextlib.contextmanager
def explained(path: str, verb: str = "write") -> Iterator[None]:
    """Turns what the system says about `path` into a UserError: one line, with a way on.

    `FileNotFoundError`, and all that is neither the system's nor a store's, pass unchanged.
    """
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else path
        where = path if _is_temporary(where) else where
        resume = "then run the same command again to resume"
        if error.errno in NO_SPACE:
            raise DiskFull(
                f"{where}: cannot {verb}: {os.strerror(error.errno)}; free space there, {resume}"
            ) from error
        if error.errno == errno.EROFS:
            raise NotAllowed(
                f"{where}: cannot {verb}: read-only file system; mount it writable or choose "
                f"another folder, {resume}"
            ) from error
        if error.errno in REFUSED or isinstance(error, PermissionError):
            raise NotAllowed(
                f"{where}: cannot {verb}: permission denied; give this user the rights "
                f"(remote stores: check the credentials), {resume}"
            ) from error
        if error.errno in WRONG_KIND and is_local(path):
            raise StorageError(
                f"{where}: cannot {verb}: {os.strerror(error.errno)}; a file stands where a "
                "folder is needed, or the reverse: move it away or choose another path"
            ) from error
        raise
    except Exception as error:
        if type(error).__module__.startswith(REMOTE_LIBRARIES):
            said = " ".join(str(error).split())
            raise StorageError(f"{path}: cannot {verb}: {said}") from error
        raise


# --- looking and reading ----------------------------------------------------------------------


def exists(path: str) -> bool:
    """Whether a file or folder of this name is there."""
    with explained(path, "read"):
        return os.path.exists(local_path(path)) if is_local(path) else remote.exists(path)


def is_folder(path: str) -> bool:
    """Whether a folder of this name is there."""
    with explained(path, "read"):
        return os.path.isdir(local_path(path)) if is_local(path) else remote.is_folder(path)


def size(path: str) -> int | None:
    """Bytes of the file, None where it is absent."""
    with explained(path, "read"):
        try:
            return os.stat(local_path(path)).st_size if is_local(path) else remote.size(path)
        except (FileNotFoundError, NotADirectoryError):
            return None


def list_names(folder: str) -> list[str]:
    """Names of files and folders in a folder, hidden ones too, sorted; [] where it is absent."""
    with explained(folder, "read"):
        try:
            if is_local(folder):
                return sorted(os.listdir(local_path(folder) or "."))
            return remote.list_names(folder)
        except FileNotFoundError:
            return []


def read_bytes(path: str, start: int | None = None, end: int | None = None) -> bytes:
    """The file's bytes, or those of [start, end) where given."""
    with explained(path, "read"):
        if not is_local(path):
            return remote.read_bytes(path, start, end)
        with open(local_path(path), "rb") as file:
            file.seek(start or 0)
            return file.read() if end is None else file.read(max(0, end - (start or 0)))


def open_read(path: str) -> BinaryIO:
    """The file, opened to read bytes, seekable; the caller closes it."""
    with explained(path, "read"):
        return open(local_path(path), "rb") if is_local(path) else remote.open_read(path)


def read_json(path: str) -> dict[str, Any]:
    """The JSON object of a file; anything else in it is a StorageError."""
    try:
        value = json.loads(read_bytes(path))
    except ValueError as error:
        raise StorageError(
            f"{path}: not JSON ({error}); move it away and run the command that wrote it"
        ) from error
    if not isinstance(value, dict):
        raise StorageError(f"{path}: a JSON object was expected, found {type(value).__name__}")
    return value


def read_table(path: str, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file, or some of its columns in the order asked."""
    with open_read(path) as file:
        try:
            parquet = pq.ParquetFile(file)
            present = parquet.schema_arrow.names
            missing = [name for name in columns or [] if name not in present]
            if missing:
                raise StorageError(
                    f"{path}: no column {missing[0]!r}; it has: {', '.join(present)}"
                )
            table = parquet.read(columns=columns)
        except (pa.ArrowException, OSError) as error:
            said = " ".join(str(error).split())
            raise StorageError(
                f"{path}: not a readable Parquet file ({said}); move it away and run the command "
                "that wrote it"
            ) from error
    return table if columns is None else table.select(columns)


# --- writing ----------------------------------------------------------------------------------


def make_folder(folder: str) -> None:
    """Makes a local folder and those above it; remote stores make theirs as files come."""
    if is_local(folder):
        with explained(folder):
            os.makedirs(local_path(folder) or ".", exist_ok=True)


def spool(folder: str) -> BinaryIO:
    """A nameless file to write and read back, on the folder's disk (remote: in the system's tmp).

    A killed process leaves nothing of it (O_TMPFILE), or a name that `sweep` removes.
    """
    if not is_local(folder):
        return tempfile.TemporaryFile()
    make_folder(folder)
    with explained(folder):
        return tempfile.TemporaryFile(dir=local_path(folder), prefix=".spool.", suffix=".tmp")


@contextlib.contextmanager
def open_write(path: str) -> Iterator[BinaryIO]:
    """A binary file (seekable) that stands at `path` after a clean exit, nowhere after an error."""
    with explained(path):
        if not is_local(path):
            with remote.open_write(path) as file:
                yield file
            return
        folder, name = split(path)
        make_folder(folder)
        temporary = local_path(join(folder, temporary_name(name)))
        try:
            with open(temporary, "wb") as file:
                yield file
                _flush_to_disk(file)
            os.replace(temporary, local_path(path))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def _flush_to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def write_bytes(path: str, data: bytes) -> None:
    """Writes a whole file, atomically; makes the folder; replaces what is there."""
    with open_write(path) as file:
        file.write(data)


def write_new(path: str, data: bytes) -> bool:
    """Writes the file only if it is absent, atomically; False if another was first.

    Local: link(2) of a finished temporary file. S3, Google Cloud, Azure: a conditional put.
    Elsewhere (HDFS, file systems without links) a look, then a rename: a short window stays.
    """
    with explained(path):
        if not is_local(path):
            return remote.write_new(path, data)
        folder, name = split(path)
        make_folder(folder)
        target, temporary = local_path(path), local_path(join(folder, temporary_name(name)))
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                _flush_to_disk(file)
            return _link(temporary, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def _link(temporary: str, target: str) -> bool:
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if os.path.exists(target):
            return False
        os.rename(temporary, target)
    return True


def write_json(path: str, value: Any) -> None:
    """Writes JSON with sorted keys and an indent of 1: equal values give equal bytes."""
    write_bytes(path, to_json(value))


def to_json(value: Any) -> bytes:
    """The bytes that `write_json` writes."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False)
    return text.encode("utf-8") + b"\n"


def write_table(path: str, table: pa.Table) -> None:
    """Writes Parquet (zstd): equal rows give equal bytes, however the table is cut into chunks."""
    with open_write(path) as file:
        write_parquet(table, file)


def write_parquet(table: pa.Table, file: IO[bytes]) -> None:
    """The Parquet bytes of `write_table`, into an open file."""
    pq.write_table(table.combine_chunks(), file, compression="zstd", row_group_size=ROW_GROUP)


# --- removing and renaming --------------------------------------------------------------------


def remove(path: str) -> None:
    """Removes a file; one that is absent is no error."""
    with explained(path, "remove"), contextlib.suppress(FileNotFoundError):
        if is_local(path):
            os.unlink(local_path(path))
        else:
            remote.remove(path)


def rename(old: str, new: str) -> None:
    """Gives a file another name in the same store and replaces what is there.

    Atomic on a local disk; a copy and a delete in object stores; HDFS removes the target first.
    """
    with explained(new):
        if is_local(old):
            os.replace(local_path(old), local_path(new))
        else:
            remote.rename(old, new)


def sweep(folder: str) -> list[str]:
    """Removes left-over temporary files (`.*.tmp`) in a folder and below it; their paths, sorted.

    Only for the owner of the folder (under its lock) before work starts: then every temporary
    file belongs to an attempt that is dead.
    """
    with explained(folder, "read"):
        if is_local(folder):
            walk = os.walk(local_path(folder))
            paths = [os.path.join(where, name) for where, _, names in walk for name in names]
        else:
            paths = remote.find(folder)
    found = [path for path in paths if _is_temporary(path)]
    for path in found:
        remove(path)
    return sorted(found)


def _is_temporary(path: str) -> bool:
    return split(path)[1].startswith(".") and path.endswith(".tmp")
