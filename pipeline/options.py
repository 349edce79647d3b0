"""The options of `wit harvest`, and the configuration that they make."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from pipeline.groups import resolved
from pipeline.queries import LIST, QueryList, fingerprint, read_list
from pipeline.run import Config, load_run
from wit import __version__
from wit.errors import UserError

NOBODY = "WebImageText (+nobody@example.org)"  # settings are checked where no host is asked, too


def make_config(
    options: argparse.Namespace, tell: Callable[[str], None] = lambda line: None
) -> tuple[Config, QueryList]:
    """Returns what decides the result, and the query list.

    Args:
        options: of the command line.
        tell: is told, in a line, what is being done and what has to be done again.

    Raises:
        UserError: for inputs or a list that cannot be read, or settings that fetching would refuse.
    """
    from pipeline import sources
    from pipeline.fetch.policy import FetchPolicy
    from wit.web.robots import product_token

    if options.language or options.identify_language:
        from pipeline.filters import check_languages

        check_languages(options.language)
    reach = json.loads(reach_settings(options))
    FetchPolicy.from_json({"user_agent": NOBODY, **fetch_settings(options), **reach})
    if options.placeholder_urls == 1:
        raise UserError("--placeholder-urls 1: no picture is left; 2 is the least, 0 keeps all")
    tell("reading the query list")
    if options.onto:
        saved = load_run(options.out)
        match = options.match if "match" in options.given else saved.config.match
        queries = read_list(options.queries or saved.path(LIST), match)
    else:
        queries = read_list(options.queries, options.match)
    tell("looking into the inputs")
    found = sources.expand(
        options.inputs,
        url_column=options.url_column,
        text_column=options.text_column,
        files=options.files,
        common_crawl=options.common_crawl,
        seed=options.seed,
        tell=tell,
    )
    config = Config(
        sources=[source.to_json() for source in found],
        queries={**fingerprint(queries.table), "left_out": queries.left_out},
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
        placeholder_urls=options.placeholder_urls,
        waves=options.waves,
        wave_hours=options.wave_hours,
        fetch=fetch_settings(options),
        product_token=product_token(reach["user_agent"]) if "user_agent" in reach else None,
    )
    if options.onto:
        from pipeline.onto import grow

        config = grow(options.out, found, config, options.given, tell)
    return config, queries


def fetch_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the part of the fetch policy that decides bytes."""
    return {
        "host_rate": options.host_rate,
        "per_host_concurrency": options.host_concurrency,
        "host_failures": options.give_up_after,
        "tdmrep": not options.no_tdmrep,
        "connect_seconds": options.connect_timeout,
        "read_seconds": options.read_timeout,
        "min_speed": options.min_speed,
        "total_seconds": options.timeout,
        "shard_seconds": options.shard_timeout,
        "retries": options.retries,
        "max_bytes": options.max_picture_bytes,
        "max_pixels": options.max_pixels,
        "image_size": options.image_size,
        "min_image_size": options.min_image_size,
        "max_aspect_ratio": options.max_aspect_ratio,
        "resize_mode": options.resize_mode,
        "resize_only_if_bigger": not options.upscale,
        "encode_quality": options.encode_quality,
        "engine": options.engine,
        "seed": options.seed,
    }


def reach_settings(options: argparse.Namespace) -> str:
    """Returns the part of the fetch policy that does not: who asks, addresses, how many (JSON)."""
    settings: dict[str, Any] = {
        "allow_addresses": options.allow_address,
        "resolve": resolved(options.resolve),
        "concurrency": options.concurrency,
        "per_address_concurrency": options.address_concurrency,
        "decode_workers": 1,  # a process more for each of ours
        "img2dataset": options.img2dataset,
    }
    if options.user_agent or options.contact:
        agent = options.user_agent or f"WebImageText/{__version__} (+{options.contact})"
        settings["user_agent"] = agent
    return json.dumps(settings, sort_keys=True)
