"""What hosts allow: rules, their absence, and what stands for either when the server fails."""

import asyncio

import pyarrow as pa
import pytest

from tests.faulty import FIXED, FaultyServer, answer
from wit.errors import UserError
from wit.hashing import hash64, slots_of
from wit.web.client import Client
from wit.web.policy import WebPolicy
from wit.web.rates import Share
from wit.web.robots import (
    ROBOTS,
    HostRule,
    HostRules,
    fetch_robots,
    product_token,
    robots_table,
)

AGENT = "TestBot/1.0 (+https://example.org/bot)"


def test_the_name_that_robots_txt_knows_an_agent_by():
    assert product_token(AGENT) == "testbot"
    assert product_token("Mozilla/5.0 (compatible; Test-Bot/2.0; +https://x)") == "test-bot"
    with pytest.raises(UserError, match="start it with a name"):
        product_token("(+https://example.org)")


# --- the table --------------------------------------------------------------------------------


@pytest.fixture
def server():
    with FaultyServer() as running:
        yield running


def policy(server: FaultyServer, **changes) -> WebPolicy:
    names = {f"{name}.test": "127.0.0.1" for name in ("rules", "other", "far")}
    settings = {
        "host_rate": 0,
        "retries": 0,
        "allow_addresses": (server.address,),
        "resolve": names,
        "read_seconds": 0.5,
        "tdmrep": False,
        "total_seconds": 1.0,
    }
    return WebPolicy(AGENT, **{**settings, **changes})


@pytest.mark.parametrize(
    ("body", "robots"),
    [
        (answer(b"User-agent: *\nDisallow: /x\nCrawl-delay: 2.5", "text/plain"), "rules"),
        (answer(b"", "text/plain"), "allow_all"),
        (answer(b"<html>no such page</html>", "text/html"), "allow_all"),
        (answer(b"", status="404 Not Found"), "allow_all"),
        (answer(b"", status="403 Forbidden"), "allow_all"),
        (answer(b"", status="500 Oops"), "disallow_all"),
        (answer(b"", status="429 Too Many"), "disallow_all"),
        (answer(b"", status="302 Found", Location="http://169.254.169.254/"), "unreachable"),
        (answer(b"", status="302 Found", Location="/robots.txt"), "allow_all"),
        (FIXED["/garbage"], "unreachable"),
        (FIXED["/brotli"], "unreachable"),
    ],
)
def test_each_answer_has_its_row(server, monkeypatch, body, robots):
    monkeypatch.setitem(FIXED, "/robots.txt", body)
    host = f"http://rules.test:{server.port}"
    table = robots_table(policy(server), [host])
    assert table.schema == ROBOTS
    (row,) = table.to_pylist()
    assert (row["host"], row["robots"]) == (host, robots)
    assert (row["crawl_delay"], bool(row["rules"])) == (
        (2.5, True) if robots == "rules" else (None, False)
    )


def test_a_host_without_an_answer_is_unreachable(server):
    allow = (server.address, "127.0.0.1:2")
    hosts = ["http://rules.test:2", "nonsense"]
    found = robots_table(policy(server, allow_addresses=allow), hosts)["robots"].to_pylist()
    assert found == ["unreachable"] * 2


def test_a_host_whose_address_is_forbidden_is_called_so_and_nothing_is_asked_of_it(server):
    names = {"inside.test": "10.1.2.3", "rules.test": "127.0.0.1"}
    hosts = [
        *("http://127.0.0.1", "http://192.168.1.20", "http://[::1]", "http://0x7f.1"),
        *("http://localhost", "http://printer.local", "http://inside.test"),
        f"http://127.0.0.1:{server.port + 1}",
    ]
    found = robots_table(policy(server, resolve=names), hosts)["robots"].to_pylist()
    assert found == ["forbidden_address"] * len(hosts)
    assert server.log == []
    (rule,) = ask(policy(server, resolve=names), ["http://inside.test"])
    assert rule.verdict("http://inside.test/x", "testbot")[0] == "robots_unreachable"


def test_a_host_that_only_redirects_to_a_forbidden_address_is_not_called_so(server, monkeypatch):
    for there in ("http://10.1.2.3/", "http://localhost/", "http://0x7f.1/"):
        redirect = answer(b"", status="302 Found", Location=there)
        monkeypatch.setitem(FIXED, "/robots.txt", redirect)
        (rule,) = ask(policy(server), [f"http://rules.test:{server.port}"])
        assert rule.robots == "unreachable"


def test_a_redirect_to_another_host_is_followed(server, monkeypatch):
    there = answer(b"", status="301 Moved", Location=f"http://far.test:{server.port}/r.txt")
    monkeypatch.setitem(FIXED, "/robots.txt", there)
    monkeypatch.setitem(FIXED, "/r.txt", answer(b"User-agent: *\nDisallow: /", "text/plain"))
    (rule,) = ask(policy(server), [f"http://rules.test:{server.port}"])
    assert rule.verdict("http://rules.test/x", "testbot") == (
        "robots_disallowed",
        "robots.txt forbids it",
    )


def ask(settings: WebPolicy, hosts: list[str]) -> list[HostRule]:
    async def run() -> list[HostRule]:
        async with Client(settings) as client:
            return await fetch_robots(client, hosts)

    return asyncio.run(run())


def test_one_request_a_host_and_a_retry_only_after_a_failure(server, monkeypatch):
    hosts = [f"http://{name}.test:{server.port}" for name in ("rules", "other", "far")]
    ask(policy(server, retries=2), hosts)
    assert [path for _, _, path in server.log] == ["/robots.txt"] * 3
    server.log.clear()
    monkeypatch.setattr("wit.web.robots.retry_delay", lambda *_: 0.01)
    monkeypatch.setitem(FIXED, "/robots.txt", answer(b"", status="503 Busy"))
    ask(policy(server, retries=2), hosts[:1])
    assert len(server.log) == 3


