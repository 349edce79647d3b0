"""Whether a file came whole: by the sum that its server lists, or by what is in it."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import BinaryIO

from query_list.download.plan import WORDNET_VERSION
from query_list.download.state import File
from query_list.inputs import WORDNET, kind_of
from query_list.wordnet import read_wordnet
from wit import storage
from wit.errors import UserError

BLOCK = 1 << 20  # bytes


class Damaged(Exception):
    """A file is not what it should be."""


def check(path: str, file: File, tick: Callable[[], None]) -> File:
    """Returns a file with its sums, and by what it is known to be whole.

    A sum that the server lists decides. Where there is none the file is unpacked to its end, so
    that the CRCs in it are checked, and must hold what it should; WordNet is read.

    Args:
        path: where the file is now, under whatever name.
        file: what it should be.
        tick: is called every MB, to stop by an exception.

    Raises:
        Damaged: where it is not.
    """
    sha1, sha256 = hashlib.sha1(usedforsecurity=False), hashlib.sha256()
    for block in _read(open, path, tick):
        sha1.update(block)
        sha256.update(block)
    if file.sha1 is not None and file.sha1 != sha1.hexdigest():
        raise Damaged(f"its SHA-1 is {sha1.hexdigest()}, the list says {file.sha1}")
    checked = "sha1"
    if file.sha1 is None:
        checked = _read_wordnet(path, file) if file.kind == WORDNET else _unpack(path, file, tick)
    return replace(file, sha1=sha1.hexdigest(), sha256=sha256.hexdigest(), checked=checked)


def _unpack(path: str, file: File, tick: Callable[[], None]) -> str:
    opener = bz2.open if file.path.endswith(".bz2") else gzip.open
    try:
        for _ in _read(opener, path, tick):
            pass
    except (EOFError, zlib.error, OSError) as error:
        raise Damaged(f"it cannot be unpacked: {error}") from error
    found = kind_of(path)
    if found != file.kind:
        raise Damaged(f"it holds {found or 'something else'} where {file.kind} was expected")
    return "unpacked"


def _read_wordnet(path: str, file: File) -> str:
    # The reader goes by the name, which a .part file does not have yet.
    with tempfile.TemporaryDirectory() as folder:
        link = os.path.join(folder, storage.split(file.path)[1])
        os.symlink(os.path.abspath(path), link)
        try:
            version = read_wordnet(link).version
        except UserError as error:
            raise Damaged(str(error).replace(link, file.path)) from error
    if version != WORDNET_VERSION:
        raise Damaged(f"it is WordNet {version} where {WORDNET_VERSION} was expected")
    return f"read as WordNet {version}"


def _read(
    opener: Callable[[str, str], BinaryIO], path: str, tick: Callable[[], None]
) -> Iterator[bytes]:
    with opener(path, "rb") as file:
        while block := file.read(BLOCK):
            tick()
            yield block
