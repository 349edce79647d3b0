"""img2dataset on a leash: whatever it does, each URL has an outcome, and nothing goes on."""

import itertools
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from pipeline.fetch import HostRule, HostRules, leash
from pipeline.fetch.img2dataset_words import outcome_of
from tests.faulty import EXPIRED, FaultyServer
from tests.pipeline.img2dataset import HOST, engine, fetch, stand_in
from wit.errors import UserError
from wit.outcomes import DOWNLOAD, OUTCOMES, RESIZE, SUCCESS

__all__ = ["stand_in"]

WHOLE = """
rows = read()
with tarfile.open("out/00000.tar", "w") as tar:
    for row in rows[:2]:
        add(tar, row)
failures(rows[2:])
finish()
"""


def test_pictures_and_failures_are_matched_by_their_index(stand_in, tmp_path):
    names = ["same", "no/robots", "same", "gone"]
    first, forbidden, second, gone = fetch(engine(stand_in(WHOLE), tmp_path / "work"), names)
    assert (first.outcome, second.outcome) == (SUCCESS, SUCCESS)
    assert first.image == second.image == f"{HOST}/same".encode()
    assert (first.width, first.height, first.original_width, first.original_height) == (2, 1, 4, 2)
    assert first.phash is first.animated is None
    assert first.exif == '{"Image Make": "Canon"}'  # where it was taken is left out
    assert (forbidden.outcome, forbidden.message) == ("robots_disallowed", "robots.txt forbids it")
    assert (gone.outcome, gone.message) == ("not_found", "HTTP Error 404: Not Found")


def test_a_caller_that_stops_early_leaves_nothing(stand_in, tmp_path):
    running = engine(stand_in(WHOLE), tmp_path / "work")
    results = running.run([f"{HOST}/a", f"{HOST}/b"], HostRules({HOST: HostRule("allow_all")}))
    assert next(results).outcome == SUCCESS
    results.close()
    assert list((tmp_path / "work").iterdir()) == []
    assert len(fetch(running, ["a", "b"])) == 2  # the next shard has its turn


def test_a_host_whose_robots_was_not_asked_for_is_left_alone(stand_in, tmp_path):
    running = engine(stand_in("raise SystemExit('was started')"), tmp_path / "work")
    (found,) = running.run([f"{HOST}/a"], HostRules({}))
    assert found.outcome == "robots_unreachable"


@pytest.mark.parametrize(
    ("then", "seconds", "outcome", "said"),
    [
        ("finish()", 60, "engine_lost", "left this URL out"),
        ("tar.fileobj.flush(); os.kill(os.getpid(), 9)", 60, "engine_lost", "killed by signal 9"),
        ("tar.fileobj.flush(); time.sleep(600)", 60, "engine_lost", "wrote nothing for 5 seconds"),
        (
            "[(add(tar, row), time.sleep(.01)) for _ in range(60000)]",
            4,
            "deadline_exceeded",
            "ended with the shard's time",
        ),
    ],
)
def test_what_it_does_not_answer_has_a_name_and_what_it_brought_is_kept(
    stand_in, tmp_path, monkeypatch, then, seconds, outcome, said
):
    monkeypatch.setattr("pipeline.fetch.img2dataset.QUIET_SECONDS", 3.0)
    body = f"tar = tarfile.open('out/00000.tar', 'w')\nadd(tar, row)\n{then}\n"
    body = f"row = dict(url='{HOST}/a', index=0)\n{body}"  # it starts at once: no Parquet
    running = engine(stand_in(body), tmp_path / "work", shard_seconds=seconds)
    brought, lost = fetch(running, ["a", "b"])
    assert brought.image == f"{HOST}/a".encode()
    assert lost.outcome == outcome
    assert said in lost.message


def test_a_shard_is_not_written_where_it_ends_without_having_worked(stand_in, tmp_path):
    body = "print('shard 0 failed with error [Errno 28] No space left'); print('Retried 1 times')"
    running = engine(stand_in(body), tmp_path / "work")
    with pytest.raises(UserError, match=r"shard 0 failed with error \[Errno 28\]"):
        fetch(running, ["a"])
    assert list((tmp_path / "work").iterdir()) == []


