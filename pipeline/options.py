"""The options of `wit harvest`, and the configuration that they make."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pyarrow as pa

from pipeline.queries import fingerprint, read_list
from pipeline.run import Config
from wit import __version__
from wit.errors import UserError


def make_config(options: argparse.Namespace) -> tuple[Config, pa.Table]:
    """Returns what decides the result, and the query list.

    Raises:
        UserError: for inputs or a list that cannot be read, or settings that fetching would refuse.
    """
    from pipeline import sources
    from pipeline.fetch.policy import FetchPolicy

    if options.language or options.identify_language:
        from pipeline.filters import check_languages

        check_languages(options.language)
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
