"""A host that fails rests, is asked once more, and is then given up."""

from wit.web.breaker import Breaker


def fail(breaker: Breaker, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        breaker.failed("a", now, probe=breaker.start("a"))


def test_failures_in_a_row_make_a_host_rest_and_others_not():
    breaker = Breaker(3, rest=30.0)
    fail(breaker, 2)
    assert breaker.may_ask_at("a") == 0
    breaker.answered("a")
    fail(breaker, 2)
    assert breaker.may_ask_at("a") == 0
    fail(breaker, 1, now=5.0)
    assert breaker.may_ask_at("a") == 35.0
    assert breaker.may_ask_at("b") == 0


def test_one_request_finds_out_and_its_success_opens_the_host_again():
    breaker = Breaker(3, rest=30.0)
    fail(breaker, 3)
    assert breaker.start("a")
    assert breaker.is_probing("a")
    breaker.answered("a")
    assert not breaker.is_probing("a")
    assert (breaker.may_ask_at("a"), breaker.is_gone("a")) == (0, False)


def test_its_failure_gives_the_host_up():
    breaker = Breaker(3, rest=30.0)
    fail(breaker, 3)
    assert not breaker.is_gone("a")
    assert not breaker.has_failed("a")
    fail(breaker, 1, now=40.0)
    assert breaker.is_gone("a")
    assert breaker.has_failed("a")


def test_requests_that_were_under_way_do_not_decide_for_the_one_that_finds_out():
    breaker = Breaker(3, rest=30.0)
    fail(breaker, 3)
    assert breaker.start("a")
    breaker.failed("a", 31.0, probe=False)
    assert breaker.is_probing("a")
    assert not breaker.is_gone("a")
    assert breaker.has_failed("a")
    breaker.undecided("a", probe=True)
    assert not breaker.is_probing("a")


def test_zero_never_gives_up():
    breaker = Breaker(0, rest=30.0)
    fail(breaker, 100)
    assert (breaker.may_ask_at("a"), breaker.is_gone("a"), breaker.has_failed("a")) == (
        *(0, False),
        False,
    )
