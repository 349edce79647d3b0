"""From what a person names (a glob, a folder, a list, a crawl) to the files of a harvest."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

from pipeline.sources.commoncrawl import list_crawl, root_of
from pipeline.sources.members import read_pieces
from pipeline.sources.records import read_records
from pipeline.sources.source import Kind, Source, TableFormat
from pipeline.sources.tables import check_table
from pipeline.sources.web import WEB, Tell, open_source
from pipeline.tally import Tally
from wit import remote, storage
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
CRAWL = "crawl.json"
LISTS = (".txt", ".paths", ".paths.gz")
KNOWN = "WARC, WAT, ARC (plain, .gz, .zst), .parquet, .csv, .tsv and .jsonl are read"
CHECKED = 100  # tables whose columns are looked at before anything starts
LOOKED_INTO = 10_000  # local crawl files that are looked into, evenly spread: four seconds
READERS = 16  # files looked into at a time
GLOB = frozenset("*?[")
LOOKED_AT = 64 * 1024  # bytes of a file
PAGES = frozenset(["response", "request", "revisit", "resource"])  # records that no WAT file has


def expand(
    inputs: list[str],
    *,
    url_column: str | None = None,
    text_column: str | None = None,
    files: int | None = None,
    common_crawl: str = "https",
    seed: int = 0,
    tell: Tell = lambda line: None,
) -> list[Source]:
    """Returns the files that the inputs name, sorted by path, each once.

    All local files must be there and hold something; of crawl files up to LOOKED_INTO are looked
    into, of tables CHECKED. Others are met where they are read.

    Args:
        inputs: paths or URLs of files; globs; folders (all files of known kinds in them, but not
            hidden ones); `@FILE` and `*.txt`, `*.paths[.gz]` with a path a line;
            `cc:CRAWL-ID[:wat|:warc]`.
        url_column, text_column: of tables.
        files: how many of a cc: crawl's files, chosen by a hash with the seed; None for all.
        common_crawl: `https` or `s3`, where cc: and Common Crawl's own lists are read from.
        seed: of that choice.
        tell: is told, in a line, what is fetched, and why that is tried again.

    Raises:
        UserError: for an input that is missing, empty, of an unknown kind or not what its name
            says, or names no file; the first of them, and how many more there are.
    """
    paths: set[str] = set()
    for name in inputs:
        if name.startswith("cc:"):
            paths.update(list_crawl(name, files, common_crawl, seed, tell=tell))
        else:
            paths.update(_paths(name, root_of(common_crawl)))
    kinds = [_kind_by_name(path) for path in sorted(paths)]
    crawls = [i for i, kind in enumerate(kinds) if kind is None or kind[0] != "table"]
    tables = [i for i, kind in enumerate(kinds) if kind is not None and kind[0] == "table"]
    looked_into = set(crawls[:: -(-len(crawls) // LOOKED_INTO) or 1] + tables[:CHECKED])

    def look(number: int, path: str) -> Source | UserError:
        try:
            source = _source(path, url_column, text_column, len(paths))
            if number in looked_into:
                _look_into(source)
        except UserError as error:
            return error
        return source

    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(look, range(len(paths)), sorted(paths)))
    bad = [error for error in found if isinstance(error, UserError)]
    if len(bad) > 1:
        files = "file" if len(bad) == 2 else "files"
        raise UserError(f"{bad[0]} (and {len(bad) - 1:,} more bad {files} of {len(paths):,})")
    if bad:
        raise bad[0]
    return [source for source in found if isinstance(source, Source)]


def _look_into(source: Source) -> None:
    """Raises the UserError that reading would raise, if the file's start tells."""
    if source.kind == "table":
        check_table(source)
    elif storage.is_local(source.path):
        _check_crawl(source)


def _check_crawl(source: Source) -> None:
    with open_source(source.path) as file:
        start = file.read(LOOKED_AT)
        try:
            kind = ""
            for record in read_records(io.BytesIO(start), source.path, Tally()):
                kind = record.kind
                if source.kind != "wat" or kind in PAGES or kind == "metadata":
                    break
        except UserError:  # also where the first record begins later
            file.seek(0)
            next(read_records(file, source.path, Tally()), None)
            return
    if source.kind == "wat" and kind in PAGES:
        raise UserError(
            f"{source.path}: named as a WAT file, but it holds pages ({kind} records); rename it "
            "to end with .warc or .warc.gz"
        )


