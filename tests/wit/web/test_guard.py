"""What may be asked: URLs as browsers read them, and no address that is not global."""

import asyncio
import ipaddress
import json
import re
import socket
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit.errors import UserError
from wit.web.guard import Guard, Refused, check_address, origin_of, parse_url
from wit.web.policy import WebPolicy
from wit.web.resolver import GuardedResolver

BASE = parse_url("http://example.org/dir/page.html?old")
PUBLIC = "93.184.215.14"


@pytest.fixture(scope="module")
def corpus(shared_data):
    """Member name -> bytes of the shared archive of robots.txt files and URLs."""
    with tarfile.open(shared_data / "torture" / "robots_and_urls.tar.xz") as archive:
        wanted = ("README.md", "cloud-metadata.txt", "wpt-urltestdata.json")
        return {
            member.name: archive.extractfile(member).read()
            for member in archive
            if member.isfile() and member.name.endswith(wanted)
        }


def member(corpus: dict[str, bytes], end: str) -> str:
    (name,) = (name for name in corpus if name.endswith(end))
    return corpus[name].decode()


def verdict(url: str, answers: dict[str, str]) -> str:
    """The outcome of a URL up to the connection, else the address that would be connected to.

    `answers` is what the name server says; any other name turns out to be the metadata service.
    """
    guard = Guard()
    resolver = GuardedResolver(
        guard, WebPolicy("TestBot/1.0 (a@b)"), lambda host: [answers.get(host, "169.254.169.254")]
    )
    try:
        target = parse_url(url)
        guard.admit(target)
        if is_address(target.host):  # aiohttp connects to these without asking the resolver
            return target.host
        return asyncio.run(resolver.resolve(target.host, target.port))[0]["host"]
    except Refused as refused:
        return refused.outcome


def is_address(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return False


# --- the list of SSRF forms -------------------------------------------------------------------


def test_every_form_in_the_ssrf_list_is_refused(corpus):
    readme = member(corpus, "ssrf_testing/README.md")
    forms = re.findall(r"`(https?://[^`]+)`", readme)
    forms += [f"http://{ip}/" for ip in re.findall(r"^(0\S+|127\.1) => ", readme, re.MULTILINE)]
    forms += [f"http://{name}/" for name in re.findall(r"^nslookup (\S+)", readme, re.MULTILINE)]
    forms += re.findall(r"^(http://instance-data\S+)", readme, re.MULTILINE)
    assert len(forms) > 45
    # These name a public web site in every standard reading; what they try is to be misread.
    misread = ("http://127.88.23.245:22/#@www.google.com:80/", "http://google.com:80\\\\@127.88")
    for form in forms:
        outcome = verdict(form, answers={"google.com": PUBLIC})
        if form.startswith(misread[1]):
            assert outcome == PUBLIC
        else:
            assert outcome in ("forbidden_address", "invalid_url"), form


def test_every_metadata_service_is_refused(corpus):
    urls = re.findall(r"^https?://\S+", member(corpus, "cloud-metadata.txt"), re.MULTILINE)
    assert len(urls) > 40
    # One of them answers on a global address.
    answers = {"metadata.packet.net": "192.80.8.124", "metadata.tencentyun.com": "169.254.0.23"}
    assert {verdict(url, answers) for url in urls} == {"forbidden_address"}


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "017700000001",
        "0177.0.0.1",
        "127.1",
        "127.0.1",
        "0",
        "127.0.0.1.",
        "127.00.0.1",
        "1.2.3.4.5",
        "256.1.1.1",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:8.8.8.8]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::1]",
        "[2002:7f00:1::]",
        "[2001::1]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[ff02::1]",
        "localhost",
        "www.localhost",
        "printer.local",
        "metadata",
        "metadata.google.internal",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
    ],
)
def test_local_addresses_and_names_are_refused_in_every_spelling(host):
    assert verdict(f"http://{host}/", answers={host: PUBLIC}) == "forbidden_address"


@pytest.mark.parametrize(
    "url",
    [
        "http://user@example.org/",
        "http://example.org:80@127.0.0.1/",
        "http://%31%32%37.0.0.1/",
        "http://exa mple.org/",
        "http://[fe80::1%25eth0]/",
        "http://[::1",
        "http://example.org:99999/",
        "http://",
        "/relative",
        "http://" + "a" * 64 + ".org/",
        "http://example.org/" + "a" * 9000,
    ],
)
def test_a_url_that_could_be_misread_is_refused(url):
    with pytest.raises(Refused) as refused:
        parse_url(url)
    assert refused.value.outcome == "invalid_url"


@pytest.mark.parametrize(
    "url", ["ftp://example.org/", "file:///etc/passwd", "gopher://x/", "data:,"]
)
def test_other_schemes_are_refused(url):
    with pytest.raises(Refused) as refused:
        parse_url(url, BASE)
    assert refused.value.outcome == "unsupported_scheme"


def test_ports_of_other_protocols_are_refused():
    assert verdict("http://example.org:25/", {"example.org": PUBLIC}) == "forbidden_address"
    assert verdict("http://93.184.215.14:6379/", {}) == "93.184.215.14"


