"""Links gathered page by page, handed on as Arrow batches with normal URLs and counted outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.extract import urls
from pipeline.tally import Tally
from wit.pairs import LINKS

BATCH_ROWS = 8192
BATCH_BYTES = 16 * 2**20  # of URLs and texts; a page's rows stay together, whatever their size

# Two white spaces in a row, any but the plain one, or one at an end: what str.split() collapses.
_OTHER = r"\t-\r\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
_UNTIDY = rf"[{_OTHER}]|  |^ | $"


def tidy(text: str) -> str:
    """The text with each run of white space as one space, none at the ends."""
    return " ".join(text.split())


def tidy_all(texts: pa.Array) -> pa.Array:
    """`tidy` of string [n]; nulls stay."""
    untidy = pc.match_substring_regex(texts, _UNTIDY).fill_null(False)
    if not pc.any(untidy).as_py():
        return texts
    tidied = [tidy(text) for text in texts.filter(untidy).to_pylist()]
    return pc.replace_with_mask(texts, untidy, pa.array(tidied, texts.type))


def distinct_texts(candidates: Iterable[tuple[str, object]]) -> list[tuple[str, str]]:
    """The (attribute, tidied text) whose text is a string, not empty, and not seen before."""
    found: dict[str, str] = {}
    for attribute, text in candidates:
        if isinstance(text, str) and (tidied := tidy(text)):
            found.setdefault(tidied, attribute)
    return [(attribute, text) for text, attribute in found.items()]


class Rows:
    """Image links of whole pages, until there are enough of them for a batch.

    Every link that goes in comes out in a batch or is counted under its reason.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.raw: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[str] = []
        self.twins: list[int] = []  # rows that stand in <noscript>
        self.lengths: list[int] = []  # of the pages, in rows
        self.bases: list[urls.Base] = []
        self.page_urls: list[str] = []
        self.offsets: list[int] = []
        self.bytes = 0

    @property
    def full(self) -> bool:
        """Whether it is time for `take`."""
        return len(self.raw) >= BATCH_ROWS or self.bytes >= BATCH_BYTES

    def __len__(self) -> int:
        return len(self.raw)

    def add_page(
        self,
        links: list[tuple[str, str, str]],
        base: urls.Base,
        page_url: str,
        offset: int,
        noscript: Sequence[int] = (),
    ) -> None:
        """Takes a page's links as (address as written, text, attribute).

        Args:
            links: of one page, in order.
            base: what relative addresses are relative to.
            page_url: goes into every row.
            offset: of the page's record; goes into every row.
            noscript: positions in `links` of those in <noscript>.
        """
        if not links:
            return
        raw, texts, attributes = zip(*links, strict=True)
        self.twins += [len(self.raw) + at for at in noscript]
        self.raw += raw
        self.texts += texts
        self.attributes += attributes
        self.lengths.append(len(links))
        self.bases.append(base)
        self.page_urls.append(page_url)
        self.offsets.append(offset)
        self.bytes += sum(map(len, raw)) + sum(map(len, texts))

    def take(self, tally: Tally) -> pa.RecordBatch:
        """Returns the links with a normal URL as LINKS, counts all, and starts anew."""
        page = np.repeat(np.arange(len(self.lengths)), self.lengths)
        bases = [b for b, n in zip(self.bases, self.lengths, strict=True) for _ in range(n)]
        found, reasons = urls.normalise(self.raw, bases)
        texts = tidy_all(pa.array(self.texts, pa.string()))
        for row in self._noscript_twins(page, found, texts):
            reasons[row] = "noscript_twin"
        columns = [
            found,
            texts,
            pa.array(self.page_urls, pa.string()).take(pa.array(page)),
            pa.array(self.attributes, pa.string()),
            pa.array(np.repeat(np.array(self.offsets, np.int64), self.lengths)),
        ]
        batch = pa.RecordBatch.from_arrays(columns, schema=LINKS)
        if reasons:
            for reason in reasons.values():
                tally.add(reason)
            keep = np.ones(len(page), bool)
            keep[list(reasons)] = False
            batch = batch.filter(pa.array(keep))
        tally.add("extracted", len(batch))
        self._clear()
        return batch

    def _noscript_twins(self, page: np.ndarray, found: pa.Array, texts: pa.Array) -> list[int]:
        """Rows in <noscript> whose URL and text their page has outside it too."""
        inside = {row for row in self.twins if found[row].is_valid}
        if not inside:
            return []
        rows = np.flatnonzero(np.isin(page, page[list(inside)]))
        at = pa.array(rows)
        keys = zip(
            rows.tolist(),
            page[rows].tolist(),
            found.take(at).to_pylist(),
            texts.take(at).to_pylist(),
            strict=True,
        )
        key = {row: rest for row, *rest in map(tuple, keys)}
        shown = {tuple(key[row]) for row in key if row not in inside}
        return [row for row in sorted(inside) if tuple(key[row]) in shown]
