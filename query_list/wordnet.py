"""WordNet's lemmas, from the files that Princeton publishes.

A folder with `data.noun`, `data.verb`, `data.adj`, `data.adv` (or with `dict/` that holds them), or
a tar of it as published (WNdb-3.0.tar.gz, wn3.1.dict.tar.gz; also .tar, .tar.bz2, .tar.xz), which
is read as it stands and never unpacked. The format is that of the manual page wndb(5WN).

WordNet 3.0 has 117,659 synsets with 206,978 lemmas, which are 146,740 distinct normal forms. The
86,654 "synsets" of MetaCLIP's list are another selection: 86,554 distinct first lemmas of the
synsets, in lower case and cut at the first full stop, and the numbers 0 to 99 that its set starts
with.
"""

import contextlib
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from wit import storage, text
from wit.errors import UserError

FILES = {"data.noun": "n", "data.verb": "v", "data.adj": "a", "data.adv": "r"}
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MOST_FILE = 64 << 20  # bytes; the largest of 3.0 has 15 MB
MOST_MEMBERS, MOST_TAR = 10_000, 1 << 30  # members and their bytes; 3.0 with its sources: 100 MB
BRING = "bring WNdb-3.0.tar.gz from wordnet.princeton.edu, or the folder dict that is in it"
MARKER = re.compile(r"\((?:a|p|ip)\)$")  # where an adjective may stand
DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)
# offset, lexicographer's file, kind, words and pointers in number; the gloss stands behind a bar.
HEAD = re.compile(r"(\d{8}) \d\d ([nvasr]) ([0-9a-f]{2}) ")


@dataclass(frozen=True)
class WordNet:
    """The lemmas of one version, in the order of the files.

    `lemmas` has the columns lemma (string: spaces for underscores, no adjective marker), offset
    (int32: the synset's byte in its file, its name together with the file), pos (string: n, v, a,
    s for a satellite adjective, or r) and first (bool: the first of its synset).
    """

    version: str
    synsets: int
    lemmas: pa.Table

    def queries(self) -> pa.Array:
        """The distinct normal forms of all lemmas, in the order of the files."""
        forms = text.normalise(self.lemmas["lemma"]).unique()
        return forms.filter(pc.not_equal(forms, ""))


def read_wordnet(path: str) -> WordNet:
    """Reads a folder or a tar; what is missing or damaged is a UserError with file and line."""
    contents = _from_tar(path) if path.endswith(TARS) else _from_folder(path)
    known: set[tuple[str, int]] = set()  # synsets by file and byte
    pointers: dict[tuple[str, int], str] = {}  # synset -> the first place that points to it
    rows: list[tuple[str, int, str, bool]] = []
    versions = {}
    for name, pos in FILES.items():
        place, data = contents[name]
        versions[place] = _version(place, data)
        for number, start, line in _lines(place, data):
            where = f"{place}, line {number}"
            kind, lemmas, targets = _synset(where, start, line)
            rows.extend((lemma, start, kind, i == 0) for i, lemma in enumerate(lemmas))
            known.add((pos, start))
            for target in targets:
                pointers.setdefault(target, where)
        if not any(file == pos for file, _ in known):
            raise UserError(f"{place}: no synsets behind the licence; {BRING}")
    for target in pointers.keys() - known:
        raise UserError(
            f"{pointers[target]}: points to synset {target[1]:08d} of {target[0]}, which is not "
            f"there: a file is cut short or of another version; {BRING}"
        )
    if len(set(versions.values())) > 1:
        said = ", ".join(f"{place}: {version}" for place, version in versions.items())
        raise UserError(f"{path}: files of several versions of WordNet ({said}); {BRING}")
    schema = {"lemma": pa.string(), "offset": pa.int32(), "pos": pa.string(), "first": pa.bool_()}
    columns = dict(zip(schema, zip(*rows, strict=True), strict=True))
    return WordNet(versions[place], len(known), pa.table(columns, pa.schema(schema)))


# --- files ------------------------------------------------------------------------------------


