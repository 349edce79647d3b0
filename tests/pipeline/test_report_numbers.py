"""The report's numbers are those that DuckDB finds in the run's tables."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image

from pipeline import fetching
from pipeline.report import shapes
from pipeline.run import Run, load_run
from pipeline.summary import summarise
from tests.pipeline import rows as in_process
from tests.pipeline.large_run import make_run
from tests.pipeline.report_page import Sections
from wit import storage

PICTURES = 300


class Photographs(in_process.Web):
    """Brings pictures of many sizes and types; every fifth is not there."""

    def run(self, urls, hosts, look):
        for index, url in enumerate(urls):
            number = int(url.rsplit("/", 1)[1].removesuffix(".jpg"))
            if number % 5 == 0 or self.gone:
                yield in_process.Picture(index, "not_found", None)
                continue
            width, height = 40 + 7 * (number % 60), 40 + 11 * (number % 37)
            out = io.BytesIO()
            Image.new("RGB", (32, 32), (number % 256, 90, 90)).save(out, "JPEG")
            kind = ["image/jpeg", "image/PNG; q=1", "odd/type", None][number % 4]
            yield in_process.Picture(
                index,
                "success",
                out.getvalue(),
                width=32,
                height=32,
                original_width=width,
                original_height=height,
                content_type=kind,
            )


@pytest.fixture(scope="module")
def crawled(tmp_path_factory) -> Iterator[Run]:
    """A harvest of several sources with duplicates, refusals and a cap, by the real stages."""
    texts = ["red dress", "a dress in green", "red and red", "hat", "dress " * 20]
    rng = np.random.default_rng(5)

    def row() -> tuple[str, str]:
        number = int(rng.integers(PICTURES))
        host = ["a.example", "closed.example", "b.example"][number % 3]
        return f"http://{host}/{number}.jpg", texts[int(rng.integers(len(texts)))]

    rows = [[row() for _ in range(count)] for count in (300, 200, 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_process, "Web", Photographs)
        harvest = in_process.harvester(tmp_path_factory.mktemp("crawled"), patch)
        yield harvest(rows, per_query=60, shard_size=20)[0]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Run:
    """A run of tables alone, larger than a harvest can be here."""
    run = make_run(tmp_path_factory.mktemp("large") / "out", 30_000, 6_000, 2_000)
    summarise(run)
    return run


def rows_of(run: Run, files: str, query: str) -> list[tuple]:
    """The rows of a query on `t`, a run's Parquet files."""
    with duckdb.connect() as base:
        base.execute("SET enable_progress_bar = false")
        base.execute(f"CREATE VIEW t AS FROM read_parquet('{run.path(files)}')")
        return base.execute(query).fetchall()


def page_of(run: Run) -> Sections:
    return Sections(Path(run.path("report.html")))


def test_the_funnel_is_what_the_tables_hold(crawled):
    page = page_of(crawled)
    shown = page.counts("links")
    counts = "read_json(?, columns={counts: 'MAP(VARCHAR, BIGINT)'})"
    with duckdb.connect() as base:
        links = base.execute(
            f"SELECT sum(n)::BIGINT FROM (SELECT unnest(map_values(counts)) AS n FROM {counts})",
            [crawled.path("candidates", "*.json")],
        ).fetchall()[0][0]
    pairs, distinct, pictures = rows_of(
        crawled,
        "candidates/*.parquet",
        "SELECT count(*), count(DISTINCT pair_id), count(DISTINCT hex(pair_id)[:16]) FROM t",
    )[0]
    tried, stored = rows_of(
        crawled, "shards/*.parquet", "SELECT count(*), count_if(outcome = 'success') FROM t"
    )[0]
    assert shown["Image links read"] == shown["Sum of the rows"] == links == 501
    assert "the sums agree" in page.text["links"]
    assert shown["no query"] == links - pairs > 0
    assert shown["duplicate pair"] == pairs - distinct > 0
    assert shown["other text"] == distinct - pictures > 0
    assert shown["over cap"] == pictures - tried > 0
    assert shown["no picture"] == tried - stored > 0
    assert shown["success"] == stored > 0


def test_the_queries_are_what_the_tables_hold(crawled):
    matched = dict(
        rows_of(
            crawled,
            "candidates/*.parquet",
            "SELECT q, count(*) FROM (SELECT unnest(query_ids) AS q FROM t) GROUP BY q",
        )
    )
    unique = dict(
        rows_of(
            crawled,
            "candidates/*.parquet",
            "SELECT q, count(*) FROM (SELECT unnest(any_value(query_ids)) AS q FROM t WHERE "
            "pair_id IN (SELECT min(pair_id) FROM t GROUP BY hex(pair_id)[:16]) GROUP BY pair_id)"
            " GROUP BY q",
        )
    )
    present = dict(present_of(crawled))
    names = dict(rows_of(crawled, "queries/queries.parquet", "SELECT query, query_id FROM t"))
    table = page_of(crawled).tables["per-query"][0][1:]
    assert len(table) == len(matched) == 2
    for query, *numbers in table:
        each = names[query]
        shown = [int(n) for n in numbers]
        assert (shown[0], shown[1], shown[3]) == (matched[each], unique[each], present[each])
        assert shown[2] <= 60
        assert shown[4] == min(60, shown[1]) - shown[2]