def _paths(name: str, crawl_root: str) -> list[str]:
    if not name.removeprefix("@"):
        raise UserError(f"{name!r} names no file; give paths, URLs or cc:CRAWL-ID")
    if name.startswith("@") or name.endswith(LISTS):
        return _listed(name.removeprefix("@"), crawl_root)
    path = _absolute(name)
    is_there = storage.is_local(path) and os.path.exists(path)
    if GLOB & set(name) and not name.startswith(WEB) and not is_there:
        found = _matching(path)
        if not found:
            raise UserError(f"{name}: no file matches; check the pattern (quote it for the shell)")
        return found
    if os.path.isdir(path) if is_there else _is_remote_folder(path):
        if storage.exists(storage.join(path, CRAWL)):
            path = storage.join(path, "warc")  # what else `wit crawl` leaves there is no input
        found = [p for p in _all_in(path) if _kind_by_name(p)]
        if not found:
            raise UserError(f"{name}: no file of a known kind in this folder; {KNOWN}")
        return found
    return [path]


def _absolute(path: str) -> str:
    return os.path.abspath(storage.local_path(path)) if storage.is_local(path) else path


def _matching(pattern: str) -> list[str]:
    """The files that match; as in a shell, hidden ones only where the pattern says the dot."""
    with storage.explained(pattern, "read"):
        fs, inner = remote.open_store(pattern)
        hidden = inner.count("/.")
        found = [p for p in fs.glob(inner) if fs.isfile(p) and p.count("/.") <= hidden]
        return found if storage.is_local(pattern) else [fs.unstrip_protocol(p) for p in found]


def _is_remote_folder(path: str) -> bool:
    """Whether a remote path of no known kind is a folder."""
    if storage.is_local(path) or path.startswith(WEB) or _kind_by_name(path):
        return False
    with storage.explained(path, "read"):
        fs, inner = remote.open_store(path)
        return bool(fs.isdir(inner))


def _all_in(folder: str) -> list[str]:
    """All files in a folder and below it, without those whose names or folders are hidden."""
    if not storage.is_local(folder):
        with storage.explained(folder, "read"):
            start = len(folder.rstrip("/"))
            return [path for path in remote.find(folder) if "/." not in path[start:]]

    def refuse(error: OSError) -> NoReturn:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); check its rights")

    found = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.join(place, name) for name in names if not name.startswith(".")]
    return found


def _listed(name: str, crawl_root: str) -> list[str]:
    """The paths of a list; those of Common Crawl's own lists are below `crawl_root`."""
    try:
        faults = Tally()
        with open_source(name) as file:
            pieces = list(read_pieces(file, name, faults, lambda done: None))
        if faults.fault_total:
            raise UserError(f"{name}: a damaged list; get it again")
        text = b"".join(piece.data or b"" for piece in pieces).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not a list of paths ({error}); give it a path a line") from error
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise UserError(f"{name}: empty; it should hold a path a line")
    return [
        crawl_root + path
        if path.startswith("crawl-data/") and not os.path.exists(path)
        else _absolute(path)
        for path in found
    ]


def _source(path: str, url_column: str | None, text_column: str | None, count: int) -> Source:
    """Returns a file with its kind; sizes are asked for unless there are very many files."""
    asked = storage.is_local(path) or (count <= CHECKED and not path.startswith(WEB))
    size = storage.size(path) if asked else None
    if size is None and asked:
        raise UserError(f"{path}: no such file; check the path")
    if size == 0:
        raise UserError(f"{path}: empty file; remove it from the inputs or fetch it again")
    found = _kind_by_name(path) or _kind_by_start(path)
    if found is None:
        raise UserError(f"{path}: of no known kind; {KNOWN}")
    kind, table = found
    if kind == "table":
        return Source(path, kind, size, table, url_column, text_column)
    return Source(path, kind, size)


def _kind_by_name(path: str) -> tuple[Kind, TableFormat | None] | None:
    name = path.partition("?")[0] if path.startswith(WEB) else path
    name = name.rpartition("/")[2].lower()
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
        start = file.read(LOOKED_AT)
    if start.startswith(b"PAR1"):
        return "table", "parquet"
    pieces = read_pieces(io.BytesIO(start), path, Tally(), lambda done: None)
    start = (next(pieces).data or b"").lstrip()
    if start.startswith(b"WARC/"):
        return "warc", None
    if start.startswith(b"filedesc:"):
        return "arc", None
    return ("table", "jsonl") if start.startswith(b'{"') else None
