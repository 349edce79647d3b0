"""Downloads from a small server: what their tests share."""

import bz2
import json
import random
from pathlib import Path

from query_list import download
from tests.query_list.dump_server import DumpServer
from wit.console import Arguments

DAY = "20260901"
DUMP = f"enwiki-{DAY}-pages-articles-multistream.xml.bz2"
DAILY = "/other/pageview_complete/2026/2026-08/pageviews-202608{:02d}-user.bz2"
HOURLY = "/other/pageviews/2026/2026-08/pageviews-20260831-{:02d}0000.gz"
ONE_DAY = ("--from", "2026-08-31", "--to", "2026-08-31")
LAST_DAY = DAILY.format(31)


def noise(count: int, seed: int) -> bytes:
    """Bytes that bzip2 cannot shorten by more than half."""
    return random.Random(seed).randbytes(count).hex().encode()


def make_dump(seed: int = 0) -> bytes:
    return bz2.compress(b"<mediawiki>" + noise(300_000, seed) + b"</mediawiki>\n")


def make_views(seed: int = 0, lines: int = 4_000) -> bytes:
    make = random.Random(seed)
    text = "".join(
        f"en.wikipedia {make.randbytes(24).hex()} {number} desktop {make.randrange(99)} A1\n"
        for number in range(lines)
    )
    return text.encode()


def arguments(server_url: str, out: Path, *others: str) -> list[str]:
    return ["--mirror", server_url, "--contact", "me@example.org", "--out", str(out), *others]


def run(server: DumpServer | str, out: Path, *others: str) -> int:
    parser = Arguments()
    download.add_arguments(parser)
    url = server if isinstance(server, str) else server.url
    return download.run(parser.parse_args(arguments(url, out, *others)))


def inputs(out: Path) -> dict:
    return json.loads((out / "inputs.json").read_text())


def files_in(out: Path) -> list[str]:
    """Everything below a folder but the lock and inputs.json."""
    names = [str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()]
    return sorted(set(names) - {".lock", "inputs.json"})


SAME = bz2.compress(make_views())


def add_all(server: DumpServer) -> None:
    """Adds a dump, and a day of page views."""
    server.add_dump("enwiki", DAY, {DUMP: make_dump()})
    server.files[LAST_DAY] = SAME
