"""Each page of a MediaWiki dump is read once, whatever the splits; what is not read is counted."""

import bz2
import functools
import gzip
import io
import itertools
import random
import string
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query_list import bzip2, dump, pages
from tests.query_list import split_pages
from tests.query_list.dumps import END, HEAD, Page, multistream, single, xml
from tests.query_list.real import DUMP, place
from tests.query_list.split_pages import stored
from wit import storage
from wit.errors import UserError

TABLES, CORPUS = "enwiki-table-markup.xml.bz2", "testcorpus.xml.bz2"
BULGARIAN = "bgwiki-latest-pages-articles-shortened.xml.bz2"


rows = functools.partial(split_pages.rows, dump.read_pages)


def sample(count: int) -> list[Page]:
    rng = random.Random(count)
    made = []
    for i in range(count):
        size = rng.choice([0, 40, 3_000, 3_000, 60_000])
        text = "".join(rng.choices(string.ascii_letters + " <&>\"'\né語\N{DOG}", k=size))
        redirect = rng.choice([None, None, f'Page "{i + 1}" & more'])
        namespace = rng.choice([0, 0, 0, 14])
        made.append(Page(f"Page {i} <&é>", text, redirect, namespace))
    return made


SAMPLE = sample(60)
EXPECTED = [
    (page.title, page.redirect, None if page.redirect else page.text)
    for page in SAMPLE
    if page.namespace == 0
]


def test_the_shortened_english_dump_has_106_articles_and_99_redirects(shared_data):
    path = place(shared_data, DUMP)
    found, counts = rows(path)
    assert +counts == {
        "pages": 206,
        "articles": 106,
        "redirects": 99,
        "other_namespaces": 1,
        "bytes": 6_089_746,
    }
    assert found[0] == ("AccessibleComputing", "Computer accessibility", None)
    titles = [title for title, _, text in found if text]
    assert titles[:3] == ["Anarchism", "Autism", "Albedo"]
    assert titles[-1] == "Algorithm"
    assert sum(len(text) for _, _, text in found if text) == 5_728_626
    assert rows(path, [400_000, 850_000, 850_001, 1_500_000]) == (found, counts)


def test_what_the_real_dumps_hold_is_what_an_xml_parser_reads_in_them(shared_data):
    for name in (DUMP, TABLES, CORPUS):
        path = place(shared_data, name)
        found, _ = rows(path)
        assert found == parsed(bz2.decompress(storage.read_bytes(path)))


def parsed(data: bytes) -> list[tuple]:
    """The rows as Python's XML parser has them."""
    found = []
    for page in (node for node in ElementTree.fromstring(data) if node.tag.endswith("}page")):
        node = {child.tag.rpartition("}")[2]: child for child in page.iter()}
        redirect = node["redirect"].get("title") if "redirect" in node else None
        text = None if redirect is not None else node["text"].text or ""
        if node["ns"].text == "0":
            found.append((node["title"].text, redirect, text))
    return found


def test_other_real_dumps_have_their_pages(shared_data):
    found, counts = rows(place(shared_data, TABLES))
    assert (counts["pages"], counts["articles"]) == (5, 5)
    assert found[0][0] == "Constructive vote of no confidence"
    found, counts = rows(place(shared_data, CORPUS))
    assert (counts["pages"], counts["articles"]) == (9, 9)
    assert found[0][2] == "\n\t  computer human interface\n\t  "


def test_the_bulgarian_dump_in_utf16_is_refused_and_read_once_recoded(shared_data):
    path = place(shared_data, BULGARIAN)
    with pytest.raises(UserError, match=f"^{path}: is UTF-16 .*recode it"):
        dump.read_site(path)
    text = bz2.decompress(storage.read_bytes(path)).decode("utf-16")
    recoded = stored("bgwiki.xml.bz2", bz2.compress(text.encode()))
    site = dump.read_site(recoded)
    assert (site.dbname, site.language, site.main_page) == ("bgwiki", "bg", "Начална страница")
    assert site.namespaces[14] == "Категория"
    found, counts = rows(recoded)
    assert found == parsed(text.encode())
    assert (counts["pages"], counts["articles"], counts["redirects"]) == (3, 1, 0)
    dump.check_site(recoded, site, "bgwiki")


