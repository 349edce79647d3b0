"""The story of a host: its robots.txt, its part of each wave, what it answered."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import lanes
from pipeline.explain import way
from pipeline.explain.fetched import LISTS, ROBOTS, own_list
from pipeline.explain.files import Files
from pipeline.explain.story import WAITING, Step, Story, count_of
from pipeline.explain.way import Address
from wit import storage
from wit.outcomes import OUTCOMES

SHARDS = 400  # looked through for a host's outcomes
RULE_LINES = 20  # of a robots.txt shown


def host_story(files: Files, url: str) -> Story:
    """Returns what became of a host, given by a URL of it in normal form."""
    address = way.address_of(url)
    steps, total, looked = [], Counter[str](), False
    for wave in files.waves():
        rows = way.host_rows(files, wave, address)
        if not rows:
            continue
        if not looked:
            steps += _robots_steps(files, wave, address, rows)
            looked = True
        step, outcomes = _wave_step(files, wave, address, rows)
        steps.append(step)
        total += outcomes
    if not looked:
        return _unknown(files, address)
    if not total:
        return Story("host", address.hostname, WAITING, "nothing of it is fetched yet", steps)
    steps.append(_outcomes_step(total))
    asked = total.total()
    said = f"{total['success']:,} of {count_of(asked, 'pair')} have a picture"
    refused = total["host_gave_up"] + total["host_paused"]
    if refused:
        said += f"; {refused:,} were not asked for after it failed, or asked to be left alone"
    return Story("host", address.hostname, "asked", said, steps)


def _unknown(files: Files, address: Address) -> Story:
    """A host that no wave has a pair of."""
    said = "no wave has drawn a pair of this host; whether a candidate has it is not indexed"
    fate = "not_drawn"
    if not files.waves():
        said, fate = "nothing is drawn yet (stages up to select)", WAITING
    elif not files.is_over():
        said += ", and the run is not finished"
    steps = []
    for outcome, name in LISTS.items():
        found = own_list(files, name).find(pa.table({"url": [f"{address.host}/"]}))[0]
        if found.is_valid:
            steps.append(Step("list", f"{name} has it: its pictures are kept out ({outcome})"))
    return Story("host", address.hostname, fate, said, steps)


def _robots_steps(
    files: Files, wave: int, address: Address, rows: list[dict[str, Any]]
) -> list[Step]:
    steps = []
    for row in rows:
        said = f"{row['host']}: {ROBOTS[row['robots']]}"
        if row["crawl_delay"]:
            said += f"; crawl delay {row['crawl_delay']:g} s"
        if row["tdm"]:
            said += "; tdmrep.json reserves some or all of it"
        names = ("host", "robots", "crawl_delay", "tdm")
        facts: dict[str, Any] = {name: row[name] for name in names}
        table: list[list[str]] = []
        if row["robots"] == "rules":
            own = Address(row["host"], address.hostname, address.hash)
            rules = (way.rules_of(files, wave, own) or "").splitlines()
            facts["rules"] = rules
            table = [[line] for line in rules[:RULE_LINES]]
            if len(rules) > RULE_LINES:
                table.append([f"and {len(rules) - RULE_LINES:,} more lines"])
        steps.append(Step("robots", said, facts, table))
    delay = max((row["crawl_delay"] or 0.0 for row in rows), default=0.0)
    rate, budget = way.rate_of(files, delay), way.budget_of(files, delay)
    said = "asked without a limit of its rate"
    if rate is not None:
        hours = files.run.config.wave_hours
        said = f"asked at most {rate:g} times a second: {budget:,.0f} in the {hours:g} h of a wave"
    names = ", ".join(map(str, way.lanes_of(files, address, rows[0]["lanes"])))
    said += f"; {'lane' if rows[0]['lanes'] == 1 else 'lanes'} {names}"
    steps.append(Step("rate", said, {"rate": rate, "budget": budget, "lanes": rows[0]["lanes"]}))
    return steps


def _wave_step(
    files: Files, wave: int, address: Address, rows: list[dict[str, Any]]
) -> tuple[Step, Counter[str]]:
    """A host's part of a wave: planned, deferred, and what its rows ended in."""
    planned = sum(row["pairs"] for row in rows)
    hosts = {row["host"] for row in rows}
    kept, outcomes, waiting, looked, beyond = 0, Counter[str](), 0, 0, 0
    ready = True
    for lane in way.lanes_of(files, address, rows[0]["lanes"]):
        path = files.run.wave_path("lanes", wave, f"{lane:04d}.parquet")
        if files.json(files.run.wave_path("lanes", wave, f"{lane:04d}.json")) is None:
            ready = False
            continue
        ids = _shards(files, wave, lane)
        for number, places in enumerate(_rows_of(path, hosts)):
            kept += len(places)
            if len(places) == 0:
                continue
            looked += 1
            if looked > SHARDS:
                beyond += len(places)
                continue
            table = files.shard(ids[number]) if ids is not None else None
            if table is None:
                waiting += len(places)
            else:
                outcomes.update(table["outcome"].take(places).to_pylist())
            files.progress("shards of the host", looked, SHARDS)
    said = f"{count_of(planned, 'pair')} drawn"
    facts = {"wave": wave, "drawn": planned, "outcomes": dict(sorted(outcomes.items()))}
    if not ready:
        return Step(f"wave {wave}", f"{said}; its lanes are not all planned yet", facts), outcomes
    facts |= {"planned": kept, "deferred": planned - kept, "waiting": waiting, "not_read": beyond}
    said += f", {planned - kept:,} deferred by its rate; {outcomes['success']:,} fetched"
    failed = outcomes.total() - outcomes["success"]
    said += f", {failed:,} without a picture"
    if waiting:
        said += f", {waiting:,} not asked for yet"
    if beyond:
        said += f", {beyond:,} in shards that were not read (more than {SHARDS:,})"
    return Step(f"wave {wave}", said, facts), outcomes


def _shards(files: Files, wave: int, lane: int) -> range | None:
    if not storage.exists(files.run.wave_path("lanes", wave, "shards.json")):
        return None
    return lanes.planned_shards(files.run, wave)[lane]


def _rows_of(path: str, hosts: set[str]) -> list[Any]:
    """Returns, by row group of a lane (one a shard), the rows that have one of the hosts."""
    wanted, found = pa.array(sorted(hosts)), []
    with storage.open_read(path) as file:
        parquet = pq.ParquetFile(file)
        for number in range(parquet.num_row_groups):
            column = parquet.read_row_group(number, columns=["host"])["host"].combine_chunks()
            found.append(pc.indices_nonzero(pc.is_in(column, wanted)))
    return found


def _outcomes_step(total: Counter[str]) -> Step:
    rows = [
        [f"{count:,}", outcome, OUTCOMES[outcome][1]]
        for outcome, count in sorted(total.items(), key=lambda item: (-item[1], item[0]))
    ]
    return Step("outcomes", "of all waves", {"outcomes": dict(sorted(total.items()))}, rows)
