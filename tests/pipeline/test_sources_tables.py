"""Every row of a table is one link with one outcome, or one fault; its number is the row's."""

import csv
import gzip
import io
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import sources
from pipeline.sources import Source, text_tables
from pipeline.tally import Tally
from tests.pipeline.tables import WRITERS, as_csv, links, read, says, url, write

# --- as published -----------------------------------------------------------------------------


def test_cc3m_gives_all_its_15833_pairs(shared_data):
    path = shared_data / "text/cc3m_val.tsv.gz"
    rows, tally = read(path, "tsv")
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    assert len(rows) == len(lines) == 15833
    assert tally.counts["extracted"] == 15833
    assert tally.fault_total == 0
    assert [row for row, _, _ in rows] == list(range(15833))
    assert [text for _, _, text in rows] == [
        " ".join(line.split("\t")[0].split()) for line in lines
    ]


def test_laion_gives_9999_pairs_and_one_bad_address(shared_data):
    path = shared_data / "text/laion_10000.parquet"
    rows, tally = read(path, "parquet")
    assert {name: n for name, n in tally.counts.items() if n} == {"extracted": 9999, "bad_url": 1}
    there = pq.read_table(path, columns=["URL"])["URL"].to_pylist()
    missing = set(range(10000)) - {row for row, _, _ in rows}
    assert len(missing) == 1
    assert not there[missing.pop()].startswith("http")
    assert all(there[row][:12].lower() == found[:12] for row, found, _ in rows)


def test_cc12m_has_the_address_first_and_no_header(tmp_path):
    path = write(tmp_path, "a.tsv", "".join(f"{url(i)}\ttext {i}\n" for i in range(5)))
    assert read(path, "tsv")[0] == links(*range(5))


def test_cc3m_has_the_text_first_and_no_header(tmp_path):
    path = write(tmp_path, "a.tsv", "".join(f"text {i}\t{url(i)}\n" for i in range(5)))
    assert read(path, "tsv")[0] == links(*range(5))


