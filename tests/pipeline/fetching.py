"""A fetcher against the server that misbehaves, with limits that a test can wait for."""

import itertools

from pipeline.fetch import Fetched, Fetcher, FetchPolicy, HostRule, HostRules
from tests.faulty import FaultyServer
from wit.outcomes import OUTCOMES

AGENT = "TestBot/1.0 (+https://example.org/bot)"
NAMES = ("a.test", "b.test", "c.test", "d.test")
OPEN = HostRule("allow_all")


def policy(server: FaultyServer, **changes) -> FetchPolicy:
    """The policy of a test, with changes."""
    settings = {
        "host_rate": 0,
        "per_host_concurrency": 8,
        "allow_addresses": (server.address,),
        "resolve": dict.fromkeys(NAMES, "127.0.0.1"),
        "connect_seconds": 1.0,
        "read_seconds": 0.5,
        "total_seconds": 2.0,
        "max_bytes": 1_000_000,
        "retries": 1,
        "shard_seconds": 20.0,
        "decode_workers": 1,
    }
    return FetchPolicy(AGENT, **{**settings, **changes})


def rules(server: FaultyServer, rule: HostRule = OPEN, names=NAMES) -> HostRules:
    """The same rule for the hosts of these names."""
    return HostRules({f"http://{name}:{server.port}": rule for name in names})


def urls(server: FaultyServer, *paths: str, host: str = "a.test") -> list[str]:
    """The URLs of paths on a host of the server."""
    return [f"http://{host}:{server.port}{path}" for path in paths]


def fetch(server: FaultyServer, wanted: list[str], hosts=None, **changes) -> list[Fetched]:
    """The results in the order of the URLs."""
    with Fetcher(policy(server, **changes)) as fetcher:
        results = list(fetcher.run(wanted, hosts or rules(server)))
    assert sorted(result.index for result in results) == list(range(len(wanted)))
    assert all(result.outcome in OUTCOMES for result in results)
    return sorted(results, key=lambda result: result.index)


def gaps(server: FaultyServer, host: str) -> list[float]:
    """Seconds between the requests to a host."""
    times = [moment for moment, name, _ in server.log if name == host]
    return [later - earlier for earlier, later in itertools.pairwise(times)]
