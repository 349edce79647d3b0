"""The demo's web harvested from a test: the command line, and what it must leave."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.demo import server, site

CAP = 12
WORDS = 20_000


def all_pairs() -> list[tuple[str, str, str]]:
    """(URL, text, attribute) of every picture on the demo's pages."""
    return [pair for page in site.pages() for pair in page.pairs]


def all_urls() -> list[str]:
    """The pictures' URLs, each once."""
    return sorted({url for url, _, _ in all_pairs()})


@pytest.fixture(scope="session")
def demo_port() -> Iterator[int]:
    """The demo's web on a port of 127.0.0.1."""
    with server.child_server(max_seconds=3600) as port:
        yield port


@pytest.fixture(scope="session")
def demo_inputs(tmp_path_factory) -> list[str]:
    """Its pages as WARC files, and a table."""
    folder = str(tmp_path_factory.mktemp("web"))
    return [*site.write_warcs(folder), site.write_table(folder)]


@pytest.fixture(scope="session")
def demo_queries(tmp_path_factory) -> str:
    """A query list: the most frequent English words, and some phrases."""
    import wordfreq

    path = tmp_path_factory.mktemp("queries") / "queries.txt"
    phrases = ["long sleeve", "t shirt", "in the", "on a", "white shirt"]
    path.write_text("\n".join(wordfreq.top_n_list("en", WORDS) + phrases))
    return str(path)


@pytest.fixture(scope="session")
def finished(demo_port, demo_inputs, demo_queries, tmp_path_factory) -> Path:
    """The output folder of a finished harvest, to look at and to copy: tests share it."""
    out = tmp_path_factory.mktemp("finished") / "mine"
    done = run(arguments(demo_inputs, demo_queries, demo_port, out))
    assert done.returncode == 0, done.stderr
    return out


def arguments(inputs: list[str], queries: str, port: int, out: Path, *more: str) -> list[str]:
    """The command of one harvest."""
    hosts = [f"--resolve={host}:{where}" for host, where in server.resolve_map(port).items()]
    return [
        *(sys.executable, "-m", "wit.cli", "harvest", *inputs, "--queries", queries),
        *("--out", str(out), "--per-query", str(CAP), "--shard-size", "60", "--lanes", "4"),
        *("--contact", "test@example.org", "--host-rate", "0", "--host-concurrency", "8"),
        *("--timeout", "6", "--retries", "0", "--waves", "3", "--max-picture-bytes", "5000000"),
        f"--allow-address=127.0.0.1:{port}",
        *hosts,
        *more,
    ]


def run(command: list[str]) -> subprocess.CompletedProcess:
    """Runs a command to its end."""
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of what must be the same after every run: tars, parquets, manifest, coverage."""
    files = [*out.glob("shards/*.tar"), *out.glob("shards/*.parquet")]
    files += [out / "manifest.json", out / "coverage.parquet", out / "hosts.parquet"]
    return {str(f.relative_to(out)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def manifest(out: Path) -> dict:
    """The manifest of a run."""
    return json.loads((out / "manifest.json").read_text())
