"""Real files for a fuzz run to begin with: small ones, of every kind that there is."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import itertools
import re
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests import faulty
from tests.fuzz.targets import KINDS, NEXT, WAYS

SMALL = 48 * 1024  # bytes of a file; of larger ones nothing is taken
MEMBERS = 150  # records of a crawl file, each of them a file of its own
OF_A_KIND = 80  # files of an extension
ROWS = 20  # of a table
PICTURES = frozenset(("png", "jpg", "jpeg", "gif", "bmp", "tif", "tiff", "webp", "avif", "heic"))
PICTURES |= {"heif", "ico", "tga", "ff", "hdr", "pbm", "dat", "bin", "qoi", "exr"}
CRAWLS = (".warc", ".warc.gz", ".arc", ".arc.gz", ".wat", ".wat.gz", ".warc.zst")
ARCHIVES = (".tar", ".tar.gz", ".tar.xz", ".tgz")
RECORD = re.compile(rb"WARC/1\.[01]\r\n.*?\r\n\r\n", re.DOTALL)


def seeds(folder: Path | None) -> dict[str, list[bytes]]:
    """Inputs for each target: made here, and out of a folder of files and archives."""
    found = {name: list(made) for name, made in made_here().items()}
    kinds: dict[tuple[str, str], list[bytes]] = defaultdict(list)
    for name, data in files(folder) if folder else ():
        for target, kind, seed in inputs_of(name, data):
            kinds[target, kind].append(seed)
    for (target, _), entries in sorted(kinds.items()):
        entries.sort(key=lambda seed: hashlib.sha256(seed).digest())
        found[target] += entries[:OF_A_KIND]
    return {target: list(dict.fromkeys(entries)) for target, entries in found.items()}


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of the files in a folder, those in its archives too."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        if path.name.endswith(ARCHIVES):
            with tarfile.open(path) as tar:
                for member in tar:
                    whole = member.name.endswith(CRAWLS)
                    if member.isfile() and (whole or member.size <= SMALL):
                        file = tar.extractfile(member)
                        yield member.name, file.read() if file else b""
        elif path.stat().st_size <= SMALL or path.name.endswith((*CRAWLS, ".parquet", ".tsv.gz")):
            yield str(path.relative_to(folder)), path.read_bytes()


def inputs_of(name: str, data: bytes) -> Iterator[tuple[str, str, bytes]]:
    """(target, kind, input) of a file, by its name and where it helps by its content."""
    lower = name.lower()
    extension = lower.rpartition(".")[2]
    if extension in PICTURES:
        yield "pictures", extension, data
    elif lower.endswith(CRAWLS):
        if len(data) <= SMALL:
            yield "extract", "crawl", _as("crawl", data)
        yield from _records(data)
    elif extension in ("html", "htm"):
        yield "extract", "page", _as("page", data)
    elif extension == "parquet" or lower.endswith(".tsv.gz"):
        yield from _tables(lower, data)
    elif "robots" in lower and len(data) <= SMALL:
        text = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + data
        yield "responses", "robots", bytes([WAYS.index("robots")]) + text
        yield "responses", "words", bytes([WAYS.index("words")]) + data


def _as(kind: str, data: bytes) -> bytes:
    return bytes([KINDS.index(kind)]) + data


def _records(data: bytes) -> Iterator[tuple[str, str, bytes]]:
    """The records of a crawl file: packed, as they stand, and what they hold."""
    for packed, record in _members(data):
        if not 0 < len(record) <= SMALL:
            continue
        yield "extract", "packed record", _as("crawl", packed)
        yield "extract", "record", _as("crawl", record)
        block = record.partition(b"\r\n\r\n")[2]
        if block.startswith(b"HTTP/"):
            yield "extract", "response", _as("response", block)
            yield "extract", "page", _as("page", block.partition(b"\r\n\r\n")[2])
            yield "responses", "picture", bytes([WAYS.index("picture")]) + block.rstrip(b"\r\n")
        elif block.startswith(b"{"):
            yield "extract", "wat", _as("wat", block.rstrip(b"\r\n"))


def _members(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Packed and plain bytes of a gzip file's first members, or of a plain file's records."""
    if not data.startswith(b"\x1f\x8b"):
        starts = [match.start() for match in RECORD.finditer(data)][: MEMBERS + 1]
        for start, end in zip(starts, [*starts[1:], len(data)], strict=False):
            yield gzip.compress(data[start:end], mtime=0), data[start:end]
        return
    for _ in range(MEMBERS):
        unpack = zlib.decompressobj(31)
        try:
            plain = unpack.decompress(data, 16 * SMALL)
        except zlib.error:
            return
        if not unpack.eof:
            return
        rest = unpack.unused_data
        yield data[: len(data) - len(rest)], plain
        data = rest


