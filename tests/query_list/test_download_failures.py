"""`wit queries download` where servers, networks and disks fail, or are hostile."""

import bz2
import contextlib
import gzip
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from query_list.download import web
from tests.query_list.downloads import (
    DAILY,
    DAY,
    DUMP,
    HOURLY,
    LAST_DAY,
    ONE_DAY,
    SAME,
    arguments,
    files_in,
    inputs,
    make_dump,
    make_views,
    run,
)
from tests.query_list.dump_server import changes_to, cut_at, endless, says, whole
from wit.errors import UserError

JOB = "articlesmultistreamdump"


# --- interruptions ----------------------------------------------------------------------------


def test_a_cut_connection_is_gone_on_with_where_it_broke(server, tmp_path):
    server.faults[LAST_DAY] = [cut_at(100_000)]
    run(server, tmp_path, "--without", "wordnet", "dump", *ONE_DAY)
    first, second = server.asked("GET", LAST_DAY)
    assert "range" not in first.headers
    start = int(second.headers["range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= 100_000
    tag = hashlib.md5(server.files[LAST_DAY]).hexdigest()
    assert second.headers["if-range"] == f'"{tag}"'
    (path,) = (tmp_path / "views").iterdir()
    assert path.read_bytes() == server.files[LAST_DAY]


OTHER = bz2.compress(make_views(7, 3_000))


@pytest.mark.parametrize(
    ("faults", "end", "requests"),
    [
        ([cut_at(100_000), whole], SAME, 2),
        ([cut_at(100_000), says(416)], SAME, 3),
        ([cut_at(100_000), says(206, b"x", Content_Range="bytes 5-5/9")], SAME, 3),
        ([cut_at(100_000), changes_to(OTHER)], OTHER, 2),
        ([changes_to(OTHER)], OTHER, 1),
        ([endless], SAME, 2),
        ([says(500), says(206, b"abc", Content_Range="bytes 0-2/3")], SAME, 3),
    ],
    ids=[
        "Range is ignored",
        "416",
        "another range",
        "changed in between",
        "changed since the plan",
        "too much",
        "errors",
    ],
)
def test_a_file_is_whole_whatever_happened_on_the_way(server, tmp_path, faults, end, requests):
    server.faults[LAST_DAY] = list(faults)
    run(server, tmp_path, "--without", "wordnet", "dump", *ONE_DAY)
    assert files_in(tmp_path) == ["views/pageviews-20260831-user.bz2"]
    assert (tmp_path / "views" / "pageviews-20260831-user.bz2").read_bytes() == end
    assert inputs(tmp_path)["views"]["files"][0]["bytes"] == len(end)
    assert len(server.asked("GET", LAST_DAY)) == requests  # none more: nothing came damaged
    assert not server.exhausted


def test_a_dump_that_changed_since_its_sum_was_listed_is_refused(server, tmp_path):
    server.faults[f"/enwiki/{DAY}/{DUMP}"] = [changes_to(make_dump(9)[:-5])]
    with pytest.raises(UserError, match="its list of files says"):
        run(server, tmp_path, "--without", "wordnet", "views")
    assert files_in(tmp_path) == []


def test_a_wrong_sum_is_fetched_once_more_and_then_refused(server, tmp_path):
    path = f"/enwiki/{DAY}/{DUMP}"
    wrong = bytearray(server.files[path])
    wrong[1000] ^= 1
    server.faults[path] = [says(200, bytes(wrong))]
    run(server, tmp_path / "once", "--without", "wordnet", "views")
    assert (tmp_path / "once" / "dump" / DUMP).read_bytes() == server.files[path]

    server.always[path] = says(200, bytes(wrong))
    with pytest.raises(UserError, match="damaged twice: its SHA-1 is") as error:
        run(server, tmp_path / "always", "--without", "wordnet", "views")
    assert f"{server.url}{path}" in str(error.value)
    assert files_in(tmp_path / "always") == []
    assert inputs(tmp_path / "always")["dump"]["files"][0]["sha256"] is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (SAME[:-100], "cannot be unpacked"),
        (b"<html>Please log in</html>", "cannot be unpacked"),
        (bz2.compress(b"<html>Please log in</html>"), "something else where views"),
        (make_dump(), "xml where views"),
    ],
    ids=["cut", "no bzip2", "no page views", "a dump"],
)
def test_page_views_without_a_sum_must_unpack_to_page_views(server, tmp_path, data, reason):
    server.files[LAST_DAY] = data
    with pytest.raises(UserError, match=reason):
        run(server, tmp_path, "--without", "wordnet", "dump", *ONE_DAY)
    assert files_in(tmp_path) == []


