"""The command line of `wit harvest`: every option with what it means."""

from __future__ import annotations

import argparse

from pipeline import engine, groups
from pipeline.forecast import options as forecast
from wit import runner
from wit.console import Arguments
from wit.errors import UserError

MOST_WAVES = 100
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
  a crawl more, for a dataset that grows
      wit harvest cc:CC-MAIN-2024-26 --files 10 --onto crawl --contact you@example.org
  how far a run is, from another shell (an input of that name is ./status)
      wit harvest status crawl

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
        metavar="FILE",
        help="query list: Parquet with a column `query`, a JSON list of strings, or a text file "
        "with a query a line",
    )
    add(
        "--onto",
        metavar="DIR",
        help="instead of --out: add these inputs to the finished harvest in DIR, with its query "
        "list and options, as the crawl after those that it has",
    )
    groups.add_choice(top.add_argument_group("which pairs"))
    groups.add_inputs(top.add_argument_group("inputs").add_argument)
    groups.add_pictures(top.add_argument_group("pictures").add_argument)
    groups.add_manners(top.add_argument_group("manners").add_argument)
    engine.add_options(top.add_argument_group("engine").add_argument)
    groups.add_work(top.add_argument_group("work").add_argument)
    forecast.add_options(top.add_argument_group("forecast").add_argument)
    return top


def given(argv: list[str], options: argparse.Namespace) -> set[str]:
    """Returns the options that stand on a command line, as argparse names them."""
    unset = argparse.Namespace(**dict.fromkeys(vars(options)))  # instead of the defaults
    found, _ = parser().parse_known_args(argv, unset)
    return {name for name, value in vars(found).items() if value is not None}


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Returns our options and those left for Beam.

    Raises:
        UserError: for a runner that is not to be used, or options that do not go together.
    """
    top = parser()
    options, beam_options = top.parse_known_args(argv)
    if options.onto:
        from pipeline.run import load_run

        if options.out:
            top.error("--onto DIR grows the dataset where it is: leave --out away")
        options.out = options.onto
        if options.dry_run:
            top.error("--dry-run forecasts a harvest from the start: leave --onto away")
        load_run(options.onto)  # what is wrong with it comes before what is missing
    elif not options.queries:
        top.error("--queries is needed (or --onto, to add to a harvest with its list)")
    options.given = given(argv, options)
    runner.check_name(options.runner, beam_options, "wit harvest")
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
