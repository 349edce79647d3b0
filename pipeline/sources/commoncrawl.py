"""Common Crawl's own path lists: `cc:CC-MAIN-2024-22` to the addresses of its files."""

from __future__ import annotations

import re
import zlib

import xxhash

from pipeline.sources.web import FIRST_PAUSE, open_web
from wit.errors import UserError

PLACES = {"https": "https://data.commoncrawl.org/", "s3": "s3://commoncrawl/"}
LIST = "crawl-data/{crawl}/{kind}.paths.gz"
CRAWL = re.compile(r"cc:(CC-(?:MAIN|NEWS)[A-Za-z0-9/-]*)(?::(wat|warc))?")
LARGEST = 256 * 2**20  # bytes of a path list, packed and unpacked


def list_crawl(
    name: str, files: int | None, place: str, seed: int, pause: float = FIRST_PAUSE
) -> list[str]:
    """Returns the addresses of a crawl's WAT or WARC files, sorted.

    Args:
        name: `cc:CRAWL-ID[:wat|:warc]`; WAT unless said.
        files: how many, chosen by a hash of seed and path; None for all.
        place: `https`, `s3`, or the address of a mirror with the same paths. The list itself comes
            over https in the first two cases.
        seed: of that choice.
        pause: seconds before the second attempt of a transfer.

    Raises:
        UserError: for a name that is none, a crawl that does not exist, or no network.
    """
    found = CRAWL.fullmatch(name)
    if found is None:
        raise UserError(
            f"{name}: write cc:CC-MAIN-YYYY-WW, or cc:CC-MAIN-YYYY-WW:warc for the pages"
        )
    root = PLACES.get(place, place.rstrip("/") + "/")
    listed_at = PLACES["https"] if place in PLACES else root
    url = listed_at + LIST.format(crawl=found[1].rstrip("/"), kind=found[2] or "wat")
    advice = "check the crawl's name: they are listed at https://index.commoncrawl.org"
    with open_web(url, pause, advice) as file:
        data = file.read(LARGEST + 1)
    paths = unpack(url, data)
    if files is not None:
        paths.sort(key=lambda path: (xxhash.xxh64_intdigest(path.encode(), seed), path))
        paths = paths[:files]
    return sorted(root + path for path in paths)


def unpack(url: str, data: bytes) -> list[str]:
    """Returns the lines of a path list.

    Raises:
        UserError: if it is none.
    """
    try:
        unpacker = zlib.decompressobj(31)
        text = unpacker.decompress(data, LARGEST).decode("ascii")
        if not unpacker.eof:
            raise EOFError("it breaks off, or is too long")
    except (zlib.error, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{url}: not a path list ({error}); try again later") from error
    paths = [line for line in text.splitlines() if line]
    strange = next((p for p in paths if ".." in p or p.startswith("/") or "://" in p), None)
    if strange is not None or not paths:
        raise UserError(f"{url}: not a path list ({strange or 'it is empty'})")
    return paths
