"""One request at a time against a server that misbehaves, and names that lie."""

import asyncio
import socket
import time

import pytest

from tests.faulty import CERTIFICATE, EXPIRED, JPEG, FaultyServer
from wit.errors import UserError
from wit.outcomes import OUTCOMES
from wit.web import resolver
from wit.web.client import REDIRECT, Answer, Client
from wit.web.guard import parse_url
from wit.web.places import PLACES
from wit.web.policy import WebPolicy

AGENT = "TestBot/1.0 (+https://example.org/bot)"
PUBLIC = "93.184.215.14"

pytestmark = pytest.mark.usefixtures("only_loopback")


@pytest.fixture(scope="module")
def server():
    with FaultyServer() as running:
        yield running


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory):
    with FaultyServer(tls_folder=tmp_path_factory.mktemp("tls")) as running:
        yield running


def policy(server: FaultyServer, **changes) -> WebPolicy:
    settings = {
        "allow_addresses": (server.address,),
        "resolve": {"a.test": "127.0.0.1", "tls.test": "127.0.0.1", "other.test": "127.0.0.1"},
        "connect_seconds": 1.0,
        "read_seconds": 0.4,
        "total_seconds": 1.2,
        "max_bytes": 1_000_000,
        "dns_seconds": 0.0,
    }
    return WebPolicy(AGENT, **{**settings, **changes})


def ask(settings: WebPolicy, *urls: str, lookup=resolver.look_up, **options) -> list[Answer]:
    async def run() -> list[Answer]:
        async with Client(settings, lookup) as client:
            return [await client.request(parse_url(url), **options) for url in urls]

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "outcome", "message"),
    [
        ("/ok.jpg", "success", None),
        ("/wrong-type", "success", None),
        ("/gzip", "success", None),
        ("/status/404", "not_found", "HTTP 404"),
        ("/status/410", "not_found", "HTTP 410"),
        ("/status/403", "access_denied", "HTTP 403"),
        ("/status/418", "client_error", "HTTP 418"),
        ("/status/429", "rate_limited", "HTTP 429"),
        ("/status/503", "server_error", "HTTP 503"),
        ("/status/304", "unexpected_status", "HTTP 304"),
        ("/no-content", "unexpected_status", "HTTP 204"),
        ("/empty", "empty_body", None),
        ("/silent", "first_byte_timeout", None),
        ("/silent-body", "read_timeout", None),
        ("/drip", "total_timeout", None),
        ("/drip-body", "total_timeout", None),
        ("/only-hints", "total_timeout", None),
        ("/endless-headers", "headers_too_large", None),
        ("/endless", "too_many_bytes", "more than 1000000 bytes"),
        ("/too-long", "too_many_bytes", "more than 1000000 bytes"),
        ("/lies", "too_many_bytes", "more than 1000000 bytes"),
        ("/gzip-bomb", "too_many_bytes", "more than 1000000 bytes"),
        ("/gzip-cut", "truncated_body", "the packed body is cut short"),
        ("/gzip-not", "bad_content_encoding", "the packed body is damaged"),
        ("/brotli", "unsupported_encoding", "br"),
        ("/brotli-bomb", "unsupported_encoding", "br"),
        ("/zstd", "unsupported_encoding", "zstd"),
        ("/packed-twice", "unsupported_encoding", "gzip, gzip"),
        ("/two-lengths", "invalid_response", None),
        ("/bad-status", "invalid_response", None),
        ("/cut-short", "truncated_body", None),
        ("/reset", "connection_lost", None),
        ("/garbage", "invalid_response", None),
        ("/bad-chunk", "invalid_response", None),
        ("/bad-second-chunk", "invalid_response", None),
        ("/many-headers", "headers_too_large", None),
        ("/long-header", "headers_too_large", None),
        ("/nowhere", "invalid_redirect", "HTTP 302 without a Location"),
        ("/to?http://[bad", "invalid_redirect", "redirect: no host name"),
        ("/to?file:///etc/passwd", "unsupported_scheme", "redirect: file: is not http or https"),
        ("/to?http://user:secret@a.test/", "invalid_redirect", None),
        ("/to?http://0x7f.1/", "forbidden_address", "redirect: an odd spelling of an IPv4 address"),
    ],
)
def test_each_misbehaviour_has_its_outcome(server, path, outcome, message):
    # A busy machine answers late: only what is to time out has little time.
    patience = {} if "timeout" in outcome else {"read_seconds": 10.0, "total_seconds": 30.0}
    (answer,) = ask(policy(server, **patience), f"http://a.test:{server.port}{path}")
    assert answer.outcome == outcome
    assert outcome in OUTCOMES
    if message is not None:
        assert answer.message == message
    assert answer.body == (JPEG if outcome == "success" else b"")


