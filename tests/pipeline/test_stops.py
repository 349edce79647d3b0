"""A harvest that stops by itself: where everything goes wrong, and at its limits."""

import re
import sys
import time
from pathlib import Path

import pytest

from pipeline import arguments, fetching, limits, stages
from pipeline.fetch import Fetcher, HostRule, HostRules, alarm, pool
from tests.faulty import FIXED, FaultyServer, answer, picture
from tests.pipeline import rows as core
from tests.pipeline.demo_run import digests, run
from tests.pipeline.fetching import policy
from wit import storage
from wit.console import parse_size
from wit.errors import UserError

WEB, LATER = core.Web, stages.Reach("later")

SLOWLY = ("--concurrency", "3", "--shard-size", "30")
CLOSED = "127.0.0.1:9"
HOSTS = [f"shop{i}.example" for i in range(200)]


@pytest.fixture
def command(tmp_path, server):
    """Makes the command of a small harvest of many hosts, each with some pictures under a path."""

    def make(path: str, out: str, *more: str, where: str = "") -> list[str]:
        where = where or server.address
        table, queries = tmp_path / f"{out}.csv", tmp_path / "queries.txt"
        rows = [f"http://{host}{path}?{i},a red dress" for i in range(2) for host in HOSTS]
        table.write_text("\n".join(["url,text", *rows]))
        queries.write_text("dress\n")
        return [
            *(sys.executable, "-m", "wit.cli", "harvest", str(table), "--queries", str(queries)),
            *("--out", str(tmp_path / out), "--contact", "test@example.org", "--workers", "2"),
            *("--lanes", "2", "--shard-size", "100", "--waves", "1", "--host-rate", "0"),
            *("--retries", "0", "--no-tdmrep", f"--allow-address={where}"),
            *(f"--resolve={host}:{where}" for host in HOSTS),
            *more,
        ]

    return make


@pytest.fixture
def server():
    with FaultyServer() as faulty:
        yield faulty


def stopped(done, *words: str) -> str:
    """The last line of a run that ended with a user's error."""
    assert done.returncode == 2, done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in line
    return line


# --- everything goes wrong --------------------------------------------------------------------


@pytest.mark.long
def test_a_blocked_address_ends_the_run_with_the_evidence_unless_it_is_to_keep_going(
    command, tmp_path
):
    line = stopped(run(command("/status/403", "out")), "of the last", "refused us", "access_denied")
    assert len(re.findall(r"http://shop\d+\.example/status/403", line)) == 3
    assert "blocked" in line
    assert "the same command goes on" in line
    left = {path.suffix for path in (tmp_path / "out/shards").iterdir()}
    assert not left & {".tar", ".parquet", ".json"}
    done = run(command("/status/403", "out", "--keep-going"))
    assert done.returncode == 0, done.stderr
    assert "--keep-going: no jump of failures will stop this run" in done.stderr
    assert "400  access_denied" in done.stdout


@pytest.mark.long
def test_without_a_network_no_host_is_written_off_and_the_command_goes_on_later(command):
    closed = command("/slow-ok/", "out", where=CLOSED)
    line = stopped(run(closed), "200 sites", "unreachable 200")
    assert "network" in line
    done = run(command("/slow-ok/", "out"))
    assert done.returncode == 0, done.stderr
    assert "400  success" in done.stdout


class Broken(core.Web):
    """A fetcher whose codec is broken, at first or from some picture on."""

    outcome = "undecodable"

    def run(self, urls, hosts, look):
        for index in range(len(urls)):
            yield core.Picture(index, self.outcome, None)


@pytest.fixture
def impatient(monkeypatch):
    """Without the time in which decoders start."""
    monkeypatch.setattr(alarm, "WARM_UP", 0.0)


@pytest.mark.usefixtures("only_loopback")
def test_a_format_that_the_decoder_cannot_read_is_seen_among_good_ones(
    server, monkeypatch, impatient
):
    webp = answer(picture(kind="WEBP"), "image/webp")
    monkeypatch.setitem(FIXED, "/ok.webp", webp)
    monkeypatch.setattr(pool, "DECODER", "tests.broken_codec")
    wanted = [f"http://{h}{path}" for h in HOSTS[:80] for path in ("/ok.jpg", "/ok.webp")]
    resolve = dict.fromkeys(HOSTS, server.address)
    hosts = HostRules({f"http://{host}": HostRule("allow_all") for host in HOSTS})
    watched, found = alarm.Alarm(), []
    with Fetcher(policy(server, resolve=resolve, total_seconds=20.0)) as fetcher:
        for fetched in fetcher.run(wanted, hosts):
            found.append(watched.see(fetched, wanted[fetched.index], time.monotonic()))
    evidence = next(filter(None, found))
    assert evidence.kind == "codec: webp"
    assert "undecodable, OSError: cannot decode" in evidence.line()


def go_on(run, monkeypatch) -> None:
    """The same command again, later and with a web that is as it should be."""
    monkeypatch.setattr(core, "Web", WEB)
    monkeypatch.setattr(core.stages, "Reach", lambda session: LATER)
    core.go_on(run)


