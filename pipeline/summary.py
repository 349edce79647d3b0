"""After the stages: coverage.parquet, hosts.parquet, manifest.json, the funnel and the report.

All numbers come from the durable files of the stages, never from a runner's metrics.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import lanes, report
from pipeline.coverage import write_coverage
from pipeline.dedupe import load_cap, read_array
from pipeline.progress import START, SUMMARY, Clock, read_stage, read_times
from pipeline.run import Run, read_many
from pipeline.stages import in_order
from pipeline.tally import REASONS, Tally
from pipeline.waves import read_hosts
from wit import shards, storage
from wit.console import duration
from wit.outcomes import OUTCOMES, SUCCESS
from wit.pairs import HOSTS, SAMPLES

SHOWN_QUERIES = 1000
SHOWN_HOSTS = 50
EXAMPLES = 3
SAMPLE_SHARDS = 50  # of at most 10,000 rows each
GALLERY_QUERIES, GALLERY_PAIRS = 10, 6
PASSED = "extracted"  # the reason under which sources count the rows that they hand out
LATER = {  # what becomes of candidates after matching, beside the outcomes of a fetch
    "duplicate_pair": "The same URL with the same text was found before.",
    "other_text": "The image has a text already; --texts-per-image keeps more.",
    "over_cap": "Each of its queries has drawn its share of other pairs.",
    "deferred": "Drawn, but the host's rate did not allow it within the waves.",
}


def summarise(run: Run) -> dict[str, Any]:
    """Writes everything that a person and other programs read; returns the funnel by reason.

    Raises:
        AssertionError: if a candidate stands in no row of the funnel or in two.
    """
    clock = Clock()
    coverage, fates = write_coverage(run)
    tally = sum_tallies(run)
    hosts = write_hosts(run)
    samples = read_samples(run)
    manifest = shards.build_manifest(run.path("shards"))
    outcomes = Counter(manifest["totals"]["outcomes"])
    funnel = {**tally.counts, **{name: fates[name] for name in LATER}, **outcomes}
    passed = funnel.pop(PASSED, 0)
    links = sum(tally.counts.values())
    assert passed == sum(fates.values()), f"{passed} candidates, but {fates}"
    assert outcomes[SUCCESS] == fates["fetched"], f"{outcomes[SUCCESS]} samples, but {fates}"
    assert sum(funnel.values()) == links, f"{links} image links, but {funnel}"
    extra = {
        "run": {k: v for k, v in asdict(run.config).items() if k not in ("sources", "fetch")},
        "per_query": load_cap(run.out),
        "funnel": {"links": links, **dict(sorted(funnel.items()))},
    }
    shards.write_manifest(run.out, extra, manifest)
    session = last_session(run)
    if session is not None:
        clock.note(run, SUMMARY, session)
    data = report_data(run, funnel, links, coverage, hosts, samples)
    storage.write_bytes(run.path("report.html"), report.render(data).encode())
    if session is not None:
        clock.note(run, SUMMARY, session)
    return funnel


def took(run: Run) -> list[str]:
    """Returns the last rows of a session on the screen: this summary, and all rows together."""
    keys = [key for key, _, _ in in_order(run.config.waves)]
    session = last_session(run)
    times = read_times(run, keys, session) if session else {}
    rows = [("summary", times[SUMMARY][1])] if SUMMARY in times else []
    rows += [("together", sum(wall for _, wall, _ in times.values()))] if times else []
    return [f"{name:<20} {'':>12}  {duration(wall):>9}" for name, wall in rows]


def last_session(run: Run) -> str | None:
    """Returns the session that planned the last stage last; None where no heartbeat is left."""
    key = [key for key, _, _ in in_order(run.config.waves)][-1]
    state = read_stage(run, key, None)
    return max(state.spans, key=lambda name: (state.spans[name], name)) if state else None


def so_far(run: Run) -> list[str]:
    """Returns what a run has found that stopped before fetching, as lines for a person."""
    tally = sum_tallies(run)
    lines = [f"{sum(tally.counts.values()):,} image links and rows, each in one row of:"]
    counts = {"pair with a query" if k == PASSED else k: n for k, n in tally.counts.items()}
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    lines += [f"  {count:>12,}  {reason}" for reason, count in ranked if count]
    paths = [run.path("counts", f"{g:04d}.npy") for g in range(len(run.groups))]
    if all(map(storage.exists, paths)):
        matched, unique = sum(map(read_array, paths))
        found = np.count_nonzero(matched)
        lines.append(
            f"queries  {found:,} of {len(matched):,} have a pair; the most has {unique.max():,}"
        )
    if storage.exists(run.path("target.json")):
        lines.append(cap_line(run))
    paths = [run.wave_path("selection", 1, f"{g:04d}.json") for g in range(len(run.groups))]
    if all(map(storage.exists, paths)):
        made = list(read_many(paths))
        buckets = sorted({bucket for found in made for bucket in found["host_buckets"]})
        hosts = sum(len(read_hosts(run, 1, bucket)) for bucket in buckets)
        lines.append(f"selected {sum(f['pairs'] for f in made):,} pairs on {hosts:,} hosts")
    return lines


def cap_line(run: Run) -> str:
    """Returns the cap for a person, and how far it is from the number of pairs asked for."""
    target = storage.read_json(run.path("target.json"))
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
    """Returns the counts of all sources together."""
    total = Tally()
    for found in read_many(run.candidates(s, ".json") for s in range(len(run.config.sources))):
        total.merge(Tally.from_json(found))
    return total


def write_hosts(run: Run) -> pa.Table:
    """Writes hosts.parquet: HOSTS over all waves, `pairs` those that were asked for or refused.

    Returns it without `rules`, which may be long, and with the column `fetched`, the pictures.
    """
    counts = count_by_host(run)
    slim = pa.schema([field for field in HOSTS if field.name != "rules"])
    slim = slim.append(pa.field("fetched", pa.int64()))
    tables = [slim.empty_table()]
    waves = range(1, lanes.last_wave(run) + 1)
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
            tables.append(table.select(slim.names).cast(slim))
    return pa.concat_tables(tables)


def count_by_host(run: Run) -> pa.Table:
    """Returns host, pairs and fetched: rows and pictures of each host in the shards."""
    paths = [
        run.wave_path("fetched", wave, f"{lane:04d}.hosts.parquet")
        for wave in range(1, lanes.last_wave(run) + 1)
        for lane in range(run.config.lanes)
    ]
    table = pa.concat_tables(read_many(paths, storage.read_table))
    table = table.group_by("host").aggregate([("pairs", "sum"), ("fetched", "sum")])
    return table.rename_columns(["host", "pairs", "fetched"])


def read_samples(run: Run) -> pa.Table:
    """Returns what the examples and the gallery are taken from: the rows of the first shards.

    A lane's rows are in the order of a seeded hash, so its first shards are a random sample of it.
    """
    columns = [
        *("key", "url", "caption", "page_url", "attribute", "language", "outcome"),
        *("error_message", "query_ids", "content_type", "image_offset", "image_size"),
    ]
    folder = run.path("shards")
    tables = [
        storage.read_table(shards.final_path(folder, name, "parquet"), columns)
        for name in shards.list_shards(folder)[:SAMPLE_SHARDS]
    ]
    return pa.concat_tables(tables) if tables else SAMPLES.empty_table().select(columns)


# --- the report -------------------------------------------------------------------------------


def report_data(
    run: Run,
    funnel: dict[str, int],
    links: int,
    coverage: pa.Table,
    hosts: pa.Table,
    samples: pa.Table,
) -> report.ReportData:
    """Returns what the page shows."""
    cap = load_cap(run.out)
    stored = samples.filter(pc.equal(samples["outcome"], SUCCESS))
    attempts = sum(count for name, count in funnel.items() if name in OUTCOMES)
    present, short = coverage["present"].to_numpy(), coverage["short_by"].to_numpy()
    return report.ReportData(
        title=run.out.rstrip("/").rpartition("/")[2],
        facts=facts(run, cap),
        links=links,
        fates=fates_of(funnel),
        cap=cap,
        queries=telling_queries(coverage),
        query_count=len(coverage),
        queries_present=int(np.count_nonzero(present)),
        queries_short=int(np.count_nonzero(short)),
        curve=report.make_curve(coverage["unique"].to_numpy(), coverage["drawn"].to_numpy()),
        attempts=attempts,
        failures=failures(funnel, samples),
        hosts=host_rows(run, hosts),
        host_count=len(hosts),
        galleries=galleries(run, coverage, samples),
        stages=stage_rows(run),
        breakdowns=[
            breakdown(title, stored[column])
            for title, column in (
                ("Language", "language"),
                ("Attribute", "attribute"),
                ("Content type", "content_type"),
            )
            if column != "language" or run.config.identify_language or run.config.languages
        ],
    )


def facts(run: Run, cap: int) -> list[tuple[str, str]]:
    """Returns the run's facts, as (label, value)."""
    config = run.config
    return [
        ("Sources", f"{len(config.sources):,} files"),
        ("Queries", f"{config.queries['queries']:,} ({config.match} matching)"),
        ("Cap", f"{cap:,} pairs a query, {config.sampling} sampling"),
        ("Seed", str(config.seed)),
        ("Waves", f"{lanes.last_wave(run)} of {config.waves}"),
        ("Lanes", str(config.lanes)),
        ("Agent", config.product_token or ""),
        ("Version", config.version),
    ]


