"""What a host allows: robots.txt (RFC 9309) and the opt-outs that an answer's headers carry.

robots.txt is asked once a host and kept as a table, so that a run can be repeated and inspected:

    host         string   scheme://host[:port] (`wit.web.guard.origin_of`)
    robots       string   allow_all     no rules, or the file is not there (any HTTP 4xx but 429)
                          rules         the text in `rules` decides
                          disallow_all  the server failed (5xx, 429): nothing may be asked
                          unreachable   no answer at all: nothing may be asked
    rules        string   the text, at most 500 KiB of it; null unless `robots` is rules
    crawl_delay  float64  seconds between requests that the rules ask of our agent, else null
"""

import asyncio
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import pyarrow as pa
from protego import Protego

from wit.errors import UserError
from wit.outcomes import SUCCESS, TRANSIENT
from wit.web.client import Client
from wit.web.guard import Refused, Target, parse_url
from wit.web.policy import WebPolicy
from wit.web.rates import HostRates, retry_delay

ROBOTS = pa.schema(
    [
        pa.field("host", pa.string(), nullable=False),
        pa.field("robots", pa.string(), nullable=False),
        ("rules", pa.string()),
        ("crawl_delay", pa.float64()),
    ]
)
KINDS = ("allow_all", "disallow_all", "rules", "unreachable")
MAX_BYTES = 500 * 1024
MAX_REDIRECTS = 5
MAX_WAIT = 30.0  # seconds that a Retry-After can hold up the step that asks for robots.txt
AT_ONCE = 64  # hosts
# RFC 9309, 2.3.1.2 and 2.3.1.3: there is no file, so nothing is forbidden.
UNAVAILABLE = (
    "not_found",
    "access_denied",
    "client_error",
    "unexpected_status",
    "too_many_redirects",
    "empty_body",
)

USER_AGENT_LINE = re.compile(r"\s*user[ -]?agent\s*[:\s]\s*([^#]*)", re.IGNORECASE)
PRODUCT = re.compile(r"[A-Za-z_-]+")
COMPATIBLE = re.compile(r"compatible;\s*([A-Za-z_-]+)", re.IGNORECASE)
# Directives of X-Robots-Tag that have a value of their own, so that a colon names no agent.
VALUED = frozenset(("max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"))


def product_token(user_agent: str) -> str:
    """The name by which robots.txt knows an agent, lower case (RFC 9309, 2.2.1).

    `WebImageText/0.1 (+https://...)` gives `webimagetext`; of a browser-like agent the name after
    `compatible;` counts.
    """
    match = COMPATIBLE.search(user_agent) or PRODUCT.match(user_agent)
    if match is None:
        raise UserError(f"user agent {user_agent!r}: start it with a name, as in Name/1.0 (+URL)")
    return match[match.lastindex or 0].lower()


# --- rules ------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def parse_rules(rules: str, token: str) -> Protego:
    """Parse the text of a robots.txt for one agent.

    Groups of other agents are renamed to one name first: RFC 9309 compares whole product tokens,
    where the parser also takes prefixes, and a file with a group of 20,000 agents would otherwise
    take minutes.
    """
    lines = []
    for line in rules.removeprefix("\ufeff").splitlines():
        match = USER_AGENT_LINE.match(line)
        if match:
            value = match[1].strip().lower()
            product = PRODUCT.match(value)
            if value.split()[:1] == ["*"]:
                line = "user-agent: *"
            elif product and product[0] == token:
                line = f"user-agent: {token}"
            else:
                line = "user-agent: /other"
        lines.append(line)
    return Protego.parse("\n".join(lines))


def allowed(rules: str, user_agent: str, urls: Iterable[str]) -> list[bool]:
    """Whether a robots.txt text lets `user_agent` ask for each URL."""
    token = product_token(user_agent)
    parsed = parse_rules(rules, token)
    return [parsed.can_fetch(url, token) for url in urls]


@dataclass(frozen=True, slots=True)
class HostRule:
    """One row of the robots table, and this lane's share of the host's rate (1/k for k lanes)."""

    robots: str
    rules: str | None = None
    crawl_delay: float | None = None
    share: float = 1.0

    def verdict(self, url: str, token: str) -> tuple[str, str] | None:
        """None where the URL may be asked, else (outcome, message)."""
        if self.robots == "rules" and self.rules is not None:
            if parse_rules(self.rules, token).can_fetch(url, token):
                return None
            return "robots_disallowed", "robots.txt forbids it"
        if self.robots == "disallow_all":
            return "robots_disallowed", "robots.txt: server error"
        if self.robots == "unreachable":
            return "robots_unreachable", "robots.txt: no answer"
        return None


