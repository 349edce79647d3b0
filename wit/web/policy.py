"""How the web is asked: the settings of a guest, with defaults that no host minds."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from wit.errors import UserError

# Directives of X-Robots-Tag that keep a picture out; the last one once its date is over.
OPT_OUTS = ("noai", "noimageai", "noindex", "noimageindex", "none", "unavailable_after")


@dataclass(frozen=True)
class WebPolicy:
    """How the web is asked. Times are seconds, sizes bytes.

    `per_address_concurrency` is requests at once to one IP address, of this process; None is 16,
    and no limit for the addresses that `allow_addresses` and `resolve` name. After `host_failures`
    failures of a host in a row it rests for `host_rest` seconds, then one more failure gives it
    up for the shard; 0 never does. A body may not come more slowly than `min_speed` bytes a second
    once `slow_seconds` are over. `tdmrep` asks each host for its tdmrep.json, too.

    `user_agent` must carry a contact (a URL or a mail address). `host_rate` is requests a second
    to one host over all lanes; 0 is no limit and only right for one's own servers.
    `allow_addresses` (IP:PORT) and `resolve` (host name -> IP or IP:PORT) are the exact exceptions
    to the rule that only global addresses are asked. `ca_file` adds trusted certificates (PEM).
    """

    user_agent: str
    host_rate: float = 5.0
    per_host_concurrency: int = 2
    per_address_concurrency: int | None = None
    host_failures: int = 5
    host_rest: float = 30.0
    connect_seconds: float = 10.0
    read_seconds: float = 10.0  # the longest silence, also before the first byte
    slow_seconds: float = 10.0
    min_speed: int = 1_000
    total_seconds: float = 60.0
    max_bytes: int = 20_000_000
    max_redirects: int = 5
    retries: int = 2
    dns_workers: int = 16
    dns_seconds: float = 600.0  # how long an answer of the name server is kept
    allow_addresses: tuple[str, ...] = ()
    resolve: Mapping[str, str] = field(default_factory=dict)
    ca_file: str | None = None
    opt_outs: tuple[str, ...] = OPT_OUTS
    tdmrep: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if "@" not in self.user_agent and "://" not in self.user_agent:
            raise UserError(
                f"user agent {self.user_agent!r} names no contact: add a URL or a mail address, "
                "as in Name/1.0 (+https://example.org/bot; bot@example.org)"
            )
        if not self.user_agent.isprintable() or not self.user_agent.isascii():
            raise UserError(f"user agent {self.user_agent!r}: write it in printable ASCII")
        for name in ("per_host_concurrency", "max_bytes", "dns_workers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name.replace('_', ' ')}: {getattr(self, name)} is below 1")
        for name in ("connect_seconds", "read_seconds", "total_seconds"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name.replace('_', ' ')}: {getattr(self, name)} is not above 0")
        for name in (
            *("host_rate", "max_redirects", "retries", "dns_seconds", "host_failures", "host_rest"),
            *("min_speed", "slow_seconds", "per_address_concurrency"),
        ):
            if not (getattr(self, name) or 0) >= 0:
                raise UserError(f"{name.replace('_', ' ')}: {getattr(self, name)} is below 0")

    def to_json(self) -> dict[str, Any]:
        """Return the policy as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build from `to_json`'s values; an unknown name is a UserError."""
        fields = {entry.name: entry for entry in dataclasses.fields(cls)}
        for name in values:
            if name not in fields:
                raise UserError(f"fetch policy: there is no setting {name!r}")
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists})
