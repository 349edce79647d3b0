"""Byte strings that wait on the disk, so that they do not wait in memory."""

from typing import BinaryIO

from wit import storage


class Spool:
    """A nameless file of byte strings: what waits for its turn does not wait in memory."""

    def __init__(self, folder: str) -> None:
        self._file: BinaryIO = storage.spool(folder)
        self._folder = folder
        self._end = 0

    def write(self, data: bytes) -> tuple[int, int]:
        """Where the bytes are kept."""
        with storage.explained(self._folder):
            self._file.seek(self._end)
            self._file.write(data)
        self._end += len(data)
        return self._end - len(data), self._end

    def read(self, place: tuple[int, int]) -> bytes:
        """The bytes that are kept there."""
        self._file.seek(place[0])
        return self._file.read(place[1] - place[0])

    def close(self) -> None:
        """Gives the disk back."""
        self._file.close()
