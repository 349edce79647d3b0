"""Which URLs belong to a crawl, and the one form in which each is known."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence

from pipeline.extract.urls import Base, resolve
from wit.errors import UserError
from wit.web.guard import Refused, parse_url

SCOPES = ("site", "host", "any")


@functools.cache
def _suffixes() -> object:
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()


@functools.lru_cache(maxsize=65_536)
def site_of(host: str) -> str:
    """The registrable domain of a host by the Public Suffix List; the host itself where none is.

    `www.example.co.uk` and `example.co.uk` are one site, `a.github.io` and `b.github.io` two.
    """
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return _suffixes().privatesuffix(host) or host
    return host


def host_of(url: str) -> str:
    """The host name of a normal http(s) URL, without its port."""
    authority = url.partition("//")[2].partition("/")[0]
    if authority.endswith("]"):
        return authority
    return authority.rpartition(":")[0] or authority


def normal_url(text: str, base: Base | None = None) -> str | None:
    """The URL as browsers write it, without fragment; None for what is not http(s) or no URL."""
    return resolve(text, base or Base())[0]


def read_seeds(inputs: Sequence[str]) -> list[str]:
    """The seeds' normal URLs in their order, each once.

    Args:
        inputs: URLs (without a scheme: https), and `@FILE` with a URL a line (`#` starts a remark).

    Raises:
        UserError: for a file that cannot be read, a seed that is no http(s) URL, or none at all.
    """
    found: dict[str, None] = {}
    for name in inputs:
        for where, text in read_lines(name[1:]) if name.startswith("@") else [(name, name)]:
            url = normal_url(text if "://" in text else f"https://{text}")
            try:
                parse_url(url or "")
            except Refused as refused:
                problem = f"{where}: {text!r} is no seed ({refused.message})"
                raise UserError(f"{problem}; give an http or https URL") from None
            found[url] = None
    if not found:
        raise UserError(f"{', '.join(inputs)}: no seeds; give URLs, or @FILE with a URL a line")
    return list(found)


def read_lines(path: str) -> list[tuple[str, str]]:
    """(path:number, line) of a file's lines that say something."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UserError(f"{path}: the seeds cannot be read ({reason}); check the path") from error
    numbered = ((f"{path}:{n}", line.strip()) for n, line in enumerate(lines, 1))
    return [(where, line) for where, line in numbered if line and not line.startswith("#")]


class Scope:
    """Which hosts a crawl may enter: the seeds' sites, the seeds' hosts, or any; and those listed.

    A listed host that begins with `*.` stands for the whole site below it.
    """

    def __init__(self, kind: str, seeds: Sequence[str], hosts: Sequence[str] = ()) -> None:
        self.kind = kind
        seeded = {host_of(url) for url in seeds}
        self._sites = {site_of(host) for host in seeded} if kind == "site" else set()
        self._hosts = seeded | {host for host in hosts if not host.startswith("*.")}
        self._below = tuple(host[1:] for host in hosts if host.startswith("*."))
        self._known: dict[str, bool] = {}

    def allows(self, url: str) -> bool:
        """Whether a normal URL belongs to the crawl."""
        if self.kind == "any":
            return True
        host = host_of(url)
        known = self._known.get(host)
        if known is None:
            known = host in self._hosts or f".{host}".endswith(self._below or ("\0",))
            known = known or (bool(self._sites) and site_of(host) in self._sites)
            if len(self._known) < 1_000_000:
                self._known[host] = known
        return known
