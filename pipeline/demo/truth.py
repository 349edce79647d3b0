"""What the demo knows about itself: how the fetch of each of its URLs must end.

The names are those of `wit.outcomes`, under a fetcher with usual limits: at least 5 redirects and
fewer than 20; at most 60 MB a picture and 300 million pixels; no minimal size; at least 3 seconds.
Placeholders are successes to a fetcher, that sees one URL at a time; a harvest that has met enough
of them ends with `placeholder` instead.
"""

from pipeline.demo import routes

TROUBLES: dict[str, tuple[str, str]] = {  # what happens: (outcome, in words)
    "picture": ("success", "a picture as it should be"),
    "furniture": ("success", "a logo or a spacer"),
    "slow": ("success", "the first byte comes after 0.6 to 1.4 s"),
    "dripping": ("success", "the body comes in eight pieces over 1.2 s"),
    "placeholder": ("success", "one picture that says 'image not found', under many URLs"),
    "animation": ("success", "a GIF of two frames"),
    "turned": ("success", "a JPEG to be turned by its EXIF orientation"),
    "grey": ("success", "a greyscale JPEG"),
    "cmyk": ("success", "a JPEG in printing colours"),
    "untyped": ("success", "a JPEG under application/octet-stream"),
    "other_robot_opted_out": ("success", "X-Robots-Tag forbids indexing to another robot"),
    "opted_out": ("opted_out", "X-Robots-Tag: noai, noimageai"),
    "robots": ("robots_disallowed", "robots.txt forbids it"),
    "robots_failed": ("robots_disallowed", "robots.txt answers 503, which forbids everything"),
    "robots_silent": ("robots_unreachable", "robots.txt is not answered at all"),
    "inside_address": ("forbidden_address", "a link to a private, loopback or local address"),
    "moved_inside": ("forbidden_address", "a redirect to a private or link-local address"),
    "moved_to_file": ("unsupported_scheme", "a redirect to file:///etc/passwd"),
    "loop": ("redirect_loop", "two redirects that lead to each other"),
    "chain": ("too_many_redirects", "twenty redirects in a row"),
    "not_found": ("not_found", "404"),
    "gone": ("not_found", "410"),
    "forbidden": ("access_denied", "403"),
    "server_error": ("server_error", "500, each time"),
    "busy": ("server_error", "503 with Retry-After: 1, each time"),
    "reset": ("connection_lost", "the connection is closed without an answer"),
    "cut": ("truncated_body", "the connection is closed in the middle of the body"),
    "empty": ("empty_body", "200 with no content"),
    "huge": ("too_many_bytes", "announces 4 GB"),
    "endless": ("too_many_bytes", "a chunked body that does not end"),
    "web_page": ("unsupported_format", "200 with a web page instead"),
    "web_page_as_jpeg": ("unsupported_format", "a web page that calls itself image/jpeg"),
    "drawing": ("unsupported_format", "an SVG"),
    "truncated": ("undecodable", "a JPEG of which a third is missing"),
    "bomb": ("too_many_pixels", "a small PNG of 400 million pixels"),
}


def trouble(url: str) -> str:
    """What happens at a URL, at the end of its redirects: a key of `TROUBLES`."""
    for _ in range(routes.CHAIN):
        kind = routes.trouble(url)
        if kind != "moved":
            return kind
        url = routes.redirect(url)[1]
    raise ValueError(f"{url}: the demo's redirects do not end")


def is_placeholder(url: str) -> bool:
    """Whether the picture that comes is the one of all that hosts do not have."""
    return trouble(url) == "placeholder"


def expected(url: str) -> str:
    """How a fetch of the URL must end: a name in `wit.outcomes.OUTCOMES`."""
    return TROUBLES[trouble(url)][0]
