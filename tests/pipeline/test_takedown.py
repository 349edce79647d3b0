"""What is listed or was taken down: no server is asked for it, and no resume brings it back."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.balance import FAILED
from pipeline.blocking import Blocked
from pipeline.demo import server
from pipeline.fetch import Fetched
from tests.pipeline.demo_run import arguments, digests, manifest, run
from wit import blocks, cli, shards
from wit.blocklist import Blocklist, read_list


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    """The log of the demo's server."""
    return tmp_path_factory.mktemp("server") / "log"


@pytest.fixture(scope="module")
def command(demo_inputs, demo_queries, log):
    """Makes the command line for an output folder."""
    with server.child_server(log, max_seconds=3600) as port:
        yield lambda out, *more: arguments(demo_inputs, demo_queries, port, out, *more)


@pytest.fixture
def out(finished, tmp_path) -> Path:
    """A copy of a finished harvest."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def samples(out: Path) -> pa.Table:
    tables = [pq.read_table(path) for path in sorted(out.glob("shards/*.parquet"))]
    return pa.concat_tables(tables)


def stored(out: Path) -> pa.Table:
    return samples(out).filter(pc.equal(samples(out)["outcome"], "success"))


def resume(command, out: Path, *more: str) -> None:
    done = run(command(out, *more))
    assert done.returncode == 0, done.stderr


def funnel_agrees(out: Path) -> None:
    """Every image link is in one row, and the samples are those of the manifest and of coverage."""
    said = manifest(out)
    funnel = dict(said["funnel"])
    links = funnel.pop("links")
    assert sum(funnel.values()) == links
    outcomes = pc.value_counts(samples(out)["outcome"]).to_pylist()
    assert {row["values"]: row["counts"] for row in outcomes} == said["totals"]["outcomes"]
    present = pc.list_flatten(stored(out)["query_ids"]).value_counts().to_pylist()
    present = {row["values"]: row["counts"] for row in present}
    coverage = pq.read_table(out / "coverage.parquet").to_pylist()
    assert {r["query_id"]: r["present"] for r in coverage if r["present"]} == present


def test_a_resume_asks_for_nothing_and_all_counts_agree_again(out, command, log):
    rows = stored(out)
    url, sha256 = rows["url"][0].as_py(), rows["sha256"][1].as_py()
    host = rows["url"][-1].as_py().split("/")[2]
    captions = rows["caption"].to_pylist()[:2]
    before, size, lost = manifest(out), log.stat().st_size, samples(out)
    take = ["shards", "takedown", str(out), "--url", url, "--sha256", sha256, "--host", host]
    assert cli.main(take) == 0
    assert shards.verify(str(out)) == []
    assert not (out / "report.html").exists()
    assert not (out / "croissant.json").exists()  # its hashes are those of before
    taken = digests(out)
    resume(command, out)
    assert log.stat().st_size == size
    after = manifest(out)
    gone = after["funnel"]["taken_down"]
    assert gone > 2
    assert after["totals"]["count"] == before["totals"]["count"]
    kept = {name for name in taken if name.startswith("shards/")}
    assert {name: digests(out)[name] for name in kept} == {name: taken[name] for name in kept}
    funnel_agrees(out)
    assert shards.verify(str(out)) == []
    removed = pc.is_in(
        samples(out)["key"], lost["key"].filter(pc.equal(samples(out)["outcome"], "taken_down"))
    )
    assert pc.sum(removed).as_py() == gone
    page = (out / "report.html").read_text()
    assert "taken down" in page
    assert url not in page
    assert not any(caption in page for caption in captions if len(caption) > 30)
    again = digests(out)
    assert again["manifest.json"] == taken["manifest.json"]
    results = {path: path.stat().st_mtime_ns for path in out.glob("fetched/*/*.results")}
    resume(command, out)
    assert digests(out) == again
    assert {path: path.stat().st_mtime_ns for path in results} == results


@pytest.mark.long
def test_the_next_wave_is_told_that_the_picture_is_no_more(out, command):
    row = stored(out).slice(0, 1).to_pylist()[0]
    assert cli.main(["shards", "takedown", str(out), "--pair-id", row["pair_id"].hex()]) == 0
    resume(command, out)
    found = [blocks.read(str(path)) for path in out.glob("fetched/*/*.results")]
    status = [r["status"][(r["source"] == row["source"]) & (r["row"] == row["row"])] for r in found]
    assert [s for some in status for s in some.tolist()] == [FAILED]


@pytest.mark.long
def test_a_shard_that_is_made_again_has_nothing_of_what_was_taken_down(out, command, log):
    key = stored(out)["key"][0].as_py()
    url = stored(out)["url"][0].as_py()
    assert cli.main(["shards", "takedown", str(out), "--url", url]) == 0
    name = shards.list_shards(str(out / "shards"))[0]
    assert key.startswith(name)
    tar, parquet = out / f"shards/{name}.tar", out / f"shards/{name}.parquet"
    before = pq.read_table(parquet)
    tar.unlink()
    size = log.stat().st_size
    resume(command, out)
    requests = log.read_text()[size:]
    assert requests
    assert url.partition("/")[2] not in requests
    after = pq.read_table(parquet)
    row = after.filter(pc.equal(after["key"], key)).to_pylist()[0]
    assert (row["outcome"], row["url"], row["caption"], row["page_url"]) == (
        "taken_down",
        *[None] * 3,
    )
    assert row == before.filter(pc.equal(before["key"], key)).to_pylist()[0]
    funnel_agrees(out)


@pytest.mark.long
def test_a_takedown_that_was_killed_is_ended_by_the_harvest(out, command, monkeypatch):
    from wit import takedown

    url = stored(out)["url"][0].as_py()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    request = takedown.make_request({"url": [url]})
    monkeypatch.setattr(takedown, "rewrite_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        takedown.takedown(str(out), request)
    assert url in stored(out)["url"].to_pylist()
    resume(command, out)
    assert url not in samples(out)["url"].to_pylist()
    assert [line["pictures"] for line in takedown.read_log(str(out))] == [1]
    funnel_agrees(out)


def test_what_is_listed_is_neither_asked_for_nor_stored(finished, command, log, tmp_path):
    rows = stored(finished)
    redirected = rows.filter(pc.not_equal(rows["url"], rows["final_url"])).to_pylist()[0]
    url, sha256 = rows["url"][0].as_py(), rows["sha256"][1].as_py()
    host = next(u for u in rows["url"].to_pylist() if u.split("/")[2] != url.split("/")[2])
    host = host.split("/")[2]
    lists = tmp_path / "urls.txt", tmp_path / "rest.txt"
    lists[0].write_text(f"# asked for by mail\n{url}\nurl {redirected['final_url']}\n")
    lists[1].write_text(f"host {host}\nsha256 {sha256}\n")
    size, out = log.stat().st_size, tmp_path / "out"
    resume(command, out, *(f"--blocklist={path}" for path in lists))
    lines = [line.split("\t") for line in log.read_text()[size:].splitlines()]
    assert lines
    requests = "\n".join(" ".join(line) for line in lines)
    assert host not in requests  # not for its robots.txt, either
    assert url.split("/", 3)[3] not in requests
    table = samples(out)
    outcome = dict(zip(table["url"].to_pylist(), table["outcome"].to_pylist(), strict=True))
    assert outcome[url] == outcome[redirected["url"]] == "blocklisted"
    assert {o for u, o in outcome.items() if u.split("/")[2] == host} == {"blocklisted"}
    assert sha256 not in stored(out)["sha256"].to_pylist()
    funnel_agrees(out)
    said = json.loads((out / "blocklist.json").read_text())
    assert [said["files"][str(path)]["entries"] for path in lists] == [2, 2]
    resume(command, out)  # the run keeps what it knew
    assert outcome == dict(
        zip(samples(out)["url"].to_pylist(), samples(out)["outcome"].to_pylist(), strict=True)
    )


@pytest.mark.long
def test_a_list_may_grow_when_the_run_is_resumed(out, command, log, tmp_path):
    name = shards.list_shards(str(out / "shards"))[0]
    parquet = out / f"shards/{name}.parquet"
    rows = pq.read_table(parquet)
    url = rows["url"].filter(pc.equal(rows["outcome"], "success"))[0].as_py()
    (out / f"shards/{name}_stats.json").unlink()  # as if its lane were planned and no more
    grown = tmp_path / "grown.txt"
    grown.write_text(url)
    size = log.stat().st_size
    resume(command, out, f"--blocklist={grown}")
    assert url.split("/", 3)[3] not in log.read_text()[size:]
    after = pq.read_table(parquet)
    row = after.filter(pc.equal(after["url"], url))
    assert row["outcome"].to_pylist() == ["blocklisted"]
    funnel_agrees(out)


def test_a_list_that_cannot_be_read_is_one_line_with_its_number(out, command, tmp_path):
    bad = tmp_path / "bad.txt"
    bad.write_text("example.org\nnothing\n")
    done = run(command(out, f"--blocklist={bad}"))
    assert done.returncode == 2
    assert "bad.txt, line 2: 'nothing' is neither" in done.stderr.splitlines()[-1]


def test_a_picture_is_looked_at_before_it_is_stored(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(f"https://cdn.example/a.jpg\nsha256 {'ab' * 32}\n")
    kept_out = Blocked({"blocklisted": read_list(str(path))[0]})
    results = [
        Fetched(0, "success", None, b"x", "jpg", sha256="cd" * 32, final_url=url)
        for url in ("https://cdn.example/b.jpg", "https://cdn.example/a.jpg")
    ]
    results.append(Fetched(2, "success", None, b"x", "jpg", sha256="ab" * 32, final_url=None))
    results.append(Fetched(3, "not_found", final_url="https://cdn.example/a.jpg"))
    for result in results:
        kept_out.refuse(result, "https://asked.example/")
    outcomes = [result.outcome for result in results]
    assert outcomes == ["success", "blocklisted", "blocklisted", "not_found"]
    assert [result.image for result in results] == [b"x", None, None, None]


def test_without_lists_rows_are_as_they_were():
    rows = pa.table({"url": ["https://a.example/"], "preset": pa.nulls(1, pa.string())})
    assert Blocked({}).mark(rows) is rows
    assert Blocked({}).hosts(["https://a.example"]) == [False]
    assert len(Blocklist()) == 0
