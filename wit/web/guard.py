"""Which URLs and addresses may be asked: http and https, on globally reachable addresses only.

A URL is read as browsers read it (WHATWG URL: spaces stripped, backslashes as slashes, names
mapped by UTS 46, an IPv4 address in any spelling recognised as one), then judged more strictly
than they do: no user information, no percent sign in a host, no odd spelling of an address. What
is sent is rebuilt from the judged parts, so no second parser can read it differently.

Addresses are refused unless globally reachable by the IANA special-purpose registries; forms that
carry an IPv4 address inside an IPv6 one (mapped, compatible, 6to4, Teredo, translated) are refused
whole, but NAT64 (64:ff9b::/96), which IPv6-only networks need, is judged by the address inside.
All ports of global addresses may be asked except those that browsers refuse (Fetch standard,
"bad port"), so that no server of another protocol is addressed through us. The exceptions are
exact: `allow_addresses` lists IP:PORT, `resolve` maps a host name to an IP or IP:PORT (which must
itself be global or allowed).
"""

import functools
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import idna

from wit.errors import UserError

MAX_URL = 8192  # characters
KEPT = 4096  # judged hosts that are remembered
DEFAULT_PORTS = {"http": 80, "https": 443}

NOT_GLOBAL_4 = [
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        # Azure's platform service answers on a global address, but only to machines inside.
        "168.63.129.16/32",
    )
]
GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
NOT_GLOBAL_6 = [
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # Teredo, ORCHID, benchmarking and other protocol assignments
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
]
# Fetch standard, section 2.9 "Port blocking".
# fmt: off
BAD_PORTS = frozenset((
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101,
    102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427,
    465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990,
    993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667,
    6668, 6669, 6679, 6697, 10080,
))
# fmt: on
# Names that only mean something inside a network (RFC 6761, RFC 6762, RFC 8375, ICANN 2024), and
# those metadata services whose names resolve to global addresses.
LOCAL_SUFFIXES = ("localhost", "local", "internal", "home.arpa", "onion", "alt")
METADATA_HOSTS = frozenset(
    ("metadata.packet.net", "metadata.platformequinix.com", "metadata.tencentyun.com")
)

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]*))?")
IPV4 = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")
NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
TO_QUOTE_IN_QUERY = re.compile(r"[\x00-\x20\"#'<>\x7f-\U0010ffff]+")
TO_QUOTE_IN_PATH = re.compile(r"[\x00-\x20\"#<>?^`{}\x7f-\U0010ffff]+")
DOT = re.compile("%2e", re.IGNORECASE)
SPACES = "".join(map(chr, range(33)))


class Refused(Exception):
    """A URL or an address that may not be asked; `outcome` is a key of `wit.outcomes.OUTCOMES`."""

    def __init__(self, outcome: str, message: str):
        super().__init__(message)
        self.outcome = outcome
        self.message = message


@dataclass(frozen=True, slots=True)
class Target:
    """A URL in judged parts: `host` in lower-case ASCII without a last dot, IPv6 in brackets."""

    scheme: str
    host: str
    port: int
    path: str  # with its query, percent-encoded, without dot segments

    @property
    def origin(self) -> str:
        """`scheme://host[:port]`, the key of the robots table; the default port is left out."""
        if self.port == DEFAULT_PORTS[self.scheme]:
            return f"{self.scheme}://{self.host}"
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def server(self) -> str:
        """The name by which rates go: a host with and without `www.` is one server."""
        return self.host.removeprefix("www.")

    @property
    def url(self) -> str:
        """The URL as it is sent."""
        return self.origin + self.path


