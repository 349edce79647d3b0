"""Whole shards: every URL once, hosts treated politely, nothing that a stranger does stops them."""

import asyncio
import io
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from pipeline.fetch import Fetched, Fetcher, FetchPolicy, HostRule, HostRules, pool
from pipeline.fetch.pool import DecoderPool
from tests.faulty import FIXED, JPEG, FaultyServer, answer, fetch_one, picture
from wit.errors import UserError
from wit.outcomes import OUTCOMES
from wit.web.client import Client

AGENT = "TestBot/1.0 (+https://example.org/bot)"
NAMES = ("a.test", "b.test", "c.test", "d.test")
OPEN = HostRule("allow_all")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server():
    with FaultyServer() as running:
        yield running


@pytest.fixture(autouse=True)
def _retry_soon(monkeypatch):
    monkeypatch.setattr("pipeline.fetch.schedule.retry_delay", lambda *_: 0.1)


@pytest.fixture(autouse=True)
def _only_loopback(monkeypatch):
    make = Client._socket

    def guarded(self, info):
        assert info[4][0].startswith("127."), f"a connection to {info[4]} was about to be made"
        return make(self, info)

    monkeypatch.setattr(Client, "_socket", guarded)


def policy(server: FaultyServer, **changes) -> FetchPolicy:
    settings = {
        "host_rate": 0,
        "per_host_concurrency": 8,
        "allow_addresses": (server.address,),
        "resolve": dict.fromkeys(NAMES, "127.0.0.1"),
        "connect_seconds": 1.0,
        "read_seconds": 0.5,
        "total_seconds": 2.0,
        "max_bytes": 1_000_000,
        "retries": 1,
        "shard_seconds": 20.0,
        "decode_workers": 1,
    }
    return FetchPolicy(AGENT, **{**settings, **changes})


def rules(server: FaultyServer, rule: HostRule = OPEN, names=NAMES) -> HostRules:
    return HostRules({f"http://{name}:{server.port}": rule for name in names})


def urls(server: FaultyServer, *paths: str, host: str = "a.test") -> list[str]:
    return [f"http://{host}:{server.port}{path}" for path in paths]


def fetch(server: FaultyServer, wanted: list[str], hosts=None, **changes) -> list[Fetched]:
    """The results in the order of the URLs."""
    with Fetcher(policy(server, **changes)) as fetcher:
        results = list(fetcher.run(wanted, hosts or rules(server)))
    assert sorted(result.index for result in results) == list(range(len(wanted)))
    assert all(result.outcome in OUTCOMES for result in results)
    return sorted(results, key=lambda result: result.index)


# --- what comes back --------------------------------------------------------------------------


def test_a_shard_of_everything_that_goes_wrong(server):
    expected = {
        "/ok.jpg": "success",
        "/wrong-type": "success",
        "/chain/3": "success",
        "/flaky/1": "success",
        "/gzip": "success",
        "/noindex-for-others": "success",
        "/status/404": "not_found",
        "/status/500": "server_error",
        "/html.jpg": "unsupported_format",
        "/cut.jpg": "undecodable",
        "/noai": "opted_out",
        "/noai-for-us": "opted_out",
        "/tdm": "opted_out",
        "/loop-a": "redirect_loop",
        "/chain/9": "too_many_redirects",
        "/to?http://169.254.169.254/latest": "forbidden_address",
        "/to?http://[::ffff:127.0.0.1]/": "forbidden_address",
        "/to?http://localhost/": "forbidden_address",
        "/to?file:///etc/passwd": "unsupported_scheme",
        "/gzip-bomb": "too_many_bytes",
        "/endless": "too_many_bytes",
        "/cut-short": "truncated_body",
        "/silent": "read_timeout",
        "/drip": "total_timeout",
        "/reset": "connection_lost",
        "/garbage": "invalid_response",
        "/many-headers": "headers_too_large",
    }
    results = fetch(server, urls(server, *expected), concurrency=16)
    assert {path: r.outcome for path, r in zip(expected, results, strict=True)} == expected
    for result in results:
        assert (result.image is not None) == (result.outcome == "success")
        assert result.sha256 is None or len(result.sha256) == 64
    ok, chained, flaky = results[0], results[2], results[3]
    assert (ok.width, ok.height, ok.original_width, ok.original_height) == (256, 256, 320, 240)
    assert (ok.extension, ok.content_type, ok.bytes_read) == ("jpg", "image/jpeg", len(JPEG))
    assert Image.open(io.BytesIO(ok.image)).size == (256, 256)
    assert chained.final_url == f"http://a.test:{server.port}/ok.jpg"
    assert flaky.image == ok.image
    assert results[8].message == "html"


