"""Local folders and remote stores alike: whole files or none, and names that stay inside."""

import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.wit import shard_samples as samples
from wit import shards, storage
from wit.errors import StorageError

# --- all stores alike -------------------------------------------------------------------------


def test_what_was_written_is_read_in_every_store(base):
    path = storage.join(base, "a", "b.bin")
    storage.write_bytes(path, b"0123456789")
    assert storage.exists(path)
    assert storage.size(path) == 10
    assert storage.read_bytes(path) == b"0123456789"
    assert storage.read_bytes(path, 2, 5) == b"234"
    assert storage.read_bytes(path, 7) == b"789"
    assert storage.read_bytes(path, 4, 4) == b""
    with storage.open_read(path) as file:
        file.seek(8)
        assert file.read() == b"89"
    storage.write_bytes(path, b"new")
    assert storage.read_bytes(path) == b"new"


def test_absent_files_are_absent_in_every_store(base):
    path = storage.join(base, "nothing")
    assert not storage.exists(path)
    assert storage.size(path) is None
    assert storage.list_names(base) == []
    assert storage.sweep(base) == []
    storage.remove(path)
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(path)


def test_names_are_listed_sorted_and_never_from_a_cache(base):
    for name in ("b", "a", ".hidden", "folder/c"):
        storage.write_bytes(storage.join(base, name), b"x")
    assert storage.list_names(base) == [".hidden", "a", "b", "folder"]
    storage.write_bytes(storage.join(base, "d"), b"x")
    storage.remove(storage.join(base, "a"))
    assert storage.list_names(base) == [".hidden", "b", "d", "folder"]


def test_what_another_process_put_into_a_bucket_is_listed(s3):
    import s3fs

    folder = f"{s3}/{uuid.uuid4().hex}"
    other = s3fs.S3FileSystem(skip_instance_cache=True)
    storage.write_bytes(f"{folder}/a", b"")
    assert storage.list_names(folder) == ["a"]
    other.pipe_file(f"{folder}/b", b"123")
    assert storage.list_names(folder) == ["a", "b"]
    assert storage.size(f"{folder}/b") == 3
    other.pipe_file(f"{folder}/b", b"12345")
    assert storage.size(f"{folder}/b") == 5


def test_the_first_of_two_new_files_stays(base):
    path = storage.join(base, "once")
    assert storage.write_new(path, b"first")
    assert not storage.write_new(path, b"second")
    assert storage.read_bytes(path) == b"first"
    assert storage.list_names(base) == ["once"]


def test_rename_replaces_what_is_there(base):
    old, new = storage.join(base, "old"), storage.join(base, "new")
    storage.write_bytes(old, b"1")
    storage.write_bytes(new, b"2")
    storage.rename(old, new)
    assert storage.list_names(base) == ["new"]
    assert storage.read_bytes(new) == b"1"
    with pytest.raises(FileNotFoundError):
        storage.rename(old, new)
    assert storage.read_bytes(new) == b"1"


def test_a_file_whose_writer_fails_never_appears(base):
    path = storage.join(base, "half")
    storage.write_bytes(storage.join(base, "other"), b"")

    def fail() -> None:
        with storage.open_write(path) as file:
            file.write(b"half a file")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert storage.list_names(base) == ["other"]


def test_a_file_is_not_seen_before_it_is_whole(base):
    path = storage.join(base, "large")
    with storage.open_write(path) as file:
        file.write(b"x" * 100_000)
        file.flush()
        assert not storage.exists(path)
    assert storage.size(path) == 100_000


def test_tables_and_json_come_back(base):
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    path = storage.join(base, "key=value", "t.parquet")
    storage.write_table(path, table)
    assert storage.read_table(path).equals(table)
    assert storage.read_table(path, ["b", "a"]).column_names == ["b", "a"]
    path = storage.join(base, "o.json")
    storage.write_json(path, {"b": 1, "a": "é"})
    assert storage.read_bytes(path) == '{\n "a": "é",\n "b": 1\n}\n'.encode()
    assert storage.read_json(path) == {"a": "é", "b": 1}


def test_left_over_temporary_files_are_swept(base):
    for name in (".a.1f.tmp", "b/.c.2e.tmp", "b/kept", ".also_kept", "kept.tmp"):
        storage.write_bytes(storage.join(base, name), b"")
    swept = storage.sweep(base)
    assert [path.rpartition("/")[2] for path in swept] == [".a.1f.tmp", ".c.2e.tmp"]
    assert storage.list_names(base) == [".also_kept", "b", "kept.tmp"]
    assert storage.list_names(storage.join(base, "b")) == ["kept"]