class HostRules:
    """The robots table as a lane uses it: by origin (`scheme://host[:port]`).

    A host that is not in it (the target of a redirect) is asked for its robots.txt by the fetcher
    before anything else, and gets `default_share` of the rate: with L lanes, give 1/L.
    """

    def __init__(self, rules: Mapping[str, HostRule], default_share: float = 1.0):
        self._rules = rules
        self.default_share = default_share

    @classmethod
    def from_table(cls, table: pa.Table, default_share: float = 1.0) -> Self:
        """Build from rows of ROBOTS; a column `lanes` (int) gives each host 1/lanes of its rate."""
        rules = {}
        columns = [table[name].to_pylist() for name in ROBOTS.names]
        lanes = table["lanes"].to_pylist() if "lanes" in table.column_names else [1] * len(table)
        for host, robots, text, delay, count in zip(*columns, lanes, strict=True):
            if robots not in KINDS:
                raise UserError(f"robots table, host {host}: {robots!r} is none of {KINDS}")
            rules[host] = HostRule(robots, text, delay, 1 / count)
        return cls(rules, default_share)

    def get(self, origin: str) -> HostRule | None:
        """The rule of a host, None where it is not in the table."""
        return self._rules.get(origin)


# --- asking -----------------------------------------------------------------------------------


async def fetch_rule(client: Client, origin: str, rates: HostRates, share: float = 1.0) -> HostRule:
    """Ask one host for its robots.txt: one request, repeated only after a passing failure."""
    policy = client.policy
    loop = asyncio.get_running_loop()

    async def turn(target: Target) -> None:
        now = loop.time()
        await asyncio.sleep(rates.book(target.host, now, None, share) - now)

    try:
        target = parse_url(origin + "/robots.txt")
    except Refused:
        return HostRule("unreachable", share=share)
    for attempt in range(policy.retries + 1):
        answer = await client.get(
            target, before=turn, max_redirects=MAX_REDIRECTS, max_bytes=MAX_BYTES, cut=True
        )
        if answer.outcome not in TRANSIENT or attempt == policy.retries:
            break
        wait = max(answer.retry_after or 0.0, retry_delay(policy.seed, target.url, attempt))
        rates.pause(answer.target.host, loop.time() + wait)
        if wait > MAX_WAIT:
            break
    if answer.outcome == SUCCESS:
        return _read_rules(answer.body, product_token(policy.user_agent), share)
    if answer.outcome in UNAVAILABLE:
        return HostRule("allow_all", share=share)
    if answer.outcome in ("server_error", "rate_limited"):
        return HostRule("disallow_all", share=share)
    return HostRule("unreachable", share=share)


def _read_rules(body: bytes, token: str, share: float) -> HostRule:
    # A byte order mark goes, also one that was damaged on the way.
    text = re.sub(rb"^\xef(\xbb\xbf?)?", b"", body[:MAX_BYTES]).decode("utf-8", errors="replace")
    if not any(map(USER_AGENT_LINE.match, text.splitlines())):
        # Nothing in it speaks to an agent: an empty file, or a web page for a missing one.
        return HostRule("allow_all", share=share)
    return HostRule("rules", text, parse_rules(text, token).crawl_delay(token), share)


async def fetch_robots(client: Client, hosts: Sequence[str]) -> list[HostRule]:
    """Ask each host for its robots.txt, `AT_ONCE` at a time; the rules in the order of `hosts`."""
    rates = HostRates(client.policy.host_rate, client.policy.per_host_concurrency)
    rules = [HostRule("unreachable")] * len(hosts)
    waiting = iter(enumerate(hosts))

    async def one_after_another() -> None:
        for row, host in waiting:
            rules[row] = await fetch_rule(client, host, rates)

    await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))
    return rules


def robots_table(policy: WebPolicy, hosts: Sequence[str]) -> pa.Table:
    """Rows of the schema ROBOTS for these hosts (origins), in their order.

    Runs an event loop of its own: for callers without one.
    """

    async def ask() -> list[HostRule]:
        async with Client(policy) as client:
            return await fetch_robots(client, hosts)

    rules = asyncio.run(ask())
    columns = [
        list(hosts),
        [rule.robots for rule in rules],
        [rule.rules for rule in rules],
        [rule.crawl_delay for rule in rules],
    ]
    return pa.table(columns, schema=ROBOTS)


# --- opt-outs in headers ----------------------------------------------------------------------


def opted_out(values: Iterable[str], token: str, directives: Iterable[str]) -> str | None:
    """The first of `directives` that an answer's X-Robots-Tag values tell this agent, else None.

    A value is a list of directives, `noai, noindex`; `agent: noindex` speaks to that agent alone,
    up to the next agent of the same value.
    """
    for value in values:
        agent = "*"
        for part in value.lower().split(","):
            name, colon, rest = map(str.strip, part.partition(":"))
            if colon and name not in VALUED:
                agent, name = name, rest
            if agent in ("*", token) and name in directives:
                return name
    return None
