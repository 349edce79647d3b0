"""The demo's web crawled: all that its sitemaps list is found, and a harvest reads it."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline import sources
from pipeline.crawl import command
from pipeline.demo import crawling, hosts, routes, server, site
from pipeline.demo.run import crawl_arguments
from pipeline.tally import Tally
from tests.pipeline.crawl_web import files, is_sound, keep_apart, outcomes, records, rows
from tests.pipeline.demo_run import all_pairs
from wit.errors import UserError

CLOSED = ("closed.example", "attic.example", "cellar.example")  # robots.txt or its failure says no
OUTCOMES = {
    "fetched": 58,
    "robots_disallowed": 3,
    "over_depth": 2,
    "duplicate": 1,
    "nofollow": 1,
    "not_found": 1,
    "not_html": 1,
    "off_site": 1,
    "opted_out": 1,
    "redirect": 1,
    "robots_unreachable": 1,
}


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("log") / "access"


@pytest.fixture(scope="module")
def crawled(tmp_path_factory, log) -> Path:
    """The folder of a crawl."""
    out = tmp_path_factory.mktemp("crawl") / "out"
    site.pages()  # made before, so that the server's log tells when requests came
    with server.running_server(log) as port:
        command.main(crawl_arguments(str(out), port))
    return out


@pytest.fixture(scope="module")
def links(crawled) -> pa.Table:
    """What a harvest reads from the crawl's folder."""
    batches, tally = [], Tally()
    for source in sources.expand([str(crawled)]):
        batches += sources.read(source, tally)
    assert tally.fault_total == 0
    return pa.Table.from_batches(batches)


def test_every_url_that_was_met_has_the_outcome_it_must(crawled):
    assert Counter(outcomes(crawled).values()) == OUTCOMES
    assert is_sound(crawled)


def test_every_page_and_picture_of_the_sitemaps_is_found(crawled, links):
    listed = [crawling.listed(host) for host in hosts.HOSTS if host not in CLOSED]
    pages = [page for of_host in listed for page in of_host]
    assert len(pages) == 51
    found = outcomes(crawled)
    assert {found[page] for page in pages} == {"fetched"}
    pictures = {p for of_host in listed for on_page in of_host.values() for p in on_page}
    assert len(pictures) > 1_300
    read = set(links["url"].to_pylist())
    assert {
        p for p in pictures if p not in read and "[" not in p and "2130706433" not in p
    } == set()


def test_some_pages_stand_in_the_sitemap_alone(crawled):
    parents = {row["url"]: row["parent"] for row in rows(crawled)}
    menus = b"".join(page.body for page in site.pages() if "/sale/" not in page.url)
    for number in (6, 7, 8):
        url = f"http://www.outlet.example/sale/{number}/"
        assert parents[url] == "http://www.outlet.example/sitemap.xml"
        assert url.encode() not in menus


def test_a_harvest_reads_the_pairs_that_the_pages_authors_meant(links):
    meant = {
        (url, text, attribute)
        for page in site.pages()
        for url, text, attribute in page.pairs
        if page.url.split("/")[2] not in CLOSED and "[" not in url and "2130706433" not in url
    }
    columns = [links[name].to_pylist() for name in ("url", "text", "attribute")]
    read = {(url, " ".join(text.split()), at) for url, text, at in zip(*columns, strict=True)}
    assert len(meant) > 1_500
    assert meant - read == set()
    assert len(all_pairs()) > len(meant)
    assert pc.min(pc.utf8_length(links["page_url"])).as_py() > 10


def test_nothing_is_asked_that_robots_txt_or_nofollow_keeps_away(crawled, log):
    asked = [line.split("\t")[1:3] for line in log.read_text().splitlines()]
    assert not [path for _, path in asked if path.startswith(("/cart", "/private", "/maze"))]
    for host in CLOSED:
        assert {path for name, path in asked if name == host} == {"/robots.txt"}
    often = Counter(map(tuple, asked))
    again = {path for (_, path), count in often.items() if count > 1}
    assert again <= {"/robots.txt"}  # of the hosts that fail it, asked again once


def test_no_host_is_asked_more_often_than_twenty_times_a_second(crawled, log):
    times: dict[str, list[float]] = {}
    for line in log.read_text().splitlines():
        moment, host, *_ = line.split("\t")
        times.setdefault(host, []).append(float(moment))
    assert len(times) == len(routes.HOSTS)
    for host, moments in times.items():
        assert keep_apart(moments, 1 / 20), host
    assert keep_apart(times["quiet.example"][1:], 0.3)


def test_a_second_crawl_finds_the_same_in_the_same_order(crawled, tmp_path):
    with server.running_server() as port:
        command.main(crawl_arguments(str(tmp_path / "out"), port))
    assert [r[:2] for r in records(tmp_path / "out")] == [r[:2] for r in records(crawled)]
    payloads = [[r[3] for r in records(out)] for out in (crawled, tmp_path / "out")]
    assert payloads[0] == payloads[1]


def test_a_crawls_folder_is_an_input_and_so_are_its_files(crawled):
    by_folder = [source.path for source in sources.expand([str(crawled)])]
    by_glob = [source.path for source in sources.expand([f"{crawled}/warc/*.warc.gz"])]
    assert by_folder == by_glob == [str(path) for path in files(crawled)]
    assert pq.read_table(crawled / "hosts.parquet")["host"].to_pylist()[0] == "http://blog.example"


def test_a_crawl_without_pages_is_no_input(tmp_path):
    (tmp_path / "crawl.json").write_text("{}")
    (tmp_path / "pages.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match="warc"):
        sources.expand([str(tmp_path)])
