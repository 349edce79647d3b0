"""`wit queries`: make query lists and look at them."""

from __future__ import annotations

import argparse
import importlib
import os

from wit import storage
from wit.console import Arguments, Screen
from wit.errors import UserError

HELP = """Make query lists and look at them.

The list of the CLIP paper: all words that occur at least 100 times in the English Wikipedia,
bigrams with high pointwise mutual information, names of articles with many page views, and WordNet.

  wit queries download --wiki enwiki --contact you@example.org --out inputs
  wit queries build inputs --out list
  wit harvest cc:CC-MAIN-2024-22 --queries list/queries.parquet ...

`wit harvest --queries` also reads a JSON list of strings, as MetaCLIP's metadata.json, and a text
file with a query a line (spaces at its ends do not count). Queries that repeat or that no text can
match are left out, and counted.
"""
BUILD = """Build a query list from Wikipedia dumps, page views and WordNet.

INPUT is a file, or a folder with files, as `wit queries download` leaves them or brought by hand.
What a file is, is seen from its content:
  dumps       enwiki-DATE-pages-articles-multistream.xml.bz2, whole or in parts; a CirrusSearch dump
  page views  pageviews-DATE-user.bz2 (daily), pageviews-DATE-HOUR.gz (hourly)
  WordNet     WNdb-3.0.tar.gz, or its folder with data.noun

The same command goes on where one was stopped. With another --size, --ratio, --min-pmi or
--min-views only the last step is done again.
"""


ROOMS = {  # loaded only when called
    "download": ("query_list.download", "fetch dumps, page views and WordNet"),
    "inspect": ("query_list.inspect", "show which queries match in a text"),
    "diff": ("query_list.diff", "compare two lists"),
}


def main(argv: list[str]) -> int:
    """Runs a subcommand; the exit code."""
    options, beam_options = parser(argv[0] if argv else "").parse_known_args(argv)
    if beam_options and options.command != "build":
        raise UserError(
            f"unknown option {beam_options[0]}; see wit queries {options.command} --help"
        )
    options.beam_options = beam_options
    return options.run(options)


def parser(called: str) -> argparse.ArgumentParser:
    """Returns the parser of `wit queries`; of the rooms only the one that is called has options."""
    top = Arguments(
        prog="wit queries",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_build(commands)
    for name, (place, text) in ROOMS.items():
        room = importlib.import_module(place) if name == called else None
        command = commands.add_parser(
            name,
            help=text,
            description=room.HELP if room else text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if room:
            room.add_arguments(command)
            command.set_defaults(run=room.run)
    _add_starter(commands)
    return top


# --- build ------------------------------------------------------------------------------------


def _add_build(commands: argparse._SubParsersAction) -> None:
    from query_list.run import SOURCES, SPLIT_BYTES
    from wit.console import parse_size
    from wit.runner import LOCAL_RUNNER

    command = commands.add_parser(
        "build",
        help="the list, from Wikipedia, page views and WordNet",
        description=BUILD,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="dumps, page views, WordNet, or their folder")
    add("--out", required=True, metavar="DIR", help="output folder, local or remote")
    add("--wiki", metavar="NAME", help="database name, as enwiki (default: what the dump says)")
    add("--size", type=_positive, default=500_000, metavar="N", help="queries (%(default)s)")
    add(
        "--sources",
        type=_sources,
        default=list(SOURCES),
        metavar="A,B",
        help=f"which of {', '.join(SOURCES)} (default: all)",
    )
    add(
        "--word-count",
        type=_positive,
        default=100,
        metavar="N",
        help="occurrences from which a word is in (%(default)s)",
    )
    add(
        "--bigram-count",
        type=_positive,
        metavar="N",
        help="occurrences from which a bigram's PMI counts (default: --word-count)",
    )
    add(
        "--ratio",
        type=_ratio,
        default=[100_646, 61_235],
        metavar="B:T",
        help="shares of bigrams and titles in what words and WordNet leave (100646:61235)",
    )
    add("--min-pmi", type=float, metavar="BITS", help="take bigrams from this PMI on instead")
    add("--min-views", type=_positive, metavar="N", help="take titles from so many views instead")
    work = command.add_argument_group("work").add_argument
    work(
        "--split-bytes",
        type=parse_size,
        default=SPLIT_BYTES,
        metavar="SIZE",
        help="of a dump that a task reads; the list is the same for any (32 MiB)",
    )
    work("--workers", type=_positive, default=os.cpu_count() or 1, metavar="N", help="processes")
    work(
        "--runner",
        default=LOCAL_RUNNER,
        metavar="NAME",
        help="Beam's runner; %(default)s is this machine, other options then go to Beam",
    )
    command.set_defaults(run=_build)


def _build(options: argparse.Namespace) -> int:
    from query_list.build import build
    from wit import runner

    runner.check_name(options.runner, options.beam_options, "wit queries build")
    build(options, options.beam_options)
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _sources(text: str) -> list[str]:
    from query_list.run import SOURCES

    names = text.split(",")
    for name in names:
        if name not in SOURCES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(SOURCES)}")
    return names


def _ratio(text: str) -> list[float]:
    try:
        shares = [float(part) for part in text.split(":")]
    except ValueError:
        shares = []
    if len(shares) != 2 or not all(0 <= share < 1e12 for share in shares) or not sum(shares):
        raise argparse.ArgumentTypeError(f"{text!r} is no ratio, as 100646:61235 is")
    return shares


# --- starter ----------------------------------------------------------------------------------


def _add_starter(commands: argparse._SubParsersAction) -> None:
    starter = commands.add_parser(
        "starter",
        help="a list of about 400,000 queries, made offline",
        description="Make a starter list offline, from WordNet's lemmas and the English words of "
        "the package wordfreq.",
    )
    starter.add_argument("--out", required=True, metavar="FILE.parquet")
    starter.set_defaults(run=_starter)


def _starter(options: argparse.Namespace) -> int:
    if not options.out.endswith(".parquet"):
        raise UserError(f"--out {options.out}: the list is Parquet; end the name with .parquet")
    with Screen() as screen:
        screen.begin("making the starter list")
        _check_place(options.out)
        from query_list.starter import write_starter

        table = write_starter(options.out)
    print(f"{len(table):,} queries in {options.out}")
    return 0


def _check_place(out: str) -> None:
    """Raises a UserError where a list cannot be written, before the work of making it."""
    folder, name = storage.split(out)
    try:
        for path in (out, storage.join(folder, name.removesuffix(".parquet") + ".json")):
            if storage.is_local(path) and os.path.isdir(storage.local_path(path)):
                raise UserError(f"{path}: is a folder; remove it or choose another --out")
        if not storage.is_local(out):
            storage.exists(out)  # the store says what is wrong with it
            return
        trial = storage.join(folder, storage.temporary_name(name))
        storage.write_bytes(trial, b"")
        storage.remove(trial)
    except OSError as error:
        raise UserError(
            f"--out {out}: cannot be written ({error.strerror or error}); choose another"
        ) from error
