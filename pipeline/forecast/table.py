"""A forecast as a person reads it, and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.forecast import costs as cost
from pipeline.forecast.costs import Costs
from pipeline.forecast.estimate import Interval
from pipeline.forecast.forecast import NOTHING, Hosts, Pairs, Stage
from pipeline.forecast.frame import Frame
from pipeline.forecast.sample import Sample
from pipeline.run import Config

UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
TIMES = ((3600.0, "h"), (60.0, "min"), (1.0, "s"))
PICTURE_BYTES = 120_000  # of a picture on the web, as it is sent; an assumption


@dataclass(frozen=True)
class Forecast:
    """All of it.

    Attributes:
        frame, sample, pairs, hosts, costs, stages: see there.
        config: of the run.
        workers: that hours are given for.
        success: share of the pictures that is assumed to be there.
        until: the last stage, None for all.
        price: of a core-hour; None where none is given.
    """

    frame: Frame
    sample: Sample
    pairs: Pairs
    hosts: Hosts
    costs: Costs
    stages: list[Stage]
    config: Config
    workers: int
    success: float
    until: str | None
    price: float | None

    @property
    def core(self) -> Interval:
        """Core-seconds of all stages."""
        return sum((stage.core for stage in self.stages), NOTHING)

    @property
    def wall(self) -> Interval:
        """Seconds of all stages."""
        return sum((stage.wall for stage in self.stages), NOTHING)

    @property
    def written(self) -> Interval:
        """Bytes of all stages."""
        return sum((stage.written for stage in self.stages), NOTHING)

    @property
    def useful_workers(self) -> float:
        """Workers beyond whom fetching waits for its slowest host."""
        fetch = next((s.core.mid for s in self.stages if s.name == "fetch"), 0.0)
        return max(1.0, fetch / self.hosts.bound.mid) if self.hosts.bound.mid else float("inf")


def number(value: float) -> str:
    """Returns 12, 3.4k, 5.67M, three figures of it."""
    for size, unit in UNITS:
        if value >= size * 0.9995:
            return f"{_figures(value / size)}{unit}"
    return _figures(value) if value < 10 and value % 1 else f"{value:.0f}"


def _figures(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def time_of(seconds: float) -> str:
    """Returns 4.2 s, 3.1 min or 5.2 h."""
    for size, unit in TIMES:
        if seconds >= size or unit == "s":
            value = seconds / size
            return f"{number(value) if value >= 10 else f'{value:.1f}'} {unit}"
    return ""


def ranged(value: Interval, show: Any = number) -> str:
    """Returns a number with its interval: `1.2k (1.1k to 1.4k)`."""
    low, mid, high = show(value.low), show(value.mid), show(value.high)
    return mid if low == mid == high else f"{mid} ({low} to {high})"


def lines(found: Forecast) -> list[str]:
    """Returns the table and what is to be said of it, in fewer lines than a screen has."""
    sample, pairs, config = found.sample, found.pairs, found.config
    many = "worker" if found.workers == 1 else "workers"
    head = ("stage", "rows", "bytes written", "core time", f"time, {found.workers:,} {many}")
    rows = [head]
    for stage in found.stages:
        name = "start, stop" if stage.name == "start" else stage.name
        shown = [ranged(stage.rows), ranged(stage.written)]
        shown = ["" if value == "0" else value for value in shown]
        rows.append((name, *shown, ranged(stage.core, time_of), ranged(stage.wall, time_of)))
    total = (ranged(found.written), ranged(found.core, time_of), ranged(found.wall, time_of))
    rows.append(("in all", "", *total))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    text = ["  ".join(f"{v:<{w}}" for v, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    text.insert(1, "-" * min(sum(widths) + 8, 100))
    bytes_in = float(sample.sizes.sum())
    text += [
        "",
        f"sampled     {number(bytes_in)}B of {ranged(found.frame.total)}B in "
        f"{found.frame.files:,} files ({sample.share:.2%}), {sample.chunks:,} chunks: "
        f"{len(sample.table):,} candidates",
        f"candidates  {ranged(pairs.candidates)}, without duplicates {ranged(pairs.unique)}",
    ]
    solved = " solves --pairs" if config.pairs is not None else ""
    text.append(
        f"selected    {ranged(pairs.waves[0])} in the first wave at t = "
        f"{ranged(pairs.cap, lambda t: f'{t:,.0f}')}{solved}"
    )
    if not found.until:
        text += _of_the_web(found)
    if found.price is not None:
        hours = found.core * (found.price / 3600)
        text.append(
            f"money       {ranged(hours, lambda v: f'{v:,.2f}')} at {found.price} a core-hour"
        )
    return text + [f"beware      {line}" for line in warnings(found)]


def _of_the_web(found: Forecast) -> list[str]:
    pairs, hosts = found.pairs, found.hosts
    names = "; ".join(f"{name} {ranged(requests)}" for name, requests in hosts.largest)
    sent = pairs.asked * (found.success * PICTURE_BYTES)
    rate = found.config.fetch.get("host_rate") or 0
    text = [
        f"pictures    {ranged(pairs.asked)} asked for in {len(pairs.waves)} waves, "
        f"{found.success:.0%} of them taken to be there; {ranged(sent)}B sent",
        f"requests    of {ranged(hosts.number)} hosts; the largest: {names or 'none'}",
    ]
    if not rate:
        return [*text, "bound       none: --host-rate 0"]
    text.append(
        f"bound       {ranged(hosts.bound, time_of)} for the largest host at {rate:g} a second: "
        f"more than {found.useful_workers:,.0f} workers do not fetch faster"
    )
    if hosts.deferred >= 1:
        text.append(
            f"deferred    {number(hosts.deferred)} pictures, which the hosts' rate does not allow "
            f"in {found.config.waves} waves of {found.config.wave_hours:g} h"
        )
    return text


def warnings(found: Forecast) -> list[str]:
    """Returns what makes the forecast less sure than its intervals say, or is assumed."""
    sample, told = found.sample, []
    if not len(sample.table):
        told.append("no candidate in the sample: what follows extraction is not known")
    elif found.pairs.unique.high > 2 * max(found.pairs.unique.low, 1):
        told.append("the sample is too small to tell how many duplicates there are; see --sample")
    if sample.streams:
        told.append(
            f"{sample.streams:,} of the files sampled can be read from their start only, so it "
            "stands for all of them"
        )
    if not found.until:
        told.append(
            f"taken for granted: pictures of {number(found.costs.pixels)} pixels (the program's "
            f"own) and {number(PICTURE_BYTES)}B, {cost.REQUEST * 1000:g} ms of a core a request"
        )
    return told


def to_json(found: Forecast) -> dict[str, Any]:
    """Returns plain values: every number with its interval, seconds and bytes."""
    sample, pairs, hosts = found.sample, found.pairs, found.hosts
    price = found.price
    return {
        "sample": {
            "share": sample.share,
            "bytes": float(sample.sizes.sum()),
            "chunks": sample.chunks,
            "candidates": len(sample.table),
            "from_start_only": sample.streams,
        },
        "inputs": {"files": found.frame.files, "bytes": asdict(found.frame.total)},
        "links": asdict(pairs.links),
        "candidates": asdict(pairs.candidates),
        "unique": asdict(pairs.unique),
        "cap": asdict(pairs.cap),
        "asked_by_wave": [asdict(wave) for wave in pairs.waves],
        "stages": [asdict(stage) for stage in found.stages],
        "core_seconds": asdict(found.core),
        "seconds": asdict(found.wall),
        "workers": found.workers,
        "bytes_written": asdict(found.written),
        "hosts": {
            "number": asdict(hosts.number),
            "largest": [{"host": n, "requests": asdict(r)} for n, r in hosts.largest],
            "deferred": hosts.deferred,
            "bound_seconds": asdict(hosts.bound),
        },
        "price": price,
        "money": None if price is None else asdict(found.core * (price / 3600)),
        "assumed": {
            "success": found.success,
            "picture_bytes": PICTURE_BYTES,
            "picture_pixels": found.costs.pixels,
            "request_core_seconds": cost.REQUEST,
        },
        "warnings": warnings(found),
    }
