"""Packed blocks give back, slot by slot, what was written."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit import blocks
from wit.errors import StorageError

RECORD = np.dtype([("key", "<u8"), ("small", "u1")])


@given(st.lists(st.integers(0, 9), max_size=50), st.integers(0, 10), st.integers(0, 10))
def test_a_range_of_slots_holds_its_records_in_order(tmp_path_factory, slots, a, b):
    path = str(tmp_path_factory.mktemp("b") / "x.blocks")
    slot = np.sort(np.array(slots, np.int32))
    records = np.empty(len(slot), RECORD)
    records["key"], records["small"] = np.arange(len(slot)), slot
    blocks.write(path, records, slot, 10)
    first, last = min(a, b), max(a, b)
    found = blocks.read(path, first, last)
    assert found.tolist() == records[(slot >= first) & (slot < last)].tolist()
    assert blocks.read(path).tolist() == records.tolist()


def test_slots_that_do_not_ascend_are_refused(tmp_path):
    with pytest.raises(ValueError, match="ascend"):
        blocks.write(str(tmp_path / "x"), np.zeros(2, RECORD), np.array([1, 0]), 2)


def test_a_file_of_another_kind_or_cut_short_is_named(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"hello, this is no block file")
    with pytest.raises(StorageError, match="not a packed block file"):
        blocks.read(str(path))
    blocks.write(str(path), np.zeros(9, RECORD), np.zeros(9, int), 1)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StorageError, match="cut short"):
        blocks.read(str(path))