def parse_url(text: str, base: Target | None = None) -> Target:
    """Read an absolute URL, or with `base` also a relative one, as browsers do.

    Raises Refused with `invalid_url`, `unsupported_scheme` or, for odd spellings of an IPv4
    address, `forbidden_address`. Says nothing about addresses: see `Guard.admit`.
    """
    if len(text) > MAX_URL:
        raise Refused("invalid_url", f"longer than {MAX_URL} characters")
    text = re.sub(r"[\t\n\r]", "", text.strip(SPACES))
    match = SCHEME.match(text)
    scheme = match[1].lower() if match else base.scheme if base else None
    if scheme is None:
        raise Refused("invalid_url", "not an absolute URL")
    if scheme not in DEFAULT_PORTS:
        raise Refused("unsupported_scheme", f"{scheme[:20]}: is not http or https")
    rest = text[match.end() :] if match else text
    before, mark, query = rest.partition("#")[0].partition("?")
    before = before.replace("\\", "/")
    if base is not None and scheme == base.scheme and not before.startswith("//"):
        return Target(scheme, base.host, base.port, _relative(before, mark + query, base))
    authority, slash, path = before.lstrip("/").partition("/")
    host, port = _authority(authority, scheme)
    return Target(scheme, host, port, _path(slash + path) + _query(mark + query))


def origin_of(url: str) -> str | None:
    """Return the key of the robots table for a URL, None where the URL cannot be asked."""
    try:
        return parse_url(url).origin
    except Refused:
        return None


def _relative(path: str, query: str, base: Target) -> str:
    base_path, base_mark, base_query = base.path.partition("?")
    if path.startswith("/"):
        return _path(path) + _query(query)
    if path:
        return _path(base_path.rpartition("/")[0] + "/" + path) + _query(query)
    return base_path + (_query(query) if query else base_mark + base_query)


@functools.lru_cache(maxsize=KEPT)
def _authority(text: str, scheme: str) -> tuple[str, int]:
    if "@" in text:
        raise Refused("invalid_url", "a user name or password in the URL")
    match = AUTHORITY.fullmatch(text)
    if match is None or not match[1]:
        raise Refused("invalid_url", "no host name")
    digits = match[2] or ""
    if len(digits) > 5 or (digits and int(digits) > 65535):
        raise Refused("invalid_url", "no such port")
    return _host(match[1]), int(digits) if digits else DEFAULT_PORTS[scheme]


def _host(text: str) -> str:
    no_host = Refused("invalid_url", "not a host name")
    if text.startswith("["):
        try:
            address = ipaddress.IPv6Address(text[1:-1])
        except ValueError:
            raise no_host from None
        if address.scope_id is not None:
            raise no_host
        return f"[{address}]"
    if not text.isascii():
        try:
            text = idna.encode(text, uts46=True, std3_rules=False).decode()
        except (idna.IDNAError, UnicodeError, ValueError):
            raise no_host from None
    host = text.lower().removesuffix(".")
    if not HOST.fullmatch(host) or len(host) > 253:
        raise no_host
    if NUMBER.fullmatch(host.rpartition(".")[2]) and not _is_ipv4(host):
        raise Refused("forbidden_address", "an odd spelling of an IPv4 address")
    return host


def _is_ipv4(host: str) -> bool:
    if not IPV4.fullmatch(host):
        return False
    try:
        return bool(ipaddress.IPv4Address(host))
    except ValueError:
        return False


def _quote(text: str, to_quote: re.Pattern[str]) -> str:
    def escaped(match: re.Match[str]) -> str:
        return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogateescape"))

    try:
        return to_quote.sub(escaped, text)
    except UnicodeEncodeError:
        raise Refused("invalid_url", "half a character in the URL") from None


def _path(text: str) -> str:
    """Percent-encode and remove dot segments (also spelled %2e), so that rules see what is sent."""
    kept: list[str] = []
    segments = _quote(text, TO_QUOTE_IN_PATH).split("/")[1:] or [""]
    for position, segment in enumerate(segments):
        dots = DOT.sub(".", segment) if len(segment) <= 6 else segment
        if dots == "..":
            del kept[-1:]
        if dots not in (".", ".."):
            kept.append(segment)
        elif position == len(segments) - 1:
            kept.append("")
    return "/" + "/".join(kept)


