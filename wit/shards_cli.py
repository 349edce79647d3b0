"""`wit shards verify` and `wit shards stats`: check shards and count what is in them."""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from wit.console import Arguments
from wit.manifest import stats
from wit.verify import verify

SHOWN = 15  # rows of a table of counts; --json has all


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `wit shards ...`; 0, or 1 when `verify` found problems."""
    parser = Arguments(prog="wit shards", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser(
        "verify",
        help="check every shard; exit code 1 when something is wrong",
        description="Checks files, sizes, sha256, every sample and the manifest of shards; one "
        "line a problem, with what to do. Reads img2dataset's folders too. Changes nothing.",
    )
    check.add_argument("folder", metavar="DIR", help="an output folder, or a folder of shards")
    check.add_argument(
        "--fast", action="store_true", help="names, sizes, stats and manifest only; read no tar"
    )
    show = commands.add_parser(
        "stats",
        help="count samples, outcomes and sizes",
        description="Counts samples by outcome, images by size, and bytes of a folder of shards.",
    )
    show.add_argument("folder", metavar="DIR", help="an output folder, or a folder of shards")
    show.add_argument("--json", action="store_true", help="everything, as JSON")
    options = parser.parse_args(argv)
    progress = _Progress()
    if options.command == "verify":
        problems = verify(options.folder, full=not options.fast, progress=progress)
        progress.clear()
        for problem in problems:
            print(problem)
        checked = f"{progress.total:,} shards of {options.folder}"
        if problems:
            number = "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"
            print(f"{number} in {checked}", file=sys.stderr)
            return 1
        print(f"{checked}: {'names and sizes agree' if options.fast else 'all is as it should be'}")
        return 0
    counted = stats(options.folder, progress=progress)
    progress.clear()
    if options.json:
        print(json.dumps(counted, indent=1, ensure_ascii=False))
    else:
        _show(counted)
    return 0


class _Progress:
    """One line on a terminal's stderr, at most five times a second; nothing elsewhere."""

    def __init__(self) -> None:
        self.total = 0
        self._started = time.monotonic()
        self._shown = 0.0
        self._terminal = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        self.total = total
        now = time.monotonic()
        if self._terminal and now - self._shown > 0.2:
            self._shown = now
            left = (now - self._started) / done * (total - done)
            print(f"\r{done:,} of {total:,} shards, {left:.0f} s left ", end="", file=sys.stderr)

    def clear(self) -> None:
        if self._terminal and self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _show(counted: dict[str, Any]) -> None:
    images = counted["successes"]
    print(f"{counted['shards']:,} shards, {counted['count']:,} samples, {images:,} with an image")
    for field in ("bytes", "tar_bytes", "parquet_bytes"):
        name = {"bytes": "images", "tar_bytes": "tars", "parquet_bytes": "Parquet"}[field]
        print(f"  {name:10}{_bytes(counted[field]):>12}")
    for field, title in (
        ("outcomes", "outcomes"),
        ("extensions", "formats"),
        ("languages", "languages"),
        ("attributes", "attributes"),
        ("shorter_side", "shorter side, pixels"),
        ("image_bytes", "image size, bytes"),
    ):
        rows = list(counted[field].items())
        if not rows:
            continue
        print(title)
        for name, number in rows[:SHOWN]:
            print(f"  {name:32}{number:>12,}")
        if len(rows) > SHOWN:
            rest = sum(number for _, number in rows[SHOWN:])
            print(f"  {f'and {len(rows) - SHOWN} more':32}{rest:>12,}")


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


if __name__ == "__main__":
    sys.exit(main())
