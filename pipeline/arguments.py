"""The command line of `wit harvest`: every option with what it means."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from pipeline import engine
from pipeline.forecast import options as forecast
from wit.console import Arguments, parse_size
from wit.errors import UserError

LOCAL_RUNNER = "FnApiRunner"
MOST_WAVES = 100
RUNNERS = ("FlinkRunner", "SparkRunner", "DataflowRunner", "PortableRunner", "PrismRunner")
REFUSED_RUNNERS = {
    "DirectRunner": "it is a different engine on each machine",
    "DaskRunner": "it loses data silently",
}
Add = Callable[..., argparse.Action]  # a group's add_argument
EXAMPLES = """
examples:
  a small web that comes with the program, in two minutes
      wit demo --out demo
  Conceptual Captions as published, at most 100 pairs a query
      wit harvest cc3m.tsv --queries queries.parquet --per-query 100 \\
          --contact you@example.org --out cc3m
  ten files of a Common Crawl
      wit harvest cc:CC-MAIN-2024-22 --files 10 --queries queries.parquet \\
          --contact you@example.org --out crawl
  the same on a Flink cluster: options that are not ours go to Beam
      wit harvest cc:CC-MAIN-2024-22 ... --out s3://bucket/crawl --lanes 512 \\
          --runner FlinkRunner --flink_master=host:8081