# --- addresses --------------------------------------------------------------------------------


def is_accepted(address: str) -> bool:
    try:
        check_address(address)
    except Refused:
        return False
    return True


@given(st.ip_addresses())
def test_no_address_is_accepted_that_python_calls_not_global(address):
    if is_accepted(str(address)):
        assert address.is_global or address in ipaddress.IPv6Network("64:ff9b::/96")


@given(st.ip_addresses(v=4))
def test_nat64_is_judged_by_the_address_inside(address):
    translated = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) + int(address))
    assert is_accepted(str(translated)) == is_accepted(str(address))


@given(st.ip_addresses(v=4).filter(lambda a: not is_accepted(str(a))), st.data())
def test_no_spelling_lets_a_local_address_through(address, data):
    def spell(value: int) -> str:
        form = data.draw(st.sampled_from([str, hex, lambda v: f"0{v:o}", lambda v: f"0x{v:08X}"]))
        return form(value)

    parts = list(address.packed)
    joined = data.draw(st.integers(1, 4))  # the last number may stand for several bytes
    last = int.from_bytes(bytes(parts[joined - 1 :]))
    host = ".".join([*map(spell, parts[: joined - 1]), spell(last)])
    host += data.draw(st.sampled_from(["", "."]))
    assert verdict(f"http://{host}/", {}) == "forbidden_address"


def test_global_addresses_are_accepted():
    for address in (PUBLIC, "1.1.1.1", "8.8.8.8", "2606:4700::1111", "2a00:1450:4001::200e"):
        assert is_accepted(address)


# --- exceptions -------------------------------------------------------------------------------


def test_exceptions_are_exact():
    guard = Guard(["127.0.0.1:8080", "[::1]:81"], {"Demo.Test": "127.0.0.1"})
    guard.check("127.0.0.1", 8080)
    guard.check("::1", 81)
    guard.admit(parse_url("http://demo.test:8080/"))
    for address, port in (("127.0.0.1", 8081), ("127.0.0.2", 8080), ("::1", 8080)):
        with pytest.raises(Refused):
            guard.check(address, port)
    assert guard.names == {"demo.test": ("127.0.0.1", None)}


@pytest.mark.parametrize("option", ["127.0.0.1", "localhost:80", "127.0.0.1:0", "10.0.0.0/8:80"])
def test_an_exception_that_cannot_be_read_is_named(option):
    with pytest.raises(UserError, match=re.escape(option.partition("/")[0])):
        Guard([option])


def test_a_name_resolves_to_an_address_and_perhaps_a_port():
    places = ["127.0.0.1", "127.0.0.1:81", "::1", "[::1]", "[::1]:81"]
    guard = Guard(resolve={f"h{number}.test": place for number, place in enumerate(places)})
    addresses = [("127.0.0.1", None), ("127.0.0.1", 81), ("::1", None), ("::1", None), ("::1", 81)]
    assert list(guard.names.values()) == addresses
    for place in ("b.test", "127.0.0.1:0", "127.0.0.1:x", ""):
        with pytest.raises(UserError, match=r"h\.test"):
            Guard(resolve={"h.test": place})


# --- reading URLs -----------------------------------------------------------------------------


DELIBERATE = {
    "a user name or password in the URL",
    "an odd spelling of an IPv4 address",
    "not a host name",
    "no such port",
}


def reading(text: str, base: str | None) -> str:
    """The URL as read, or why it was refused."""
    try:
        return parse_url(text, parse_url(base) if base else None).url
    except Refused as refused:
        return refused.message


def test_urls_are_read_as_the_url_standard_says(corpus):
    """Every case of the web platform tests: the standard's reading, or refused on purpose."""
    everything = json.loads(member(corpus, "wpt-urltestdata.json"))
    cases = [case for case in everything if isinstance(case, dict)]
    web = [case for case in cases if case.get("protocol") in ("http:", "https:")]
    web = [case for case in web if (case.get("base") or "http:").startswith("http")]
    assert len(web) > 200
    for case in web:
        expected = case["href"].partition("#")[0]
        assert reading(case["input"], case.get("base")) in {expected, *DELIBERATE}, case
    for case in cases:
        if case.get("failure"):
            assert "://" not in reading(case["input"], case.get("base")), case


def test_the_key_of_the_robots_table():
    assert origin_of("HTTPS://EXAMPLE.org:443/a") == "https://example.org"
    assert origin_of("http://example.org.:8080") == "http://example.org:8080"
    assert origin_of("http://user@example.org/") is None


def test_what_is_read_is_read_the_same_again():
    target = parse_url("http://Bücher.example/ä b/../c?q=ü", None)
    assert target.url == "http://xn--bcher-kva.example/c?q=%C3%BC"
    assert parse_url(target.url) == target


def test_the_resolver_gives_addresses_aiohttp_can_use():
    resolver = GuardedResolver(Guard(), WebPolicy("T/1 (a@b)"), lambda host: ["2606:4700::1111"])
    (found,) = asyncio.run(resolver.resolve("example.org", 443))
    assert (found["host"], found["port"], found["family"]) == (
        "2606:4700::1111",
        443,
        socket.AF_INET6,
    )
