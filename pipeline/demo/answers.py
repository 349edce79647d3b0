"""What the demo's hosts answer: a function of the URL alone, whoever asks, however often."""

import hashlib
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from pipeline.demo import crawling, pages, pictures, routes

TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif"}
DRIP = 1.2  # seconds over which a dripping body is sent
NOT_HERE = {403: "Forbidden", 404: "Not found", 410: "Gone", 421: "No such host here"}
NOT_HERE |= {500: "Internal server error", 503: "Please come back later"}
DRAWING = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 90 120"><path fill="#7a5c3e" '
    b'd="M30 5h30l8 30-12 6 14 74H20l14-74-12-6z"/></svg>'
)


@dataclass(frozen=True)
class Answer:
    """One HTTP answer and how it is sent.

    `delay` is in seconds before the first byte, `drip` in seconds from the first to the last. `way`
    is "" for a normal answer, "reset" (no answer, the connection is closed), "cut" (half of the
    body, then closed), "huge" (announces gigabytes) or "endless" (announces no end): the last two
    are padded with zeros for as long as the client listens, `pipeline.demo.server.FLOOD` at most.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    delay: float = 0.0
    drip: float = 0.0
    way: str = ""


def html(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    """A small web page: what hosts send where there is no picture."""
    body = f"<!doctype html><title>{status}</title><h1>{text}</h1>".encode()
    return Answer(status, (("Content-Type", "text/html; charset=utf-8"), *headers), body)


def answer(url: str) -> Answer:
    """The answer to a GET of an absolute http URL; hosts that are not ours give 421."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host not in routes.HOSTS:
        return html(421, NOT_HERE[421])
    page = pages.pages_by_url().get(f"http://{host}{parts.path or '/'}")
    if page:
        return Answer(200, page.headers, page.body)
    if found := crawling.reply(f"http://{host}{parts.path}"):
        return Answer(*found)
    if parts.path in ("/robots.txt", routes.MOVED_ROBOTS.get(host)):
        return _robots(host, parts.path)
    return _picture(url)


def _robots(host: str, path: str) -> Answer:
    if host in routes.SILENT_ROBOTS:
        return Answer(200, (), b"", way="reset")
    if path == "/robots.txt" and host in routes.MOVED_ROBOTS:
        return html(301, "Moved", ("Location", routes.MOVED_ROBOTS[host]))
    if host in routes.MOVED_ROBOTS:
        return Answer(200, (("Content-Type", "text/plain"),), b"User-agent: *\nDisallow: /kasse/\n")
    if host not in routes.ROBOTS:
        return html(404, NOT_HERE[404])
    status, kind, body = routes.ROBOTS[host]
    return Answer(status, (("Content-Type", kind),), body.encode())


def _picture(url: str) -> Answer:
    host, folder, name = routes.place(url)
    moved = routes.redirect(url)
    if moved:
        return html(moved[0], "Moved", ("Location", moved[1]))
    kind = routes.FOLDERS[host].get(folder, "not_found")
    if kind == "furniture":
        furniture = {"logo": pictures.logo(host), "spacer": pictures.spacer()}
        extension = {"logo": "png", "spacer": "gif"}.get(name)
        if extension:
            return _image(TYPES[extension], furniture[name])
        return html(404, NOT_HERE[404])
    if name not in pictures.pictures():
        return html(404, NOT_HERE[404])
    return _trouble(kind, url, name)


def _image(content_type: str, body: bytes, *headers: tuple[str, str], **how: object) -> Answer:
    return Answer(200, (("Content-Type", content_type), *headers), body, **how)


def _trouble(kind: str, url: str, name: str) -> Answer:
    jpeg = pictures.original(name)
    failures = {"not_found": 404, "gone": 410, "server_error": 500, "forbidden": 403}
    match kind:
        case "picture":
            return _image(*_asked_form(url, name))
        case "opted_out":
            return _image("image/jpeg", jpeg, ("X-Robots-Tag", "noai, noimageai"))
        case "other_robot_opted_out":
            return _image("image/jpeg", jpeg, ("X-Robots-Tag", "googlebot: noindex"))
        case "slow":
            spread = hashlib.blake2b(name.encode(), digest_size=1).digest()[0] / 255
            return _image("image/jpeg", jpeg, delay=round(0.6 + 0.8 * spread, 3))
        case "dripping":
            return _image("image/jpeg", jpeg, drip=DRIP)
        case "placeholder":
            return _image("image/png", pictures.placeholder())
        case "animation":
            return _image("image/gif", pictures.form(name, "anim"))
        case "turned" | "grey" | "cmyk":
            return _image("image/jpeg", pictures.form(name, kind))
        case "untyped":
            return _image("application/octet-stream", jpeg)
        case "drawing":
            return _image("image/svg+xml", DRAWING)
        case "bomb":
            return _image("image/png", pictures.bomb())
        case "truncated":
            return _image("image/jpeg", jpeg[: len(jpeg) * 2 // 3])
        case "empty":
            return _image("image/jpeg", b"")
        case "cut" | "reset" | "huge" | "endless":
            return _image("image/jpeg", jpeg, way=kind)
        case "web_page":
            return html(200, "Pictures may not be linked from elsewhere")
        case "web_page_as_jpeg":
            return _image("image/jpeg", html(200, "Please log in").body)
        case "busy":
            return html(503, NOT_HERE[503], ("Retry-After", "1"))
        case _:
            return html(failures[kind], NOT_HERE[failures[kind]])


def _asked_form(url: str, name: str) -> tuple[str, bytes]:
    """Content type and bytes for `NAME.webp?w=240`; other query parameters change nothing."""
    parts = urlsplit(url)
    extension = parts.path.rpartition(".")[2].lower()
    width = parse_qs(parts.query).get("w", ["0"])[0]
    pixels = int(width) if width.isascii() and width.isdigit() and len(width) < 5 else 0
    kind = extension if extension in TYPES else "jpg"
    return TYPES[kind], pictures.form(name, kind, pixels)
