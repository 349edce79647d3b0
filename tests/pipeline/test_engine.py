"""`--engine img2dataset`: plan, rows, columns and shards are ours, the fetching is not."""

import csv
import io
import itertools
import json
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import engine
from pipeline.arguments import parse
from pipeline.demo import pictures
from tests.pipeline.demo_run import run
from tests.pipeline.img2dataset import img2dataset
from wit import shards
from wit.errors import UserError
from wit.pairs import SAMPLES

__all__ = ["img2dataset"]

PHOTOS = list(itertools.islice(pictures.pictures(), 24))
ROBOTS = b"User-agent: *\nDisallow: /private/\n"
TROUBLE = {  # path: what our engine calls it, what img2dataset's answer is called
    "/gone.jpg": ("not_found", "not_found"),
    "/silent.jpg": ("first_byte_timeout", "read_timeout"),
    "/page.jpg": ("unsupported_format", "undecodable"),
    "/cut.jpg": ("undecodable", "undecodable"),
    "/noai.jpg": ("opted_out", "opted_out"),
    "/private/a.jpg": ("robots_disallowed", "robots_disallowed"),
    "/tdm.jpg": ("opted_out", "success"),
}


class Web(BaseHTTPRequestHandler):
    """Photographs under their names, and some trouble."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        name = self.path.rpartition("/")[2].removesuffix(".jpg")
        headers, body = {}, b""
        if self.path == "/robots.txt":
            body = ROBOTS
        elif self.path == "/silent.jpg":
            time.sleep(6)
        elif self.path == "/page.jpg":
            body = b"<!DOCTYPE html><html><p>Please log in</p></html>"
        elif name in PHOTOS:
            body = pictures.original(name)
        elif self.path in TROUBLE and self.path != "/gone.jpg":
            body = pictures.original(PHOTOS[0])
            headers = {"/noai.jpg": {"X-Robots-Tag": "noai"}, "/tdm.jpg": {"TDM-Reservation": "1"}}
            headers = headers.get(self.path, {})
            body = body[: len(body) // 2] if self.path == "/cut.jpg" else body
        self.send_response(200 if body else 404)
        for header, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def web() -> Iterator[ThreadingHTTPServer]:
    """The server, on a port of 127.0.0.1."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def harvests(tmp_path_factory, img2dataset, web) -> dict[str, tuple[Path, list[str], str]]:
    """By engine: the output folder, the paths that were asked for, what was printed."""
    folder, found = tmp_path_factory.mktemp("engines"), {}
    address = f"127.0.0.1:{web.server_port}"
    with open(folder / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["url", "caption"])
        for path in [*(f"/{name}.jpg" for name in PHOTOS), *TROUBLE]:
            writer.writerow([f"http://{address}{path}", f"a shirt {path.strip('/.jpg')}"])
    (folder / "queries.txt").write_text("shirt\n")
    for name in engine.ENGINES:
        out, before = folder / name, len(web.asked)
        command = [
            *(sys.executable, "-m", "wit.cli", "harvest", str(folder / "pairs.csv")),
            *("--queries", str(folder / "queries.txt"), "--out", str(out)),
            *("--contact", "test@example.org", "--host-rate", "0", "--waves", "1", "--lanes", "1"),
            *("--read-timeout", "2", "--retries", "0", "--image-size", "200", "--workers", "1"),
            *("--allow-address", address, "--engine", name, "--img2dataset", img2dataset),
        ]
        done = run(command)
        assert done.returncode == 0, done.stderr
        found[name] = out, web.asked[before:], done.stderr
    return found


def table(out: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(out.glob("shards/*.parquet")))


def test_both_engines_leave_the_same_rows_in_the_same_columns(harvests):
    ours, theirs = (table(harvests[name][0]) for name in engine.ENGINES)
    assert ours.schema == theirs.schema == SAMPLES
    planned = ["url", "caption", "key", "pair_id", "query_ids", "priority", "wave", "source", "row"]
    assert ours.select(planned) == theirs.select(planned)
    assert len(ours) == len(PHOTOS) + len(TROUBLE)


def test_the_same_pictures_succeed_but_for_what_img2dataset_does_not_know(harvests):
    for place, name in enumerate(engine.ENGINES):
        rows = table(harvests[name][0]).to_pylist()
        found = {"/" + row["url"].split("/", 3)[3]: row["outcome"] for row in rows}
        assert {path: found.pop(path) for path in TROUBLE} == {
            path: outcomes[place] for path, outcomes in TROUBLE.items()
        }
        assert set(found.values()) == {"success"}