def _query(text: str) -> str:
    return text[:1] + _quote(text[1:], TO_QUOTE_IN_QUERY)


def check_address(text: str) -> None:
    """Raise Refused(`forbidden_address`) unless the IP address is globally reachable."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise Refused("forbidden_address", "not an IP address") from None
    if isinstance(address, ipaddress.IPv6Address) and address in NAT64:
        address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if isinstance(address, ipaddress.IPv4Address):
        refused = any(address in network for network in NOT_GLOBAL_4)
    else:
        refused = (
            address not in GLOBAL_6
            or address.scope_id is not None
            or any(address in network for network in NOT_GLOBAL_6)
        )
    if refused:
        raise Refused("forbidden_address", f"{address} is not a globally reachable address")


class Guard:
    """What may be connected to: global addresses, and exactly the exceptions given.

    `allow_addresses` are `IP:PORT` (`[IPv6]:PORT`), `resolve` maps host names to `IP` or `IP:PORT`
    without asking the name server; with a port, that one is connected to whatever the URL's is.
    Raises UserError for an exception that cannot be read.
    """

    def __init__(self, allow_addresses: Iterable[str] = (), resolve: Mapping[str, str] = {}):
        self.allowed = frozenset(map(_address_and_port, allow_addresses))
        self.names = {_name(name): _place(f"{name}:{ip}", ip) for name, ip in resolve.items()}
        self._admitted: set[tuple[str, int]] = set()

    def check(self, address: str, port: int) -> None:
        """Raise Refused unless this address may be connected to on this port."""
        if (address, port) in self.allowed:
            return
        check_address(address)
        if port in BAD_PORTS:
            raise Refused("forbidden_address", f"port {port} belongs to another protocol")

    def admit(self, target: Target) -> None:
        """Raise Refused for a target that need not be resolved to be refused."""
        host = target.host
        if (host, target.port) in self._admitted:
            return
        if host.startswith("[") or _is_ipv4(host):
            self.check(host.strip("[]"), target.port)
        elif host not in self.names:
            local = "." not in host or any(host.endswith("." + name) for name in LOCAL_SUFFIXES)
            if local or host in METADATA_HOSTS:
                raise Refused("forbidden_address", f"{host} is a name of a local network")
            if target.port in BAD_PORTS:
                raise Refused("forbidden_address", f"port {target.port} is another protocol's")
        if len(self._admitted) >= KEPT:
            self._admitted.clear()
        self._admitted.add((host, target.port))

    def is_excepted(self, host: str, address: str) -> bool:
        """Whether an exception names this host or (on any port) this address."""
        return host in self.names or any(address == allowed for allowed, _ in self.allowed)

    def check_all(self, addresses: Iterable[str], port: int) -> None:
        """Raise Refused if any address that a name resolves to may not be connected to.

        One such address refuses the name: names that mix both kinds are made to slip through.
        """
        for address in sorted(addresses):
            self.check(address, port)


def _address(option: str, text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise UserError(f"{option!r}: {text!r} is not an IP address") from None


def _address_and_port(option: str) -> tuple[str, int]:
    address, _, port = option.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"--allow-address {option!r}: write IP:PORT, IPv6 as [ADDRESS]:PORT")
    return _address(option, address), int(port)


def _place(option: str, text: str) -> tuple[str, int | None]:
    """(address, port) of `IP`, `IP:PORT`, `[IPv6]` or `[IPv6]:PORT`; the port None if not given."""
    bracketed, _, port = text.rpartition(":")
    with_port = bracketed.endswith("]") if text.startswith("[") else text.count(":") == 1
    if not with_port:
        return _address(option, text), None
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"--resolve {option!r}: {port!r} is no port; write HOST:IP or HOST:IP:PORT")
    return _address(option, bracketed), int(port)


def _name(text: str) -> str:
    try:
        return _host(text)
    except Refused as error:
        raise UserError(f"--resolve {text!r}: {error.message}; write HOST:IP") from None