@pytest.mark.parametrize("outcome", ["undecodable", "encode_failed", "internal_error"])
def test_a_broken_codec_costs_no_shard_and_the_run_goes_on_once_it_is_mended(
    harvest, monkeypatch, impatient, outcome
):
    rows = [core.make_rows([f"h{i}.example" for i in range(300)], 900)]
    whole, _ = harvest(rows, out="whole", lanes=1, shard_size=300)
    monkeypatch.setattr(core, "Web", type("Now", (Broken,), {"outcome": outcome}))
    with pytest.raises(UserError, match=r"shards/00000: given up.*\(http://h") as error:
        harvest(rows, lanes=1, shard_size=300)
    assert "\n" not in str(error.value)
    run = fetching.load_run(whole.out.replace("whole", "out"))
    assert not [n for n in storage.list_names(run.path("shards")) if not n.startswith(".")]
    go_on(run, monkeypatch)
    assert core.digests(run) == core.digests(whole)


def test_what_looks_bad_too_early_is_waited_for_before_a_shard_is_written(harvest, monkeypatch):
    monkeypatch.setattr(alarm, "WARM_UP", 1.5)
    monkeypatch.setattr(core, "Web", Broken)
    begun = time.monotonic()
    with pytest.raises(UserError, match="given up"):
        harvest([core.make_rows([f"h{i}.example" for i in range(100)], 100)], shard_size=100)
    assert time.monotonic() - begun > 1.5


# --- limits -----------------------------------------------------------------------------------


@pytest.mark.long
def test_a_limit_of_bytes_ends_cleanly_and_the_same_command_ends_with_the_same_bytes(
    command, tmp_path
):
    whole = run(command("/slow-ok/", "whole", *SLOWLY))
    assert whole.returncode == 0, whole.stderr
    slowly = command("/slow-ok/", "out", *SLOWLY)
    first = run([*slowly, "--max-bytes", "100KB"])
    assert first.returncode == 0, first.stderr
    said = first.stdout.strip().splitlines()
    assert said[0].startswith("stopped by --max-bytes")
    stood, planned = (len(list((tmp_path / o / "shards").glob("*.tar"))) for o in ("out", "whole"))
    assert said[1].startswith(f"{stood} of {planned} shards")
    assert 0 < stood < planned
    assert said[-1] == "the same command goes on from here"
    assert "This run is not finished: stopped by" in (tmp_path / "out/report.html").read_text()
    again = run([*slowly, "--max-bytes", "1TB"])
    assert again.returncode == 0, again.stderr
    assert "400  success" in again.stdout
    assert shards_of(tmp_path / "out") == shards_of(tmp_path / "whole")


def shards_of(out: Path) -> dict[str, str]:
    return {name: digest for name, digest in digests(out).items() if name.startswith("shards/")}


@pytest.mark.long
def test_a_limit_of_hours_that_is_over_begins_nothing(command, tmp_path):
    done = run(command("/slow-ok/", "out", "--max-hours", "1e-6"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines() == [
        f"stopped by --max-hours, as asked; all that is finished stands in {tmp_path / 'out'}",
        "no shard is planned yet",
        f"report   {tmp_path / 'out/report.html'}",
        "the same command goes on from here",
    ]
    assert not (tmp_path / "out/shards").exists()


class Halting(core.Web):
    """A fetcher that finds, in the midst of the second shard, that the time is over."""

    out = ""
    shards = 0

    def run(self, urls, hosts, look):
        type(self).shards += 1
        for number, found in enumerate(super().run(urls, hosts, look)):
            if self.shards == 2 and number == len(urls) // 2:
                limits.say_stop(limits.stop_path(self.out, "s"), limits.HOURS, time.time())
                time.sleep(2 * limits.LOCAL_PAUSE)
                look()
            yield found


@pytest.mark.parametrize(("grace", "stand"), [(300.0, 2), (0.0, 1)])
def test_a_shard_under_way_is_finished_within_the_grace_or_absent(
    harvest, monkeypatch, grace, stand
):
    rows = [core.make_rows([f"h{i}.example" for i in range(9)], 40)]
    whole, _ = harvest(rows, out="whole", lanes=1, shard_size=10, waves=1)
    monkeypatch.setattr(limits, "GRACE", grace)
    halting = type("Once", (Halting,), {"out": whole.out.replace("whole", "out"), "shards": 0})
    monkeypatch.setattr(core, "Web", halting)
    reach = stages.Reach("s", limited=True)
    monkeypatch.setattr(core.stages, "Reach", lambda session: reach)
    with pytest.raises(FileNotFoundError):  # of the results, which a later stage would read
        harvest(rows, lanes=1, shard_size=10, waves=1)
    run = fetching.load_run(halting.out)
    assert limits.stopped_by(run, "s") == limits.HOURS
    assert limits.standing(run)["shards"] == stand
    go_on(run, monkeypatch)
    assert core.digests(run) == core.digests(whole)


def test_sizes_are_read_as_people_write_them():
    assert [parse_size(text) for text in ("500GB", "1.5 TiB", "20000000", "3k", "7B")] == [
        500_000_000_000,
        1_649_267_441_664,
        20_000_000,
        3000,
        7,
    ]


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "5 i", "1e9", "5 miles"])
def test_a_size_that_is_none_is_refused(wrong, capsys):
    command = ["x", "--out", "o", "--queries", "q", "--contact", "a@b.example"]
    with pytest.raises(SystemExit):
        arguments.parse([*command, f"--max-bytes={wrong}"])
    assert wrong in capsys.readouterr().err


def test_a_limit_of_no_hours_is_refused():
    command = ["x", "--out", "o", "--queries", "q", "--contact", "a@b.example"]
    with pytest.raises(UserError, match="--max-hours"):
        arguments.parse([*command, "--max-hours", "0"])
