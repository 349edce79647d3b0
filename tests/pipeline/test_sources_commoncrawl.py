"""A crawl's name becomes the addresses of its files, whatever the server does meanwhile."""

import functools
import gzip
import http.server
import itertools
import random
import threading

import pytest

from pipeline.sources import commoncrawl, expand
from wit.errors import UserError

SEGMENT = "crawl-data/CC-MAIN-2024-22/segments/1715971057216.39/wat"
PATHS = [f"{SEGMENT}/CC-MAIN-20240517233122-20240518023122-{i:05}.warc.wat.gz" for i in range(2000)]
LISTED = gzip.compress("".join(f"{path}\n" for path in PATHS).encode())


class Server(http.server.ThreadingHTTPServer):
    """Answers each request with the next of its steps, the last one from then on.

    A step takes the handler and the first byte asked for.
    """

    daemon_threads = True

    def __init__(self, *steps):
        super().__init__(("127.0.0.1", 0), Handler)
        self.steps = list(steps)
        self.requests = []  # path, Range, If-Range

    def handle_error(self, request, client_address):
        """A client that hangs up is no error."""

    @property
    def place(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        wished = self.headers.get("Range")
        self.server.requests.append((self.path, wished, self.headers.get("If-Range")))
        step = self.server.steps.pop(0) if len(self.server.steps) > 1 else self.server.steps[0]
        step(self, int(wished.removeprefix("bytes=").removesuffix("-")) if wished else 0)

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", length=None, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = length is not None


def whole(handler, start, data=LISTED, tag='"1"', end=None):
    """The file from `start` on; cut before `end`, with a length that promises more."""
    headers = {"ETag": tag}
    if start:
        headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
    length = None if end is None else len(data) - start
    handler.answer(206 if start else 200, data[start:end], length, **headers)


def without_ranges(handler, start):
    handler.answer(200, LISTED, ETag='"1"')


def status(number, **headers):
    return lambda handler, start: handler.answer(number, b"<html>", **headers)


def cut(end):
    return functools.partial(whole, end=end)


def give(data):
    return functools.partial(whole, data=data)


@pytest.fixture
def serve():
    servers = []

    def start(*steps):
        server = Server(*steps)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def listed(server, name="cc:CC-MAIN-2024-22", files=None, seed=0):
    found = commoncrawl.list_crawl(name, files, server.place, seed, pause=0.001)
    return [path.removeprefix(f"{server.place}/") for path in found]


def says(server, name="cc:CC-MAIN-2024-22"):
    with pytest.raises(UserError) as caught:
        listed(server, name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("cc:CC-MAIN-2024-22", "/crawl-data/CC-MAIN-2024-22/wat.paths.gz"),
        ("cc:CC-MAIN-2024-22:wat", "/crawl-data/CC-MAIN-2024-22/wat.paths.gz"),
        ("cc:CC-MAIN-2024-22:warc", "/crawl-data/CC-MAIN-2024-22/warc.paths.gz"),
        ("cc:CC-NEWS/2024/05", "/crawl-data/CC-NEWS/2024/05/warc.paths.gz"),
        ("cc:CC-NEWS/2024/05:warc", "/crawl-data/CC-NEWS/2024/05/warc.paths.gz"),
    ],
)
def test_a_name_says_which_list_is_read(serve, name, path):
    server = serve(whole)
    assert listed(server, name) == PATHS
    assert server.requests == [(path, None, None)]


@pytest.mark.parametrize(
    "name",
    [
        "cc:",
        "cc:CC-MAIN-2024",
        "cc:CC-MAIN-2024-22:wet",
        "cc:CC-MAIN-2024-22:",
        "cc:CC-MAIN-2024-22/../../x",
        "cc:CC-MAIN-２０２４-22",
        "cc:CC-MAIN-2024-22\n",
        "cc:CC-NEWS",
        "cc:CC-NEWS/2024",
        "cc:CC-NEWS/2024/05:wat",
        "cc:CC-NEWS/2024/05/../../..",
        "cc:2024-22",
    ],
)
def test_other_names_are_refused_before_any_request(serve, name):
    server = serve(whole)
    with pytest.raises(UserError, match="write cc:CC-MAIN-YYYY-WW, "):
        listed(server, name)
    assert not server.requests


def test_files_are_below_the_place_they_are_read_from(monkeypatch):
    monkeypatch.setattr(commoncrawl, "open_web", lambda *_, **__: gzip.io.BytesIO(LISTED))
    for place, root in commoncrawl.PLACES.items():
        found = commoncrawl.list_crawl("cc:CC-MAIN-2024-22", None, place, 0)
        assert found == [root + path for path in PATHS]


def test_a_crawl_is_expanded_to_wat_files(serve):
    server = serve(whole)
    found = expand(["cc:CC-MAIN-2024-22", "cc:CC-MAIN-2024-22"], common_crawl=server.place)
    assert [source.path for source in found] == [f"{server.place}/{path}" for path in PATHS]
    assert {(source.kind, source.size) for source in found} == {("wat", None)}


# --- a sample ---------------------------------------------------------------------------------


