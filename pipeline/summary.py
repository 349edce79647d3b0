"""After the stages: coverage.parquet, hosts.parquet, manifest.json, the funnel and the report.

All numbers come from the durable files of the stages, never from a runner's metrics.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import card, lanes, placeholders, report
from pipeline.coverage import write_coverage, write_evicted
from pipeline.dedupe import load_cap, read_array
from pipeline.limits import standing
from pipeline.progress import SUMMARY, Clock, read_stage, read_times
from pipeline.queries import LIST
from pipeline.report.gather import LATER, SHOWN_HOSTS, UNDECIDED, gather, stage_rows
from pipeline.run import Run, read_many
from pipeline.stages import in_order
from pipeline.tally import Tally
from pipeline.waves import open_waves, read_hosts
from wit import shards, storage
from wit.console import duration
from wit.outcomes import SUCCESS
from wit.pairs import COVERAGE, HOSTS

PASSED = "extracted"  # the reason under which sources count the rows that they hand out
NO_HOSTS = HOSTS.empty_table().drop_columns("rules").append_column("fetched", pa.array([], "int64"))


def summarise(run: Run, contact: str = "") -> dict[str, Any]:
    """Writes everything that a person and other programs read; returns the funnel by reason.

    contact: by which hosts were told to reach whoever harvests, for the dataset's card.

    Raises:
        AssertionError: if a candidate stands in no row of the funnel or in two.
    """
    clock = Clock()
    coverage, fates = write_coverage(run)
    tally = sum_tallies(run)
    hosts, host_count = write_hosts(run)
    manifest = shards.build_manifest(run.path("shards"))
    outcomes = Counter(manifest["totals"]["outcomes"])
    evicted = write_evicted(run)
    funnel = {**tally.counts, **{name: fates[name] for name in LATER}, **outcomes}
    passed = funnel.pop(PASSED, 0)
    links = sum(tally.counts.values())
    assert passed == sum(fates.values()), f"{passed} candidates, but {fates}"
    assert outcomes[SUCCESS] == fates["fetched"], f"{outcomes[SUCCESS]} samples, but {fates}"
    assert sum(funnel.values()) == links, f"{links} image links, but {funnel}"
    extra = {
        "run": {k: v for k, v in asdict(run.config).items() if k not in ("sources", "fetch")},
        "per_query": load_cap(run.base),
        "funnel": {"links": links, **dict(sorted(funnel.items()))},
        "crawls": crawls_of(run),
        "evicted": evicted,
    }
    shards.write_manifest(run.out, extra, manifest)
    placeholders.sum_up(run, outcomes[placeholders.PLACEHOLDER])
    session = last_session(run)
    if session is not None:
        clock.note(run, SUMMARY, session)
    data = gather(run, funnel, manifest, load_cap(run.base), coverage, hosts, host_count)
    write_report(run, data)
    card.write(run, LATER, contact)
    if session is not None:
        clock.note(run, SUMMARY, session)
    storage.write_json(run.path("finished.json"), {"crawls": len(run.config.crawls)})
    return funnel


def crawls_of(run: Run) -> list[dict[str, Any]]:
    """Returns of each crawl its inputs, its waves, and the shards that came with it: [from, to)."""
    begins = [*run.config.crawls, len(run.config.sources)]
    opened, first, found = open_waves(run, run.waves.stop), 0, []
    for number, (begin, end) in enumerate(itertools.pairwise(begins)):
        mine = [wave for wave in opened if (wave - 1) // run.config.waves == number]
        path = run.wave_path("lanes", mine[-1], "shards.json")
        after = storage.read_json(path)["next"]
        found.append({"sources": end - begin, "waves": mine, "shards": [first, after]})
        first = after
    return found


def write_report(run: Run, data: report.ReportData) -> None:
    """Writes report.html."""
    storage.write_bytes(run.path("report.html"), report.render(data).encode())


def report_unfinished(run: Run, why: str) -> None:
    """Writes the report of a run that is not at its end, of what is known by now.

    `why` says, as the end of a sentence, what ended the command.
    """
    tally = sum_tallies(run)
    manifest = shards.build_manifest(run.path("shards"))
    outcomes = Counter(manifest["totals"]["outcomes"])
    counts = tally.counts
    undecided = counts.pop(PASSED, 0) - outcomes.total()
    queries = storage.read_table(run.path(LIST), ["query_id", "query"])
    found = count_pairs(run)
    if found is None:
        found = np.zeros((2, len(queries)), np.int64)
    nothing = pa.array(np.zeros(len(queries), np.int64))
    columns = [queries["query_id"], queries["query"], *map(pa.array, found), *[nothing] * 3]
    cap = load_cap(run.base) if storage.exists(run.own("target.json")) else 0
    stages = [row.name for row in stage_rows(run) if row.tasks]
    shown = f"This run is not finished: {why}. "
    shown += f"The last stage that was begun is {stages[-1]}" if stages else "No stage was begun"
    planned = standing(run)
    if planned["planned"]:
        shown += f", with {planned['shards']:,} of {planned['planned']:,} shards planned so far"
    data = gather(
        run,
        {**counts, UNDECIDED: undecided, **outcomes},
        manifest,
        cap,
        pa.table(columns, schema=COVERAGE),
        NO_HOSTS,
        0,
        f"{shown}. The same command goes on from there.",
    )
    write_report(run, data)


def took(run: Run) -> list[str]:
    """Returns the last rows of a session on the screen: this summary, and all rows together."""
    keys = [key for key, _, _ in in_order(run)]
    session = last_session(run)
    times = read_times(run, keys, session) if session else {}
    rows = [("summary", times[SUMMARY][1])] if SUMMARY in times else []
    rows += [("together", sum(wall for _, wall, _ in times.values()))] if times else []
    return [f"{name:<20} {'':>12}  {duration(wall):>9}" for name, wall in rows]


def last_session(run: Run) -> str | None:
    """Returns the session that planned the last stage last; None where no heartbeat is left."""
    key = [key for key, _, _ in in_order(run)][-1]
    state = read_stage(run, key, None)
    return max(state.spans, key=lambda name: (state.spans[name], name)) if state else None


def so_far(run: Run) -> list[str]:
    """Returns what a run has found that stopped before fetching, as lines for a person."""
    tally = sum_tallies(run)
    lines = [f"{sum(tally.counts.values()):,} image links and rows, each in one row of:"]
    counts = {"pair with a query" if k == PASSED else k: n for k, n in tally.counts.items()}
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    lines += [f"  {count:>12,}  {reason}" for reason, count in ranked if count]
    counts = count_pairs(run)
    if counts is not None:
        matched, unique = counts
        found = np.count_nonzero(matched)
        lines.append(
            f"queries  {found:,} of {len(matched):,} have a pair; the most has {unique.max():,}"
        )
    if storage.exists(run.own("target.json")):
        lines.append(cap_line(run))
    paths = [run.wave_path("selection", 1, f"{g:04d}.json") for g in range(len(run.groups))]
    if all(map(storage.exists, paths)):
        made = list(read_many(paths))
        buckets = sorted({bucket for found in made for bucket in found["host_buckets"]})
        hosts = sum(len(read_hosts(run, 1, bucket)) for bucket in buckets)
        lines.append(f"selected {sum(f['pairs'] for f in made):,} pairs on {hosts:,} hosts")
    return lines


def count_pairs(run: Run) -> np.ndarray | None:
    """Returns int64 [2, queries], matched and unique pairs; None before the stage `count`."""
    paths = [run.path("counts", f"{g:04d}.npy") for g in range(len(run.groups))]
    return sum(map(read_array, paths)) if all(map(storage.exists, paths)) else None


def cap_line(run: Run) -> str:
    """Returns the cap for a person, and how far it is from the number of pairs asked for."""
    target = storage.read_json(run.own("target.json"))
    cap, asked = target["per_query"], run.config.pairs
    line = f"cap      {cap:,} {'pair' if cap == 1 else 'pairs'} a query"
    if asked is None:
        return line
    expected = target["expected_pairs"]
    line += f": about {expected:,} pairs for --pairs {asked:,}"
    if expected > 1.1 * asked and cap == 1:
        return line + "; no cap gives fewer, a shorter query list does"
    return line + ("; there are no more" if expected < 0.9 * asked else "")


def sum_tallies(run: Run) -> Tally:
    """Returns the counts of all sources together that are read."""
    total = Tally()
    names = [n for n in storage.list_names(run.path("candidates")) if n.endswith(".json")]
    for found in read_many(run.path("candidates", name) for name in names):
        total.merge(Tally.from_json(found))
    return total


def write_hosts(run: Run) -> tuple[pa.Table, int]:
    """Writes hosts.parquet: HOSTS over all waves, `pairs` those that were asked for or refused.

    Returns SHOWN_HOSTS of the hosts with the most pairs of each bucket, without `rules`, which may
    be long, and with the column `fetched`, the pictures; and the number of all hosts.
    """
    counts = count_by_host(run)
    tables, number = [NO_HOSTS], 0
    most = [("pairs", "descending"), ("host", "ascending")]
    waves = open_waves(run, run.waves.stop)
    used = {wave: set(lanes.used_host_buckets(run, wave)) for wave in waves}
    with (
        storage.open_write(run.path("hosts.parquet")) as file,
        pq.ParquetWriter(file, HOSTS, compression="zstd") as out,
    ):
        for bucket in sorted(set().union(*used.values())):
            paths = [
                run.wave_path("hosts", wave, f"{bucket:04d}.parquet")
                for wave in waves
                if bucket in used[wave]
            ]
            table = pa.concat_tables(read_many(paths, storage.read_table))
            first = [name for name in HOSTS.names if name not in ("host", "pairs")]
            grouped = table.group_by("host", use_threads=False)
            table = grouped.aggregate([(name, "first") for name in first])
            table = table.rename_columns(["host", *first]).sort_by("host")
            row = pc.index_in(table["host"], counts["host"])
            for name in ("pairs", "fetched"):
                table = table.append_column(name, pc.fill_null(counts[name].take(row), 0))
            out.write_table(table.select(HOSTS.names).cast(HOSTS))
            number += len(table)
            table = table.take(pc.select_k_unstable(table, min(SHOWN_HOSTS, len(table)), most))
            tables.append(table.select(NO_HOSTS.column_names).cast(NO_HOSTS.schema))
    return pa.concat_tables(tables), number


def count_by_host(run: Run) -> pa.Table:
    """Returns host, pairs and fetched: rows and pictures of each host in the shards."""
    paths = [
        run.wave_path("fetched", wave, f"{lane:04d}.hosts.parquet")
        for wave in open_waves(run, run.waves.stop)
        for lane in range(run.config.lanes)
    ]
    table = pa.concat_tables(read_many(paths, storage.read_table))
    table = table.group_by("host").aggregate([("pairs", "sum"), ("fetched", "sum")])
    return table.rename_columns(["host", "pairs", "fetched"])
