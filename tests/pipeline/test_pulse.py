"""What workers note for those who look: what came in the last minutes, and what they wait for."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import pulse
from pipeline.fetch import Fetcher, HostRule, HostRules
from pipeline.fetch.slowest import KEPT, SlowHost, slowest_of
from pipeline.pulse import HOSTS, MINUTES, Pulse, add_hosts, add_minutes, beat
from tests.pipeline.fetching import OPEN, policy, urls

EVENTS = st.lists(st.tuples(st.integers(0, 1500), st.sampled_from(["success", "not_found"])))


@given(lanes=st.lists(EVENTS, max_size=3))
def test_lanes_add_up_to_what_came_in_the_last_ten_minutes(lanes):
    pulses = []
    for events in lanes:
        lane = Pulse(lambda: [])
        for moment, outcome in sorted(events):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(pulse.time, "time", lambda moment=moment: float(moment))
                lane.see(outcome, 7)
        assert len(lane.minutes) <= MINUTES
        pulses.append(lane)
    found = beat(pulses, False).get("minutes", [])
    last = max((moment // 60 for events in lanes for moment, _ in events), default=0)
    wanted = Counter(
        (moment // 60, outcome)
        for events in lanes
        for moment, outcome in events
        if moment // 60 > last - MINUTES
    )
    assert wanted == Counter({(m["minute"], o): n for m in found for o, n in m["outcomes"].items()})
    assert sum(m["bytes"] for m in found) == 7 * wanted.total()
    assert [m["minute"] for m in found] == sorted(m["minute"] for m in found)
    assert add_minutes(found) == found


def test_a_host_that_lanes_share_counts_once_and_only_the_slowest_are_kept():
    hosts = [SlowHost(f"h{i}.example", 10, float(i), "its rate") for i in range(9)]
    lanes = [Pulse(lambda: hosts), Pulse(lambda: [SlowHost("h0.example", 5, 99.0, "it rests")])]
    found = beat(lanes, False)["hosts"]
    assert len(found) == HOSTS
    assert found[0] == {"host": "h0.example", "left": 15, "seconds": 99.0, "why": "it rests"}
    assert add_hosts(found) == found
    assert beat(lanes, True)["hosts"] == []


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 9), st.floats(0, 99))))
def test_the_slowest_hosts_are_those_that_need_the_longest(lanes):
    found = slowest_of((SlowHost(host, left, seconds, "") for host, left, seconds in lanes), KEPT)
    needs = {host: max(s for h, _, s in lanes if h == host) for host, _, _ in lanes}
    assert [host.seconds for host in found] == sorted(needs.values(), reverse=True)[:KEPT]
    assert all(host.left == sum(n for h, n, _ in lanes if h == host.host) for host in found)


def test_the_fetcher_names_the_hosts_it_waits_for_and_why(server, monkeypatch):
    monkeypatch.setattr("pipeline.fetch.slowest.PAUSE", 0.0)
    monkeypatch.setattr("pipeline.fetch.slowest.MOST", 1e9)
    table = {
        f"http://a.test:{server.port}": HostRule("allow_all", crawl_delay=5.0),
        f"http://b.test:{server.port}": HostRule("allow_all"),
        f"http://c.test:{server.port}": OPEN,
        f"http://d.test:{server.port}": OPEN,
    }
    hosts, other = HostRules(table), HostRules(table)
    wanted = urls(server, *(f"/slow-ok/?{i}" for i in range(20)), host="a.test")
    wanted += urls(server, *["/busy/100"] * 4, host="b.test")
    wanted += urls(server, *(f"/drip/{i}" for i in range(40)), host="c.test")
    wanted += urls(server, "/ok.jpg", host="d.test")
    with Fetcher(policy(server, total_seconds=3.0, per_host_concurrency=1)) as fetcher:
        assert fetcher.slowest(hosts) == []
        came = fetcher.run(wanted, hosts)
        for _ in range(3):
            next(came)
        found = {host.host: host for host in fetcher.slowest(hosts)}
        assert fetcher.slowest(other) == []
        came.close()
        assert fetcher.slowest(hosts) == []
    assert "d.test" not in found
    assert found["a.test"].why == "crawl-delay 5 s"
    assert 17 <= found["a.test"].left <= 20
    assert found["a.test"].seconds == pytest.approx(5 * found["a.test"].left, abs=6)
    assert found["b.test"].why == "it asks to be left alone"
    assert found["b.test"].seconds > 90
    assert found["c.test"].why.startswith("it answers in ")
    assert found["c.test"].seconds > 30
