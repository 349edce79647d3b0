"""`wit queries`: make query lists."""

from __future__ import annotations

import argparse


def main(argv: list[str]) -> int:
    """Runs a subcommand; the exit code."""
    parser = argparse.ArgumentParser(prog="wit queries", description="Make query lists.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    starter = commands.add_parser(
        "starter",
        help="a list of about 400,000 queries, made offline",
        description="Make a starter list offline, from WordNet's lemmas and the English words of "
        "the package wordfreq.",
    )
    starter.add_argument("--out", required=True, metavar="FILE.parquet")
    options = parser.parse_args(argv)
    from query_list.starter import write_starter

    table = write_starter(options.out)
    print(f"{len(table):,} queries in {options.out}")
    return 0
