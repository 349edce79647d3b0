"""Packed blocks give back, slot by slot, what was written."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit import blocks, storage
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


@given(st.lists(st.integers(0, 9), max_size=50))
def test_an_order_writes_what_sorting_before_would(tmp_path_factory, slots):
    folder = tmp_path_factory.mktemp("b")
    slot = np.array(slots, np.int32)
    records = np.zeros(len(slot), RECORD)
    records["key"] = np.arange(len(slot))
    order = np.argsort(slot, kind="stable")
    blocks.write(str(folder / "a"), records, slot, 10, order)
    blocks.write(str(folder / "b"), records[order], slot[order], 10)
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()


@pytest.mark.parametrize(("rows", "slots", "most"), [(20, 10, 1), (99_999, 4096, 2)])
def test_a_slot_is_read_by_two_requests_and_a_small_file_by_one(
    tmp_path, monkeypatch, rows, slots, most
):
    path = str(tmp_path / "x")
    slot = np.sort(np.random.default_rng(1).integers(0, slots, rows))
    blocks.write(path, np.zeros(rows, RECORD), slot, slots)
    asked = []
    read = storage.read_bytes
    monkeypatch.setattr(storage, "read_bytes", lambda *a: asked.append(a) or read(*a))
    assert len(blocks.read(path, slots - 1, slots)) == np.sum(slot == slots - 1)
    assert len(asked) == most


def test_slots_that_do_not_ascend_are_refused(tmp_path):
    with pytest.raises(ValueError, match="ascend"):
        blocks.write(str(tmp_path / "x"), np.zeros(2, RECORD), np.array([1, 0]), 2)
    many = np.append(np.ones(2**18), 0).astype(int)  # the last is in another chunk
    with pytest.raises(ValueError, match="ascend"):
        blocks.write(str(tmp_path / "x"), np.zeros(len(many), RECORD), many, 2)


def test_a_file_of_another_kind_or_cut_short_is_named(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"hello, this is no block file")
    with pytest.raises(StorageError, match="not a packed block file"):
        blocks.read(str(path))
    blocks.write(str(path), np.zeros(9, RECORD), np.zeros(9, int), 1)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StorageError, match="cut short"):
        blocks.read(str(path))