def test_urls_that_cannot_be_asked_are_answered_without_a_request(server):
    wanted = ["ftp://a.test/", "nonsense", "http://127.0.0.1:1/", "http://user@a.test/", "data:,"]
    outcomes = [result.outcome for result in fetch(server, wanted)]
    assert outcomes == [
        "unsupported_scheme",
        "invalid_url",
        "forbidden_address",
        "invalid_url",
        "unsupported_scheme",
    ]
    assert server.log == []


def test_no_urls_no_work(server):
    assert fetch(server, []) == []


def test_the_same_web_gives_the_same_results(server):
    wanted = urls(server, "/ok.jpg", "/status/404", "/chain/2", "/html.jpg", "/reset", "/garbage")

    def once() -> list[Fetched]:
        results = fetch(server, wanted)
        for result in results:
            result.elapsed_ms = result.bytes_read = 0
        return results

    assert once() == once()


# --- politeness -------------------------------------------------------------------------------


def gaps(server: FaultyServer, host: str) -> list[float]:
    times = [moment for moment, name, _ in server.log if name == host]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def test_a_host_is_never_asked_faster_than_its_rate_share_and_delay(server):
    hosts = HostRules(
        {
            f"http://a.test:{server.port}": HostRule("allow_all"),
            f"http://b.test:{server.port}": HostRule("allow_all", share=0.5),
            f"http://c.test:{server.port}": HostRule("allow_all", crawl_delay=0.2),
        }
    )
    wanted = [url for name in NAMES[:3] for url in urls(server, *["/ok.jpg"] * 6, host=name)]
    fetch(server, wanted, hosts, host_rate=20.0)
    # A request can arrive a little late, and the next one then follows a little sooner.
    for name, interval in (("a.test", 0.05), ("b.test", 0.1), ("c.test", 0.2)):
        measured = gaps(server, name)
        assert sum(measured) >= 5 * interval * 0.95
        assert min(measured) >= interval * 0.5


def test_redirects_and_retries_count_against_the_rate_of_the_host_they_go_to(server):
    there = f"http://b.test:{server.port}/ok.jpg"
    fetch(server, urls(server, *[f"/to?{there}"] * 4, "/flaky/x"), host_rate=10.0)
    assert len(server.paths("b.test")) == 4
    assert min(gaps(server, "b.test")) >= 0.05
    assert min(gaps(server, "a.test")) >= 0.05


def test_only_so_many_requests_at_once_to_one_host(server):
    wanted = urls(server, *["/slow-ok/"] * 12)
    fetch(server, wanted, per_host_concurrency=3, concurrency=50)
    assert server.most_at_once["a.test"] == 3


