"""Whole shards: every URL once, in bounded time and memory, whatever a stranger does."""

import io
import queue
import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from PIL import Image

from pipeline.fetch import Fetched, Fetcher
from pipeline.fetch.fetcher import _results
from tests.faulty import JPEG
from tests.pipeline.fetching import fetch, gaps, policy, rules, urls

pytestmark = pytest.mark.usefixtures("only_loopback", "retry_soon")

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
        "/silent": "first_byte_timeout",
        "/silent-body": "read_timeout",
        "/drip-body": "too_slow",
        "/brotli-bomb": "unsupported_encoding",
        "/gzip-not": "bad_content_encoding",
        "/expired": "opted_out",
        "/endless-headers": "headers_too_large",
        "/to?http://user:x@a.test/": "invalid_redirect",
        "/to?http://127.0.0.1/": "forbidden_address",
        "/drip": "total_timeout",
        "/reset": "connection_lost",
        "/garbage": "invalid_response",
        "/many-headers": "headers_too_large",
    }
    results = fetch(server, urls(server, *expected), concurrency=32, slow_seconds=0.3)
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


# --- time, memory, order ----------------------------------------------------------------------


def test_a_slow_host_delays_no_other(server):
    wanted = urls(server, *["/silent"] * 6) + urls(server, *["/ok.jpg"] * 20, host="b.test")
    changes = {"per_host_concurrency": 1, "retries": 0, "concurrency": 4, "read_seconds": 0.2}
    with Fetcher(policy(server, **changes)) as fetcher:
        order = [result.index for result in fetcher.run(wanted, rules(server))]
    assert order.index(6) < 3
    assert max(order.index(index) for index in range(6, 26)) < 24


def test_the_shards_deadline_ends_whatever_is_left(server):
    wanted = urls(server, "/ok.jpg", *["/silent"] * 30)
    patient = {"read_seconds": 30, "total_seconds": 60, "concurrency": 8}
    with Fetcher(policy(server, shard_seconds=1.2, **patient)) as fetcher:
        list(fetcher.run(wanted[:1], rules(server)))  # the decoder may take long to start
        begun = time.monotonic()
        results = list(fetcher.run(wanted, rules(server)))
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


@pytest.mark.parametrize(("places", "told"), [(128, [8, 8]), (40, [2] * 10), (4, [1] * 20)])
def test_a_shard_with_many_places_hears_of_several_results_at_a_time(places, told):
    results, heard = queue.SimpleQueue(), []
    shard = SimpleNamespace(results=results, office=SimpleNamespace(places=lambda: places))
    for result in [*(Fetched(index, "success") for index in range(20)), OSError("no sockets")]:
        results.put(result)
    taken = _results(shard, lambda: None, heard.append)
    assert [next(taken).index for _ in range(20)] == list(range(20))
    with pytest.raises(OSError, match="no sockets"):
        next(taken)
    assert heard == told


def test_a_shard_hears_of_a_last_result_soon():
    results, heard = queue.SimpleQueue(), queue.SimpleQueue()
    shard = SimpleNamespace(results=results, office=SimpleNamespace(places=lambda: 128))
    results.put(Fetched(0, "success"))
    taken = _results(shard, lambda: None, heard.put)
    next(taken)
    threading.Timer(0.3, results.put, [None]).start()
    assert list(taken) == []
    assert heard.get_nowait() == 1


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