def fates_of(funnel: dict[str, int]) -> list[report.Fate]:
    """Returns the funnel's rows in the order of a candidate's way."""
    rows = [
        report.Fate("Reading and matching", n, REASONS[n], funnel[n])
        for n in REASONS
        if n in funnel
    ]
    rows += [report.Fate("Selecting", n, LATER[n], funnel[n]) for n in LATER if funnel[n]]
    rows += [
        report.Fate("Fetching", n, OUTCOMES[n][1], funnel[n], kept=n == SUCCESS)
        for n in OUTCOMES
        if n in funnel
    ]
    return rows


def telling_queries(coverage: pa.Table) -> list[report.QueryRow]:
    """Returns the queries with the most pairs: those the cap and the waves act upon."""
    order = pc.sort_indices(coverage, [("unique", "descending"), ("query", "ascending")])
    top = coverage.take(order[:SHOWN_QUERIES])
    top = top.filter(pc.greater(top["matched"], 0)).drop_columns("query_id")
    return [report.QueryRow(**row) for row in top.to_pylist()]


def failures(funnel: dict[str, int], samples: pa.Table) -> list[report.Failure]:
    """Returns the outcomes other than success, the most frequent first, with examples."""
    rows = []
    for outcome, count in Counter(funnel).most_common():
        if outcome in OUTCOMES and outcome != SUCCESS:
            some = samples.filter(pc.equal(samples["outcome"], outcome))
            some = some.filter(some["url"].is_valid()).slice(0, EXAMPLES)
            pairs = zip(some["url"].to_pylist(), some["error_message"].to_pylist(), strict=True)
            examples = [(url, message or "") for url, message in pairs]
            rows.append(report.Failure(outcome, OUTCOMES[outcome][1], count, examples))
    return rows


