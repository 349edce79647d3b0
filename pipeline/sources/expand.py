"""From what a person names (a glob, a folder, a list, a crawl) to the files of a harvest."""

from __future__ import annotations

import gzip
import os

from pipeline.sources.commoncrawl import PLACES, list_crawl
from pipeline.sources.source import Kind, Source, TableFormat
from pipeline.sources.tables import check_table
from pipeline.sources.web import WEB, open_source
from wit import storage
from wit.errors import UserError

PACKED = (".gz", ".zst", ".zstd")
CRAWL_KINDS: dict[str, Kind] = {".warc": "warc", ".wat": "wat", ".wet": "warc", ".arc": "arc"}
TABLE_FORMATS: dict[str, TableFormat] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
LISTS = (".txt", ".paths", ".paths.gz")
KNOWN = "WARC, WAT, ARC (plain, .gz, .zst), .parquet, .csv, .tsv and .jsonl are read"
CHECKED = 100  # tables whose columns are looked at before anything starts
GLOB = frozenset("*?[")


def expand(
    inputs: list[str],
    *,
    url_column: str | None = None,
    text_column: str | None = None,
    files: int | None = None,
    common_crawl: str = "https",
    seed: int = 0,
) -> list[Source]:
    """Returns the files that the inputs name, sorted by path, each once.

    Args:
        inputs: paths or URLs of files; globs; folders (all files of known kinds in them); `@FILE`
            and `*.txt`, `*.paths[.gz]` with a path a line; `cc:CRAWL-ID[:wat|:warc]`.
        url_column, text_column: of tables.
        files: how many of a cc: crawl's files, chosen by a hash with the seed; None for all.
        common_crawl: `https` or `s3`, where cc: reads from.
        seed: of that choice.

    Raises:
        UserError: for an input that is missing, empty or of an unknown kind, or names no file.
    """
    paths: dict[str, Kind | None] = {}
    for name in inputs:
        if name.startswith("cc:"):
            paths |= dict.fromkeys(list_crawl(name, files, common_crawl, seed))
        else:
            paths |= dict.fromkeys(_paths(name))
    sources = [_source(path, url_column, text_column, len(paths)) for path in sorted(paths)]
    for source in [s for s in sources if s.kind == "table"][:CHECKED]:
        check_table(source)
    return sources


def _paths(name: str) -> list[str]:
    if name.startswith("@") or name.endswith(LISTS):
        return _listed(name.removeprefix("@"))
    if GLOB & set(name) and not name.startswith(WEB):
        found = _matching(name)
        if not found:
            raise UserError(f"{name}: no file matches; check the pattern (quote it for the shell)")
        return found
    path = name if "://" in name else os.path.abspath(name)
    if storage.is_local(path) and os.path.isdir(storage.local_path(path)):
        found = sorted(
            os.path.join(folder, file)
            for folder, _, names in os.walk(storage.local_path(path))
            for file in names
            if _kind_by_name(file)
        )
        if not found:
            raise UserError(f"{name}: no file of a known kind in this folder; {KNOWN}")
        return found
    return [path]


def _matching(pattern: str) -> list[str]:
    import fsspec

    path = pattern if "://" in pattern else os.path.abspath(pattern)
    fs, inner = fsspec.core.url_to_fs(path)
    found = [p for p in fs.glob(inner) if fs.isfile(p)]
    return sorted(found if storage.is_local(path) else map(fs.unstrip_protocol, found))


def _listed(name: str) -> list[str]:
    try:
        data = storage.read_bytes(name)
        text = (gzip.decompress(data) if name.endswith(".gz") else data).decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{name}: no such file; it should hold a path a line") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{name}: not a readable list of paths ({error})") from error
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise UserError(f"{name}: empty; it should hold a path a line")
    return [_absolute(path) for path in found]


def _absolute(path: str) -> str:
    """A listed path; one of Common Crawl's own lists stands for its public address."""
    if path.startswith("crawl-data/"):
        return PLACES["https"] + path
    return path if "://" in path else os.path.abspath(path)


def _source(path: str, url_column: str | None, text_column: str | None, count: int) -> Source:
    """Returns a file with its kind; sizes are asked for unless there are very many files."""
    asked = storage.is_local(path) or (count <= CHECKED and not path.startswith(WEB))
    size = storage.size(path) if asked else None
    if size is None and storage.is_local(path):
        raise UserError(f"{path}: no such file; check the path")
    if size == 0:
        raise UserError(f"{path}: empty file; remove it from the inputs or fetch it again")
    found = _kind_by_name(path.partition("?")[0]) or _kind_by_start(path)
    if found is None:
        raise UserError(f"{path}: of no known kind; {KNOWN}")
    kind, table = found
    if kind == "table":
        return Source(path, kind, size, table, url_column, text_column)
    return Source(path, kind, size)


def _kind_by_name(path: str) -> tuple[Kind, TableFormat | None] | None:
    name = path.rpartition("/")[2].lower()
    for ending in PACKED:
        name = name.removesuffix(ending)
    ending = os.path.splitext(name)[1]
    if ending in CRAWL_KINDS:
        return CRAWL_KINDS[ending], None
    if ending in TABLE_FORMATS:
        return "table", TABLE_FORMATS[ending]
    return None


def _kind_by_start(path: str) -> tuple[Kind, TableFormat | None] | None:
    with open_source(path) as file:
        start = file.read(1024)
    if start.startswith(b"PAR1"):
        return "table", "parquet"
    if start.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"WARC/")):
        return "warc", None
    return ("arc", None) if start.startswith(b"filedesc:") else None
