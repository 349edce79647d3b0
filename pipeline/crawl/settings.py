"""From the options of `wit crawl` to what decides its result, and to how the web is asked."""

from __future__ import annotations

import argparse

from pipeline.crawl.config import Config
from pipeline.crawl.scope import host_of, normal_url, read_lines, read_seeds
from pipeline.groups import resolved
from wit import __version__
from wit.errors import UserError
from wit.web.policy import WebPolicy


def make_config(options: argparse.Namespace) -> Config:
    """Returns what decides the result.

    Raises:
        UserError: for seeds or hosts that are none, or where nobody asks.
    """
    seeds, hosts = read_seeds(options.seeds), _read_hosts(options.hosts)
    if not options.user_agent and not options.contact:
        raise UserError(
            "--contact is needed: a URL or a mail address where the owner of a host can reach you"
        )
    agent = options.user_agent or f"WebImageText/{__version__} (+{options.contact})"
    if options.max_hours is not None and not options.max_hours > 0:
        raise UserError(f"--max-hours {options.max_hours} is not above 0")
    return Config(
        seeds=seeds,
        scope=options.scope,
        hosts=hosts,
        max_pages=options.max_pages,
        max_host_pages=options.max_host_pages,
        max_depth=options.max_depth,
        max_bytes=options.max_bytes,
        sitemaps=not options.no_sitemaps,
        other_types=options.other_types,
        warc_bytes=options.warc_size,
        fetch={
            "user_agent": agent,
            "host_rate": options.host_rate,
            "per_host_concurrency": options.host_concurrency,
            "total_seconds": options.timeout,
            "retries": options.retries,
            "max_bytes": options.max_page_bytes,
        },
    )


def make_policy(options: argparse.Namespace, config: Config) -> WebPolicy:
    """Returns how the web is asked."""
    addresses = {"allow_addresses": tuple(options.allow_address)}
    return WebPolicy(**config.fetch, **addresses, resolve=resolved(options.resolve))


def _read_hosts(text: str | None) -> list[str]:
    """The hosts of --hosts in normal form, sorted, each once."""
    if not text:
        return []
    if text.startswith("@"):
        listed = read_lines(text[1:])
    else:
        listed = [(f"--hosts {text}", host.strip()) for host in text.split(",") if host.strip()]
    found = set()
    for where, name in listed:
        below = "*." if name.startswith("*.") else ""
        url = normal_url(f"http://{name.removeprefix('*.')}/")
        if url is None or url.count("/") != 3 or not host_of(url):
            raise UserError(f"{where}: {name!r} is no host name; write it as www.example.org")
        found.add(below + host_of(url))
    return sorted(found)
