"""Every record of a file is found, wherever the file is damaged, and every fault with its place."""

import contextlib
import gzip
import io
import random
import re
from itertools import accumulate, pairwise

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources import members, records
from pipeline.tally import Tally
from wit.errors import UserError


def record(n, body=b"body", kind=b"response", length=None, eol=b"\r\n", head=b""):
    lines = [
        b"WARC/1.0",
        b"WARC-Type: " + kind,
        b"WARC-Target-URI: http://example.org/%d" % n,
        b"Content-Type: application/http; msgtype=response",
        b"Content-Length: %d" % (len(body) if length is None else length),
        *([head] if head else []),
    ]
    return eol.join(lines) + 2 * eol + body + 2 * eol


def read(data, name="x.warc", wanted=None):
    """([(offset, url, block)], faults) of a file."""
    tally = Tally()
    wanted = wanted or (lambda kind, content_type: True)
    found = records.read_records(io.BytesIO(data), name, tally, wanted=wanted)
    return [(r.offset, r.url, bytes(r.block)) for r in found], tally.faults


def blocks(data):
    return [block for _, _, block in read(data)[0]]


BODIES = [
    b"a" * 10,
    b"",
    b"WARC/1.0 is a format\r\n" * 3,
    bytes(300_000),
    b"\n\nWARC/1.0\r\n",
    b"z",
]
RECORDS = [record(n, body) for n, body in enumerate(BODIES)]


