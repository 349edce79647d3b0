"""Small webs to crawl from a test, with all that a crawler should mind, and what a crawl left."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from warcio.archiveiterator import ArchiveIterator
from warcio.checker import Checker

from pipeline.crawl import command
from tests.faulty import FaultyServer, answer

HTML = "text/html; charset=utf-8"
Pages = Callable[[str, str], bytes | float | None]


def page(*links: str, title: str = "page", head: str = "", **headers: str) -> bytes:
    """The answer that is a page with links; `nofollow:URL` gives one with rel=nofollow."""
    anchors = "".join(
        f'<a rel=nofollow href="{link[9:]}">x</a>'
        if link.startswith("nofollow:")
        else f'<a href="{link}">x</a>'
        for link in links
    )
    text = f"<!doctype html><html><head><title>{title}</title>{head}</head>{anchors}</html>"
    return answer(text.encode(), HTML, **headers)


def moved(location: str, status: str = "302 Found") -> bytes:
    """The answer that leads elsewhere."""
    return answer(b"moved", "text/plain", status, Location=location)


class Web(FaultyServer):
    """Serves what `pages(host, path)` says: bytes, seconds to hang, or None for a 404."""

    def __init__(self, pages: Pages) -> None:
        super().__init__()
        self.pages = pages

    async def _answer(self, path: str, host: str, writer: asyncio.StreamWriter) -> None:
        reply = self.pages(host, path)
        if isinstance(reply, float):
            await asyncio.sleep(reply)
            reply = page()
        writer.write(answer(b"no", "text/plain", "404 Not Found") if reply is None else reply)

    def asked(self, host: str) -> list[str]:
        """The pages asked of a host, without what a crawler asks first."""
        first = ("/robots.txt", "/sitemap.xml", "/.well-known/tdmrep.json")
        return [path for path in self.paths(host) if path not in first]


def web(pages: dict[str, Any]) -> Web:
    """A web of one host, or of `host/path` keys; values are answers."""

    def find(host: str, path: str) -> bytes | float | None:
        return pages.get(path, pages.get(f"{host}{path}"))

    return Web(find)


def arguments(server: Web, out: Path, seeds: str, *more: str) -> list[str]:
    """The command line of a crawl of the hosts a.test to d.test and below."""
    hosts = ["a.test", "b.test", "c.test", "d.test", "www.a.test", "x.b.test"]
    return [
        *seeds.split(),
        *("--out", str(out), "--contact", "test@example.org", "--host-rate", "0"),
        *("--timeout", "3", "--retries", "0", f"--allow-address={server.address}"),
        *(f"--resolve={host}:{server.address}" for host in hosts),
        *more,
    ]


def crawl(server: Web, out: Path, seeds: str, *more: str) -> dict[str, Any]:
    """Runs a crawl; what its crawl.json says."""
    return command.run(command.parser().parse_args(arguments(server, out, seeds, *more)))


def rows(out: Path) -> list[dict[str, Any]]:
    """The rows of pages.parquet."""
    return pq.read_table(out / "pages.parquet").to_pylist()


def outcomes(out: Path) -> dict[str, str]:
    """The outcome of each URL."""
    found = {row["url"]: row["outcome"] for row in rows(out)}
    assert len(found) == len(rows(out))
    return found


def files(out: Path) -> list[Path]:
    """The WARC files of a crawl, in order."""
    return sorted((out / "warc").glob("*.warc.gz"))


def records(out: Path) -> list[tuple[str, ...]]:
    """(type, URL, id, payload digest) of each record, in order."""
    names = ("WARC-Type", "WARC-Target-URI", "WARC-Record-ID", "WARC-Payload-Digest")
    found = []
    for path in files(out):
        with path.open("rb") as file:
            for record in ArchiveIterator(file):
                found.append(tuple(record.rec_headers.get_header(name) or "" for name in names))
    return found


def keep_apart(times: list[float], interval: float) -> bool:
    """Whether any n requests took n - 1 intervals, but for what a busy machine adds to one."""
    return all(b - a > n * interval - 0.1 for (n, a, b) in _spans(times))


def _spans(times: list[float]) -> Iterator[tuple[int, float, float]]:
    for first, last in itertools.combinations(range(len(times)), 2):
        yield last - first, times[first], times[last]


def is_sound(out: Path) -> bool:
    """Whether warcio's check of the WARC files finds nothing wrong."""
    command_line = type("Inputs", (), {"inputs": [str(p) for p in files(out)], "verbose": False})
    return Checker(command_line).process_all() == 0
