"""What stands on the pages of each of the demo's hosts, before it becomes HTML."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.demo import words
from pipeline.demo.pictures import GARMENTS, Picture, pictures
from pipeline.demo.routes import CHAIN

DATA_GIF = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
OUTLET_PAGES, MUSEUM_ROOMS, BLOG_POSTS = 8, 6, 10


@dataclass(frozen=True)
class Item:
    """One picture on a page; `src` is its address as written.

    Where `behind` is given, that stands in `src` and the address waits in the attribute `lazy`.
    """

    src: str
    alt: str | None
    title: str = ""
    caption: str = ""
    prose: str = ""
    price: str = ""
    behind: str = ""
    lazy: str = "data-src"
    noscript: bool = False
    srcset: str = ""
    source: str = ""


@dataclass(frozen=True)
class Sheet:
    """One page: a heading, a line below it, and its pictures in the layout grid, figures or post.

    `charset` is what the page says about its bytes, `encoding` what they are; `content_type` is the
    HTTP header. `links` are (label, path) on the same host, `elsewhere` (label, URL, rel) of
    places that are no pages of ours: other hosts, and what only a crawler would mind.
    """

    path: str
    title: str
    lead: str
    items: Sequence[Item] = ()
    layout: str = "grid"
    strip: Sequence[Item] = ()
    links: Sequence[tuple[str, str]] = ()
    elsewhere: Sequence[tuple[str, str, str]] = ()
    base: str = ""
    lang: str = "en"
    charset: str = "utf-8"
    encoding: str = "utf-8"
    content_type: str = "text/html"


def some(count: int, *context: object) -> list[Picture]:
    """`count` different photographs, drawn by hash from all of them."""
    every = list(pictures().values())
    start, step = words.pick(range(len(every)), *context), 37  # 37 and 298 have no common factor
    return [every[(start + step * i) % len(every)] for i in range(count)]


def of(garment: str) -> list[Picture]:
    """All photographs of one class."""
    return [p for p in pictures().values() if p.garment == garment]


def price(picture: Picture) -> str:
    """An invented price."""
    return f"{words.pick(range(9, 120), 'price', picture.name)}.90 €"


def home(title: str, lead: str, sheets: Sequence[Sheet], **more: object) -> Sheet:
    """A front page with links to the others."""
    return Sheet("/", title, lead, links=[(s.title, s.path) for s in sheets], **more)


def shop() -> Iterator[Sheet]:
    """shop-one: a page for each garment, half of it lazy, with a strip of thumbnails."""
    sheets = []
    for garment in GARMENTS:
        items = []
        for place, p in enumerate(of(garment)):
            style = words.SHOP if place % 2 else words.PLAIN
            item = Item(f"/img/{p.name}.jpg?w=240", words.text(p, style, "shop"), price=price(p))
            if place >= 8:
                behind, lazy = ((DATA_GIF, "data-src"), ("/static/spacer.gif", "data-original"))[
                    place % 2
                ]
                item = replace(item, behind=behind, lazy=lazy, noscript=place % 3 == 0)
            if place % 10 == 4:
                item = replace(item, title=words.text(p, words.SHOP, "title"))
            items.append(item)
        for p in some(4, "sold", garment):
            alt = words.text(p, words.PLAIN, "sold")
            items.append(Item(f"/img/sold/{p.name}.jpg", alt, price="sold"))
        strip = [
            Item(f"/img/{p.name}.jpg?w=120", words.text(p, words.PLAIN, "shop"))
            for p in some(9, "strip", garment)
        ]
        title = words.PLURALS[garment].capitalize()
        lead = f"All the {title.lower()} of the season, photographed in our own studio."
        sheets.append(Sheet(f"/{words.PLURALS[garment]}/", title, lead, items, strip=strip))
    news = [
        Item(f"/img/{p.name}.jpg?w=240", words.text(p, words.PLAIN, "news"), price=price(p))
        for p in some(24, "news")
    ]
    cart = (("Your cart", "http://shop-one.example/cart/", ""),)  # robots.txt says no
    yield home("New this week", "Free returns, always.", sheets, items=news, elsewhere=cart)
    yield from sheets


def outlet() -> Iterator[Sheet]:
    """www.outlet: picture and srcset, other formats, sold-out placeholders, odd and empty alts."""
    sheets = []
    for page in range(1, OUTLET_PAGES + 1):
        items = []
        for place, p in enumerate(some(30, "outlet", page)):
            kind = ("jpg", "jpg", "webp", "jpg", "png", "jpg", "gif", "jpg")[place % 8]
            src = f"/photo/{p.name}.{kind}"
            item = Item(src, words.text(p, words.PLAIN, "outlet", page), price=price(p))
            if kind == "jpg" and place % 3 == 0:
                item = replace(item, source=f"/photo/{p.name}.webp?w=160, {src} 2x")
            elif kind == "jpg" and place % 3 == 1:
                widths = ", ".join(f"{src}?w={w} {w}w" for w in (100, 200, 280))
                item = replace(item, srcset=widths)
            if place == 7:
                item = replace(item, alt="")
            elif place == 11:
                item = replace(item, alt=None)
            elif place == 13:
                item = replace(item, alt=" \n ")
            elif place in (17, 23):
                item = replace(item, alt=words.odd_text(p, 2 * page + (place == 23)))
            elif place == 19:
                item = replace(item, alt=words.long_text(p))
            items.append(item)
        for p in some(7, "sold out", page):
            items.append(Item(f"/photo/sold-out/{p.name}.jpg", words.text(p, words.PLAIN, page)))
        for p in some(3, "old", page):
            items.append(Item(f"/photo/old/{p.name}.jpg", words.text(p, words.SHOP, page)))
        for p in some(2, "letter", page):
            src = f"/photo/{p.name}.jpg?utm_source=letter&utm_medium=mail"
            items.append(Item(src, words.text(p, words.PLAIN, "outlet", page)))
        for p in some(page % 2, "anim", page):
            items.append(Item(f"/photo/anim/{p.name}.gif", words.text(p, words.SHOP, page)))
        lead = "Last pieces, last sizes. What is gone is gone."
        sheets.append(Sheet(f"/sale/{page}/", f"Sale, page {page}", lead, items))
    letter = (("From our letter", "http://www.outlet.example/sale/1/?from=letter", ""),)
    # The last pages stand in the sitemap alone.
    yield home("Outlet", "Everything must go.", sheets[:5], elsewhere=letter)
    yield from sheets


def museum() -> Iterator[Sheet]:
    """museum: figures with captions; most pictures are redirects to the CDN."""
    sheets = []
    for room in range(1, MUSEUM_ROOMS + 1):
        folders = ["objects"] * 18 + ["scans"] * 4 + ["scans/grey"] * 3 + ["scans/print"] * 2
        folders += ["scans/raw"] * (room % 3 == 0) + ["tiles"] * (room % 2)
        items = []
        for folder, p in zip(folders, some(len(folders), "room", room), strict=True):
            src = f"/{folder}/{p.name}.{'png' if folder == 'tiles' else 'jpg'}"
            caption = words.text(p, words.MUSEUM_CAPTION, room)
            items.append(Item(src, words.text(p, words.MUSEUM_ALT, room), caption=caption))
        lead = "From the collection of everyday clothes. Please do not touch."
        sheets.append(Sheet(f"/rooms/{room}", f"Room {room}", lead, items, "figures"))
    more = (
        ("The maze", "http://museum.example/maze/1/", "nofollow"),
        ("Our poster", "http://cdn.example/m/hat-01.jpg", ""),
    )
    yield home("The museum of everyday clothes", "Open daily, free entry.", sheets, elsewhere=more)
    yield from sheets


BLOG_TROUBLE = [  # one photograph each, in this order, spread over the posts
    *["/uploads/2011/{}.jpg"] * 13,
    *["/uploads/2012/{}.jpg"] * 7,
    *["/uploads/2013/{}.jpg"] * 7,
    *["/uploads/2014/{}.jpg"] * 4,
    *["/uploads/2015/{}.jpg"] * 4,
    *["/uploads/2019/{}.jpg"] * 4,
    *["/uploads/2020/{}.jpg"] * 2,
    *["/go/far/{}.jpg"] * 8,
    *["/go/dead/{}.jpg"] * 3,
    *["/go/chain/3/{}.jpg"] * 2,
    f"/go/chain/{CHAIN}/{{}}.jpg",
    *["/go/loop/{}.jpg"] * 2,
    "/go/lan/{}.jpg",
    "/go/meta/{}.jpg",
    "/go/six/{}.jpg",
    "/go/file/{}.jpg",
    *["http://cdn.example/o/{}"] * 3,
    *["http://cdn.example/v/{}.svg"] * 2,
    *["http://cdn.example/t/{}.jpg"] * 5,
    *["http://cdn.example/c/{}.jpg"] * 2,
    *["http://cdn.example/r/{}.jpg"] * 2,
    *["http://cdn.example/z/{}.jpg"] * 2,
    "http://cdn.example/e/{}.jpg",
    "http://192.168.1.20/photos/{}.jpg",
    "http://127.0.0.1/{}.jpg",
    "http://localhost/{}.jpg",
    "http://[::1]/{}.jpg",
    "http://2130706433/{}.jpg",
    "ftp://ftp.blog.example/{}.jpg",
    "file:///home/me/{}.jpg",
    "javascript:show('{}')",
    "http://[broken/{}.jpg",
    DATA_GIF,
    DATA_GIF + "#{}",
]


def blog() -> Iterator[Sheet]:
    """blog: relative addresses, <base>, hot links to the CDN, and most of what can go wrong."""
    sheets = []
    for post in range(1, BLOG_POSTS + 1):
        based = post % 2 == 0
        items = []
        for place, p in enumerate(some(12, "post", post)):
            year = 2016 + place % 3
            src = f"{year}/{p.name}.jpg" if based else f"../../uploads/{year}/./{p.name}.jpg"
            if place % 4 == 3:
                src = f"//cdn.example/x/{p.name}.jpg"
            style = (words.BLOG, words.PLAIN, words.BLOG, words.BLOG, words.NO_QUERY)[place % 5]
            prose = f"{words.text(p, words.BLOG, 'prose', post)}." if place % 2 == 0 else ""
            items.append(Item(src, words.text(p, style, post), prose=prose))
        trouble = BLOG_TROUBLE[post - 1 :: BLOG_POSTS]
        photographs = some(len(trouble), "bad", post)
        for number, (src, p) in enumerate(zip(trouble, photographs, strict=True)):
            style = words.BLOG if number % 2 else words.PLAIN
            items.append(Item(src.format(p.name), words.text(p, style, "bad", post)))
        title = f"{words.pick(words.PLACES, 'post', post)}, in {words.pick(words.SEASONS, post)}"
        base = "http://blog.example/uploads/" if based else ""
        lead = f"Post number {post}. As always: what I packed, and what I should have packed."
        sheets.append(Sheet(f"/posts/{post}/", title, lead, items, "post", base=base))
    more = [(name, f"http://{host}/", "") for host, (name, _) in HOSTS.items()]
    more += [
        ("Newest post", "http://blog.example/posts/newest/", ""),
        ("A post that is gone", "http://blog.example/posts/99/", ""),
        ("Drafts", "http://blog.example/drafts/", ""),
        ("Where I will be", "http://blog.example/calendar/2025/03/", ""),
        ("A friend", "http://friend.invalid/", ""),
    ]
    yield home("A suitcase and a half", "Clothes on the road.", sheets, elsewhere=more)
    yield from sheets


def simple(
    path: str, title: str, lead: str, folders: Sequence[str], style: Sequence[str], **more: object
) -> Sheet:
    """A page with one photograph for each entry of `folders`."""
    shown = some(len(folders), path, title)
    items = [
        Item(f"/{f}/{p.name}.jpg", words.text(p, style, path), price=price(p))
        for f, p in zip(folders, shown, strict=True)
    ]
    return Sheet(path, title, lead, items, **more)


def slow() -> Iterator[Sheet]:
    """slow: a shop on a tired server."""
    folders = ["slow", "pic", "drip", "slow", "pic"] * 3
    yield simple("/", "Slow fashion", "Good things take time.", folders, words.SHOP)
    yield simple("/more/", "More slow fashion", "Patience.", folders, words.PLAIN)


def quiet() -> Iterator[Sheet]:
    """quiet: half of its pictures are kept from robots, and it asks for pauses between requests."""
    folders = ["open", "private"] * 13
    yield simple("/", "The quiet wardrobe", "A club for members.", folders, words.BLOG)
    yield simple("/hall/", "The hall", "Coats, please.", folders, words.PLAIN)


def closed() -> Iterator[Sheet]:
    """closed: robots are asked to stay away altogether."""
    yield simple("/", "By appointment", "No robots, please.", ["img"] * 30, words.SHOP)


def attic() -> Iterator[Sheet]:
    """attic: its robots.txt answers 503."""
    yield simple("/", "From the attic", "Found in boxes.", ["img"] * 12, words.BLOG)


def cellar() -> Iterator[Sheet]:
    """cellar: its robots.txt is not answered."""
    yield simple("/", "From the cellar", "Found in the dark.", ["img"] * 8, words.BLOG)


def portfolio() -> Iterator[Sheet]:
    """portfolio: an artist who says no by header, and two rooms that do not."""
    yield simple("/", "Works", "All rights kept.", ["art"] * 24, words.MUSEUM_ALT, layout="figures")
    yield simple(
        "/free/", "Free works", "Take them.", ["free"] * 12, words.MUSEUM_ALT, layout="figures"
    )


def abroad(
    language: str, folder: str, titles: Sequence[str], lead: str, **more: object
) -> Iterator[Sheet]:
    """A shop in another language, with some English alts as everywhere."""
    for page, title in enumerate(titles):
        items = []
        for place, p in enumerate(some(28, language, page)):
            alt = words.text_abroad(p, language, page)
            if place % 9 == 8:
                alt = words.text(p, words.PLAIN, language, page)
            items.append(Item(f"/{folder}/{p.name}.jpg", alt, price=price(p)))
        path = f"/{page}/" if page else "/"
        yield Sheet(path, title, lead, items, lang=language, **more)


def kaufhaus() -> Iterator[Sheet]:
    """kaufhaus: German, in windows-1252 under the name of iso-8859-1."""
    titles, how = ("Kaufhaus", "Räumung"), {"charset": "iso-8859-1", "encoding": "windows-1252"}
    yield from abroad("de", "bild", titles, "Größe zählt – bei uns für alle.", **how)


def mode() -> Iterator[Sheet]:
    """mode: French, in UTF-8 that only the HTTP header names."""
    how = {"charset": "", "content_type": "text/html; charset=UTF-8"}
    yield from abroad("fr", "photos", ("La mode", "Été"), "L'élégance à petit prix.", **how)


def fuku() -> Iterator[Sheet]:
    """fuku: Japanese, in Shift_JIS that only the page names, with Japanese addresses."""
    how = {"charset": "Shift_JIS", "encoding": "shift_jis"}
    yield from abroad("ja", "写真", ("服のお店", "セール"), "毎日の服をお手頃な価格で。", **how)


def odezhda() -> Iterator[Sheet]:
    """odezhda: Russian, in windows-1251 that only the HTTP header names."""
    how = {"charset": "", "encoding": "windows-1251"}
    how["content_type"] = "text/html; charset=windows-1251"
    yield from abroad("ru", "foto", ("Одежда",), "Одежда на каждый день.", **how)


HOSTS: dict[str, tuple[str, Callable[[], Iterator[Sheet]]]] = {
    "shop-one.example": ("Shop One", shop),
    "www.outlet.example": ("Outlet", outlet),
    "museum.example": ("Museum of Everyday Clothes", museum),
    "blog.example": ("A Suitcase and a Half", blog),
    "slow.example": ("Slow Fashion", slow),
    "quiet.example": ("The Quiet Wardrobe", quiet),
    "closed.example": ("By Appointment", closed),
    "attic.example": ("From the Attic", attic),
    "cellar.example": ("From the Cellar", cellar),
    "portfolio.example": ("Works by L. Byrne", portfolio),
    "kaufhaus.example": ("Kaufhaus am Markt", kaufhaus),
    "mode.example": ("La Mode", mode),
    "fuku.example": ("服のお店", fuku),
    "odezhda.example": ("Одежда", odezhda),
}
