"""Real crawl files to their last byte: golden counts, each link in one outcome, faults listed.

What the WARC gives beyond the WAT of the same pages (distinct pairs of http(s) URL and text):

    pairs of the WAT    10,864
    pairs of the WARC   12,933, 19.0 % more: 2,694 are new, 625 of the WAT are gone

    1,783 lazy loading: the address is in another attribute, the WAT has a data: URL (763), a
          stand-in shared by all images (585) or nothing (435)
      596 figcaption (164 of them of lazily loaded images)
      137 srcset, or srcset of a <picture> (15 of them with a figcaption)
       30 other data- attributes
      163 the page's encoding, and images of AMP pages (<amp-img>)

Nearly all of those gone are the stand-ins that the WAT has for lazily loaded images.
"""

import contextlib
import io
import tarfile
from collections import Counter

import pytest

from pipeline import sources
from pipeline.extract import encoding, html, http, urls, wat
from pipeline.sources.crawl import _is_wanted
from pipeline.sources.records import read_records
from pipeline.tally import Tally
from wit.errors import UserError
from wit.pairs import LINKS


def read(path):
    """(rows, tally) of a file."""
    tally = Tally()
    batches = list(sources.read(sources.Source(str(path), "warc"), tally))
    assert all(batch.schema == LINKS for batch in batches)
    assert tally.unaccounted == 0
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert len(rows) == tally.counts.get("extracted", 0)
    return rows, tally


@pytest.fixture(scope="module")
def from_wat(shared_data):
    return read(shared_data / "warc" / "real_pages.warc.wat.gz")


@pytest.fixture(scope="module")
def from_warc(shared_data):
    return read(shared_data / "warc" / "real_pages.warc.gz")


def test_counts_of_the_real_wat(from_wat):
    rows, tally = from_wat
    assert tally.to_json() == {
        "counts": {
            "extracted": 12622,
            "no_text": 9413,
            "no_url": 175,
            "data_url": 1851,
            "not_http": 2,
            "bad_url": 17,
        },
        "seen": {"records": 1041, "pages": 1040, "images": 23112, "extra_texts": 968},
        "fault_counts": {},
        "fault_total": 0,
        "faults": [],
    }
    assert Counter(row["attribute"] for row in rows) == {
        "alt": 11270,
        "title": 1220,
        "data-image-title": 132,
    }


def test_counts_of_the_real_warc(from_warc):
    rows, tally = from_warc
    assert tally.to_json() == {
        "counts": {
            "extracted": 14700,
            "no_text": 9675,
            "no_url": 108,
            "data_url": 142,
            "not_http": 2,
            "bad_url": 6,
            "noscript_twin": 1340,
        },
        "seen": {"records": 1040, "pages": 1040, "images": 24515, "extra_texts": 1458},
        "fault_counts": {},
        "fault_total": 0,
        "faults": [],
    }
    assert sum("\ufffd" in row["text"] for row in rows) == 0


def test_a_record_is_read_again_at_its_offset(from_warc, shared_data):
    row = from_warc[0][5000]
    with open(shared_data / "warc" / "real_pages.warc.gz", "rb") as file:
        file.seek(row["record_offset"])
        record = next(read_records(io.BytesIO(file.read(2**20)), "part", Tally()))
    assert record.url == row["page_url"]


def pairs_of(rows):
    return {(row["url"], row["text"]) for row in rows}


