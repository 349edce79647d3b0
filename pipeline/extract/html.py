"""Image links out of a page's HTML: one address and the texts of each image element.

An image element is an <img> (also <image>, which HTML takes for it) or AMP's <amp-img>. Of the
addresses that it names, one counts: the one a reader would see.

1. A lazy-loading attribute, if it holds an address: then `src` is a stand-in (on the 79 test pages
   that have both, 1x1 pictures, spinners and logos shared by all images of a page; see LAZY).
2. `src`, unless it is empty or a data: URL.
3. The largest of a lazy srcset, of `srcset`, of the <source>s of its <picture>.
4. Any other data- attribute with an address that ends as pictures' do.

Its texts are `alt`, `title`, `data-image-title` and the <figcaption> of the innermost <figure>.
Images in <template> are not on the page. Those in <noscript> are, for readers without scripts;
where one only repeats an image beside it, it is counted as `noscript_twin`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.extract import tokens
from pipeline.extract.rows import Rows, distinct_texts
from pipeline.tally import Tally

# The lazy-loading attributes of the libraries and plugins in use, the most common first.
LAZY = (
    *("data-src", "data-lazy-src", "data-original", "data-lazy", "data-original-src"),
    *("data-orig-src", "data-cfsrc", "data-lsrc", "data-gt-lazy-src", "data-zeen-src", "lazysrc"),
    *("data-dejavu-src", "data-m-lazyloader-src", "data-pagespeed-lazy-src", "data-ezsrc"),
    *("data-lazyload", "data-lazyload-src", "data-lazy-load", "data-lazy-original", "data-echo"),
    *("data-defer-src", "data-delayed-url", "data-lateloadsrc", "data-img-src", "data-img-url"),
    *("data-hi-res-src", "data-high-res-src", "data-flickity-lazyload", "data-wpfc-original-src"),
    *("data-li-src", "data-opt-src", "data-breeze", "data-src-large", "nitro-lazy-src"),
)
LAZY_SRCSET = ("data-srcset", "data-lazy-srcset", "data-original-set", "nitro-lazy-srcset")
TEXTS = ("alt", "title", "data-image-title")
MOST_IMAGES = 20_000  # of a page; ordinary ones have fewer than 2,000
LONGEST_CAPTION = 4096  # bytes of HTML; more is no caption
NONE = 2**31  # beyond any page

_LAZY = frozenset(LAZY)
_ATTRIBUTE = re.compile(
    rb"([^ \t\n\r\f/][^ \t\n\r\f/>=]*)"
    rb"""(?:[ \t\n\r\f]*=[ \t\n\r\f]*(?:"([^"]*)"|'([^']*)'|([^ \t\n\r\f>"'][^ \t\n\r\f>]*)))?"""
)
_ENTITY = re.compile(
    r"&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[A-Za-z][A-Za-z0-9]*(?:;|(?![A-Za-z0-9=])))"
)
_MARKUP = re.compile(
    rb"<!--.*?(?:-->|\Z)|<(script|style|noscript|svg)[ \t\n\r\f/>].*?(?:</\1[ \t\n\r\f/>]|\Z)"
    rb"""|</?([a-z][a-z0-9-]*)(?:[^>"']|"[^"]*"|'[^']*')*>?""",
    re.IGNORECASE | re.DOTALL,
)
_INLINE = frozenset(
    b"a abbr b bdi bdo cite code data dfn em font i kbd mark q s samp small span strong sub sup "
    b"time u var wbr".split()
)
_PICTURE_NAME = re.compile(r"\.(?:jpe?g|png|webp|gif|avif|bmp|tiff?|jfif)(?:$|[?#])", re.IGNORECASE)
_SEPARATORS, _NO_SPACE = re.compile(r"[\s,]*"), re.compile(r"\S*")
_WIDTH = re.compile(r"(?<!\S)([0-9]{1,9}(?:\.[0-9]{1,9})?)[wx](?![^\s,])")


@dataclass(slots=True)
class Image:
    """An image element: its attributes, and what stands round it.

    Attributes:
        attributes: lower-case names and decoded values; of equal names the first.
        noscript: whether it stands in <noscript>.
        sources: the srcsets of the <source>s in its <picture>.
        captions: of its <figure>, one or none; shared by the figure's images.
    """

    attributes: dict[str, str]
    noscript: bool = False
    sources: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)


def extract(page: bytes, page_url: str, offset: int, rows: Rows, tally: Tally) -> None:
    """Adds the page's image links to `rows`, and counts those without a text.

    Args:
        page: HTML in UTF-8 (`pipeline.extract.encoding`).
        page_url: where it was found.
        offset: of its record, for provenance.
        rows: takes the links.
        tally: counts pages, images and texts.
    """
    images, base_href, more = find_images(page)
    tally.see("pages")
    tally.see("images", len(images) + more)
    tally.add("too_many_images", more)
    links: list[tuple[str, str, str]] = []
    noscript: list[bool] = []
    without = extra = 0
    for image in images:
        texts = distinct_texts(
            [(name, image.attributes.get(name)) for name in TEXTS]
            + [("figcaption", caption) for caption in image.captions]
        )
        if not texts:
            without += 1
            continue
        raw, _ = choose_address(image)
        links += [(raw, text, attribute) for attribute, text in texts]
        noscript += [image.noscript] * len(texts)
        extra += len(texts) - 1
    rows.add_page(links, noscript, page_url, base_href, offset)
    tally.add("no_text", without)
    tally.see("extra_texts", extra)


