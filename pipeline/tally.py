"""What became of every image link of a source, and what was wrong with the source.

An image link is one text of one image: an `<img>` with an alt and another title is two links, one
without any text is one. Each ends in exactly one reason of `counts`, so

    sum(counts) == seen["images"] + seen["extra_texts"]

(`unaccounted` is the difference, always 0). Faults of the file are counted beside the links: what a
damaged record would have held is not known.
"""

from __future__ import annotations

from typing import Any

REASONS: dict[str, str] = {
    "extracted": "Handed out as a pair of URL and text.",
    "no_text": "The image has no text: no alt, title or caption, or only white space.",
    "no_url": "The image has no address: none at all, an empty one, or only a fragment.",
    "data_url": "The image stands in the page itself (data:), and no other address is given.",
    "not_http": "The address is not http or https (blob:, file:, javascript:, ...).",
    "bad_url": "The address is not a URL.",
    "url_too_long": "The URL has more than 8,190 bytes, the longest request line servers take.",
    "too_many_images": "The page has more than 20,000 images, and this is not among the first.",
    "noscript_twin": "The same URL and text stand on the page outside <noscript> too.",
    "text_too_short": "The text has fewer characters than --min-text.",
    "text_too_long": "The text has more characters than --max-text.",
    "other_language": "The text is in none of the languages asked for.",
    "no_query": "The text includes none of the queries.",
}

SEEN: dict[str, str] = {
    "records": "Records (WARC, WAT, ARC) or rows (tables) read.",
    "pages": "Records that hold an HTML page or the metadata of one.",
    "images": "Image elements of the pages, or rows of the table.",
    "extra_texts": "Texts of an image beyond its first.",
}

FAULTS: dict[str, str] = {
    "bad_compression": "A gzip member or zstd frame is damaged; skipped to the next one.",
    "cut_compression": "The file ends within a gzip member or zstd frame.",
    "junk": "Bytes between records or members that belong to none.",
    "bad_record": "A record's header is not one; skipped to the next header.",
    "bad_length": "A record's length is wrong; the next header says where it ends.",
    "cut_record": "The file ends within a record; what is there was read.",
    "record_too_large": "A record holds more than the cap; skipped.",
    "bad_http": "An HTTP response whose head cannot be read.",
    "bad_chunks": "A chunked transfer breaks off; what came before was read.",
    "bad_encoding": "A compressed response body breaks off; what came before was read.",
    "page_too_large": "A page unpacks to more than the cap; skipped.",
    "bad_json": "The metadata of a WAT record is not JSON.",
    "bad_row": "A row of a table cannot be read.",
    "bad_block": "A part of a table cannot be read.",
}

LISTED_FAULTS = 1000


class Tally:
    """Exact counts of one source, or of several after `merge`.

    Attributes:
        counts: image links by reason (REASONS).
        seen: what was read (SEEN).
        fault_counts: faults by reason (FAULTS).
        faults: the first 1,000 as (offset, reason): the byte in the file as stored, the row in a
            table, None where there is none.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.seen: dict[str, int] = {}
        self.fault_counts: dict[str, int] = {}
        self.faults: list[tuple[int | None, str]] = []

    @property
    def fault_total(self) -> int:
        """All faults, also those beyond the listed ones."""
        return sum(self.fault_counts.values())

    def add(self, reason: str, n: int = 1) -> None:
        """Counts n image links; KeyError for a reason that REASONS lacks."""
        _count(self.counts, REASONS, reason, n)

    def move(self, old: str, new: str, n: int) -> None:
        """Counts n links under `new` that were counted under `old`."""
        if self.counts.get(old, 0) < n:
            raise ValueError(
                f"{n} of {old} cannot move to {new}: {self.counts.get(old, 0)} are there"
            )
        self.add(old, -n)
        self.add(new, n)

    def see(self, what: str, n: int = 1) -> None:
        """Counts n of what was read; KeyError for what SEEN lacks."""
        _count(self.seen, SEEN, what, n)

    def fault(self, offset: int | None, reason: str) -> None:
        """Counts a fault and lists it while there is room."""
        _count(self.fault_counts, FAULTS, reason, 1)
        if len(self.faults) < LISTED_FAULTS:
            self.faults.append((offset, reason))

    @property
    def unaccounted(self) -> int:
        """Image links that ended in no reason, or, below 0, in two; 0 unless the code is wrong."""
        links = self.seen.get("images", 0) + self.seen.get("extra_texts", 0)
        return links - sum(self.counts.values())

    def merge(self, other: Tally) -> None:
        """Adds the other's counts; its faults follow ours while there is room."""
        for mine, theirs in (
            (self.counts, other.counts),
            (self.seen, other.seen),
            (self.fault_counts, other.fault_counts),
        ):
            for name, n in theirs.items():
                mine[name] = mine.get(name, 0) + n
        self.faults += other.faults[: LISTED_FAULTS - len(self.faults)]

    def to_json(self) -> dict[str, Any]:
        """Returns plain values: counts, seen, fault_counts, fault_total, faults."""
        return {
            "counts": {name: self.counts[name] for name in REASONS if self.counts.get(name)},
            "seen": {name: self.seen[name] for name in SEEN if self.seen.get(name)},
            "fault_counts": {n: self.fault_counts[n] for n in FAULTS if n in self.fault_counts},
            "fault_total": self.fault_total,
            "faults": [list(fault) for fault in self.faults],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Tally:
        """The tally that `to_json` gave; other keys are ignored."""
        tally = cls()
        for known, mine, theirs in (
            (REASONS, tally.counts, value["counts"]),
            (SEEN, tally.seen, value["seen"]),
            (FAULTS, tally.fault_counts, value["fault_counts"]),
        ):
            for name, n in theirs.items():
                _count(mine, known, name, int(n))
        tally.faults = [(offset, str(reason)) for offset, reason in value["faults"]]
        return tally


def _count(counts: dict[str, int], known: dict[str, str], name: str, n: int) -> None:
    if name not in known:
        raise KeyError(f"{name!r} is none of {', '.join(known)}")
    if n:
        counts[name] = counts.get(name, 0) + n