def test_a_spool_has_no_name(base):
    with storage.spool(base) as spool:
        spool.write(b"abc")
        spool.seek(1)
        assert spool.read() == b"bc"
        assert storage.list_names(base) == []


def test_a_shard_is_committed_once_and_alike_in_every_store(base, tmp_path):
    golden = str(tmp_path / "golden")
    samples.write(golden)
    # Creating is not atomic in fsspec's memory store: there the attempts come one by one.
    with ThreadPoolExecutor(1 if base.startswith("memory") else 3) as pool:
        won = list(pool.map(lambda i: samples.write(base, f"a{i}", samples.shuffled(i)), range(3)))
    assert won.count(True) == 1
    assert storage.list_names(base) == ["00003.parquet", "00003.tar", "00003_stats.json"]
    assert shards.verify(base) == []
    for name in ("00003.parquet", "00003.tar"):
        assert storage.read_bytes(f"{base}/{name}") == storage.read_bytes(f"{golden}/{name}")
    row = storage.read_table(f"{base}/00003.parquet").slice(2, 1).to_pylist()[0]
    assert shards.read_image(base, row) == samples.fetched()[2].image
    stats = storage.read_json(f"{base}/00003_stats.json")
    storage.rename(f"{base}/00003.tar", f"{base}/.00003.{stats['attempt']}.tar")
    assert shards.finish(base, samples.SHARD).state == "rolled_forward"
    assert shards.verify(base) == []


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["/etc/passwd", "..", "a/../../b", "a\\..\\b", "nul\0"])
def test_no_name_leads_out_of_the_folder(part):
    with pytest.raises(ValueError, match="leads out"):
        storage.join("/out", part)


@given(st.lists(st.text("ab./\\", max_size=6), max_size=4))
def test_a_joined_path_stays_inside(parts):
    try:
        path = storage.join("/out/here", *parts)
    except ValueError:
        return
    assert os.path.normpath(path).startswith("/out/here")


def test_an_unknown_store_is_named():
    with pytest.raises(StorageError, match="nostore://x"):
        storage.write_bytes("nostore://x/y", b"")


def test_a_bucket_that_is_not_there_is_named(s3):
    with pytest.raises(StorageError, match="s3://absent/x"):
        storage.write_bytes("s3://absent/x", b"")
    with pytest.raises(StorageError, match="s3://absent/x"):
        storage.write_new("s3://absent/x", b"")


# --- determinism and bad files ----------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@example([777, 29_224, 33_999, 36_003, 50_000])
@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=6))
def test_equal_tables_give_equal_parquet_however_they_are_cut(cuts):
    numbers = np.arange(sum(cuts))
    table = pa.table(
        {
            "n": (numbers * 2654435761) % 2**40,
            "s": pc.binary_join_element_wise(
                pc.cast(pa.array(numbers), pa.string()), "long " * 5, " "
            ),
            "o": pa.array(numbers, mask=numbers % 5 == 0),
        }
    )
    pieces, start = [], 0
    for cut in cuts:
        pieces.append(table.slice(start, cut))
        start += cut
    one, many = pa.BufferOutputStream(), pa.BufferOutputStream()
    storage.write_parquet(table, one)
    storage.write_parquet(pa.concat_tables(pieces), many)
    assert one.getvalue().equals(many.getvalue())


def test_bad_files_are_named_with_what_to_do(tmp_path):
    path = str(tmp_path / "x")
    storage.write_bytes(path, b"PAR1 this is not Parquet PAR1")
    with pytest.raises(StorageError, match=r"x: not a readable Parquet file .*; move it away"):
        storage.read_table(path)
    with pytest.raises(StorageError, match=r"x: not JSON .*; move it away"):
        storage.read_json(path)
    storage.write_bytes(path, b"[1]")
    with pytest.raises(StorageError, match="object was expected, found list"):
        storage.read_json(path)
    storage.write_table(path, pa.table({"a": [1]}))
    with pytest.raises(StorageError, match="x: no column 'url'; it has: a"):
        storage.read_table(path, ["url"])


def test_of_many_writers_at_once_one_is_first(tmp_path):
    path = str(tmp_path / "once")
    barrier = threading.Barrier(16)

    def attempt(i: int) -> bool:
        barrier.wait()
        return storage.write_new(path, f"writer {i} ".encode() * 1000)

    for _ in range(5):
        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(attempt, range(16)))
        assert won.count(True) == 1
        assert storage.read_bytes(path) == f"writer {won.index(True)} ".encode() * 1000
        assert os.listdir(tmp_path) == ["once"]
        storage.remove(path)
