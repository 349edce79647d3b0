"""The demo's hosts, and what is wrong with which of their addresses: all by the URL alone.

A picture's URL is `http://HOST/FOLDER/NAME.EXT`; its folder decides what happens to it. `trouble`
gives that a name; `pipeline.demo.truth` says how a fetch of it must end, `pipeline.demo.answers`
says with which bytes the host replies.
"""

from urllib.parse import unquote, urljoin, urlsplit

from pipeline.demo.pictures import pictures

CHAIN = 20  # hops of the longest chain of redirects
FOLDERS = {
    "shop-one.example": {"img": "picture", "img/sold": "placeholder", "static": "furniture"},
    "www.outlet.example": {
        "photo": "picture",
        "photo/sold-out": "placeholder",
        "photo/old": "moved",
        "photo/anim": "animation",
        "static": "furniture",
    },
    "museum.example": {
        "objects": "moved",
        "scans": "turned",
        "scans/grey": "grey",
        "scans/print": "cmyk",
        "scans/raw": "huge",
        "tiles": "bomb",
        "static": "furniture",
    },
    "cdn.example": {
        "m": "picture",
        "x": "picture",
        "o": "untyped",
        "v": "drawing",
        "t": "truncated",
        "e": "endless",
        "c": "cut",
        "r": "reset",
        "z": "empty",
    },
    "blog.example": {
        "uploads/2011": "not_found",
        "uploads/2012": "gone",
        "uploads/2013": "server_error",
        "uploads/2014": "forbidden",
        "uploads/2015": "web_page",
        "uploads/2016": "picture",
        "uploads/2017": "picture",
        "uploads/2018": "picture",
        "uploads/2019": "web_page_as_jpeg",
        "uploads/2020": "busy",
        "go/loop": "loop",
        "go/pool": "loop",
        "go/far": "moved",
        "go/dead": "moved",
        "go/lan": "moved_inside",
        "go/meta": "moved_inside",
        "go/six": "moved_inside",
        "go/file": "moved_to_file",
        "static": "furniture",
    },
    "slow.example": {
        "slow": "slow",
        "drip": "dripping",
        "pic": "picture",
        "static": "furniture",
    },
    "quiet.example": {"open": "picture", "private": "picture", "static": "furniture"},
    "closed.example": {"img": "picture", "static": "furniture"},
    "attic.example": {"img": "picture", "static": "furniture"},
    "cellar.example": {"img": "picture", "static": "furniture"},
    "portfolio.example": {
        "art": "opted_out",
        "free": "other_robot_opted_out",
        "static": "furniture",
    },
    "kaufhaus.example": {"bild": "picture", "static": "furniture"},
    "mode.example": {"photos": "picture", "static": "furniture"},
    "fuku.example": {"写真": "picture", "static": "furniture"},
    "odezhda.example": {"foto": "picture", "static": "furniture"},
}
FOLDERS["blog.example"] |= {f"go/chain/{hop}": "moved" for hop in range(1, 6)}
FOLDERS["blog.example"] |= {f"go/chain/{hop}": "chain" for hop in range(6, CHAIN + 1)}
HOSTS = tuple(FOLDERS)

REDIRECTS = {  # (host, folder): (status, where to)
    ("museum.example", "objects"): (302, "http://cdn.example/m/{name}.jpg"),
    ("www.outlet.example", "photo/old"): (301, "/photo/{name}.jpg"),
    ("blog.example", "go/far"): (308, "//cdn.example/x/{name}.jpg"),
    ("blog.example", "go/dead"): (301, "../../uploads/2011/{name}.jpg"),
    ("blog.example", "go/loop"): (302, "/go/pool/{name}.jpg"),
    ("blog.example", "go/pool"): (307, "/go/loop/{name}.jpg"),
    ("blog.example", "go/lan"): (302, "http://192.168.7.20/photos/{name}.jpg"),
    ("blog.example", "go/meta"): (302, "http://169.254.169.254/latest/meta-data/{name}.jpg"),
    ("blog.example", "go/six"): (302, "http://[::ffff:10.0.0.7]/{name}.jpg"),
    ("blog.example", "go/file"): (302, "file:///etc/passwd"),
    ("blog.example", "go/chain/1"): (301, "/uploads/2016/{name}.jpg"),
}
REDIRECTS |= {
    ("blog.example", f"go/chain/{hop}"): (302, f"/go/chain/{hop - 1}/{{name}}.jpg")
    for hop in range(2, CHAIN + 1)
}

