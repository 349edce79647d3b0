"""Fills the report's data from a run's durable files.

Counts are exact. Examples and pictures come from at most SAMPLE_SHARDS shards, spread over all, and
from those that the manifest names for an outcome; a shard is read at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import lanes, placeholders
from pipeline.progress import START, SUMMARY, read_times
from pipeline.report import shapes
from pipeline.report.data import (
    Card,
    Failure,
    Fate,
    Gallery,
    HostRow,
    QueryRow,
    ReportData,
    StageRow,
    make_curve,
    thumbnail,
)
from pipeline.run import Run, read_many
from pipeline.stages import in_order
from pipeline.tally import REASONS
from pipeline.traits import Traits, add_traits, from_json
from wit import shards, storage
from wit.outcomes import OUTCOMES, SUCCESS

SHOWN_QUERIES = 1000
SHOWN_HOSTS = 50
EXAMPLES = 3
SAMPLE_SHARDS = 50  # of at most 10,000 rows each
LEAST_PAIRS = 3  # of a query in the gallery
GALLERY_QUERIES, GALLERY_PAIRS = 10, 6
LATER = {  # what becomes of candidates after matching, beside the outcomes of a fetch
    "duplicate_pair": "The same URL with the same text was found before.",
    "other_text": "The image has a text already; --texts-per-image keeps more.",
    "over_cap": "Each of its queries has drawn its share of other pairs.",
    "deferred": "Drawn, but the host's rate did not allow it within the waves.",
}
NO_PICTURE = "Selected, but without a picture; the failures below say why."
UNDECIDED = "undecided"
NOT_YET = {UNDECIDED: "Not known yet: the run has not come so far."}


def gather(
    run: Run,
    funnel: dict[str, int],
    manifest: dict[str, Any],
    cap: int,
    coverage: pa.Table,
    hosts: pa.Table,
    host_count: int,
    unfinished: str = "",
) -> ReportData:
    """Returns what the page shows.

    Args:
        run: the run.
        funnel: image links by what became of them.
        manifest: of its shards (wit.manifest.build_manifest).
        cap: t; 0 where it is not known yet.
        coverage: COVERAGE of all queries; of an unfinished run only `matched` and `unique` count.
        hosts: the hosts with the most pairs, at least SHOWN_HOSTS: HOSTS without rules, `fetched`.
        host_count: of all hosts.
        unfinished: why the run is not at its end; empty where it is.
    """
    attempts = sum(count for name, count in funnel.items() if name in OUTCOMES)
    counts = ["unique"] if unfinished else ["unique", "drawn", "present"]
    traits = sum_traits(run)
    totals = manifest["totals"]
    return ReportData(
        title=run.out.rstrip("/").rpartition("/")[2],
        unfinished=unfinished,
        facts=facts(run, cap, totals),
        links=sum(funnel.values()),
        fates=fates_of(funnel),
        cap=cap,
        queries=telling_queries(coverage),
        query_count=len(coverage),
        queries_present=int(np.count_nonzero(coverage["present"].to_numpy())),
        queries_short=int(np.count_nonzero(coverage["short_by"].to_numpy())),
        curve=make_curve(*(coverage[name].to_numpy() for name in counts)),
        attempts=attempts,
        failures=failures(run, funnel, manifest),
        hosts=host_rows(hosts),
        host_count=host_count,
        host_share=host_share(hosts, attempts),
        galleries=galleries(run, coverage, manifest),
        stages=stage_rows(run),
        stored=traits["shape"].total(),
        bytes=totals["tar_bytes"] + totals["parquet_bytes"],
        histograms=shapes.histograms(traits),
        breakdowns=shapes.breakdowns(traits),
    )


def facts(run: Run, cap: int, totals: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the run's facts, as (label, value)."""
    config, fetch = run.config, run.config.fetch
    size = fetch.get("image_size")
    pictures = f"{fetch.get('resize_mode', '').replace('_', ' ')} {size} pixels" if size else ""
    waves = [w for w in range(1, run.waves.stop) if _is_planned(run, w)]
    crawls = f", in {len(config.crawls)} crawls" if run.crawl else ""
    return [
        ("Sources", f"{len(config.sources):,} {_files(len(config.sources))}{crawls}"),
        ("Queries", f"{config.queries['queries']:,} ({config.match} matching)"),
        ("Cap", f"{cap:,} pairs a query, {config.sampling} sampling" if cap else "not known yet"),
        ("Shards", f"{totals['shards']:,}, of at most {config.shard_size:,} pairs"),
        ("Pictures", pictures),
        ("Waves", f"{len(waves)} of at most {run.waves.stop - 1}, in {config.lanes:,} lanes"),
        ("Seed", str(config.seed)),
        ("Agent", config.product_token or ""),
        ("Version", config.version),
        ("Placeholders", placeholders.told(run)),
    ]


