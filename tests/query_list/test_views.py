"""Page views are summed over desktop, mobile and redirects, on real lines and in every format."""

import bz2
import gzip
import re
import tarfile
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from query_list import views
from query_list.titles import TitleIndex
from query_list.views import count_views, wiki_codes
from tests.query_list.test_titles import article, pages
from wit.errors import UserError

SAMPLES = (
    "pageviews-sample.txt",
    "pagecounts-sample-b8b5e473.txt",
    "pagecounts-sample-d1edc4b8.txt",
)
HOUR = b"""\
aa Dog 9 0
en - 1000 0
en Dog 5 0
en Caf%C3%A9 3 0
en dog 1 0
en Hound 20 0
en Special:Search 50 0
en.b Dog 9 0
en.m Dog 7 0
en.m.d Dog 9 0
en.zero Dog 2 0
enx Dog 9 0
"""
DAY = """\
aa.wikipedia Dog null desktop 9 A9
ar.wikipedia "\\"W\\"_x" 7858501 desktop 7 E1F1J1P1T1U1X1
en.wikibooks Dog 5 desktop 9 A9
en.wikipedia - null desktop 92 A19
en.wikipedia Dog 4269567 desktop 5 A1B4
en.wikipedia Dog 4269567 mobile-app 2 C2
en.wikipedia Dog 4269567 mobile-web 7 A1[3\\\\3
en.wikipedia Café null desktop 3 C3
en.wikipedia Hound desktop 20 C20
en.wikipedia "\\"W\\"_x" 7858501 desktop 1 E1
en.wikipedia \"Heroes\" 77 desktop 4 E4
en.wikipedia dog 4269567 mobile-web 1 A1
""".encode()
EXPECTED = {"Dog": 35, "Café": 3}


@pytest.fixture(scope="session")
def samples(shared_data, tmp_path_factory) -> dict[str, str]:
    """The real page-view lines: name -> path."""
    folder = tmp_path_factory.mktemp("views")
    found = {}
    with tarfile.open(shared_data / "text" / "query_sources.tar.gz") as tar:
        for member in tar:
            name = member.name.rpartition("/")[2]
            if name in SAMPLES:
                (folder / name).write_bytes(tar.extractfile(member).read())
                found[name] = str(folder / name)
    return found


@pytest.fixture(scope="session")
def index(tmp_path_factory) -> TitleIndex:
    titles = dict.fromkeys(["Dog", "Café", '"W" x', '"Heroes"', "Heroes"])
    return TitleIndex.build(pages(tmp_path_factory.mktemp("pages"), {**titles, "Hound": "Dog"}))


def plainly(data: bytes, codes: set[str]) -> tuple[dict[str, int], dict[str, list[int]], int]:
    """(views by title, numbers of malformed lines by reason, untitled), a line at a time."""
    titles: dict[str, int] = {}
    wrong: dict[str, list[int]] = {}
    untitled = 0
    lines = data.split(b"\n")
    for number, line in enumerate(lines[: len(lines) - (lines[-1] == b"")], 1):
        fields = line.removesuffix(b"\r").split(b" ")
        if fields == [b""]:
            wrong.setdefault("empty", []).append(number)
        elif len(fields) != 4 or b"" in fields:
            wrong.setdefault("wrong_fields", []).append(number)
        elif not re.fullmatch(rb"[0-9]{1,12}", fields[2]):
            wrong.setdefault("no_number", []).append(number)
        elif fields[0] in {code.encode() for code in codes}:
            try:
                title = unquote_to_bytes(fields[1]).decode()
            except UnicodeDecodeError:
                try:
                    title = fields[1].decode()
                except UnicodeDecodeError:
                    wrong.setdefault("not_utf8", []).append(number)
                    continue
            title = re.sub("[ _]+", " ", title).strip(" ")
            if title in ("", "-"):
                untitled += 1
            else:
                titles[title] = titles.get(title, 0) + int(fields[2])
    return titles, wrong, untitled


def by_title(path: str, wiki: str) -> tuple[dict[str, int], views.ViewCounts]:
    counts, found = views.ViewCounts(), {}
    for titles, numbers in views._lines_of(path, wiki_codes(wiki), counts):
        titles.validate(full=True)
        for title, number in zip(titles.to_pylist(), numbers.tolist(), strict=True):
            found[title] = found.get(title, 0) + number
    return found, counts


def counted(path, index: TitleIndex, wiki: str = "enwiki", **more) -> dict[str, int]:
    rows, numbers, _ = count_views(str(path), wiki, index, **more)
    assert rows.dtype == np.int32
    assert (np.diff(rows) > 0).all()
    names = {article(index, name): name for name in ("Dog", "Café", '"W" x', '"Heroes"', "Heroes")}
    return {names[row]: number for row, number in zip(rows.tolist(), numbers.tolist(), strict=True)}