def test_a_redirect_is_handed_back_not_followed(server):
    (answer,) = ask(policy(server), f"http://a.test:{server.port}/to?../x/./%2e%2e/y?q=1")
    assert answer.outcome == REDIRECT
    assert answer.location.url == f"http://a.test:{server.port}/y?q=1"


def test_a_refused_connection_and_one_that_hangs(server):
    with socket.socket() as closed, socket.socket() as full, socket.socket() as waiting:
        closed.bind(("127.0.0.1", 0))
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting.connect(full.getsockname())
        ports = [closed.getsockname()[1], full.getsockname()[1]]
        settings = policy(
            server,
            allow_addresses=tuple(f"127.0.0.1:{port}" for port in ports),
            connect_seconds=0.3,
        )
        refused, hanging = ask(settings, *(f"http://a.test:{port}/" for port in ports))
    assert (refused.outcome, refused.message) == ("connect_failed", "Connection refused")
    assert hanging.outcome == "connect_timeout"


def test_connections_are_used_again_and_no_request_is_made_twice(server):
    before = len(server.log)
    url = f"http://a.test:{server.port}"
    ask(policy(server), f"{url}/ok.jpg", f"{url}/status/404", f"{url}/reset", f"{url}/ok.jpg")
    assert [path for _, _, path in server.log[before:]] == [
        "/ok.jpg",
        "/status/404",
        "/reset",
        "/ok.jpg",
    ]


def test_a_body_that_drips_is_ended_by_its_speed_and_a_head_by_its_time(server):
    url = f"http://a.test:{server.port}"
    (body,) = ask(policy(server, slow_seconds=0.3, total_seconds=60), f"{url}/drip-body")
    assert (body.outcome, body.message) == ("too_slow", "less than 1000 bytes a second")
    patient = policy(server, connect_seconds=0.1, read_seconds=0.4, total_seconds=60)
    begun = time.monotonic()
    for path in ("/drip", "/only-hints"):
        (head,) = ask(patient, f"{url}{path}")
        assert head.outcome == "first_byte_timeout"
    assert time.monotonic() - begun < 4


def test_a_certificate_must_be_trusted_in_time_and_of_the_right_name(tls_server, tmp_path):
    url = f"https://tls.test:{tls_server.port}/ok.jpg"
    (untrusted,) = ask(policy(tls_server), url)
    assert untrusted.outcome == "certificate_untrusted"
    assert untrusted.message == "self-signed certificate"

    trusted = tmp_path / "ca.pem"
    trusted.write_text(CERTIFICATE)
    other = f"https://other.test:{tls_server.port}/ok.jpg"
    good, wrong_name = ask(policy(tls_server, ca_file=str(trusted)), url, other)
    assert good.outcome == "success"
    assert wrong_name.outcome == "certificate_mismatch"
    assert "Hostname mismatch" in wrong_name.message

    trusted = tmp_path / "once.pem"
    trusted.write_text(EXPIRED)
    with FaultyServer(tls_folder=tmp_path, certificate=EXPIRED) as late:
        url = f"https://tls.test:{late.port}/ok.jpg"
        (expired,) = ask(policy(late, ca_file=str(trusted)), url)
    assert (expired.outcome, expired.message) == (
        "certificate_expired",
        "certificate has expired",
    )


def test_a_server_that_speaks_no_tls(server):
    (answer,) = ask(policy(server), f"https://a.test:{server.port}/ok.jpg")
    assert answer.outcome in ("tls_failure", "connection_lost", "connect_timeout")


