"""Common Crawl's own path lists: `cc:CC-MAIN-2024-22` to the addresses of its files."""

from __future__ import annotations

import gzip
import re
import time
import zlib

import requests
import xxhash

from wit import __version__
from wit.errors import UserError

PLACES = {"https": "https://data.commoncrawl.org/", "s3": "s3://commoncrawl/"}
LISTS = "https://data.commoncrawl.org/crawl-data/{crawl}/{kind}.paths.gz"
CRAWL = re.compile(
    r"cc:(CC-MAIN-\d{4}-\d{2}|CC-MAIN-\d{4}(?:-[A-Za-z0-9]+)*|CC-NEWS[\w/-]*)(?::(wat|warc))?"
)
ATTEMPTS = 6
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds; doubled from attempt to attempt
TIMEOUT = (10, 60)  # seconds to connect, and of silence
LARGEST = 256 * 2**20  # bytes of a path list
AGENT = f"WebImageText/{__version__} (path lists)"


def list_crawl(name: str, files: int | None, place: str, seed: int) -> list[str]:
    """Returns the addresses of a crawl's WAT or WARC files, sorted.

    Args:
        name: `cc:CRAWL-ID[:wat|:warc]`; WAT unless said.
        files: how many, chosen by a hash of seed and path; None for all.
        place: `https` or `s3`.
        seed: of that choice.

    Raises:
        UserError: for a name that is none, a crawl that does not exist, or no network.
    """
    found = CRAWL.fullmatch(name)
    if found is None:
        raise UserError(
            f"{name}: write cc:CC-MAIN-YYYY-WW, or cc:CC-MAIN-YYYY-WW:warc for the pages"
        )
    url = LISTS.format(crawl=found[1], kind=found[2] or "wat")
    paths = unpack(url, download(url))
    if files is not None:
        paths.sort(key=lambda path: xxhash.xxh64_intdigest(path.encode(), seed))
        paths = paths[:files]
    return sorted(PLACES[place] + path for path in paths)


def unpack(url: str, data: bytes) -> list[str]:
    """Returns the lines of a path list."""
    try:
        text = gzip.decompress(data).decode("ascii")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{url}: not a path list ({error}); try again later") from error
    paths = [line for line in text.splitlines() if line]
    strange = next((p for p in paths if ".." in p or p.startswith("/") or "://" in p), None)
    if strange is not None or not paths:
        raise UserError(f"{url}: not a path list ({strange or 'it is empty'})")
    return paths


def download(url: str, pause: float = FIRST_PAUSE) -> bytes:
    """Returns a file's bytes; a broken transfer is gone on with where it ended.

    Raises:
        UserError: for an answer that will stay (404, 403), or after ATTEMPTS that failed.
    """
    data, tag, said = b"", None, ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(min(pause * 2 ** (attempt - 1), LONGEST_PAUSE))
        headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
        if data:
            headers |= {"Range": f"bytes={len(data)}-", **({"If-Range": tag} if tag else {})}
        try:
            with requests.get(url, headers=headers, timeout=TIMEOUT, stream=True) as answer:
                if answer.status_code == 416 and data:
                    data = b""
                    continue
                if 400 <= answer.status_code < 500 and answer.status_code not in (408, 429):
                    raise UserError(
                        f"{url}: HTTP {answer.status_code}; check the crawl's name, they are listed "
                        "at https://index.commoncrawl.org"
                    )
                answer.raise_for_status()
                if answer.status_code != 206:
                    data = b""
                tag = answer.headers.get("ETag")
                expected = int(answer.headers.get("Content-Length", -1))
                before = len(data)
                for piece in answer.iter_content(2**16):
                    data += piece
                    if len(data) > LARGEST:
                        raise UserError(f"{url}: larger than {LARGEST:,} bytes; not a path list")
                if expected >= 0 and len(data) - before < expected:
                    said = "the transfer broke off"
                    continue
                return data
        except (requests.RequestException, ValueError) as error:
            said = type(error).__name__
    raise UserError(
        f"{url}: not to be had after {ATTEMPTS} attempts ({said}); check the network, or bring the "
        "list by hand and name it: @FILE"
    )