def test_a_tar_that_is_no_wordnet_is_refused(server, tmp_path):
    server.files["/WNdb-3.0.tar.gz"] = gzip.compress(b"<html>moved</html>")
    url = f"{server.url}/WNdb-3.0.tar.gz"
    with pytest.raises(UserError, match=r"damaged twice: wordnet/WNdb-3.0.tar.gz"):
        run(server, tmp_path, "--wordnet", url, "--without", "views", "dump")
    assert files_in(tmp_path) == []


def test_a_server_that_asks_to_wait_is_waited_for(server, tmp_path, monkeypatch):
    monkeypatch.setattr(web, "BUSY_PAUSE", 0.1)
    server.faults[LAST_DAY] = [says(429, b"", Retry_After="1"), says(503), says(503)]
    run(server, tmp_path, "--without", "wordnet", "dump", *ONE_DAY)
    times = [asked.seconds for asked in server.asked("GET", LAST_DAY)]
    assert len(times) == 4
    assert times[1] - times[0] >= 1.0
    assert times[3] - times[2] >= 0.4  # where nothing is said the pauses grow: 0.1, 0.2, 0.4


def test_a_server_that_asks_to_wait_for_hours_ends_the_run_with_a_line(server, tmp_path):
    server.always[LAST_DAY] = says(429, b"", Retry_After="7200")
    with pytest.raises(UserError, match="busy"):
        run(server, tmp_path, "--without", "wordnet", "dump", *ONE_DAY)


def test_never_more_than_two_requests_at_a_time(server, tmp_path):
    server.delay = 0.05
    for day in range(20, 32):
        server.files[DAILY.format(day)] = bz2.compress(make_views(day, 3))
    span = ("--from", "2026-08-20", "--to", "2026-08-31")
    run(server, tmp_path, "--without", "wordnet", *span)
    assert server.most_at_once == 2
    assert len(files_in(tmp_path)) == 13


def test_a_killed_download_goes_on_and_ends_with_the_same_bytes(server, tmp_path):
    path = f"/enwiki/{DAY}/{DUMP}"

    def stalls(handler, data):
        handler.reply(200, data[:250_000], length=len(data), **handler.version(data))
        handler.wfile.flush()
        time.sleep(20)
        return True

    server.faults[path] = [stalls]
    wanted = ("--without", "wordnet", "--date", DAY, *ONE_DAY)
    code = (
        "import sys; from query_list import download; from wit.console import Arguments; "
        "p = Arguments(); download.add_arguments(p); download.run(p.parse_args(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *arguments(server.url, tmp_path, *wanted)]
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL)
    part = tmp_path / "dump" / f"{DUMP}.part"
    views = tmp_path / "views" / "pageviews-20260831-user.bz2"
    try:
        until = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size >= 150_000 and views.exists()):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.05)
        kept = part.stat().st_size
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    server.log.clear()
    run(server, tmp_path, *wanted)
    (asked,) = server.asked("GET", DUMP)
    assert int(asked.headers["range"].removeprefix("bytes=").removesuffix("-")) >= kept
    assert server.asked("GET", "user.bz2") == []
    assert (tmp_path / "dump" / DUMP).read_bytes() == server.files[path]
    assert views.read_bytes() == server.files[LAST_DAY]
    assert all(
        file["sha256"] for name in ("dump", "views") for file in inputs(tmp_path)[name]["files"]
    )
    assert len(files_in(tmp_path)) == 2


