"""Hosts are treated politely: rates, requests at once, Retry-After, robots.txt, who asks."""

import asyncio
import threading
import time
from collections import Counter

import pyarrow as pa
import pytest

from pipeline.fetch import Fetched, Fetcher, HostRule, HostRules
from pipeline.waves import hostnames
from tests.pipeline.fetching import AGENT, NAMES, fetch, gaps, policy, rules, urls
from wit.web.guard import parse_url
from wit.web.optouts import TDMREP_PATH
from wit.web.rates import Share

pytestmark = pytest.mark.usefixtures("only_loopback", "retry_soon")


def test_a_host_is_never_asked_faster_than_its_rate_share_and_delay(server):
    hosts = HostRules(
        {
            f"http://a.test:{server.port}": HostRule("allow_all"),
            f"http://b.test:{server.port}": HostRule("allow_all"),
            f"http://c.test:{server.port}": HostRule("allow_all", crawl_delay=0.2),
        },
        {"b.test": Share(of=2.0)},
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
    assert [result.outcome for result in results] == ["host_paused"] * 4
    assert results[0].message == "HTTP 429, Retry-After: 900 seconds"
    assert len(server.log) == 1
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
    assert server.paths("b.test") == ["/robots.txt", TDMREP_PATH, "/ok.jpg"]
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


@pytest.mark.parametrize(
    "origin",
    ["http://a.test", "https://www.a.test", "http://www.a.test:8080", "http://[2001:db8::1]:80"],
)
def test_lanes_and_rates_go_by_the_same_name_of_a_host(origin):
    target = parse_url(origin)
    (name,) = hostnames(pa.chunked_array([[target.origin]])).to_pylist()
    assert name == target.server
    assert target.server in ("a.test", "[2001:db8::1]")
