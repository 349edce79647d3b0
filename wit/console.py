"""How a run looks to a person: lines that stay, and one that changes where there is a terminal."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
from typing import NoReturn, TextIO

SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*(?:([kmgtp])(i?))?b?", re.IGNORECASE)
QUIET_SECONDS = 15.0  # between two lines of progress where the output is no terminal


def duration(seconds: float) -> str:
    """Returns 4.2 s, 3:07 min or 5:12 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)}:{int(seconds % 60):02d} min"
    return f"{int(seconds // 3600)}:{int(seconds % 3600 // 60):02d} h"


def rate_of(per_second: float, unit: str) -> str:
    """Returns 12.3 MB/s, 45 pictures/s, or nothing where there is no unit."""
    if not unit:
        return ""
    if unit == "bytes":
        return f"{per_second / 1e6:,.1f} MB/s"
    return f"{per_second:,.0f} {unit}/s"


def parse_size(text: str) -> int:
    """Returns the bytes, above 0, that an option's 500GB, 1.5 TiB or 20000000 means."""
    found = SIZE.fullmatch(text.strip())
    power = " kmgtp".index((found[2] or " ").lower()) if found else 0
    size = int(float(found[1]) * (1024 if found[3] else 1000) ** power) if found else 0
    if not size:
        raise argparse.ArgumentTypeError(f"{text!r} is no size, as 500GB or 20000000 are")
    return size


class Arguments(argparse.ArgumentParser):
    """A command's arguments; what is wrong with them is said in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong and where the help is, and exits with 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class Screen:
    """Writes to standard error, so that standard output stays free for results."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out or sys.stderr
        self.live = self.out.isatty()
        self.shown = ""
        self.phase = ""
        self.due = time.monotonic() + QUIET_SECONDS

    def now(self, line: str) -> None:
        """Shows a line that the next one replaces; seldom where there is no terminal."""
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            self.out.write("\r\x1b[K" + line[:width])
            self.shown = line
        elif time.monotonic() >= self.due:
            self.due = time.monotonic() + QUIET_SECONDS
            self.out.write(line + "\n")
        self.out.flush()

    def begin(self, line: str) -> None:
        """Shows what is being done now; where there is no terminal once, and at once."""
        if self.live:
            self.now(line)
        elif line != self.phase:
            self.done(line)
        self.phase = line

    def done(self, line: str) -> None:
        """Shows a line that stays."""
        self._clear()
        self.out.write(line + "\n")
        self.out.flush()

    def _clear(self) -> None:
        if self.shown:
            self.out.write("\r\x1b[K")
            self.shown = ""

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()
        self.out.flush()
