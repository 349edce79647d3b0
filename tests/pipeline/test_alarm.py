"""The alarm: silent over the troubles of a healthy crawl, quick where the run itself is broken."""

import itertools
import math
import random
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.fetch import alarm
from pipeline.fetch.alarm import Alarm, Evidence, is_nearly_all, is_unlikely, judge_hosts, site_of
from pipeline.fetch.fetched import Fetched
from wit.outcomes import OUTCOMES, SUCCESS

STEP = 0.02  # seconds between two results: 50 a second
SLOW = {"connect_timeout": 30.0, "first_byte_timeout": 30.0, "total_timeout": 60.0}
FAILURES = sorted(set(OUTCOMES) - {SUCCESS, "internal_error"})
HOSTS = 2000

Result = tuple[str, str, str]  # host, outcome, content type


def url_of(host: str) -> str:
    return f"http://{host}/picture.jpg"


def watch(
    watched: Alarm, results: Iterable[Result], start: float = 0.0
) -> tuple[int, Evidence | None, float]:
    """How many results it took until the alarm, the evidence, and the time."""
    number, now = 0, start
    for number, (host, outcome, content_type) in enumerate(results, 1):
        now += STEP
        elapsed = round(1000 * SLOW.get(outcome, 0.2))
        fetched = Fetched(number, outcome, "why", content_type=content_type, elapsed_ms=elapsed)
        if evidence := watched.see(fetched, url_of(host), now):
            return number, evidence, now
    return number, None, now


def crawl(
    rng: random.Random, count: int, failures: dict[str, float], hosts: int = HOSTS
) -> Iterator[Result]:
    """Results of which each fails on its own, with a probability for each outcome."""
    names, weights = list(failures), list(failures.values())
    for _ in range(count):
        host = f"h{rng.randrange(hosts)}.example"
        outcome = rng.choices([*names, SUCCESS], [*weights, 1 - sum(weights)])[0]
        yield host, outcome, rng.choice(["image/jpeg", "image/jpeg", "image/png", "image/webp"])


def everything(outcome: str, content_type: str = "image/jpeg") -> Iterator[Result]:
    return ((f"h{i * 7 % HOSTS}.example", outcome, content_type) for i in itertools.count())


USUAL = {"not_found": 0.15, "dns_failure": 0.05, "connect_timeout": 0.05, "access_denied": 0.05}


@st.composite
def mixtures(draw) -> dict[str, float]:
    """Up to 60 % failures of at least three reasons."""
    names = draw(st.lists(st.sampled_from(FAILURES), min_size=3, max_size=8, unique=True))
    parts = [draw(st.floats(0.1, 1.0)) for _ in names]
    total = draw(st.floats(0.0, 0.6))
    return {name: total * part / sum(parts) for name, part in zip(names, parts, strict=True)}


# --- silence ----------------------------------------------------------------------------------


@settings(max_examples=25)
@given(mixtures(), st.integers(0, 2**32), st.sampled_from([30, 200, 5000]))
def test_up_to_six_in_ten_failures_of_mixed_reasons_are_no_alarm(failures, seed, hosts):
    assert watch(Alarm(), crawl(random.Random(seed), 3000, failures, hosts))[1] is None


@settings(max_examples=25)
@given(st.sampled_from(FAILURES), st.integers(0, 2**32))
def test_six_in_ten_pictures_that_all_fail_for_one_reason_are_none_either(outcome, seed):
    assert watch(Alarm(), crawl(random.Random(seed), 3000, {outcome: 0.6}))[1] is None


@settings(max_examples=25)
@given(st.sampled_from(FAILURES), st.integers(0, 2**32), st.floats(0.1, 1.0))
def test_a_large_host_that_dies_is_none(outcome, seed, share):
    rng = random.Random(seed)
    watched = Alarm()
    watch(watched, crawl(rng, 1000, USUAL))
    mixed = (
        ("cdn7.large.example", outcome, "image/jpeg") if rng.random() < share else result
        for result in crawl(rng, 3000, USUAL)
    )
    assert watch(watched, mixed, 100.0)[1] is None


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_hosts_that_fail_altogether_are_none(seed):
    rng = random.Random(seed)
    dead = {f"h{i}.example": rng.choice(FAILURES) for i in range(HOSTS) if rng.random() < 0.45}
    results = (
        (host, dead.get(host, outcome), kind)
        for host, outcome, kind in crawl(rng, 4000, {"not_found": 0.1})
    )
    assert watch(Alarm(), results)[1] is None


def test_slow_failures_at_the_end_of_a_shard_are_no_evidence_against_the_network():
    watched = Alarm()
    _, _, now = watch(watched, crawl(random.Random(1), 1000, {}))
    for i in range(300):  # begun while others answered, and once more afterwards
        end = now + 30 + i * STEP
        for began in (now - 8, now + 1):
            fetched = Fetched(i, "connect_timeout", elapsed_ms=round(1000 * (end - began)))
            assert watched.see(fetched, url_of(f"dead{i}.example"), end) is None


def test_what_fails_while_the_decoders_start_is_no_alarm_once_pictures_come():
    watched = Alarm()
    refused = itertools.islice(everything("access_denied"), 150)
    assert watch(watched, refused)[1] is None
    assert watched.waits(150 * STEP)
    assert watch(watched, crawl(random.Random(1), 3000, USUAL), 150 * STEP)[1] is None


@pytest.mark.parametrize("outcome", FAILURES)
def test_a_run_of_few_hosts_is_judged_by_its_report_alone(outcome):
    few = ((f"h{i % 50}.example", outcome, "image/webp") for i in range(3000))
    assert watch(Alarm(), few)[1] is None


