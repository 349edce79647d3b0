"""Who reserves what, in headers and in tdmrep.json."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit.web.optouts import opted_out, read_tdmrep, reserved, tdm_reserves
from wit.web.policy import OPT_OUTS

NOW = 1_700_000_000.0  # in November 2023


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
        (["otherbot: noai", "noai"], "noai"),
        (["*: noai"], "noai"),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noindex"], "noindex"),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST"], "unavailable_after"),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST"], None),
        (["unavailable_after: Friday, 25-Jun-10 15:00:00 GMT"], "unavailable_after"),
        (["Unavailable_After: Fri, 25 Jun 2010 15:00:00 GMT, follow"], "unavailable_after"),
        (["unavailable_after: Tue, 25 Jun 2030 15:00:00 GMT, noai"], "noai"),
        (["unavailable_after: 2010-06-25"], "unavailable_after"),
        (["unavailable_after: 2010-06-25T15:00:00Z"], "unavailable_after"),
        (["unavailable_after: 2030-06-25T15:00:00+02:00"], None),
        (["otherbot: unavailable_after: 25 Jun 2010 15:00:00 PST"], None),
        (["testbot: unavailable_after: 25 Jun 2010 15:00:00 PST"], "unavailable_after"),
        (["unavailable_after: never"], None),
        (["max-snippet: 20, noai"], "noai"),
        (["index, follow"], None),
        ([""], None),
        ([], None),
    ],
)
def test_opt_outs_for_all_or_for_this_agent(values, found):
    assert opted_out(values, "testbot", OPT_OUTS, NOW) == found


def test_only_the_words_asked_for_count():
    assert opted_out(["noindex, noai"], "testbot", ("noai",), NOW) == "noai"
    assert opted_out(["unavailable_after: 2010-06-25"], "testbot", ("noai",), NOW) is None


@given(st.text(max_size=80))
def test_no_header_breaks_it(value):
    assert opted_out([value, f"unavailable_after: {value}"], "testbot", OPT_OUTS, NOW) in (
        None,
        *OPT_OUTS,
    )


def test_a_reservation_header_is_a_one():
    assert [reserved(value) for value in ("1", " 1 ", "0", "yes", "", None)] == [
        *(True, True),
        *(False, False, False, False),
    ]


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b'[{"location": "/", "tdm-reservation": 1}]', '[["/", 1]]'),
        (b'\xef\xbb\xbf[{"location": "/*", "tdm-reservation": "1"}]', '[["/*", 1]]'),
        (b'[{"location": "/a", "tdm-reservation": 0}]', None),
        (
            b'[{"location": "/a", "tdm-reservation": 0}, {"location": "/", "tdm-reservation": 1}]',
            '[["/a", 0], ["/", 1]]',
        ),
        (b'[{"location": "/"}, {"tdm-reservation": 1}, 7, null]', None),
        (b'{"location": "/", "tdm-reservation": 1}', None),
        (b"<html>no such page</html>", None),
        (b"[" * 100_000, None),
        (b"\xff\xfe", None),
    ],
)
def test_what_a_tdmrep_file_reserves_is_kept(body, kept):
    assert read_tdmrep(body) == kept


@pytest.mark.parametrize(
    ("url", "is_reserved"),
    [
        ("http://a.test/free/x.jpg", False),
        ("http://a.test/x.jpg", True),
        ("http://a.test/y/x.png", False),
        ("http://a.test/path/foo-$", True),
        ("http://a.test/%7Ejoe/x.png", True),
    ],
)
def test_the_first_location_that_matches_decides(url, is_reserved):
    body = b"""[
        {"location": "/free/*", "tdm-reservation": 0},
        {"location": "/*.jpg$", "tdm-reservation": 1},
        {"location": "/path/foo-%24", "tdm-reservation": 1},
        {"location": "/~joe", "tdm-reservation": 1}
    ]"""
    assert tdm_reserves(read_tdmrep(body), url) is is_reserved
