"""A report read back: the tables of its sections as rows of text, and numbers out of them."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path


class Sections(HTMLParser):
    """`tables` are the rows of text of each table of a section, by the section's name."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.text: dict[str, str] = {}
        self._section, self._cell = "", False
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opens a section, a table, a row or a cell."""
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
            self.tables[self._section] = []
        elif tag == "table":
            self.tables[self._section].append([])
        elif tag == "tr":
            self.tables[self._section][-1].append([])
        elif tag in ("td", "th"):
            self.tables[self._section][-1][-1].append("")
            self._cell = True
        elif tag == "span" and self._cell:
            self.tables[self._section][-1][-1][-1] += "\n"

    def handle_endtag(self, tag: str) -> None:
        """Closes a cell."""
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        """Takes text."""
        self.text[self._section] = self.text.get(self._section, "") + data
        if self._cell:
            self.tables[self._section][-1][-1][-1] += data

    def counts(self, section: str, number: int = 0, column: int = 1) -> dict[str, int]:
        """First line of each row -> the number in a column, where there is one."""
        rows = self.tables[section][number]
        firsts = {row[0].strip().split("\n")[0].strip(): row for row in rows if len(row) > column}
        return {
            name: int(row[column].replace(",", ""))
            for name, row in firsts.items()
            if row[column].replace(",", "").strip().isdigit()
        }
