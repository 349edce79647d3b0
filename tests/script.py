"""Python programs that a test runs beside itself."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def script(code: str, *arguments: str, wrap: tuple[str, ...] = ()) -> subprocess.Popen:
    """A Python process in the repository's root."""
    command = [*wrap, sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