def test_a_file_above_the_limit_is_cut(server, monkeypatch):
    long = b"User-agent: *\n" + b"Disallow: /never-mind\n" * 50_000 + b"Disallow: /last\n"
    monkeypatch.setitem(FIXED, "/robots.txt", answer(long, "text/plain"))
    (rule,) = ask(policy(server), [f"http://rules.test:{server.port}"])
    assert len(rule.rules) == 500 * 1024


def test_a_table_gives_each_host_its_rule_and_its_lanes_share():
    table = ROBOTS.empty_table().from_pylist(
        [
            {"host": "http://a", "robots": "disallow_all"},
            {"host": "http://b", "robots": "unreachable"},
            {"host": "http://c", "robots": "allow_all", "crawl_delay": 3.0},
            {"host": "http://d", "robots": "allow_all", "tdm": '[["/x", 1]]'},
        ],
        schema=ROBOTS,
    )
    rules = HostRules.from_table(table)
    assert rules.get("http://a").verdict("http://a/", "x")[0] == "robots_disallowed"
    assert rules.get("http://b").verdict("http://b/", "x")[0] == "robots_unreachable"
    assert rules.get("http://c").verdict("http://c/", "x") is None
    assert rules.get("http://c").crawl_delay == 3.0
    assert rules.get("http://d").verdict("http://d/x", "x") == ("opted_out", "tdmrep.json")
    assert rules.get("http://d").verdict("http://d/y", "x") is None
    assert rules.get("http://e") is None
    assert rules.share("anything") == Share()
    with pytest.raises(UserError, match="host http://e: 'maybe'"):
        HostRules.from_table(table.from_pylist([{"host": "http://e", "robots": "maybe"}], ROBOTS))


@pytest.mark.parametrize(("lanes", "widths"), [(1, (1, 1)), (4, (1, 2)), (8, (3, 8))])
def test_the_lanes_of_a_run_share_out_each_hosts_rate_and_no_more(lanes, widths):
    table = pa.table(
        {
            "host": ["http://a.test", "http://b.test"],
            "robots": ["allow_all"] * 2,
            **{name: pa.nulls(2, ROBOTS.field(name).type) for name in ROBOTS.names[2:]},
            "hostname": ["a.test", "b.test"],
            "lanes": widths,
        }
    )
    first = slots_of(hash64(table["hostname"]), lanes).tolist()
    for host, width, start in zip(table["hostname"].to_pylist(), widths, first, strict=True):
        own = [(start + k) % lanes for k in range(width)]
        rules = [
            HostRules.from_table(
                table,
                lane,
                lanes,
                lambda name: 0.8,
                lambda name, lane=lane: Share.part(0.2, lane, lanes),
            )
            for lane in range(lanes)
        ]
        shares = [rules[lane].share(host) for lane in own]
        other = [each.share("c.test") for each in rules]
        assert sorted(share.slot for share in shares) == list(range(width))
        assert sorted(share.slot for share in other) == list(range(lanes))
        parts = [1 / share.of for share in shares] + [1 / share.of for share in other]
        assert sum(parts) == pytest.approx(1.0)


# --- tdmrep.json ------------------------------------------------------------------------------


def test_tdmrep_json_is_asked_once_a_host_after_robots_txt(server, monkeypatch):
    tdm = b'[{"location": "/photos/*", "tdm-reservation": 1}]'
    monkeypatch.setitem(FIXED, "/.well-known/tdmrep.json", answer(tdm, "application/json"))
    host = f"http://rules.test:{server.port}"
    (rule,) = ask(policy(server, tdmrep=True), [host])
    assert server.paths("rules.test") == ["/robots.txt", "/.well-known/tdmrep.json"]
    assert rule.verdict(f"{host}/photos/a.jpg", "testbot") == ("opted_out", "tdmrep.json")
    assert rule.verdict(f"{host}/private/a.jpg", "testbot")[0] == "robots_disallowed"
    assert rule.verdict(f"{host}/a.jpg", "testbot") is None
    (rule,) = ask(policy(server), [host])
    assert rule.tdm is None


@pytest.mark.parametrize(
    "robots",
    [
        answer(b"User-agent: *\nDisallow: /.well-known/", "text/plain"),
        answer(b"User-agent: *\nDisallow: /", "text/plain"),
        answer(b"", status="503 Busy"),
    ],
)
def test_tdmrep_json_is_not_asked_where_robots_txt_forbids_it(server, monkeypatch, robots):
    monkeypatch.setitem(FIXED, "/robots.txt", robots)
    ask(policy(server, tdmrep=True), [f"http://rules.test:{server.port}"])
    assert server.paths("rules.test") == ["/robots.txt"]


def test_the_files_of_a_host_are_asked_at_its_rate_and_crawl_delay(server, monkeypatch):
    slow = answer(b"User-agent: *\nDisallow: /x\nCrawl-delay: 0.4", "text/plain")
    monkeypatch.setitem(FIXED, "/robots.txt", slow)
    ask(policy(server, tdmrep=True, host_rate=5.0), [f"http://rules.test:{server.port}"])
    times = [moment for moment, _, _ in server.log]
    assert len(times) == 2
    assert times[1] - times[0] >= 0.4


def test_robots_txt_of_many_names_at_one_address_is_asked_by_few_requests_at_once(
    server, monkeypatch
):
    names = {f"blog{number}.test": "127.0.0.1" for number in range(30)}
    hosts = [f"http://{name}:{server.port}" for name in names]
    ask(policy(server, resolve=names, per_address_concurrency=3), hosts)
    assert len(server.log) == 30
    assert server.most_in_all <= 3
