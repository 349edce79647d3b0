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

from pipeline import lanes, report
from pipeline.coverage import write_coverage
from pipeline.dedupe import load_cap
from pipeline.progress import read_stage
from pipeline.run import Run
from pipeline.stages import in_order
from pipeline.tally import REASONS, Tally
from pipeline.waves import origins
from wit import shards, storage
from wit.outcomes import OUTCOMES, SUCCESS
from wit.pairs import HOSTS

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
    coverage, fates = write_coverage(run)
    tally = sum_tallies(run)
    hosts = write_hosts(run)
    samples = read_samples(run)
    outcomes = Counter(shards.build_manifest(run.path("shards"))["totals"]["outcomes"])
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
    shards.write_manifest(run.out, extra)
    data = report_data(run, funnel, links, coverage, hosts, samples)
    storage.write_bytes(run.path("report.html"), report.render(data).encode())
    return funnel


def sum_tallies(run: Run) -> Tally:
    """Returns the counts of all sources together."""
    total = Tally()
    for source in range(len(run.config.sources)):
        total.merge(Tally.from_json(storage.read_json(run.candidates(source, ".json"))))
    return total


def write_hosts(run: Run) -> pa.Table:
    """Writes hosts.parquet: HOSTS over all waves, `pairs` summed."""
    parts = [HOSTS.empty_table()]
    for wave in range(1, lanes.last_wave(run) + 1):
        for bucket in lanes.used_host_buckets(run, wave):
            path = run.wave_path("hosts", wave, f"{bucket:04d}.parquet")
            parts.append(storage.read_table(path))
    table = pa.concat_tables(parts)
    first = ["hostname", "lanes", "robots", "rules", "crawl_delay"]
    grouped = table.group_by("host", use_threads=False)
    table = grouped.aggregate([("pairs", "sum"), *((name, "first") for name in first)])
    table = table.rename_columns(["host", "pairs", *first]).sort_by("host")
    table = table.select(HOSTS.names).cast(HOSTS)
    storage.write_table(run.path("hosts.parquet"), table)
    return table


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
    return pa.concat_tables(tables) if tables else shards.SCHEMA.empty_table().select(columns)


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
    attempts = sum(count for name, count in funnel.items() if name in OUTCOMES)
    matched, short = coverage["matched"].to_numpy(), coverage["short_by"].to_numpy()
    return report.ReportData(
        title=run.out.rstrip("/").rpartition("/")[2],
        facts=facts(run, cap),
        links=links,
        fates=fates_of(funnel),
        cap=cap,
        queries=telling_queries(coverage),
        query_count=len(coverage),
        queries_matched=int(np.count_nonzero(matched)),
        queries_short=int(np.count_nonzero(short)),
        curve=report.make_curve(coverage["unique"].to_numpy(), coverage["drawn"].to_numpy()),
        attempts=attempts,
        failures=failures(funnel, samples),
        hosts=host_rows(run, hosts),
        host_count=len(hosts),
        galleries=galleries(run, coverage, samples),
        stages=stage_rows(run),
        breakdowns=[
            breakdown("Language", samples["language"]),
            breakdown("Attribute", samples["attribute"]),
            breakdown("Content type", samples["content_type"]),
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
        ("Agent", config.fetch["user_agent"]),
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
            some = samples.filter(pc.equal(samples["outcome"], outcome)).slice(0, EXAMPLES)
            pairs = zip(some["url"].to_pylist(), some["error_message"].to_pylist(), strict=True)
            examples = [(url, message or "") for url, message in pairs]
            rows.append(report.Failure(outcome, OUTCOMES[outcome][1], count, examples))
    return rows


def fetched_by_host(run: Run) -> Counter[str]:
    """Returns the pictures stored of each host, counted shard by shard."""
    folder = run.path("shards")
    counts: Counter[str] = Counter()
    for name in shards.list_shards(folder):
        path = shards.final_path(folder, name, "parquet")
        table = storage.read_table(path, ["url", "outcome"])
        success = table.filter(pc.equal(table["outcome"], SUCCESS))
        hosts = pc.value_counts(origins(success["url"]))
        counts.update({row["values"]: row["counts"] for row in hosts.to_pylist()})
    return counts


def host_rows(run: Run, hosts: pa.Table) -> list[report.HostRow]:
    """Returns the hosts with the most planned pairs."""
    fetched = fetched_by_host(run)
    order = pc.sort_indices(hosts, [("pairs", "descending"), ("host", "ascending")])
    return [
        report.HostRow(
            row["host"], row["pairs"], fetched[row["host"]], row["robots"] or "", row["crawl_delay"]
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
    """Returns what each stage took, over all sessions."""
    rows = []
    for key, wave, stage in in_order(run.config.waves):
        state = read_stage(run, key, None)
        if state and state.tasks:
            name = f"{stage.name} {wave}" if 1 <= wave <= run.config.waves else stage.name
            rows.append(report.StageRow(name, state.tasks, state.wall, state.cpu))
    return rows


def breakdown(title: str, column: pa.ChunkedArray) -> report.Breakdown:
    """Returns the most frequent values of a column."""
    counts = Counter(value or "unknown" for value in column.to_pylist())
    return report.Breakdown(title, counts.most_common(12))
