"""What a folder of downloads holds: DIR/inputs.json."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

from wit import storage
from wit.errors import DiskFull, UserError

SOURCES = ("dump", "views", "wordnet")
INPUTS = "inputs.json"


@dataclass(frozen=True)
class File:
    """A file to download, or that was downloaded.

    Attributes:
        path: below the folder.
        url: where it is.
        kind: XML, CIRRUS, VIEWS or WORDNET, as `query_list.inputs` tells them apart.
        bytes: its size.
        last_modified: as its server says.
        sha1: of what was downloaded; before, as the server's list says, null where none does.
        sha256: of what was downloaded; null before.
        checked: by what it is known to be whole; null before.
    """

    path: str
    url: str
    kind: str
    bytes: int
    last_modified: str | None = None
    sha1: str | None = None
    sha256: str | None = None
    checked: str | None = None


@dataclass
class Source:
    """What was asked for of a source, its files, and the URLs of those that its server lacks."""

    settings: dict[str, Any]
    files: list[File]
    missing: list[str] = field(default_factory=list)


@dataclass
class State:
    """What inputs.json says; the date (YYYYMMDD, of the dump) is null where none was needed yet."""

    out: str
    wiki: str
    date: str | None = None
    sources: dict[str, Source] = field(default_factory=dict)

    def files(self) -> list[File]:
        """All files."""
        return [file for source in self.sources.values() for file in source.files]

    def wanted(self, names: tuple[str, ...]) -> list[File]:
        """The files of sources that are not there yet, or are not whole."""
        files = [file for name in names for file in self.source(name).files]
        return [file for file in files if not self.has(file)]

    def source(self, name: str) -> Source:
        """A source; one without files where nothing is known of it."""
        return self.sources.get(name, Source({}, []))

    def has(self, file: File) -> bool:
        """Whether a file was downloaded and still has its size."""
        return file.sha256 is not None and self.size(file.path) == file.bytes

    def begun(self, file: File) -> bool:
        """Whether something of a file is there."""
        return self.size(file.path) is not None or self.size(f"{file.path}.part") is not None

    def size(self, path: str) -> int | None:
        """Bytes of a file below the folder; null where it is absent."""
        return storage.size(storage.join(self.out, path))

    def agree(self, name: str, there: Any, asked: Any) -> None:
        """Raises a UserError where something else is asked for than was."""
        if there != asked:
            raise UserError(
                f"{self.out}: what is there has {name} {there}, now {asked} is asked for; choose "
                "another --out"
            )

    def note(self, done: File) -> None:
        """Writes down that a file is there."""
        for source in self.sources.values():
            source.files = [done if file.path == done.path else file for file in source.files]
        self.save()

    def save(self) -> None:
        """Writes inputs.json."""
        said: dict[str, Any] = {"wiki": self.wiki, "date": self.date}
        for name, source in self.sources.items():
            files = [asdict(file) for file in source.files]
            said[name] = {"settings": source.settings, "files": files, "missing": source.missing}
        storage.write_json(storage.join(self.out, INPUTS), said)


def open_state(out: str, wiki: str, day: str | None) -> State:
    """Returns what a folder holds; sources of which nothing came yet do not bind.

    Args:
        out: the folder.
        wiki: a database name.
        day: YYYYMMDD; null for the one there.

    Raises:
        UserError: where inputs.json is damaged, or of another wiki or date.
    """
    path = storage.join(out, INPUTS)
    if not storage.exists(path):
        return State(out, wiki, day)
    saved = storage.read_json(path)
    try:
        state = State(out, saved.pop("wiki"), saved.pop("date"))
        if state.date is not None:
            day_of(state.date)
        for name, said in saved.items():
            files = [File(**file) for file in said["files"]]
            state.sources[name] = Source(dict(said["settings"]), files, list(said["missing"]))
            if not any(state.begun(file) for file in files):
                del state.sources[name]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: not as this program writes it; remove it, and the files are checked again"
        ) from error
    if not state.sources:
        return State(out, wiki, day)
    state.agree("wiki", state.wiki, wiki)
    if day is not None:
        state.agree("date", state.date or day, day)
        state.date = day
    return state


def check_disk(state: State, wanted: list[File]) -> None:
    """Raises DiskFull where what is to come is larger than the free space."""
    needed = 0
    for file in wanted:
        there = max(state.size(file.path) or 0, state.size(f"{file.path}.part") or 0)
        needed += max(0, file.bytes - there)
    free = shutil.disk_usage(state.out).free
    if needed > free:
        raise DiskFull(
            f"{state.out}: {needed:,} bytes ({size_told(needed)}) are to come, {free:,} "
            f"({size_told(free)}) are free there; free space or choose another --out"
        )


def day_of(text: str) -> date:
    """Returns the day of YYYYMMDD; a ValueError where it is none."""
    return date.fromisoformat(f"{text[:4]}-{text[4:6]}-{text[6:]}")


def size_told(count: int) -> str:
    """Returns bytes for a person."""
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.2f} MB"


def files_told(files: list[File]) -> str:
    """Returns how many files there are and how large they are, for a person."""
    count = len(files)
    return f"{count:,} file{'s' * (count != 1)} of {size_told(sum(file.bytes for file in files))}"