def test_coyo_has_url_and_text_among_other_columns(tmp_path):
    table = pa.table(
        {
            "id": pa.array([7, 8]),
            "url": [url(0), url(1)],
            "text": ["text 0", "text 1"],
            "width": pa.array([640, 480]),
            "clip_similarity_vitb32": pa.array([0.3, 0.2], pa.float32()),
            "num_faces": pa.array([0, 1]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", "parquet")[0] == links(0, 1)


# --- rows and their numbers -------------------------------------------------------------------

MIXED = [
    (url(0), "text 0"),
    (None, "no address"),
    (url(2), None),
    (url(3), " \u3000 "),
    ("not an address", "text"),
    ("ftp://example.org/a", "text"),
    ("data:image/gif;base64,R0", "text"),
    (url(7) + "#part", "text\n 7"),
    ("https://example.org/" + "a" * 9000, "text"),
]
OUTCOMES = {
    "extracted": 2,
    "no_url": 1,
    "no_text": 2,
    "bad_url": 1,
    "not_http": 1,
    "data_url": 1,
    "url_too_long": 1,
}


@pytest.mark.parametrize("format", WRITERS)
def test_each_row_has_one_outcome_and_keeps_its_number(tmp_path, format):
    path = tmp_path / f"a.{format}"
    WRITERS[format](MIXED, path)
    rows, tally = read(path, format)
    assert rows == links(0, 7)
    assert {name: n for name, n in tally.counts.items() if n} == OUTCOMES
    assert tally.fault_total == 0


@pytest.mark.parametrize("format", WRITERS)
def test_numbers_go_on_over_batches_and_blocks(tmp_path, format, monkeypatch):
    monkeypatch.setattr(text_tables, "BATCH_ROWS", 100)
    monkeypatch.setattr(text_tables, "BLOCK", 5000)
    monkeypatch.setattr(sources.tables, "BATCH_ROWS", 100)
    path = tmp_path / f"a.{format}"
    WRITERS[format]([(url(i), f"text {i}" if i % 3 else "") for i in range(2000)], path)
    assert read(path, format)[0] == links(*(i for i in range(2000) if i % 3))


@pytest.mark.parametrize("format", WRITERS)
def test_progress_is_told_while_it_is_made(tmp_path, format, monkeypatch):
    monkeypatch.setattr(text_tables, "BLOCK", 2**14)
    path = tmp_path / f"a.{format}"
    rows = [(url(i), random.Random(i).randbytes(100).hex()) for i in range(20_000)]
    WRITERS[format](rows[:500] if format == "parquet" else rows, path)
    told = []
    for _ in sources.read(Source(str(path), "table", None, format), Tally(), told.append):
        pass
    assert len(set(told)) > 1
    assert told[-1] == path.stat().st_size


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl"])
def test_bad_rows_are_faults_with_their_numbers_and_the_others_keep_theirs(
    tmp_path, format, monkeypatch
):
    monkeypatch.setattr(text_tables, "BATCH_ROWS", 64)
    monkeypatch.setattr(text_tables, "BLOCK", 1000)
    draw = random.Random(1)
    bad = {i for i in range(2000) if draw.random() < (0.9 if 500 < i < 700 else 0.1)} | {0, 1999}
    mark = {"csv": ",", "tsv": "\t"}.get(format)
    lines = ["\n"]
    for i in range(2000):
        if format == "jsonl":
            good = json.dumps({"url": url(i), "text": f"text {i}"})
            wrong = draw.choice(['{"url": ', "[1, 2]", '"text"', "12", "null", "[" * 5000])
        else:
            good, wrong = f"{url(i)}{mark}text {i}", f"{url(i)}{draw.choice(['', mark + mark])}"
        lines.append((wrong if i in bad else good) + "\n" + draw.choice(["", "", "\n"]))
    if mark:
        lines.insert(1, f"url{mark}text\n")
    rows, tally = read(write(tmp_path, f"a.{format}", "".join(lines)), format)
    assert rows == links(*(i for i in range(2000) if i not in bad))
    assert tally.fault_counts == {"bad_row": len(bad)}
    assert sorted(tally.faults) == [(i, "bad_row") for i in sorted(bad)]


@settings(max_examples=30)
@given(st.lists(st.booleans(), min_size=1), st.integers(1, 9))
def test_numbers_skip_exactly_the_bad_rows(good, n):
    bad = text_tables._BadRows(Tally())
    wanted = [i for i, is_good in enumerate(good) if is_good]
    told, got = 0, []
    for begin in range(0, len(wanted), n):
        last = wanted[min(begin + n, len(wanted)) - 1]
        ahead = min(len(good), last + 1 + n)
        for i in range(told, ahead):
            if not good[i]:
                assert bad.skip(type("Row", (), {"number": i + 1})) == "skip"
        told = max(told, ahead)
        got += bad.take(min(n, len(wanted) - begin)).tolist()
    assert got == wanted


# --- columns ----------------------------------------------------------------------------------


@pytest.mark.parametrize("format", WRITERS)
def test_columns_can_be_named(tmp_path, format):
    rows = [{"src": "no", "text": "no", "bild": url(i), "titel": f"text {i}"} for i in range(3)]
    path = tmp_path / f"a.{format}"
    if format == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif format == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="," if format == "csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    assert read(path, format, "bild", "titel")[0] == links(0, 1, 2)
    said = says(path, format, url_column="Bild")
    assert said.startswith("no column 'Bild'; it has src, text, bild, titel; name them with")


@pytest.mark.parametrize("format", WRITERS)
def test_a_table_without_such_columns_says_which_it_has(tmp_path, format):
    path = tmp_path / f"a.{format}"
    WRITERS[format]([("a", "b")], path)
    if format == "parquet":
        pq.write_table(pa.table({"uri": ["a"], "words": ["b"]}), path)
    else:
        path.write_bytes(path.read_bytes().replace(b"url", b"uri").replace(b"text", b"words"))
    said = says(path, format)
    assert said == (
        "no column of url, image_url, img_url, image, link, src; it has uri, words; name them with "
        "--url-column and --text-column"
    )


def test_without_a_header_columns_go_by_number(tmp_path):
    first = f"{url(9)}\ta much longer other text\ttext 0\t{url(0)}\n"
    path = write(tmp_path, "a.tsv", first + f"x\ty\ttext 1\t{url(1)}\n")
    assert read(path, "tsv", "3", "2")[0] == links(0, 1)
    assert read(path, "tsv", "3")[0][0] == (0, url(0), "a much longer other text")
    assert read(path, "tsv", None, "2")[0] == [(0, url(9), "text 0")]
    assert read(path, "tsv", None, "0")[0] == [(0, url(0), url(9)), (1, url(1), "x")]
    assert "no header; name its columns by number" in says(path, "tsv", url_column="4")
    assert says(path, "tsv", url_column="url").endswith("it has 0, 1, 2, 3")


def test_numbers_say_that_a_first_row_without_an_address_is_no_header(tmp_path):
    path = write(tmp_path, "a.tsv", f"text 0\tn/a\ntext 1\t{url(1)}\n")
    rows, tally = read(path, "tsv", "1", "0")
    assert rows == links(1)
    assert tally.counts["bad_url"] == 1


def test_numbers_that_are_names_are_names(tmp_path):
    path = write(tmp_path, "a.csv", f"1,0\n{url(0)},text 0\n")
    assert read(path, "csv", "1", "0")[0] == links(0)


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = write(tmp_path, "a.csv", f"url,text,text\n{url(0)},a,b\n")
    assert says(path, "csv").startswith("more than one column 'text'; it has url, text, text")


def test_other_columns_may_share_a_name(tmp_path):
    path = write(tmp_path, "a.csv", f"x,url,x,text\n1,{url(0)},2,text 0\n")
    assert read(path, "csv")[0] == links(0)


def test_parquet_columns_may_be_large_binary_or_dictionaries(tmp_path):
    plain = pa.table({"url": [url(0), url(1)], "text": ["text 0", "text 1"]})
    for kind in (pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())):
        table = plain.cast(pa.schema([("url", kind), ("text", kind)]))
        pq.write_table(table, tmp_path / "a.parquet")
        assert read(tmp_path / "a.parquet", "parquet")[0] == links(0, 1)


def test_a_parquet_column_of_pictures_is_no_column_of_addresses(tmp_path):
    table = pa.table({"image": [{"bytes": b"x"}], "text": ["a"]})
    pq.write_table(table, tmp_path / "a.parquet")
    said = says(tmp_path / "a.parquet", "parquet")
    assert said.startswith("column 'image' holds struct<bytes: binary>, not text; it has image, ")


# --- what is no table -------------------------------------------------------------------------


def test_a_table_of_a_header_alone_has_no_rows(tmp_path):
    assert read(write(tmp_path, "a.csv", "url,text\n"), "csv")[0] == []
    pq.write_table(
        pa.table({"url": pa.array([], "string"), "text": pa.array([], "string")}), tmp_path / "b"
    )
    assert read(tmp_path / "b", "parquet")[0] == []


@pytest.mark.parametrize("format", ["csv", "tsv"])
@pytest.mark.parametrize("data", ["\n", "\r\n\n\n", "x" * 100_000, '"' + "x" * 200_000])
def test_a_file_without_a_first_row_is_refused(tmp_path, format, data):
    assert says(write(tmp_path, "a", data), format)


def test_html_is_no_table(tmp_path):
    page = "<!doctype html>\n<title>404</title>\n" + "<p>Not found</p>\n" * 2000
    assert says(write(tmp_path, "a.parquet", page), "parquet").startswith("not a Parquet file (")
    assert says(write(tmp_path, "a.csv", page), "csv").startswith("no column of url, ")
    page += json.dumps({"url": url(0), "text": "a"})
    assert says(write(tmp_path, "a.jsonl", page), "jsonl").startswith("no line of it is a JSON")


def test_utf16_is_refused_with_what_to_do(tmp_path):
    path = write(tmp_path, "a.tsv", f"url\ttext\n{url(0)}\ttext\n".encode("utf-16"))
    assert says(path, "tsv") == "is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 FILE"


def test_a_reader_that_is_left_early_leaves_nothing_running(tmp_path, monkeypatch):
    monkeypatch.setattr(text_tables, "BLOCK", 2000)
    as_csv([(url(i), f"text {i}") for i in range(5000)], tmp_path / "a.csv")
    source = Source(str(tmp_path / "a.csv"), "table", None, "csv")
    for _ in range(50):
        rows = sources.read(source, Tally())
        assert len(next(rows))
        rows.close()


@settings(max_examples=60)
@given(st.binary(max_size=300), st.sampled_from(["csv", "tsv", "jsonl"]))
def test_any_bytes_give_rows_faults_or_one_line(data, format):
    source = Source("memory", "table", None, format)
    start = {"csv": b"url,text\n", "tsv": b"url\ttext\n", "jsonl": b'{"url": "", "text": ""}\n'}
    tally = Tally()
    rows = sum(
        len(rows.raw)
        for rows in text_tables.read_text(
            source, io.BytesIO(start[format] + data), tally, lambda done: None
        )
    )
    assert rows + tally.fault_total <= data.count(b"\n") + data.count(b"\r") + 2
