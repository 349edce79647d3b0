"""Wikitext as a reader sees it in running text, to count words and pairs of words.

Removed with their content: comments; templates, parameters and parser functions; tables, HTML's as
well; `<ref>`, `<references>`, `<math>`, `<gallery>`, `<syntaxhighlight>` and the like; pictures and
sounds with their captions; categories and links to other languages; magic words; addresses. Kept:
the text of links with the letters behind them, headings, items of lists, what stands in other
tags, `<nowiki>`, `<pre>` and `<poem>`; entities are decoded. A line ends where text must not be
joined: at headings, paragraphs and items, at block tags, and where a template, a table, a picture,
a formula or an address was. References, comments, bold and italic leave nothing behind: the words
on both sides are neighbours to a reader. A line that goes on in the next one, as a paragraph may,
is joined with it.

What is not closed is text, as in MediaWiki: an unclosed `{{` or `[[` removes nothing, an unclosed
`<!--` removes the rest. A line that begins with a pipe is a row of a table and removed even where
the table's opener is in a template. Not read: language variants (`-{zh-hans:...}-`), and aliases
of namespaces in other languages than English, unless a link's target ends as a picture's does.

The rules are those of MediaWiki's Preprocessor, Sanitizer and Parser (handleInternalLinks,
doQuotes, handleDoubleUnderscore). tests/query_list/test_plain_text_peer.py says where the result
differs from mwparserfromhell's, and who is right.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from query_list.wikitext_names import STACK, STATE, name_table
from wit import kernels_loader, text

KERNEL = "query_list.kernels_wikitext"
SOURCES = (
    "query_list.kernels_lines",
    "query_list.kernels_markup",
    "query_list.wikitext_names",
    "wit.kernels_text",
)
SPECIAL = b"\n<[]|'{}&:_"  # bytes that may mean something inside a line


def plain_text(
    wikitext: pa.Array | pa.ChunkedArray, namespaces: Mapping[int, str]
) -> pa.LargeStringArray:
    """The readable text of pages, line by line.

    Args:
        wikitext: string or large_string [pages], no longer escaped for XML; null stays null.
        namespaces: local names of the wiki's namespaces by number, of which 6 (pictures), -2
            (media) and 14 (categories) are used; English ones are known always.

    Returns: large_string [pages].
    """
    return strip(wikitext, namespaces)[0]


def strip(
    wikitext: pa.Array | pa.ChunkedArray, namespaces: Mapping[int, str]
) -> tuple[pa.LargeStringArray, int]:
    """As `plain_text`, with the number of bytes that were looked at, which is its time."""
    kernel = kernels_loader.load(KERNEL, *SOURCES)["strip_rows"]
    array = text.plain_array(wikitext)
    source, table = text.Buffers.of(array), name_table(namespaces)
    used = int(source.offsets[-1] - source.offsets[0])
    out = np.empty(used + used // 4 + 64, np.uint8)  # &nGt; is five bytes and becomes six
    offsets = np.zeros(len(array) + 1, np.int64)
    classes = np.zeros(256, np.uint8)
    classes[list(SPECIAL)] = 1
    work = kernel(
        source.data, source.offsets, source.valid, len(array), classes, table.index, table.names,
        np.empty(STACK, np.int64), np.empty(STATE, np.int64), table.raw_tags, out, offsets,
    )  # fmt: skip
    valid = array.is_valid().buffers()[1] if array.null_count else None
    buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(out[: offsets[-1]])]
    return pa.Array.from_buffers(pa.large_string(), len(array), buffers), work
