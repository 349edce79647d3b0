"""A whole harvest of the demo's web: nothing lost, caps exact, resumable from any instant."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.demo import truth
from pipeline.run import load_run
from tests.pipeline import placeholder_rule
from tests.pipeline.demo_run import CAP, arguments, digests, manifest, run
from tests.pipeline.test_balance import place


@pytest.fixture(scope="module")
def command(demo_inputs, demo_queries, demo_port):
    """Makes the command line for an output folder."""
    return lambda out, *more: arguments(demo_inputs, demo_queries, demo_port, out, *more)


@pytest.fixture(scope="module")
def whole(finished, tmp_path_factory) -> Path:
    """A copy of an uninterrupted harvest."""
    return Path(shutil.copytree(finished, tmp_path_factory.mktemp("whole") / "out"))


def samples(out: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(p) for p in sorted(out.glob("shards/*.parquet")))


def candidates(out: Path) -> list[dict]:
    found = []
    for source, path in enumerate(sorted(out.glob("candidates/*.parquet"))):
        rows = pq.read_table(path, columns=["pair_id", "url", "query_ids"]).to_pylist()
        found += [{**row, "source": source, "row": i} for i, row in enumerate(rows)]
    return found


def test_every_candidate_stands_in_one_row_of_the_funnel(whole):
    funnel = manifest(whole)["funnel"]
    links = funnel.pop("links")
    tallies = [json.loads(p.read_text()) for p in sorted(whole.glob("candidates/0*.json"))]
    assert links == sum(funnel.values()) == sum(sum(t["counts"].values()) for t in tallies)
    outcomes = Counter(samples(whole)["outcome"].to_pylist())
    assert {name: funnel[name] for name in outcomes} == outcomes
    for reason in ("no_query", "duplicate_pair", "other_text", "over_cap", "robots_disallowed"):
        assert funnel[reason] > 0


def test_every_picture_ends_as_the_demo_knows_it_must(whole):
    table = samples(whole)
    wrong = [
        (url, outcome, truth.expected(url))
        for url, outcome in zip(table["url"].to_pylist(), table["outcome"].to_pylist(), strict=True)
        if outcome != truth.expected(url)
        and not (outcome == "placeholder" and truth.is_placeholder(url))
    ]
    assert wrong == []


def test_the_picture_of_all_that_hosts_do_not_have_is_left_out_once_it_is_known(whole):
    keys, known, stored = placeholder_rule.expected(load_run(str(whole)))
    table = samples(whole)
    left_out = table.filter(pc.equal(table["outcome"], "placeholder"))
    assert set(left_out["key"].to_pylist()) == set().union(*keys.values())
    assert left_out
    assert len(known) == 1
    assert manifest(whole)["funnel"]["placeholder"] == len(left_out)
    record = json.loads((whole / "fetched/placeholders.json").read_text())
    assert record == {"pictures": 1, "left_out": len(left_out), "stored": stored}
    assert f"{len(left_out)} left out (one picture)" in (whole / "report.html").read_text()


def test_a_query_draws_the_first_pairs_of_its_order_that_can_be_fetched(whole):
    queries = pq.read_table(whole / "queries/queries.parquet")
    hashes = queries["query_hash"].to_pylist()
    survivors: dict[bytes, dict] = {}
    for row in candidates(whole):  # of equal pairs the first, of an image's texts the lowest hash
        known = survivors.get(row["pair_id"][:8])
        if known is None or row["pair_id"][8:] < known["pair_id"][8:]:
            survivors[row["pair_id"][:8]] = row
    by_query: dict[int, list] = {}
    for row in survivors.values():
        url, text = (int.from_bytes(row["pair_id"][i : i + 8], "big") for i in (0, 8))
        for q in row["query_ids"]:
            by_query.setdefault(q, []).append((place(0, url, text, hashes[q]), row))
    ended = {row["url"]: row["outcome"] for row in samples(whole).to_pylist()}
    present = {url for url, outcome in ended.items() if outcome == "success"}
    needed, over = set(), 0

    def can_be_had(url: str) -> bool:
        return truth.expected(url) == "success" and ended.get(url) != "placeholder"

    for rows in by_query.values():
        rows.sort(key=lambda item: item[0])
        over += len(rows) > CAP
        drawn = [row["url"] for _, row in rows if can_be_had(row["url"])]
        if len(rows) > CAP:  # three waves out of a reserve of four times the cap
            drawn = [row["url"] for _, row in rows[: 4 * CAP] if can_be_had(row["url"])][:CAP]
        needed |= set(drawn)
    assert over > 20
    coverage = pq.read_table(whole / "coverage.parquet").to_pylist()
    short = {row["query_id"] for row in coverage if row["short_by"] and row["unique"] > CAP}
    assert all(row["drawn"] <= CAP for row in coverage)
    missing = needed - present
    in_short = {
        row["url"] for q in short for _, row in by_query.get(q, [])
    }  # only queries that three waves could not fill may miss pairs
    assert missing <= in_short
    assert present <= needed | {u for u in present if _drawn_in_an_earlier_wave(whole, u)}


def _drawn_in_an_earlier_wave(out: Path, url: str) -> bool:
    return any(
        url in pq.read_table(p, columns=["url"])["url"].to_pylist()
        for p in out.glob("selection/*/????.parquet")
    )


@pytest.mark.long
def test_the_same_command_again_changes_nothing(whole, command):
    before = digests(whole)
    times = {p: p.stat().st_mtime_ns for p in whole.glob("shards/*")}
    again = run(command(whole))
    assert again.returncode == 0, again.stderr
    assert digests(whole) == before
    assert {p: p.stat().st_mtime_ns for p in whole.glob("shards/*")} == times


@pytest.mark.long
def test_a_lost_or_cut_shard_is_made_again_on_resume_and_said(whole, command, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    cut, lost = sorted(out.glob("shards/*.tar"))[0], sorted(out.glob("shards/*.parquet"))[2]
    cut.write_bytes(cut.read_bytes()[:-1024])
    lost.unlink()
    kept = {p: p.stat().st_mtime_ns for p in out.glob("shards/*.tar")}
    again = run(command(out))
    assert again.returncode == 0, again.stderr
    for path in (cut, lost):
        assert [line for line in again.stderr.splitlines() if line.startswith(f"{path}: ")]
    assert digests(out) == digests(whole)
    changed = {p.name for p, time in kept.items() if p.stat().st_mtime_ns != time}
    assert changed == {cut.name, lost.with_suffix(".tar").name}


def test_one_worker_or_two_and_any_order_of_inputs_write_the_same_bytes(
    whole, command, tmp_path, demo_inputs, demo_queries, demo_port
):
    shuffled = arguments(demo_inputs[::-1], demo_queries, demo_port, tmp_path / "out")
    done = run([*shuffled, "--workers", "1"])
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "out") == digests(whole)


def kill_and_resume(command, out: Path, moments: list[float]) -> int:
    """Kills the driver after so many seconds, each time anew, then lets it end; how many it met."""
    killed = 0
    for moment in moments:
        child = subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            child.wait(moment)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            killed += 1
    done = run(command(out))
    assert done.returncode == 0, done.stderr
    return killed


def test_killed_twice_and_resumed_it_ends_with_the_same_bytes(whole, command, tmp_path):
    assert kill_and_resume(command, tmp_path / "out", [10.0, 13.0]) >= 1
    assert digests(tmp_path / "out") == digests(whole)
    assert not list((tmp_path / "out").rglob(".*.tmp"))


@pytest.mark.long
def test_killed_thirty_times_and_resumed_it_ends_with_the_same_bytes(whole, command, tmp_path):
    rng, killed = random.Random(100), 0
    for i in range(6):
        moments = [rng.uniform(1.5, 16) for _ in range(5)]
        killed += kill_and_resume(command, tmp_path / str(i), moments)
        assert digests(tmp_path / str(i)) == digests(whole)
    assert killed >= 25


def test_ctrl_c_leaves_a_state_that_the_same_command_resumes(whole, command, tmp_path):
    out = tmp_path / "out"
    child = subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(out.glob("shards/*.tar")) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=20)
    assert child.returncode == 130
    assert said.decode().strip().splitlines()[-1].endswith("the same command goes on from here")
    assert b"Traceback" not in said
    assert run(command(out)).returncode == 0
    assert digests(out) == digests(whole)


def test_a_second_driver_on_the_same_folder_is_refused(command, tmp_path):
    out = tmp_path / "out"
    first = subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (out / "run.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        second = run(command(out))
        assert second.returncode == 2
        assert str(first.pid) in second.stderr
        one_line(second)
    finally:
        first.kill()
        first.wait()


def test_workers_end_with_a_killed_driver(command, tmp_path):
    out = tmp_path / "out"
    driver = subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(out.glob("fetched/*")) + list(out.glob("shards/*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    below = _descendants(driver.pid)
    assert below
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in below) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in below if _alive(pid)]


def _descendants(pid: int) -> list[int]:
    children = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        children += [int(c) for c in task.read_text().split()]
    return children + [d for child in children for d in _descendants(child)]


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


PHASES = {"starting", "reading the query list", "looking into the inputs"}


def one_line(done: subprocess.CompletedProcess, *words: str) -> None:
    """A user's error before any work: exit code 2, one line after those that say what was done."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    before = {line for line in lines[:-1] if "; left out: " not in line}
    assert before <= PHASES, done.stderr
    for word in words:
        assert word in lines[-1]


