"""`wit shards show`: some of a dataset's pairs, as text in the terminal and pictures in a browser.

Reads as few shards as it can: of a key the one that the key names; of a query, shard after shard
until enough is found (a lane's first shards are a random sample of it); otherwise some rows out of
shards that are spread evenly. Captions and addresses were written by strangers: what a terminal or
a browser would obey is not passed on.
"""

from __future__ import annotations

import base64
import os
import re
import sys
import tarfile
import tempfile
import webbrowser
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wit import page, storage
from wit.errors import StorageError, UserError
from wit.manifest import Progress, locate, no_progress
from wit.shard_files import SHARD_FILE, final_path, read_image, shard_order
from wit.text import normalise_one, spaced

QUERIES, COVERAGE = "queries/queries.parquet", "coverage.parquet"
SUCCESS, TAKEN_DOWN = "success", "taken_down"
COLUMNS = (
    *("url", "caption", "key", "status", "error_message", "width", "height", "sha256", "outcome"),
    *("page_url", "attribute", "language", "query_ids", "content_type", "image_ext"),
    *("image_offset", "image_size"),
)
EXTENSIONS = ("jpg", "png", "webp")
SIGNATURES = {b"\xff\xd8\xff": "jpeg", b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif"}
MOST_PICTURE = 4_000_000  # bytes; a larger one is not put into the page
KEY = re.compile(r"[0-9]+")
OUR_KEY = 9  # digits; img2dataset has fewer where its shards are small
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


@dataclass(frozen=True)
class Dataset:
    """Where things stand.

    Attributes:
        shards: the folder of the shards.
        names: of the shards, in order.
        home: the folder of the harvest that made them; None where there is none.
    """

    shards: str
    names: list[str]
    home: str | None


def show(
    folder: str, wanted: str | None, *, limit: int = 24, progress: Progress = no_progress
) -> tuple[Dataset, str, list[dict[str, Any]]]:
    """Returns the dataset in a folder, the query that was meant (or ""), and the rows to be shown.

    A row has what its shard says of COLUMNS, `outcome`, and `queries`, the queries of a harvest.

    Raises:
        UserError: for a key, a query or a shard that is not there, or a sample that was taken out.
    """
    dataset = open_dataset(folder)
    query = ""
    if wanted is None:
        rows = sample(dataset, limit)
    elif KEY.fullmatch(wanted) and (row := row_of_key(dataset, wanted)):
        rows = [row]
    else:
        query = normalise_one(wanted)
        rows = rows_of_query(dataset, wanted, query, limit, progress)
    return dataset, query, with_queries(dataset, rows)


def open_dataset(folder: str) -> Dataset:
    """Returns what stands in an output folder, or in a folder of shards."""
    shards, _ = locate(folder)
    found = (SHARD_FILE.fullmatch(name) for name in storage.list_names(shards))
    names = sorted({m[1] for m in found if m and m[2] != "_stats.json"}, key=shard_order)
    if not names:
        raise StorageError(f"{folder}: no shards here (no NNNNN.parquet); check the path")
    home = folder if storage.exists(storage.join(folder, QUERIES)) else None
    return Dataset(shards, names, home)


# --- which rows -------------------------------------------------------------------------------


def row_of_key(dataset: Dataset, key: str) -> dict[str, Any] | None:
    """Returns the row of a sample; its shard is the only one that is read.

    None where it is not there, and has so few digits that it may be a number of a text.
    """
    name = key[: len(dataset.names[0])]
    if name not in dataset.names:
        if len(key) < OUR_KEY:
            return None
        span = f"{dataset.names[0]} to {dataset.names[-1]}"
        raise UserError(f"key {key}: {dataset.shards} has no shard {name}; it has {span}")
    table = read_rows(dataset, name)
    found = table.filter(pc.equal(table["key"], key)).to_pylist()
    if not found and len(key) < OUR_KEY:
        return None
    if not found:
        path = final_path(dataset.shards, name, "parquet")
        raise UserError(f"key {key}: none of the {len(table):,} samples of {path} has it")
    if found[0]["outcome"] == TAKEN_DOWN:
        raise UserError(
            f"key {key}: was taken out of the dataset (wit shards takedown); nothing is left of it"
        )
    return found[0]


def sample(dataset: Dataset, limit: int) -> list[dict[str, Any]]:
    """Returns the first pictures of shards that are spread evenly, the same each time."""
    spread = np.linspace(0, len(dataset.names) - 1, min(limit, len(dataset.names)))
    first = [dataset.names[i] for i in np.unique(spread.round().astype(int)).tolist()]
    rest = [name for name in dataset.names if name not in set(first)]
    share = -(-limit // len(first))
    found: list[dict[str, Any]] = []
    for name in [*first, *rest]:
        if len(found) >= limit:
            break
        found += pictures(read_rows(dataset, name)).slice(0, share).to_pylist()
    return found[:limit]


def rows_of_query(
    dataset: Dataset, wanted: str, query: str, limit: int, progress: Progress
) -> list[dict[str, Any]]:
    """Returns the first pictures whose text includes a query."""
    if not query:
        raise UserError(f"{wanted!r}: has no letter, number or symbol, so no text can include it")
    number, most = None, limit
    if dataset.home:
        number, present = look_up(dataset.home, wanted, query)
        most = min(limit, present) if present is not None else limit
    found: list[dict[str, Any]] = []
    for done, name in enumerate(dataset.names, start=1):
        if len(found) >= most:
            break
        table = pictures(read_rows(dataset, name))
        includes = has_text(table, query) if number is None else has_query(table, number)
        found += table.filter(includes).slice(0, most - len(found)).to_pylist()
        progress(done, len(dataset.names))
    if not found:
        raise UserError(f"{wanted!r}: no picture of {dataset.shards} has it in its text")
    return found


def look_up(home: str, wanted: str, query: str) -> tuple[int, int | None]:
    """Returns a query's number in the harvest's list, and how many pairs it has, where known."""
    path = storage.join(home, QUERIES)
    table = storage.read_table(path, ["query_id", "query"])
    row = pc.index(table["query"], query).as_py()
    if row < 0:
        raise UserError(
            f"{wanted!r}: no such query in {path} (as {query!r}); to look for it in the texts: "
            f"wit shards show {storage.join(home, 'shards')} ..."
        )
    number, coverage = table["query_id"][row].as_py(), storage.join(home, COVERAGE)
    if not storage.exists(coverage):
        return number, None
    counts = storage.read_table(coverage, ["query_id", "matched", "present"])
    counts = counts.filter(pc.equal(counts["query_id"], number)).to_pylist()
    if counts and not counts[0]["present"]:
        raise UserError(
            f"{wanted!r}: the query is in the list and has no picture; "
            f"{counts[0]['matched']:,} candidates matched it ({coverage})"
        )
    return number, counts[0]["present"] if counts else None


def has_query(table: pa.Table, number: int) -> pa.Array:
    """Returns bool [n]: whether the row's text includes a query, by the shard's own list."""
    lists = table["query_ids"].combine_chunks()
    parents = pc.list_parent_indices(lists).to_numpy()
    mask = np.zeros(len(table), bool)
    mask[parents[pc.list_flatten(lists).to_numpy() == number]] = True
    return pa.array(mask)


def has_text(table: pa.Table, query: str) -> pa.Array:
    """Returns bool [n]: whether the row's caption includes a query, as the matcher would say."""
    texts = spaced(table["caption"].cast(pa.string()))
    (words,) = spaced(pa.array([query])).to_pylist()
    framed = pc.binary_join_element_wise("", texts, "", " ")
    return pc.fill_null(pc.match_substring(framed, f" {words} "), False)


def pictures(table: pa.Table) -> pa.Table:
    """Returns the rows that have a picture."""
    return table.filter(pc.equal(table["outcome"], SUCCESS))


def read_rows(dataset: Dataset, name: str) -> pa.Table:
    """Returns a shard's rows with those of COLUMNS that it has, and `outcome` and `caption`.

    img2dataset's shards say `status` and no `outcome`.
    """
    path = final_path(dataset.shards, name, "parquet")
    try:
        with storage.open_read(path) as file:
            present = pq.read_schema(file).names
    except FileNotFoundError as error:
        raise StorageError(f"{path}: is missing; run the command that made the shards") from error
    except pa.ArrowException as error:
        said = " ".join(str(error).split())
        raise StorageError(f"{path}: not a readable Parquet file ({said})") from error
    table = storage.read_table(path, [c for c in (*COLUMNS, *EXTENSIONS) if c in present])
    if "outcome" not in present and "status" in present:
        table = table.append_column("outcome", table["status"])
    for column in {"key", "outcome", "caption"} - set(table.column_names):
        if column != "caption":
            raise StorageError(f"{path}: no column {column!r}; not img2dataset's layout")
        table = table.append_column(column, pa.nulls(len(table), pa.string()))
    return table


def with_queries(dataset: Dataset, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows with the text of their queries, where the list is known."""
    wanted = sorted({number for row in rows for number in row.get("query_ids") or []})
    known: dict[int, str] = {}
    if wanted and dataset.home:
        table = storage.read_table(storage.join(dataset.home, QUERIES), ["query_id", "query"])
        table = table.filter(pc.is_in(table["query_id"], pa.array(wanted, pa.int32())))
        known = dict(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))
    return [row | {"queries": [known[q] for q in row.get("query_ids") or [] if q in known]}
            for row in rows]  # fmt: skip


# --- one row ----------------------------------------------------------------------------------


def picture_of(dataset: Dataset, row: Mapping[str, Any]) -> bytes:
    """Returns a row's picture: by its place in the tar, or where that is not said, by its name."""
    for extension in EXTENSIONS:
        if row.get(extension):
            return row[extension]
    name = row["key"][: len(dataset.names[0])]
    path = final_path(dataset.shards, name, "tar")
    try:
        if row.get("image_offset") is not None:
            return read_image(dataset.shards, row)
        with storage.open_read(path) as file, tarfile.open(fileobj=file) as tar:
            for member in tar:
                stem, _, extension = member.name.rpartition(".")
                if stem == row["key"] and extension in EXTENSIONS:
                    return tar.extractfile(member).read()
    except FileNotFoundError as error:
        raise StorageError(f"{path}: is missing; run the command that made the shards") from error
    except tarfile.TarError as error:
        raise StorageError(f"{path}: not a readable tar ({error})") from error
    raise StorageError(f"{path}: has no picture of sample {row['key']}")


def marked(text: str, query: str) -> list[tuple[str, bool]]:
    """Returns a text in pieces: (piece, whether it is the query).

    Words of the query are sought whatever their case and with any marks between them.
    """
    line = clean(text)
    words = r"[\W_]*".join(map(re.escape, query.split()))
    found = words and (
        re.search(rf"(?<!\w){words}(?!\w)", line, re.IGNORECASE)
        or re.search(words, line, re.IGNORECASE)
    )
    if not found:
        return [(line, False)]
    pieces = [(line[: found.start()], False), (found[0], True), (line[found.end() :], False)]
    return [piece for piece in pieces if piece[0]]


def clean(text: Any) -> str:
    """Returns a text in one line, without what a terminal obeys or what turns its direction."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def facts(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what is known of a row beside key, outcome and caption, as (name, value)."""
    size = f"{row['width']} x {row['height']}" if row.get("width") else None
    said = row.get("error_message")
    found = {
        "why": said if said != row["outcome"] else None,
        "url": row.get("url"),
        "page": row.get("page_url"),
        "size": size,
        "text": row.get("attribute"),
        "language": row.get("language"),
        "queries": ", ".join(row["queries"]),
    }
    return [(name, clean(value)) for name, value in found.items() if value]


def lines(row: Mapping[str, Any], query: str, bold: bool) -> Iterator[str]:
    """Yields a row for the terminal."""
    yield f"{clean(row['key'])}  {clean(row['outcome'])}"
    pieces = marked(row["caption"] or "", query)
    yield "  " + "".join(f"{BOLD}{t}{PLAIN}" if hit and bold else t for t, hit in pieces)
    yield from (f"  {name:<10}{value}" for name, value in facts(row))


# --- the page ---------------------------------------------------------------------------------


def render(dataset: Dataset, title: str, query: str, rows: list[dict[str, Any]]) -> str:
    """Returns a page of the rows that have a picture; it loads nothing and runs nothing."""
    cards = [
        {
            "key": row["key"],
            "picture": source(picture_of(dataset, row)),
            "caption": marked(row["caption"] or "", query),
            "facts": facts(row),
        }
        for row in rows
        if row["outcome"] == SUCCESS
    ]
    template = page.environment(Path(__file__).parent, html=True).get_template("show.html")
    return template.render(title=clean(title), cards=cards)


def source(picture: bytes) -> str | None:
    """Returns a picture as a `data:` URL; None for what is too large or no kind that is shown."""
    kind = next((kind for start, kind in SIGNATURES.items() if picture.startswith(start)), None)
    if kind is None or len(picture) > MOST_PICTURE:
        return None
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def has_display() -> bool:
    """Whether a browser has somewhere to open; one in the terminal would take it over."""
    if sys.platform in ("darwin", "win32"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def command(
    folder: str, wanted: str | None, limit: int, html: str | None, browser: bool, progress: Progress
) -> Iterator[str]:
    """Does `wit shards show`; yields what it says, line by line."""
    dataset, query, rows = show(folder, wanted, limit=limit, progress=progress)
    for row in rows:
        yield from lines(row, query, sys.stdout.isatty())
    if not any(row["outcome"] == SUCCESS for row in rows):
        return
    page = render(dataset, f"{folder}: {wanted}" if wanted else folder, query, rows).encode()
    if html:
        storage.write_bytes(html, page)
    else:
        with tempfile.NamedTemporaryFile(prefix="wit-", suffix=".html", delete=False) as file:
            file.write(page)
            html = file.name
    yield f"pictures  {html}"
    if browser and has_display() and storage.is_local(html):
        webbrowser.open(Path(storage.local_path(html)).resolve().as_uri())
