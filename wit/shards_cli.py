"""`wit shards verify`, `stats`, `show`, `index`, `takedown`: check, count, look, take out."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from wit import storage
from wit.console import Arguments
from wit.manifest import stats
from wit.verify import verify

ROWS_SHOWN = 20  # of a dry run
MOST_SHOWN = 500  # pictures of a page
SHOWN = 15  # rows of a table of counts, but of outcomes all; --json has everything


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
    _add_show(commands)
    count = commands.add_parser(
        "stats",
        help="count samples, outcomes and sizes",
        description="Counts samples by outcome, images by size, and bytes of a folder of shards.",
    )
    count.add_argument("folder", metavar="DIR", help="an output folder, or a folder of shards")
    count.add_argument("--json", action="store_true", help="everything, as JSON")
    _add_index(commands)
    _add_takedown(commands)
    options = parser.parse_args(argv)
    progress = _Progress()
    if options.command == "takedown":
        return _take_down(options, progress)
    if options.command == "index":
        return _index(options.folders, progress)
    if options.command == "show":
        from wit.show import command

        asked = (options.folder, options.wanted, options.limit, options.html, options.browser)
        for line in command(*asked, progress):
            progress.clear()
            print(line)
        return 0
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


def _add_show(commands: Any) -> None:
    show = commands.add_parser(
        "show",
        help="show some pairs: text here, pictures in a browser",
        description="Shows the sample of a key, pictures whose text includes a query, or without "
        "either some pictures: as text here, and with their pictures as a page in a browser. "
        "Reads img2dataset's folders too, and only the shards it needs.",
    )
    add = show.add_argument
    add("folder", metavar="DIR", help="an output folder, or a folder of shards")
    add(
        "wanted",
        metavar="KEY|QUERY",
        nargs="?",
        help="the key of a sample, as 000120034; or a query, of a harvest's list, or of a folder "
        "of shards any words of a text",
    )
    add("--limit", type=_number, default=24, metavar="N", help="pictures (default: %(default)s)")
    add("--html", metavar="FILE", help="where the page is written (default: a temporary file)")
    add("--no-browser", dest="browser", action="store_false", help="write the page only")


def _number(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= MOST_SHOWN:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MOST_SHOWN}")
    return number


def _add_index(commands: Any) -> None:
    index = commands.add_parser(
        "index",
        help="make others' WebDataset shards ready to be trained on",
        description="Reads the tars of a folder once and writes beside them index.json and a table "
        "of samples for each tar (index/NAME.parquet): key, text, where the picture stands. A "
        "sample without a picture or a text is left out and counted. A folder that a harvest wrote "
        "needs no index. Stopped and repeated, it goes on.",
    )
    index.add_argument("folders", metavar="DIR", nargs="+", help="a folder with *.tar")


def _index(folders: list[str], progress: "_Progress") -> int:
    """Does `wit shards index`; 0."""
    from wit.shards_index import index_shards

    for folder in folders:
        totals = index_shards(folder, progress)["totals"]
        progress.clear()
        left_out = "".join(f", {n:,} with {why}" for why, n in sorted(totals["left_out"].items()))
        print(
            f"{folder}: {totals['shards']:,} shards, {totals['successes']:,} samples"
            + (f"; left out{left_out[1:]}" if left_out else "")
        )
    return 0


def _add_takedown(commands: Any) -> None:
    down = commands.add_parser(
        "takedown",
        help="take samples out for good, by URL, host, hash or pair",
        description="Takes samples out of a harvest or of any folder of img2dataset's layout: "
        "picture, caption and addresses go, the row stays, empty. Rewrites only the shards that "
        "hold one. What was named is kept out from then on: a harvest that resumes in the folder "
        "does not ask for it. Killed and repeated, it ends the same.",
    )
    add = down.add_argument
    many: dict[str, Any] = {"action": "append", "default": []}
    add("folder", metavar="DIR", help="an output folder, or a folder of shards")
    add("--url", metavar="URL", help="of a picture, also where a redirect led", **many)
    add("--host", metavar="NAME", help="of pictures; names below it are meant, too", **many)
    add("--page-host", metavar="NAME", help="of the pages that pictures were found on", **many)
    add("--sha256", metavar="HEX", help="of the picture as it is stored", **many)
    add("--pair-id", metavar="HEX", help="of one picture with one caption", **many)
    add(
        "--list",
        metavar="FILE",
        help="a text file with an entry a line: `url https://...`, `host example.org`, `page-host "
        "example.org`, `sha256 HEX` or `pair HEX`; local or remote",
        **many,
    )
    add("--reason", metavar="TEXT", help="for the log, takedown.jsonl")
    add("--dry-run", action="store_true", help="say what would go, and change nothing")


def _take_down(options: argparse.Namespace, progress: "_Progress") -> int:
    """Does `wit shards takedown`; 0."""
    from wit.takedown import LOG, RUN, dry_run, make_request, place_of, shown_rows, takedown

    values = {"url": options.url, "host": options.host, "page-host": options.page_host}
    values |= {"sha256": options.sha256, "pair": options.pair_id}
    request = make_request(values, options.list)
    if options.dry_run:
        found = dry_run(options.folder, request, progress=progress)
        progress.clear()
        line = found.counts() | {"shards": found.shards}
        for row in shown_rows(found, ROWS_SHOWN):
            picture = "picture" if row["picture"] else "no picture"
            print(f"{row['key']}  {row['kind']:9}  {picture:10}  {row['url'] or ''}")
        if line["samples"] > ROWS_SHOWN:
            print(f"and {line['samples'] - ROWS_SHOWN:,} more")
    else:
        line = takedown(options.folder, request, reason=options.reason, progress=progress)
        progress.clear()
    verb = "would be taken" if options.dry_run else "taken"
    number = f"{line['samples']:,} sample{'' if line['samples'] == 1 else 's'}"
    shards = f"{len(line['shards']):,} shard{'' if len(line['shards']) == 1 else 's'}"
    print(f"{number} ({line['pictures']:,} with a picture) {verb} out of {shards}")
    place = place_of(options.folder)
    if not options.dry_run:
        print(f"kept out from now on; the log is {storage.join(place.records, LOG)}")
        if storage.exists(storage.join(place.home, RUN)):
            print(
                "report.html and croissant.json are removed: the harvest's own command makes them, "
                "README.md\nand coverage.parquet anew\nits folders candidates/, selection/ and "
                "lanes/ still have the text and the addresses; delete them when the harvest need "
                "not be resumed"
            )
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
        shown = len(rows) if field == "outcomes" else SHOWN
        for name, number in rows[:shown]:
            print(f"  {name:32}{number:>12,}")
        if len(rows) > shown:
            rest = sum(number for _, number in rows[shown:])
            print(f"  {f'and {len(rows) - shown} more':32}{rest:>12,}")


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


if __name__ == "__main__":
    sys.exit(main())