def zstd(data):
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize("eol", [b"\r\n", b"\n"], ids=["crlf", "lf"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("together", [False, True], ids=["each", "together"])
def test_records_are_found_with_their_offsets(pack, together, eol):
    parts = [record(n, body, eol=eol) for n, body in enumerate(BODIES)]
    if together and pack is not bytes:
        parts = [b"".join(parts)]
    packed = [pack(part) for part in parts]
    found, faults = read(b"".join(packed))
    assert faults == []
    assert [block for _, _, block in found] == BODIES
    if len(parts) > 1:
        offsets = [sum(map(len, packed[:n])) for n in range(len(packed))]
        assert [offset for offset, _, _ in found] == offsets
        at = offsets[3]
        assert read(b"".join(packed)[at:])[0][0][2] == BODIES[3]


def test_records_that_are_not_wanted_are_passed():
    data = b"".join(RECORDS) + record(9, b"x", b"request")
    found, _ = read(data, wanted=lambda kind, content_type: kind == "request")
    assert [url for _, url, _ in found] == ["http://example.org/9"]


def test_a_damaged_member_costs_what_it_holds(shared_data):
    parts = [gzip.compress(random.Random(n).randbytes(5000) + b"x" * n) for n in range(6)]
    parts = [gzip.compress(record(n, part)) for n, part in enumerate(parts)]
    for victim in range(len(parts)):
        for at in (3, 40, len(parts[victim]) // 2, len(parts[victim]) - 6):
            damaged = bytearray(parts[victim])
            damaged[at] ^= 0x55
            found, faults = read(b"".join([*parts[:victim], bytes(damaged), *parts[victim + 1 :]]))
            urls = [f"http://example.org/{n}" for n in range(len(parts)) if n != victim]
            start = sum(map(len, parts[:victim]))
            assert [url for _, url, _ in found] in (urls, urls[:victim] + urls[victim:])
            assert start in [offset for offset, _ in faults]


def test_of_a_damaged_warc_zst_of_real_pages_all_other_records_are_found(shared_data):
    with gzip.open(shared_data / "warc" / "real_pages.warc.gz") as file:
        pages = file.read(3 * 2**20)
    starts = [found.start() for found in re.finditer(rb"WARC/1.0\r\n", pages)]
    parts = [zstd(pages[start:end]) for start, end in pairwise(starts)]
    whole, faults = read(b"".join(parts))
    assert not faults
    places = [0, *accumulate(map(len, parts))]
    assert sum(len(part) > 3000 for part in parts) > 20
    for victim in range(1, len(parts) - 1, 7):
        damaged = bytearray(b"".join(parts))
        for at in range(places[victim] + len(parts[victim]) // 2, places[victim + 1]):
            damaged[at] ^= 0x55
        found, faults = read(bytes(damaged))
        assert found == [record for record in whole if record[0] != places[victim]]
        assert faults[0][0] == places[victim]


def test_a_member_that_lacks_bytes_does_not_take_the_next_with_it():
    parts = [gzip.compress(record(n, random.Random(n).randbytes(4000))) for n in range(4)]
    found, faults = read(parts[0] + parts[1][:900] + parts[2] + parts[3])
    assert [url[-1] for _, url, _ in found] == ["0", "2", "3"]
    assert faults == [(len(parts[0]), "bad_compression")]


def test_junk_between_members_and_records_is_passed():
    packed = [gzip.compress(part) for part in RECORDS]
    found, faults = read(packed[0] + b"junk" * 9 + packed[1] + bytes(50) + packed[2])
    assert [block for _, _, block in found] == BODIES[:3]
    assert faults == [(len(packed[0]), "junk")]
    longer = (len(RECORDS[1]) + 5).to_bytes(4, "little")  # as if it were the member's size
    found, faults = read(packed[0] + packed[1] + b"junk" + longer + packed[2])
    assert [block for _, _, block in found] == BODIES[:3]
    assert faults == [(len(packed[0] + packed[1]), "junk")]
    found, faults = read(RECORDS[0] + b"junk\r\nmore\r\n" + RECORDS[1])
    assert [block for _, _, block in found] == BODIES[:2]
    assert faults == [(len(RECORDS[0]), "bad_record")]


@pytest.mark.parametrize("wrong", [0, 3, 9, 15, 30, 700, 10**6])
def test_where_a_length_is_wrong_the_next_head_says_where_the_record_ends(wrong):
    first = record(0, b"0123456789", length=wrong)
    rest = [record(n, b"x" * 50) for n in (1, 2)]
    found, faults = read(b"".join([first, *rest]))
    assert [url[-1] for _, url, _ in found] == ["0", "1", "2"]
    assert found[0][2].rstrip() == b"0123456789"
    assert faults == [(0, "bad_length")]
    packed = b"".join(map(gzip.compress, [first, *rest]))
    assert [url[-1] for _, url, _ in read(packed)[0]] == ["0", "1", "2"]


@pytest.mark.parametrize("bad", [b"Content-Length: x", b"Content-Length: 99999999999999999999999"])
def test_a_head_that_is_none_is_passed(bad):
    broken = RECORDS[1].replace(b"Content-Length: 0", bad)
    found, faults = read(RECORDS[0] + broken + RECORDS[2])
    assert [url[-1] for _, url, _ in found] == ["0", "2"]
    assert faults == [(len(RECORDS[0]), "bad_record")]


def test_the_end_of_a_file_cuts_its_last_record():
    data = RECORDS[0] + record(1, b"y" * 100)
    found, faults = read(data[:-60])
    assert (found[1][2], faults) == (b"y" * 44, [(len(RECORDS[0]), "cut_record")])
    assert read(data[: len(RECORDS[0]) + 20])[1] == [(len(RECORDS[0]), "cut_record")]
    packed = gzip.compress(RECORDS[0]) + gzip.compress(random.Random(0).randbytes(9) + RECORDS[3])
    found, faults = read(packed[:-30])
    assert faults[0][1] == "cut_compression"


def test_heads_are_read_as_crawlers_write_them():
    odd = b"WARC/0.18\nwarc-type : Response\nContent-Length:3\nWARC-Target-URI: <http://e.org/ a>\n"
    found, faults = read(odd + b"\nabc\n\n\n" + RECORDS[0].replace(b"\r\n", b"\r\r\n"))
    assert [(url, block) for _, url, block in found] == [
        ("http://e.org/ a", b"abc"),
        ("http://example.org/0", BODIES[0]),
    ]
    assert faults == []


ARC = (
    b"filedesc://x.arc 0.0.0.0 20080430204825 text/plain 76\n1 0 InternetArchive\n"
    b"URL IP-address Archive-date Content-type Archive-length\n\n"
    b"http://example.org/a b 1.2.3.4 20080430204825 text/html 5\nfirst\n"
    b"http://example.org/2 2001:db8::1 20080430204825 text/html 200 - - 7 x.arc 6\nsecond\n"
)


def test_arc_records_of_both_versions():
    found, faults = read(ARC)
    assert faults == []
    assert [(url, block) for _, url, block in found][1:] == [
        ("http://example.org/a b", b"first"),
        ("http://example.org/2", b"second"),
    ]
    found, faults = read(ARC.replace(b"text/html 5", b"text/html -1"))
    assert [block.rstrip() for _, _, block in found][1:] == [b"first", b"second"]
    assert [reason for _, reason in faults] == ["bad_length"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (gzip.compress(b"<html>"), "HTML"),
        (gzip.compress(b""), "nothing in it"),
        (b"PAR1" + bytes(100), "Parquet"),
        (b"\x1f\x8b\x08 no gzip", "nothing in it"),
        (b"\x04\x22\x4d\x18...", "LZ4"),
        (bytes(100_000), "no WARC"),
        (b"a: b c 20200101000000 x\n" * 100_000, "no WARC"),
    ],
    ids=["empty", "html", "gzip of html", "gzip of nothing", "parquet", "gzip", "lz4", "0", "text"],
)
def test_what_is_no_crawl_file_is_said_in_one_line(data, said):
    with pytest.raises(UserError, match=said) as error:
        read(data, "folder/x.warc.gz")
    assert str(error.value).startswith("folder/x.warc.gz: ")
    assert "\n" not in str(error.value)


def test_a_zstd_dictionary_is_used():
    samples = [record(n, b"common text %d" % (n * n)) for n in range(500)]
    dictionary = zstandard.train_dictionary(2000, samples)
    packer = zstandard.ZstdCompressor(dict_data=dictionary)
    for content in (dictionary.as_bytes(), zstd(dictionary.as_bytes())):
        frame = members.DICTIONARY + len(content).to_bytes(4, "little") + content
        found, faults = read(frame + b"".join(map(packer.compress, RECORDS)))
        assert ([block for _, _, block in found], faults) == (BODIES, [])


def test_a_record_over_the_cap_is_passed_and_never_held(monkeypatch):
    monkeypatch.setattr(records, "LARGEST_BLOCK", 1000)
    monkeypatch.setattr(records, "HELD_BLOCK", 100)
    bomb = gzip.compress(record(0, bytes(50 * 2**20)))
    found, faults = read(bomb + gzip.compress(RECORDS[0]))
    assert ([block for _, _, block in found], faults) == ([BODIES[0]], [(0, "record_too_large")])
    huge = record(0, b"x", length=10**15)
    assert [r for _, r in read(gzip.compress(huge) + gzip.compress(RECORDS[0]))[1]] == [
        "record_too_large",
        "bad_length",
    ]


def test_progress_ends_at_the_size_of_the_file():
    for pack in (bytes, gzip.compress, zstd):
        data = b"".join(map(pack, RECORDS))
        seen = []
        list(records.read_records(io.BytesIO(data), "x", Tally(), seen.append))
        assert seen == sorted(seen)
        assert seen[-1] == len(data)


@pytest.fixture(scope="module")
def real(shared_data):
    with open(shared_data / "warc" / "real_pages.warc.gz", "rb") as file:
        return file.read(200_000)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_real_file_cut_and_flipped_anywhere_is_read_to_its_end(real, data):
    plain = data.draw(st.booleans())
    source = gzip.GzipFile(fileobj=io.BytesIO(real)).read(400_000) if plain else real
    damaged = bytearray(source[: data.draw(st.integers(1, len(source)))])
    places = st.integers(0, len(damaged) - 1)
    for at in data.draw(st.lists(places, max_size=4)):
        damaged[at] ^= data.draw(st.integers(1, 255))
    for at in data.draw(st.lists(places, max_size=1)):
        del damaged[at : at + data.draw(st.integers(1, 3000))]
    try:
        found, faults = read(bytes(damaged))
    except UserError:
        return
    assert len({offset for offset, _, _ in found}) == len(found)
    assert all(0 <= offset <= len(damaged) for offset, _ in faults)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *(*RECORDS[:3], *map(gzip.compress, RECORDS[:3]), ARC, zstd(RECORDS[0])),
                *(b"WARC/1.0\r\n", b"\r\n", b"\x1f\x8b\x08\x00", b"(\xb5/\xfd", b"\0", b"junk"),
                *(b"http://a 1.2.3.4 ", b"20200101000000 text/html 5\n"),
                *(b"Content-Length: 5\r\n\r\n", b"WARC-Type: response\r\n"),
            ]
        ),
        min_size=1,
        max_size=8,
    ).map(b"".join)
)
def test_any_mixture_is_read_to_its_end(data):
    with contextlib.suppress(UserError):
        read(data)
