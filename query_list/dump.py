"""Pages of a MediaWiki XML dump (pages-articles; export versions 0.6 to 0.11), split by split.

Wikitext comes with `<` and `>` escaped, so that tags are found as bytes and no XML parser is
needed: `<page>` begins a page wherever it stands. A page belongs to the split in whose unpacked
bytes its `<page>` begins; its reader goes on into the next split until the page ends.

Source: https://www.mediawiki.org/wiki/Help:Export#Export_format and export-0.11.xsd.
"""

import contextlib
import functools
import re
import urllib.parse
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from query_list import bzip2
from query_list.pages import LARGEST, Counts, Gathered, Pages, Site, chunks, head
from query_list.pages import check_site as check_site
from query_list.pages import plan_splits as plan_splits
from wit import kernels_loader
from wit.errors import UserError

OPEN, CLOSE, LAST = b"<page>", b"</page>", b"</mediawiki>"
TAIL = 64  # bytes kept that hold no whole tag: part of a tag, or the dump's last one

ENCODING = re.compile(rb"<\?xml[^>]*?encoding=[\"']([^\"']*)")
ROOT = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<mediawiki\b([^>]*)>", re.DOTALL)
SITE_INFO = re.compile(rb"<siteinfo>.*?</siteinfo>", re.DOTALL)
TITLE = re.compile(rb"<title>([^<]+)</title>")
NAMESPACE = re.compile(rb"<ns>(-?[0-9]{1,9})</ns>")
REDIRECT = re.compile(rb'<redirect title="([^"<]*)"')
MODEL = re.compile(rb"<model>([^<]*)</model>")
TEXT = re.compile(rb"<text\b([^>]*?)(/?)>")
STUB = re.compile(rb'\s(?:id|location)="')  # of a text that stands elsewhere
REFERENCE = re.compile(rb"&(?:(lt|gt|amp|quot|apos)|#([0-9]{1,9})|#x([0-9A-Fa-f]{1,9}));")
NAMED = {b"lt": b"<", b"gt": b">", b"amp": b"&", b"quot": b'"', b"apos": b"'"}


class Page(NamedTuple):
    """A page as it goes into `PAGES`, in UTF-8."""

    title: bytes
    redirect: bytes | None
    text: bytes | None


class _Refused(Exception):
    """A page that is malformed; the reason."""


# --- the head of a dump -----------------------------------------------------------------------


def read_site(path: str) -> Site:
    """What the dump's head says about its wiki; without a siteinfo only the language.

    Raises:
        UserError: if the file is absent, is no MediaWiki dump in UTF-8, or is too old (before
            version 0.6, whose pages do not name their namespace).
    """
    data = head(path, b"</siteinfo>")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:8]:
        raise UserError(f"{path}: is UTF-16 or UTF-32; dumps are UTF-8: recode it (iconv -t UTF-8)")
    data = data.removeprefix(b"\xef\xbb\xbf")
    encoding = ENCODING.match(data)
    if encoding and encoding[1].upper() != b"UTF-8":
        named = encoding[1].decode("ascii", "replace")
        raise UserError(f"{path}: is {named}; dumps are UTF-8: recode it (iconv -t UTF-8)")
    root = ROOT.match(data)
    if not root:
        raise UserError(
            f"{path}: is no MediaWiki dump: it begins with {data[:40]!r} and not with <mediawiki>"
        )
    version = _attribute(root[1], "version")
    if re.fullmatch(r"0\.[0-5]", version):
        raise UserError(f"{path}: is of export version {version}; 0.6 and later are read")
    language = _attribute(root[1], "xml:lang")
    info = SITE_INFO.search(data)
    if not info:
        return Site("", language, "", "", "", {})
    try:
        tree = ElementTree.fromstring(info[0])
        names = {int(name.attrib["key"]): name.text or "" for name in tree.iter("namespace")}
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise UserError(f"{path}: its <siteinfo> is malformed ({error})") from error
    main_page = _title_in(tree.findtext("base", ""))
    fields = [tree.findtext(name, "") for name in ("dbname", "case", "generator")]
    return Site(fields[0], language, main_page, fields[1], fields[2], names)


def _attribute(attributes: bytes, name: str) -> str:
    found = re.search(rb"\s%s=[\"']([^\"']*)" % name.encode(), attributes)
    return found[1].decode("utf-8", "replace") if found else ""


def _title_in(url: str) -> str:
    """The title in a page's URL, https://de.wikipedia.org/wiki/Wikipedia:Hauptseite."""
    path = urllib.parse.urlsplit(url).path
    _, slash, title = path.partition("/wiki/")
    title = title if slash else path.rpartition("/")[2]
    return urllib.parse.unquote(title).replace("_", " ")


# --- the pages --------------------------------------------------------------------------------


def read_pages(path: str, start: int, end: int) -> Pages:
    """The articles and redirects whose page begins in a split, in batches of about 8 MB.

    [start, end) are bytes of the file as stored, as `plan_splits` gives them; any other cuts give
    the same pages in the same order. Malformed pages are left out, and counted by reason.

    Raises:
        UserError: while it is read, if the file is cut, damaged, or has no texts (a stub dump).
    """
    return Pages(functools.partial(_batches, path, start, end))