def find_images(page: bytes) -> tuple[list[Image], str | None, int]:
    """The image elements of a page in UTF-8, in order, and the href of its <base>.

    The last value is how many more images there are than MOST_IMAGES.
    """
    images: list[Image] = []
    more = 0
    base_href = None
    noscript = template = 0
    figures: list[list[str]] = []  # the captions of the open figures
    sources: list[str] | None = None  # of the open picture
    caption_start = NONE
    for kind, start, end in _tags(page):
        if template and abs(kind) != tokens.TEMPLATE:
            continue
        if kind in (tokens.IMG, tokens.AMP_IMG):
            if len(images) == MOST_IMAGES:
                more += 1
                continue
            image = Image(parse_attributes(page[start:end]), noscript > 0)
            if figures:
                image.captions = figures[-1]
            if sources:
                image.sources = sources
            images.append(image)
        elif kind == tokens.SOURCE:
            if sources is not None:
                found = parse_attributes(page[start:end])
                sources += [found[n] for n in ("srcset", *LAZY_SRCSET) if n in found]
        elif kind == tokens.PICTURE:
            sources = []
        elif kind == -tokens.PICTURE:
            sources = None
        elif kind == tokens.FIGURE:
            figures.append([])
            caption_start = NONE
        elif kind == tokens.FIGCAPTION:
            caption_start = end + 1
        elif kind in (-tokens.FIGCAPTION, -tokens.FIGURE):
            if figures and not figures[-1] and 0 <= start - caption_start <= LONGEST_CAPTION:
                figures[-1].append(text_of(page[caption_start:start]))
            caption_start = NONE
            if kind == -tokens.FIGURE and figures:
                figures.pop()
        elif kind == tokens.NOSCRIPT:
            noscript += 1
        elif kind == -tokens.NOSCRIPT:
            noscript = max(0, noscript - 1)
        elif kind == tokens.BASE and base_href is None:
            base_href = parse_attributes(page[start:end]).get("href")
        elif abs(kind) == tokens.TEMPLATE:
            template = max(0, template + (1 if kind > 0 else -1))
    return images, base_href, more


def _tags(page: bytes) -> Iterator[list[int]]:
    """The rows of `tokens.find_tags`, as numbers of Python's, a part of them at a time."""
    found = tokens.find_tags(page)
    for start in range(0, len(found), 4096):
        yield from found[start : start + 4096].tolist()


def parse_attributes(tag: bytes) -> dict[str, str]:
    """Names and values of a start tag's attributes; of equal names the first one counts."""
    found: dict[str, str] = {}
    for name, double, single, bare in _ATTRIBUTE.findall(tag):
        key = name.decode("utf-8", "replace").lower()
        if key not in found:
            value = (double or single or bare).decode("utf-8", "replace")
            found[key] = _ENTITY.sub(_decode, value) if "&" in value else value
    return found


def _decode(match: re.Match[str]) -> str:
    """A character reference in an attribute: without a semicolon only the old ones are taken."""
    reference = match[0]
    if reference[1] == "#":
        return html.unescape(reference)
    return html.entities.html5.get(reference[1:], reference)


def text_of(fragment: bytes) -> str:
    """The text of a piece of HTML: inline tags vanish, all others separate words."""
    if b"<" in fragment:
        fragment = _MARKUP.sub(
            lambda m: b"" if (m[2] or b"").lower() in _INLINE else b" ", fragment
        )
    return html.unescape(fragment.decode("utf-8", "replace"))


def choose_address(image: Image) -> tuple[str, str]:
    """The address that counts, as written, and what it comes from.

    Returns:
        (address, "lazy" | "src" | "srcset" | "picture" | "other"); an address of "" where there is
        none, and the `data:` one where no other is given.
    """
    found = image.attributes
    src = found.get("src", "").strip()
    for name in () if _LAZY.isdisjoint(found) else LAZY:
        if name in found and _is_address(lazy := found[name].strip()):
            if src and lazy.startswith(src) and "is-pending-load=1" in lazy:
                break  # Jetpack: the same picture
            return lazy, "lazy"
    for name in LAZY_SRCSET:
        if name in found and (lazy := best_of_srcset(found[name])):
            return lazy, "lazy"
    if src and not src.startswith("#") and src[:5].lower() != "data:":
        return src, "src"
    if "srcset" in found and (best := best_of_srcset(found["srcset"])):
        return best, "srcset"
    for srcset in image.sources:
        if best := best_of_srcset(srcset):
            return best, "picture"
    for name, value in found.items():
        if name.startswith("data-") and _PICTURE_NAME.search(value) and _is_address(value.strip()):
            return value.strip(), "other"
    return src, "src"


def _is_address(text: str) -> bool:
    """Whether a lazy attribute's value is an address, and not a flag, a size or a template."""
    if not text or text[:5].lower() == "data:":
        return False
    if not text[0].isalnum() and text[0] not in "/._~%?":
        return False
    if any(mark in text for mark in '{}<>"|\n'):
        return False
    return "/" in text or _PICTURE_NAME.search(text) is not None


def best_of_srcset(srcset: str) -> str | None:
    """The address of the widest (or densest) picture of a srcset that is not a data: URL.

    Parsed as the HTML Standard says (4.8.4.3.10), without its parentheses, which nothing uses.
    """
    best, most = None, -1.0
    at = 0
    while at < len(srcset):
        start = _SEPARATORS.match(srcset, at).end()
        end = _NO_SPACE.match(srcset, start).end()
        address = srcset[start:end]
        width = 1.0
        at = end
        if address.endswith(","):
            address = address.rstrip(",")
        else:
            comma = srcset.find(",", end)
            at = comma + 1 if comma >= 0 else len(srcset)
            found = _WIDTH.search(srcset[end:at])
            width = float(found[1]) if found else width
        if address and width > most and address[:5].lower() != "data:" and "{" not in address:
            best, most = address, width
    return best
