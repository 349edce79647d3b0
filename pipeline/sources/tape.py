"""A window on a file's unpacked bytes that knows where they stand in the file."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.sources.members import Piece


class Tape:
    """The bytes `data[at:]` are next; `fill` adds to them, passing forgets what is before.

    A damaged member ends the window: nothing is added until `pass_void`. `cut` is set once the
    window has reached the end of a file that ends within a member.
    """

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces
        self._next: Piece | None = next(pieces, None)
        self._marks: list[tuple[int, Piece]] = []  # where in data each piece starts
        self.data = b""
        self.at = 0
        self.cut = False

    @property
    def left(self) -> int:
        """Bytes of the window from `at` on."""
        return len(self.data) - self.at

    @property
    def offset(self) -> int:
        """Where the byte at `at` stands in the file: its member, or itself in a plain file."""
        for place, piece in reversed(self._marks):
            if place <= self.at and (self.at < len(self.data) or self._next is None):
                return piece.offset + (self.at - place if piece.plain else 0)
        return self._next.offset if self._next else 0

    @property
    def at_void(self) -> bool:
        """Whether a damaged member follows the window."""
        return self._next is not None and self._next.data is None

    @property
    def at_end(self) -> bool:
        """Whether the file's end follows the window."""
        return self._next is None

    @property
    def at_member(self) -> bool:
        """Whether another member follows the window."""
        return self._next is not None and self._next.first

    @property
    def at_record(self) -> bool:
        """Whether a member that starts with a WARC record follows the window."""
        return self.at_member and (self._next.data or b"").startswith(b"WARC/")

    def fill(self, n: int, stop_at_record: bool = False) -> bool:
        """Adds pieces until n bytes are left; False if damage, the end or a record comes before."""
        if self.left >= n:
            return True
        parts = [self.data[self.at :]] if self.left else []
        marks = [(place - self.at, piece) for place, piece in self._marks]
        past = [mark for mark in marks if mark[0] <= 0]
        self._marks = (past[-1:] if parts else []) + [mark for mark in marks if mark[0] > 0]
        size = self.left
        while size < n and self._next is not None and self._next.data is not None:
            if stop_at_record and self.at_record:
                break
            self._marks.append((size, self._next))
            parts.append(self._next.data)
            size += len(self._next.data)
            self.cut = self._next.cut
            self._next = next(self._pieces, None)
        self.data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.at = 0
        return size >= n

    def grow(self) -> bool:
        """Adds a piece; False at the end and before a damaged member."""
        piece = self._next
        if self.at < len(self.data) or piece is None or piece.data is None:
            return self.fill(self.left + 1)
        self.data, self.at, self.cut, self._marks = piece.data, 0, piece.cut, [(0, piece)]
        self._next = next(self._pieces, None)
        return self.left > 0 or self.grow()

    def skip(self, n: int) -> bool:
        """Passes n bytes without keeping them; False where `fill` would be."""
        while self.left < n:
            n -= self.left
            self.at = len(self.data)
            if self.at_record or not self.grow():
                return False
        self.at += n
        return True

    def pass_void(self) -> None:
        """Forgets the window and passes the damaged member after it."""
        self.data, self.at, self._marks = b"", 0, []
        self._next = next(self._pieces, None)