def _from_folder(path: str) -> dict[str, tuple[str, bytes]]:
    """(place, content) of each file."""
    inner = storage.join(path, "dict")
    folder = inner if storage.exists(storage.join(inner, "data.noun")) else path
    found = {}
    for name in FILES:
        place = storage.join(folder, name)
        size = storage.size(place)
        if size is None:
            raise UserError(f"{place}: no such file; {BRING}")
        if size > MOST_FILE:
            raise UserError(f"{place}: {size:,} bytes are too many for WordNet; {BRING}")
        found[name] = place, storage.read_bytes(place)
    return found


def _from_tar(path: str) -> dict[str, tuple[str, bytes]]:
    """(place, content) of each file, from a tar in one pass."""
    found: dict[str, tuple[str, bytes]] = {}
    total = 0
    with _opened(path) as tar:
        for count, member in enumerate(tar, 1):
            total += max(0, member.size)
            if count > MOST_MEMBERS or total > MOST_TAR:
                raise UserError(f"{path}: more than WordNet has, and no end yet; {BRING}")
            name = member.name.rpartition("/")[2]
            if name not in FILES or not member.isreg():
                continue
            place = f"{path}: {member.name!r}"
            if name in found:
                raise UserError(f"{place}: the tar has it already as {found[name][0]}; {BRING}")
            if member.size > MOST_FILE:
                raise UserError(f"{place}: {member.size:,} bytes are too many; {BRING}")
            found[name] = place, tar.extractfile(member).read()
    for name in FILES:
        if name not in found:
            raise UserError(f"{path}: no {name} in this tar; {BRING}")
    return found


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tarfile.TarFile]:
    try:
        with storage.open_read(path) as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            yield tar
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {BRING}") from None
    except (*DAMAGED, OSError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"{path}: cut short, damaged or no tar ({said}); {BRING}") from error


# --- lines ------------------------------------------------------------------------------------


def _version(place: str, data: bytes) -> str:
    """Of the licence that stands before the synsets, in lines that begin with two spaces."""
    found = re.search(rb"WordNet (\d+\.\d+) Copyright", data[:4096])
    if not found:
        raise UserError(f"{place}, line 1: no licence of WordNet stands here; {BRING}")
    return found[1].decode()


def _lines(place: str, data: bytes) -> Iterator[tuple[int, int, str]]:
    """(number, first byte, text) of each line that is not of the licence."""
    start = 0
    for number, line in enumerate(data.split(b"\n"), 1):
        if start == len(data):
            return
        if start + len(line) == len(data):
            raise UserError(f"{place}, line {number}: ends without a line end; {BRING}")
        if not line.startswith(b"  "):
            try:
                yield number, start, line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{place}, line {number}: not UTF-8; {BRING}") from error
        start += len(line) + 1


def _synset(where: str, start: int, line: str) -> tuple[str, list[str], list[tuple[str, int]]]:
    """(kind, lemmas, the synsets it points to) of a line."""
    head = HEAD.match(line)
    fields = line.partition(" | ")[0].split(" ")
    words = int(head[3], 16) if head else 0
    behind = 4 + 2 * words  # the number of pointers, four fields each
    pointers = fields[behind] if words and behind < len(fields) else ""
    if not pointers.isdecimal() or len(fields) < behind + 1 + 4 * int(pointers):
        raise UserError(f"{where}: no synset in the format of wndb(5WN); {BRING}")
    if int(head[1]) != start:
        raise UserError(
            f"{where}: synset {head[1]} begins at byte {start}: lines before it are missing or "
            f"were changed (line ends?); {BRING}"
        )
    lemmas = [MARKER.sub("", word).replace("_", " ") for word in fields[4:behind:2]]
    targets = []
    for at in range(behind + 1, behind + 1 + 4 * int(pointers), 4):
        offset, pos = fields[at + 1], fields[at + 2].replace("s", "a")
        if not offset.isdecimal() or pos not in FILES.values():
            raise UserError(f"{where}: {offset} {pos} is no pointer to a synset; {BRING}")
        targets.append((pos, int(offset)))
    return head[2], lemmas, targets