def test_a_sample_does_not_depend_on_the_order_of_the_list(serve):
    samples = []
    for seed in range(3):
        shuffled = PATHS * 2
        random.Random(seed).shuffle(shuffled)
        server = serve(give(gzip.compress("\r\n".join(shuffled).encode())))
        samples.append(listed(server, files=5))
    assert samples[0] == samples[1] == samples[2] == sorted(samples[0])
    assert [PATHS.index(path) for path in samples[0]] == [253, 337, 1038, 1617, 1999]


def test_a_smaller_sample_is_part_of_a_larger_one(serve):
    server = serve(whole)
    sizes = [0, 1, 3, 5, 100, 2000, 5000]
    samples = [set(listed(server, files=n)) for n in sizes]
    assert [len(sample) for sample in samples] == [0, 1, 3, 5, 100, 2000, 2000]
    assert all(a <= b for a, b in itertools.pairwise(samples))


def test_another_seed_draws_others(serve):
    server = serve(whole)
    assert not set(listed(server, files=10)) & set(listed(server, files=10, seed=1))


# --- the network ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [500, 502, 503, 429, 408])
def test_a_status_that_passes_is_asked_again(serve, number):
    server = serve(status(number), status(number, Retry_After="0"), whole)
    assert listed(server) == PATHS
    assert len(server.requests) == 3


@pytest.mark.parametrize("number", [400, 401, 403, 404, 410])
def test_a_status_that_stays_is_said_at_once(serve, number):
    server = serve(status(number))
    said = says(server)
    assert f"/crawl-data/CC-MAIN-2024-22/wat.paths.gz: HTTP {number} " in said
    assert said.endswith("check the crawl's name: they are listed at https://index.commoncrawl.org")
    assert len(server.requests) == 1


def test_a_transfer_that_breaks_off_goes_on_where_it_ended(serve):
    server = serve(cut(1000), cut(3000), status(503), whole)
    assert listed(server) == PATHS
    ranges = [(wished, tag) for _, wished, tag in server.requests]
    assert ranges[0] == (None, None)
    assert ranges[-1] == ("bytes=3000-", '"1"')


def test_a_server_without_ranges_sends_it_again(serve):
    server = serve(cut(1000), without_ranges)
    assert listed(server) == PATHS


def test_a_list_that_changes_meanwhile_is_never_mixed(serve):
    other = gzip.compress("".join(f"{path}\n" for path in PATHS[:1500]).encode())
    server = serve(cut(1000), lambda handler, start: whole(handler, 0, other, '"2"'))
    assert says(server).endswith("changed while it was read; run the same command again")


def test_a_server_that_never_answers_well_is_given_up_on(serve):
    server = serve(status(503))
    assert "HTTP 503" in says(server)
    assert 3 <= len(server.requests) <= 10


def test_no_server_at_all_is_said_in_one_line(serve):
    server = serve(whole)
    server.shutdown()
    server.server_close()
    assert "not to be had" in says(server)


# --- what is no list --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../secret.warc.gz",
        "crawl-data/../../secret.warc.gz",
        "crawl-data/CC-MAIN-2024-22/./a.warc.gz",
        "crawl-data//a.warc.gz",
        "crawl-data/.ssh/a.warc.gz",
        "crawl-data/a b.warc.gz",
        "crawl-data/a\\b.warc.gz",
        "crawl-data/a.warc.gz?x=http://169.254.169.254/",
        "crawl-data/a.warc.gz\x00",
        "crawl-data/%2e%2e/a.warc.gz",
        "crawl-data@example.org/a.warc.gz",
        "https://example.org/a.warc.gz",
        "file:///etc/passwd",
        "x" * 10_000,
    ],
)
def test_a_path_that_leads_elsewhere_refuses_the_list(serve, path):
    server = serve(give(gzip.compress(f"{PATHS[0]}\n{path}\n{PATHS[1]}\n".encode())))
    assert ": not a path list (it holds " in says(server)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>Please log in</html>",
        gzip.compress(b""),
        gzip.compress(b"\n\n"),
        gzip.compress("crawl-data/ü.warc.gz".encode()),
        LISTED[:-9],
        LISTED[:100] + bytes(100) + LISTED[200:],
        LISTED + b"<html>",
    ],
)
def test_other_content_is_refused(serve, data):
    assert ": not a path list (" in says(serve(give(data)))


def test_a_list_of_several_gzip_members_is_read_to_its_end(serve):
    halves = ["".join(f"{path}\n" for path in part) for part in (PATHS[:700], PATHS[700:])]
    server = serve(give(b"".join(gzip.compress(half.encode()) for half in halves)))
    assert listed(server) == PATHS


def test_a_list_too_large_is_refused_packed_or_unpacked(serve, monkeypatch):
    monkeypatch.setattr(commoncrawl, "LARGEST", 10_000)
    assert says(serve(give(bytes(20_000)))).endswith("(more than 10,000 bytes)")
    assert says(serve(give(gzip.compress(b"a\n" * 20_000)))).endswith("(more than 10,000 bytes)")


def test_a_stream_without_an_end_is_left(serve, monkeypatch):
    monkeypatch.setattr(commoncrawl, "LARGEST", 10_000)

    def endless(handler, start):
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        try:
            while True:
                handler.wfile.write(bytes(2**16))
        except OSError:
            pass

    assert says(serve(endless)).endswith("(more than 10,000 bytes)")
