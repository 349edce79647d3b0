"""What img2dataset says went wrong, in the words of `wit.outcomes`.

Its `error_message` is the text of whatever urllib, http.client, OpenSSL or OpenCV raised, so it is
read by pattern. What no pattern knows is `engine_failed`, or `undecodable` after the download; the
message stays in either case. A timeout of a read does not say whether the head had come.
"""

import re

from wit.outcomes import RESIZE, SUCCESS
from wit.web.client import DENIED

MOST = 200  # characters of a message that are kept
HTTP = re.compile(r"HTTP Error (\d{3})")
DOWNLOAD_WORDS = [
    (re.compile(pattern), outcome)
    for pattern, outcome in (
        (r"disallowed by X-Robots-Tag", "opted_out"),
        (r"infinite loop", "redirect_loop"),
        (r"Redirection to url .* is not allowed|unknown url type", "unsupported_scheme"),
        (r"certificate has expired|certificate is not yet valid", "certificate_expired"),
        (r"certificate is not valid for|doesn't match", "certificate_mismatch"),
        (r"CERTIFICATE_VERIFY_FAILED", "certificate_untrusted"),
        (r"urlopen error timed out|handshake operation timed out", "connect_timeout"),
        (r"\[Errno 110\]|\[Errno 60\]", "connect_timeout"),
        (r"timed out", "read_timeout"),
        (r"\[Errno -\d+\]|getaddrinfo failed|nodename nor servname", "dns_failure"),
        (r"\[Errno 8\] ", "dns_failure"),
        (r"Connection refused|No route to host|unreachable|Host is down", "connect_failed"),
        (r"Connection reset|closed connection without response|Broken pipe", "connection_lost"),
        (r"Connection aborted", "connection_lost"),
        (r"\[SSL|EOF occurred in violation of protocol", "tls_failure"),
        (r"IncompleteRead", "truncated_body"),
        (r"got more than .* header", "headers_too_large"),
        (r"got more than .* (status line|chunk size|trailer line)", "invalid_response"),
        (r"^HTTP/", "invalid_response"),
        (r"control characters|codec can't encode|'idna' codec", "invalid_url"),
        (r"nonnumeric port|no host given", "invalid_url"),
    )
]
RESIZE_WORDS = {
    "image too small": "too_small",
    "image area too large": "too_many_pixels",
    "aspect ratio too large": "too_elongated",
}


def outcome_of(status: str, message: str | None) -> tuple[str, str | None]:
    """Returns outcome and message for a row's `status` and `error_message`."""
    if status == SUCCESS:
        return SUCCESS, None
    said = "".join(c if c.isprintable() else " " for c in message or "")[:MOST].strip()
    if status == RESIZE:
        if "!buf.empty()" in said:  # OpenCV's word for no bytes at all
            return "empty_body", said
        return RESIZE_WORDS.get(said, "undecodable"), said or None
    for pattern, outcome in DOWNLOAD_WORDS:
        if pattern.search(said):
            return outcome, said
    if found := HTTP.match(said):
        return _of_http(int(found[1])), said
    return "engine_failed", said or f"{status} without a message"


def _of_http(status: int) -> str:
    if status in (404, 410):
        return "not_found"
    if status in DENIED:
        return "access_denied"
    if status == 429:
        return "rate_limited"
    if status in (301, 302, 303, 307, 308):
        return "invalid_redirect"
    if 400 <= status < 500:
        return "client_error"
    return "server_error" if 500 <= status < 600 else "unexpected_status"
