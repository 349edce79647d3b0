"""Which shards there are: manifests and indexes, and what is wrong with them."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.made_shards import open_cache, write_folder, write_shard
from trainer.index import check_files, read_index
from trainer.order import Order
from wit import tar_members
from wit.errors import UserError
from wit.shards_index import index_shards


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_folder(tmp_path / "a", [3, 0, 5])


def test_a_harvest_is_read_as_it_is_from_any_of_its_paths(folder):
    index = read_index([str(folder)])
    check_files(index)
    assert index.samples.tolist() == [3, 0, 5]
    assert index.tar(2) == f"{folder}/shards/00002.tar"
    assert index.table(0) == f"{folder}/shards/00000.parquet"
    for path in (f"{folder}/", f"{folder}/shards", f"{folder}/shards/", f"{folder}/manifest.json"):
        assert read_index([path]).sha256 == index.sha256


def test_several_sources_stand_one_after_another(folder, tmp_path):
    other = write_folder(tmp_path / "b", [2])
    index = read_index([str(folder), str(other)])
    check_files(index)
    assert index.samples.tolist() == [3, 0, 5, 2]
    assert index.tar(3) == f"{other}/shards/00000.tar"
    assert index.sha256 != read_index([str(other), str(folder)]).sha256


def test_the_sha256_tells_other_samples_but_not_another_place(folder, tmp_path):
    before = read_index([str(folder)]).sha256
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    assert read_index([str(moved)]).sha256 == before
    manifest = json.loads((moved / "manifest.json").read_text())
    manifest["shards"][0] = write_shard(moved / "shards", "00000", 3, size=901)
    (moved / "manifest.json").write_text(json.dumps(manifest))
    assert read_index([str(moved)]).sha256 != before


def test_others_shards_are_trained_on_after_they_were_indexed(folder, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for tar in (folder / "shards").glob("*.tar"):
        shutil.copy(tar, theirs)
    with pytest.raises(UserError, match=r"run: wit shards index"):
        read_index([str(theirs)])
    index_shards(str(theirs))
    ours, index = (open_cache(path, tmp_path / "cache") for path in (folder, theirs))
    check_files(index.index)
    assert index.index.samples.tolist() == [3, 0, 5]
    for shard in (0, 2):
        assert index.table(shard).equals(ours.table(shard))


def test_a_missing_shard_and_one_of_another_size_are_named(folder):
    index = read_index([str(folder)])
    tar = folder / "shards" / "00002.tar"
    tar.write_bytes(tar.read_bytes()[:-1024])
    with pytest.raises(
        UserError, match=r"00002\.tar: has 19,456 bytes, .*manifest\.json says 20,480"
    ):
        check_files(index)
    tar.unlink()
    with pytest.raises(UserError, match=r"00002\.tar: missing, though .*manifest\.json lists it"):
        check_files(index)


def test_a_folder_without_shards_or_samples_is_named(tmp_path):
    with pytest.raises(UserError, match=r"empty: no shards here"):
        read_index([str(tmp_path / "empty")])
    with pytest.raises(UserError, match=r"absent\.json: no such manifest"):
        read_index([str(tmp_path / "absent.json")])
    with pytest.raises(UserError, match="no folder of shards"):
        read_index([])
    with pytest.raises(UserError, match=r"manifest\.json: no shard has a sample"):
        read_index([str(write_folder(tmp_path / "zero", [0, 0]))])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("successes", -1),
        ("successes", "3"),
        ("successes", True),
        ("tar", {"name": "../00000.tar", "size": 1, "sha256": "0" * 64}),
        ("tar", {"name": "00000.tar", "size": 1, "sha256": "../../x"}),
        ("parquet", None),
        ("tar", {"name": "00002.tar", "size": 1, "sha256": "0" * 64}),
    ],
)
def test_an_entry_that_misstates_something_is_refused(folder, field, value):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][0][field] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json: "):
        read_index([str(folder)])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["format", "shards", "folder", "tar", "name"]), inner)
    ),
    max_leaves=8,
)


@given(value=json_values)
def test_no_json_is_taken_for_a_manifest_of_shards(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "some.json"
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match=r"some\.json"):
        read_index([str(path)])


def test_an_index_of_50_000_shards_is_read_in_seconds_and_ordered_in_100_ms(tmp_path):
    entries = [
        {
            "name": f"{i:05d}",
            "successes": 8000,
            "tar": {"name": f"{i:05d}.tar", "size": 350_000_000, "sha256": f"{i:064x}"},
            "parquet": {"name": f"index/{i:05d}.parquet", "size": 900_000, "sha256": f"{i:064x}"},
        }
        for i in range(50_000)
    ]
    (tmp_path / "index.json").write_text(json.dumps({"format": 1, "shards": entries}))
    began = time.process_time()
    index = read_index([str(tmp_path)])
    read = time.process_time()
    Order(index.samples, 0, 0)
    assert time.process_time() - read < 0.1
    assert read - began < 3
    assert index.samples.sum() == 400_000_000
    assert index.samples.dtype == np.int64


def test_a_harvest_needs_no_index(folder):
    with pytest.raises(UserError, match=r"has a manifest\.json"):
        index_shards(str(folder))


def test_an_index_is_the_same_however_often_it_was_begun(folder, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    shutil.copy(folder / "shards" / "00000.tar", theirs)
    index_shards(str(theirs))
    shutil.copy(folder / "shards" / "00002.tar", theirs)
    index_shards(str(theirs))
    files = {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}
    shutil.rmtree(theirs / "index")
    index_shards(str(theirs))
    assert {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()} == files


def test_a_tar_that_changed_is_read_again(folder, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    shutil.copy(folder / "shards" / "00000.tar", theirs / "x.tar")
    before = index_shards(str(theirs))
    shutil.copy(folder / "shards" / "00002.tar", theirs / "x.tar")
    after = index_shards(str(theirs))
    assert (before["totals"]["successes"], after["totals"]["successes"]) == (3, 5)


def members(*pairs: tuple[str, bytes]) -> bytes:
    data = b"".join(tar_members.member(name, content) for name, content in pairs)
    return data + tar_members.end(len(data))


def test_samples_without_a_picture_or_a_text_are_left_out_and_counted(tmp_path):
    tar = members(
        ("a/0.jpg", b"picture"),
        ("a/0.txt", b"two words"),
        ("a/1.jpg", b"picture"),
        ("a/2.txt", b"a text"),
        ("a/3.jpg", b"picture"),
        ("a/3.txt", b"  "),
        ("a/4.png", b"picture"),
        ("a/4.json", b'{"caption": "from the JSON"}'),
        ("a/5.seg.png", b"no picture of the sample"),
        ("README", b"no sample"),
    )
    (tmp_path / "x.tar").write_bytes(tar)
    index = index_shards(str(tmp_path))
    assert index["totals"]["left_out"] == {"no picture": 2, "no text": 2}
    cache = open_cache(tmp_path, tmp_path / "cache")
    assert cache.table(0)["key"].to_pylist() == ["a/0", "a/4"]
    assert cache.table(0)["texts"].to_pylist() == [["two words"], ["from the JSON"]]


def test_a_sample_keeps_all_the_captions_that_its_json_has(tmp_path):
    several = members(
        ("0.jpg", b"picture"),
        ("0.json", b'{"caption": ["one", "two", " ", null]}'),
        ("1.jpg", b"picture"),
        ("1.json", b'{"captions": ["three", "four", "five"], "caption": "three"}'),
        ("2.jpg", b"picture"),
        ("2.json", b'{"caption": "alone"}'),
        ("3.jpg", b"picture"),
        ("3.json", b'{"captions": ["six", "seven"]}'),
        ("3.txt", b"six"),
        ("4.jpg", b"picture"),
        ("4.txt", b"of the text"),
        ("4.json", b'{"caption": "of the JSON", "captions": "of the JSON"}'),
        ("5.jpg", b"picture"),
        ("5.json", b'{"captions": [" ", 5]}'),
    )
    one = members(("0.jpg", b"picture"), ("0.json", b'{"captions": ["the only one"]}'))
    (tmp_path / "a.tar").write_bytes(several)
    (tmp_path / "b.tar").write_bytes(one)
    assert index_shards(str(tmp_path))["totals"]["left_out"] == {"no text": 1}
    cache = open_cache(tmp_path, tmp_path / "cache")
    assert cache.table(0)["texts"].to_pylist() == [
        ["one", "two"],
        ["three", "four", "five"],
        ["alone"],
        ["six", "seven"],
        ["of the text"],
    ]
    assert cache.table(1)["texts"].to_pylist() == [["the only one"]]
    captions = [pq.read_schema(tmp_path / f"index/{n}.parquet").field("caption").type for n in "ab"]
    assert captions == [pa.list_(pa.string()), pa.string()]


def test_a_tar_that_is_cut_off_is_named_with_its_last_sample(folder, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    whole = (folder / "shards" / "00002.tar").read_bytes()
    for kept in (len(whole) // 2, 512 * 11, 700, 512 * 30 + 100):
        (theirs / "x.tar").write_bytes(whole[:kept])
        with pytest.raises(UserError, match=r"x\.tar: cut off after .* bytes; .*get the tar again"):
            index_shards(str(theirs))


def test_a_key_that_comes_twice_is_named(tmp_path):
    pair = (("7.jpg", b"x"), ("7.txt", b"t"))
    (tmp_path / "x.tar").write_bytes(members(*pair, ("8.jpg", b"x"), ("8.txt", b"t"), *pair))
    with pytest.raises(UserError, match=r"x\.tar: key '7' comes twice"):
        index_shards(str(tmp_path))


def test_the_command_says_how_many_samples_there_are(tmp_path, capsys):
    from wit.cli import main

    (tmp_path / "x.tar").write_bytes(members(("7.jpg", b"x"), ("7.txt", b"t"), ("8.jpg", b"x")))
    assert main(["shards", "index", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: 1 shards, 1 samples; left out 1 with no text\n"