def test_the_warc_gives_what_the_wat_lacks(from_wat, from_warc, shared_data):
    known, found = pairs_of(from_wat[0]), pairs_of(from_warc[0])
    assert (len(known), len(found)) == (10_864, 12_933)
    assert len(found) / len(known) > 1.18
    new = found - known
    origin = {}
    with open(shared_data / "warc" / "real_pages.warc.gz", "rb") as file:
        for record in read_records(file, "pages", Tally(), wanted=_is_wanted):
            fields, body = http.split_response(bytes(record.block))
            page = encoding.to_utf8(body, fields["content-type"])
            images, base_href, _ = html.find_images(page)
            (base,) = urls.make_bases([record.url], [base_href])
            for image in images:
                raw, how = html.choose_address(image)
                url, _ = urls.resolve(raw, base)
                texts = [(name, image.attributes.get(name)) for name in html.TEXTS]
                texts += [("figcaption", caption) for caption in image.captions]
                for attribute, text in html.distinct_texts(texts):
                    if (url, text) in new:
                        caption = "figcaption" if attribute == "figcaption" else "alt, title"
                        origin.setdefault((url, text), (how, caption))
    assert Counter(origin.values()) == {
        ("lazy", "alt, title"): 1783,
        ("src", "figcaption"): 417,
        ("src", "alt, title"): 163,
        ("lazy", "figcaption"): 164,
        ("srcset", "alt, title"): 99,
        ("other", "alt, title"): 30,
        ("picture", "alt, title"): 23,
        ("srcset", "figcaption"): 14,
        ("picture", "figcaption"): 1,
    }


def test_the_links_are_those_of_cc2dataset_but_for_what_is_listed(shared_data):
    pytest.importorskip("fastwarc")
    pytest.importorskip("simdjson")
    from benchmarks.extract import compare

    kinds = compare((shared_data / "warc" / "real_pages.warc.wat.gz").read_bytes())
    assert kinds == {
        "same": 11252,
        "page": 172,
        "no URL": 16,
        "blank": 15,
        "srcset": 11,
        "otherwise": 7,
        "neither": 1566,
    }
    assert sum(kinds.values()) == 13_039  # images with an alt, as the data's README says


BAD_ARC = [(134, "bad_length"), (134, "bad_http"), (202, "bad_length"), (202, "bad_http")]

