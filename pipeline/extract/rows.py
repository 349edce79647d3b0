"""Links of pages as Arrow batches: normal URLs, tidy texts, every link counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from pipeline.extract import urls
from pipeline.extract.strings import tidy
from pipeline.tally import Tally
from wit.pairs import LINKS

BATCH_ROWS = 8192
BATCH_BYTES = 16 * 2**20  # of URLs and texts; a page's rows stay together, whatever their size


def distinct_texts(candidates: Iterable[tuple[str, str | None]]) -> list[tuple[str, str]]:
    """The (attribute, tidied text) whose text is not empty and was not seen before."""
    found: dict[str, str] = {}
    for attribute, text in candidates:
        if text and (tidied := tidy(text)):
            found.setdefault(tidied, attribute)
    return [(attribute, text) for text, attribute in found.items()]


def finish(
    raw: pa.Array,
    texts: pa.Array,
    attributes: pa.Array,
    page: np.ndarray,
    page_urls: Sequence[str],
    base_hrefs: Sequence[str | None],
    offsets: Sequence[int],
    noscript: np.ndarray | None,
    tally: Tally,
) -> pa.RecordBatch:
    """Returns the links that have a normal URL as LINKS, and counts all.

    Args:
        raw: string [n], addresses as written.
        texts: string [n], tidy and not empty.
        attributes: string [n].
        page: int64 [n], ascending; of the p pages.
        page_urls: [p].
        base_hrefs: [p], of <base>; None where there is none.
        offsets: [p], of the pages' records.
        noscript: bool [n], which stand in <noscript>; None for none.
        tally: counts every link.
    """
    bases = urls.make_bases(page_urls, base_hrefs)
    found, outcomes = urls.normalise(raw, page, bases)
    keep = outcomes == urls.EXTRACTED
    counts = np.bincount(outcomes, minlength=len(urls.OUTCOMES)).tolist()
    for outcome, n in zip(urls.OUTCOMES[1:], counts[1:], strict=True):
        tally.add(outcome, n)
    if noscript is not None and noscript.any():
        twins = _noscript_twins(page, found, texts, keep, noscript)
        tally.add("noscript_twin", len(twins))
        keep[twins] = False
    at = pa.array(page)
    record_offsets = pa.array(offsets, pa.int64()).take(at)
    columns = [found, texts, pa.array(page_urls, pa.string()).take(at), attributes, record_offsets]
    batch = pa.RecordBatch.from_arrays(columns, names=LINKS.names)
    if not keep.all():
        batch = batch.filter(pa.array(keep))
    tally.add("extracted", len(batch))
    return pa.RecordBatch.from_arrays(batch.columns, schema=LINKS)


def _noscript_twins(
    page: np.ndarray, found: pa.Array, texts: pa.Array, keep: np.ndarray, noscript: np.ndarray
) -> list[int]:
    """Rows in <noscript> whose URL and text their page has outside it too."""
    rows = np.flatnonzero(np.isin(page, page[noscript]) & keep)
    at = pa.array(rows)
    pairs = zip(
        page[rows].tolist(), found.take(at).to_pylist(), texts.take(at).to_pylist(), strict=True
    )
    keys = list(zip(rows.tolist(), pairs, strict=True))
    shown = {pair for row, pair in keys if not noscript[row]}
    return [row for row, pair in keys if noscript[row] and pair in shown]


class Rows:
    """Image links of whole pages, until there are enough of them for a batch."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._links: list[tuple[str, str, str]] = []
        self._noscript: list[bool] = []
        self._lengths: list[int] = []  # of the pages, in rows
        self._page_urls: list[str] = []
        self._base_hrefs: list[str | None] = []
        self._offsets: list[int] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._links)

    @property
    def full(self) -> bool:
        """Whether it is time for `take`."""
        return len(self._links) >= BATCH_ROWS or self._bytes >= BATCH_BYTES

    def add_page(
        self,
        links: list[tuple[str, str, str]],
        noscript: list[bool],
        page_url: str,
        base_href: str | None,
        offset: int,
    ) -> None:
        """Takes a page's links as (address as written, tidy text, attribute).

        Args:
            links: of one page, in order.
            noscript: of each link, whether it stands in <noscript>.
            page_url: where the page was found.
            base_href: of its <base>, None where it has none.
            offset: of its record.
        """
        if not links:
            return
        self._links += links
        self._noscript += noscript
        self._lengths.append(len(links))
        self._page_urls.append(page_url)
        self._base_hrefs.append(base_href)
        self._offsets.append(offset)
        self._bytes += sum(len(raw) + len(text) for raw, text, _ in links)

    def take(self, tally: Tally) -> pa.RecordBatch:
        """Returns the links with a normal URL as LINKS, counts all, and starts anew."""
        raw, texts, attributes = zip(*self._links, strict=True) if self._links else ((), (), ())
        batch = finish(
            pa.array(raw, pa.string()),
            pa.array(texts, pa.string()),
            pa.array(attributes, pa.string()),
            np.repeat(np.arange(len(self._lengths)), self._lengths),
            self._page_urls,
            self._base_hrefs,
            self._offsets,
            np.array(self._noscript, bool),
            tally,
        )
        self._clear()
        return batch