@pytest.mark.parametrize(
    "addresses",
    [["169.254.169.254"], ["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["::1"], ["::ffff:10.1.2.3"]],
)
def test_a_name_with_one_address_that_is_not_global_is_refused(server, addresses):
    (answer,) = ask(policy(server), "http://sneaky.test/", lookup=lambda host: addresses)
    assert answer.outcome == "forbidden_address"


def test_a_name_that_turns_private_is_refused_at_the_next_connection(server):
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    url = f"http://rebind.test:{server.port}/ok.jpg"
    # The server's own address stands for a public one here: it is the one that is allowed.
    first, second = ask(
        policy(server), url, url, lookup=lambda host: next(answers), keep_alive=False
    )
    assert first.outcome == "success"
    assert second.outcome == "forbidden_address"
    assert next(answers, None) is None  # resolved once a connection, never between check and use


def test_only_the_exact_address_and_port_are_excepted(server):
    settings = policy(server, allow_addresses=(f"127.0.0.1:{server.port + 1}",))
    for host in ("127.0.0.1", "a.test", "looked-up.test"):
        (answer,) = ask(
            settings, f"http://{host}:{server.port}/ok.jpg", lookup=lambda host: ["127.0.0.1"]
        )
        assert answer.outcome == "forbidden_address"


def test_a_name_can_stand_for_an_address_and_port_that_must_be_allowed(server):
    moved = {"resolve": {"shop.test": server.address}}
    (answer,) = ask(policy(server, **moved), "http://shop.test/ok.jpg")
    assert answer.outcome == "success"
    (answer,) = ask(policy(server, allow_addresses=(), **moved), "http://shop.test/ok.jpg")
    assert answer.outcome == "forbidden_address"


def test_places_are_counted_by_the_lowest_address_and_not_where_an_exception_is(server):
    numbers = {"one.test": ["198.100.0.9", "23.1.2.3"], "two.test": ["23.1.2.3"], "gone.test": []}
    hosts = ("one.test", "two.test", "gone.test", "a.test", "93.184.215.14", "127.0.0.1")

    async def places(**changes) -> list[str]:
        async with Client(policy(server, **changes), numbers.__getitem__) as client:
            return [await client.place_of(parse_url(f"http://{host}/")) for host in hosts]

    counted = ["198.100.0.9", "23.1.2.3", "", "", PUBLIC, ""]
    assert asyncio.run(places()) == counted
    own = asyncio.run(places(per_address_concurrency=4))
    assert own == [*counted[:3], "127.0.0.1", PUBLIC, "127.0.0.1"]


def test_an_address_has_so_many_places_in_the_whole_process(server):
    async def take() -> list[bool]:
        async with Client(policy(server)) as one, Client(policy(server)) as other:
            taken = [client.take_place(PUBLIC) for _ in range(9) for client in (one, other)]
            for _ in range(16):
                one.give_place(PUBLIC)
            return [*taken, other.take_place(PUBLIC), other.take_place("")]

    found = asyncio.run(take())
    assert found == [True] * 16 + [False] * 2 + [True] * 2
    PLACES.give(PUBLIC)


def test_names_are_looked_up_once_while_the_answer_is_fresh(server):
    asked = []

    def lookup(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    url = f"http://fresh.test:{server.port}/ok.jpg"
    ask(policy(server, dns_seconds=60.0), url, url, lookup=lookup, keep_alive=False)
    assert asked == ["fresh.test"]


def test_a_name_that_does_not_exist(server):
    def lookup(host: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    (answer,) = ask(policy(server), "http://nothing.test/", lookup=lookup)
    assert (answer.outcome, answer.message) == ("dns_failure", "no such name")


def test_proxies_of_the_environment_are_ignored(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (answer,) = ask(policy(server), f"http://a.test:{server.port}/ok.jpg")
    assert answer.outcome == "success"


def test_no_sockets_left_is_this_machines_fault(server, monkeypatch):
    def none_left(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Client, "_socket", none_left)
    with pytest.raises(UserError, match="ulimit -n"):
        ask(policy(server), f"http://a.test:{server.port}/ok.jpg")


def test_the_user_agent_must_carry_a_contact():
    with pytest.raises(UserError, match="names no contact"):
        WebPolicy("TestBot/1.0")
    with pytest.raises(UserError, match="printable ASCII"):
        WebPolicy("TestBot/1.0 (a@b)\r\nX: y")


def test_a_policy_survives_json():
    settings = WebPolicy(AGENT, allow_addresses=("127.0.0.1:80",), resolve={"a.test": "127.0.0.1"})
    assert WebPolicy.from_json(settings.to_json()) == settings
    with pytest.raises(UserError, match="no setting 'timeout'"):
        WebPolicy.from_json({"user_agent": AGENT, "timeout": 3})
