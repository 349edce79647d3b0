"""What hosts allow: rules, their absence, and what stands for either when the server fails."""

import asyncio
import tarfile
import time

import pytest

from tests.faulty import FIXED, FaultyServer, answer
from wit.errors import UserError
from wit.web.client import Client
from wit.web.policy import WebPolicy
from wit.web.robots import (
    ROBOTS,
    HostRule,
    HostRules,
    allowed,
    fetch_robots,
    opted_out,
    parse_rules,
    product_token,
    robots_table,
)

AGENT = "TestBot/1.0 (+https://example.org/bot)"
DIRECTIVES = ("noai", "noimageai", "noindex", "noimageindex", "none")


# --- whose rules ------------------------------------------------------------------------------


def test_the_name_that_robots_txt_knows_an_agent_by():
    assert product_token(AGENT) == "testbot"
    assert product_token("Mozilla/5.0 (compatible; Test-Bot/2.0; +https://x)") == "test-bot"
    with pytest.raises(UserError, match="start it with a name"):
        product_token("(+https://example.org)")


@pytest.mark.parametrize(
    ("rules", "may"),
    [
        ("", True),
        ("User-agent: *\nDisallow: /", False),
        ("User-agent: testbot\nDisallow: /\n\nUser-agent: *\nAllow: /", False),
        ("User-agent: TESTBOT/2.1 (any)\nDisallow: /", False),
        ("User-agent: *\nDisallow: /\n\nUser-agent: TestBot\nDisallow:", True),
        ("User-agent: test\nDisallow: /", True),  # RFC 9309: a whole name, not the start of one
        ("User-agent: testbotnews\nDisallow: /", True),
        ("User-agent: a\nUser-agent: testbot\nDisallow: /img/", False),
        ("User-agent: *\nDisallow: /img/\nAllow: /img/cats", True),
        ("User-agent: *\nDisallow: /*.jpg$", False),
        ("\ufeffUser-agent: *\nDisallow: /", False),
        ("Disallow: /", True),
    ],
)
def test_rules_are_read_as_rfc_9309_says(rules, may):
    assert allowed(rules, AGENT, ["http://a.test/img/cats.jpg"]) == [may]


def test_a_file_made_to_take_minutes_takes_none():
    agents = "".join(f"User-agent: a{number}\n" for number in range(20_000))
    rules = agents + "Disallow: /x\n" * 18_000
    begun = time.process_time()
    assert allowed(rules[: 500 * 1024], AGENT, ["http://a.test/x"]) == [True]
    assert time.process_time() - begun < 5


def test_every_real_robots_txt_is_read_and_the_crawl_delay_found(shared_data):
    delays = bans = files = 0
    with tarfile.open(shared_data / "torture" / "robots_and_urls.tar.xz") as archive:
        for entry in archive:
            if entry.isfile() and "/protego/tests/test_data/" in f"/{entry.name}":
                text = archive.extractfile(entry).read()[: 500 * 1024].decode("utf-8", "replace")
                parsed = parse_rules(text, "testbot")
                files += 1
                delays += parsed.crawl_delay("testbot") is not None
                bans += not parsed.can_fetch("http://a.test/images/photo.jpg", "testbot")
    assert files > 4000
    assert delays > 100
    assert 50 < bans < files // 10


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
    hosts = ["http://rules.test:1", "http://192.168.0.1", "nonsense"]
    assert robots_table(policy(server), hosts)["robots"].to_pylist() == ["unreachable"] * 3


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
        ],
        schema=ROBOTS,
    )
    rules = HostRules.from_table(table.append_column("lanes", [[1, 1, 4]]), default_share=0.5)
    assert rules.get("http://a").verdict("http://a/", "x")[0] == "robots_disallowed"
    assert rules.get("http://b").verdict("http://b/", "x")[0] == "robots_unreachable"
    assert rules.get("http://c").verdict("http://c/", "x") is None
    assert (rules.get("http://c").share, rules.get("http://c").crawl_delay) == (0.25, 3.0)
    assert rules.get("http://d") is None
    with pytest.raises(UserError, match="host http://e: 'maybe'"):
        HostRules.from_table(table.from_pylist([{"host": "http://e", "robots": "maybe"}], ROBOTS))


# --- opt-outs in headers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["noai"], "noai"),
        (["NoAI, nofollow"], "noai"),
        (["nofollow", "all , noimageindex"], "noimageindex"),
        (["none"], "none"),
        (["testbot: noindex"], "noindex"),
        (["otherbot: noindex"], None),
        (["otherbot: noindex, nofollow, noai"], None),
        (["otherbot: nofollow, testbot: noimageai"], "noimageai"),
        (["*: noai"], "noai"),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST, noindex"], "noindex"),
        (["max-snippet: 20, noai"], "noai"),
        (["index, follow"], None),
        ([""], None),
        ([], None),
    ],
)
def test_opt_outs_for_all_or_for_this_agent(values, found):
    assert opted_out(values, "testbot", DIRECTIVES) == found
