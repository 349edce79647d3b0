"""The options of `wit harvest`, and the configuration that they make."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

import pyarrow as pa

from pipeline.queries import fingerprint, read_list
from pipeline.run import Config
from wit import __version__
from wit.errors import UserError

LOCAL_RUNNER = "FnApiRunner"
MOST_WAVES = 100
REFUSED_RUNNERS = {
    "DirectRunner": "it is a different engine on each machine",
    "DaskRunner": "it loses data silently",
}
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
    top = argparse.ArgumentParser(
        prog="wit harvest",
        description="Harvest (image, text) pairs whose text includes a query, at most so many a "
        "query, into WebDataset and Parquet shards.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="WARC, WAT, ARC or table (Parquet, CSV, TSV, JSONL) files, local or remote; a glob; "
        "a folder; @FILE with a path a line; cc:CRAWL-ID[:wat|:warc]",
    )
    top.add_argument("--out", required=True, metavar="DIR", help="output folder, local or remote")
    top.add_argument("--queries", required=True, metavar="FILE", help="query list (wit queries)")
    group = top.add_argument_group("what is taken")
    size = group.add_mutually_exclusive_group()
    size.add_argument("--per-query", type=_positive, metavar="T", help="cap; 20000 unless set")
    size.add_argument("--pairs", type=_positive, metavar="N", help="solve the cap for N pairs")
    group.add_argument(
        "--sampling",
        choices=["independent", "shared"],
        default="independent",
        help="each query draws by itself, or all in one order, which fills the caps with fewer "
        "pictures (default: independent)",
    )
    group.add_argument("--match", choices=["default", "metaclip"], default="default")
    group.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    group.add_argument("--texts-per-image", type=_positive, default=1, metavar="N")
    group.add_argument("--min-text", type=_positive, default=1, metavar="CHARACTERS")
    group.add_argument("--max-text", type=_positive, default=1000, metavar="CHARACTERS")
    group.add_argument(
        "--language", action="append", default=[], metavar="CODE", help="keep only these; repeat"
    )
    group.add_argument("--identify-language", action="store_true", help="fill the language column")
    group = top.add_argument_group("inputs")
    group.add_argument("--url-column", metavar="NAME", help="of tables; recognised unless set")
    group.add_argument("--text-column", metavar="NAME")
    group.add_argument("--files", type=_positive, metavar="N", help="only N of cc:'s files")
    group.add_argument(
        "--common-crawl", choices=["https", "s3"], default="https", help="where cc: reads from"
    )
    group = top.add_argument_group("pictures")
    group.add_argument("--image-size", type=_positive, default=256, metavar="PIXELS")
    group.add_argument(
        "--resize-mode",
        choices=["border", "keep_ratio", "keep_ratio_largest", "center_crop", "no"],
        default="keep_ratio",
        help="as img2dataset's (default: keep_ratio)",
    )
    group.add_argument("--upscale", action="store_true", help="resize smaller pictures too")
    group.add_argument("--encode-quality", type=_positive, default=95, metavar="1-100")
    group.add_argument("--max-bytes", type=_positive, default=20_000_000)
    group.add_argument("--max-pixels", type=_positive, default=100_000_000)
    group = top.add_argument_group("manners")
    group.add_argument(
        "--contact", metavar="URL|MAIL", help="where a host's owner reaches you; part of the agent"
    )
    group.add_argument("--user-agent", metavar="TEXT", help="in full, with a contact in it")
    group.add_argument(
        "--host-rate", type=float, default=5.0, metavar="PER_SECOND", help="0 is no limit"
    )
    group.add_argument("--host-concurrency", type=_positive, default=2, metavar="N")
    group.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS")
    group.add_argument("--retries", type=int, default=2)
    group.add_argument(
        "--concurrency", type=_positive, default=256, help="pictures under way in a process"
    )
    group.add_argument(
        "--allow-address", action="append", default=[], metavar="IP:PORT", help="for tests; exact"
    )
    group.add_argument(
        "--resolve", action="append", default=[], metavar="HOST:IP[:PORT]", help="for tests; exact"
    )
    group = top.add_argument_group("work")
    group.add_argument(
        "--until",
        choices=["extract", "unique", "count", "select"],
        help="stop after this stage; nothing is asked of the web",
    )
    group.add_argument("--lanes", type=_positive, default=8, metavar="L", help="hosts go into them")
    group.add_argument("--shard-size", type=_positive, default=10_000, metavar="PAIRS")
    group.add_argument("--waves", type=_positive, default=4)
    group.add_argument(
        "--wave-hours", type=float, default=24.0, help="of a host's rate that a wave plans"
    )
    group.add_argument(
        "--workers", type=_positive, default=os.cpu_count() or 1, help="processes on this machine"
    )
    group.add_argument(
        "--runner", default=LOCAL_RUNNER, help="Beam's runner; FnApiRunner is this machine"
    )
    return top


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error
    if not 1 <= value <= 10**15:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 10**15")
    return value


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
            f"out for this machine ({LOCAL_RUNNER}), or name FlinkRunner, SparkRunner, "
            "DataflowRunner or PortableRunner"
        )
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
    if not options.user_agent and not options.contact:
        raise UserError(
            "--contact is needed: a URL or a mail address where the owner of a host can reach you"
        )
    return options, beam_options


def make_config(options: argparse.Namespace) -> tuple[Config, pa.Table]:
    """Returns what decides the result, and the query list.

    Raises:
        UserError: for inputs or a list that cannot be read, or settings that fetching would refuse.
    """
    from pipeline import sources
    from pipeline.fetch.policy import FetchPolicy

    FetchPolicy.from_json({**fetch_settings(options), **json.loads(reach_settings(options))})
    table, _ = read_list(options.queries, options.match)
    found = sources.expand(
        options.inputs,
        url_column=options.url_column,
        text_column=options.text_column,
        files=options.files,
        common_crawl=options.common_crawl,
        seed=options.seed,
    )
    config = Config(
        sources=[source.to_json() for source in found],
        queries=fingerprint(table),
        match=options.match,
        seed=options.seed,
        per_query=None if options.pairs else options.per_query or 20_000,
        pairs=options.pairs,
        sampling=options.sampling,
        texts_per_image=options.texts_per_image,
        min_text=options.min_text,
        max_text=options.max_text,
        languages=sorted(set(options.language)),
        identify_language=options.identify_language,
        lanes=options.lanes,
        shard_size=options.shard_size,
        waves=options.waves,
        wave_hours=options.wave_hours,
        fetch=fetch_settings(options),
    )
    return config, table


def fetch_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the part of the fetch policy that decides bytes."""
    agent = options.user_agent or f"WebImageText/{__version__} (+{options.contact})"
    return {
        "user_agent": agent,
        "host_rate": options.host_rate,
        "per_host_concurrency": options.host_concurrency,
        "total_seconds": options.timeout,
        "retries": options.retries,
        "max_bytes": options.max_bytes,
        "max_pixels": options.max_pixels,
        "image_size": options.image_size,
        "resize_mode": options.resize_mode,
        "resize_only_if_bigger": not options.upscale,
        "encode_quality": options.encode_quality,
        "seed": options.seed,
    }


def reach_settings(options: argparse.Namespace) -> str:
    """Returns the part of the fetch policy that does not, as JSON: addresses, how many at once."""
    resolve = {}
    for text in options.resolve:
        host, _, address = text.partition(":")
        if not address:
            raise UserError(f"--resolve {text}: HOST:IP or HOST:IP:PORT is expected")
        resolve[host] = address
    settings = {
        "allow_addresses": options.allow_address,
        "resolve": resolve,
        "concurrency": options.concurrency,
        "decode_workers": 1,  # a process more for each of ours
    }
    return json.dumps(settings, sort_keys=True)