def test_another_version_of_the_query_list_is_refused_on_resume(whole, command, tmp_path):
    other = tmp_path / "queries.txt"
    other.write_text("one\ntwo\n")
    before = digests(whole)
    one_line(
        run(command(whole, "--queries", str(other))), "run.json", "another version of the query"
    )
    assert digests(whole) == before


def test_other_options_are_refused_on_resume(whole, command):
    one_line(run(command(whole, "--per-query", "13")), "--per-query", "12", "13")
    one_line(run(command(whole, "--image-size", "64")), "--image-size", "256", "64")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.warc.gz", None, ("missing.warc.gz",)),
        ("empty.warc.gz", b"", ("empty.warc.gz", "empty")),
        ("page.warc.gz", b"<!DOCTYPE html><html><body>not found</body></html>", ("page.warc.gz",)),
        ("pairs.parquet", b"no parquet", ("pairs.parquet",)),
    ],
)
def test_a_bad_input_is_one_line_that_names_it_and_no_folder_is_made(
    tmp_path, name, content, words
):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    one_line(run([*harvest_of(path, tmp_path), "--until", "extract"]), *words)
    assert not (tmp_path / "out").exists()


def harvest_of(path: Path, folder: Path) -> list[str]:
    """The command of a small harvest."""
    command = [sys.executable, "-m", "wit.cli", "harvest", str(path)]
    return [*command, "--queries", _list(folder), "--out", str(folder / "out"), "--workers", "1"]


