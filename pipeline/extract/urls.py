"""Image addresses made absolute and normal, by the WHATWG URL Standard (as browsers do).

Nearly all addresses are written in normal form already, or are a normal path below the page's. Those
are recognised a whole Arrow batch at a time by a regular expression that holds only where the
standard's algorithm would change nothing; the rest go through Ada, its reference implementation.
Both give the same URLs (tests/pipeline/test_extract_urls.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ada_url
import pyarrow as pa
import pyarrow.compute as pc

LONGEST = 8190  # bytes; Apache's limit on a request line

# Lower-case scheme and host, no user, no port, no IPv4 address (the last label starts with a
# letter); a path and a query of characters that their percent-encode sets leave alone.
_SAFE = r"A-Za-z0-9_~!$&()*+,;=:@%|\[\]/.\-"
_NORMAL = (
    r"^https?://(?:[a-z0-9_-]+\.)+[a-z][a-z0-9-]*/"
    rf"[{_SAFE}']*"
    rf"(?:\?[{_SAFE}?{{}}`^]*)?$"
)
_UNSURE = r"/\.|%2[eE]|[/.]xn--"  # dot segments, also encoded; punycode is to be checked


@dataclass(frozen=True, slots=True)
class Base:
    """What a page's relative addresses are relative to, in normal form; empty where unknown."""

    href: str = ""
    scheme: str = ""  # https:
    origin: str = ""  # https://host:port
    folder: str = ""  # https://host:port/path/


def make_base(page_url: str, base_href: str | None = None) -> Base:
    """The base of a page at `page_url` with <base href=base_href>, as HTML's base element says."""
    href = _parse(page_url, None)
    if base_href is not None:
        href = _parse(base_href, href) or href
    if href is None or not href.startswith(("http://", "https://")):
        return Base(href or "")
    path = href.partition("?")[0]
    scheme, _, rest = path.partition("//")
    host = rest.partition("/")[0]
    return Base(href, scheme, f"{scheme}//{host}", path[: path.rindex("/") + 1])


def resolve(raw: str, base: Base) -> tuple[str | None, str]:
    """The normal URL of an address on a page, and the reason where there is none.

    Returns:
        (url, "extracted"), or (None, reason) with a reason of pipeline.tally.REASONS.
    """
    stripped = raw.strip(" \t\n\r\f\0")
    if not stripped or stripped.startswith("#"):
        return None, "no_url"
    if stripped[:5].lower() == "data:":
        return None, "data_url"
    url = _parse(raw, base.href or None)
    if url is None:
        return None, "bad_url"
    if not url.startswith(("http://", "https://")):
        return None, "not_http"
    if len(url) > LONGEST:
        return None, "url_too_long"
    return url, "extracted"


def normalise(raw: Sequence[str], bases: Sequence[Base]) -> tuple[pa.Array, dict[int, str]]:
    """Normal URLs of n addresses, each relative to its base.

    Returns:
        string [n] with a null where there is none, and the reasons of those rows.
    """
    guesses = [_guess(text, base) for text, base in zip(raw, bases, strict=True)]
    urls = pa.array(guesses, pa.string())
    normal = is_normal(urls).to_numpy(zero_copy_only=False)
    reasons: dict[int, str] = {}
    unsure = (~normal).nonzero()[0].tolist()
    for row in unsure:
        guesses[row], reason = resolve(raw[row], bases[row])
        if reason != "extracted":
            reasons[row] = reason
    return (pa.array(guesses, pa.string()) if unsure else urls), reasons


def is_normal(urls: pa.Array) -> pa.Array:
    """Returns bool [n]: whether the standard's algorithm surely leaves the string as it is."""
    normal = pc.and_not(
        pc.match_substring_regex(urls, _NORMAL), pc.match_substring_regex(urls, _UNSURE)
    )
    return pc.and_(normal, pc.less_equal(pc.binary_length(urls), LONGEST))


def _guess(raw: str, base: Base) -> str:
    """The absolute form of an address if it is a plain one; `is_normal` says whether it is."""
    if raw.startswith(("https://", "http://")):
        return raw
    if not base.origin:
        return ""
    if raw.startswith("/"):
        return (base.scheme if raw.startswith("//") else base.origin) + raw
    if not raw or raw[0] in "?#" or ":" in raw:
        return ""
    return base.folder + raw


def _parse(text: str, base: str | None) -> str | None:
    """The URL's normal form without its fragment; None where the standard says failure."""
    try:
        href = ada_url.join_url(base, text) if base else ada_url.URL(text).href
    except (ValueError, UnicodeEncodeError):
        return None
    return href.partition("#")[0]
