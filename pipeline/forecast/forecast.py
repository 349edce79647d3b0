"""From a sample and its costs to what a run will take, stage by stage."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline import dedupe, lanes, unique, waves
from pipeline.balance import RESERVE
from pipeline.forecast import costs as cost
from pipeline.forecast.costs import Costs
from pipeline.forecast.draw import Selection
from pipeline.forecast.estimate import Interval, count_distinct, ratio
from pipeline.forecast.frame import Frame
from pipeline.forecast.sample import Sample
from pipeline.forecast.work import codes, hosts_of
from pipeline.run import GROUPS, Config
from wit.hashing import pair_hashes

MACHINE = 0.1  # by which the same work takes longer or shorter from one hour to the next
NOTHING = Interval.exact(0.0)
ORDER = (
    *("start", "extract", "keys", "unique", "count", "size", "collect", "thresholds", "select"),
    *("robots", "lanes", "fetch", "coverage"),
)


@dataclass(frozen=True)
class Pairs:
    """What the run will find and choose.

    Attributes:
        links: image links, and rows of tables.
        candidates: those with a query.
        selection: the sample's unique ones, with how many there are.
        kept: bool [n], which rows of the sample these are.
        cap: t; an interval where it is solved.
        waves: pairs that each wave asks for.
    """

    links: Interval
    candidates: Interval
    selection: Selection
    kept: np.ndarray
    cap: Interval
    waves: list[Interval]

    @property
    def unique(self) -> Interval:
        """Candidates without duplicates."""
        return self.selection.unique

    @property
    def asked(self) -> Interval:
        """Pictures asked for, in all waves."""
        return sum(self.waves, NOTHING)


@dataclass(frozen=True)
class Hosts:
    """Whom the run will ask.

    Attributes:
        number: of hosts.
        largest: (name, requests) of those with the most pictures in the sample.
        deferred: pictures that the hosts' rates do not allow within the waves.
        bound: seconds below which more workers do not help, at the hosts' rate.
    """

    number: Interval
    largest: list[tuple[str, Interval]]
    deferred: float
    bound: Interval


@dataclass(frozen=True)
class Stage:
    """What a stage will take, in all waves.

    Attributes:
        name: of the stage; `start` is what no stage is.
        tasks: among which its work is cut.
        rows: that it goes over.
        written: bytes.
        core: core-seconds.
        wall: seconds.
    """

    name: str
    tasks: int
    rows: Interval
    written: Interval
    core: Interval
    wall: Interval


def find_pairs(frame: Frame, sample: Sample, config: Config, success: float) -> Pairs:
    """Returns what the run will find, from what the chunks hold.

    Args:
        frame: the files.
        sample: of them.
        config: of the run.
        success: share of the pictures that will be there.
    """
    total, share = frame.total, sample.share
    url, text = pair_hashes(sample.table["pair_id"])
    kept = unique.judge(url, text, config.texts_per_image) == unique.SURVIVES
    thing = url if config.texts_per_image == 1 else url ^ (text * np.uint64(3))
    code = np.unique(thing, return_inverse=True)[1].astype(np.int64)
    distinct = count_distinct(code, sample.chunk, sample.chunks, share)
    weights = distinct.weights[code[kept]] if len(code) else np.zeros(0)
    part = float(weights.sum()) / max(float(distinct.weights.sum()), 1e-300)
    candidates = ratio(sample.rows, sample.sizes, share) * total
    if not len(code):
        return Pairs(
            ratio(sample.links, sample.sizes, share) * total,
            candidates,
            _selection(sample.table, np.zeros(0), NOTHING, config),
            kept,
            Interval.exact(float(config.per_query or 1)),
            [Interval(0.0, 0.0, candidates.high)] + [NOTHING] * (config.waves - 1),
        )
    found = _selection(sample.table.filter(pa.array(kept)), weights, distinct.number * part, config)
    if config.pairs is not None:
        cap = found.solve(config.pairs)
        asked_for = found.unique.at_most(config.pairs)
        first = asked_for if cap.mid > 1 else found.drawn(1.0)  # no cap is below 1
    else:
        cap = Interval.exact(float(config.per_query or 1))
        first = found.drawn(cap.mid)
    asked = [first]
    for wave in range(2, config.waves + 1):
        so_far = found.drawn(cap.mid * _reach(wave, success))
        before = found.drawn(cap.mid * _reach(wave - 1, success))
        more = [max(0.0, a - b) for a, b in zip(_ends(so_far), _ends(before), strict=True)]
        asked.append(Interval(min(more), more[1], max(more)))
    links = ratio(sample.links, sample.sizes, share) * total
    return Pairs(links, candidates, found, kept, cap, asked)


def _ends(value: Interval) -> tuple[float, float, float]:
    return value.low, value.mid, value.high


def _reach(wave: int, success: float) -> float:
    """Returns how many times t a query has asked for after a wave, if it has as many pairs."""
    return min(RESERVE, sum((1 - success) ** earlier for earlier in range(wave)))


def _selection(table: pa.Table, weights: np.ndarray, number: Interval, config: Config) -> Selection:
    lists = table["query_ids"].combine_chunks()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return Selection(
        offsets - offsets[0],
        lists.flatten().to_numpy(),
        weights,
        number,
        config.queries["queries"],
        config.sampling == "shared",
    )


def find_hosts(sample: Sample, pairs: Pairs, config: Config, shown: int = 3) -> Hosts:
    """Returns whom the run will ask, how often, and how long the slowest of them takes."""
    if not len(pairs.selection.weights):
        return Hosts(NOTHING, [], 0.0, NOTHING)
    table = sample.table.filter(pa.array(pairs.kept))
    names = hosts_of(table["url"])
    chunk, code = sample.chunk[pairs.kept], codes(names)
    number = count_distinct(code, chunk, sample.chunks, sample.share).number
    chance = pairs.selection.chances(pairs.cap.mid)
    drawn = pairs.selection.weights * chance
    drawn *= pairs.asked.mid / max(float(drawn.sum()), 1e-300)
    requests = np.bincount(code, drawn)
    first = np.unique(code, return_index=True)[1]
    largest = []
    for host in np.argsort(-requests, kind="stable")[:shown].tolist():
        at = code == host
        of_chunk = np.bincount(chunk[at], drawn[at], sample.chunks)
        spread = ratio(of_chunk, sample.sizes, sample.share)
        of_host = spread * (requests[host] / max(spread.mid, 1e-300))
        largest.append((names[int(first[host])].as_py(), of_host.at_most(pairs.asked.high)))
    rate = config.fetch.get("host_rate") or math.inf
    most = rate * config.wave_hours * 3600 * config.waves
    deferred = float(np.maximum(requests - most, 0).sum())
    bound = largest[0][1].at_most(most) * (1 / (rate * lanes.MOST_OWNED))
    return Hosts(number.at_most(max(pairs.asked.high, 1)), largest, deferred, bound)


def find_stages(
    frame: Frame,
    sample: Sample,
    pairs: Pairs,
    hosts: Hosts,
    costs: Costs,
    config: Config,
    workers: int,
    success: float,
    until: str | None,
) -> list[Stage]:
    """Returns what each stage will take, in order.

    Args:
        frame, sample, pairs, hosts, costs: what is known.
        config: of the run.
        workers: among which the work is cut, a core each.
        success: share of the pictures that will be there.
        until: the last stage, None for all.
    """
    n, groups = pairs.candidates, min(frame.files, GROUPS)
    reading = ratio(sample.seconds, sample.sizes, sample.share) * frame.total
    reading += Interval.exact(sample.each * frame.files)
    asked, open_waves = pairs.asked, [wave for wave in pairs.waves if wave.mid >= 1]
    entries = pairs.selection.entries(pairs.cap.mid) if len(pairs.kept) else 0.0
    found: list[Stage] = []

    def add(name: str, tasks: float, rows: Interval, written: Interval, core: Interval) -> None:
        tasks = max(1, math.ceil(tasks))
        core = core.widened(MACHINE)
        wall = core * (1 / min(workers, tasks))
        if name == "fetch":
            wall = Interval(*map(max, _ends(wall), _ends(hosts.bound)))
        found.append(Stage(name, tasks, rows, written, core, wall))

    def plain(name: str, tasks: float, times: int = 1) -> None:
        c = costs.stages.get(name, cost.Cost(0.0, 0.0, 0.0))
        core = (n * c.row + Interval.exact(c.task * tasks)) * times
        add(name, tasks, n * times, n * (c.row_bytes * times), core)

    start = costs.start * (cost.DRIVER + (cost.WORKER * workers if workers > 1 else 0))
    add("start", 1, NOTHING, NOTHING, Interval.exact(start))
    wall = costs.start * (cost.DRIVER + (cost.WORKER if workers > 1 else 0))
    found[0] = Stage("start", workers, NOTHING, NOTHING, found[0].core, Interval.exact(wall))
    add("extract", frame.files, pairs.links, n * sample.row_bytes, reading)
    plain("keys", groups)
    plain("unique", n.mid / dedupe.BUCKET_ROWS)
    plain("count", groups)
    if config.pairs is not None:
        plain("size", groups)
    rounds = 1 if until else max(1, len(open_waves))
    plain("collect", groups, rounds)
    plain("thresholds", entries / waves.BUCKET_ENTRIES, rounds)
    names = ("collect", "select", "lanes")
    c = {name: costs.stages.get(name, cost.Cost(0.0, 0.0, 0.0)) for name in names}
    chosen = pairs.waves[0] if until else asked
    # A wave goes over all candidates, as `collect` does; what it draws is read whole and written.
    going = n * (min(c["collect"].row, c["select"].row) * rounds)
    per_row = 1 / max(costs.selected, 1e-9)
    drawing = chosen * (max(0.0, c["select"].row - c["collect"].row) * per_row)
    core = going + drawing + Interval.exact(c["select"].task * groups * rounds)
    add("select", groups, chosen, chosen * (c["select"].row_bytes * per_row), core)
    here = hosts.number
    add("robots", waves.HOST_BUCKETS, here, here * 100.0, here * cost.HOST)
    core = asked * (c["lanes"].row * per_row) + Interval.exact(c["lanes"].task)
    add("lanes", config.lanes, asked, asked * (c["lanes"].row_bytes * per_row), core)
    each = cost.REQUEST * (success + cost.FAILED * (1 - success)) + success * costs.picture
    stored = success * costs.stored + cost.SAMPLE_ROW
    add("fetch", config.lanes, asked, asked * stored, asked * each)
    plain("coverage", groups)
    last = ORDER.index(until) if until else len(ORDER)
    return [stage for stage in found if ORDER.index(stage.name) <= last]
