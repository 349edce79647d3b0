"""What the tests of takedowns share."""

from pathlib import Path

from wit.takedown import make_request


def named(**values: list[str]) -> object:
    return make_request({kind.replace("_", "-"): found for kind, found in values.items()})


def state(folder: str) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of every file of a folder."""
    files = [path for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(f.relative_to(folder)): (f.read_bytes(), f.stat().st_mtime_ns) for f in files}