The same command resumes a run that was stopped, killed or short of disk.
"""


def parser() -> argparse.ArgumentParser:
    """Returns the parser of `wit harvest`."""
    top = Arguments(
        prog="wit harvest",
        description="Harvest (image, text) pairs whose text includes a query, at most so many a "
        "query, into WebDataset and Parquet shards.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = top.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="WARC, WAT, ARC or table (Parquet, CSV, TSV, JSONL) files, local or remote; a glob; "
        "a folder; @FILE with a path a line; cc:CRAWL-ID[:wat|:warc]",
    )
    add("--out", metavar="DIR", help="output folder, local or remote")
    add(
        "--queries",
        required=True,
        metavar="FILE",
        help="query list: Parquet with a column `query`, a JSON list of strings, or a text file "
        "with a query a line",
    )
    _add_choice(top.add_argument_group("which pairs"))
    _add_inputs(top.add_argument_group("inputs").add_argument)
    _add_pictures(top.add_argument_group("pictures").add_argument)
    _add_manners(top.add_argument_group("manners").add_argument)
    engine.add_options(top.add_argument_group("engine").add_argument)
    _add_work(top.add_argument_group("work").add_argument)
    forecast.add_options(top.add_argument_group("forecast").add_argument)
    return top


def _add_choice(group: argparse._ArgumentGroup) -> None:
    add, size = group.add_argument, group.add_mutually_exclusive_group().add_argument
    size("--per-query", type=_positive, metavar="T", help="pairs a query (default: 20000)")
    size("--pairs", type=_positive, metavar="N", help="solve the cap for about N pairs instead")
    add(
        "--sampling",
        choices=["independent", "shared"],
        default="independent",
        help="each query draws by itself, or all in one order, which fills the caps with fewer "
        "pictures (default: %(default)s)",
    )
    add(
        "--match",
        choices=["default", "metaclip"],
        default="default",
        help="normalise text and query, or match exactly as MetaCLIP does (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="of the draw (default: %(default)s)")
    add(
        "--texts-per-image",
        type=_positive,
        default=1,
        metavar="N",
        help="distinct texts kept for one image URL (default: %(default)s)",
    )
    length = {"type": _positive, "metavar": "N"}
    add("--min-text", default=1, help="characters at least (default: %(default)s)", **length)
    add("--max-text", default=1000, help="characters at most (default: %(default)s)", **length)
    add(
        "--language",
        action="append",
        default=[],
        metavar="CODE",
        help="keep texts in this language only, as en or de; may be repeated",
    )
    add("--identify-language", action="store_true", help="fill the language column")


def _add_inputs(add: Add) -> None:
    add("--url-column", metavar="NAME", help="of tables; recognised by name unless set")
    add("--text-column", metavar="NAME", help="of tables; recognised by name unless set")
    add("--files", type=_positive, metavar="N", help="take only N of cc:'s files, by stable hash")
    add(
        "--common-crawl",
        choices=["https", "s3"],
        default="https",
        help="where cc: reads from (default: %(default)s)",
    )


def _add_pictures(add: Add) -> None:
    pixels = {"type": _positive, "metavar": "PIXELS"}
    add("--image-size", default=256, help="of the resized side (default: %(default)s)", **pixels)
    add(
        "--resize-mode",
        choices=["border", "keep_ratio", "keep_ratio_largest", "center_crop", "no"],
        default="keep_ratio",
        help="as img2dataset's: keep_ratio fits the shorter side, keep_ratio_largest the longer, "
        "border pads to a square, center_crop cuts one, no keeps the size (default: %(default)s)",
    )
    add("--upscale", action="store_true", help="resize pictures that are smaller, too")
    add(
        "--encode-quality",
        type=_positive,
        default=95,
        metavar="1-100",
        help="of JPEG, where a picture must be encoded again (default: %(default)s)",
    )
    add(
        "--max-picture-bytes",
        type=_positive,
        default=20_000_000,
        metavar="N",
        help="of a picture as it is sent (default: %(default)s)",
    )
    add(
        "--max-pixels", default=100_000_000, help="before decoding (default: %(default)s)", **pixels
    )
    add(
        "--placeholder-urls",
        type=_count,
        default=10,
        metavar="N",
        help="a picture under N URLs with N texts is left out; 0 keeps all (default: %(default)s)",
    )


def _add_manners(add: Add) -> None:
    number = {"type": _positive, "metavar": "N"}
    add(
        "--contact",
        metavar="URL|MAIL",
        help="where the owner of a host reaches you: part of the user agent, and needed to fetch",
    )
    add(
        "--blocklist",
        action="append",
        default=[],
        metavar="FILE",
        help="what is not to be asked for or stored, an entry a line: `url https://...`, `host "
        "example.org` (with all below it), `page-host example.org`, `sha256 HEX`, `pair HEX`; may "
        "be repeated, and be longer when the run is resumed",
    )
    add("--user-agent", metavar="TEXT", help="the whole user agent, with a contact in it, instead")
    add(
        "--host-rate",
        type=float,
        default=5.0,
        metavar="PER_SECOND",
        help="requests to one host over all workers; 0 is no limit (default: %(default)s)",
    )
    add(
        "--host-concurrency",
        default=2,
        help="requests to one host at a time (default: %(default)s)",
        **number,
    )
    add(
        "--address-concurrency",
        type=_count,
        metavar="N",
        help="requests to one IP address at a time in a process, however many hosts it has; 0 is "
        "no limit (default: 16, and none for --allow-address and --resolve)",
    )
    add(
        "--give-up-after",
        type=_count,
        default=5,
        metavar="N",
        help="failures of a host in a row, and one more after half a minute: the rest of its "
        "pictures are not asked for in this shard; 0 never gives up (default: %(default)s)",
    )
    add(
        "--no-tdmrep",
        action="store_true",
        help="do not ask each host for its /.well-known/tdmrep.json, by which it may reserve text "
        "and data mining (default: ask once, after robots.txt)",
    )
    seconds = {"type": float, "metavar": "SECONDS"}
    add(
        "--timeout",
        default=60.0,
        help="for one picture with all its redirects (default: %(default)s)",
        **seconds,
    )
    add(
        "--connect-timeout",
        default=10.0,
        help="for a name, and for a connection with its TLS handshake (default: %(default)s)",
        **seconds,
    )
    add(
        "--read-timeout",
        default=10.0,
        help="of silence, before the answer and within it (default: %(default)s)",
        **seconds,
    )
    add(
        "--min-speed",
        type=_count,
        default=1000,
        metavar="BYTES",
        help="a second that a body must bring once ten seconds are over (default: %(default)s)",
    )
    add(
        "--shard-timeout",
        default=3600.0,
        help="for one shard, beyond what its slowest host takes at its rate (default: %(default)s)",
        **seconds,
    )
    add(
        "--retries",
        type=int,
        default=2,
        metavar="N",
        help="after failures that may pass (default: %(default)s)",
    )
    add(
        "--concurrency",
        default=256,
        help="pictures under way in a process (default: %(default)s)",
        **number,
    )
    exact = {"action": "append", "default": []}
    add(
        "--allow-address",
        metavar="IP:PORT",
        help="reach this address although it is not public: for tests of your own",
        **exact,
    )
    add(
        "--resolve",
        metavar="HOST:IP[:PORT]",
        help="find this host there, without asking the name server",
        **exact,
    )


def _add_work(add: Add) -> None:
    add(
        "--until",
        choices=["extract", "unique", "count", "select"],
        help="stop after this stage; nothing is asked of the web",
    )
    add(
        "--max-hours",
        type=float,
        metavar="H",
        help="stop after so long: shards under way have five minutes to end, the same command goes "
        "on (default: no limit)",
    )
    add(
        "--max-bytes",
        type=parse_size,
        metavar="SIZE",
        help="stop in the same way once the pictures that this command has fetched make up so "
        "much, as 500GB (default: no limit)",
    )
    add(
        "--keep-going",
        action="store_true",
        help="go on where everything fails at once (no network, a broken codec, a blocked address)",
    )
    add(
        "--lanes",
        type=_positive,
        default=8,
        metavar="L",
        help="into which hosts are hashed; at least as many as workers (default: %(default)s)",
    )
    add(
        "--shard-size",
        type=_positive,
        default=10_000,
        metavar="PAIRS",
        help="at most 10000 (default: %(default)s)",
    )
    add(
        "--waves",
        type=_positive,
        default=4,
        metavar="N",
        help="rounds of fetching that fill up what failed (default: %(default)s)",
    )
    add(
        "--wave-hours",
        type=float,
        default=24.0,
        metavar="HOURS",
        help="of a host's rate that a wave plans at most (default: %(default)s)",
    )
    add(
        "--workers",
        type=_positive,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes on this machine (default: its cores)",
    )
    add(
        "--runner",
        default=LOCAL_RUNNER,
        metavar="NAME",
        help="Beam's runner; %(default)s is this machine, other options then go to Beam",
    )


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error
    if not 1 <= value <= 10**15:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 10**15")
    return value


def _count(text: str) -> int:
    return 0 if text.strip() == "0" else _positive(text)


def _either(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Returns our options and those left for Beam.

    Raises:
        UserError: for a runner that is not to be used, or options that do not go together.
    """
    options, beam_options = parser().parse_known_args(argv)
    if options.runner == LOCAL_RUNNER and beam_options:
        raise UserError(
            f"unknown option {beam_options[0]}; see wit harvest --help "
            "(Beam's own options go with a --runner of a cluster)"
        )
    if options.runner in REFUSED_RUNNERS:
        raise UserError(
            f"--runner {options.runner} is not used: {REFUSED_RUNNERS[options.runner]}; leave it "
            f"out for this machine ({LOCAL_RUNNER}), or name {_either(RUNNERS)}"
        )
    if options.runner not in (LOCAL_RUNNER, *RUNNERS) and "." not in options.runner:
        raise UserError(
            f"--runner {options.runner} is not known; leave it out for this machine "
            f"({LOCAL_RUNNER}), or name {_either(RUNNERS)}, or a runner's class with its module"
        )
    engine.refuse_untrue(parser(), argv, options)
    if options.shard_size > 10_000:
        raise UserError(f"--shard-size {options.shard_size}: a shard has at most 10000 samples")
    if options.min_text > options.max_text:
        raise UserError(
            f"--min-text {options.min_text} is above --max-text {options.max_text}: no text is left"
        )
    if not 0 <= options.seed < 2**64:
        raise UserError(f"--seed {options.seed}: a number from 0 to 2**64 - 1 is expected")
    if options.waves > MOST_WAVES:
        raise UserError(f"--waves {options.waves}: at most {MOST_WAVES}")
    if not options.wave_hours > 0:
        raise UserError(f"--wave-hours {options.wave_hours} is not above 0")
    if options.max_hours is not None and not options.max_hours > 0:
        raise UserError(f"--max-hours {options.max_hours} is not above 0")
    forecast.check(options)
    return options, beam_options
