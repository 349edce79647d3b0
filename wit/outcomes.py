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
    # what is kept out of this dataset
    "blocklisted": (
        DOWNLOAD,
        "On a list of --blocklist, so it was not asked for; or a redirect led to a listed address, "
        "or the picture that came is listed, and then it was not stored.",
    ),
    "taken_down": (
        DOWNLOAD,
        "Taken out of the dataset (wit shards takedown), or kept out of it ever since: picture, "
        "caption and addresses are gone.",
    ),
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
        "The answer carries an opt-out (X-Robots-Tag noai, noimageai, noindex, noimageindex, none "
        "or a past unavailable_after; TDM-Reservation: 1), or the host's tdmrep.json or a "
        "Content-Signal ai-train=no in its robots.txt does, and then it was not asked for.",
    ),
    "host_paused": (
        DOWNLOAD,
        "The host asked (Retry-After) to be left alone for longer than the shard had time.",
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
        "The TLS handshake failed, but not for its certificate: no common protocol, or no TLS.",
    ),
    "certificate_expired": (DOWNLOAD, "The TLS certificate is not valid at this time."),
    "certificate_untrusted": (
        DOWNLOAD,
        "The TLS certificate is signed by itself or by nobody known, or is broken.",
    ),
    "certificate_mismatch": (DOWNLOAD, "The TLS certificate is of another name."),
    "connection_lost": (DOWNLOAD, "The server closed or reset the connection before answering."),
    "first_byte_timeout": (
        DOWNLOAD,
        "The server took the request, but no whole answer's head came within the time limit.",
    ),
    "read_timeout": (DOWNLOAD, "The server fell silent in the body for longer than the limit."),
    "too_slow": (DOWNLOAD, "The body came at fewer bytes a second than the minimum."),
    "total_timeout": (DOWNLOAD, "The whole request took longer than its time limit."),
    "host_gave_up": (
        DOWNLOAD,
        "The host failed so many times in a row, and once more after a rest, that the rest of its "
        "pictures in the shard were not asked for; those that failed have this name, too.",
    ),
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
    "unsupported_encoding": (
        DOWNLOAD,
        "The body is packed in a way that was not asked for and is not unpacked (Brotli, ...); "
        "named.",
    ),
    "bad_content_encoding": (DOWNLOAD, "The packed body (gzip, deflate) is damaged."),
    # the picture
    "unsupported_format": (RESIZE, "Not a picture, or of a format that is not decoded; named."),
    "too_many_pixels": (RESIZE, "The header announces more pixels than allowed."),
    "too_small": (RESIZE, "The shorter side is below the minimum asked for."),
    "too_elongated": (RESIZE, "The ratio of the sides is above the maximum asked for."),
    "placeholder": (
        RESIZE,
        "One picture under many addresses with different texts (--placeholder-urls), as servers "
        "send it for pictures that they do not have; it is not stored.",
    ),
    "undecodable": (RESIZE, "The file is damaged, cut short or breaks its format's rules."),
    "encode_failed": (RESIZE, "The resized picture does not fit the output format."),
    "decoder_crashed": (RESIZE, "The decoder's process died on this picture."),
    "decoder_timeout": (RESIZE, "Decoding took longer than its time limit."),
    "decoder_out_of_memory": (RESIZE, "Decoding asked for more memory than its limit."),
    "internal_error": (DOWNLOAD, "A fault of this program on this picture; the message names it."),
    # img2dataset as the engine
    "engine_failed": (
        DOWNLOAD,
        "img2dataset, chosen as the engine, reports a failure that none of these words names; the "
        "message is its own.",
    ),
    "engine_lost": (
        DOWNLOAD,
        "img2dataset, chosen as the engine, stood still, was killed, or left this picture out.",
    ),
}

# Where no HTTP status came, these say that the host, and not one of its files, is of no use now.
HOST_FAILURES = frozenset(
    {
        "dns_failure",
        "connect_failed",
        "connect_timeout",
        "tls_failure",
        "certificate_expired",
        "certificate_untrusted",
        "certificate_mismatch",
        "connection_lost",
        "first_byte_timeout",
        "total_timeout",
    }
)

TRANSIENT = frozenset(
    {
        "connect_failed",
        "connect_timeout",
        "connection_lost",
        "first_byte_timeout",
        "read_timeout",
        "rate_limited",
        "server_error",
        "truncated_body",
    }
)


def status(outcome: str) -> str:
    """Return img2dataset's status for an outcome; an unknown name is a KeyError."""
    return OUTCOMES[outcome][0]
