"""The dumps made for the benchmark have the words that they are said to have, at Heaps' rate."""

import bz2
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import query_corpus
from benchmarks.__main__ import query_list_rows
from benchmarks.query_growth import made_up, pair_keys
from query_list.counting import WordCounter
from query_list.dump import read_pages, read_site
from query_list.plain_text import plain_text
from query_list.segments import spaced_segments
from tests.script import ROOT


@pytest.fixture(scope="module")
def source(shared_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    return query_corpus.read_source(*query_corpus.raw_pages(query_corpus.real_dump(folder)))


def test_nine_tenths_of_the_words_can_be_exchanged(source):
    tokens = sum(int((article >= 0).sum()) for article in source.articles)
    assert tokens == 465_449
    assert len(source.slots.places) > 0.9 * tokens
    assert len(np.unique(source.slots.places)) == len(source.slots.places)


def test_distinct_words_and_pairs_follow_the_curves_of_heaps_law(source):
    growth = source.grow()
    assert 0.5 < growth.fit.words.exponent < growth.fit.pairs.exponent < 1
    for copy in range(2, 21):
        growth.next()
        assert growth.tokens == copy * growth.length
        assert growth.words == pytest.approx(growth.fit.words.at(growth.tokens), rel=1e-4)
    assert growth.pairs == pytest.approx(growth.fit.pairs.at(growth.tokens), rel=0.02)


def test_made_up_words_differ():
    assert len({made_up(number) for number in range(300_000)}) == 300_000


@pytest.fixture(scope="module")
def corpus(shared_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return folder, query_corpus.write_corpus(folder, [6e6, 12e6], grow=True)


def _counted(paths: list[Path]) -> tuple[WordCounter, list[str]]:
    counter, titles = WordCounter(), []
    for path in map(str, paths):
        names = read_site(path).namespaces
        for batch in read_pages(path, 0, Path(path).stat().st_size):
            titles += batch["title"].to_pylist()
            counter.add(spaced_segments(plain_text(batch["text"], names)))
    return counter, titles


def test_a_build_counts_the_words_that_went_into_the_dumps(corpus):
    folder, said = corpus
    for number, file in enumerate(said["files"]):
        paths = [folder / made["name"] for made in said["files"][: number + 1]]
        counter, titles = _counted(paths)
        counted = counter.finish()
        assert (counted.tokens, len(counted.words)) == (file["tokens"], file["words"])
        pairs = len(np.unique(pair_keys(counted.stream)[1]))
        assert pairs == pytest.approx(file["pairs"], rel=0.05)
        assert len(set(titles)) == len(titles) == 205 * file["copies"]


def test_the_dumps_are_whole_xml_in_streams_of_a_hundred_pages(corpus):
    folder, said = corpus
    for file in said["files"]:
        data, streams = (folder / file["name"]).read_bytes(), []
        assert len(data) == file["bytes"]
        while data:
            unpacker = bz2.BZ2Decompressor()
            streams.append(unpacker.decompress(data))
            data = unpacker.unused_data
        assert sum(map(len, streams)) == file["xml_bytes"]
        assert {len(re.findall(b"<page>", stream)) for stream in streams[1:-1]} == {103}
        assert streams[0].startswith(b"<mediawiki")
        assert streams[-1] == b"</mediawiki>\n"


@pytest.mark.long
def test_the_same_bytes_are_written_by_one_process_as_by_two(corpus, tmp_path):
    folder, said = corpus
    again = query_corpus.write_corpus(tmp_path, [6e6, 12e6], grow=True, processes=1)
    assert again["files"] == said["files"]
    for file in said["files"]:
        assert (tmp_path / file["name"]).read_bytes() == (folder / file["name"]).read_bytes()


@pytest.mark.long
def test_the_benchmark_measures_both_tools_and_the_growth(shared_data, tmp_path):
    command = [sys.executable, "-m", "benchmarks.query_list", "--gigabytes", "0.006", "0.012"]
    command += ["--megabytes", "6", "--rounds", "1", "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    for grown in (result["growth"] for result in results[1:3]):
        counted, said = grown["counted"], grown["dump"]
        assert (counted["tokens"], counted["words"]) == (said["tokens"], said["words"])
        assert {"extract", "words", "bigrams", "pmi"} <= set(grown["stages"])
        assert grown["peak MB"] > 100
    assert len(query_list_rows(results)) == 3