# --- real lines -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wiki", "golden"),  # lines of the wiki with a title, their views, untitled, malformed
    [
        (SAMPLES[0], "afwiki", (1367, 1968, 2, {"empty": 2})),
        (SAMPLES[0], "alswiki", (443, 634, 1, {"empty": 2})),
        (SAMPLES[0], "enwiki", (0, 0, 0, {"empty": 2})),
        (SAMPLES[1], "enwiki", (469, 1343, 0, {})),
        (SAMPLES[2], "enwiki", (321, 1073, 0, {"wrong_fields": 1})),
        (SAMPLES[2], "arwiki", (12, 12, 0, {"wrong_fields": 1})),
    ],
)
def test_real_lines_give_the_golden_counts_and_equal_a_plain_reading(samples, name, wiki, golden):
    path = samples[name]
    found, counts = by_title(path, wiki)
    code = wiki_codes(wiki)[0]
    with open(path, "rb") as file:
        plain, wrong, untitled = plainly(file.read(), {code, f"{code}.m", f"{code}.zero"})
    assert found == plain
    lines = counts.lines - counts.other_wikis - counts.untitled - sum(counts.malformed.values())
    assert (lines, sum(found.values()), counts.untitled, counts.malformed) == golden
    assert (counts.first_malformed, counts.untitled) == (wrong, untitled)


def test_the_real_malformed_lines_are_told_by_their_numbers(samples):
    assert by_title(samples[SAMPLES[0]], "afwiki")[1].first_malformed == {"empty": [3192, 3349]}
    assert by_title(samples[SAMPLES[2]], "enwiki")[1].first_malformed == {"wrong_fields": [2]}


def test_real_titles_lead_to_their_articles(samples, tmp_path):
    titles = ["Jimi Hendrix (album)", "Fishy Joe's", "Main Page"]
    found = TitleIndex.build(pages(tmp_path, {**dict.fromkeys(titles), "Senbazuru": "Main Page"}))
    _, numbers, counts = count_views(samples[SAMPLES[1]], "enwiki", found)
    assert (numbers.sum(), counts.found, counts.found_views) == (2, 2, 2)
    assert (counts.of_wiki, counts.views) == (469, 1343)
    rows, numbers, _ = count_views(samples[SAMPLES[2]], "enwiki", found)
    assert (rows.tolist(), numbers.tolist()) == ([article(found, "Fishy Joe's")], [1])


# --- formats ----------------------------------------------------------------------------------


def test_an_hourly_file_sums_desktop_mobile_and_redirects(tmp_path, index):
    (tmp_path / "hour").write_bytes(HOUR)
    assert counted(tmp_path / "hour", index) == EXPECTED
    counts = count_views(str(tmp_path / "hour"), "enwiki", index)[2]
    assert counts == views.ViewCounts(
        lines=12, of_wiki=7, views=88, found=6, found_views=38, untitled=1, other_wikis=4
    )


def test_a_daily_file_sums_its_ways_of_access_with_and_without_page_ids(tmp_path, index):
    (tmp_path / "day").write_bytes(DAY)
    expected = {**EXPECTED, '"W" x': 1, '"Heroes"': 4}
    assert counted(tmp_path / "day", index) == expected
    counts = count_views(str(tmp_path / "day"), "enwiki", index)[2]
    assert (counts.lines, counts.of_wiki, counts.untitled, counts.malformed) == (12, 8, 1, {})


@pytest.mark.parametrize("data", [HOUR, DAY])
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, bytes])
def test_packed_files_are_told_by_their_bytes_also_in_several_streams(tmp_path, index, data, pack):
    (tmp_path / "plain").write_bytes(data)
    (tmp_path / "packed").write_bytes(pack(data[:100]) + pack(data[100:]))
    assert counted(tmp_path / "packed", index) == counted(tmp_path / "plain", index)


def test_titles_are_taken_as_they_stand_where_the_wiki_does_so(tmp_path, index):
    (tmp_path / "hour").write_bytes(HOUR)
    assert counted(tmp_path / "hour", index, case="case-sensitive") == {"Dog": 34, "Café": 3}


@pytest.mark.parametrize(
    ("written", "title"),
    [
        (b"Caf%C3%A9_au__lait_", "Café au lait"),
        (b"Caf%c3%a9%20", "Café"),
        (b"Caf%E9", "Caf%E9"),  # Latin 1: not UTF-8 when decoded, so it stays as it is
        (b"100%", "100%"),
        (b"100%_%zz%4", "100% %zz%4"),
        (b"%ED%A0%80", "%ED%A0%80"),  # a surrogate
        (b"%C0%AF", "%C0%AF"),  # a longer form than needed
        (b"%F4%90%80%80", "%F4%90%80%80"),  # beyond Unicode
        (b"%F0%9F%90%B6", "🐶"),
        (b"%E2%82", "%E2%82"),  # the beginning of a character
        (b'"Heroes"', '"Heroes"'),
        (b"\\", "\\"),
        (b"\xff", None),
        (b"_-_", None),
        (b"%20", None),
    ],
)
def test_a_title_is_decoded_as_mediawiki_does(tmp_path, written, title):
    (tmp_path / "hour").write_bytes(b"en x 1 0\nen " + written + b" 5 0\n")
    found = by_title(str(tmp_path / "hour"), "enwiki")[0]
    assert found == {"x": 1} | ({} if title is None else {title: 5})


