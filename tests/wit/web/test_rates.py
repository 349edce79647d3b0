"""When a host may be asked next, by arithmetic alone."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit.web.rates import LATE, WHOLE, HostRates, Share, parse_retry_after, retry_delay


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=50),
    st.sampled_from([0.5, 2.0, 10.0]),
    st.sampled_from([None, 0.0, 3.0]),
    st.sampled_from([WHOLE, Share(of=4.0), Share.part(0.8, 1, 3), Share.part(0.2, 2, 4)]),
)
def test_turns_are_never_closer_than_the_rate_the_delay_and_the_share_allow(
    gaps, rate, delay, share
):
    rates = HostRates(rate, at_once=2, common=12345.678)
    now, turns = 0.0, []
    for gap in gaps:
        now += gap
        turns.append(rates.book("a.test", now, delay, share))
        assert turns[-1] >= now
    interval = max(1 / rate, delay or 0.0) * share.of
    spread = LATE * interval / share.slots if share.slots > 1 else 0.0
    gaps = [b - a for a, b in itertools.pairwise(turns)]
    assert all(gap >= (interval - spread) * (1 - 1e-9) for gap in gaps)
    assert turns[-1] - turns[0] >= (len(gaps) * interval - spread) * (1 - 1e-9)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 0.4)), min_size=2, max_size=60),
    st.floats(0, 1e6),
)
def test_the_lanes_of_a_host_never_meet_although_none_knows_of_the_others(requests, start):
    lanes = [HostRates(4.0, at_once=4, common=common) for common in (0.0, 7.25, -3.5, 1e4)]
    now, turns = start, []
    for lane, gap in requests:  # each machine's clock has its own zero
        now += gap
        rates, share = lanes[lane], Share.part(0.8, lane, 4)
        turns.append(rates.book("a.test", now - rates.common, None, share) + rates.common)
    turns.sort()
    assert all(b - a >= 0.25 * (1 - 1e-6) for a, b in itertools.pairwise(turns))


def test_a_lane_that_owns_a_host_alone_starts_at_once_and_a_redirect_waits_for_its_moment():
    rates = HostRates(5.0, at_once=2, common=0.0)
    assert rates.book("a", 3.33, None, Share.part(0.8)) == 3.33
    assert rates.free_at("a", Share.part(0.8)) == pytest.approx(3.33 + 0.25)
    assert rates.turn("b", 3.33, None, Share.part(0.2, 5, 8)) == pytest.approx(5.0)


def test_the_requests_at_once_are_divided_among_lanes():
    rates = HostRates(0, at_once=4)
    for slots, each in ((1, 4), (2, 2), (3, 1), (8, 1)):
        share = Share.part(0.8, 0, slots)
        for _ in range(each):
            assert not rates.is_full("a", share)
            rates.start("a", share)
        assert rates.is_full("a", share)


def test_a_host_that_is_busy_is_asked_half_as_often_and_slowly_as_before_again():
    rates = HostRates(2.0, at_once=1)

    def interval() -> float:
        rates.book("a", 1e3, None)
        return rates.free_at("a") - max(1e3, turn)

    turn, found = 1e3, []
    for change in (None, rates.slow_down, rates.slow_down, rates.recover):
        if change:
            change("a")
        turn = rates.free_at("a") if found else 1e3
        found.append(interval())
    assert found == pytest.approx([0.5, 1.0, 2.0, 2.0 * 0.97])
    for _ in range(20):
        rates.slow_down("a")
    rates.book("a", 1e6, None)
    assert rates.free_at("a") == 1e6 + 0.5 * 64
    for _ in range(200):
        rates.recover("a")
    rates.book("a", 1e7, None)
    assert rates.free_at("a") == 1e7 + 0.5


def test_a_busy_host_without_a_rate_gets_one():
    rates = HostRates(0, at_once=1)
    rates.slow_down("a")
    rates.book("a", 10.0, None)
    assert rates.free_at("a") == 10.2


def test_hosts_do_not_wait_for_each_other():
    rates = HostRates(1.0, at_once=1)
    assert [rates.book(host, 5.0) for host in ("a", "b", "a", "b")] == [5, 5, 6, 6]


def test_unlimited_still_keeps_a_crawl_delay_and_a_pause():
    rates = HostRates(0, at_once=1)
    assert [rates.book("a", 0.0) for _ in range(3)] == [0, 0, 0]
    assert [rates.book("b", 0.0, 2.0) for _ in range(3)] == [0, 2, 4]
    rates.pause("a", 30.0)
    assert rates.book("a", 1.0) == 30.0


def test_a_shorter_pause_does_not_end_a_longer_one():
    rates = HostRates(0, at_once=1)
    rates.pause("a", 30.0)
    rates.pause("a", 10.0)
    assert rates.free_at("a") == 30.0


def test_only_so_many_requests_at_once():
    rates = HostRates(0, at_once=2)
    rates.start("a")
    assert not rates.is_full("a")
    rates.start("a")
    assert rates.is_full("a")
    assert not rates.is_full("b")
    rates.finish("a")
    assert not rates.is_full("a")


def test_memory_of_hosts_is_bounded_and_keeps_those_that_must_wait(monkeypatch):
    monkeypatch.setattr("wit.web.rates.REMEMBERED_HOSTS", 100)
    rates = HostRates(1.0, at_once=1)
    rates.pause("patient", 1e9)
    for number in range(1000):
        rates.book(f"h{number}", float(number))
    assert len(rates._turns) <= 101
    assert rates.free_at("patient") == 1e9


def test_the_retry_delay_doubles_is_bounded_and_repeats():
    delays = [retry_delay(1, "http://a/", attempt) for attempt in range(10)]
    assert delays == [retry_delay(1, "http://a/", attempt) for attempt in range(10)]
    assert all(0.5 * 2**n <= d < 1.5 * 2**n for n, d in enumerate(delays[:6]))
    assert max(delays) <= 90.0
    assert retry_delay(2, "http://a/", 0) != retry_delay(1, "http://a/", 0)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 1970 00:10:00 GMT", 500.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("９", None),
        ("9" * 400, 999999999.0),
    ],
)
def test_retry_after_in_seconds_or_as_a_date(header, seconds):
    assert parse_retry_after(header, now=100.0) == seconds


def test_a_host_that_others_may_have_asked_just_before_is_left_alone_for_one_interval():
    rates = HostRates(5.0, at_once=2, common=0.0)
    rates.begin(100.0)
    assert rates.turn("a", 100.0, None, WHOLE) == pytest.approx(100.2)
    assert rates.turn("b", 100.0, 3.0, WHOLE) == pytest.approx(103.0)
    rates.book("a", 100.2)
    rates.begin(200.0)
    assert rates.turn("a", 200.0, None, WHOLE) == 200.0