# Files of other projects' tests: records, pages, images, pairs, faults with their offsets.
ODD = {
    "aut/arc/badexample.arc.gz": (5, 1, 0, 0, [(0, "bad_length")] * 2 + [(0, "cut_record")]),
    "aut/arc/example.arc.gz": (300, 140, 858, 666, []),
    "aut/warc/example.docs.warc.gz": (21, 0, 0, 0, []),
    "aut/warc/example.pdf.warc.gz": (76, 3, 2, 2, []),
    "aut/warc/example.txt.warc.gz": (6, 0, 0, 0, []),
    "aut/warc/example.warc.gz": (822, 140, 858, 666, []),
    "aut/warc/issue-493.warc": (32, 5, 10, 0, []),
    "aut/warc/issue-514.warc": (8, 2, 3, 3, []),
    "cc-image-extractor/raw_wat/CC-MAIN-sample.warc.wat.gz": (1, 1, 27, 0, [(0, "bad_length")]),
    "cc-image-extractor/raw_wat/CC-MAIN-sample2.warc.wat.gz": (1, 1, 27, 0, []),
    "cc-image-extractor/raw_wat/CC-MAIN-sample3.warc.wat.gz": (1, 1, 27, 0, [(0, "bad_length")]),
    "cc-image-extractor/raw_wat/CC-MAIN-sample4.warc.wat.gz": (1, 1, 27, 0, []),
    "pywb/warcs/bad.arc": (3, 0, 0, 0, [(0, "bad_length"), *BAD_ARC]),
    "pywb/warcs/dupes.warc.gz": (25, 1, 0, 0, []),
    "pywb/warcs/example-bad.warc.gz.bad": (6, 2, 0, 0, []),
    "pywb/warcs/example-extra.warc": (6, 1, 0, 0, [(3207, "bad_http")]),
    "pywb/warcs/example-url-agnostic-orig.warc.gz": (2, 1, 0, 0, []),
    "pywb/warcs/example-url-agnostic-revisit.warc.gz": (2, 0, 0, 0, []),
    "pywb/warcs/example-wget-1-14.warc.gz": (6, 1, 0, 0, []),
    "pywb/warcs/example-wpull.warc.gz": (4, 1, 0, 0, []),
    "pywb/warcs/example.arc": (2, 1, 0, 0, []),
    "pywb/warcs/example.arc.gz": (2, 1, 0, 0, []),
    "pywb/warcs/example.warc": (6, 2, 0, 0, [(4061, "bad_length")]),
    "pywb/warcs/example.warc.gz": (6, 2, 0, 0, []),
    "pywb/warcs/example2.warc.gz": (3, 1, 0, 0, []),
    "pywb/warcs/httpbin-resource.warc.gz": (1, 0, 0, 0, []),
    "pywb/warcs/iana.warc.gz": (343, 20, 32, 16, []),
    "pywb/warcs/missing-status-text.warc": (1, 0, 0, 0, []),
    "pywb/warcs/post-test.warc.gz": (6, 0, 0, 0, []),
    "resiliparse/block-sized-records.warc": (3, 0, 0, 0, []),
    "resiliparse/block-sized-records.warc.gz": (3, 0, 0, 0, []),
    "resiliparse/block-sized-records.warc.lz4": "LZ4",
    "resiliparse/clipped.warc.gz": (1, 1, 7, 7, [(0, "cut_compression")]),
    "resiliparse/clueweb-quirk.warc.gz": (30, 29, 1252, 556, []),
    "resiliparse/warcfile.warc": (50, 16, 153, 37, []),
    "resiliparse/warcfile.warc.gz": (50, 16, 153, 37, []),
    "resiliparse/warcfile.warc.lz4": "LZ4",
    "solrwayback/compressions_warc/transfer_compression_brotli.warc": (5, 1, 0, 0, []),
    "solrwayback/compressions_warc/transfer_compression_brotli.warc.gz": (5, 1, 0, 0, []),
    "solrwayback/compressions_warc/transfer_compression_gzip.warc": (5, 1, 0, 0, []),
    "solrwayback/compressions_warc/transfer_compression_gzip.warc.gz": (5, 1, 0, 0, []),
    "solrwayback/compressions_warc/transfer_compression_gzip_chunked.warc.gz": (3, 1, 63, 37, []),
    "solrwayback/compressions_warc/transfer_compression_none.warc": (5, 1, 0, 0, []),
    "solrwayback/compressions_warc/transfer_compression_none.warc.gz": (5, 1, 0, 0, []),
    "solrwayback/compressions_warc/transfer_compression_none_truncated.warc.gz": (
        *(3, 1, 0, 0),
        [(881, "cut_compression")],
    ),
    "warcio/bad.arc": (3, 0, 0, 0, [(0, "bad_length"), *BAD_ARC]),
    "warcio/example-bad-non-chunked.warc.gz": (6, 1, 0, 0, []),
    "warcio/example-bad.warc.gz.bad": (6, 2, 0, 0, []),
    "warcio/example-digest.warc": (4, 0, 0, 0, []),
    "warcio/example-iana.org-chunked.warc": (3, 1, 0, 0, []),
    "warcio/example-resource.warc.gz": (3, 1, 0, 0, []),
    "warcio/example-space-in-target-uri.warc.gz": (2, 0, 0, 0, []),
    "warcio/example-space-in-url.arc": (2, 1, 0, 0, [(151, "cut_record")]),
    "warcio/example-trunc.warc": (4, 1, 0, 0, [(1197, "bad_encoding")]),
    "warcio/example-wget-bad-target-uri.warc.gz": (6, 1, 0, 0, []),
    "warcio/example-wrong-chunks.warc.gz": (2, 1, 0, 0, []),
    "warcio/example.arc": (2, 1, 0, 0, []),
    "warcio/example.arc.gz": (2, 1, 0, 0, []),
    "warcio/example.warc": (6, 1, 0, 0, []),
    "warcio/example.warc.gz": (6, 1, 0, 0, []),
    "warcio/post-test.warc.gz": (6, 0, 0, 0, []),
    "webarchive-commons/org/archive/format/arc/IAH-20080430204825-00000-blackbook-truncated.arc": (
        *(9, 2, 53, 52),
        [],
    ),
    "webarchive-commons/org/archive/format/gzip/IAH-urls-wget.warc.gz": (36, 11, 50, 46, []),
    "webarchive-commons/org/archive/format/gzip/double-single-inflate-error.gz": "unpacked",
    "webarchive-commons/org/archive/format/warc/IAH-urls-wget.warc": (36, 11, 50, 46, []),
    "webarchive-commons/org/archive/format/warc/mutliple-headers.warc": (1, 1, 0, 0, []),
    "webarchive-commons/org/archive/resource/html/link-extraction-test.warc": (8, 7, 3, 3, []),
    "whirlwind/whirlwind.warc": (4, 1, 13, 7, []),
    "whirlwind/whirlwind.warc.gz": (4, 1, 13, 7, []),
    "whirlwind/whirlwind.warc.wat": (2, 0, 0, 0, []),
    "whirlwind/whirlwind.warc.wat.gz": (2, 0, 0, 0, []),
    "whirlwind/whirlwind.warc.wet": (2, 0, 0, 0, []),
    "whirlwind/whirlwind.warc.wet.gz": (2, 0, 0, 0, []),
}


