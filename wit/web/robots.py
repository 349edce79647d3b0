"""Which hosts allow what: robots.txt (RFC 9309) and tdmrep.json for a declared agent.

Both are asked once a host and kept as a table, so that a run can be repeated:

    host         string   scheme://host[:port], the origin the file speaks for
    robots       string   allow_all     no file (4xx) or an empty one
                          rules         the text in `rules` decides
                          disallow_all  the server failed (5xx, 429): nothing may be asked
                          unreachable   no answer at all: nothing may be asked
                          forbidden_address  the host is, or resolves to, an address that is not
                                        globally reachable (wit.web.guard): nothing was asked
                          blocklisted   the host is on a list of hosts: nothing was asked
    rules        string   the text, at most 500 KiB of it; null unless `robots` is rules
    crawl_delay  float64  seconds between requests that the rules ask of our agent, else null
    tdm          string   what tdmrep.json reserves (wit.web.optouts.read_tdmrep), else null
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import pyarrow as pa

from wit.errors import UserError
from wit.outcomes import SUCCESS, TRANSIENT
from wit.web.client import REDIRECT, Answer, Client
from wit.web.guard import Refused, Target, parse_url
from wit.web.optouts import TDMREP_PATH, read_tdmrep, tdm_reserves
from wit.web.policy import WebPolicy
from wit.web.rates import WHOLE, HostRates, Share, retry_delay
from wit.web.rules import parse, read_text, speaks

ROBOTS = pa.schema(
    [
        pa.field("host", pa.string(), nullable=False),
        pa.field("robots", pa.string(), nullable=False),
        ("rules", pa.string()),
        ("crawl_delay", pa.float64()),
        ("tdm", pa.string()),
    ]
)
KINDS = (
    *("allow_all", "disallow_all", "rules", "unreachable", "forbidden_address"),
    "blocklisted",
)
MAX_BYTES = 500 * 1024
MAX_REDIRECTS = 5
MAX_WAIT = 30.0  # seconds that a Retry-After can hold up the step that asks for robots.txt
AT_ONCE = 64  # hosts
BUSY_SECONDS = 0.02  # until a full host or address is looked at again
# RFC 9309, 2.3.1.2 and 2.3.1.3: there is no file, so nothing is forbidden.
UNAVAILABLE = (
    "not_found",
    "access_denied",
    "client_error",
    "unexpected_status",
    "too_many_redirects",
    "empty_body",
)
PRODUCT = re.compile(r"[A-Za-z_-]+")
COMPATIBLE = re.compile(r"compatible;\s*([A-Za-z_-]+)", re.IGNORECASE)

ShareOf = Callable[[str], Share]  # Target.server -> our part of its rate


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


def allowed(rules: str, user_agent: str, urls: Iterable[str]) -> list[bool]:
    """Whether a robots.txt text lets `user_agent` ask for each URL."""
    parsed = parse(rules, product_token(user_agent))
    return [parsed.may_fetch(url) for url in urls]


@dataclass(frozen=True, slots=True)
class HostRule:
    """One row of the robots table."""

    robots: str
    rules: str | None = None
    crawl_delay: float | None = None
    tdm: str | None = None

    def verdict(self, url: str, token: str) -> tuple[str, str] | None:
        """None where the URL may be asked, else (outcome, message)."""
        if self.robots == "disallow_all":
            return "robots_disallowed", "robots.txt: server error"
        if self.robots == "unreachable":
            return "robots_unreachable", "robots.txt: no answer"
        if self.robots == "forbidden_address":
            return "robots_unreachable", "robots.txt: the host's address is forbidden"
        if self.robots == "blocklisted":
            return "blocklisted", "the host is on a blocklist"
        if self.robots == "rules" and self.rules is not None:
            rules = parse(self.rules, token)
            if not rules.may_fetch(url):
                return "robots_disallowed", "robots.txt forbids it"
            if rules.no_training:
                return "opted_out", "robots.txt: Content-Signal ai-train=no"
        if self.tdm is not None and tdm_reserves(self.tdm, url):
            return "opted_out", "tdmrep.json"
        return None


class HostRules:
    """The robots table as a lane uses it: by origin (`scheme://host[:port]`).

    A host that is not in it (the target of a redirect) is asked for its robots.txt by the fetcher
    before anything else. `shares` gives this lane's part of each server's rate, `other_share` its
    part of a server that is not among them.
    """

    def __init__(
        self,
        rules: Mapping[str, HostRule],
        shares: Mapping[str, Share] = {},
        other_share: ShareOf = lambda server: WHOLE,
    ):
        self._rules = rules
        self._shares = shares
        self._other_share = other_share

    @classmethod
    def from_table(
        cls,
        table: pa.Table,
        lane: int = 0,
        lanes: int = 1,
        owners_part: Callable[[str], float] = lambda server: 1.0,
        other_share: ShareOf = lambda server: WHOLE,
    ) -> Self:
        """Build from rows of ROBOTS for one of `lanes` lanes.

        The columns `hostname` and `lanes` say that a host was given to the first `lanes` lanes from
        the one that its name hashes to; without them, it is this lane's alone. These lanes divide
        `owners_part` of its rate (0 to 1).
        """
        rules, shares = {}, {}
        columns = [table[name].to_pylist() for name in ROBOTS.names]
        for host, robots, text, delay, tdm in zip(*columns, strict=True):
            if robots not in KINDS:
                raise UserError(f"robots table, host {host}: {robots!r} is none of {KINDS}")
            rules[host] = HostRule(robots, text, delay, tdm)
        if "lanes" in table.column_names:
            from wit.hashing import hash64, slots_of  # loads a compiler

            first = slots_of(hash64(table["hostname"]), lanes).tolist()
            columns = [table["hostname"].to_pylist(), table["lanes"].to_pylist()]
            for name, count, start in zip(*columns, first, strict=True):
                shares[name] = Share.part(owners_part(name), (lane - start) % lanes, count)
        return cls(rules, shares, other_share)

    def get(self, origin: str) -> HostRule | None:
        """The rule of a host, None where it is not in the table."""
        return self._rules.get(origin)

    def share(self, server: str) -> Share:
        """The lane's part of a server's rate."""
        return self._shares.get(server) or self._other_share(server)


# --- asking -----------------------------------------------------------------------------------


async def fetch_rule(
    client: Client, origin: str, rates: HostRates, share_of: ShareOf = lambda server: WHOLE
) -> HostRule:
    """Ask one host for its robots.txt and, unless all is forbidden, its tdmrep.json.

    One request each, repeated only after a passing failure.
    """
    policy = client.policy
    try:
        target = parse_url(origin + "/robots.txt")
    except Refused as refused:
        forbidden = refused.outcome == "forbidden_address"
        return HostRule("forbidden_address" if forbidden else "unreachable")
    answer = await _ask(client, target, rates, share_of, None)
    rule = _rule_of(answer, target, product_token(policy.user_agent))
    if not policy.tdmrep or rule.robots not in ("allow_all", "rules"):
        return rule
    file = parse_url(origin + TDMREP_PATH)
    if rule.verdict(file.url, product_token(policy.user_agent)) is not None:
        return rule
    if rule.crawl_delay:
        wait = min(rule.crawl_delay, MAX_WAIT)
        rates.pause(target.server, asyncio.get_running_loop().time() + wait)
    answer = await _ask(client, file, rates, share_of, rule.crawl_delay)
    return replace(rule, tdm=read_tdmrep(answer.body)) if answer.outcome == SUCCESS else rule


def _rule_of(answer: Answer, target: Target, token: str) -> HostRule:
    if answer.outcome == SUCCESS:
        text = read_text(answer.body[:MAX_BYTES])
        if not speaks(text):  # an empty file, or a web page for a missing one
            return HostRule("allow_all")
        return HostRule("rules", text, parse(text, token).crawl_delay)
    if answer.outcome in UNAVAILABLE:
        return HostRule("allow_all")
    if answer.outcome in ("server_error", "rate_limited"):
        return HostRule("disallow_all")
    if (answer.outcome, answer.status) == ("forbidden_address", None) and (
        answer.target.origin == target.origin  # else a redirect leads there, not the host's name
    ):
        return HostRule("forbidden_address")
    return HostRule("unreachable")


async def _ask(
    client: Client, target: Target, rates: HostRates, share_of: ShareOf, delay: float | None
) -> Answer:
    """Ask for a small file, following redirects; each request in its turn."""
    policy, loop = client.policy, asyncio.get_running_loop()
    for attempt in range(policy.retries + 1):
        asked, left = target, MAX_REDIRECTS
        while True:
            answer = await _request(client, asked, rates, share_of(asked.server), delay)
            if answer.outcome != REDIRECT or answer.location is None:
                break
            if not left:
                answer.outcome, answer.message = "too_many_redirects", f"more than {MAX_REDIRECTS}"
                break
            asked, left = answer.location, left - 1
        if answer.outcome not in TRANSIENT or attempt == policy.retries:
            break
        wait = max(answer.retry_after or 0.0, retry_delay(policy.seed, target.url, attempt))
        rates.pause(asked.server, loop.time() + wait)
        if wait > MAX_WAIT:
            break
    return answer


async def _request(
    client: Client, target: Target, rates: HostRates, share: Share, delay: float | None
) -> Answer:
    """Make one request, when the host's rate and the limits of requests at once allow it."""
    loop, server = asyncio.get_running_loop(), target.server
    address = await client.place_of(target)
    while True:
        now = loop.time()
        wait = rates.turn(server, now, delay, share) - now
        if wait <= 0 and not rates.is_full(server, share) and client.take_place(address):
            break
        await asyncio.sleep(max(wait, BUSY_SECONDS))
    rates.book(server, now, delay, share)
    rates.start(server, share)
    try:
        return await client.request(target, max_bytes=MAX_BYTES, cut=True)
    finally:
        rates.finish(server, share)
        client.give_place(address)