PARTS = [
    b"en", b"en.m", b"de", b"12", b"0", b"-", b"Caf%C3%A9", b"Caf%E9", b"_a__b_", b"%", b"%4",
    b"%zz", b"\xc3\xa9", b"\xff", b"%20", b"%00", b"", b"a\r", b"9" * 13,
]  # fmt: skip
parts = st.sampled_from(PARTS) | st.binary(max_size=4).map(lambda data: data.replace(b"\n", b""))
lines = st.lists(parts, max_size=5) | st.tuples(st.just(b"en"), parts, st.just(b"5"), st.just(b"0"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    lines=st.lists(lines.map(b" ".join), max_size=20),
    block=st.integers(1, 64),
    ended=st.booleans(),
)
def test_any_lines_equal_a_plain_reading_however_they_are_cut(tmp_path, lines, block, ended):
    data = b"\n".join([*[b"de x 1 0"] * (len(lines) + 1), *lines]) + b"\n" * ended
    path = tmp_path / "hour"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "BLOCK", block)
        found, counts = by_title(str(path), "enwiki")
    plain, wrong, untitled = plainly(data, {"en", "en.m", "en.zero"})
    assert found == plain
    assert counts.malformed == {reason: len(numbers) for reason, numbers in wrong.items()}
    assert counts.first_malformed == {reason: numbers[:10] for reason, numbers in wrong.items()}
    assert counts.untitled == untitled
    assert counts.lines == data.count(b"\n") + (not data.endswith(b"\n"))


# --- wikis ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wiki", "codes"),
    [
        ("enwiki", ["en"]),
        ("simplewiki", ["simple"]),
        ("zh_min_nanwiki", ["zh-min-nan"]),
        ("be_x_oldwiki", ["be-x-old", "be-tarask"]),
    ],
)
def test_a_wikipedia_has_the_code_of_its_address(wiki, codes):
    assert wiki_codes(wiki) == codes


@pytest.mark.parametrize(
    "wiki", ["enwiktionary", "enwikibooks", "commonswiki", "wikidatawiki", "en", "", "../enwiki"]
)
def test_other_projects_are_refused(wiki):
    with pytest.raises(UserError, match="not the database name of a Wikipedia"):
        wiki_codes(wiki)


# --- damage -----------------------------------------------------------------------------------


def says(path, data: bytes, index: TitleIndex) -> str:
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        count_views(str(path), "enwiki", index)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


def test_a_file_of_mostly_malformed_lines_is_refused_with_its_line(tmp_path, index):
    page = b"en Dog 1 0\n<html>\n<p>Too many requests, come back\n</html>\n"
    assert "x, line 2: wrong_fields; 3 of 4 lines are malformed" in says(
        tmp_path / "x", page, index
    )
    half = b"en Dog 1 0\n" * 3 + b"\n" * 3
    (tmp_path / "x").write_bytes(half)
    assert counted(tmp_path / "x", index) == {"Dog": 3}


def test_it_is_refused_early(tmp_path, index):
    bomb = gzip.compress(b"\n" * (64 << 20))
    assert "8,388,608 of 8,388,608 lines" in says(tmp_path / "x", bomb, index)


def test_a_file_that_is_cut_short_damaged_or_empty_is_refused(tmp_path, index):
    lines = b"".join(b"en Dog_%d 1 0\n" % n for n in range(20_000))
    for pack in (gzip.compress, bz2.compress):
        packed = pack(lines)
        assert "cut short or damaged" in says(tmp_path / "x", packed[:-20], index)
        middle = len(packed) // 2
        broken = packed[:middle] + bytes(64) + packed[middle + 64 :]
        assert "cut short or damaged" in says(tmp_path / "x", broken, index)
    assert "nothing stands in it" in says(tmp_path / "x", b"", index)
    assert "nothing stands in it" in says(tmp_path / "x", gzip.compress(b""), index)
    assert "a line of more than" in says(tmp_path / "x", b"e" * (9 << 20), index)
    with pytest.raises(UserError, match="nowhere: no such file"):
        count_views(str(tmp_path / "nowhere"), "enwiki", index)
    (tmp_path / "x").write_bytes(lines)
    assert counted(tmp_path / "x", index) == {}


def test_views_of_a_hostile_size_do_not_overflow(tmp_path, index):
    (tmp_path / "x").write_bytes(b"en Dog 999999999999 0\n" * 3 + b"en Dog 1000000000000 0\n")
    _, numbers, counts = count_views(str(tmp_path / "x"), "enwiki", index)
    assert (numbers.tolist(), counts.malformed) == ([3 * 999_999_999_999], {"no_number": 1})
