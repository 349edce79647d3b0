"""Members of a shard's tar, beside Python's own writer of tars."""

import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from wit import tar_members

NAMES = st.from_regex(r"[0-9]{5,16}\.[a-z0-9]{1,8}", fullmatch=True)


@given(st.lists(st.tuples(NAMES, st.binary(max_size=2000)), max_size=12))
def test_a_tar_is_byte_for_byte_what_tarfile_writes(files):
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    written = b"".join(tar_members.member(name, data) for name, data in files)
    assert written + tar_members.end(len(written)) == expected.getvalue()


@given(NAMES, st.integers(0, 5000))
def test_the_data_begin_one_block_into_a_member(name, size):
    data = bytes(range(256)) * (size // 256 + 1)
    member = tar_members.member(name, data)
    assert member[tar_members.BLOCK :].startswith(data)
    assert len(member) % tar_members.BLOCK == 0
