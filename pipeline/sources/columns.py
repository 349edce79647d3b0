"""The rows of tables, and which of their columns hold the URL and the text."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.sources.source import Source
from wit.errors import UserError

URL_NAMES = ("url", "image_url", "img_url", "image", "link", "src")
TEXT_NAMES = ("text", "caption", "alt", "alt_text", "title", "description")


class Rows(NamedTuple):
    """Rows of a table: int64 [n] their numbers, string [n] (with nulls) what their columns hold."""

    numbers: np.ndarray
    raw: pa.Array
    texts: pa.Array


def listed(names: list[str]) -> str:
    """The names for a line of an error; a stranger's may hold line ends and worse."""
    text = ", ".join(names)[:1000]
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def choose_columns(source: Source, names: list[str]) -> tuple[int, int]:
    """Returns where the URL's and the text's column stand: those asked for, or recognised.

    Raises:
        UserError: listing the columns that there are.
    """
    there = f"it has {listed(names)}"
    chosen = []
    for asked, known in ((source.url_column, URL_NAMES), (source.text_column, TEXT_NAMES)):
        lower = {name.lower(): name for name in reversed(names)}
        name = asked or next((lower[name] for name in known if name in lower), None)
        if name not in names:
            what = f"no column {asked!r}" if asked else f"no column of {', '.join(known)}"
            raise UserError(
                f"{source.path}: {what}; {there}; name them with --url-column and --text-column"
            )
        if names.count(name) > 1:
            raise UserError(f"{source.path}: more than one column {name!r}; {there}; rename them")
        chosen.append(names.index(name))
    return chosen[0], chosen[1]


def choose_numbers(source: Source, fields: list[str]) -> tuple[int, int] | None:
    """Returns the columns of a table without a header, by its first row; None if that is a header.

    A row with an address in it is no header: the address is in the URL's column, and the text's is
    the longest other. Both may be asked for by number, from 0; then a row that does not hold the
    numbers is no header either.

    Raises:
        UserError: for a number that there is none of, or with a single column.
    """
    asked = [name for name in (source.url_column, source.text_column) if name is not None]
    addresses = [i for i, f in enumerate(fields) if f.startswith(("http://", "https://"))]
    by_number = asked and all(name.isdecimal() and name not in fields for name in asked)
    if not addresses and not by_number:
        return None
    numbers = [str(i) for i in range(len(fields))]
    url, text = source.url_column, source.text_column
    if url is None:
        url = next((numbers[i] for i in addresses if numbers[i] != text), None)
    if text is None:
        others = [i for i in range(len(fields)) if numbers[i] != url]
        longest = max(others, key=lambda i: (i not in addresses, len(fields[i])), default=-1)
        text = numbers[longest] if others else None
    if url not in numbers or text not in numbers:
        raise UserError(
            f"{source.path}: has no header; name its columns by number with --url-column and "
            f"--text-column: it has {', '.join(numbers)[:1000]}"
        )
    return int(url), int(text)


def to_strings(values: pa.Array) -> pa.Array:
    """Returns string [n] of text or bytes; what is not UTF-8 becomes U+FFFD."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    values = values.cast(pa.binary())  # a column of text is not checked when it is read
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        decoded = [v if v is None else v.decode("utf-8", "replace") for v in values.to_pylist()]
        return pa.array(decoded, pa.string())
