"""Real articles, of the shortened dump of the English Wikipedia in ../shared/data."""

import functools
import tarfile
from pathlib import Path

import pyarrow as pa

from query_list.dump import read_pages, read_site
from query_list.plain_text import plain_text
from wit import storage

SOURCES = "text/query_sources.tar.gz"
FOLDER = "07_wiki_wordnet/gensim_wiki_dumps"
DUMP = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"


@functools.cache
def place(shared_data: Path, name: str = DUMP, folder: str = FOLDER) -> str:
    """A path in memory with one of the files of query_sources.tar.gz."""
    path = f"memory://query_sources/{name}"
    with tarfile.open(shared_data / SOURCES) as archive:
        storage.write_bytes(path, archive.extractfile(f"{folder}/{name}").read())
    return path


@functools.cache
def articles(shared_data: Path) -> pa.Table:
    """Title and plain text of the 105 articles of the dump."""
    path = place(shared_data)
    batches = list(read_pages(path, 0, storage.size(path)))
    table = pa.Table.from_batches(batches).filter(pa.compute.field("redirect").is_null())
    plain = plain_text(table["text"], read_site(path).namespaces)
    return pa.table({"title": table["title"], "text": plain})
