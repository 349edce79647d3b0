"""What a harvest reads: one file, its kind, and how a table's columns are named."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["warc", "wat", "arc", "table"]
TableFormat = Literal["parquet", "csv", "tsv", "jsonl"]


@dataclass(frozen=True)
class Source:
    """A file to read.

    Attributes:
        path: local, or a URL that fsspec or http(s) reaches.
        kind: of its content. Records of WARC, WAT and ARC files are told apart when read.
        size: bytes, None where it is not known.
        format: of a table, None else.
        url_column: of a table: a name, or a number from 0 where it has no header; None: recognised.
        text_column: likewise.
    """

    path: str
    kind: Kind
    size: int | None = None
    format: TableFormat | None = None
    url_column: str | None = None
    text_column: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Source:
        """The source that `to_json` gave."""
        return cls(**value)
