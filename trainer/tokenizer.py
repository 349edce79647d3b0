"""CLIP's tokenizer: the ids of OpenAI's and open_clip's, many times as fast.

ftfy repairs the text, HTML entities are resolved twice, letters are made small; what stands between
white space is cut into pieces (contractions, rows of letters, single digits, the rest), whose bytes
are merged by rank. What makes it fast:

- Of printable ASCII ftfy changes only entities that end in a semicolon. Text without goes round it.
- No piece goes across white space: ids are looked up by word, in a bounded cache.
- The words of a batch that the cache lacks are merged by one call of a compiled kernel.
- Ids are kept as bytes: a caption's are joined and a batch's laid out without a loop over them.
"""

import functools
import gzip
import html
import itertools
from collections.abc import Collection, Sequence
from pathlib import Path

import ftfy
import numpy as np
import regex

from wit import kernels_loader

MERGES = Path(__file__).parent / "data" / "bpe_simple_vocab_16e6.txt.gz"
START, END = 49_406, 49_407
LENGTH = 77  # tokens of a row, START and END among them
TRIM = 8  # tokens; few lengths, so that few kernels are made for them

# A piece that is a token's name is that token, in OpenAI's tokenizer too. The bytes that stand for
# these two on their way through the kernel occur in no UTF-8.
SPECIAL = {"<start_of_text>": b"\xfe", "<end_of_text>": b"\xff"}
PIECE = regex.compile(
    "|".join(SPECIAL) + r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)
KERNELS = "trainer.kernels_bpe"
SLOTS = 1 << 17  # of the table of merges; a power of two

CACHED_WORDS = 1 << 17  # some 25 MB
LONGEST_CACHED = 40  # characters


class Words(dict[str, bytes]):
    """The ids (uint16) of words; of one that is not kept they are found when it is asked for."""

    def __missing__(self, word: str) -> bytes:
        return encode([word])[0]


_words = Words()


def tokenize(texts: Sequence[str], length: int = LENGTH) -> tuple[np.ndarray, np.ndarray]:
    """Returns tokens, int64 [n, length], and how many there are in each row, int64 [n].

    A row is START, ids, END, zeros; ids that find no room (length is 2 to LENGTH) are left out
    before END. Any strings are allowed, the empty one too.
    """
    if not 2 <= length <= LENGTH:
        raise ValueError(f"{length} tokens a row: choose 2 to {LENGTH}")
    if len(_words) > CACHED_WORDS:
        _words.clear()  # a thread that counts on a word gets it through __missing__
    rows = [clean(text).split() for text in texts]
    missing = set().union(*rows).difference(_words)
    missing = [word for word in missing if len(word) <= LONGEST_CACHED]
    _words.update(zip(missing, encode(missing), strict=True))

    room = length - 2
    ids = [b"".join(map(_words.__getitem__, row))[: 2 * room] for row in rows]
    counts = np.fromiter(map(len, ids), np.int64, len(ids)) // 2
    tokens = np.zeros((len(rows), length), np.int64)
    tokens[:, 0] = START
    tokens[:, 1:-1][np.arange(room) < counts[:, None]] = np.frombuffer(b"".join(ids), np.uint16)
    tokens[np.arange(len(rows)), counts + 1] = END
    return tokens, counts + 2


def trimmed(tokens: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The rows, int64 [n, L], cut to the longest of them in steps of TRIM; a copy.

    Exact where no token looks at a later one.
    """
    longest = -(-int(counts.max()) // TRIM) * TRIM
    return tokens[:, :longest].copy()


def clean(text: str) -> str:
    """The text that is cut into words at white space."""
    if not (text.isascii() and text.isprintable()) or ("&" in text and ";" in text):
        text = ftfy.fix_text(text)
    if "&" in text:
        text = html.unescape(html.unescape(text))
    return text.lower()


def encode(words: Collection[str]) -> list[bytes]:
    """The ids (uint16) of each word, without white space; of a long one the first LENGTH."""
    if not words:
        return []
    # What is all letters is one piece: most words, and a slow regular expression.
    cut = [[w] if w.isascii() and w.isalpha() else PIECE.findall(w) for w in words]
    pieces = [SPECIAL.get(p) or p.encode() for p in itertools.chain.from_iterable(cut)]
    ids, ends = merge(pieces)
    last = np.cumsum(np.fromiter(map(len, cut), np.int64, len(cut)))  # piece of each word
    ends = 2 * np.concatenate([[0], ends])[last]
    starts = np.concatenate([[0], ends[:-1]])
    ends = np.minimum(ends, starts + 2 * LENGTH)
    data = ids.tobytes()
    return [data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def merge(pieces: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The ids of all pieces, none of them empty: uint16; and where each piece's end, int64 [n]."""
    sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
    data = np.frombuffer(b"".join(pieces), np.uint8)
    ends, longest = np.cumsum(sizes), int(sizes.max(initial=0))
    ids = np.empty(len(data), np.uint16)
    links = [np.empty(longest, np.int32) for _ in range(3)]
    count = kernels_loader.load(KERNELS)["merge_pieces"](
        data, ends, len(pieces), *tables(), SLOTS - 1, *links, np.empty(2 * longest, np.uint64), ids
    )
    return ids[:count], ends


def byte_names() -> dict[int, str]:
    """The letter that stands for each byte in names of tokens, in the vocabulary's order.

    Printable ones of Latin-1 are themselves and come first, the others letters from 256 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def vocabulary() -> tuple[dict[str, int], list[str]]:
    """(id of each token by its name, the merges in the order of their rank as "LEFT RIGHT").

    The bytes come first, then again as ends of a piece, then the result of each merge.
    """
    names = list(byte_names().values())
    ids = {name: i for i, name in enumerate([*names, *(name + "</w>" for name in names)])}
    lines = gzip.decompress(MERGES.read_bytes()).decode().split("\n")
    merges = lines[1 : 1 + START - len(ids)]
    for line in merges:
        ids[line.replace(" ", "")] = len(ids)
    return ids, merges


@functools.cache
def tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the kernel needs: letters, pairs and ids, int64 [256], [SLOTS], [SLOTS]."""
    letters = np.empty(256, np.int64)
    letters[list(byte_names())] = np.arange(256)
    letters[[0xFE, 0xFF]] = START - 256, END - 256  # see SPECIAL
    named, lines = vocabulary()
    sides = [line.split() for line in lines]
    merges = [named[left] << 16 | named[right] for left, right in sides]
    pairs, ids = np.empty(SLOTS, np.int64), np.empty(SLOTS, np.int64)
    fill = kernels_loader.load(KERNELS)["fill_table"]
    fill(np.array(merges), len(merges), START - len(merges), pairs, ids, SLOTS - 1)
    return letters, pairs, ids
