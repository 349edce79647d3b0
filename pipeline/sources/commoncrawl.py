"""Common Crawl's own path lists: `cc:CC-MAIN-2024-22` to the addresses of its files."""

from __future__ import annotations

import gzip
import io
import re
import zlib

import xxhash

from pipeline.sources.web import FIRST_PAUSE, Tell, open_web
from wit.errors import UserError

PLACES = {"https": "https://data.commoncrawl.org/", "s3": "s3://commoncrawl/"}
LIST = "crawl-data/{crawl}/{kind}.paths.gz"
CRAWL = re.compile(r"cc:(CC-MAIN-[0-9]{4}-[0-9]{2})(?::(wat|warc))?")
NEWS = re.compile(r"cc:(CC-NEWS/[0-9]{4}/[0-9]{2})(?::(warc))?")  # without WAT files
PATH = re.compile(r"crawl-data(?:/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)+")
LARGEST = 256 * 2**20  # bytes of a path list, packed and unpacked


def list_crawl(
    name: str,
    files: int | None,
    place: str,
    seed: int,
    pause: float = FIRST_PAUSE,
    tell: Tell = lambda line: None,
) -> list[str]:
    """Returns the addresses of a crawl's WAT or WARC files, sorted.

    Args:
        name: `cc:CC-MAIN-YYYY-WW[:wat|:warc]`, WAT unless said; or `cc:CC-NEWS/YYYY/MM`, WARC.
        files: how many, chosen by a hash of seed and path; None for all.
        place: `https`, `s3`, or the address of a mirror with the same paths. The list itself comes
            over https in the first two cases.
        seed: of that choice.
        pause: seconds before the second attempt of a transfer.
        tell: is told, in a line, what is fetched, and why there will be another attempt.

    Raises:
        UserError: for a name that is none, a crawl that does not exist, or no network.
    """
    found = CRAWL.fullmatch(name) or NEWS.fullmatch(name)
    if found is None:
        raise UserError(
            f"{name}: write cc:CC-MAIN-YYYY-WW, cc:CC-MAIN-YYYY-WW:warc for the pages, or "
            "cc:CC-NEWS/YYYY/MM"
        )
    kind = found[2] or ("wat" if found.re is CRAWL else "warc")
    root = root_of(place)
    listed_at = PLACES["https"] if place in PLACES else root
    url = listed_at + LIST.format(crawl=found[1], kind=kind)
    advice = "check the crawl's name: they are listed at https://index.commoncrawl.org"
    tell(f"fetching the path list {url}")
    with open_web(url, pause, advice, tell) as file:
        data = file.read(LARGEST + 1)
    paths = unpack(url, data)
    if files is not None:
        paths.sort(key=lambda path: (xxhash.xxh64_intdigest(path.encode(), seed), path))
        paths = paths[:files]
    return sorted(root + path for path in paths)


def root_of(place: str) -> str:
    """Returns what the paths in Common Crawl's lists are below, with a slash at its end."""
    return PLACES.get(place, place.rstrip("/") + "/")


def unpack(url: str, data: bytes) -> list[str]:
    """Returns the paths of a list, sorted, each once.

    Raises:
        UserError: if it is none.
    """
    try:
        fits = len(data) <= LARGEST
        text = gzip.GzipFile(fileobj=io.BytesIO(data)).read(LARGEST + 1) if fits else data
        if len(text) > LARGEST:
            raise UserError(f"{url}: not a path list (more than {LARGEST:,} bytes)")
        lines = text.decode("ascii").splitlines()
    except (OSError, zlib.error, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{url}: not a path list ({error}); try again later") from error
    paths = sorted({line for line in lines if line})
    strange = next((path for path in paths if not PATH.fullmatch(path)), None)
    if strange is not None or not paths:
        said = f"it holds {strange[:200]!r}" if strange is not None else "it is empty"
        raise UserError(f"{url}: not a path list ({said})")
    return paths
