"""The files that a list is built from, told apart by what is in them, not by their names."""

from __future__ import annotations

import bz2
import re
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from wit import storage
from wit.errors import UserError

HEAD = 1 << 20  # bytes: a block of bzip2 fits
LOOK = 1 << 16  # bytes of a file's text that are looked at
XML, CIRRUS, VIEWS, WORDNET, INDEX = "xml", "cirrus", "views", "wordnet", "index"
VIEW_LINE = re.compile(rb"\S+ \S+ (?:\d+ \d+|\S+ \S+ \d+ \S+|\S+ \d+ \S+)\n")
INDEX_LINE = re.compile(rb"\d+:\d+:.+\n")
WORDNET_FILE = "data.noun"
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
BESIDE = (".json", ".sha1", ".md5", ".sha256", ".html", ".part", ".tmp")  # what lies beside inputs


class Inputs(NamedTuple):
    """What was found.

    Attributes:
        dumps: (path, XML or CIRRUS), sorted.
        views: paths, sorted.
        wordnet: a folder or archive; None where there is none.
    """

    dumps: list[tuple[str, str]]
    views: list[str]
    wordnet: str | None


def find_inputs(paths: Iterable[str]) -> Inputs:
    """Returns the inputs among files and folders (and the folders in these).

    Raises:
        UserError: for a path that does not exist, a file that is none of them, or WordNet twice.
    """
    dumps: list[tuple[str, str]] = []
    views: list[str] = []
    wordnets: list[str] = []
    for path, named in _expanded(paths):
        kind = WORDNET if _is_wordnet(path) else kind_of(path)
        if kind in (XML, CIRRUS):
            dumps.append((path, kind))
        elif kind == VIEWS:
            views.append(path)
        elif kind == WORDNET:
            wordnets.append(path)
        elif kind is None and named:
            raise UserError(
                f"{path}: neither a Wikipedia dump (XML or CirrusSearch), nor page views, nor "
                "WordNet; name one of these"
            )
    if len(wordnets) > 1:
        raise UserError(f"WordNet twice: {wordnets[0]} and {wordnets[1]}; name one of them")
    return Inputs(sorted(set(dumps)), sorted(set(views)), wordnets[0] if wordnets else None)


def _expanded(paths: Iterable[str]) -> Iterable[tuple[str, bool]]:
    """Yields (path, whether it was named itself) of files, and of folders with WordNet's files."""
    for path in paths:
        if not storage.exists(path):
            raise UserError(f"{path}: no such file or folder")
        if storage.is_folder(path):
            yield from ((inner, False) for inner in _in_folder(path))
        else:
            yield path, True


def _in_folder(folder: str) -> Iterable[str]:
    names = storage.list_names(folder)
    if WORDNET_FILE in names:
        yield folder
        return
    for name in names:
        path = storage.join(folder, name)
        if storage.is_folder(path):
            yield from _in_folder(path)
        elif not name.startswith(".") and not name.endswith(BESIDE):
            yield path


def _is_wordnet(path: str) -> bool:
    return path.endswith(ARCHIVES) or storage.is_folder(path)


def kind_of(path: str) -> str | None:
    """Returns what a file holds: XML, CIRRUS, VIEWS or INDEX; None for anything else."""
    head = _unpacked(storage.read_bytes(path, 0, HEAD))[:LOOK]
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith((b"<mediawiki", b"<?xml", b"\xff\xfe<\0m\0e\0", b"\xfe\xff\0<\0m\0e")):
        return XML
    if start.startswith(b"{"):
        return CIRRUS
    lines = head.splitlines(keepends=True)[:100]
    for kind, pattern in ((VIEWS, VIEW_LINE), (INDEX, INDEX_LINE)):
        if lines and sum(bool(pattern.fullmatch(line)) for line in lines) > len(lines) // 2:
            return kind
    return None


def _unpacked(head: bytes) -> bytes:
    """The beginning of what a file's beginning holds; empty where it is damaged."""
    try:
        if head.startswith(b"BZh"):
            return bz2.BZ2Decompressor().decompress(head, LOOK)
        if head.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(31).decompress(head, LOOK)
    except (OSError, zlib.error, EOFError):
        return b""
    return head
