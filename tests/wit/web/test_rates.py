"""When a host may be asked next, by arithmetic alone."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit.web.rates import HostRates, parse_retry_after, retry_delay


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=50),
    st.sampled_from([0.5, 2.0, 10.0]),
    st.sampled_from([None, 0.0, 3.0]),
    st.sampled_from([1.0, 0.25]),
)
def test_turns_are_never_closer_than_the_rate_the_delay_and_the_share_allow(
    gaps, rate, delay, share
):
    rates = HostRates(rate, at_once=2)
    now, turns = 0.0, []
    for gap in gaps:
        now += gap
        turns.append(rates.book("a.test", now, delay, share))
        assert turns[-1] >= now
    interval = max(1 / rate, delay or 0.0) / share
    assert all(b - a >= interval * (1 - 1e-9) for a, b in itertools.pairwise(turns))


def test_hosts_do_not_wait_for_each_other():
    rates = HostRates(1.0, at_once=1)
    assert [rates.book(host, 5.0, None, 1.0) for host in ("a", "b", "a", "b")] == [5, 5, 6, 6]


def test_unlimited_still_keeps_a_crawl_delay_and_a_pause():
    rates = HostRates(0, at_once=1)
    assert [rates.book("a", 0.0, None, 1.0) for _ in range(3)] == [0, 0, 0]
    assert [rates.book("b", 0.0, 2.0, 1.0) for _ in range(3)] == [0, 2, 4]
    rates.pause("a", 30.0)
    assert rates.book("a", 1.0, None, 1.0) == 30.0


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
        rates.book(f"h{number}", float(number), None, 1.0)
    assert len(rates._hosts) <= 101
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
