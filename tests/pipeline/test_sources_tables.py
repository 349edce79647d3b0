"""Every row of a table is one link with one outcome, or one fault; its number is the row's."""

import csv
import gzip
import io
import json
import random
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import sources
from pipeline.sources import Source, text_tables
from pipeline.tally import Tally
from wit.errors import UserError
from wit.pairs import LINKS


def read(path, format, url_column=None, text_column=None):
    """Returns the links as (row, url, text), and the tally, of which the sums are right."""
    size = path.stat().st_size
    source = Source(str(path), "table", size, format, url_column, text_column)
    tally, told = Tally(), []
    batches = list(sources.read(source, tally, told.append))
    assert all(batch.schema == LINKS and batch.validate(full=True) is None for batch in batches)
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert {(row["page_url"], row["attribute"]) for row in rows} <= {(None, "caption")}
    assert tally.unaccounted == 0
    assert sum(tally.counts.values()) == tally.seen.get("records", 0)
    assert tally.counts.get("extracted", 0) == len(rows)
    assert told == sorted(told)
    assert told[-1] == size or tally.fault_total
    return [(row["record_offset"], row["url"], row["text"]) for row in rows], tally


def write(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def says(path, format, **columns):
    """Returns the one line that a table is refused with."""
    with pytest.raises(UserError) as caught:
        read(path, format, **columns)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def url(i):
    return f"https://example.org/{i}.jpg"


def links(*rows):
    return [(i, url(i), f"text {i}") for i in rows]


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


def as_parquet(rows, path):
    table = pa.table({"url": [u for u, _ in rows], "text": [t for _, t in rows]})
    pq.write_table(table, path, row_group_size=7)


def as_csv(rows, path):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([("url", "text"), *rows])


def as_tsv(rows, path):
    lines = [f"{u or ''}\t{' '.join((t or '').split())}\n" for u, t in [("url", "text"), *rows]]
    path.write_text("".join(lines), encoding="utf-8")


def as_jsonl(rows, path):
    lines = [json.dumps({"url": u, "text": t}) + "\n" for u, t in rows]
    path.write_text("".join(lines), encoding="utf-8")


WRITERS = {"parquet": as_parquet, "csv": as_csv, "tsv": as_tsv, "jsonl": as_jsonl}


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


# --- text as it is found ----------------------------------------------------------------------

ODD = ['a "quoted" text', "two\nlines, or\r\nthree", "comma, and\ttab", '""', "日本語 – ü"]


def test_quotes_commas_and_line_breaks_stand_in_csv_values(tmp_path):
    as_csv([(url(i), text) for i, text in enumerate(ODD)], tmp_path / "a.csv")
    rows, tally = read(tmp_path / "a.csv", "csv")
    assert [text for _, _, text in rows] == [" ".join(text.split()) for text in ODD]
    assert tally.fault_total == 0


def test_values_of_many_lines_go_over_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(text_tables, "BLOCK", 1000)
    rows = [(url(i), "\n".join(f'"{n}", {i}' for n in range(i % 30 + 1))) for i in range(300)]
    as_csv(rows, tmp_path / "a.csv")
    found, tally = read(tmp_path / "a.csv", "csv")
    assert found == [(i, u, " ".join(text.split())) for i, (u, text) in enumerate(rows)]
    assert tally.fault_total == 0


def test_a_quote_in_tsv_is_a_character_like_any_other(tmp_path):
    for texts in (['"open', "plain"], ['5" pipe', '"a" b', '"']):
        path = write(tmp_path, "a.tsv", "".join(f"{text}\t{url(0)}\n" for text in texts))
        assert [text for _, _, text in read(path, "tsv")[0]] == texts


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_the_bytes_looked_at_first_may_end_within_a_character(tmp_path, shift):
    text = "x" * shift + "ア" * 40_000
    path = write(tmp_path, "a.csv", "".join(f"{url(i)},{text}\n" for i in range(10)))
    assert read(path, "csv")[0] == [(i, url(i), text) for i in range(10)]


def test_a_bad_row_that_is_not_utf8_is_a_fault_too(tmp_path):
    data = f"url,text\n{url(0)},text 0\n\xe9,\xe9,\xe9\n{url(2)},text 2\n".encode("latin-1")
    rows, tally = read(write(tmp_path, "a.csv", data), "csv")
    assert rows == links(0, 2)
    assert tally.faults == [(1, "bad_row")]


def test_a_header_may_be_quoted_hold_commas_and_lines_and_stand_after_empty_lines(tmp_path):
    data = f'\r\n\n"a, b","line\nbreak", URL ,"TEXT"\r\n1,2,{url(0)},text 0\r\n'
    assert read(write(tmp_path, "a.csv", data), "csv")[0] == links(0)


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_byte_order_marks_line_ends_and_packing_make_no_difference(
    tmp_path, format, end, mark, packed
):
    WRITERS[format]([(url(i), f"text {i}") for i in range(3)], tmp_path / "plain")
    data = mark + (tmp_path / "plain").read_bytes().replace(b"\r\n", b"\n").replace(
        b"\n", end.encode()
    ).removesuffix(end.encode())
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[packed]
    rows, tally = read(write(tmp_path, f"a.{format}{packed}", pack(data)), format)
    assert rows == links(0, 1, 2)
    assert tally.fault_total == 0


@pytest.mark.parametrize("format", WRITERS)
def test_bytes_that_are_not_utf8_become_replacement_characters(tmp_path, format):
    path = tmp_path / f"a.{format}"
    WRITERS[format]([(url(0), "caf@@ au lait"), (url(1), "text 1")], path)
    if format == "parquet":
        broken = pa.array([b"caf\xff\xfe au lait", b"text 1"]).view(pa.string())
        pq.write_table(pa.table({"url": [url(0), url(1)], "text": broken}), path)
    else:
        path.write_bytes(path.read_bytes().replace(b"@@", b"\xff\xfe"))
    rows, tally = read(path, format)
    assert rows == [(0, url(0), "caf\ufffd\ufffd au lait"), *links(1)]
    assert tally.fault_total == 0


def test_half_a_surrogate_pair_in_json_becomes_a_replacement_character(tmp_path):
    line = f'{{"url": "{url(0)}", "text": "a \\ud800 b", "score": NaN}}\n'
    path = write(tmp_path, "a.jsonl", line + json.dumps({"url": url(1), "text": None}))
    rows, tally = read(path, "jsonl")
    assert rows == [(0, url(0), "a \ufffd b")]
    assert tally.counts["no_text"] == 1


def test_json_rows_may_lack_a_key_or_hold_something_else_than_text(tmp_path):
    rows = [{"url": url(0)}, {"caption": ["a"], "url": url(1)}, {"url": 3, "caption": "text"}]
    rows.append({"caption": "text 3", "url": url(3)})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    found, tally = read(write(tmp_path, "a.jsonl", lines), "jsonl")
    assert found == links(3)
    assert (tally.counts["no_text"], tally.counts["no_url"], tally.fault_total) == (2, 1, 0)


def test_a_line_longer_than_a_block_costs_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(text_tables, "BLOCK", 1000)
    lines = [json.dumps({"url": url(i), "text": f"text {i}"}) for i in range(4)]
    lines[1] = json.dumps({"url": url(1), "text": "x" * 5000})
    rows, tally = read(write(tmp_path, "a.jsonl", "\n".join(lines)), "jsonl")
    assert rows == links(0, 2, 3)
    assert tally.faults == [(1, "bad_row")]


# --- damage -----------------------------------------------------------------------------------


def pack_zstd(data):
    return zstandard.ZstdCompressor(level=1).compress(data)


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("pack", [gzip.compress, pack_zstd])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_of_a_cut_file_the_rows_before_the_cut_are_kept(tmp_path, format, pack, share):
    draw = random.Random(2)
    texts = [f"text {i} {draw.randbytes(20).hex()}" for i in range(8000)]
    WRITERS[format]([(url(i), text) for i, text in enumerate(texts)], tmp_path / "whole")
    data = pack((tmp_path / "whole").read_bytes())
    rows, tally = read(write(tmp_path, "a", data[: int(share * len(data))]), format)
    assert rows == [(i, url(i), texts[i]) for i in range(len(rows))]
    assert share - 0.25 < len(rows) / len(texts) < share + 0.02
    assert tally.fault_counts.pop("cut_compression") == 1
    assert tally.fault_counts.pop("bad_row", 0) <= 1
    assert not tally.fault_counts


@pytest.mark.parametrize("tail", ["", "https", f"{url(1)}", f'{url(1)},"a', f'{url(1)},"a""', '"'])
@pytest.mark.parametrize("tail_end", ["", "\n", ","])
def test_a_row_that_the_cut_goes_through_is_never_handed_out(tmp_path, tail, tail_end):
    whole = f"url,text\n{url(0)},text 0\n{tail}{tail_end}"
    packer = zlib.compressobj(wbits=31)
    cut = packer.compress(whole.encode()) + packer.flush(zlib.Z_SYNC_FLUSH)
    rows, tally = read(write(tmp_path, "a.csv.gz", cut), "csv")
    assert rows == links(0)
    assert tally.fault_counts["cut_compression"] == 1


@pytest.mark.parametrize("pack", [gzip.compress, pack_zstd])
def test_a_damaged_file_is_read_up_to_the_damage(tmp_path, pack):
    draw = random.Random(3)
    lines = [f"{url(i)}\t{draw.randbytes(60).hex()}\n" for i in range(40000)]
    data = bytearray(pack("".join(lines).encode()))
    middle = len(data) // 2
    data[middle : middle + len(data) // 10] = bytes(len(data) // 10)
    rows, tally = read(write(tmp_path, "a.tsv.gz", bytes(data)), "tsv")
    assert [row for row, _, _ in rows] == list(range(len(rows)))
    assert 10000 < len(rows) < 25000
    assert tally.fault_counts["bad_compression"] == 1


def test_an_open_quote_costs_the_rest_of_its_table_once_it_is_longer_than_a_block(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(text_tables, "BLOCK", 1000)
    lines = [f"{url(i)},text {i}\n" for i in range(500)]
    lines[250] = f'{url(250)},"text\n'
    rows, tally = read(write(tmp_path, "a.csv", "".join(lines)), "csv")
    assert rows == links(*range(len(rows)))
    assert 150 < len(rows) <= 250
    assert tally.faults == [(len(rows), "bad_block")]


def test_a_table_of_which_no_row_can_be_read_for_its_open_quote_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text_tables, "BLOCK", 1000)
    data = f'url,text\n{url(0)},"text' + f"\n{url(1)},text" * 500
    assert says(write(tmp_path, "a.csv", data), "csv").startswith("not a readable table (")


def test_a_damaged_row_group_costs_itself_and_the_others_keep_their_numbers(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table(
        {"url": [url(i) for i in range(300)], "text": [f"text {i}" for i in range(300)]}
    )
    pq.write_table(table, path, row_group_size=100, compression="gzip", use_dictionary=False)
    column = pq.read_metadata(path).row_group(1).column(0)
    data = bytearray(path.read_bytes())
    begin = column.data_page_offset + column.total_compressed_size // 2
    data[begin : begin + 50] = b"\xff" * 50
    path.write_bytes(data)
    rows, tally = read(path, "parquet")
    assert rows == links(*range(100), *range(200, 300))
    assert tally.faults == [(100, "bad_block")]


def test_a_disk_that_fails_is_no_fault_of_the_table(tmp_path, monkeypatch):
    as_parquet([(url(i), f"text {i}") for i in range(30)], tmp_path / "a.parquet")
    real = sources.tables.pq.ParquetFile

    class Failing(real):
        def iter_batches(self, *args, **kwargs):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sources.tables.pq, "ParquetFile", Failing)
    with pytest.raises(OSError, match="Input/output"):
        read(tmp_path / "a.parquet", "parquet")


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
