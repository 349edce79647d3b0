"""Text tables as they are found: any text in a value, any bytes in a file, any damage."""

import gzip
import json
import random
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pipeline import sources
from pipeline.sources import text_tables
from tests.pipeline.tables import WRITERS, as_csv, as_parquet, links, read, says, url, write

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


PACKERS = {
    "gzip": (gzip.compress, lambda: zlib.decompressobj(31)),
    "zstd": (pack_zstd, lambda: zstandard.ZstdDecompressor().decompressobj()),
}


def rows_in(data, packer, format):
    """How many rows end in what can be unpacked of the start of a packed file."""
    lines = PACKERS[packer][1]().decompress(data).count(b"\n")
    return lines - (format != "jsonl")  # the header's


def packed(tmp_path, format, packer, n):
    """Rows of a table, and the table packed."""
    draw = random.Random(2)
    rows = [(i, url(i), f"text {i} {draw.randbytes(20).hex()}") for i in range(n)]
    WRITERS[format]([row[1:] for row in rows], tmp_path / "whole")
    return rows, PACKERS[packer][0]((tmp_path / "whole").read_bytes())


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_of_a_cut_file_every_row_before_the_cut_is_kept(tmp_path, format, packer, share):
    rows, data = packed(tmp_path, format, packer, 40_000)  # more than one block
    cut = data[: int(share * len(data))]
    found, tally = read(write(tmp_path, "a", cut), format)
    assert found == rows[: rows_in(cut, packer, format)]
    assert len(found) > (share - 0.06) * len(rows)  # zstd unpacks 128 KiB or nothing
    assert tally.fault_counts.pop("cut_compression") == 1
    assert tally.fault_counts.pop("bad_row", 0) <= 1
    assert not tally.fault_counts


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("packer", PACKERS)
def test_of_a_damaged_file_every_row_before_the_damage_is_kept(tmp_path, format, packer):
    rows, data = packed(tmp_path, format, packer, 40_000)
    middle = len(data) // 2
    damaged = data[:middle] + bytes(len(data) // 10) + data[middle + len(data) // 10 :]
    found, tally = read(write(tmp_path, "a", damaged), format)
    sure = rows_in(data[: middle - 16 * 1024], packer, format)  # so much is unpacked at once
    assert found[:sure] == rows[:sure]
    assert sure > 0.4 * len(rows)
    assert len(found) < len(rows)
    assert tally.fault_counts["bad_compression"] == 1


@pytest.mark.parametrize("format", ["csv", "tsv"])
@pytest.mark.parametrize("packer", PACKERS)
def test_a_file_that_is_cut_off_in_its_first_row_is_refused_in_a_few_words(
    tmp_path, format, packer
):
    _, data = packed(tmp_path, format, packer, 40_000)
    cut = write(tmp_path, "a", data[:30])
    assert says(cut, format) == "damaged or cut off in its first row; get it again"


@pytest.mark.parametrize("tail", ["", "https", f"{url(1)}", f'{url(1)},"a', f'{url(1)},"a""', '"'])
@pytest.mark.parametrize("tail_end", ["", "\n", ","])
def test_a_row_that_the_cut_goes_through_is_never_handed_out(tmp_path, tail, tail_end):
    whole = f"url,text\n{url(0)},text 0\n{tail}{tail_end}"
    packer = zlib.compressobj(wbits=31)
    cut = packer.compress(whole.encode()) + packer.flush(zlib.Z_SYNC_FLUSH)
    rows, tally = read(write(tmp_path, "a.csv.gz", cut), "csv")
    assert rows == links(0)
    assert tally.fault_counts["cut_compression"] == 1


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
