"""The demo's server: what the web's pages promise, for as long as it is wanted."""

import http.client
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipeline.demo import answers, pictures, routes, server, site, truth
from tests.pipeline.demo_run import all_urls

ROOT = Path(__file__).resolve().parents[2]
AGENT = "WebImageText-test/1.0 (+https://example.org/bot)"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "access"


@pytest.fixture(scope="module")
def port(log: Path) -> int:
    with server.running_server(log) as number:
        yield number


def ask(
    port: int, url: str, method: str = "GET", connection: http.client.HTTPConnection | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    parts = urlsplit(url)
    connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    connection.request(method, target, headers={"Host": parts.netloc, "User-Agent": AGENT})
    response = connection.getresponse()
    return response, response.read()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_one_connection_carries_many_requests_quickly(port: int) -> None:
    urls = [u for u in all_urls() if truth.trouble(u) == "picture" and answers.answer(u).body][:400]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    start = time.perf_counter()
    for url in urls:
        response, body = ask(port, url, connection=connection)
        reply = answers.answer(url)
        assert (response.status, body) == (reply.status, reply.body)
        assert not response.will_close
    assert time.perf_counter() - start < 4.0


def test_pages_redirects_and_errors_are_served_with_their_headers(port: int) -> None:
    page = site.pages()[0]
    response, body = ask(port, page.url)
    assert (response.status, body, response.headers["Content-Type"]) == (
        200,
        page.body,
        "text/html",
    )
    response, _ = ask(port, "http://museum.example/objects/hat-01.jpg")
    assert response.headers["Location"] == "http://cdn.example/m/hat-01.jpg"
    response, _ = ask(port, "http://portfolio.example/art/hat-01.jpg")
    assert response.headers["X-Robots-Tag"] == "noai, noimageai"
    response, _ = ask(port, "http://blog.example/uploads/2020/hat-01.jpg")
    assert (response.status, response.headers["Retry-After"]) == (503, "1")
    assert ask(port, "http://unknown.example/")[0].status == 421
    assert ask(port, "http://fuku.example/%E5%86%99%E7%9C%9F/hat-01.jpg")[0].status == 200


def test_head_has_the_headers_and_no_body(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    url = "http://cdn.example/m/hat-02.jpg"
    for _ in range(2):
        response, body = ask(port, url, "HEAD", connection)
        assert body == b""
        assert int(response.headers["Content-Length"]) == len(pictures.original("hat-02"))


def test_bad_connections_are_bad(port: int) -> None:
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        ask(port, "http://cdn.example/r/hat-02.jpg")
    with pytest.raises(http.client.IncompleteRead):
        ask(port, "http://cdn.example/c/hat-02.jpg")
    with pytest.raises(http.client.IncompleteRead):
        ask(port, "http://cdn.example/e/hat-02.jpg")


def test_slow_answers_are_slow_and_bounded(port: int) -> None:
    for folder, least in (("slow", 0.6), ("drip", 1.1)):
        start = time.perf_counter()
        _, body = ask(port, f"http://slow.example/{folder}/skirt-02.jpg")
        assert body == pictures.original("skirt-02")
        assert least <= time.perf_counter() - start < 3.0


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nHost: cdn.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [broken\r\n\r\n",
        b"GET http://cdn.example/ HTTP/1.1\r\nHost: cdn.example\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_a_request_that_cannot_be_read_is_refused_and_the_server_lives(
    port: int, request_bytes: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        raw.sendall(request_bytes)
        assert raw.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert ask(port, "http://cdn.example/m/hat-02.jpg")[0].status == 200


def test_a_person_can_walk_through_the_web_in_a_browser(port: int) -> None:
    _, front = ask(port, f"http://127.0.0.1:{port}/")
    assert f"http://museum.example.localhost:{port}/".encode() in front
    _, room = ask(port, f"http://museum.example.localhost:{port}/rooms/1")
    assert b"http://museum.example/" not in room
    assert f"http://museum.example.localhost:{port}/static/logo.png".encode() in room
    response, _ = ask(port, f"http://museum.example.localhost:{port}/objects/hat-01.jpg")
    expected = f"http://cdn.example.localhost:{port}/m/hat-01.jpg"
    assert response.headers["Location"] == expected


def test_the_log_has_a_line_for_each_request(port: int, log: Path) -> None:
    before = time.monotonic()
    ask(port, "http://cdn.example/m/hat-05.jpg?logged=1")
    moment, host, path, status, agent = log.read_text("utf-8").splitlines()[-1].split("\t")
    assert before <= float(moment) <= time.monotonic()
    assert (host, path, status, agent) == ("cdn.example", "/m/hat-05.jpg?logged=1", "200", AGENT)


def test_hosts_are_mapped_to_the_port(port: int) -> None:
    assert server.resolve_map(port) == dict.fromkeys(routes.HOSTS, f"127.0.0.1:{port}")


def test_a_child_serves_and_ends_with_the_block() -> None:
    with server.child_server() as number:
        assert ask(number, "http://cdn.example/m/hat-02.jpg")[0].status == 200
    assert not is_listening(number)


def test_a_child_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pipeline.demo import server\n"
        "with server.child_server() as port:\n print(port, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        number = int(parent.stdout.readline())
        assert ask(number, "http://cdn.example/m/hat-02.jpg")[0].status == 200
        parent.send_signal(signal.SIGKILL)
    until = time.monotonic() + 5
    while is_listening(number) and time.monotonic() < until:
        time.sleep(0.1)
    assert not is_listening(number)


def test_a_child_ends_when_its_time_is_up(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline.demo.server", "--max-seconds", "0.3"]
    command += ["--port-file", str(tmp_path / "port")]
    subprocess.run(command, cwd=ROOT, check=True, timeout=20)
    assert not list(tmp_path.iterdir())
