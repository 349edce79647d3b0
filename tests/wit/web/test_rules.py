"""What a robots.txt allows: the answers of Google's own parser, and RFC 9309 where it says more."""

import codecs
import hashlib
import re
import tarfile
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protego import Protego

from wit.web.robots import allowed
from wit.web.rules import matches, parse, read_text, speaks

AGENT = "TestBot/1.0 (+https://example.org/bot)"
HOST = "http://a.test"
REAL_ASKED, REAL_ALLOWED = 112_980, 51_143
REAL_DIGEST = "d862c33cd85c41e48394c22ee145ca13273aa59f549c460c9c7fc2361a92f545"


@pytest.fixture(scope="module")
def files(shared_data) -> dict[str, bytes]:
    """The real robots.txt files and Google's cases, by path."""
    with tarfile.open(shared_data / "torture" / "robots_and_urls.tar.xz") as archive:
        return {
            entry.name: archive.extractfile(entry).read()
            for entry in archive
            if entry.isfile() and ("/test_data/" in entry.name or "/CTC/" in entry.name)
        }


# --- the reference ----------------------------------------------------------------------------

TEXT = r'((?:"(?:[^"\\\n]|\\.)*"\s*)+)'
FIELD = re.compile(rf"\b(robotstxt|testurl|useragent):\s*{TEXT}|\b(expected_outcome):\s*(\w+)")
EXPLANATION = re.compile(rf"additional_explanation:\s*{TEXT}")


def conformance_cases(text: str):
    """(robots.txt, agent, URL, whether it is allowed) of a textproto of Google's."""
    fields: dict[str, bytes] = {}
    for match in FIELD.finditer(EXPLANATION.sub("", text)):
        if match[3]:
            agent, url = fields["useragent"].decode(), fields["testurl"].decode()
            yield fields["robotstxt"], agent, url, match[4] == "ALLOWED"
        else:
            parts = re.findall(r'"((?:[^"\\\n]|\\.)*)"', match[2])
            fields[match[1]] = b"".join(codecs.escape_decode(part.encode())[0] for part in parts)


def test_each_of_googles_conformance_cases_has_the_answer_expected(files):
    cases = [
        case
        for name, body in files.items()
        if name.endswith(".textproto")
        for case in conformance_cases(body.decode())
    ]
    assert len(cases) == 400
    wrong = [
        (body, agent, url)
        for body, agent, url, may in cases
        if parse(read_text(body), agent.lower()).may_fetch(url) != may
    ]
    assert wrong == []


def questions(body: bytes) -> list[str]:
    """URLs that a file's own rules are about, and some that are everywhere."""
    urls = ["/", "/images/a.jpg", "/wp-content/uploads/2020/01/x.png?x=1", "/index.html"]
    for raw in re.findall(rb"(?im)^\s*(?:dis)?allow\s*:\s*(/[^\s#]*)", body)[:4]:
        pattern = "".join(chr(byte) if byte < 128 else f"%{byte:02X}" for byte in raw)
        for star, rest in (("", ""), ("x/y.jpg", ""), ("z", "?a=b")):
            urls.append(pattern.replace("*", star).rstrip("$") + rest)
    return [HOST + url for url in urls if not re.search("%[0-9A-Fa-f]?[a-f7]", url)]


def test_every_real_robots_txt_gets_the_answers_of_googles_parser(files):
    # The digest is of what google/robotstxt (robots.cc of commit 22b355f) answered when it was
    # built and asked the same. URLs with escapes that RFC 9309 reads otherwise are left out.
    answers = bytearray()
    real = sorted(name for name in files if "/protego/tests/test_data/" in f"/{name}")
    assert len(real) > 4000
    for name in real:
        text = read_text(files[name])
        for agent in ("testbot", "googlebot"):
            rules = parse(text, agent)
            answers += bytes(map(rules.may_fetch, questions(files[name])))
    assert (len(answers), answers.count(1)) == (REAL_ASKED, REAL_ALLOWED)
    assert hashlib.sha256(answers).hexdigest() == REAL_DIGEST


def test_crawl_delays_of_real_files_are_found(files):
    real = sorted(name for name in files if "/protego/tests/test_data/" in f"/{name}")[::10]
    delays = [parse(read_text(files[name]), "testbot").crawl_delay for name in real]
    assert sum(delay is not None for delay in delays) > 20
    assert {1.0, 10.0} < set(delays)


# --- rules ------------------------------------------------------------------------------------


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
        ("User-agent: *\nDisallow: /img/\nAllow: /img/", True),  # of equal length: allowed
        ("User-agent: *\nDisallow: /*.jpg$", False),
        ("User-agent: *\nDisallow: /*.jp$", True),
        ("User-agent: *\nDisallow: /*g*ts*.j", False),
        ("\ufeffUser-agent: *\nDisallow: /", False),
        ("Disallow: /", True),
        ("User-agent: *\x0bDisallow: /\x85Disallow: /", True),  # no line ends but CR and LF
        ("User-agent: *\rDisallow: /", False),
        ("user agent: *\ndisalow: /", False),
        ("User-agent *\nDisallow /", False),
        ("User-agent: testbot\nCrawl-delay: 9\nUser-agent: x\nDisallow: /", False),
    ],
)
def test_rules_are_read_as_rfc_9309_and_google_say(rules, may):
    assert allowed(rules, AGENT, ["http://a.test/img/cats.jpg"]) == [may]


