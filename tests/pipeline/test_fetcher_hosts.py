"""Hosts that fail, ask for peace, share an address or reserve their rights."""

import socket
import time
from collections import Counter

import pytest

from pipeline.fetch import Fetcher, HostRule, HostRules
from tests.faulty import FIXED, FaultyServer, answer
from tests.pipeline.fetching import NAMES, fetch, gaps, policy, rules, urls
from wit.web.rates import Share

pytestmark = pytest.mark.usefixtures("only_loopback", "retry_soon")
QUICK = {"host_rest": 0.3, "retries": 0, "host_failures": 3}


# --- the breaker ------------------------------------------------------------------------------


def test_a_dead_host_is_asked_a_few_times_and_given_up_and_no_other_waits_for_it(server):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        wanted = [f"http://b.test:{port}/{number}.jpg" for number in range(200)]
        wanted += urls(server, *["/ok.jpg"] * 20)
        hosts = HostRules(
            {f"http://b.test:{port}": HostRule("allow_all")}
            | {f"http://a.test:{server.port}": HostRule("allow_all")}
        )
        allow = (server.address, f"127.0.0.1:{port}")
        results = fetch(
            server, wanted, hosts, allow_addresses=allow, per_host_concurrency=2, **QUICK
        )
    counts = Counter(result.outcome for result in results)
    assert counts == {"success": 20, "host_gave_up": 200}


@pytest.mark.parametrize("path", ["/silent", "/reset", "/status/503"])
def test_a_host_that_never_answers_well_costs_a_few_requests(server, path):
    wanted = urls(server, *[f"{path}?{number}" for number in range(50)])
    if path == "/silent":
        wanted = urls(server, *["/silent"] * 50)
    results = fetch(server, wanted, per_host_concurrency=1, **QUICK)
    assert Counter(result.outcome for result in results) == {"host_gave_up": 50}
    assert len(server.log) == 4  # three in a row, and one after the rest


def test_a_burst_of_failures_ends_in_a_rest_and_then_all_is_fetched(server):
    wanted = urls(server, *[f"/burst/2/{number}" for number in range(6)])
    changes = {**QUICK, "retries": 2, "host_failures": 2}
    results = fetch(server, wanted, per_host_concurrency=1, **changes)
    assert Counter(result.outcome for result in results) == {"success": 6}
    assert len(server.log) == 8
    assert gaps(server, "a.test")[1] >= 0.28


def test_single_pictures_that_fail_say_nothing_about_their_host(server):
    wanted = urls(server, *["/silent", "/ok.jpg", "/reset", "/status/404", "/status/500"] * 3)
    results = fetch(server, wanted, per_host_concurrency=1, **QUICK)
    assert Counter(result.outcome for result in results) == {
        **{"first_byte_timeout": 3, "success": 3, "connection_lost": 3},
        **{"not_found": 3, "server_error": 3},
    }


@pytest.mark.parametrize(("pictures", "outcome"), [(3, "connection_lost"), (4, "host_gave_up")])
def test_what_a_dead_hosts_pictures_are_called_depends_on_their_number_alone(
    server, pictures, outcome
):
    for at_once in (1, 2, 8):
        wanted = urls(server, *["/reset"] * pictures)
        results = fetch(server, wanted, per_host_concurrency=at_once, **QUICK)
        found = [(r.outcome, r.message, r.content_type, r.final_url) for r in results]
        assert found == [(outcome, None, None, wanted[0])] * pictures


def test_each_shard_finds_out_anew(server):
    with Fetcher(policy(server, per_host_concurrency=1, **QUICK)) as fetcher:
        first = list(fetcher.run(urls(server, *["/reset"] * 9), rules(server)))
        later = list(fetcher.run(urls(server, *["/ok.jpg"] * 9), rules(server)))
    assert {result.outcome for result in first} == {"host_gave_up"}
    assert {result.outcome for result in later} == {"success"}


