"""`wit queries`: make query lists."""

from __future__ import annotations

import argparse

from wit.console import Arguments
from wit.errors import UserError

HELP = """Make query lists.

`wit harvest --queries` reads Parquet with a column `query`, as `starter` writes it, a JSON list of
strings, as MetaCLIP's metadata.json, or a text file with a query a line.
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
    from query_list.starter import write_starter

    table = write_starter(options.out)
    print(f"{len(table):,} queries in {options.out}")
    return 0