def _files(count: int) -> str:
    return "file" if count == 1 else "files"


def _is_planned(run: Run, wave: int) -> bool:
    opened = storage.exists(run.wave_path("lanes", wave, "open.json"))
    return opened and lanes.is_open(run, wave)


def sum_traits(run: Run) -> Traits:
    """Returns what the stored pairs of all finished lanes are like."""
    paths = []
    for wave in range(1, run.waves.stop):
        names = storage.list_names(run.path("fetched", f"{wave:02d}"))
        paths += [run.wave_path("fetched", wave, n) for n in names if n.endswith(".traits.json")]
    return add_traits(from_json(found) for found in read_many(paths))


def fates_of(funnel: dict[str, int]) -> list[Fate]:
    """Returns the funnel's rows in the order of a candidate's way; failures are one of them."""
    rows = [
        Fate("Reading and matching", n, REASONS[n], funnel[n]) for n in REASONS if funnel.get(n)
    ]
    later = LATER | NOT_YET
    rows += [Fate("Selecting", n, later[n], funnel[n]) for n in later if funnel.get(n)]
    kept, failed = funnel.get(SUCCESS, 0), sum(funnel.get(n, 0) for n in OUTCOMES if n != SUCCESS)
    rows += [Fate("Fetching", "no picture", NO_PICTURE, failed)] if failed else []
    if kept or UNDECIDED not in funnel:
        rows += [Fate("Fetching", SUCCESS, OUTCOMES[SUCCESS][1], kept, kept=True)]
    return rows


def telling_queries(coverage: pa.Table) -> list[QueryRow]:
    """Returns the queries with the most pairs: those the cap and the waves act upon."""
    keys = [("unique", "descending"), ("query", "ascending")]
    top = coverage.take(pc.select_k_unstable(coverage, min(SHOWN_QUERIES, len(coverage)), keys))
    top = top.filter(pc.greater(top["matched"], 0)).drop_columns("query_id")
    return [QueryRow(**row) for row in top.to_pylist()]


def host_rows(hosts: pa.Table) -> list[HostRow]:
    """Returns the hosts with the most pairs."""
    order = pc.sort_indices(hosts, [("pairs", "descending"), ("host", "ascending")])
    return [
        HostRow(row["host"], row["pairs"], row["fetched"], row["robots"] or "", row["crawl_delay"])
        for row in hosts.take(order[:SHOWN_HOSTS]).to_pylist()
    ]


def host_share(hosts: pa.Table, attempts: int) -> float:
    """Returns the part of all selected pairs that the ten largest hosts have."""
    largest = np.sort(hosts["pairs"].to_numpy())[::-1][:10]
    return float(largest.sum()) / attempts if attempts else 0.0


# --- examples ---------------------------------------------------------------------------------


def failures(run: Run, funnel: dict[str, int], manifest: dict[str, Any]) -> list[Failure]:
    """Returns the outcomes other than success, the most frequent first, with examples.

    An outcome's examples come from the shard that has the most of it.
    """
    ranked = [name for name, _ in Counter(funnel).most_common() if name in OUTCOMES]
    ranked = [name for name in ranked if name != SUCCESS]
    shown: dict[str, list[str]] = {}  # shard -> the outcomes that are shown from it
    for outcome in ranked:
        having = [shard for shard in manifest["shards"] if shard["outcomes"].get(outcome)]
        if having:
            most = max(having, key=lambda shard: shard["outcomes"][outcome])
            shown.setdefault(most["name"], []).append(outcome)
    examples: dict[str, list[tuple[str, str]]] = {}
    for name, outcomes in shown.items():
        table = _read(run, name, ["url", "outcome", "error_message"])
        for outcome in outcomes:
            some = table.filter(pc.equal(table["outcome"], outcome))
            examples[outcome] = of_several_hosts(some.filter(some["url"].is_valid()))
    return [Failure(n, OUTCOMES[n][1], funnel[n], examples.get(n, ())) for n in ranked]


