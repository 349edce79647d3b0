"""Tars as they are found, read as `tarfile` reads them."""

import hashlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit.tar_reader import BrokenTar, TarReader

names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)
paths = st.lists(names, min_size=1, max_size=40).map("/".join).filter(lambda p: p.strip("./"))
files = st.lists(st.tuples(paths, st.binary(max_size=1500), st.floats(0, 1e9)), max_size=5)


def make(found: list[tuple[str, bytes, float]], format_: int) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=format_) as tar:
        for name, content, when in found:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), when
            tar.addfile(info, io.BytesIO(content))
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "x" * 300
        tar.addfile(link)
    return data.getvalue()


def read(data: bytes) -> list[tuple[str, int, bytes]]:
    reader = TarReader(io.BytesIO(data))
    found = [(name, reader.size, reader.read_exactly(size)) for name, size in reader.members()]
    reader.skip_to_end()
    assert (reader.size, reader.sha256.digest()) == (len(data), hashlib.sha256(data).digest())
    return found


@given(files, st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_members_are_those_that_tarfile_finds(found, format_):
    data = make(found, format_)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        wanted = [
            (info.name, info.offset_data, tar.extractfile(info).read())
            for info in tar
            if info.isreg()
        ]
    assert read(data) == wanted


@given(files, st.data())
def test_a_tar_that_is_cut_anywhere_is_not_taken_for_a_whole_one(found, data):
    whole = make(found, tarfile.PAX_FORMAT)
    end = -(-len(whole.rstrip(b"\0")) // 512) * 512 + 1024
    with pytest.raises(BrokenTar):
        read(whole[: data.draw(st.integers(0, end - 1) | st.integers(end - 1024, end - 1))])
    read(whole[:end])


@given(st.binary(max_size=3000))
def test_other_bytes_are_no_tar(data):
    with pytest.raises(BrokenTar):
        read(data)


@given(files, st.data())
def test_damaged_bytes_never_give_anything_but_members_or_a_broken_tar(found, data):
    whole = bytearray(make(found, tarfile.PAX_FORMAT))
    for _ in range(3):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    reader = TarReader(io.BytesIO(bytes(whole)))
    try:
        for _, size in reader.members():
            reader.read_exactly(min(size, 10))
    except BrokenTar:
        pass