OTHER_ROBOTS = "User-agent: GPTBot\nDisallow: /\n\n"
ROBOTS = {  # host: (status, content type, body); a host without an entry has no robots.txt (404)
    "shop-one.example": (
        200,
        "text/plain",
        OTHER_ROBOTS
        + "User-agent: *\nDisallow: /cart/\n\nSitemap: http://shop-one.example/sitemap.xml\n",
    ),
    "museum.example": (
        200,
        "text/plain",
        "Sitemap: http://museum.example/maps/index.xml\n# be our guest\nUser-agent: *\nDisallow:\n",
    ),
    "cdn.example": (200, "text/plain", ""),
    "blog.example": (
        200,
        "text/plain",
        "\ufeffUser-agent: *\r\nDisallow: /*.php$\r\nnonsense line\r\nDisallow: /admin\r\n",
    ),
    "slow.example": (200, "text/plain; charset=utf-8", "User-agent: *\nAllow: /\n"),
    "quiet.example": (
        200,
        "text/plain",
        "User-agent: *\nCrawl-delay: 0.3\nDisallow: /private/\nAllow: /\n",
    ),
    "closed.example": (200, "text/plain", "User-agent: *\nDisallow: /\n"),
    "attic.example": (503, "text/html", "<h1>Service unavailable</h1>"),
    "portfolio.example": (200, "text/plain", OTHER_ROBOTS + "User-agent: *\nDisallow: /studio/\n"),
    "mode.example": (200, "text/html", "<!doctype html><title>Mode</title><p>Bienvenue"),
    "odezhda.example": (403, "text/html", "<h1>403</h1>"),
}
SILENT_ROBOTS = ("cellar.example",)  # the connection is closed without an answer
MOVED_ROBOTS = {"kaufhaus.example": "/bots.txt"}  # robots.txt is a redirect to this path
FORBIDDEN = {  # what robots.txt, read as RFC 9309 says, keeps from every robot: path and trouble
    "quiet.example": ("/private/", "robots"),
    "closed.example": ("/", "robots"),
    "attic.example": ("/", "robots_failed"),
    "cellar.example": ("/", "robots_silent"),
}


def place(url: str) -> tuple[str, str, str]:
    """(host, folder, picture's name) of a URL: `http://a.example/x/y/hat-02.jpg?w=3` is a, x/y."""
    parts = urlsplit(url)
    folder, _, file = unquote(parts.path).strip("/").rpartition("/")
    return parts.hostname or "", folder, file.rpartition(".")[0] or file


def trouble(url: str) -> str:
    """What happens to whoever asks for the URL: a key of `pipeline.demo.truth.TROUBLES`."""
    host, folder, name = place(url)
    if host not in FOLDERS:
        return "inside_address"
    forbidden, why = FORBIDDEN.get(host, (None, ""))
    if forbidden and urlsplit(url).path.startswith(forbidden):
        return why
    kind = FOLDERS[host].get(folder, "not_found")
    return kind if kind == "furniture" or name in pictures() else "not_found"


def redirect(url: str) -> tuple[int, str] | None:
    """The status and the absolute target of a URL that leads on, else None."""
    host, folder, name = place(url)
    if (host, folder) not in REDIRECTS or name not in pictures():
        return None
    status, location = REDIRECTS[host, folder]
    return status, urljoin(url, location.format(name=name))