@pytest.mark.parametrize(
    ("pattern", "path"),
    [("/~joe", "/%7Ejoe"), ("/%7ejoe", "/~joe"), ("/x%2A", "/x*"), ("/x%24", "/x$")],
)
def test_a_disallow_holds_however_its_characters_are_escaped(pattern, path):
    assert allowed(f"User-agent: *\nDisallow: {pattern}", AGENT, [HOST + path]) == [False]
    opened = f"User-agent: *\nDisallow: /\nAllow: {pattern}"
    assert allowed(opened, AGENT, [HOST + path]) == [False]  # an Allow only as it is written


def test_an_index_page_that_is_allowed_allows_its_folder():
    rules = "User-agent: *\nDisallow: /\nAllow: /docs/index.html"
    assert allowed(rules, AGENT, [f"{HOST}/docs/", f"{HOST}/docs/x"]) == [True, False]


def test_bytes_that_are_not_utf_8_match_their_escapes():
    body = b"User-agent: *\nDisallow: /caf\xe9\n"
    assert not parse(read_text(body), "testbot").may_fetch(f"{HOST}/caf%E9/x")
    for coding in ("utf-8-sig", "utf-16"):
        assert not parse(
            read_text("User-agent: *\nDisallow: /é".encode(coding)), "testbot"
        ).may_fetch(f"{HOST}/%C3%A9")


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ("Crawl-delay: 2.5", 2.5),
        ("crawl-delay : 10 # seconds", 10.0),
        ("Crawl-delay: 1\nCrawl-delay: 7", 7.0),
        ("Request-rate: 2/10s", 5.0),
        ("Request-rate: 1/5m", 300.0),
        ("Crawl-delay: soon", None),
        ("Crawl-delay: -1", None),
        ("Crawl-delay: inf", None),
        ("Request-rate: 0/1", 1.0),
        ("User-agent: other\nDisallow: /\nCrawl-delay: 10", None),
    ],
)
def test_the_delay_between_requests(lines, seconds):
    assert parse(f"User-agent: *\nDisallow: /x\n{lines}", "testbot").crawl_delay == seconds


@pytest.mark.parametrize(
    ("lines", "reserved"),
    [
        ("Content-Signal: search=yes, ai-train=no", True),
        ("Content-signal: ai-train = no", True),
        ("Content-Signal: ai-train=yes, ai-input=no", False),
        ("User-agent: otherbot\nAllow: /\nContent-Signal: ai-train=no", False),
    ],
)
def test_a_signal_against_training(lines, reserved):
    assert parse(f"User-agent: *\nAllow: /\n{lines}", "testbot").no_training is reserved


def test_what_speaks_to_no_agent_is_no_robots_txt():
    assert speaks("# hello\nUSER-AGENT: x")
    assert not speaks("<html>\n<p>user-agent: *</p>")
    assert not speaks("")


# --- any text ---------------------------------------------------------------------------------

PATTERN = st.text("ab/*$", max_size=8).map("/".__add__)
PATH = st.text("ab/", max_size=10).map("/".__add__)


@given(PATTERN, PATH)
def test_a_pattern_matches_what_its_meaning_as_an_expression_does(pattern, path):
    ends = pattern.endswith("$")
    parts = map(re.escape, pattern.removesuffix("$").split("*"))
    expression = ".*".join(parts) + "$" * ends
    assert matches(pattern, HOST + path) == bool(re.match(expression, path))


@given(st.lists(st.tuples(st.booleans(), st.text("ab/*", max_size=6)), max_size=6), PATH)
def test_another_parser_gives_the_same_answer_where_both_follow_the_rfc(rules, path):
    lines = [("Allow: /" if allows else "Disallow: /") + text for allows, text in rules]
    text = "\n".join(["User-agent: testbot", *lines])
    url = HOST + path
    assert parse(text, "testbot").may_fetch(url) == Protego.parse(text).can_fetch(url, "testbot")


@given(st.binary(max_size=300), st.text(max_size=30))
def test_no_bytes_break_it(body, path):
    text = read_text(b"User-agent: *\nDisallow: " + body)
    assert text.encode()
    assert isinstance(parse(text, "testbot").may_fetch(f"{HOST}/{path}"), bool)
    assert isinstance(speaks(read_text(body)), bool)


def test_files_made_to_take_minutes_take_none():
    agents = "".join(f"User-agent: a{number}\n" for number in range(20_000))
    groups = "".join(f"User-agent: b{number}\nDisallow: /{number}\n" for number in range(20_000))
    stars = "User-agent: *\nDisallow: /" + "*a" * 8_000 + "b\n"
    many = "User-agent: *\n" + "".join(f"Disallow: /p{number}*/q\n" for number in range(20_000))
    begun = time.process_time()
    for rules in (agents + "Disallow: /x\n" * 18_000, groups, stars, many):
        urls = [f"{HOST}/p{number}" + "a" * 1000 for number in range(100)]
        assert allowed(rules[: 500 * 1024], AGENT, urls) == [True] * 100
    assert time.process_time() - begun < 5