def _tables(name: str, data: bytes) -> Iterator[tuple[str, str, bytes]]:
    """The first rows of a table, in each of the formats."""
    if name.endswith(".parquet"):
        table = pq.read_table(io.BytesIO(data)).slice(0, ROWS)
    else:
        with gzip.open(io.BytesIO(data), "rt") as file:
            rows = [line.rstrip("\n").split("\t") for line in itertools.islice(file, ROWS)]
        texts, urls = zip(*((row[0], row[-1]) for row in rows), strict=True)
        table = pa.table({"url": urls, "caption": texts})
    columns = table.column_names
    for codec in ("none", "snappy", "zstd"):
        stored = io.BytesIO()
        pq.write_table(table, stored, compression=codec)
        yield "extract", "parquet", _as("parquet", stored.getvalue())
    for kind, delimiter in (("csv", ","), ("tsv", "\t")):
        text = io.StringIO()
        writer = csv.writer(text, delimiter=delimiter)
        writer.writerows([columns, *zip(*(table[c].to_pylist() for c in columns), strict=True)])
        yield "extract", kind, _as(kind, text.getvalue().encode())
    lines = table.select(columns[:4]).to_pandas().to_json(orient="records", lines=True)
    yield "extract", "jsonl", _as("jsonl", lines.encode())


# --- made here --------------------------------------------------------------------------------

PAGES = (
    b"<!doctype html><base href='/b/'><img src=a.jpg alt='a cat'><picture><source srcset='x.webp "
    b"2x, y.webp 1x'><img src='data:,' alt=\"caf&eacute; &#x41;\"></picture><figure><img data-src="
    b"c.png><figcaption>a <b>dog</b></figcaption></figure><noscript><img src=a.jpg alt='a cat'>"
    b"</noscript><svg><image href=x /><![CDATA[<img>]]></svg><script><!--<script></script>-->"
    b"</script>",
    b"\xef\xbb\xbf<img src=//x.org/\xe6\x97\xa5.jpg title='\xe6\x97\xa5\xe6\x9c\xac'>",
    "<meta charset=shift_jis><img src=a.gif alt='日本語'>".encode("shift_jis"),
)
WAT = (
    b'{"Envelope":{"Payload-Metadata":{"HTTP-Response-Metadata":{"HTML-Metadata":{"Head":{"Base":'
    b'"/b/","Title":"t"},"Links":[{"path":"A@/href","url":"x"},{"path":"IMG@/src","url":"a.jpg",'
    b'"alt":"a \\u00e9 cat","title":" t "},{"url":"data:,","srcset":"b.jpg 2x","alt":"b","path":'
    b'"IMG@/src"}]}}}}}'
)
ROBOTS = (
    b"User-agent: *\nDisallow: /private\nAllow: /private/x$\nCrawl-delay: 0.5\n\nUser-agent: "
    b"fuzzbot\nDisallow: /*.jpg?\nRequest-rate: 1/5s\nContent-Signal: ai-train=no\n"
)
WORDS = (
    ROBOTS,
    b'[{"location": "/a/*", "tdm-reservation": 1}, {"location": "/", "tdm-reservation": "0"}]',
    b"otherbot: noindex, unavailable_after: Sat, 25 Jun 2010 15:00:00 PST, noai",
    b"Wed, 21 Oct 2026 07:28:00 GMT",
    b"http://xn--p1ai.example:8080/%7e/../a?b#c",
    b"120",
)


def made_here() -> dict[str, list[bytes]]:
    """Inputs that need no other file: enough to reach most of the code."""
    page = PAGES[0]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(page), page)
    bodies = [
        head + b"\r\n" + page,
        head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked,
        head + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(page, mtime=0),
        head + b"Content-Encoding: deflate\r\n\r\n" + zlib.compress(page),
    ]
    record = (
        b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://example.org/\r\n"
        b"Content-Type: application/http\r\nContent-Length: %d\r\n\r\n%s\r\n\r\n"
    )
    records = [record % (len(body), body) for body in bodies]
    arc = b"http://example.org/ 1.2.3.4 20080430204825 text/html %d\n%s\n"
    arc %= (len(bodies[0]), bodies[0])
    table = b'url,caption\nhttp://a.org/1.jpg,a cat\nhttp://a.org/2.jpg,"a, b"\n'
    extract = [_as("page", page) for page in PAGES] + [_as("response", body) for body in bodies]
    extract += [_as("crawl", b"".join(records)), _as("crawl", gzip.compress(records[0], mtime=0))]
    extract += [_as("crawl", arc), _as("wat", WAT), _as("csv", table)]
    extract += [_as("tsv", table.replace(b",", b"\t"))]
    extract += [_as("jsonl", b'{"url": "http://a.org/1.jpg", "text": "a cat"}\n' * 3)]
    stored = io.BytesIO()
    pq.write_table(pa.table({"url": ["http://a.org/1.jpg"], "text": ["a cat"]}), stored)
    extract.append(_as("parquet", stored.getvalue()))
    kinds = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")
    answers = [data for data in faulty.FIXED.values() if len(data) < SMALL]
    answers += [body.replace(b"text/html", b"image/jpeg") for body in bodies]
    answers.append(
        NEXT.join((answers[-1].replace(b"200 OK\r\n", b"302 X\r\nLocation: /b\r\n"),) * 2)
    )
    robots = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(ROBOTS), ROBOTS)
    responses = [bytes([WAYS.index("picture")]) + data for data in answers]
    responses += [bytes([WAYS.index("robots")]) + data for data in (robots, *answers[-2:])]
    responses += [bytes([WAYS.index("words")]) + data for data in WORDS]
    made = [faulty.picture(40, 30, kind) for kind in kinds]
    return {"extract": extract, "pictures": made, "responses": responses}
