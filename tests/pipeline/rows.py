"""A harvest in this process, of rows instead of files, without the web; the stages are real."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import candidates, fetching, queries, stages
from pipeline.run import Config, Run, open_run
from pipeline.summary import summarise
from wit import storage
from wit.pairs import LINKS

AGENT = {"user_agent": "T/1 (a@b.example)", "host_rate": 1.0}
HOUR = 1 / 3600  # of a wave, so that its budget is a host's rate


@dataclass
class Picture:
    """What a fetcher brings."""

    index: int
    outcome: str
    image: bytes | None
    message: str | None = None
    extension: str = "jpg"
    width: int = 1
    height: int = 1
    original_width: int = 1
    original_height: int = 1
    content_type: str = "image/jpeg"
    exif: str | None = None
    sha256: str | None = None
    phash: int | None = None
    animated: bool | None = None
    final_url: str | None = None
    bytes_read: int = 1000
    elapsed_ms: int = 1


class Web:
    """A fetcher: two of three pictures are there, as the URL says, in any order."""

    asked: list[list[str]] = []  # URLs of each shard
    gone = False

    def has(self, url: str) -> bool:
        return hashlib.sha256(url.encode()).digest()[0] % 3 > 0

    def run(self, urls, hosts, look):
        self.asked.append(list(urls))
        for index in random.Random(len(urls)).sample(range(len(urls)), len(urls)):
            there = self.has(urls[index]) and not self.gone
            image = urls[index].encode() if there else None
            yield Picture(index, "success" if there else "not_found", image)

    def slowest(self, hosts):
        return []


def robots(_, hosts: list[str], **part: int) -> pa.Table:
    kinds = ["disallow_all" if "closed" in host else "allow_all" for host in hosts]
    nothing = pa.nulls(len(hosts), pa.string())
    return pa.table(
        {
            "host": hosts,
            "robots": kinds,
            "rules": nothing,
            "crawl_delay": nothing.cast("double"),
            "tdm": nothing,
        }
    )


def harvester(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Run, dict]]:
    """Runs all stages over lists of (url, text), a list a source; the run and its funnel."""

    def go(
        rows: list[list[tuple[str, str]]], words: str = "red dress", out: str = "out", **changes
    ):
        def read(source, tally, progress):
            for start in range(0, len(rows[source.number]), 7):
                part = rows[source.number][start : start + 7]
                tally.see("images", len(part))
                tally.add("extracted", len(part))
                columns = [*zip(*part, strict=True), [None] * len(part), ["alt"] * len(part)]
                columns = [*columns, range(start, start + len(part))]
                arrays = [pa.array(c, f.type) for c, f in zip(columns, LINKS, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, schema=LINKS)

        def from_json(saved):
            return SimpleNamespace(size=None, **saved)

        source = SimpleNamespace(from_json=from_json)
        fake = SimpleNamespace(Source=source, read=read)
        monkeypatch.setattr(candidates, "sources", fake)
        monkeypatch.setattr(fetching, "robots_table", robots)
        monkeypatch.setattr(fetching, "shared_fetcher", lambda out, reach: Web())
        path = tmp_path / "queries.txt"
        path.write_text("\n".join(words.split()))
        table = queries.read_list(str(path), changes.get("match", "default")).table
        config = Config(
            sources=[{"path": f"rows-{n}", "number": n} for n in range(len(rows))],
            queries=queries.fingerprint(table),
            **({"fetch": AGENT, "lanes": 3, "shard_size": 4} | changes),
        )
        run = open_run(str(tmp_path / out), config)
        queries.install(run, table)
        return run, go_on(run)

    return go


def go_on(run: Run) -> dict[str, int]:
    """Does what is not finished of a harvest; the funnel."""
    for _, wave, stage in stages.in_order(run, fetching.waves_to_repair(run)):
        for task in stages._unfinished(run, wave, stage, list(stage.tasks(run, wave))):
            stage.work(run, wave, task, lambda *_: None, stages.Reach("s"))
    return summarise(run)


def make_rows(hosts: list[str], count: int, text: str = "red dress") -> list[tuple[str, str]]:
    return [(f"http://{hosts[i % len(hosts)]}/{i}.jpg", text) for i in range(count)]


def digests(run: Run) -> dict[str, str]:
    """What must not depend on how the work is cut."""
    names = [f"shards/{name}" for name in storage.list_names(run.path("shards"))]
    names = [name for name in names if name.endswith((".tar", ".parquet"))]
    names += ["manifest.json", "coverage.parquet", "hosts.parquet"]
    return {n: hashlib.sha256(storage.read_bytes(run.path(n))).hexdigest() for n in names}


def shard_rows(run: Run) -> list[dict]:
    paths = sorted(n for n in storage.list_names(run.path("shards")) if n.endswith(".parquet"))
    return [row for n in paths for row in pq.read_table(run.path("shards", n)).to_pylist()]
