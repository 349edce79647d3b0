"""The files of an evaluation set: those of a folder, of a tar, of all tars in a folder.

A path may go on into a tar: `cifar10.tar.gz/cifar10/test`. A tar that is compressed or far away is
copied to a nameless temporary file first.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from wit import remote, storage
from wit.errors import StorageError
from wit.tar_reader import BrokenTar, TarReader

TAR = re.compile(r"(.+?\.(?:tar|tar\.gz|tgz))(?:/(.*))?", re.DOTALL)


@dataclass(frozen=True)
class Files:
    """Files by name, `/` between folders, sorted; hidden ones are left out.

    places: for each (tar or folder, offset, bytes); offset -1 where the file stands by itself.
    """

    path: str
    names: list[str]
    places: list[tuple[BinaryIO | str, int, int]]

    def read(self, number: int) -> bytes:
        """The bytes of a file; may be called by several threads. Raises StorageError."""
        source, offset, size = self.places[number]
        if not isinstance(source, str):
            with storage.explained(self.path, "read"):
                return os.pread(source.fileno(), size, offset)
        path = f"{source.rstrip('/')}/{self.names[number]}"
        try:
            return storage.read_bytes(path)
        except FileNotFoundError as error:
            raise StorageError(f"{path}: was here a moment ago, and is missing now") from error


def open_files(path: str) -> Files:
    """The files of a folder, of a tar, or of the tars that a folder holds.

    Raises:
        StorageError: where there are none, for a tar that is damaged, a name that comes twice.
    """
    inside = TAR.fullmatch(path.rstrip("/"))
    if inside and not storage.is_folder(path):
        entries = list(_members(inside[1]))
        within = f"{inside[2].rstrip('/')}/" if inside[2] else ""
        found = [(n.removeprefix(within), p) for n, p in entries if n.startswith(within)]
        if entries and not found:
            raise StorageError(f"{inside[1]}: has no folder {inside[2]}, but {entries[0][0]}")
    else:
        found = list(_walk(path))
        tars = [name for name, _ in found if TAR.fullmatch(name)]
        folders = sorted({storage.split(name)[0] for name in tars})
        if len(folders) > 1:
            raise StorageError(f"{path}: has tars in {' and '.join(folders[:3])}; name one of them")
        if tars:
            found = [(n, p) for n, p in found if n not in tars]
            for name in tars:
                found += _members(storage.join(path, name))
    found = sorted(
        (item for item in found if not any(p.startswith(".") for p in item[0].split("/"))),
        key=lambda item: item[0],
    )
    if not found:
        raise StorageError(f"{path}: no files here; check the path")
    for (name, _), (after, _) in itertools.pairwise(found):
        if name == after:
            raise StorageError(f"{path}: {name} comes twice; mend or remove one of its tars")
    return Files(path, [name for name, _ in found], [place for _, place in found])


def _walk(folder: str) -> Iterator[tuple[str, tuple[str, int, int]]]:
    """(name, place) of each file in a folder and below it; links are followed."""
    if not storage.is_local(folder):
        fs, inner = remote.open_store(folder)
        with storage.explained(folder, "read"):
            for path, info in sorted(fs.find(inner, detail=True).items()):
                yield path[len(inner) :].lstrip("/"), (folder, -1, int(info["size"] or 0))
        return
    root = storage.local_path(folder)
    with storage.explained(folder, "read"):
        for where, _, names in os.walk(root, followlinks=True):
            for name in names:
                path = os.path.join(where, name)
                if not path.isprintable():
                    raise StorageError(f"{path!r}: not a printable name; give it another")
                with contextlib.suppress(FileNotFoundError):  # a link to nothing
                    yield os.path.relpath(path, root), (root, -1, os.stat(path).st_size)


def _members(path: str) -> Iterator[tuple[str, tuple[BinaryIO, int, int]]]:
    """(name, place) of each file in a tar."""
    file = _open_tar(path)
    reader = TarReader(file)
    try:
        for name, size in reader.members():
            yield name.removeprefix("./"), (file, reader.size, size)
    except BrokenTar as error:
        raise StorageError(f"{path}: {error}; get the tar again") from error


def _open_tar(path: str) -> BinaryIO:
    """A local file with the bytes of the tar, open until nothing refers to it."""
    try:
        if storage.is_local(path) and path.endswith(".tar"):
            return storage.open_read(path)
        with storage.open_read(path) as source:
            copy = storage.spool(tempfile.gettempdir())
            unpacked = source if path.endswith(".tar") else gzip.GzipFile(fileobj=source)
            shutil.copyfileobj(unpacked, copy, 1 << 20)
    except FileNotFoundError as error:
        raise StorageError(f"{path}: no such tar; check the path") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise StorageError(f"{path}: cut off or damaged ({error}); get it again") from error
    copy.seek(0)
    return copy
