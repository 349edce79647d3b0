"""Which tasks each stage has; listing them writes what sums up the stage before, once.

Each function takes a run and a wave (0 before the first) and gives the numbers of all tasks of its
stage, finished or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from pipeline import dedupe, lanes, placeholders, waves
from pipeline.run import Run
from wit import storage


def _once(path: str, write: Callable[[], None]) -> None:
    if not storage.exists(path):
        write()


def sources(run: Run, _: int) -> Iterable[int]:
    """Of extract: a source file each."""
    return range(len(run.config.sources))


def groups_to_key(run: Run, _: int) -> Iterable[int]:
    """Of keys: a group of sources each, whose rows are numbered here."""
    _once(run.own("candidates", "index.npy"), partial(dedupe.index_candidates, run))
    return range(len(run.groups))


def url_buckets(run: Run, _: int) -> Iterable[int]:
    """Of unique: a bucket of URLs each."""
    return range(dedupe.bucket_count(run))


def groups(run: Run, _: int) -> Iterable[int]:
    """Of count and coverage: a group of sources each."""
    return range(len(run.groups))


def groups_to_size(run: Run, _: int) -> Iterable[int]:
    """Of size: a group each where the cap is to be solved; the counts are added up here."""
    _once(run.own("counts", "total.npy"), partial(dedupe.sum_counts, run))
    return range(len(run.groups)) if run.config.pairs is not None else ()


def groups_to_collect(run: Run, wave: int) -> Iterable[int]:
    """Of collect: a group each while the wave has something to do."""
    _once(run.own("target.json"), partial(dedupe.solve_target, run))
    _once(run.wave_path("lanes", wave, "open.json"), partial(lanes.open_wave, run, wave))
    return range(len(run.groups)) if lanes.is_open(run, wave) else ()


def query_buckets(run: Run, wave: int) -> Iterable[int]:
    """Of thresholds: a range of queries each."""
    return range(waves.query_buckets(run)) if lanes.is_open(run, wave) else ()


def _any_short(run: Run, wave: int) -> bool:
    return lanes.is_open(run, wave) and len(waves.short_queries(run, wave)) > 0


def groups_again(run: Run, wave: int) -> Iterable[int]:
    """Of collect-again: a group each where a bound let too few entries through."""
    return range(len(run.groups)) if _any_short(run, wave) else ()


def query_buckets_again(run: Run, wave: int) -> Iterable[int]:
    """Of thresholds-again: a range of queries each in that case."""
    return range(waves.query_buckets(run)) if _any_short(run, wave) else ()


def groups_to_select(run: Run, wave: int) -> Iterable[int]:
    """Of select: a group each; the thresholds are joined here."""
    if not lanes.is_open(run, wave):
        return ()
    path = run.wave_path("balance", wave, "thresholds.npy")
    _once(path, partial(waves.join_thresholds, run, wave))
    return range(len(run.groups))


def host_buckets(run: Run, wave: int) -> Iterable[int]:
    """Of robots: a bucket of hosts that the wave draws from each."""
    if not lanes.is_open(run, wave):
        return ()
    _once(run.wave_path("hosts", wave, "total.json"), partial(lanes.sum_selection, run, wave))
    return lanes.used_host_buckets(run, wave)


def lanes_to_plan(run: Run, wave: int) -> Iterable[int]:
    """Of lanes: a lane each; the hosts of several lanes are joined here."""
    if not lanes.is_open(run, wave):
        return ()
    _once(run.wave_path("hosts", wave, "wide.parquet"), partial(lanes.join_hosts, run, wave))
    return range(run.config.lanes)


def lanes_to_pilot(run: Run, wave: int) -> Iterable[int]:
    """Of pilot: a lane each that has several shards; the wave's shards are numbered here."""
    if not lanes.is_open(run, wave):
        return ()
    _once(run.wave_path("lanes", wave, "shards.json"), partial(lanes.number_shards, run, wave))
    return placeholders.pilot_lanes(run, wave)


def lanes_to_fetch(run: Run, wave: int) -> Iterable[int]:
    """Of fetch: a lane each; what is known of placeholders is frozen here."""
    if not lanes.is_open(run, wave):
        return ()
    _once(run.wave_path("lanes", wave, "shards.json"), partial(lanes.number_shards, run, wave))
    if run.config.placeholder_urls:
        path = run.wave_path("fetched", wave, placeholders.KNOWN)
        _once(path, partial(placeholders.freeze, run, wave))
    return range(run.config.lanes)


def lanes_to_evict(run: Run, _: int) -> Iterable[int]:
    """Of evict: a lane each where newcomers may have displaced what it has."""
    return range(run.config.lanes) if run.crawl else ()
