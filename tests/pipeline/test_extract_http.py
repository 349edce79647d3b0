"""Bodies out of HTTP responses as crawlers keep them, and pages in whatever encoding as UTF-8."""

import gzip
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.extract import encoding, http

BODY = b"<!doctype html><p>" + b"some text " * 300
CAP = 2**20


def chunked(body, size=100):
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x;a=b\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def decode(body, **fields):
    return http.decode_body({k.replace("_", "-"): v for k, v in fields.items()}, body, CAP)


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
        ("deflate", zlib.compress(BODY)[2:-4]),
        ("br", brotli.compress(BODY)),
        ("zstd", zstandard.ZstdCompressor().compress(BODY)),
        ("br, gzip", gzip.compress(brotli.compress(BODY))),
        ("identity", BODY),
        ("unheard-of", BODY),
    ],
    ids=lambda value: value if isinstance(value, str) else len(value),
)
def test_content_codings_are_undone(coding, packed):
    assert decode(packed, content_encoding=coding) == (BODY, [])
    chunks = chunked(packed)
    assert decode(chunks, content_encoding=coding, transfer_encoding="chunked") == (BODY, [])
    if packed != BODY:
        half, faults = decode(packed[: len(packed) * 2 // 3], content_encoding=coding)
        assert faults == ["bad_encoding"]
        assert BODY.startswith(half)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_body_that_was_unpacked_before_is_left_alone(coding):
    assert decode(BODY, content_encoding=coding, transfer_encoding="chunked") == (BODY, [])


def test_chunks_that_break_off_give_what_came_before():
    whole = chunked(BODY)
    half, faults = decode(whole[:1500], transfer_encoding="chunked")
    assert faults == ["bad_chunks"]
    assert BODY.startswith(half)
    assert len(half) > 1000
    assert decode(whole.replace(b"64;", b"zz;", 3)[:2000], transfer_encoding="chunked")[1] == []


@pytest.mark.parametrize(
    ("coding", "bomb"),
    [
        ("gzip", gzip.compress(bytes(10 * CAP))),
        ("br", brotli.compress(bytes(70 * CAP))),
        ("zstd", zstandard.ZstdCompressor().compress(bytes(100 * CAP))),
        ("identity", bytes(2 * CAP)),
    ],
)
def test_what_unpacks_to_more_than_the_cap_is_refused(coding, bomb):
    with pytest.raises(http.TooLarge):
        decode(bomb, content_encoding=coding)


@given(st.binary(max_size=60), st.sampled_from(["gzip", "deflate", "br", "zstd", "gzip,br"]))
def test_any_body_is_read(body, coding):
    for packed in (body, gzip.compress(body)[:-3], b"\x1f\x8b" + body, b"5\r\n" + body):
        decode(packed, content_encoding=coding, transfer_encoding="chunked")


def test_heads_are_read_as_they_come():
    assert http.split_response(b"GET / HTTP/1.1\r\n\r\n") is None
    fields, body = http.split_response(b"HTTP/1.1 200\nA: 1\nA:2\nnone\nB : x:y \n\nbody")
    assert (fields, body) == ({"a": "2", "b": "x:y"}, b"body")
    assert http.split_response(b"HTTP/1.1 200 OK\r\nA: 1") == ({"a": "1"}, b"")
    assert http.split_response(b"HTTP/1.0 200 OK\r\n\r\n")[1] == b""


GERMAN = "Grüße aus Köln – „schön“"
JAPANESE = "<meta charset=%s>日本語のページです。テスト"


@pytest.mark.parametrize(
    ("page", "content_type", "text"),
    [
        (GERMAN.encode(), "", GERMAN),
        (GERMAN.encode(), "text/html; charset=iso-8859-1", GERMAN),
        (GERMAN.encode("cp1252"), "text/html; charset=ISO-8859-1", GERMAN),
        (GERMAN.encode("cp1252"), 'text/html;charset="windows-1252"', GERMAN),
        (b"\xef\xbb\xbf" + GERMAN.encode(), "text/html; charset=utf-16", GERMAN),
        (GERMAN.encode("utf-16"), "", GERMAN),
        (GERMAN.encode("utf-16-le"), "text/html; charset=utf-16le", GERMAN),
        (GERMAN.encode() + b" K\xfcche", "text/html; charset=utf-8", GERMAN + " Küche"),
        (GERMAN.encode()[:-1], "", GERMAN[:-1] + "\ufffd"),
        *(
            ((JAPANESE % name).encode(codec), "text/html", JAPANESE % name)
            for name, codec in [
                ("shift_jis", "cp932"),
                ("EUC-JP", "euc_jp"),
                ("iso-2022-jp", "iso2022_jp"),
                ("gb2312", "gb18030"),
            ]
        ),
        ("Привет, как дела? Это проверка.".encode("cp1251"), "", "Привет, как дела? Это проверка."),
        ("Zażółć gęślą".encode("cp1250"), "text/html; charset=windows-1250", "Zażółć gęślą"),
        (b"plain", "text/html; charset=nonsense", "plain"),
        (b"", "", ""),
    ],
)
def test_pages_become_utf8(page, content_type, text):
    assert encoding.to_utf8(page, content_type).decode() == text


@given(st.binary(max_size=200), st.sampled_from(["", "utf-8", "shift_jis", "utf-16", "x", "gbk"]))
def test_any_bytes_become_utf8(page, charset):
    encoding.to_utf8(page, f"text/html; charset={charset}").decode("utf-8")
