"""`wit demo`: crawl and harvest a small web that comes with the program, served on this machine."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time

from pipeline.arguments import parse
from pipeline.crawl import command
from pipeline.demo import server, site
from pipeline.harvest import harvest
from wit import cli, storage
from wit.console import Arguments, duration

CAP = 40  # pairs a query, so that the commonest words of the demo's captions go over it
SEED = "http://blog.example/"
MANNERS = ("--contact", "https://demo.example/bot", "--host-rate", "20", "--host-concurrency", "8")
HELP = """Crawl and harvest a small web that comes with the program.

Fifteen host names with 54 pages and 298 photographs of clothes, served on 127.0.0.1 with
the trouble of the real web: slow and broken answers, redirects, opt-outs, lazy loading, duplicates.
The pages are crawled from one of them, then harvested against a starter list of some 400,000
queries, at most 40 pairs a query.
Other options of `wit harvest` may follow and are passed on.
"""


def main(argv: list[str]) -> int:
    """Runs the demo; the exit code."""
    parser = Arguments(
        prog="wit demo",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", default="demo", metavar="DIR", help="(default: demo)")
    parser.add_argument("--log", metavar="FILE", help="access log of the demo's server")
    options, more = parser.parse_known_args(argv)
    started = time.monotonic()
    queries = storage.join(options.out, "queries.parquet")
    if not storage.exists(queries):
        code = cli.main(["queries", "starter", "--out", queries])
        if code:
            return code
    web, dataset = storage.join(options.out, "web"), storage.join(options.out, "dataset")
    inputs = [web, site.write_table(options.out)]
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(server.child_server(options.log))
        command.main(crawl_arguments(web, port))
        harvest(*parse(arguments(inputs, queries, dataset, port) + more))
    print(f"the whole demo took {duration(time.monotonic() - started)}", file=sys.stderr)
    return 0


def crawl_arguments(out: str, port: int) -> list[str]:
    """Returns the demo's command line of `wit crawl`, for a server on a port of 127.0.0.1."""
    return [
        *(SEED, "--hosts", "*.example", "--out", out),
        *("--max-depth", "4", "--max-host-pages", "20"),  # the blog's calendar has no end
        *("--timeout", "8", "--retries", "1"),
        *MANNERS,
        *_where(port),
    ]


def _where(port: int) -> list[str]:
    """Returns the options that say where the demo's hosts are."""
    resolve = [f"--resolve={host}:{where}" for host, where in server.resolve_map(port).items()]
    return [f"--allow-address={server.ADDRESS}:{port}", *resolve]


def arguments(inputs: list[str], queries: str, out: str, port: int) -> list[str]:
    """Returns the demo's command line of `wit harvest`, for a server on a port of 127.0.0.1."""
    return [
        *inputs,
        *("--queries", queries, "--out", out),
        *("--per-query", str(CAP), "--shard-size", "250", "--lanes", "4"),
        *("--timeout", "8", "--retries", "1", "--max-picture-bytes", "10000000"),
        *MANNERS,
        *_where(port),
    ]