def test_failures_that_are_held_back_take_no_places(server):
    names = [f"dead{number}.test" for number in range(30)]
    wanted = [url for name in names for url in urls(server, *["/reset"] * 3, host=name)]
    changes = {**QUICK, "resolve": dict.fromkeys(names, "127.0.0.1"), "concurrency": 4}
    results = fetch(server, wanted, rules(server, names=names), **changes)
    assert {result.outcome for result in results} == {"connection_lost"}


def test_a_shard_of_nothing_but_hostility_ends_by_its_deadline(server):
    paths = ("/silent", "/silent-body", "/drip", "/drip-body", "/only-hints", "/endless-headers")
    paths += ("/endless", "/lies", "/reset", "/loop-a", "/chain/9", "/status/429", "/status/503")
    wanted = [url for name in NAMES for path in paths * 5 for url in urls(server, path, host=name)]
    begun = time.monotonic()
    patient = {"read_seconds": 30.0, "total_seconds": 60.0, "connect_seconds": 30.0}
    results = fetch(server, wanted, shard_seconds=2.0, concurrency=64, **patient)
    assert time.monotonic() - begun < 5
    assert not any(result.outcome in ("success", "internal_error") for result in results)


def test_the_time_that_a_hosts_rate_needs_is_no_part_of_the_shards_deadline(server):
    slow = HostRule("rules", "User-agent: *\nCrawl-delay: 0.4\n", 0.4)
    results = fetch(server, urls(server, *["/ok.jpg"] * 6), rules(server, slow), shard_seconds=0.8)
    assert {result.outcome for result in results} == {"success"}


# --- hosts that are busy ----------------------------------------------------------------------


def test_after_a_429_a_host_is_asked_more_slowly(server):
    wanted = urls(server, "/ok.jpg", "/ok.jpg", "/busy/0", *["/ok.jpg"] * 3)
    fetch(server, wanted, per_host_concurrency=1, host_rate=10.0)
    measured = gaps(server, "a.test")
    assert measured[0] < 0.18
    assert min(measured[3:]) >= 0.18


def test_a_paused_host_is_asked_again_by_a_later_shard(server):
    with Fetcher(policy(server, per_host_concurrency=1, retries=0, shard_seconds=0.8)) as fetcher:
        first = list(fetcher.run(urls(server, "/busy/1", *["/ok.jpg"] * 3), rules(server)))
        time.sleep(1.0)
        second = list(fetcher.run(urls(server, "/status/404"), rules(server)))
    first.sort(key=lambda result: result.index)
    assert [result.outcome for result in first] == ["rate_limited", *["host_paused"] * 3]
    assert [result.outcome for result in second] == ["not_found"]


# --- shared addresses -------------------------------------------------------------------------


def test_many_names_at_one_address_are_not_asked_all_at_once(server):
    names = [f"blog{number}.test" for number in range(40)]
    wanted = [url for name in names for url in urls(server, "/slow-ok/1", "/slow-ok/2", host=name)]
    hosts = rules(server, names=names)
    resolve = {"resolve": dict.fromkeys(names, "127.0.0.1")}
    found = fetch(server, wanted, hosts, concurrency=64, per_address_concurrency=5, **resolve)
    assert {result.outcome for result in found} == {"success"}
    assert server.most_in_all == 5


def test_ones_own_address_is_not_limited_unless_that_is_said(server):
    names = [f"blog{number}.test" for number in range(40)]
    wanted = [url for name in names for url in urls(server, "/slow-ok/1", host=name)]
    resolve = {"resolve": dict.fromkeys(names, "127.0.0.1")}
    fetch(server, wanted, rules(server, names=names), concurrency=64, **resolve)
    assert server.most_in_all > 20