def of_several_hosts(table: pa.Table) -> list[tuple[str, str]]:
    """Returns (url, error message) of rows, of different hosts as far as there are some."""
    some = table.slice(0, 100 * EXAMPLES)
    pairs = list(zip(some["url"].to_pylist(), some["error_message"].to_pylist(), strict=True))
    by_host: dict[str, int] = {}
    places = []
    for place, (url, _) in enumerate(pairs):
        host = url.partition("://")[2].partition("/")[0]
        by_host[host] = by_host.get(host, 0) + 1
        places.append((by_host[host], place))
    return [(pairs[i][0], pairs[i][1] or "") for _, i in sorted(places)[:EXAMPLES]]


def galleries(run: Run, coverage: pa.Table, manifest: dict[str, Any]) -> list[Gallery]:
    """Returns pictures of some queries, spread from the most to the least frequent.

    They are chosen by how many pairs they have in the shards that are looked at.
    """
    having = [shard["name"] for shard in manifest["shards"] if shard["successes"]]
    names = spread(having, SAMPLE_SHARDS)
    counts = np.zeros(len(coverage), np.int64)
    for name in names:
        table = _read(run, name, ["outcome", "query_ids"])
        flat = pc.list_flatten(table.filter(pc.equal(table["outcome"], SUCCESS))["query_ids"])
        counts += np.bincount(flat.to_numpy(), minlength=len(counts))
    order = np.lexsort((np.arange(len(counts)), -counts))
    order = order[: int(np.count_nonzero(counts >= LEAST_PAIRS))]
    if not len(order):
        return []
    picks = order[np.unique(np.geomspace(1, len(order), GALLERY_QUERIES).astype(int)) - 1]
    rows = sample_rows(run, names, picks.tolist())
    queries, present = coverage["query"], coverage["present"]
    return [
        Gallery(queries[pick].as_py(), cards(run, rows[pick]), present[pick].as_py())
        for pick in picks.tolist()
    ]


def sample_rows(
    run: Run, names: Sequence[str], picks: Sequence[int]
) -> dict[int, list[dict[str, Any]]]:
    """Returns GALLERY_PAIRS rows of each of some queries, from as many shards as have one."""
    columns = ["key", "url", "caption", "page_url", "outcome", "query_ids"]
    columns += ["image_offset", "image_size"]
    found: dict[int, list[tuple[int, int, dict[str, Any]]]] = {pick: [] for pick in picks}
    for number, name in enumerate(names):
        table = _read(run, name, columns)
        table = table.filter(pc.equal(table["outcome"], SUCCESS))
        lists = table["query_ids"].combine_chunks()
        row_of = pc.list_parent_indices(lists).to_numpy()
        flat = pc.list_flatten(lists).to_numpy()
        for pick in picks:
            rows = table.take(pa.array(row_of[flat == pick][:GALLERY_PAIRS])).to_pylist()
            found[pick] += [(nth, number, row) for nth, row in enumerate(rows)]
    return {
        pick: [row for _, _, row in sorted(rows, key=lambda r: r[:2])[:GALLERY_PAIRS]]
        for pick, rows in found.items()
    }


def cards(run: Run, rows: Sequence[dict[str, Any]]) -> list[Card]:
    """Returns a card for each row of a shard."""
    pictures = [thumbnail(shards.read_image(run.path("shards"), row)) for row in rows]
    return [
        Card(picture, row["caption"], row["url"], row["page_url"] or "")
        for picture, row in zip(pictures, rows, strict=True)
    ]


def spread(values: Sequence[str], most: int) -> list[str]:
    """Returns at most so many of the values, evenly spread over them."""
    places = np.unique(np.linspace(0, len(values) - 1, most).round().astype(int))
    return [values[place] for place in places.tolist()] if values else []


def _read(run: Run, name: str, columns: list[str]) -> pa.Table:
    return storage.read_table(shards.final_path(run.path("shards"), name, "parquet"), columns)


# --- time -------------------------------------------------------------------------------------


def stage_rows(run: Run) -> list[StageRow]:
    """Returns what each stage took, over all sessions, and the driver before and after them."""
    names = {START: "start: query list, workers", SUMMARY: "summary and report"}
    for key, wave, stage in in_order(run):
        names[key] = f"{stage.name} {wave}" if wave else stage.name
    times = read_times(run, [key for key in names if key not in (START, SUMMARY)])
    return [
        StageRow(names[key], 0 if key in (START, SUMMARY) else tasks, wall, cpu)
        for key, (tasks, wall, cpu) in times.items()
    ]