# --- without a network, without space ---------------------------------------------------------


@pytest.fixture
def nobody() -> str:
    """A URL where nobody listens."""
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # bound, so that no other gets it, and not listening
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_without_a_network_the_files_to_bring_are_listed(nobody, tmp_path):
    with pytest.raises(UserError) as error:
        run(nobody, tmp_path, "--date", DAY, "--from", "2026-08-30", "--to", "2026-08-31")
    first, *lines = str(error.value).splitlines()
    assert "no connection (Connection refused)" in first
    assert f"wit queries build {tmp_path}" in first
    assert [line.split() for line in lines] == [
        [f"{nobody}/enwiki/{DAY}/{DUMP}", "->", f"{tmp_path}/dump/{DUMP}"],
        [nobody + DAILY.format(30), "->", f"{tmp_path}/views/pageviews-20260830-user.bz2"],
        [nobody + DAILY.format(31), "->", f"{tmp_path}/views/pageviews-20260831-user.bz2"],
        [
            "https://wordnetcode.princeton.edu/3.0/WNdb-3.0.tar.gz",
            "->",
            f"{tmp_path}/wordnet/WNdb-3.0.tar.gz",
        ],
    ]


def test_without_a_network_hours_are_told_in_one_line_a_day_and_latest_as_a_date(nobody, tmp_path):
    with pytest.raises(UserError) as error:
        run(nobody, tmp_path, "--views", "hourly", *ONE_DAY)
    lines = str(error.value).splitlines()[1:]
    assert lines[0].split()[0] == f"{nobody}/enwiki/DATE/{DUMP.replace(DAY, 'DATE')}"
    assert lines[1].split()[0] == (nobody + HOURLY.format(0)).replace("-000000", "-{00..23}0000")
    assert lines[-1].strip() == "where DATE is that of a finished dump"


def test_a_network_that_fails_later_leaves_the_list_of_what_is_missing(server, tmp_path):
    server.always[f"/enwiki/{DAY}/{DUMP}"] = says(500)
    with pytest.raises(UserError) as error:
        run(server, tmp_path, "--without", "wordnet", *ONE_DAY)
    lines = str(error.value).splitlines()[1:]
    assert any(DUMP in line for line in lines)


def test_a_file_brought_by_hand_is_checked_and_not_fetched(server, tmp_path):
    (tmp_path / "dump").mkdir()
    (tmp_path / "dump" / DUMP).write_bytes(make_dump())
    run(server, tmp_path, "--without", "wordnet", "views")
    assert server.asked("GET", DUMP) == []
    assert inputs(tmp_path)["dump"]["files"][0]["checked"] == "sha1"


def test_a_disk_that_is_too_small_is_told_before_anything_comes(server, tmp_path, monkeypatch):
    free = len(make_dump()) + 1000
    usage = shutil._ntuple_diskusage(10**9, 10**9 - free, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    needed = len(make_dump()) + len(SAME)
    with pytest.raises(UserError, match=rf"{needed:,} bytes .* {free:,} .* free there"):
        run(server, tmp_path, "--without", "wordnet", "--date", DAY, *ONE_DAY)
    assert files_in(tmp_path) == []
    # Nothing came, so that less, or something else, may be asked for.
    days = ("--from", "2026-08-31", "--to", "2026-09-02")
    assert run(server, tmp_path, "--without", "wordnet", "dump", *days) == 0


# --- hostile servers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../../evil.xml.bz2",
        "/etc/evil.xml.bz2",
        f"enwiki-{DAY}-pages-articles-multistream1.xml-p1p2.bz2/../../../evil",
        f"enwiki-{DAY}-pages-articles-multistream1.xml-p1p2.bz2\n",
        f"enwiki-{DAY}-pages-articles-multistream1.xml-p1p٢.bz2",
        f"dewiki-{DAY}-pages-articles-multistream.xml.bz2",
    ],
)
def test_a_name_that_no_file_of_the_dump_can_have_is_refused(server, tmp_path, name):
    path = f"/enwiki/{DAY}/dumpstatus.json"
    status = json.loads(server.files[path])
    status["jobs"]["articlesmultistreamdump"]["files"][name] = {"size": 3, "sha1": "0" * 40}
    server.files[path] = json.dumps(status).encode()
    out = tmp_path / "a" / "b"
    with pytest.raises(UserError, match="no name that a file of this dump can have"):
        run(server, out, "--without", "wordnet", "views")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [out / ".lock"]


