"""Blocklists: what an entry means, and how lists are read."""

import gzip
import io
import re

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.wit import shard_samples as samples
from wit import blocklist_text
from wit.blocklist import Blocklist, Index, entry_bits, read_list, read_own, write_own
from wit.errors import UserError

URL = "https://cdn.example.org/a/b.jpg?w=640"
SHA256 = "ab" * 32
PAIR = "0123456789abcdef" * 2


def of(text: str, tmp_path) -> Blocklist:
    """The list of a text."""
    path = tmp_path / "list.txt"
    path.write_text(text)
    return read_list(str(path))[0]


def found(blocklist: Blocklist, **columns: list) -> list[str | None]:
    """By which kind each row is blocked."""
    return blocklist.find(pa.table(columns)).to_pylist()


def test_a_url_is_meant_however_it_is_written_and_over_http_and_https_alike(tmp_path):
    listed = of("url HTTPS://CDN.example.org:443/a/x/../b.jpg?w=640#top", tmp_path)
    same = [URL, URL.replace("https", "http"), "https://cdn.EXAMPLE.org/a/b.jpg?w=640#foot"]
    other = ["https://cdn.example.org/a/b.jpg", URL + "0", "https://example.org/a/b.jpg?w=640"]
    assert found(listed, url=same + other) == ["url"] * 3 + [None] * 3


def test_a_url_is_found_where_a_redirect_led(tmp_path):
    listed = of(URL, tmp_path)
    rows = {"url": ["https://short.example/1", "https://short.example/2"], "final_url": [URL, None]}
    assert found(listed, **rows) == ["url", None]


@pytest.mark.parametrize(
    "line", ["example.org", "host example.org", "*.example.org", "EXAMPLE.ORG."]
)
def test_a_host_covers_its_subdomains_and_every_port_and_no_neighbour(tmp_path, line):
    listed = of(line, tmp_path)
    covered = [
        "http://example.org/",
        URL,
        "https://a.b.example.org:8443/x",
        "https://example.org./x",
    ]
    others = [
        "https://example.org.uk/",
        "https://notexample.org/",
        "https://org/",
        "https://x.org/",
    ]
    assert found(listed, url=covered + others) == ["host"] * 4 + [None] * 4


def test_a_host_is_not_looked_for_in_users_paths_or_queries(tmp_path):
    listed = of("example.org", tmp_path)
    urls = [
        "https://other.net/example.org/x",
        "https://other.net/?u=https://example.org/x",
        "https://other.net/@example.org/",
        "https://example.org@other.net/",
        "https://user:pass@example.org/",
    ]
    assert found(listed, url=urls) == [None, None, None, None, "host"]


def test_names_of_other_scripts_and_addresses_are_hosts(tmp_path):
    listed = of("host bücher.example\nhost 192.0.2.7\nhost [2001:db8::1]", tmp_path)
    urls = ["https://xn--bcher-kva.example/1", "http://192.0.2.7:80/", "http://[2001:DB8::1]/x"]
    assert found(listed, url=[*urls, "http://1.192.0.2/"]) == ["host"] * 3 + [None]


def test_the_host_of_a_page_is_another_matter_than_that_of_a_picture(tmp_path):
    listed = of("page-host example.org", tmp_path)
    rows = {
        "url": [URL, "https://cdn.net/1.jpg", "https://cdn.net/2.jpg"],
        "page_url": ["https://shop.net/", "https://www.example.org/shoes", None],
    }
    assert found(listed, **rows) == [None, "page-host", None]


def test_pictures_and_pairs_are_meant_by_their_digits(tmp_path):
    listed = of(f"{SHA256.upper()}\npair {PAIR}", tmp_path)
    rows = {
        "sha256": [SHA256, "ac" * 32, None, None],
        "pair_id": pa.array([None, bytes(16), bytes.fromhex(PAIR), None], pa.binary(16)),
    }
    assert found(listed, **rows) == ["sha256", None, "pair", None]


def test_addresses_that_are_no_urls_and_columns_that_are_absent_are_met_by_nothing(tmp_path):
    listed = of(f"{URL}\nexample.org\n{SHA256}", tmp_path)
    assert found(listed, url=["", "no url", None, "http://", "data:,x"]) == [None] * 5
    assert found(listed, caption=["x"]) == [None]
    assert found(Blocklist(), url=[URL]) == [None]