async def fetch_robots(
    client: Client, hosts: Sequence[str], part: int = 0, parts: int = 1
) -> list[HostRule]:
    """Ask each host for its rules, `AT_ONCE` at a time; the rules in the order of `hosts`.

    This is one of `parts` processes that do so for different servers; what redirects lead to is
    shared among them.
    """
    rates = HostRates(client.policy.host_rate, client.policy.per_host_concurrency)
    rules = [HostRule("unreachable")] * len(hosts)
    waiting = iter(enumerate(hosts))
    ours = set(map(_server, hosts))
    own, other = (WHOLE, WHOLE) if parts == 1 else (Share.part(0.8), Share.part(0.2, part, parts))

    def share_of(server: str) -> Share:
        return own if server in ours else other

    async def one_after_another() -> None:
        for row, host in waiting:
            rules[row] = await fetch_rule(client, host, rates, share_of)

    await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))
    return rules


def _server(origin: str) -> str | None:
    try:
        return parse_url(origin).server
    except Refused:
        return None


def robots_table(
    policy: WebPolicy, hosts: Sequence[str], part: int = 0, parts: int = 1
) -> pa.Table:
    """Rows of the schema ROBOTS for these hosts (origins), in their order; see `fetch_robots`.

    Runs an event loop of its own: for callers without one.
    """

    async def ask() -> list[HostRule]:
        async with Client(policy) as client:
            return await fetch_robots(client, hosts, part, parts)

    rules = asyncio.run(ask())
    columns = [
        list(hosts),
        [rule.robots for rule in rules],
        [rule.rules for rule in rules],
        [rule.crawl_delay for rule in rules],
        [rule.tdm for rule in rules],
    ]
    return pa.table(columns, schema=ROBOTS)