def _batches(path: str, start: int, end: int, counts: Counts) -> Iterator[pa.RecordBatch]:
    gathered = Gathered()
    with contextlib.closing(chunks(path, start, end)) as pieces:
        for raw in _raw_pages(pieces, path, counts):
            page = _judged(raw, path, counts)
            if page:
                yield from gathered.add(*page)
    yield from gathered.rest()


def _raw_pages(pieces: Iterator[tuple[bytes, bool]], path: str, counts: Counts) -> Iterator[bytes]:
    """Yields what stands between <page> and </page>, as stored."""
    held = bytearray()  # from the page that is open, or the last bytes
    passed = 0  # unpacked bytes of the split before those held
    own = None  # unpacked bytes of the split
    opened = False  # whether `held` begins with an open page
    for data, beyond in pieces:
        if not beyond:
            counts["bytes"] += len(data)
        elif own is None:
            own = passed + len(held)
        searched = max(0, len(held) - len(CLOSE))
        held += data
        at = 0
        while True:
            begin = held.find(OPEN, at)
            opened = begin >= 0
            if not opened:
                at = max(at, len(held) - TAIL)
                break
            if own is not None and passed + begin >= own:
                return
            stop = held.find(CLOSE, max(begin, searched))
            large = (len(held) - len(CLOSE) if stop < 0 else stop) - begin > LARGEST
            if stop < 0 and not large:
                at = begin
                break
            counts["pages"] += 1
            inner = held.find(OPEN, begin + 1, len(held) if stop < 0 else stop)
            if inner >= 0:
                counts["malformed: page without end"] += 1
                at = inner
                continue
            if large:
                counts["too_large"] += 1
            else:
                yield bytes(held[begin + len(OPEN) : stop])
            at = begin + len(OPEN) if stop < 0 else stop + len(CLOSE)
        del held[:at]
        passed += at
        if own is not None and passed >= own:
            return
    if opened:
        raise UserError(f"{path}: ends inside a page: it is cut; {bzip2.GET_AGAIN}")
    rest = held.rstrip()
    if LAST not in rest and not (passed == 0 and LAST.endswith(rest)):
        raise UserError(f"{path}: ends without </mediawiki>: it is cut; {bzip2.GET_AGAIN}")


def _judged(raw: bytes, path: str, counts: Counts) -> Page | None:
    """The page, counted; None where it is left out."""
    try:
        page = _parsed(raw, path, counts)
        if page:
            for value in page:
                if value and not value.isascii():
                    value.decode()
    except UnicodeError:
        counts["not_utf8"] += 1
        return None
    except _Refused as error:
        counts[f"malformed: {error}"] += 1
        return None
    if page and page.redirect is not None:
        counts["redirects"] += 1
    elif page:
        counts["articles"] += 1
        counts["empty"] += not page.text
    return page


def _parsed(raw: bytes, path: str, counts: Counts) -> Page | None:
    """The page of what stands between <page> and </page>; None where it is no article."""
    first = raw.find(b"<revision>")
    if first < 0:
        raise _Refused("no revision")
    title, namespace = TITLE.search(raw, 0, first), NAMESPACE.search(raw, 0, first)
    if not title:
        raise _Refused("no title")
    if not namespace:
        raise _Refused("no namespace")
    if int(namespace[1]) != 0:
        counts["other_namespaces"] += 1
        return None
    redirect = REDIRECT.search(raw, 0, first)
    if redirect:
        return Page(_unescaped(title[1]), _unescaped(redirect[1]), None)
    last = raw.rfind(b"<revision>")  # the newest, in a dump with history
    tag = TEXT.search(raw, last)
    if not tag:
        raise _Refused("no text")
    model = MODEL.search(raw, last, tag.start())
    if model and model[1] != b"wikitext":
        counts["other_models"] += 1
        return None
    if tag[2]:
        if STUB.search(tag[1]):
            raise UserError(f"{path}: is a stub dump, without texts; get pages-articles")
        return Page(_unescaped(title[1]), None, b"")
    stop = raw.find(b"</text>", tag.end())
    if stop < 0:
        raise _Refused("text without end")
    return Page(_unescaped(title[1]), None, _text(raw, tag.end(), stop))


def _text(raw: bytes, start: int, end: int) -> bytes:
    """`_unescaped` of raw[start:end], mostly at the speed of memory."""
    kernel = kernels_loader.load("query_list.kernels_xml")["unescape"]
    out = np.empty(max(1, end - start), np.uint8)
    written = kernel(np.frombuffer(raw, np.uint8), start, end, out)
    if written >= 0:
        return out[:written].tobytes()
    text = raw[start:end]
    if b"<" in text:
        raise _Refused("markup in text")
    return _unescaped(text)


def _unescaped(data: bytes) -> bytes:
    """The characters that XML means: its references and line ends resolved."""
    return REFERENCE.sub(_character, data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))


def _character(reference: re.Match[bytes]) -> bytes:
    name, decimal, hexadecimal = reference.groups()
    if name:
        return NAMED[name]
    code = int(decimal) if decimal else int(hexadecimal, 16)
    if not 0 < code <= 0x10FFFF or 0xD800 <= code < 0xE000:
        raise _Refused("reference to no character")
    return chr(code).encode()