def test_a_crowd_at_one_address_holds_up_nobody_else(server):
    with FaultyServer(address="127.0.0.2") as other:
        names = [f"blog{number}.test" for number in range(20)]
        wanted = [url for name in names for url in urls(server, "/slow-ok/1", host=name)]
        wanted += urls(other, *["/ok.jpg"] * 10, host="z.test")
        resolve = dict.fromkeys(names, "127.0.0.1") | {"z.test": other.address}
        hosts = HostRules(
            {f"http://{name}:{server.port}": HostRule("allow_all") for name in names}
            | {f"http://z.test:{other.port}": HostRule("allow_all")}
        )
        allow = (server.address, other.address)
        changes = {"resolve": resolve, "allow_addresses": allow, "per_address_concurrency": 1}
        with Fetcher(policy(server, concurrency=30, **changes)) as fetcher:
            order = [result.index for result in fetcher.run(wanted, hosts)]
    assert sorted(order) == list(range(30))
    assert max(order.index(index) for index in range(20, 30)) < 29


def test_a_name_that_turns_private_between_two_pictures_is_refused(server):
    # The server's own address stands for a public one: it is the one that is allowed.
    answers = iter([["127.0.0.1"], ["127.0.0.1"], *[["169.254.169.254"]] * 9])
    wanted = urls(server, "/ok.jpg", "/ok.jpg", host="rebind.test")
    changes = {"dns_seconds": 0.0, "per_host_concurrency": 1, "retries": 0}
    hosts = rules(server, names=["rebind.test"])
    with Fetcher(policy(server, **changes), lambda host: next(answers)) as fetcher:
        first = next(iter(fetcher.run(wanted[:1], hosts)))
        second = next(iter(fetcher.run(wanted[1:], hosts)))
    assert (first.outcome, second.outcome) == ("success", "forbidden_address")


# --- rights -----------------------------------------------------------------------------------


def test_what_tdmrep_json_reserves_is_not_asked(server):
    rule = HostRule("allow_all", tdm='[["/photos/*", 1]]')
    results = fetch(server, urls(server, "/photos/ok.jpg", "/ok.jpg"), rules(server, rule))
    assert [(r.outcome, r.message) for r in results] == [
        ("opted_out", "tdmrep.json"),
        ("success", None),
    ]
    assert server.paths("a.test") == ["/ok.jpg"]


def test_a_signal_against_training_in_robots_txt_is_kept(server):
    text = "User-agent: *\nContent-Signal: search=yes, ai-train=no\nAllow: /\n"
    results = fetch(server, urls(server, "/ok.jpg"), rules(server, HostRule("rules", text)))
    assert [result.outcome for result in results] == ["opted_out"]
    assert server.log == []


def test_a_redirect_target_is_asked_for_both_files_first_and_they_hold(server, monkeypatch):
    tdm = answer(b'[{"location": "/no/", "tdm-reservation": 1}]', "application/json")
    monkeypatch.setitem(FIXED, "/.well-known/tdmrep.json", tdm)
    there = f"http://b.test:{server.port}"
    wanted = urls(server, f"/to?{there}/no/ok.jpg", f"/to?{there}/ok.jpg")
    results = fetch(server, wanted, rules(server, names=("a.test",)))
    assert [result.outcome for result in results] == ["opted_out", "success"]
    assert server.paths("b.test") == ["/robots.txt", "/.well-known/tdmrep.json", "/ok.jpg"]


def test_a_redirect_to_the_name_with_www_is_of_the_same_host(server):
    there = f"http://www.a.test:{server.port}"
    wanted = urls(server, *[f"/to?{there}/slow-ok/"] * 6)
    names = dict.fromkeys([*NAMES, "www.a.test"], "127.0.0.1")
    hosts = HostRules(
        {f"http://a.test:{server.port}": HostRule("allow_all")},
        {"a.test": Share.part(0.8)},
        lambda server: Share.part(0.2, 3, 8),
    )
    found = fetch(server, wanted, hosts, resolve=names, host_rate=20.0, per_host_concurrency=2)
    assert {result.outcome for result in found} == {"success"}
    times = [moment for moment, _, _ in server.log]
    assert times[-1] - times[0] >= (len(times) - 1) / 20.0 * 0.95