def test_it_learns_nothing_of_proxies_and_tokens(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    body = "print(sorted(os.environ), os.environ['NO_ALBUMENTATIONS_UPDATE'])"
    with pytest.raises(UserError) as raised:
        fetch(engine(stand_in(body), tmp_path / "work"), ["a"])
    assert "NO_ALBUMENTATIONS_UPDATE" in str(raised.value)
    assert "http_proxy" not in str(raised.value)
    assert "AWS" not in str(raised.value)


def test_it_ends_with_its_owner_and_so_do_its_children(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    child = "import os, subprocess, sys, time; "
    child += "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)']); "
    child += "print(os.getpid(), p.pid, flush=True); time.sleep(300)"
    command = [sys.executable, "-I", leash.__file__, str(work), sys.executable, "-c", child]
    owner = "import subprocess, sys, time; "
    owner += "p = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE); time.sleep(300)"
    started = [sys.executable, "-c", owner, *command]
    with subprocess.Popen(started, stdout=subprocess.PIPE, text=True) as process:
        children = [int(pid) for pid in process.stdout.readline().split()]
        assert len(children) == 2
        assert all(map(alive, children))
        os.kill(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while (any(map(alive, children)) or work.exists()) and time.monotonic() < deadline:
            time.sleep(0.02)
    assert not any(map(alive, children))
    assert not work.exists()


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- what it says went wrong is what urllib says ----------------------------------------------


def message_of(url: str, seconds: float = 20) -> str:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - whatever urllib raises
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            url, timeout=seconds
        ).read()
    return str(raised.value)


@pytest.mark.parametrize(
    ("path", "outcome"),
    [
        ("/nothing-here", "not_found"),
        ("/loop-a", "redirect_loop"),
        ("/nowhere", "invalid_redirect"),
        ("/bad-status", "invalid_response"),
        ("/bad-second-chunk", "invalid_response"),
        ("/many-headers", "headers_too_large"),
        ("/long-header", "headers_too_large"),
        ("/cut-short", "truncated_body"),
        ("/garbage", "engine_failed"),
    ],
)
def test_an_answer_that_urllib_refuses_has_our_word(server, path, outcome):
    message = message_of(f"http://{server.address}{path}")
    assert outcome_of(DOWNLOAD, message)[0] == outcome


def test_names_connections_and_silence_have_our_words(server):
    for url, outcome in (
        ("http://no-such-host.invalid/", "dns_failure"),
        ("http://127.0.0.1:9/", "connect_failed"),
        (f"http://{server.address}/reset", "connection_lost"),
        (f"http://{server.address}/to?file:///etc/passwd", "unsupported_scheme"),
        ("http://a b/", "invalid_url"),
        ("http://" + "a" * 70 + ".test/", "invalid_url"),
    ):
        assert outcome_of(DOWNLOAD, message_of(url))[0] == outcome, url
    for path in ("silent", "silent-body"):
        message = message_of(f"http://{server.address}/{path}", seconds=0.5)
        assert outcome_of(DOWNLOAD, message)[0] == "read_timeout"
    message = message_of(f"https://{server.address}/ok.jpg", seconds=0.5)  # it waits for HTTP
    assert outcome_of(DOWNLOAD, message)[0] == "connect_timeout"


def test_certificates_have_our_words(tmp_path):
    with FaultyServer(tmp_path) as server:
        message = message_of(f"https://{server.address}/ok.jpg")
    assert outcome_of(DOWNLOAD, message)[0] == "certificate_untrusted"
    with FaultyServer(tmp_path, EXPIRED) as server:
        message = message_of(f"https://{server.address}/ok.jpg")
    assert outcome_of(DOWNLOAD, message)[0] in ("certificate_expired", "certificate_untrusted")


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        *[(410, "not_found"), (403, "access_denied"), (429, "rate_limited")],
        *[(418, "client_error"), (503, "server_error"), (304, "unexpected_status")],
    ],
)
def test_an_http_status_has_our_word(code, outcome):
    message = str(urllib.error.HTTPError(HOST, code, "as it is", {}, None))
    assert outcome_of(DOWNLOAD, message)[0] == outcome


def test_its_own_words_and_unknown_ones():
    words = {
        (DOWNLOAD, "Use of image disallowed by X-Robots-Tag directive"): "opted_out",
        (DOWNLOAD, "<urlopen error timed out>"): "connect_timeout",
        (DOWNLOAD, "<urlopen error [SSL: WRONG_VERSION_NUMBER] (_ssl.c:1006)>"): "tls_failure",
        (DOWNLOAD, "something new"): "engine_failed",
        (DOWNLOAD, None): "engine_failed",
        (RESIZE, "image too small"): "too_small",
        (RESIZE, "image area too large"): "too_many_pixels",
        (RESIZE, "aspect ratio too large"): "too_elongated",
        (RESIZE, "Image decoding error"): "undecodable",
        (RESIZE, "something new"): "undecodable",
    }
    assert {key: outcome_of(*key)[0] for key in words} == words
    assert outcome_of(DOWNLOAD, "something new")[1] == "something new"
    assert outcome_of(DOWNLOAD, "a\x1b[2J\n" * 100)[1].isprintable()
    everything = itertools.product((SUCCESS, DOWNLOAD, RESIZE), ("", "x"))
    assert all(outcome_of(status, text)[0] in OUTCOMES for status, text in everything)
