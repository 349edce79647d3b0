"""`wit queries`: make query lists."""

from __future__ import annotations

import argparse
import os

from wit import storage
from wit.console import Arguments, Screen
from wit.errors import UserError

HELP = """Make query lists.

`wit harvest --queries` reads Parquet with a column `query`, as `starter` writes it, a JSON list of
strings, as MetaCLIP's metadata.json, or a text file with a query a line (spaces at its ends do not
count). Queries that repeat or that no text can match are left out, and counted.
"""


def main(argv: list[str]) -> int:
    """Runs a subcommand; the exit code."""
    parser = Arguments(
        prog="wit queries",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    starter = commands.add_parser(
        "starter",
        help="a list of about 400,000 queries, made offline",
        description="Make a starter list offline, from WordNet's lemmas and the English words of "
        "the package wordfreq.",
    )
    starter.add_argument("--out", required=True, metavar="FILE.parquet")
    options = parser.parse_args(argv)
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
