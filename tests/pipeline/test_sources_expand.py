"""What a person names becomes a sorted list of files, each once, or a line that says what to do."""

import gzip
import json
import os
import random

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pipeline.sources import Source, expand
from wit.errors import UserError

WARC = b"WARC/1.0\r\nWARC-Type: warcinfo\r\nContent-Length: 0\r\n\r\n\r\n\r\n"
PAGE = (
    b"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http; msgtype=response\r\n"
    b"Content-Length: 19\r\n\r\nHTTP/1.1 200 OK\r\n\r\n\r\n\r\n"
)
TABLE = b"url,text\nhttps://example.org/a.jpg,a\n"


def warc(name: str, content: bytes = WARC) -> bytes:
    """What a file of this name holds."""
    packers = {"gz": gzip.compress, "zst": zstandard.compress}
    return packers.get(name.lower().rpartition(".")[2], bytes)(content)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with four crawl files and a table, and files of no interest."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/deep").mkdir(parents=True)
    for name in ("b.warc.gz", "a.warc", "c.wat.gz", "deep/d.arc"):
        (tmp_path / "data" / name).write_bytes(warc(name))
    (tmp_path / "data/e.csv").write_bytes(TABLE)
    for name in ("README.md", "._b.warc.gz", ".hidden/f.warc", "deep/.g.warc.x.tmp"):
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / name).write_bytes(warc(name))
    return tmp_path / "data"


