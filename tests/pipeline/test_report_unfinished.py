"""The report of a run that is not at its end, has failed, or has found nothing, says so."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline import harvest as harvesting
from pipeline import limits, stages
from pipeline.run import Run, load_run
from pipeline.summary import report_unfinished
from tests.pipeline import rows as in_process
from tests.pipeline.report_page import Sections
from wit import storage
from wit.errors import UserError

WHY = "stopped by --max-hours, as asked"


def verdict(run: Run) -> str:
    text = Path(run.path("report.html")).read_text()
    found = re.search(r'<p class="verdict" role="status">(.*?)</p>', text)
    return found[1] if found else ""


def go_until(run: Run, last: str, tasks: int = 1_000) -> None:
    """Does the stages up to one, and of that one the first tasks."""
    for key, wave, stage in stages.in_order(run):
        pending = stages._unfinished(run, wave, stage, list(stage.tasks(run, wave)))
        stages.announce(run, key, "s", len(pending), len(pending))
        for task in pending[: tasks if stage.name == last else None]:
            stage.work(run, wave, task, lambda *_: None, stages.Reach("s"))
        if stage.name == last:
            return


@pytest.fixture
def begun(harvest, mixed_rows, monkeypatch):
    """Makes a run that has been harvested up to a stage."""

    def until(last: str, tasks: int = 1_000) -> Run:
        with monkeypatch.context() as patch:
            patch.setattr(in_process, "go_on", lambda run: go_until(run, last, tasks))
            return harvest(mixed_rows, per_query=30)[0]

    return until


def undecided(page: Sections) -> int:
    return page.counts("links").get("undecided", 0)


def test_a_run_that_stopped_before_it_counted_shows_what_was_read(begun):
    run = begun("extract", tasks=3)
    report_unfinished(run, WHY)
    assert verdict(run) == (
        f"This run is not finished: {WHY}. The last stage that was begun is extract. "
        "The same command goes on from there."
    )
    page = Sections(Path(run.path("report.html")))
    rows = [pq.read_metadata(path).num_rows for path in Path(run.out).glob("candidates/*.parquet")]
    assert undecided(page) == sum(rows) > 0
    assert page.counts("links")["Image links read"] == 41  # of the first three sources
    assert "No query has a pair." in page.text["per-query"]
    assert "Nothing has been asked for yet." in page.text["failures"]


def test_a_run_that_stopped_in_the_midst_of_fetching_shows_what_stands(begun):
    run = begun("fetch", tasks=2)
    report_unfinished(run, WHY)
    names = [n for n in storage.list_names(run.path("shards")) if n.endswith(".tar")]
    planned = storage.read_json(run.wave_path("lanes", 1, "shards.json"))["next"]
    assert f"is fetch 1, with {len(names)} of {planned} shards planned so far." in verdict(run)
    assert 0 < len(names) < planned
    page = Sections(Path(run.path("report.html")))
    shown = page.counts("links")
    assert shown["Image links read"] == shown["Sum of the rows"] == 180
    found = in_process.shard_rows(run)
    stored = [row for row in found if row["outcome"] == "success"]
    assert (shown["success"], shown["no picture"]) == (len(stored), len(found) - len(stored))
    assert undecided(page) == 180 - len(found)
    assert len(page.tables["per-query"][0][0]) == 3  # query, matched, unique: no more is known
    assert "lanes that are finished" in page.text["pairs"]
    assert "hosts" not in page.tables


def test_a_run_that_failed_leaves_a_report_with_the_reason(tmp_path, monkeypatch):
    def fail(*_):
        raise UserError("shards/00000: given up, for everything goes wrong")

    (tmp_path / "pairs.tsv").write_text("url\ttext\nhttp://a.example/1.jpg\tred hat\n")
    (tmp_path / "queries.txt").write_text("red\n")
    (tmp_path / "out").mkdir()
    command = [str(tmp_path / "pairs.tsv"), "--queries", str(tmp_path / "queries.txt")]
    command += ["--out", str(tmp_path / "out"), "--contact", "test@example.org"]
    monkeypatch.setattr(harvesting, "run_stages", fail)
    with pytest.raises(UserError, match="given up"):
        harvesting.main(command)
    said = verdict(load_run(str(tmp_path / "out")))
    assert said.startswith("This run is not finished: it failed; shards/00000: given up, for")
    assert "No stage was begun" in said


def test_the_finished_run_s_report_says_nothing_of_the_stop(begun):
    run = begun("fetch", tasks=2)
    report_unfinished(run, WHY)
    assert not limits.is_at_end(run)
    in_process.go_on(run)
    assert limits.is_at_end(run)
    assert verdict(run) == ""
    assert undecided(Sections(Path(run.path("report.html")))) == 0


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[], []], "This run is empty: there is no image link"),
        ([[("http://a.example/1.jpg", "blue hat")]], "No pair was selected"),
        ([[("http://closed.example/1.jpg", "red hat")]], "No picture could be fetched"),
        ([[(f"http://a.example/{n}.jpg", "red hat") for n in range(20)]], ""),
    ],
)
def test_a_run_without_a_pair_is_a_page_that_says_so(harvest, rows, said):
    run, _ = harvest(rows)
    assert verdict(run).startswith(said)
    assert bool(verdict(run)) == bool(said)
    assert "the sums agree" in Path(run.path("report.html")).read_text()
