"""A dataset that grows: `wit harvest NEW --onto DIR` adds a crawl to a finished run, in its folder.

The run goes on with more sources. A crawl's files stand beside those of the ones before, which are
read and never made again: candidates, hashes, verdicts, counts, and what became of each pair. So a
text of an earlier crawl stays with its image URL, no picture is asked for twice, and the waves go
on counting. A pair that newcomers displace from the caps of all its queries stays in its shard and
is listed in OUT/evicted.parquet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from pipeline.run import OPTIONS, Config, load_run
from pipeline.sources import Source
from wit.errors import UserError

MOST_WAVES = 127  # a sample's wave is a signed byte
ALWAYS = ("version", "product_token")  # compared where the run is opened
NEGATED = {"resize_only_if_bigger": "upscale", "tdmrep": "no_tdmrep"}


def grow(
    out: str, found: list[Source], wanted: Config, given: set[str], tell: Callable[[str], None]
) -> Config:
    """Returns the run's configuration with the sources that it does not have yet as a crawl more.

    Where it has them all, that is the run as it stands, to be resumed.

    Args:
        out: the run's folder.
        found: the sources that were named.
        wanted: the configuration that the command line makes.
        given: the options that stood on it (as argparse's dest); all others are the run's.
        tell: is told how many of the sources the run has already.

    Raises:
        UserError: where an option differs from the run's, a file has changed since it was
            harvested, or the crawls have too many waves.
    """
    saved = load_run(out).config
    wanted = inherit(saved, wanted, given)
    known = {source["path"]: source for source in saved.sources}
    fresh = []
    for source in (source.to_json() for source in found):
        if source["path"] not in known:
            fresh.append(source)
        elif source != known[source["path"]]:
            raise UserError(
                f"{source['path']}: is in {out} already, and was another version or read by other "
                "columns; give the new file a name of its own"
            )
    if len(fresh) < len(found):
        tell(f"{len(found) - len(fresh):,} of {len(found):,} inputs are in {out} already")
    if not fresh:
        return replace(wanted, sources=saved.sources, crawls=saved.crawls)
    crawls = [*saved.crawls, len(saved.sources)]
    if len(crawls) * saved.waves > MOST_WAVES:
        raise UserError(
            f"{out}: {len(saved.crawls)} crawls of {saved.waves} waves; another would make more "
            f"than {MOST_WAVES} waves; begin a new --out"
        )
    return replace(wanted, sources=[*saved.sources, *fresh], crawls=crawls)


def inherit(saved: Config, wanted: Config, given: set[str]) -> Config:
    """Returns `wanted` with `saved`'s entries wherever their option was not given."""
    before = asdict(saved)
    entries = _chosen(before, asdict(wanted), given)
    entries["fetch"] = _chosen(before["fetch"], wanted.fetch, given)
    if not given & {"per_query", "pairs"}:
        entries |= {"per_query": saved.per_query, "pairs": saved.pairs}
    return replace(wanted, **{name: entries[name] for name in entries if name not in ALWAYS})


def _chosen(before: dict[str, Any], after: dict[str, Any], given: set[str]) -> dict[str, Any]:
    def option(name: str) -> str:
        return NEGATED.get(name, OPTIONS.get(name, name)).replace("-", "_")

    return {n: after[n] if option(n) in given else before.get(n, after[n]) for n in after}
