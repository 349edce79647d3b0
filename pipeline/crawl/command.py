"""`wit crawl`: the command."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from typing import Any

from pipeline.groups import add_addresses, add_agent, natural, positive
from wit import storage
from wit.console import Arguments, Screen, duration
from wit.errors import UserError

EXAMPLES = """
examples:
  a site of your own, at most 1000 pages
      wit crawl https://museum.example.org/ --contact you@example.org --out crawl
  then its pictures
      wit harvest crawl --queries queries.parquet --contact you@example.org --out mine
  the sites of a list, ten thousand pages, no more than 500 of a host
      wit crawl @seeds.txt --max-pages 10000 --max-host-pages 500 \\
          --contact you@example.org --out crawl

The same command resumes a crawl that was stopped or killed.
"""


def parser() -> argparse.ArgumentParser:
    """Returns the parser of `wit crawl`."""
    top = Arguments(
        prog="wit crawl",
        description="Crawl pages breadth first, politely, into WARC files that wit harvest reads.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = top.add_argument
    add("seeds", nargs="+", metavar="SEED", help="a URL, or @FILE with a URL a line")
    add("--out", required=True, metavar="DIR", help="output folder, on this machine")
    _add_scope(top.add_argument_group("which pages").add_argument)
    _add_manners(top.add_argument_group("manners").add_argument)
    add = top.add_argument_group("output").add_argument
    add("--other-types", action="store_true", help="keep answers that are no HTML pages, too")
    add(
        "--warc-size",
        type=positive,
        default=1_000_000_000,
        metavar="BYTES",
        help="of a WARC file's records before packing (default: %(default)s)",
    )
    return top


def _add_scope(add: Any) -> None:
    count = {"type": positive, "metavar": "N"}
    add("--max-pages", default=1000, help="kept, in all (default: %(default)s)", **count)
    add("--max-host-pages", help="kept, of one host (default: no limit)", **count)
    add(
        "--max-depth",
        type=natural,
        metavar="N",
        help="links from a seed; 0 for the seeds alone (default: no limit)",
    )
    add("--max-bytes", help="of the answers kept, in all (default: no limit)", **count)
    add(
        "--max-hours",
        type=float,
        metavar="HOURS",
        help="then stop; the same command goes on (default: no limit)",
    )
    add(
        "--scope",
        choices=["site", "host", "any"],
        default="site",
        help="stay on the seeds' sites (registrable domains), on their hosts, or follow links "
        "anywhere (default: %(default)s)",
    )
    add(
        "--hosts",
        metavar="HOST,...|@FILE",
        help="further hosts that may be entered; *.example.org for all below example.org",
    )
    add("--no-sitemaps", action="store_true", help="follow links only")


def _add_manners(add: Any) -> None:
    add_agent(add)
    add(
        "--host-rate",
        type=float,
        default=1.0,
        metavar="PER_SECOND",
        help="requests to one host; 0 is no limit (default: %(default)s)",
    )
    count = {"type": positive, "metavar": "N"}
    help = "requests to one host at a time (default: %(default)s)"
    add("--host-concurrency", default=2, help=help, **count)
    add("--concurrency", default=64, help="requests at a time (default: %(default)s)", **count)
    help = "for one page (default: %(default)s)"
    add("--timeout", type=float, default=30.0, metavar="SECONDS", help=help)
    help = "after failures that may pass (default: %(default)s)"
    add("--retries", type=natural, default=1, metavar="N", help=help)
    help = "of a page, as sent and unpacked (default: %(default)s)"
    add("--max-page-bytes", default=10_000_000, help=help, **count)
    add_addresses(add)


def main(argv: list[str]) -> int:
    """Runs or resumes a crawl; the exit code."""
    run(parser().parse_args(argv))
    return 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Takes a crawl from wherever its folder is to its end; returns what crawl.json says."""
    if not storage.is_local(options.out):
        raise UserError(f"--out {options.out}: a crawl writes to a folder on this machine")
    with Screen() as screen:
        screen.now("reading the seeds")
        from pipeline.crawl.config import open_crawl
        from pipeline.crawl.rounds import crawl
        from pipeline.crawl.settings import make_config, make_policy
        from pipeline.crawl.state import State
        from pipeline.crawl.table import write_tables

        config = make_config(options)
        policy = make_policy(options, config)
        with storage.FolderLock(options.out):
            open_crawl(options.out, config)
            storage.sweep(options.out)
            state = State(options.out)
            watch = _Watch(screen, state)
            asyncio.run(
                crawl(
                    options.out,
                    config,
                    policy,
                    options.concurrency,
                    options.max_hours,
                    state,
                    watch.tell,
                )
            )
            screen.now("writing the tables")
            facts = write_tables(options.out, state, config)
    _print(options.out, facts, time.monotonic() - watch.started)
    return facts


class _Watch:
    """Shows how far a crawl is."""

    def __init__(self, screen: Screen, state: Any) -> None:
        self.screen, self.state = screen, state
        self.started = time.monotonic()
        self.due = 0.0
        self.seen: Counter[bool] = Counter()
        self.failed = 0

    def tell(self, visit: Any) -> None:
        """Hears of a URL that is done."""
        self.seen[visit.outcome == "fetched"] += 1
        self.failed += visit.outcome not in ("fetched", "redirect", "duplicate", "not_html")
        now = time.monotonic()
        if now < self.due:
            return
        self.due = now + 0.2
        rate = self.seen[True] / max(now - self.started, 0.1)
        depth = min(self.state.pending, default=0)
        self.screen.now(
            f"{self.state.fetched:,} pages kept, {rate:,.1f} pages/s, depth {depth}, "
            f"{self.state.waiting:,} URLs wait, {len(self.state.rules):,} hosts, "
            f"{self.failed:,} failures"
        )


def _print(out: str, facts: dict[str, Any], seconds: float) -> None:
    print(f"{facts['urls']:,} URLs, each in one row of:")
    rows = sorted(facts["outcomes"].items(), key=lambda item: (-item[1], item[0]))
    for outcome, count in rows:
        print(f"  {count:>12,}  {outcome}")
    print(f"pages    {storage.join(out, 'warc')} ({facts['bytes'] / 1e6:,.1f} MB)")
    print(f"table    {storage.join(out, 'pages.parquet')}")
    if not facts["complete"]:
        print("stopped after --max-hours; the same command goes on from here")
    print(f"the crawl took {duration(seconds)}", file=sys.stderr)
