"""`wit queries build`: real dumps, page views and WordNet become a list, however it is run."""

import bz2
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from query_list.cli import main
from tests.query_list.real import DUMP, FOLDER, SOURCES
from wit import text
from wit.errors import UserError
from wit.hashing import hash64
from wit.matching import Matcher

VIEWS = "07_wiki_wordnet/pageviews_hour_sample/pageviews-sample.txt"
WORDNET = "text/wordnet30.tar.xz"
LIST = ("queries.parquet", "queries.json", "queries.html")
ASKED = ["--word-count", "5", "--size", "151000"]
# Views as the real files have them, of articles that are in the shortened dump.
ENGLISH = (
    "en Anarchism 70 0\nen.m Anarchism 11 0\nen Autism 40 0\nen.m Alain_Connes 9 0\n"
    "en AccessibleComputing 5 0\nen Main_Page 999 0\nen Talk:Autism 500 0\nde Anarchism 9 0\n"
)


@pytest.fixture(scope="module")
def inputs(shared_data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    with tarfile.open(shared_data / SOURCES) as archive:
        for name in (f"{FOLDER}/{DUMP}", VIEWS):
            (folder / Path(name).name).write_bytes(archive.extractfile(name).read())
    (folder / "pageviews-20260801-000000").write_text(ENGLISH)
    (folder / "wordnet30.tar.xz").write_bytes((shared_data / WORDNET).read_bytes())
    return folder


def build(inputs: Path, out: Path, *options: str, workers: int = 1) -> int:
    command = ["build", str(inputs), "--out", str(out), *ASKED, *options]
    return main([*command, "--workers", str(workers)])


@pytest.fixture(scope="module")
def built(inputs, tmp_path_factory) -> Path:
    """The list with one worker and the dump in five splits."""
    out = tmp_path_factory.mktemp("built") / "list"
    assert (
        main(
            [
                "build",
                str(inputs),
                "--out",
                str(out),
                *ASKED,
                "--split-bytes",
                "400kB",
                "--workers",
                "1",
            ]
        )
        == 0
    )
    return out


def copied(inputs: Path, folder: Path) -> Path:
    return shutil.copytree(inputs, folder / "inputs")


def rows(out: Path) -> dict:
    return {row["query"]: row for row in pq.read_table(out / "queries.parquet").to_pylist()}


def test_golden_counts_of_the_real_dump(built):
    facts = json.loads((built / "queries.json").read_text())
    assert facts["dumps"]["pages"] == 206
    assert facts["dumps"]["articles"] == 106
    assert facts["dumps"]["redirects"] == 99
    assert facts["wordnet"] == {"version": "3.0", "synsets": 117_659}
    assert facts["never_matching"] == 0
    assert facts["queries"] == len(rows(built)) <= 151_000


def test_every_query_is_normal_distinct_sorted_and_matches_itself(built):
    table = pq.read_table(built / "queries.parquet")
    queries = table["query"].combine_chunks()
    assert text.normalise(queries).equals(queries)
    assert queries.take(pc.sort_indices(queries)).equals(queries)
    assert len(queries.unique()) == len(queries)
    assert table["query_id"].to_pylist() == list(range(len(table)))
    assert (table["query_hash"].to_numpy() == hash64(queries)).all()
    found = Matcher.build(queries).match(queries).to_pylist()
    assert all(i in ids for i, ids in enumerate(found))


def test_a_query_names_all_its_sources_with_what_they_know(built):
    known = rows(built)
    anarchism = known["anarchism"]
    assert anarchism["sources"] == ["wikipedia_word", "wikipedia_title", "wordnet"]
    assert anarchism["views"] == 81
    assert anarchism["count"] > 100
    assert "wikipedia_bigram" in known["atlas shrugged"]["sources"]
    assert known["atlas shrugged"]["pmi"] > 10
    assert "main page" not in known or "wikipedia_title" not in known["main page"]["sources"]


def test_the_same_list_with_four_workers_and_other_splits(inputs, built, tmp_path):
    out = tmp_path / "list"
    assert build(inputs, out, "--split-bytes", "150kB", workers=4) == 0
    for name in LIST:
        assert (out / name).read_bytes() == (built / name).read_bytes(), name


def test_the_same_list_with_two_workers_of_a_dump_in_many_streams(inputs, built, tmp_path):
    """As Wikimedia publishes it: bzip2 streams of some pages each, one behind the other."""
    folder, out = copied(inputs, tmp_path), tmp_path / "list"
    xml = bz2.decompress((inputs / DUMP).read_bytes())
    head, *pages = xml.split(b"  <page>\n")
    parts = [head, *(b"  <page>\n" + page for page in pages)]
    streams = [bz2.compress(b"".join(parts[i : i + 10])) for i in range(0, len(parts), 10)]
    (folder / DUMP).write_bytes(b"".join(streams))
    assert build(folder, out, "--split-bytes", "1MB", workers=2) == 0
    assert (out / "queries.parquet").read_bytes() == (built / "queries.parquet").read_bytes()


def test_killed_and_started_again_it_is_the_same_list(inputs, built, tmp_path):
    out = tmp_path / "list"
    command = ["build", str(inputs), "--out", str(out), *ASKED, "--split-bytes", "150kB"]
    process = subprocess.Popen(
        [sys.executable, "-m", "wit.cli", "queries", *command, "--workers", "1"],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    done = out / "work" / "extract"
    until = time.monotonic() + 120
    while not (done.is_dir() and len(os.listdir(done)) > 2) and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "queries.parquet").exists()
    before = {n: os.stat(done / n).st_mtime_ns for n in os.listdir(done) if n[0] != "."}
    assert build(inputs, out, "--split-bytes", "150kB") == 0
    for name in LIST:
        assert (out / name).read_bytes() == (built / name).read_bytes(), name
    assert {name: os.stat(done / name).st_mtime_ns for name in before} == before


def test_another_size_takes_only_the_last_step_another_threshold_another_folder(
    inputs, built, tmp_path
):
    out = shutil.copytree(built, tmp_path / "list")
    stage = out / "work" / "extract" / "00000.json"
    before = stage.stat().st_mtime_ns
    assert build(inputs, out, "--split-bytes", "400kB", "--size", "150500") == 0
    assert pq.read_table(out / "queries.parquet").num_rows == 150_500
    assert build(inputs, out, "--split-bytes", "400kB") == 0
    assert stage.stat().st_mtime_ns == before
    assert (out / "queries.parquet").read_bytes() == (built / "queries.parquet").read_bytes()
    with pytest.raises(UserError, match="word-count 5, now word-count 6"):
        build(inputs, out, "--split-bytes", "400kB", "--word-count", "6")


def test_words_and_wordnet_over_the_size_are_refused_with_the_sizes(inputs, built, tmp_path):
    out = shutil.copytree(built, tmp_path / "list")
    with pytest.raises(UserError, match=r"8,960 words and 146,701 .* over --size 50,?000"):
        build(inputs, out, "--split-bytes", "400kB", "--size", "50000")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda folder: (folder / DUMP).write_bytes((folder / DUMP).read_bytes()[:900_000]), DUMP),
        (lambda folder: (folder / "wordnet30.tar.xz").unlink(), "WordNet"),
        (lambda folder: (folder / DUMP).unlink(), "a Wikipedia dump"),
    ],
)
def test_bad_inputs_are_one_line_before_any_work(inputs, tmp_path, change, line):
    folder = copied(inputs, tmp_path)
    change(folder)
    with pytest.raises(UserError, match=line):
        build(folder, tmp_path / "list")
    assert not (tmp_path / "list").exists()