def test_the_pictures_of_both_have_the_same_sizes_and_can_be_read(harvests):
    sizes = ["url", "width", "height", "original_width", "original_height", "image_ext"]
    ours, theirs = (
        {row["url"]: row for row in table(harvests[name][0]).to_pylist() if row["width"]}
        for name in engine.ENGINES
    )
    assert all(theirs[url][name] == ours[url][name] for url in ours for name in sizes)
    out = harvests["img2dataset"][0]
    assert list(shards.verify(str(out / "shards"))) == []
    with tarfile.open(out / "shards" / "00000.tar") as tar:
        for member in tar:
            if member.name.endswith(".jpg"):
                with Image.open(io.BytesIO(tar.extractfile(member).read())) as picture:
                    picture.load()
                    assert min(picture.size) == 200


def test_what_robots_forbids_is_not_asked_for_by_either(harvests):
    for _, asked, _ in harvests.values():
        assert "/gone.jpg" in asked
        assert not [path for path in asked if path.startswith("/private/")]


def test_the_run_says_who_fetches_and_leaves_nothing_else_behind(harvests):
    ours, theirs = (harvests[name] for name in engine.ENGINES)
    assert engine.NOT_KEPT in " ".join(theirs[2].split())
    assert engine.NOT_KEPT not in " ".join(ours[2].split())
    assert {path.name for path in ours[0].iterdir()} == {path.name for path in theirs[0].iterdir()}
    assert json.loads((theirs[0] / "run.json").read_text())["fetch"]["engine"] == "img2dataset"


def test_what_a_killed_run_left_in_its_folder_goes_when_the_next_begins(tmp_path):
    left = tmp_path / f"{engine.SCRATCH}x" / "out"
    left.mkdir(parents=True)
    (left / "00000.tar").write_bytes(b"half")
    (tmp_path / "run.json").write_text("{}")
    engine.sweep(str(tmp_path))
    engine.sweep("memory://a/run")
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


# --- before anything starts -------------------------------------------------------------------

COMMAND = ["in.csv", "--queries", "q.txt", "--out", "o", "--contact", "a@b.example"]
THEIRS = [*COMMAND, "--engine", "img2dataset"]


@pytest.mark.parametrize(
    "option",
    [
        ("--host-rate", "5"),
        ("--host-concurrency", "2"),
        ("--timeout", "60"),
        ("--max-picture-bytes", "20000000"),
        ("--max-bytes", "1GB"),
        ("--resolve", "a.example:127.0.0.1"),
    ],
)
def test_an_option_that_img2dataset_cannot_keep_is_refused_by_name(option):
    parse([*COMMAND, *option])
    with pytest.raises(UserError, match=f"{option[0]}: img2dataset cannot keep it"):
        parse([*THEIRS, *option])


def test_defaults_and_an_unlimited_rate_are_no_lie():
    options, _ = parse([*THEIRS, "--host-rate", "0"])
    assert (options.engine, options.host_rate) == ("img2dataset", 0)


def test_another_engine_does_not_resume_a_run():
    from pipeline.options import fetch_settings
    from pipeline.run import Config, first_difference

    made = [Config([], {}, fetch=fetch_settings(parse(argv)[0])) for argv in (COMMAND, THEIRS)]
    assert first_difference(*made) == "--engine 'wit', now 'img2dataset'"


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("echo 1.44.1", "version 1.44.1, 1.45 is the oldest"),
        ("echo \"ModuleNotFoundError: No module named 'imghdr'\" >&2; exit 1", "imghdr"),
    ],
)
def test_an_img2dataset_that_is_of_no_use_is_named_before_the_run(tmp_path, python, said):
    for name, text in (("python", python), ("img2dataset", "exit 3")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    options, _ = parse([*THEIRS, "--img2dataset", str(tmp_path / "img2dataset")])
    with pytest.raises(UserError, match=said):
        engine.prepare(options, print)


def test_a_missing_img2dataset_is_an_error_that_says_how_to_install_it(tmp_path):
    options, _ = parse([*THEIRS, "--img2dataset", str(tmp_path / "none")])
    with pytest.raises(UserError, match="pip install img2dataset"):
        engine.prepare(options, print)