def test_two_runs_of_one_fetcher_share_a_hosts_limits(server):
    wanted = urls(server, *["/slow-ok/"] * 8)
    with Fetcher(policy(server, per_host_concurrency=2)) as fetcher:
        found: list[Fetched] = []
        threads = [
            threading.Thread(target=lambda: found.extend(fetcher.run(wanted, rules(server))))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert Counter(result.outcome for result in found) == {"success": 24}
    assert server.most_at_once["a.test"] == 2


def test_retry_after_is_kept_for_the_whole_host(server):
    first, second = fetch(
        server, urls(server, "/busy/1", "/ok.jpg"), per_host_concurrency=1, host_rate=5.0
    )
    assert (first.outcome, second.outcome) == ("success", "success")
    assert gaps(server, "a.test")[0] >= 0.95


def test_a_retry_after_beyond_the_deadline_ends_the_host_at_once(server):
    begun = time.monotonic()
    results = fetch(server, urls(server, "/busy/900", *["/ok.jpg"] * 3), per_host_concurrency=1)
    assert [result.outcome for result in results] == ["deadline_exceeded"] * 4
    assert time.monotonic() - begun < 5


def test_what_robots_txt_forbids_is_not_asked(server):
    rule = HostRule("rules", "User-agent: *\nDisallow: /private\n")
    wanted = urls(server, "/private/ok.jpg", "/ok.jpg", "/to?/private/ok.jpg")
    results = fetch(server, wanted, rules(server, rule))
    outcomes = [result.outcome for result in results]
    assert outcomes == ["robots_disallowed", "success", "robots_disallowed"]
    assert "/private/ok.jpg" not in server.paths("a.test")

    nothing = fetch(server, wanted, rules(server, HostRule("unreachable")))
    assert [result.outcome for result in nothing] == ["robots_unreachable"] * 3


def test_a_host_outside_the_table_is_asked_for_its_robots_txt_once_and_first(server):
    there = f"http://b.test:{server.port}"
    wanted = urls(server, f"/to?{there}/ok.jpg", f"/to?{there}/private/ok.jpg", "/ok.jpg")
    results = fetch(server, wanted, rules(server, names=("a.test",)))
    assert [r.outcome for r in results] == ["success", "robots_disallowed", "success"]
    assert server.paths("b.test") == ["/robots.txt", "/ok.jpg"]
    assert "/robots.txt" not in server.paths("a.test")


def test_the_user_agent_says_who_asks(server, monkeypatch):
    heads = []
    read = asyncio.StreamReader.readuntil

    async def listen(self, separator=b"\n"):
        heads.append(await read(self, separator))
        return heads[-1]

    monkeypatch.setattr(asyncio.StreamReader, "readuntil", listen)
    fetch(server, urls(server, "/ok.jpg"))
    assert f"User-Agent: {AGENT}".encode() in heads[0]
    assert b"Accept-Encoding: identity" in heads[0]
    assert b"Cookie" not in heads[0]


# --- time, memory, order ----------------------------------------------------------------------


def test_a_slow_host_delays_no_other(server):
    wanted = urls(server, *["/silent"] * 6) + urls(server, *["/ok.jpg"] * 20, host="b.test")
    changes = {"per_host_concurrency": 1, "retries": 0, "concurrency": 4, "read_seconds": 0.2}
    with Fetcher(policy(server, **changes)) as fetcher:
        order = [result.index for result in fetcher.run(wanted, rules(server))]
    assert order.index(6) < 3
    assert max(order.index(index) for index in range(6, 26)) < 24


def test_the_shards_deadline_ends_whatever_is_left(server):
    begun = time.monotonic()
    wanted = urls(server, "/ok.jpg", *["/silent"] * 30)
    results = fetch(
        server, wanted, shard_seconds=1.2, read_seconds=30, total_seconds=60, concurrency=8
    )
    assert Counter(r.outcome for r in results) == {"success": 1, "deadline_exceeded": 30}
    assert time.monotonic() - begun < 3


def test_requests_wait_for_a_caller_who_does_not_take_results(server):
    wanted = urls(server, *["/ok.jpg"] * 60)
    with Fetcher(policy(server, concurrency=5)) as fetcher:
        results = fetcher.run(wanted, rules(server))
        next(results)
        time.sleep(0.5)
        assert len(server.log) <= 6
        assert Counter(result.outcome for result in results) == {"success": 59}


def test_shards_at_the_same_time_share_the_places(server):
    wanted = urls(server, *["/ok.jpg"] * 60)
    with Fetcher(policy(server, concurrency=8)) as fetcher:
        runs = [fetcher.run(wanted, rules(server)) for _ in range(2)]
        for results in runs:
            next(results)
        time.sleep(0.5)
        assert len(server.log) <= 8 + 4 + 2
        for results in runs:
            results.close()


def test_heavy_bodies_take_turns(server, monkeypatch):
    monkeypatch.setattr("wit.web.client.HEAVY_AT_ONCE", 1)
    monkeypatch.setattr("wit.web.client.LIGHT", 1000)
    results = fetch(server, urls(server, *["/ok.jpg", "/cut-short", "/ok.jpg"] * 4), retries=0)
    assert Counter(r.outcome for r in results) == {"success": 8, "truncated_body": 4}


def test_leaving_early_ends_the_requests_and_the_next_shard_works(server):
    with Fetcher(policy(server, concurrency=2)) as fetcher:
        for _ in fetcher.run(urls(server, *["/slow-ok/"] * 100), rules(server)):
            break
        asked = len(server.log)
        time.sleep(0.2)
        assert len(server.log) == asked
        assert asked < 10
        again = list(fetcher.run(urls(server, "/ok.jpg"), rules(server)))
    assert [result.outcome for result in again] == ["success"]


def test_connections_and_rates_last_from_shard_to_shard(server):
    with Fetcher(policy(server, host_rate=2.0, per_host_concurrency=1)) as fetcher:
        for _ in range(3):
            list(fetcher.run(urls(server, "/ok.jpg"), rules(server)))
    assert min(gaps(server, "a.test")) >= 0.4


# --- the decoder's processes ------------------------------------------------------------------


@pytest.fixture
def bad_decoder(monkeypatch):
    monkeypatch.setattr(pool, "DECODER", "tests.bad_decoder")


def test_a_decoder_that_dies_or_hangs_costs_one_picture(server, bad_decoder, monkeypatch):
    for trouble in (b"crash", b"hang", b"exit", b"hungry"):
        monkeypatch.setitem(FIXED, f"/{trouble.decode()}", answer(JPEG + trouble))
    paths = ["/ok.jpg", "/crash", "/ok.jpg", "/hang", "/ok.jpg", "/exit", "/ok.jpg", "/hungry"]
    results = fetch(server, urls(server, *paths * 2), decode_seconds=0.6, decode_workers=2)
    expected = {
        "/ok.jpg": ("success", None),
        "/crash": ("decoder_crashed", "SIGSEGV"),
        "/exit": ("decoder_crashed", "exit code 3"),
        "/hang": ("decoder_timeout", None),
        "/hungry": ("decoder_out_of_memory", None),
    }
    assert [(r.outcome, r.message) for r in results] == [expected[path] for path in paths * 2]


def test_a_decoder_that_cannot_start_is_no_fault_of_the_pictures(server, monkeypatch):
    monkeypatch.setattr(pool, "DECODER", "tests.no_such_module")
    with pytest.raises(UserError, match=r"does not start: .*no_such_module"):
        fetch(server, urls(server, *["/ok.jpg"] * 5))


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_no_decoder_outlives_its_parent_or_its_fetcher(server):
    with Fetcher(policy(server, decode_workers=2)) as fetcher:
        list(fetcher.run(urls(server, "/ok.jpg"), rules(server)))
        mine = children(os.getpid())
        assert len(mine) >= 2
    assert not any(map(is_running, mine))

    script = (
        "import asyncio\n"
        "from pipeline.fetch import FetchPolicy, pool\n"
        "pool.DECODER = 'tests.bad_decoder'\n"
        "async def main():\n"
        f"    decoders = pool.DecoderPool(FetchPolicy({AGENT!r}, decode_workers=2))\n"
        "    decoders.start()\n"
        "    busy = asyncio.create_task(decoders.decode(b'hang'))\n"
        "    await asyncio.sleep(1)\n"
        "    print('ready', flush=True)\n"
        "    await busy\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as parent:
        assert parent.stdout.readline() == "ready\n"
        orphans = children(parent.pid)
        assert len(orphans) == 2
        parent.send_signal(signal.SIGKILL)
    end = time.monotonic() + 5
    while any(map(is_running, orphans)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(map(is_running, orphans))


def test_it_works_inside_a_daemonic_process_as_workers_of_a_cluster_are(server):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    origin = f"http://a.test:{server.port}"
    task = (policy(server), f"{origin}/ok.jpg", origin, results)
    process = context.Process(target=fetch_one, args=task, daemon=True)
    process.start()
    assert results.get(timeout=20) == ["success"]
    process.join(10)


def test_every_picture_in_the_torture_collection_gets_a_sample_or_a_named_reason(shared_data):
    with tarfile.open(shared_data / "torture" / "images.tar.xz") as archive:
        files = [archive.extractfile(member).read() for member in archive if member.isfile()]

    async def decode_all() -> Counter:
        decoders = DecoderPool(FetchPolicy(AGENT, decode_workers=2, decode_memory=600_000_000))
        decoders.start()
        try:
            decoded = await asyncio.gather(*map(decoders.decode, files))
        finally:
            await decoders.close()
        assert all((d.image is not None) == (d.outcome == "success") for d in decoded)
        return Counter(d.outcome for d in decoded)

    counts = asyncio.run(decode_all())
    assert sum(counts.values()) == 2587
    assert counts["success"] > 900
    assert set(counts) == {"success", "undecodable", "unsupported_format", "too_many_pixels"}


def test_a_picture_above_the_memory_limit_costs_itself_only():
    large = picture(6000, 6000, "PNG")

    async def decode() -> list[str]:
        decoders = DecoderPool(FetchPolicy(AGENT, decode_workers=1, decode_memory=100_000_000))
        decoders.start()
        try:
            return [(await decoders.decode(data)).outcome for data in (large, JPEG)]
        finally:
            await decoders.close()

    assert asyncio.run(decode()) == ["decoder_out_of_memory", "success"]