def test_a_dump_of_another_wikipedia_is_refused(inputs, tmp_path):
    with pytest.raises(UserError, match="enwiki"):
        build(inputs, tmp_path / "list", "--wiki", "dewiki")


CHINESE = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" \
xml:lang="zh"><siteinfo><sitename>维基百科</sitename><dbname>zhwiki</dbname>\
<base>https://zh.wikipedia.org/wiki/Wikipedia:%E9%A6%96%E9%A1%B5</base>\
<case>first-letter</case><namespaces><namespace key="0" /></namespaces></siteinfo>
"""
PAGE = """<page><title>北京大学{}</title><ns>0</ns><id>1</id><revision><id>1</id>\
<model>wikitext</model><format>text/x-wiki</format><text bytes="1" xml:space="preserve">\
北京大学是[[中国]]最早的大学之一。清华大学也在北京。{{{{cite|a}}}}</text></revision></page>
"""


def test_words_of_the_chinese_wikipedia_are_those_of_icu_and_match_as_substrings(tmp_path):
    dump = CHINESE + "".join(map(PAGE.format, range(5))) + "</mediawiki>\n"
    (tmp_path / "zhwiki.xml.bz2").write_bytes(bz2.compress(dump.encode()))
    (tmp_path / "pageviews").write_text("zh.wikipedia 北京大学1 12 mobile-web 7 A7\n" * 3)
    sources = "wikipedia_word,wikipedia_bigram,wikipedia_title"
    out = tmp_path / "list"
    command = ["build", str(tmp_path / "zhwiki.xml.bz2"), str(tmp_path / "pageviews")]
    command += ["--out", str(out), "--sources", sources, "--word-count", "5", "--workers", "1"]
    assert main(command) == 0
    known = rows(out)
    assert known["大学"]["count"] == 10  # 清华大学 is one word of the dictionary
    assert "北京大学" in known
    assert "北京大学 1" in known
    matcher = Matcher.build(pa.array(sorted(known)))
    found = matcher.match(pa.array(["我在清华大学读书"])).to_pylist()[0]
    assert "大学" in [sorted(known)[i] for i in found]


def test_a_harvest_takes_the_list_and_notices_another_one(built, tmp_path):
    from pipeline.harvest import main as harvest

    table = tmp_path / "pairs.tsv"
    table.write_text(
        "url\ttext\nhttps://a.example/1.jpg\tA poster on anarchism in Atlas Shrugged\n"
    )
    queries = tmp_path / "queries.parquet"
    queries.write_bytes((built / "queries.parquet").read_bytes())
    command = [str(table), "--queries", str(queries), "--out", str(tmp_path / "out")]
    command += ["--until", "select", "--workers", "1"]
    assert harvest(command) == 0
    kept = pq.read_table(tmp_path / "out" / "candidates" / "000000.parquet")["query_ids"]
    names = pq.read_table(queries)["query"]
    assert {"anarchism", "atlas shrugged"} <= {names[i].as_py() for i in kept[0].as_py()}
    pq.write_table(pq.read_table(queries).slice(1), queries)
    with pytest.raises(UserError, match="another version of the query list"):
        harvest(command)