def test_comments_empty_lines_marks_and_line_ends_of_any_system_are_read(tmp_path):
    text = f"\ufeff# opt-outs\r\n\r\n  {URL}  # by mail\r\nhost\texample.net\r\nexample.com"
    assert of(text, tmp_path).counts() == {"url": 1, "host": 2}
    packed = tmp_path / "list.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert read_list(str(packed))[0].counts() == {"url": 1, "host": 2}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("url ftp://example.org/x", "http or https address"),
        ("host com", "host name"),
        ("host example.org:8080", "host name"),
        ("example.org/pictures", "neither"),
        ("sha256 abc", "sha256"),
        ("0123456789abcdef0123456789abcdef", "neither"),
        ("picture https://example.org/x", "neither"),
    ],
)
def test_a_line_that_is_no_entry_is_named_with_its_file_and_number(tmp_path, line, said):
    with pytest.raises(UserError, match=rf"list\.txt, line 3: .*{said}"):
        of(f"# first\n{URL}\n{line}\n{URL}", tmp_path)


def test_what_is_no_text_is_said_with_its_line(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(f"{URL}\n{URL}\n".encode() + b"\xff\xfe\n")
    with pytest.raises(UserError, match=r"list\.txt, line 3: not UTF-8"):
        read_list(str(path))
    path.write_bytes(gzip.compress(URL.encode() * 1000)[:-9])
    with pytest.raises(UserError, match=r"list\.txt: cannot be read"):
        read_list(str(path))


HOSTS = st.from_regex(r"[a-zA-Z0-9_-]{1,5}(\.[a-zA-Z0-9ü-]{0,5}){0,3}\.?", fullmatch=True)
URLS = st.builds(
    "{}://{}/{}".format,
    st.sampled_from(["http", "https", "HTTP", "ftp"]),
    HOSTS,
    st.text("abzA0/.%2e?#&=~'|^[]{} ü\\", max_size=12),
)
VALUES = st.one_of(HOSTS, URLS, st.from_regex(r"[0-9a-fA-F]{31,65}", fullmatch=True), st.text())
LINES = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", " ", "\t"]),
    st.sampled_from(["", *(f"{kind} " for kind in blocklist_text.KINDS), "URL\t", "host  "]),
    VALUES.map(lambda text: re.sub("[\n\r\0\ufeff]", "", text)),
    st.sampled_from(["", " ", "\r", " # why", "#frag"]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(LINES, max_size=12))
@example(["url https://a.xn--b/", "https://a.b/%2e/x", "https://a.b/x%2e?'", "1.2.3.4", "a.0x7f"])
def test_a_block_of_lines_gives_what_its_lines_give_one_by_one(lines):
    wanted, wrong = [], None
    for number, line in enumerate(lines, start=1):
        try:
            entry = blocklist_text.parse_line(line)
        except ValueError:
            wrong = number
            break
        wanted += [entry] if entry else []
    read = blocklist_text.read_lines("list", io.BytesIO("\n".join(lines).encode()))
    if wrong is None:
        given_out = [(kind, value) for kind, values in read for value in values.to_pylist()]
        assert sorted(given_out) == sorted(wanted)
    else:
        with pytest.raises(UserError, match=f"list, line {wrong}: "):
            list(read)


@settings(max_examples=150, deadline=None)
@given(st.lists(URLS, max_size=12))
def test_urls_that_are_taken_for_normal_are_what_the_standard_makes_of_them(urls):
    normal = blocklist_text.normal_urls(pa.array(urls, pa.string())).to_pylist()
    assert normal == [blocklist_text.normal_url(url) or url for url in urls]


def test_values_that_share_their_first_half_are_told_apart():
    index = Index.of(entry_bits("pair", pa.array(["00" * 15 + f"{i:02x}" for i in (1, 3, 5, 3)])))
    asked = entry_bits("pair", pa.array(["00" * 15 + f"{i:02x}" for i in range(7)]))
    assert index.has(asked).tolist() == [False, True, False, True, False, True, False]


def test_a_list_is_kept_and_joined_without_what_it_says(tmp_path):
    one, two = of(f"{URL}\nexample.net", tmp_path), of(f"{URL}\n{SHA256}", tmp_path)
    joined = one.join([two])
    path = str(tmp_path / "blocklist.parquet")
    write_own(path, joined)
    assert read_own(path).counts() == {"url": 1, "host": 1, "sha256": 1}
    assert read_list(path)[0].to_table().equals(joined.to_table())
    assert b"example" not in (tmp_path / "blocklist.parquet").read_bytes()
    write_own(str(tmp_path / "again.parquet"), two.join([one, one]))
    assert (tmp_path / "again.parquet").read_bytes() == (
        tmp_path / "blocklist.parquet"
    ).read_bytes()


def test_a_parquet_file_of_another_kind_is_refused(tmp_path):
    samples.write(str(tmp_path))
    with pytest.raises(UserError, match=r"00003\.parquet: no blocklist .*no column 'kind'"):
        read_list(str(tmp_path / "00003.parquet"))