PACKED = {
    "plain.xml": single(SAMPLE),
    "one.xml.bz2": bz2.compress(single(SAMPLE), 1),
    "many.xml.bz2": multistream(SAMPLE, 4),
}


@settings(max_examples=40)
@given(st.data())
def test_any_cuts_give_the_same_pages_in_the_same_order(data):
    name = data.draw(st.sampled_from(sorted(PACKED)))
    packed = PACKED[name]
    path = stored(name, packed)
    cuts = data.draw(st.lists(st.integers(0, len(packed)), max_size=4))
    found, counts = rows(path, cuts)
    assert found == EXPECTED
    assert counts["pages"] == len(SAMPLE)
    assert counts["bytes"] == len(PACKED["plain.xml"])


def test_planned_splits_are_of_the_size_asked_and_give_the_same_pages():
    for name, packed in PACKED.items():
        path = stored(name, packed)
        for size in (10_000, 70_001, 10**9):
            splits = dump.plan_splits(path, size)
            assert all(end - start <= size for start, end in splits)
            assert len(splits) == -(-len(packed) // size)
            assert rows(path, [start for start, _ in splits[1:]])[0] == EXPECTED


def test_tags_that_are_read_in_pieces_are_found(monkeypatch):
    data = single([Page("One", "1"), Page("Two", "2")])
    path = stored("pieces.xml", data)
    for tag in (b"<page>", b"</page>", b"</mediawiki>"):
        for inside in range(len(tag) + 1):
            monkeypatch.setattr(pages, "PIECE", data.rindex(tag) + inside)
            assert [row[0] for row in rows(path)[0]] == ["One", "Two"]


def test_a_gzip_file_is_one_split():
    packed = gzip.compress(PACKED["plain.xml"])
    path = stored("dump.xml.gz", packed)
    assert dump.plan_splits(path, 1000) == [(0, len(packed))]
    assert rows(path)[0] == EXPECTED
    with pytest.raises(UserError, match=r"dump.xml.gz: byte [\d,]+: .*cut"):
        rows(stored("dump.xml.gz", packed[:-40]))
    broken = bytearray(packed)
    broken[-8] ^= 1  # of its CRC
    with pytest.raises(UserError, match=r"dump.xml.gz: byte [\d,]+: damaged"):
        rows(stored("dump.xml.gz", bytes(broken)))


def test_a_page_whose_first_tag_is_cut_by_a_blocks_end_is_of_the_first_split():
    noise = "".join(map("".join, itertools.product(string.ascii_letters, string.digits * 100)))
    seen = set()
    for size in range(98_868, 98_880):
        data = single([Page("First", noise[:size]), Page("Second", "y")])
        path = stored("cut.xml.bz2", bz2.compress(data, 1))
        blocks = [chunk for chunk, _ in pages.chunks(path, 0, 10**9)]
        assert len(blocks) == 2
        inside = len(blocks[0]) - data.rindex(b"<page>")
        seen.add(inside)
        edge = bzip2.find_magics(storage.read_bytes(path))[1][0] // 8
        owners = [titles_of(path, 0, edge), titles_of(path, edge, storage.size(path))]
        assert owners == ([["First", "Second"], []] if inside > 0 else [["First"], ["Second"]])
    assert seen >= set(range(7)), "the tag is not cut at each of its bytes"


def titles_of(path: str, start: int, end: int) -> list[str]:
    return [title for b in dump.read_pages(path, start, end) for title in b["title"].to_pylist()]


def test_a_block_that_looks_as_if_another_began_in_it_does_not_disturb_a_dump():
    noise = "".join(random.Random(1).choices("BCGIOQSTWZ]^acfgiklo", k=350_000))
    data = single([Page("One", "1"), Page("Noise", noise), Page("Two", "2")])
    packed = bz2.compress(data, 1)
    marks = [bit // 8 for bit, begins in bzip2.find_magics(packed) if begins]
    assert len(list(bzip2.chunks(io.BytesIO(packed), "noise", 0, 10**9))) == 4
    assert len(marks) == 4 + 2
    path = stored("noise.xml.bz2", packed)
    for cut in itertools.chain(marks, (mark + 1 for mark in marks)):
        assert [row[0] for row in rows(path, [cut])[0]] == ["One", "Noise", "Two"]


characters = st.characters(exclude_categories=("Cs",), exclude_characters="\r\ufffe\uffff")
texts = st.text(characters.filter(lambda c: c >= " " or c in "\n\t") | st.sampled_from("&<>\"';#x"))
titles = texts.map(lambda t: f"T{t}".replace("\n", "").replace("\t", ""))


@given(st.lists(st.tuples(titles, st.none() | titles, texts), max_size=4))
def test_titles_redirects_and_texts_are_what_an_xml_parser_reads(made):
    data = single([Page(title, text, redirect) for title, redirect, text in made])
    assert rows(stored("made.xml", data))[0] == parsed(data)


@given(st.text("&lgtampquos;#x0123456789\r\n é", max_size=30))
def test_references_of_every_kind_are_resolved_as_an_xml_parser_does(text):
    data = single([Page("T", "HERE")]).replace(b"HERE", text.encode())
    found, counts = rows(stored("made.xml", data))
    try:
        expected = parsed(data)
    except ElementTree.ParseError:
        assert counts["pages"] == 1
        return
    assert found == expected


def test_what_is_no_article_is_counted_and_left_out():
    made = [
        Page("Talk", "x", namespace=1),
        Page("Code", "x", model="Scribunto"),
        Page("Deleted", None),
        Page("Empty", ""),
        Page("Broken redirect", "x", redirect=""),
    ]
    found, counts = rows(stored("made.xml", single(made)))
    assert found == [("Deleted", None, ""), ("Empty", None, ""), ("Broken redirect", "", None)]
    assert +counts == {
        "pages": 5,
        "articles": 2,
        "redirects": 1,
        "other_namespaces": 1,
        "other_models": 1,
        "empty": 2,
        "bytes": len(single(made)),
    }


@pytest.mark.parametrize(
    ("old", "new", "counted"),
    [
        ("<title>Bad</title>", "", "malformed: no title"),
        ("<title>Bad</title>", "<title></title>", "malformed: no title"),
        ("<ns>0</ns>", "", "malformed: no namespace"),
        ("<ns>0</ns>", "<ns>zero</ns>", "malformed: no namespace"),
        ("<revision>", "", "malformed: no revision"),
        ("<text bytes", "<test bytes", "malformed: no text"),
        ("</text>", "", "malformed: text without end"),
        (">TEXT", "><b>TEXT", "malformed: markup in text"),
        ("TEXT", "&#0;", "malformed: reference to no character"),
        ("TEXT", "&#xD800;", "malformed: reference to no character"),
        ("TEXT", "&#99999999;", "malformed: reference to no character"),
        ("</page>", "", "malformed: page without end"),
        ("TEXT", "\udcff", "not_utf8"),
        ("Bad", "\udce9", "not_utf8"),
        ("TEXT", "\udced\udca0\udc80", "not_utf8"),
    ],
)
def test_a_malformed_page_is_counted_with_its_reason_and_the_others_are_read(old, new, counted):
    bad = xml(Page("Bad", "TEXT"))
    assert old in bad
    data = HEAD + xml(Page("One", "1")) + bad.replace(old, new, 1) + xml(Page("Two", "2")) + END
    path = stored("bad.xml", data.encode("utf-8", "surrogateescape"))
    for cut in (0, data.index("Bad") if "Bad" in data else 0, data.index("Two")):
        found, counts = rows(path, [cut])
        assert [row[0] for row in found] == ["One", "Two"]
        assert counts[counted] == 1
        assert counts["pages"] == 3


def test_a_page_that_is_too_large_is_left_out_without_being_held(monkeypatch):
    monkeypatch.setattr(dump, "LARGEST", 50_000)
    monkeypatch.setattr(pages, "PIECE", 10_000)
    made = [Page("One", "1"), Page("Huge", "h" * 500_000), Page("Large", "l" * 49_000)]
    path = stored("large.xml", single(made))
    for cut in (0, 1500, 90_000):
        found, counts = rows(path, [cut])
        assert [row[0] for row in found] == ["One", "Large"]
        assert (counts["pages"], counts["too_large"], counts["articles"]) == (3, 1, 2)


def test_the_newest_revision_counts_in_a_dump_with_history():
    page = xml(Page("Old", "of old"))
    start, end = page.index("    <revision>"), page.index("  </page>")
    newer = page[start:end].replace("of old", "of late")
    data = HEAD + page[:end] + newer + page[end:] + END
    assert rows(stored("history.xml", data.encode()))[0] == [("Old", None, "of late")]


def test_the_main_slot_counts_where_a_page_has_others():
    slot = '<content><role>more</role><model>json</model><text bytes="1">m</text></content>'
    data = HEAD + xml(Page("Slots", "main")).replace("      <sha1>", slot + "<sha1>") + END
    assert rows(stored("slots.xml", data.encode()))[0] == [("Slots", None, "main")]


def test_a_dump_that_is_cut_is_refused_with_its_name():
    whole = PACKED["plain.xml"].rstrip()
    for size in (len(whole) - 1, whole.rindex(b"</page>") + 7, whole.rindex(b"<page>") + 50):
        path = stored("cut.xml", whole[:size])
        with pytest.raises(UserError, match=f"^{path}: ends (inside a page|without </mediawiki>)"):
            rows(path)
        packed = stored("cut.xml.bz2", bz2.compress(whole[:size], 1))
        with pytest.raises(UserError, match=f"^{packed}: ends"):
            rows(packed, [storage.size(packed) // 2])
    packed = stored("cut.xml.bz2", PACKED["one.xml.bz2"][:-200])
    with pytest.raises(UserError, match=f"^{packed}: byte .*cut"):
        rows(packed)
    with pytest.raises(UserError, match=f"^{packed}: ends at byte .*cut"):
        dump.plan_splits(packed, 1000)


def test_a_stub_dump_is_refused_because_it_has_no_texts():
    data = single([Page("Stub", None)]).replace(b"deleted=", b'location="tt:8" id="8" deleted=')
    with pytest.raises(UserError, match=r"stub dump.*pages-articles"):
        rows(stored("stub.xml", data))


def test_the_head_says_what_the_wiki_is():
    site = dump.read_site(stored("plain.xml", PACKED["plain.xml"]))
    assert site == pages.Site(
        dbname="dewiki",
        language="de",
        main_page="Wikipedia:Hauptseite für alle",
        case="first-letter",
        generator="MediaWiki 1.45.0-wmf.4",
        namespaces={-2: "Medium", 0: "", 14: "Kategorie", 828: "Q&A"},
    )
    for head in (b"\xef\xbb\xbf", b'<?xml version="1.0" encoding="utf-8"?>\n<!-- made -->\n'):
        assert dump.read_site(stored("head.xml", head + PACKED["plain.xml"])) == site


def test_a_dump_of_another_wiki_is_refused(shared_data):
    path = place(shared_data, DUMP)
    english = dump.read_site(path)
    dump.check_site(path, english, "enwiki")
    with pytest.raises(UserError, match=r"dump of enwiki \(language: en\), not of dewiki"):
        dump.check_site(path, english, "dewiki")
    unnamed = dump.read_site(place(shared_data, TABLES))
    assert unnamed == pages.Site("", "en", "", "", "", {})
    dump.check_site(path, unnamed, "enwiki")
    with pytest.raises(UserError, match=r"an unnamed wiki \(language: en\), not of zh_yuewiki"):
        dump.check_site(path, unnamed, "zh_yuewiki")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"<html>", "is no MediaWiki dump: it begins with b'<html>'"),
        (b'{"index":{}}', "is no MediaWiki dump"),
        (HEAD.replace('"0.11"', '"0.5"').encode(), "export version 0.5"),
        (HEAD.replace("</case>", "").encode(), "<siteinfo> is malformed"),
        (b'<?xml version="1.0" encoding="latin-1"?>' + HEAD.encode(), "is latin-1"),
        (HEAD.encode("utf-16-le"), "is UTF-16"),
        (b"7z\xbc\xaf\x27\x1c", "packed with 7z"),
        (b"BZh9 and more that is no bzip2", "does not begin as a bzip2 file does"),
    ],
)
def test_what_is_no_dump_is_refused_in_one_line(data, said):
    path = stored("other", data)
    with pytest.raises(UserError) as error:
        dump.read_site(path)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_dump_that_is_not_there_is_refused(tmp_path):
    for read in (dump.read_site, lambda path: dump.plan_splits(path, 9), rows_of_absent):
        with pytest.raises(UserError, match="there is no such file"):
            read(str(tmp_path / "absent.xml.bz2"))


def rows_of_absent(path: str) -> None:
    list(dump.read_pages(path, 0, 9))
