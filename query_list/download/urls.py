"""Which URLs are asked."""

from __future__ import annotations

import contextlib
import ipaddress
from urllib.parse import urlsplit

from wit.errors import UserError


def is_loopback(url: str) -> bool:
    """Whether a URL is of this machine."""
    with contextlib.suppress(ValueError):
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    return False


def check_url(url: str, where: str, plain: bool = True) -> None:
    """Raises a UserError where a URL is not https (with `plain`: nor http on this machine)."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        known = parts.scheme == "https" or (parts.scheme == "http" and plain and is_loopback(url))
        named = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        if known and named and parts.username is None and not parts.fragment:
            return
    raise UserError(f"{where}: {url!r} is no https URL of a host; only these are asked")