def host_rows(run: Run, hosts: pa.Table) -> list[report.HostRow]:
    """Returns the hosts with the most pairs."""
    order = pc.sort_indices(hosts, [("pairs", "descending"), ("host", "ascending")])
    return [
        report.HostRow(
            row["host"], row["pairs"], row["fetched"], row["robots"] or "", row["crawl_delay"]
        )
        for row in hosts.take(order[:SHOWN_HOSTS]).to_pylist()
    ]


def galleries(run: Run, coverage: pa.Table, samples: pa.Table) -> list[report.Gallery]:
    """Returns pictures of some queries, spread from the most to the least frequent."""
    success = samples.filter(pc.equal(samples["outcome"], SUCCESS))
    order = pc.sort_indices(coverage, [("present", "descending"), ("query", "ascending")])
    present = coverage.take(order).filter(pc.greater_equal(coverage.take(order)["present"], 3))
    if not len(present):
        return []
    picks = np.unique(np.geomspace(1, len(present), GALLERY_QUERIES).astype(int)) - 1
    lists = success["query_ids"].combine_chunks()
    row_of = pc.list_parent_indices(lists).to_numpy()
    flat = pc.list_flatten(lists).to_numpy()
    found = []
    for pick in picks.tolist():
        query_id, query = present["query_id"][pick].as_py(), present["query"][pick].as_py()
        rows = row_of[flat == query_id][:GALLERY_PAIRS]
        cards = []
        for row in success.take(pa.array(rows)).to_pylist():
            picture = report.thumbnail(shards.read_image(run.path("shards"), row))
            if picture:
                cards.append(
                    report.Card(picture, row["caption"], row["url"], row["page_url"] or "")
                )
        found.append(report.Gallery(query, cards))
    return found


def stage_rows(run: Run) -> list[report.StageRow]:
    """Returns what each stage took, over all sessions, and the driver before and after them."""
    names = {START: "start: query list, workers", SUMMARY: "summary and report"}
    for key, wave, stage in in_order(run.config.waves):
        names[key] = f"{stage.name} {wave}" if 1 <= wave <= run.config.waves else stage.name
    times = read_times(run, [key for key in names if key not in (START, SUMMARY)])
    return [
        report.StageRow(names[key], 0 if key in (START, SUMMARY) else tasks, wall, cpu)
        for key, (tasks, wall, cpu) in times.items()
    ]


def breakdown(title: str, column: pa.ChunkedArray) -> report.Breakdown:
    """Returns the most frequent values of a column."""
    counts = Counter(value or "unknown" for value in column.to_pylist())
    return report.Breakdown(title, counts.most_common(12))