@pytest.fixture
def bucket():
    """A remote store that holds the same."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    for name in ("b.warc.gz", "a.warc", "deep/d.arc", "deep/.hidden/f.warc", "README.md"):
        fs.pipe_file(f"/bucket/{name}", warc(name))
    yield "memory://bucket"
    fs.store.clear()


def names(inputs, **options):
    return [os.path.relpath(source.path) for source in expand(inputs, **options)]


def says(*inputs, **options):
    with pytest.raises(UserError) as caught:
        expand(list(inputs), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


IN_FOLDER = ["data/a.warc", "data/b.warc.gz", "data/c.wat.gz", "data/deep/d.arc", "data/e.csv"]


# --- names ------------------------------------------------------------------------------------


def test_a_file_has_its_absolute_path_its_kind_and_its_size(folder):
    assert expand(["data/e.csv"], url_column="url", text_column="text") == [
        Source(str(folder / "e.csv"), "table", len(TABLE), "csv", "url", "text")
    ]
    assert expand(["data/c.wat.gz"], url_column="url") == [
        Source(str(folder / "c.wat.gz"), "wat", len(warc("c.wat.gz")))
    ]


def test_a_folder_stands_for_its_files_of_known_kinds_that_are_not_hidden(folder):
    assert names(["data"]) == names(["data/"]) == names([f"file://{folder}"]) == IN_FOLDER


def test_a_glob_stands_for_the_files_that_match(folder):
    (folder / "z.warc").mkdir()
    assert names(["data/[ab].*"]) == ["data/a.warc", "data/b.warc.gz"]
    assert names(["data/*.wa*"]) == ["data/a.warc", "data/b.warc.gz", "data/c.wat.gz"]
    assert names(["data/**/?.arc"]) == ["data/deep/d.arc"]
    assert names(["data/.h*/*"], url_column="u") == ["data/.hidden/f.warc"]
    assert names([f"file://{folder}/*.csv"]) == ["data/e.csv"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(folder):
    (folder / "x[1]?.warc").write_bytes(WARC)
    assert names(["data/x[1]?.warc"]) == ["data/x[1]?.warc"]


@pytest.mark.parametrize("name", ["list.paths", "list.txt", "@list", "list.paths.gz", "@list.zst"])
def test_a_list_has_a_path_a_line(folder, name):
    text = f"\ufeffdata/b.warc.gz\r\n\r\n  {folder}/a.warc  \nfile://{folder}/e.csv".encode()
    pack = gzip.compress if name.endswith(".gz") else zstandard.compress
    text = pack(text) if name.endswith(("gz", "zst")) else text
    (folder.parent / name.removeprefix("@")).write_bytes(text)
    assert names([name]) == ["data/a.warc", "data/b.warc.gz", "data/e.csv"]


def test_lines_of_common_crawls_own_lists_stand_below_its_address(folder):
    lines = [f"crawl-data/CC-MAIN-2024-22/segments/1/wat/{i}.warc.wat.gz" for i in range(200)]
    (folder.parent / "wat.paths.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    found = expand(["wat.paths.gz"])
    assert {source.kind for source in found} == {"wat"}
    assert found[0].path == "https://data.commoncrawl.org/" + lines[0]
    assert expand(["wat.paths.gz"], common_crawl="s3")[0].path == "s3://commoncrawl/" + lines[0]


def test_a_copy_of_a_crawl_on_the_disk_is_read_from_there(folder):
    path = folder.parent / "crawl-data/CC-MAIN-2024-22/1.warc.wat.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(warc(path.name))
    (folder.parent / "wat.paths").write_text("crawl-data/CC-MAIN-2024-22/1.warc.wat.gz\n")
    assert [source.path for source in expand(["wat.paths"])] == [str(path)]


def test_each_file_comes_once_and_the_order_of_the_inputs_makes_no_difference(folder):
    (folder.parent / "list").write_text("data/a.warc\n./data/../data/a.warc\n")
    inputs = ["data", "data/a.warc", "data/*.warc*", "@list", str(folder / "b.warc.gz")]
    inputs += [f"file://{folder}/a.warc", "data//deep/./d.arc"]
    for seed in range(5):
        random.Random(seed).shuffle(inputs)
        assert names(inputs) == IN_FOLDER


def test_sources_survive_json(folder):
    for source in expand(["data"]):
        assert Source.from_json(json.loads(json.dumps(source.to_json()))) == source


# --- kinds ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "format"),
    [
        ("a.warc", "warc", None),
        ("a.warc.zst", "warc", None),
        ("A.WARC.GZ", "warc", None),
        ("a.warc.wat.gz", "wat", None),
        ("a.arc.gz", "arc", None),
        ("a.tsv.gz", "table", "tsv"),
        ("a.csv.zst", "table", "csv"),
        ("A.CSV", "table", "csv"),
        ("a.ndjson", "table", "jsonl"),
        ("a.jsonl.gz", "table", "jsonl"),
    ],
)
def test_the_kind_is_in_the_name(tmp_path, name, kind, format):
    data = {"tsv": TABLE.replace(b",", b"\t"), "jsonl": b'{"url": "", "text": ""}\n'}
    (tmp_path / name).write_bytes(data.get(format, TABLE if kind == "table" else warc(name)))
    (source,) = expand([str(tmp_path / name)])
    assert (source.kind, source.format) == (kind, format)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
@pytest.mark.parametrize(
    ("start", "kind", "format"),
    [
        (WARC, "warc", None),
        (b"\r\n" + WARC, "warc", None),
        (b"filedesc://a.arc 0.0.0.0 20080430204825 text/plain 76\n1 1 IA\n", "arc", None),
        (b'{"url": "https://example.org/a.jpg", "text": "a"}\n', "table", "jsonl"),
    ],
)
def test_without_an_ending_the_content_says_the_kind(tmp_path, pack, start, kind, format):
    (tmp_path / "file").write_bytes(pack(start + random.Random(0).randbytes(200_000)))
    (source,) = expand([str(tmp_path / "file")])
    assert (source.kind, source.format) == (kind, format)


def test_parquet_without_an_ending_is_known(tmp_path):
    pq.write_table(pa.table({"url": ["a"], "text": ["b"]}), tmp_path / "part-0")
    assert expand([str(tmp_path / "part-0")])[0].format == "parquet"


def test_real_files_without_their_names_are_known(shared_data, tmp_path):
    for name, kind in [
        ("warc/real_pages.warc.gz", "warc"),
        ("warc/real_pages.warc.wat.gz", "warc"),
        ("text/laion_10000.parquet", "table"),
    ]:
        (tmp_path / "file").unlink(missing_ok=True)
        (tmp_path / "file").symlink_to(shared_data / name)
        assert expand([str(tmp_path / "file")])[0].kind == kind


# --- remote -----------------------------------------------------------------------------------


def test_remote_files_globs_folders_and_lists_work_as_local_ones(bucket):
    a, b, d = f"{bucket}/a.warc", f"{bucket}/b.warc.gz", f"{bucket}/deep/d.arc"

    def paths(name):
        return [source.path.replace("memory:///", "memory://") for source in expand([name])]

    assert expand([a]) == [Source(a, "warc", len(WARC))]
    assert paths(f"{bucket}/*.warc*") == [a, b]
    assert paths(bucket) == paths(f"{bucket}/") == [a, b, d]
    fsspec.filesystem("memory").pipe_file("/bucket/list", f"{b}\n{d}\n".encode())
    assert paths(f"@{bucket}/list") == [b, d]


def test_a_remote_file_without_an_ending_is_looked_into(bucket):
    fsspec.filesystem("memory").pipe_file("/bucket/file", gzip.compress(WARC))
    assert expand([f"{bucket}/file"])[0].kind == "warc"


def test_a_remote_file_that_is_missing_is_said_at_once(bucket):
    assert says(f"{bucket}/x.warc.gz") == f"{bucket}/x.warc.gz: no such file; check the path"
    assert says(f"{bucket}/x/*.gz").startswith(f"{bucket}/x/*.gz: no file matches; ")
    assert "no such file" in says(f"{bucket}/x")
    assert says("nowhere://a/*.gz").startswith("nowhere://a/*.gz: ")


def test_of_very_many_remote_files_the_sizes_are_not_asked_for(bucket, tmp_path):
    lines = [f"{bucket}/{i}.warc.gz" for i in range(101)]
    (tmp_path / "list").write_text("\n".join(lines))
    assert expand([f"@{tmp_path}/list"]) == [Source(path, "warc") for path in sorted(lines)]


# --- mistakes ---------------------------------------------------------------------------------


def test_what_is_missing_is_said_in_one_line(folder):
    assert says("data/x.warc") == f"{folder}/x.warc: no such file; check the path"
    assert says("data/*.zip").startswith("data/*.zip: no file matches; ")
    assert says("@data/list").startswith("data/list: no such file; ")
    (folder.parent / "list").write_text("data/a.warc\ndata/gone.warc\n")
    assert says("@list") == f"{folder}/gone.warc: no such file; check the path"


def test_what_is_empty_is_said_in_one_line(folder):
    for name in ("empty.warc", "empty.paths", "none.paths.gz"):
        (folder / name).write_bytes(b"" if "empty" in name else gzip.compress(b"\n\n"))
    (folder / "nothing").mkdir()
    assert says("data/empty.warc").startswith(f"{folder}/empty.warc: empty file; ")
    assert says("data/empty.paths").startswith("data/empty.paths: is empty; ")
    assert says("data/none.paths.gz").startswith("data/none.paths.gz: empty; ")
    assert says("data/nothing").startswith("data/nothing: no file of a known kind in this folder; ")
    assert says("").startswith("'' names no file; ")
    assert says("@").startswith("'@' names no file; ")


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("data", [b"<!doctype html>", b"PK\x03\x04", b"\x00" * 100, b"", b"WARC"])
def test_what_is_of_no_known_kind_is_said_in_one_line(tmp_path, pack, data):
    path = tmp_path / "file"
    path.write_bytes(pack(data) or b"\n")
    assert says(str(path)).startswith(f"{path}: of no known kind; WARC, WAT, ARC (plain, ")


@pytest.mark.parametrize(
    "data", [b"\x1f\x8b\x08\x00", gzip.compress(b"a.warc\n" * 99)[:-9], b"\xff"]
)
def test_a_damaged_list_is_said_in_one_line(tmp_path, data):
    path = tmp_path / "a.paths.gz"
    path.write_bytes(data)
    assert says(str(path)).startswith(f"{path}: ")


def test_a_table_without_the_columns_is_said_before_anything_starts(folder):
    said = says("data", url_column="address")
    assert said.startswith(f"{folder}/e.csv: no column 'address'; it has url, text; ")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.warc.gz", b"<!DOCTYPE html><html>404</html>", "it is an HTML or XML page"),
        ("a.warc.gz", random.Random(0).randbytes(5000), "no WARC or ARC record in it"),
        ("a.warc.gz", gzip.compress(b"nothing"), "no WARC or ARC record in it"),
        ("a.warc.gz", gzip.compress(b"WARC/1.0 " * 9000)[:90], "no WARC or ARC record in it"),
        ("a.arc", b"PAR1" + bytes(100), "it is a Parquet table; name it .parquet"),
        ("a.wat.gz", gzip.compress(WARC) + gzip.compress(PAGE), "named as a WAT file, but it"),
    ],
)
def test_a_crawl_file_that_is_none_is_said_before_anything_starts(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    said = says(str(tmp_path / name))
    assert said.startswith(f"{tmp_path / name}: ")
    assert words in said


def test_of_several_bad_files_the_first_is_named_and_the_others_counted(folder):
    for name in ("b.warc.gz", "e.csv", "deep/d.arc"):
        (folder / name).write_bytes(b"<!DOCTYPE html>")
    said = says("data", "data/gone.warc")
    assert said.startswith(f"{folder}/b.warc.gz: no WARC or ARC record in it: it is an HTML")
    assert said.endswith(" (and 3 more bad files of 6)")


def test_a_file_with_junk_before_its_first_record_is_read_all_the_same(tmp_path):
    (tmp_path / "a.warc").write_bytes(b"junk\n" * 20_000 + WARC)
    (tmp_path / "b.warc.gz").write_bytes(WARC)  # not packed, but nothing is wrong with it else
    assert names([str(tmp_path / "a.warc"), str(tmp_path / "b.warc.gz")])


def test_real_crawl_files_pass_as_they_are(shared_data):
    files = sorted((shared_data / "warc").glob("*.gz"))
    crawls = [str(f) for f in files if ".warc" in f.name]
    assert len(expand(crawls)) == len(crawls) >= 2


def test_a_folder_that_may_not_be_read_is_said_in_one_line(folder, monkeypatch):
    real = os.scandir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert says("data") == f"{folder}/deep: cannot be read (Permission denied); check its rights"
