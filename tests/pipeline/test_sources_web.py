"""A crawl file is read whole over a network that fails, and never as a mixture of two files."""

import gzip
import http.server
import io
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import sources
from pipeline.sources import web
from pipeline.tally import Tally
from wit.errors import UserError

PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + b"<img src=i%d.jpg alt='a %d'>"
HEAD = (
    b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://x.org/\r\nContent-Length: %d\r\n"
)


def crawl_file():
    blocks = [PAGE % (n, n) + bytes(2000 * (n % 7)) for n in range(300)]
    return b"".join(gzip.compress(HEAD % len(b) + b"\r\n" + b + b"\r\n\r\n", 0) for b in blocks)


class Server:
    """Serves one file, badly: each answer as `behave(start, number)` says.

    It returns status, bytes to send, bytes promised, and more header fields.
    """

    def __init__(self, behave):
        self.asked = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                wished = self.headers.get("Range")
                start = int(wished[6:-1]) if wished else 0
                outer.asked.append(start)
                status, body, promised, fields = behave(start, len(outer.asked))
                self.send_response(status)
                self.send_header("Content-Length", str(promised))
                for name, value in fields.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self):
        return self, f"http://127.0.0.1:{self.server.server_port}/x.warc.gz"

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()


def part(data, start, end=None, tag='"1"'):
    """The bytes from `start` to `end`, promised to the end."""
    return 206 if start else 200, data[start:end], len(data) - start, {"ETag": tag}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(web, "LONGEST_PAUSE", 0.01)


def test_a_file_that_breaks_off_again_and_again_is_read_whole():
    data = crawl_file()

    def behave(start, number):
        if number % 3 == 0:
            return 503, b"", 0, {"Retry-After": "1"}
        return part(data, start, start + 100_000)

    with Server(behave) as (server, url):
        tally = Tally()
        done = []
        batches = list(sources.read(sources.Source(url, "warc"), tally, done.append))
    assert sum(len(batch) for batch in batches) == 300
    assert tally.fault_total == 0
    assert done[-1] == len(data)
    assert len(server.asked) > len(data) // 100_000


def test_a_server_without_ranges_is_read_whole():
    data = crawl_file()

    def behave(start, number):
        return 200, data[: 200_000 * number], len(data), {"ETag": '"1"'}

    with Server(behave) as (_, url), web.open_web(url) as file:
        assert file.read() == data


def test_a_file_that_changes_meanwhile_is_refused():
    data = crawl_file()
    server = Server(lambda start, n: part(data, start, 50_000 * n, f'"{n}"'))
    refused = pytest.raises(UserError, match="changed while")
    with server as (_, url), web.open_web(url) as file, refused:
        file.read()


@pytest.mark.parametrize(
    ("status", "said", "requests"),
    [(404, "HTTP 404", 1), (403, "HTTP 403", 1), (503, "attempts", 6), (429, "attempts", 6)],
)
def test_a_refusal_is_said_in_one_line(status, said, requests):
    refusing = Server(lambda start, number: (status, b"", 0, {}))
    refused = pytest.raises(UserError, match=said)
    with refusing as (server, url), web.open_web(url) as file, refused as error:
        file.read()
    assert str(error.value).startswith(url)
    assert "\n" not in str(error.value)
    assert len(server.asked) == requests


def test_a_host_that_is_not_there_is_said():
    told = []
    file = web.open_web("http://127.0.0.1:9/x", tell=told.append)
    with file, pytest.raises(UserError, match="attempts"):
        file.read()
    assert len(told) == 5
    assert all("refused" in line and "\n" not in line for line in told)
    assert "attempt 2 of 6" in told[0]


def test_places_of_a_file_are_read_in_any_order():
    table = pa.table({"url": [f"http://x.org/{n}" for n in range(9000)], "text": ["a"] * 9000})
    held = io.BytesIO()
    pq.write_table(table, held, row_group_size=1000)
    with Server(lambda start, number: part(held.getvalue(), start)) as (_, url):
        with web.open_web(url) as file:
            assert pq.ParquetFile(file).read().equals(table)
        with web.open_web(url) as file:
            assert file.seek(-4, io.SEEK_END) == len(held.getvalue()) - 4
            assert file.read() == b"PAR1"
            assert file.seek(0) == 0
            assert file.read(4) == b"PAR1"
            assert file.tell() == 4