def test_pictures_that_were_not_asked_for_say_nothing():
    for outcome in ("robots_disallowed", "robots_unreachable", "opted_out", "host_gave_up"):
        assert watch(Alarm(), itertools.islice(everything(outcome), 3000))[1] is None


# --- alarm ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        ("dns_failure", "network"),
        ("connect_failed", "network"),
        ("connect_timeout", "network"),
        ("certificate_expired", "network"),  # the clock is wrong
        ("forbidden_address", "network"),  # a name server that answers with its own address
        ("undecodable", "codec"),
        ("encode_failed", "codec"),
        ("decoder_crashed", "codec"),
        ("unsupported_format", "foreign"),
        ("access_denied", "denied"),
        ("rate_limited", "denied"),
        ("server_error", "meddled"),
        ("not_found", "gone"),
        ("engine_lost", "lost"),
        ("internal_error", "internal"),
    ],
)
def test_when_everything_turns_to_one_reason_it_takes_a_few_hundred_pictures(outcome, kind):
    for before in (0, 2000):
        watched = Alarm()
        _, _, now = watch(watched, crawl(random.Random(1), before, USUAL))
        if outcome in SLOW:
            now += SLOW[outcome]
        if not before:  # else it is too early to tell
            watch(watched, [("first.example", "read_timeout", "")], now - alarm.WARM_UP)
        seen, evidence, _ = watch(watched, itertools.islice(everything(outcome), 3000), now)
        assert evidence is not None
        assert seen <= 300
        assert evidence.kind == kind
        assert len(evidence.examples) == 3
        assert all("http://h" in text and outcome in text for text in evidence.examples)


def test_one_broken_format_among_good_ones_is_seen():
    rng, watched = random.Random(1), Alarm()
    results = (
        (host, "undecodable" if kind == "image/webp" else outcome, kind)
        for host, outcome, kind in crawl(rng, 3000, {"not_found": 0.2})
    )
    seen, evidence, _ = watch(watched, results)
    assert evidence is not None
    assert evidence.kind == "codec: webp"
    assert seen < 800


def test_a_jump_far_above_the_rate_before_is_seen_though_half_still_answer():
    rng, watched = random.Random(1), Alarm()
    _, evidence, now = watch(watched, crawl(rng, 2000, {"access_denied": 0.05}))
    assert evidence is None
    seen, evidence, _ = watch(watched, crawl(rng, 1000, {"access_denied": 0.65}), now)
    assert evidence is not None
    assert (evidence.kind, seen < 400) == ("denied", True)
    assert "before 5%" in evidence.line() or "before 4%" in evidence.line()


def test_too_early_to_tell_means_that_a_shard_waits_and_then_ends_the_run():
    watched = Alarm()
    assert watch(watched, itertools.islice(everything("dns_failure"), 200))[1] is None
    now = 200 * STEP
    assert watched.waits(now)
    assert not watched.waits(now + alarm.WARM_UP)
    evidence = watched.verdict()
    assert evidence is not None
    assert "dns_failure 200" in evidence.line()


def test_the_evidence_is_one_printable_line():
    watched = Alarm()
    for i in range(400):
        fetched = Fetched(i, "connect_failed", "a\nb\\n\x1b[0m" * 50, elapsed_ms=1)
        evidence = watched.see(fetched, f"http://h{i}.example/{'x' * 3000}", i * 0.1)
        if evidence:
            break
    assert evidence.line().isprintable()
    assert len(evidence.line()) < 1200


# --- hosts ------------------------------------------------------------------------------------


def origins(count: int) -> list[str]:
    return [f"https://h{i}.example" for i in range(count)]


@given(st.integers(0, 2**32), st.floats(0, 0.6))
def test_dead_hosts_are_no_alarm(seed, rate):
    rng = random.Random(seed)
    robots = ["unreachable" if rng.random() < rate else "allow_all" for _ in range(3000)]
    assert judge_hosts(origins(3000), robots) is None


def test_a_network_that_goes_away_among_hosts_is_seen():
    assert judge_hosts(origins(60), ["unreachable"] * 60).kind == "network"
    assert judge_hosts(origins(1000), ["rules"] * 800 + ["unreachable"] * 200) is not None
    assert judge_hosts(origins(40), ["unreachable"] * 40) is None


# --- the pieces -------------------------------------------------------------------------------


@given(st.integers(1, 100), st.integers(0, 100), st.integers(1, 99))
def test_the_bound_is_the_binomial_tail(n, bad, percent):
    rate, bad = percent / 100, min(bad, n)
    tail = sum(math.comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(bad, n + 1))
    if not 0.99 < tail / alarm.CHANCE < 1.01:
        assert is_unlikely(bad, n, rate) == (tail <= alarm.CHANCE)


def test_the_bounds_that_the_documentation_names():
    assert not is_nearly_all(54, 54)
    assert is_nearly_all(55, 55)
    assert not is_nearly_all(91, 100)
    assert is_nearly_all(92, 100)
    assert not is_nearly_all(800, 1000)


@pytest.mark.parametrize(
    ("url", "site"),
    [
        ("http://www.a.example:80/x", "a.example"),
        ("https://i1.cdn.a.com/x?y=http://b", "a.com"),
        ("https://shop.a.co.uk/", "a.co.uk"),
        ("https://a.co.uk/", "a.co.uk"),
        ("https://de.wikipedia.org/", "wikipedia.org"),
        ("http://10.1.2.3:8/", "10.1.2.3"),
        ("http://[::1]:80/", "[::1]"),
        ("http://localhost/", "localhost"),
        ("no url", ""),
    ],
)
def test_a_site_is_who_runs_the_host(url, site):
    assert site_of(url) == site