def present_of(run: Run) -> list[tuple[int, int]]:
    return rows_of(
        run,
        "shards/*.parquet",
        "SELECT q, count(*) FROM (SELECT unnest(query_ids) AS q FROM t WHERE outcome = 'success') "
        "GROUP BY q",
    )


def test_the_most_frequent_of_many_queries_have_the_pairs_that_the_shards_hold(written):
    present = dict(present_of(written))
    names = dict(rows_of(written, "queries/queries.parquet", "SELECT query, query_id FROM t"))
    shown = page_of(written).counts("per-query", column=4)
    assert len(shown) == 1_000
    assert shown == {name: present.get(names[name], 0) for name in shown}
    assert sum(shown.values()) > 0.5 * sum(present.values())
    assert f"{len(present):,}" in Path(written.path("report.html")).read_text()


@pytest.mark.parametrize("name", ["crawled", "written"])
def test_failures_and_hosts_are_what_the_shards_hold(name, request):
    run = request.getfixturevalue(name)
    page = page_of(run)
    found = dict(
        rows_of(
            run,
            "shards/*.parquet",
            "SELECT replace(outcome, '_', ' '), count(*) FROM t WHERE outcome != 'success' "
            "GROUP BY 1",
        )
    )
    assert page.counts("failures") == found | {"Together": sum(found.values())}
    host = r"regexp_extract(url, '^https?://[^/]+')"
    found = {
        row[0]: row[1:]
        for row in rows_of(
            run,
            "shards/*.parquet",
            f"SELECT {host}, count(*), count_if(outcome = 'success') FROM t GROUP BY 1",
        )
    }
    shown = {
        row[0].split("\n")[0].removesuffix(row[1]): (row[3], row[4])
        for row in page.tables["hosts"][0][1:]
    }
    assert len(shown) == min(50, len(found))
    for place, (selected, fetched) in shown.items():
        assert (f"{found[place][0]:,}", f"{found[place][1]:,}") == (selected, fetched)
    least = min(int(selected.replace(",", "")) for selected, _ in shown.values())
    assert all(numbers[0] <= least for place, numbers in found.items() if place not in shown)


@pytest.mark.parametrize("name", ["crawled", "written"])
def test_what_the_pairs_are_like_is_what_the_shards_hold(name, request):
    run = request.getfixturevalue(name)
    page = page_of(run)
    sides, ratios, lengths, *lists = page.tables["pairs"]
    stored = "FROM t WHERE outcome = 'success'"
    shorter = "least(original_width, original_height)"
    for table, value in ((sides, shorter), (lengths, "length(caption)")):
        edges = ", ".join(map(str, shapes.EDGES))
        found = rows_of(
            run,
            "shards/*.parquet",
            f"SELECT list_max(list_filter([{edges}], lambda e: e <= {value})) AS b, count(*) "
            f"{stored} GROUP BY b ORDER BY b",
        )
        shown = [int(count.replace(",", "")) for _, count, _ in table]
        assert [count for count in shown if count] == [count for _, count in found]
        assert int(table[0][0].split(" ")[0].replace(",", "")) == found[0][0]
        median = rows_of(run, "shards/*.parquet", f"SELECT quantile_disc({value}, 0.5) {stored}")
        assert f"Median {median[0][0]:,} " in page.text["pairs"]
    octaves = "log2(original_width / original_height)"
    found = rows_of(
        run,
        "shards/*.parquet",
        f"SELECT greatest(-16, least(16, round(8 * {octaves}))) AS b, count(*) {stored} GROUP BY b",
    )
    shown = [int(count.replace(",", "")) for _, count, _ in ratios]
    assert {step - 16: count for step, count in enumerate(shown) if count} == dict(found)
    columns = ["attribute", "split_part(content_type, ';', 1)"]
    columns = ["language", *columns] if run.config.identify_language else columns
    assert len(lists) == len(columns)
    for table, column in zip(lists, columns, strict=True):
        kinds = f"coalesce(lower(trim({column})), 'unknown')"
        found = dict(
            rows_of(run, "shards/*.parquet", f"SELECT {kinds}, count(*) {stored} GROUP BY 1")
        )
        strange = sum(found.pop(kind, 0) for kind in ("odd/type", "strange/type"))
        found |= {"other": strange} if strange else {}
        assert {row[0]: int(row[1].replace(",", "")) for row in table} == found


def test_what_a_lost_shard_changes_is_counted_anew(crawled, monkeypatch, tmp_path):
    shutil.copytree(crawled.out, tmp_path / "out")
    run = load_run(str(tmp_path / "out"))
    before = page_of(run).counts("links")["success"]
    lost = sorted(n for n in storage.list_names(run.path("shards")) if n.endswith(".tar"))[0]
    storage.remove(run.path("shards", lost))
    monkeypatch.setattr(in_process, "Web", type("Gone", (Photographs,), {"gone": True}))
    fetching.remake_lost(run)
    in_process.go_on(run)
    page = page_of(run)
    assert page.counts("links")["success"] < before
    stored = sum(int(count.replace(",", "")) for _, count, _ in page.tables["pairs"][0])
    assert stored == page.counts("links")["success"]
