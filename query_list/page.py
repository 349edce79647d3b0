"""A query list as one self-contained web page: `render(gather(...))`.

Every query in it may have been written by a stranger, as the titles of articles are: the template
escapes all of them, and a content security policy lets the page load nothing and run nothing.
"""

from __future__ import annotations

from pathlib import Path

from query_list.page_data import SOURCES, TITLES, Entry, ListPage, gather
from wit.page import make_environment

__all__ = ["ListPage", "gather", "render"]

UNITS = {"count": "occurrences", "pmi": "bits", "views": "views"}


def render(list_page: ListPage) -> str:
    """The whole page as HTML, under 2 MB, without any reference to the network, without scripts."""
    environment = make_environment(Path(__file__).parent / "templates")
    environment.filters |= {"number": number, "bits": bits}
    return environment.get_template("list.html").render(
        data=list_page,
        titles=[TITLES[name] for name in SOURCES],
        units=UNITS,
        columns={"count": ("count",), "pmi": ("pmi", "count"), "views": ("views",)},
        longest=[
            ("words", "tokens", list_page.most_tokens),
            ("characters", "characters", list_page.most_characters),
        ],
    )


def number(entry: Entry, name: str) -> str:
    """A number of a query as a cell; nothing where it is unknown."""
    value = getattr(entry, name)
    if value is None:
        return ""
    return bits(value) if name == "pmi" else f"{value:,}"


def bits(value: float) -> str:
    """A PMI: neighbours among 100,000 bigrams are about 0.0001 apart."""
    return f"{value:.4f}"
