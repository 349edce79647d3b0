"""Links gathered page by page, handed on as Arrow batches with normal URLs and counted outcomes."""

from __future__ import annotations

from collections.abc import Iterable

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
        self.bases: list[urls.Base] = []
        self.texts: list[str] = []
        self.page_urls: list[str] = []
        self.attributes: list[str] = []
        self.offsets: list[int] = []
        self.pages: list[int] = []  # numbers the pages of this batch
        self.twins: list[int] = []  # rows that stand in <noscript>
        self.page = 0
        self.bytes = 0

    @property
    def full(self) -> bool:
        """Whether it is time for `take`."""
        return len(self.raw) >= BATCH_ROWS or self.bytes >= BATCH_BYTES

    def add(
        self,
        raw: str,
        text: str,
        attribute: str,
        base: urls.Base,
        page_url: str,
        offset: int,
        noscript: bool = False,
    ) -> None:
        """Takes one link: the address as the page has it, and one text of the image."""
        if noscript:
            self.twins.append(len(self.raw))
        self.raw.append(raw)
        self.bases.append(base)
        self.texts.append(text)
        self.page_urls.append(page_url)
        self.attributes.append(attribute)
        self.offsets.append(offset)
        self.pages.append(self.page)
        self.bytes += len(raw) + len(text)

    def next_page(self) -> None:
        """Says that the links to come stand on another page."""
        self.page += 1

    def take(self, tally: Tally) -> pa.RecordBatch:
        """Returns the links with a normal URL as LINKS, counts all, and starts anew."""
        found, reasons = urls.normalise(self.raw, self.bases)
        for reason in reasons.values():
            tally.add(reason)
        dropped = set(reasons)
        if self.twins:
            dropped |= self._noscript_twins(found, dropped, tally)
        columns = [
            found,
            tidy_all(pa.array(self.texts, pa.string())),
            pa.array(self.page_urls, pa.string()),
            pa.array(self.attributes, pa.string()),
            pa.array(self.offsets, pa.int64()),
        ]
        batch = pa.RecordBatch.from_arrays(columns, schema=LINKS)
        if dropped:
            batch = batch.filter(pa.array([i not in dropped for i in range(len(found))]))
        tally.add("extracted", len(batch))
        self._clear()
        return batch

    def _noscript_twins(self, found: pa.Array, dropped: set[int], tally: Tally) -> set[int]:
        """Rows in <noscript> whose URL and text their page has outside it too; counts them."""
        inside = set(self.twins) - dropped
        pages = {self.pages[row] for row in inside}
        where = [row for row, page in enumerate(self.pages) if page in pages and row not in dropped]
        url = dict(zip(where, found.take(pa.array(where, pa.int64())).to_pylist(), strict=True))
        shown = {(self.pages[r], url[r], tidy(self.texts[r])) for r in where if r not in inside}
        twins = {r for r in inside if (self.pages[r], url[r], tidy(self.texts[r])) in shown}
        tally.add("noscript_twin", len(twins))
        return twins