@pytest.fixture(scope="module")
def odd_files(shared_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    with tarfile.open(shared_data / "warc" / "odd_warcs.tar.gz") as tar:
        tar.extractall(folder, filter="data")
    (root,) = [path.parent for path in folder.rglob("whirlwind")]
    return root


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_read_to_their_end(odd_files, name):
    if isinstance(ODD[name], str):
        with pytest.raises(UserError, match=ODD[name]):
            read(odd_files / name)
        return
    rows, tally = read(odd_files / name)
    seen = [tally.seen.get(what, 0) for what in ("records", "pages", "images")]
    assert (*seen, len(rows), tally.faults) == ODD[name]


def test_any_other_file_beside_them_is_refused_or_read(odd_files):
    others = [p for p in odd_files.rglob("*") if p.is_file() and p.stat().st_size]
    others = [path for path in others if str(path.relative_to(odd_files)) not in ODD]
    assert len(others) > 30
    for path in others:
        with contextlib.suppress(UserError):
            read(path)


def test_legacy_encodings_are_read(odd_files):
    rows, _ = read(odd_files / "resiliparse" / "clueweb-quirk.warc.gz")
    assert "ヘッドポーター財布" in "".join(row["text"] for row in rows)
    assert sum("\ufffd" in row["text"] for row in rows) == 0


def test_a_page_that_unpacks_to_more_than_the_cap_is_a_fault(monkeypatch, tmp_path):
    monkeypatch.setattr(http, "LARGEST_PAGE", 1000)
    page = b"<img src=http://x.org/a.jpg alt=a>" + b" " * 2000
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + page
    head = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: %d\r\n\r\n" % len(block)
    path = tmp_path / "x.warc"
    path.write_bytes(head + block + b"\r\n\r\n")
    rows, tally = read(path)
    assert (rows, tally.faults) == ([], [(0, "page_too_large")])


def test_all_image_links_with_an_alt_are_counted_as_the_readme_of_the_data_says(shared_data):
    with open(shared_data / "warc" / "real_pages.warc.wat.gz", "rb") as file:
        found = [wat.parse_links(bytes(r.block)) for r in read_records(file, "x", Tally()) if r.url]
    assert sum(len(links) for links, _ in found) == 23_112
    assert sum(bool(link.alt) for links, _ in found for link in links) == 13_039


def test_a_missing_file_is_said():
    with pytest.raises(UserError, match="no such file"):
        read("/nowhere/x.warc.gz")