@pytest.mark.long
def test_a_contact_is_asked_for_when_hosts_will_be_and_may_be_corrected(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("url,text\nhttp://127.0.0.1:9/a.jpg,a dress\n")
    command = harvest_of(path, tmp_path)
    one_line(run(command), "--contact is needed to fetch")
    assert not (tmp_path / "out").exists()
    done = run([*command, "--until", "select"])
    assert done.returncode == 0, done.stderr
    for contact in ("me@exmaple.org", "me@example.org"):
        done = run([*command, "--contact", contact])
        assert done.returncode == 0, done.stderr
    one_line(run([*command, "--user-agent", "Other/1 (me@example.org)"]), "--user-agent", "other")


def test_a_runner_that_is_not_there_is_one_line(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("url,text\nhttp://127.0.0.1:9/a.jpg,a dress\n")
    command = [*harvest_of(path, tmp_path), "--until", "extract"]
    one_line(run([*command, "--runner", "nowhere.Runner"]), "nowhere.Runner", "No module")
    assert not (tmp_path / "out").exists()
    absent = [*command, "--runner", "PrismRunner", "--prism_location", str(tmp_path / "absent")]
    one_line_of_many(run(absent), "--runner PrismRunner failed", "out/progress/")


def _list(folder: Path) -> str:
    path = folder / "q.txt"
    path.write_text("dress\n")
    return str(path)


def test_a_table_without_the_column_is_one_line_that_lists_those_it_has(tmp_path):
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"address": ["http://a.example/x"], "words": ["dress"]}), path)
    base = [sys.executable, "-m", "wit.cli", "harvest", str(path)]
    base += ["--queries", _list(tmp_path), "--out", str(tmp_path / "out"), "--contact", "a@b.c"]
    one_line(run([*base, "--url-column", "link"]), "pairs.parquet", "link", "address", "words")


def test_an_output_folder_that_cannot_be_written_is_one_line(command, tmp_path):
    (tmp_path / "file").write_text("in the way")
    one_line(run(command(tmp_path / "file" / "out")), str(tmp_path / "file"))


def test_a_folder_of_something_else_is_not_touched(command, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    one_line(run(command(tmp_path)), str(tmp_path), "choose another --out")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != ".lock") == ["thesis.txt"]


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_one_line_and_resumable(whole, command, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no rights to mount a small file system here")
    try:
        one_line_of_many(run(command(small / "out")), "No space left", "resume")
        subprocess.run(["mount", "-o", "remount,size=500m", str(small)], check=True)
        done = run(command(small / "out"))
        assert done.returncode == 0, done.stderr
        assert digests(small / "out") == digests(whole)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
        shutil.rmtree(small)


def one_line_of_many(done: subprocess.CompletedProcess, *words: str) -> None:
    """A user's error after progress was shown: the last line says it."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr.strip().splitlines()[-1]
