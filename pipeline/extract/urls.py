"""Image addresses made absolute and normal, by the WHATWG URL Standard (as browsers do).

Nearly all addresses are written in normal form already, or are a normal path below the page's.
Those are recognised a whole Arrow batch at a time, by a test that holds only where the standard's
algorithm would change nothing; the rest go through Ada, its reference implementation.
Both give the same URLs (tests/pipeline/test_extract_urls.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ada_url
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit, types

from pipeline.extract.strings import buffers_of, replace_at
from wit.kernel_types import I64, U8, writable

LONGEST = 8190  # bytes; Apache's limit on a request line

# Bytes that stay as they are: 1 in a host, 2 in a path, 4 in a query (their percent-encode sets).
_STAYS = np.zeros(256, np.uint8)
_STAYS[list(b"abcdefghijklmnopqrstuvwxyz0123456789_-.")] |= 1
_STAYS[
    list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_~!$&()*+,;=:@%|[]-./")
] |= 6
_STAYS[list(b"'")] |= 2
_STAYS[list(b"?{}`^")] |= 4
_SCHEME = np.frombuffer(b"https://", np.uint8)

OUTCOMES = ("extracted", "no_url", "data_url", "bad_url", "not_http", "url_too_long")
EXTRACTED, NO_URL, DATA_URL, BAD_URL, NOT_HTTP, URL_TOO_LONG = range(len(OUTCOMES))


@dataclass(frozen=True, slots=True)
class Base:
    """What a page's relative addresses are relative to, in normal form; empty where unknown."""

    href: str = ""
    scheme: str = ""  # https:
    origin: str = ""  # https://host:port
    folder: str = ""  # https://host:port/path/


def make_bases(page_urls: Sequence[str], base_hrefs: Sequence[str | None]) -> list[Base]:
    """The bases of pages with <base href=...> or without (None), as HTML's base element says."""
    normal = is_normal(pa.array(page_urls, pa.string())).tolist()
    bases = []
    for page_url, base_href, is_plain in zip(page_urls, base_hrefs, normal, strict=True):
        href = page_url if is_plain else _parse(page_url, None)
        if base_href is not None:
            href = _parse(base_href, href) or href
        if href is None or not href.startswith(("http://", "https://")):
            bases.append(Base(href or ""))
            continue
        path = href.partition("?")[0]
        scheme, _, rest = path.partition("//")
        origin = f"{scheme}//{rest.partition('/')[0]}"
        bases.append(Base(href, scheme, origin, path[: path.rindex("/") + 1]))
    return bases


def resolve(raw: str, base: Base) -> tuple[str | None, int]:
    """The normal URL of an address on a page, and its outcome (an index of OUTCOMES)."""
    stripped = raw.strip(" \t\n\r\f\0")
    if not stripped or stripped.startswith("#"):
        return None, NO_URL
    if stripped[:5].lower() == "data:":
        return None, DATA_URL
    url = _parse(raw, base.href or None)
    if url is None:
        return None, BAD_URL
    if not url.startswith(("http://", "https://")):
        return None, NOT_HTTP
    if len(url) > LONGEST:
        return None, URL_TOO_LONG
    return url, EXTRACTED


def normalise(
    raw: pa.Array, page: np.ndarray, bases: Sequence[Base]
) -> tuple[pa.Array, np.ndarray]:
    """Normal URLs of n addresses on pages.

    Args:
        raw: string [n], as written; no nulls.
        page: int [n], of `bases`.
        bases: of the pages.

    Returns:
        string [n] with a null where there is none, and int8 [n]: indices of OUTCOMES.
    """
    outcomes = np.zeros(len(raw), np.int8)
    data = pc.starts_with(raw, "data:").to_numpy(zero_copy_only=False)
    outcomes[data] = DATA_URL
    guesses = _guess(raw, page, bases)
    normal = is_normal(guesses)
    unsure = np.flatnonzero(~(normal | data))
    resolved = []
    for text, at in zip(raw.take(pa.array(unsure)).to_pylist(), page[unsure], strict=True):
        url, outcome = resolve(text, bases[at])
        outcomes[unsure[len(resolved)]] = outcome
        resolved.append(url)
    guesses = replace_at(guesses, unsure, resolved)
    if data.any():
        guesses = pc.if_else(pa.array(data), pa.scalar(None, pa.string()), guesses)
    return guesses, outcomes


def is_normal(urls: pa.Array) -> np.ndarray:
    """Returns bool [n]: whether the standard's algorithm surely leaves a string as it is.

    So it is for an http(s) URL with a lower-case host of ASCII, no user, no port, no IPv4 address
    (the last label starts with a letter) and no punycode; a path of which no segment starts with a
    dot or a percent sign (so none is a dot segment); no fragment.
    """
    return _is_normal(*buffers_of(urls))


@njit(writable(types.Array(types.boolean, 1, "C"))(U8, I64), cache=True, nogil=True)
def _is_normal(data, offsets):
    normal = np.zeros(len(offsets) - 1, np.bool_)
    for i in range(len(normal)):
        at, end = offsets[i], offsets[i + 1]
        if not 10 < end - at <= LONGEST:
            continue
        shared = 0
        while shared < 4 and data[at + shared] == _SCHEME[shared]:
            shared += 1
        if shared < 4:
            continue
        at += 5 if data[at + 4] == 115 else 4
        if data[at] != 58 or data[at + 1] != 47 or data[at + 2] != 47:
            continue
        at += 3
        label, labels = at, 0
        fine = True
        while at < end and data[at] != 47 and fine:
            fine = _STAYS[data[at]] & 1
            if data[at] == 46:
                fine = at > label
                labels += 1
                label = at + 1
            elif at == label + 3 and data[at] == 45 and data[at - 1] == 45:
                fine = data[at - 3] != 120 or data[at - 2] != 110  # xn--
            at += 1
        if not fine or at >= end or labels == 0 or at == label or not 97 <= data[label] <= 122:
            continue
        before = 0
        while at < end and data[at] != 63 and fine:
            fine = _STAYS[data[at]] & 2 and not (
                before == 47 and (data[at] == 46 or data[at] == 37)
            )
            before = data[at]
            at += 1
        while at < end and fine:
            fine = _STAYS[data[at]] & 4
            at += 1
        normal[i] = fine
    return normal


def _guess(raw: pa.Array, page: np.ndarray, bases: Sequence[Base]) -> pa.Array:
    """The absolute form of plain addresses; for others anything that is not normal.

    A relative address that begins with a path goes after its page's folder, origin or scheme.
    """
    prefixes = [""]
    for base in bases:
        prefixes += (base.folder, base.origin, base.scheme)
    relative = pc.invert(pc.match_substring_regex(raw, r"^[?#]|^[^/]*:|^$"))
    rooted, with_host = pc.starts_with(raw, "/"), pc.starts_with(raw, "//")
    kind = sum(
        flags.to_numpy(zero_copy_only=False).astype(np.int64) for flags in (rooted, with_host)
    )
    at = np.where(relative.to_numpy(zero_copy_only=False), 1 + 3 * page + kind, 0)
    return pc.binary_join_element_wise(pa.array(prefixes).take(pa.array(at)), raw, "")


def _parse(text: str, base: str | None) -> str | None:
    """The URL's normal form without its fragment; None where the standard says failure."""
    try:
        href = ada_url.join_url(base, text) if base else ada_url.URL(text).href
    except (ValueError, UnicodeEncodeError):
        return None
    return href.partition("#")[0]
