"""The closed list of what can become of one picture: the same words in tables, stats and report.

`OUTCOMES` maps a name to (img2dataset's status, what it means). "success" stands first; the rest
follows a picture's way: rules of the host, address, name, connection, answer, body, decoder. A
status is final. `TRANSIENT` are those that a repeated request may turn into another.
"""

SUCCESS = "success"
DOWNLOAD = "failed_to_download"
RESIZE = "failed_to_resize"

OUTCOMES: dict[str, tuple[str, str]] = {
    SUCCESS: (SUCCESS, "The picture was fetched, decoded and stored."),
    # the host's wishes
    "robots_disallowed": (
        DOWNLOAD,
        "The host's robots.txt forbids this address to our agent, or the server failed when asked "
        "for it, which forbids all (RFC 9309, 2.3.1.4).",
    ),
    "robots_unreachable": (
        DOWNLOAD,
        "No answer came for the host's robots.txt, so nothing else was asked of it.",
    ),
    "opted_out": (
        DOWNLOAD,
        "The answer carries an opt-out: X-Robots-Tag noai, noimageai, noindex, noimageindex or "
        "none, or TDM-Reservation: 1.",
    ),
    # the address
    "invalid_url": (DOWNLOAD, "The URL cannot be read, or carries a user name or a password."),
    "unsupported_scheme": (DOWNLOAD, "The URL or a redirect asks for other than http or https."),
    "forbidden_address": (
        DOWNLOAD,
        "The host is, or resolves to, an address that is not globally reachable, an odd spelling "
        "of one, a local name, or a port that browsers refuse.",
    ),
    "dns_failure": (DOWNLOAD, "The host's name does not resolve."),
    # the connection
    "connect_failed": (DOWNLOAD, "The connection was refused, or no route leads to the host."),
    "connect_timeout": (DOWNLOAD, "No connection within the time limit."),
    "tls_failure": (
        DOWNLOAD,
        "The TLS handshake failed: the certificate is not trusted, expired or of another name, or "
        "no common protocol.",
    ),
    "connection_lost": (DOWNLOAD, "The server closed or reset the connection before answering."),
    "read_timeout": (DOWNLOAD, "The server was silent for longer than the time limit."),
    "total_timeout": (DOWNLOAD, "The whole request took longer than its time limit."),
    "deadline_exceeded": (DOWNLOAD, "The shard's time was over before this picture was done."),
    # the answer
    "invalid_response": (DOWNLOAD, "The answer is not valid HTTP."),
    "headers_too_large": (DOWNLOAD, "The answer has too many or too long header lines."),
    "invalid_redirect": (DOWNLOAD, "A redirect without a target, or with one that is no URL."),
    "redirect_loop": (DOWNLOAD, "A redirect leads back to an address already visited."),
    "too_many_redirects": (DOWNLOAD, "More redirects than allowed."),
    "not_found": (DOWNLOAD, "HTTP 404 or 410."),
    "access_denied": (DOWNLOAD, "HTTP 401, 402, 403, 407 or 451."),
    "rate_limited": (DOWNLOAD, "HTTP 429, also after the retries."),
    "client_error": (DOWNLOAD, "Any other HTTP 4xx."),
    "server_error": (DOWNLOAD, "HTTP 5xx, also after the retries."),
    "unexpected_status": (DOWNLOAD, "An HTTP status that brings no picture (204, 206, 304, ...)."),
    # the body
    "empty_body": (DOWNLOAD, "The answer has no content."),
    "too_many_bytes": (DOWNLOAD, "The body, as sent or unpacked, is larger than allowed."),
    "truncated_body": (DOWNLOAD, "The connection ended before the announced end of the body."),
    "bad_content_encoding": (
        DOWNLOAD,
        "The body is packed in a way that was not asked for and is not understood, or is damaged.",
    ),
    # the picture
    "unsupported_format": (RESIZE, "Not a picture, or of a format that is not decoded; named."),
    "too_many_pixels": (RESIZE, "The header announces more pixels than allowed."),
    "too_small": (RESIZE, "The shorter side is below the minimum asked for."),
    "too_elongated": (RESIZE, "The ratio of the sides is above the maximum asked for."),
    "undecodable": (RESIZE, "The file is damaged, cut short or breaks its format's rules."),
    "encode_failed": (RESIZE, "The resized picture does not fit the output format."),
    "decoder_crashed": (RESIZE, "The decoder's process died on this picture."),
    "decoder_timeout": (RESIZE, "Decoding took longer than its time limit."),
    "decoder_out_of_memory": (RESIZE, "Decoding asked for more memory than its limit."),
    "internal_error": (DOWNLOAD, "A fault of this program on this picture; the message names it."),
}

TRANSIENT = frozenset(
    {
        "connect_failed",
        "connect_timeout",
        "connection_lost",
        "read_timeout",
        "rate_limited",
        "server_error",
        "truncated_body",
    }
)


def status(outcome: str) -> str:
    """Return img2dataset's status for an outcome; an unknown name is a KeyError."""
    return OUTCOMES[outcome][0]