@pytest.mark.parametrize(
    "status",
    [b"<html>", b"[]", b'{"jobs": 3}', b'{"jobs": {}}', b"[" * 100_000, b"\xff\xfe",
     b'{"jobs": {"articlesmultistreamdump": {"status": "done", "files": {"x.xml": {}}}}}',
     b'{"jobs": {"articlesmultistreamdump": {"status": "done", "files": []}}}',
     json.dumps({"jobs": {JOB: {"status": "done", "files": {DUMP: {"size": -1}}}}})
     .encode()],
)  # fmt: skip
def test_a_status_that_is_none_is_a_line(server, tmp_path, status):
    server.files[f"/enwiki/{DAY}/dumpstatus.json"] = status
    with pytest.raises(UserError) as error:
        run(server, tmp_path, "--date", DAY, "--without", "wordnet", "views")
    assert "\n" not in str(error.value)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("target", ["http://example.org/x", "ftp://127.0.0.1/x", "file:///etc/x"])
def test_a_redirect_is_followed_to_https_only(server, tmp_path, target):
    server.always[LAST_DAY] = says(302, b"", Location=target)
    with pytest.raises(UserError, match=r"redirected: .* is no https URL"):
        run(server, tmp_path, "--without", "wordnet", "dump", *ONE_DAY)


def test_a_redirect_on_the_server_is_followed(server, tmp_path):
    server.files["/moved.bz2"] = server.files[LAST_DAY]
    server.always[LAST_DAY] = says(302, b"", Location="/moved.bz2")
    run(server, tmp_path, "--without", "wordnet", "dump", *ONE_DAY)
    assert len(files_in(tmp_path)) == 1


@pytest.mark.parametrize(
    "options",
    [
        ("--mirror", "http://dumps.wikimedia.org"),
        ("--mirror", "ftp://127.0.0.1"),
        ("--mirror", "https://me:secret@example.org"),
        ("--wordnet", "http://example.org/WNdb-3.0.tar.gz"),
        ("--wordnet", "https://example.org/..tar.gz"),
        ("--wordnet", "https://example.org/index.html"),
        ("--wiki", "../enwiki"),
        ("--user-agent", "me\r\nX: y"),
        ("--from", "2026-08-02", "--to", "2026-08-01"),
    ],
)
def test_what_cannot_be_asked_for_is_a_line(server, tmp_path, options):
    with pytest.raises(UserError) as error:
        run(server, tmp_path / "new", *options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "text",
    ['{"wiki": "enwiki"}', '{"wiki": "enwiki", "date": "x", "dump": {}}', "[]",
     '{"wiki": "enwiki", "date": null, "dump": {"settings": {}, "missing": [], "files": '
     '[{"path": "../../x", "url": "", "kind": "xml", "bytes": 1}]}}'],
)  # fmt: skip
def test_an_inputs_file_that_is_none_is_a_line(server, tmp_path, text):
    (tmp_path / "inputs.json").write_text(text)
    with pytest.raises(UserError, match=r"inputs\.json"):
        run(server, tmp_path)
    assert server.log == []
