"""The walk through a WAT record finds what parsing it whole finds."""

import gzip
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.extract import rows, wat
from pipeline.tally import Tally

PAGE = "https://example.org/a/page.html"
TEXT = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", " ", "IMG@/src", '{"path":"IMG@/src"', '"},{"', "}", "{", "\\", '\\"']),
    st.sampled_from(["data:image/gif;base64,R0", "DATA:,", "i.jpg", "https://x.org/i.jpg", "日本"]),
)
ODD = st.one_of(st.none(), st.integers(), st.lists(TEXT, max_size=2), st.just({"path": "IMG@/src"}))
LINK = st.fixed_dictionaries(
    {"path": st.sampled_from(["IMG@/src", "A@/href", "IMG@/longdesc", "img@/src"])},
    optional={
        **{key: st.one_of(TEXT, TEXT, TEXT, ODD) for key in ("url", "alt", "title", "text")},
        "data-image-title": TEXT,
        "srcset": st.sampled_from(["a.jpg 1x, b.jpg 2x", "", "data:x 3w, c.jpg 2w"]),
    },
)


class Writer:
    """Writes JSON in one of the ways that JSON can be written."""

    def __init__(self, draw):
        self.spaces = draw(st.sampled_from(["", "", " ", "\n "]))
        self.ascii = draw(st.booleans())
        self.slashes = draw(st.sampled_from([False, False, True]))
        self.escape = draw(st.sampled_from(["", "", "", "I", "@", "p"]))
        self.draw = draw

    def write(self, value):
        if isinstance(value, dict):
            members = self.draw(st.permutations(list(value.items())))
            body = [f"{self.write(k)}:{self.spaces}{self.write(v)}" for k, v in members]
            return "{" + self.spaces + f",{self.spaces}".join(body) + self.spaces + "}"
        if isinstance(value, list):
            return "[" + f",{self.spaces}".join(map(self.write, value)) + self.spaces + "]"
        text = json.dumps(value, ensure_ascii=self.ascii)
        if isinstance(value, str):
            text = text.replace("/", "\\/") if self.slashes else text
            if self.escape:
                text = text.replace(self.escape, f"\\u{ord(self.escape):04x}")
        return text


@st.composite
def records(draw):
    head = {"Title": draw(TEXT), "Metas": [{"name": draw(TEXT), "content": "IMG@/src"}]}
    if draw(st.booleans()):
        head["Base"] = draw(st.sampled_from(["/b/", "https://base.org/", "", 'x"\\']))
    page = {"Head": head, "Links": draw(st.lists(LINK, max_size=6))}
    for key in draw(st.lists(st.sampled_from(["Head", "Links"]), max_size=1)):
        page.pop(key)
    value = {
        "Container": {"Filename": "x.warc.gz", "Offset": "1"},
        "Envelope": {
            "WARC-Header-Metadata": {"WARC-Target-URI": PAGE},
            "Payload-Metadata": {
                "HTTP-Response-Metadata": {"Headers": {"X": draw(TEXT)}, "HTML-Metadata": page}
            },
        },
    }
    return Writer(draw).write(value).encode("utf-8", "surrogatepass")


def walked(block):
    """(pairs, counts) as the harvest gets them."""
    tally, unusual = Tally(), rows.Rows()
    found = wat.Records(unusual)
    found.add(block, PAGE, 7, tally)
    batches = [found.take(tally), unusual.take(tally)]
    return [pair for batch in batches for pair in batch.to_pylist()], tally


def parsed(block):
    """The same by the full parse alone."""
    tally, unusual = Tally(), rows.Rows()
    wat.Records(unusual)._add_unusual(block, PAGE, 7, tally)
    return unusual.take(tally).to_pylist(), tally


@settings(max_examples=250, deadline=None)
@given(records())
def test_walking_finds_what_parsing_finds(block):
    by_walk, walk_tally = walked(block)
    by_parse, parse_tally = parsed(block)
    assert by_walk == by_parse
    assert walk_tally.to_json() == parse_tally.to_json()
    assert walk_tally.unaccounted == 0


@settings(max_examples=100, deadline=None)
@given(records(), st.data())
def test_damaged_records_neither_crash_nor_lose_a_link(block, data):
    at = data.draw(st.integers(0, len(block)))
    damaged = data.draw(
        st.sampled_from(
            [block[:at], block[at:], block[:at] + b"\xff" + block[at:], block[:at] + b'"']
        )
    )
    _, tally = walked(damaged)
    assert tally.unaccounted == 0


@pytest.fixture(scope="module")
def blocks(shared_data):
    data = gzip.decompress((shared_data / "warc" / "real_pages.warc.wat.gz").read_bytes())
    records = re.split(rb"WARC/1\.0\r\n", data)[2:]
    return [record.partition(b"\r\n\r\n")[2].rstrip() for record in records]


def test_every_real_record_is_walked_and_found_as_parsed(blocks):
    assert len(blocks) == 1040
    for block in blocks:
        assert wat.walk.Found().add(block) > 0
        assert walked(block)[0] == parsed(block)[0]


def test_lone_surrogates_and_bytes_that_are_not_utf8_become_replacement_characters():
    page = b'"HTTP-Response-Metadata":{"HTML-Metadata":{"Links":[%s]}}'
    link = b'{"path":"IMG@/src","url":"i.jpg","alt":"a \\ud800 b \xff c"}'
    block = b'{"Envelope":{"Payload-Metadata":{' + page % link + b"}}}"
    ((pair,), tally) = walked(block)
    assert pair["text"] == "a \ufffd b \ufffd c"
    assert tally.counts == {"extracted": 1}


def test_a_record_of_a_request_is_no_page_and_one_that_is_no_json_a_fault():
    _, tally = walked(b'{"Envelope":{"Payload-Metadata":{"HTTP-Request-Metadata":{}}}}')
    assert tally.to_json()["seen"] == {}
    _, tally = walked(b"<html>")
    assert tally.faults == [(7, "bad_json")]
    _, tally = walked(b"[" * 200_000)
    assert tally.faults == [(7, "bad_json")]


def test_a_data_url_is_replaced_by_its_srcset_and_texts_are_told_apart():
    link = {
        "path": "IMG@/src",
        "url": "data:image/gif;base64,R0",
        "alt": " A  cat ",
        "title": "A cat",
        "data-image-title": "cat_1",
        "srcset": "/s.jpg 100w, /l.jpg 200w",
    }
    html = {"Head": {"Base": "https://base.org/x/"}, "Links": [link]}
    block = {"Envelope": {"Payload-Metadata": {"HTTP-Response-Metadata": {"HTML-Metadata": html}}}}
    found, tally = walked(json.dumps(block, separators=(",", ":")).encode())
    assert [(p["url"], p["text"], p["attribute"], p["record_offset"]) for p in found] == [
        ("https://base.org/l.jpg", "A cat", "alt", 7),
        ("https://base.org/l.jpg", "cat_1", "data-image-title", 7),
    ]
    assert tally.to_json()["seen"] == {"pages": 1, "images": 1, "extra_texts": 1}
