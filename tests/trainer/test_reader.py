"""Samples read from shards: all of them, in order, whatever is cached; broken ones in place."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.made_shards import (
    HEAD,
    everything,
    open_cache,
    picture,
    write_folder,
    write_shard,
)
from trainer.cache import Cache
from trainer.index import read_index
from trainer.loader import Batch, Loader, State, check_state
from trainer.order import Order
from trainer.reader import Reader, Sample
from trainer.table import read_rows
from wit.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """20 shards of about 60 samples, one of one, one of none."""
    return write_folder(tmp_path_factory.mktemp("near"), [*range(50, 68), 0, 1], size=900)


def take(loader: Loader, batches: int) -> list[Batch]:
    found = [next(loader) for _ in range(batches)]
    loader.close()
    return found


# --- samples ----------------------------------------------------------------------------------


def test_samples_are_those_of_the_shard_and_number_asked_for(tmp_path):
    cache = open_cache(write_folder(tmp_path / "a", [3, 0, 1, 5]), tmp_path / "cache")
    found = Reader(cache).read(np.array([3, 0, 3, 2, 0]), np.array([4, 2, 0, 0, 2]))
    keys = ["000030008", "000000004", "000030000", "000020000", "000000004"]
    assert [sample.key for sample in found] == keys
    for sample in found:
        assert sample.image == picture(sample.key, len(sample.image))
        assert sample.texts == [f"picture {sample.key}"]


def test_shards_that_the_harvest_wrote_are_read(tmp_path):
    samples = pytest.importorskip("tests.wit.shard_samples", reason="the harvest is not installed")
    from wit import shards

    assert samples.write(str(tmp_path / "shards"))
    shards.write_manifest(str(tmp_path), {})
    cache = open_cache(tmp_path, tmp_path / "cache")
    rows = pq.read_table(next((tmp_path / "shards").glob("*.parquet"))).to_pylist()
    rows = [row for row in rows if row["status"] == "success"]
    found = Reader(cache).read(*everything(cache.index))
    assert [(s.key, s.texts) for s in found] == [(r["key"], [r["caption"]]) for r in rows]
    assert all(sample.image.startswith(HEAD[:3]) for sample in found)


def test_a_pair_with_several_texts_has_them_all_but_blank_ones(tmp_path):
    texts = [["one", "two"], [], ["  ", "three", None]]
    entry = write_shard(tmp_path, "00000", 3, texts=texts)
    (tmp_path / "manifest.json").write_text(_manifest([entry]))
    found = Reader(open_cache(tmp_path, tmp_path / "cache")).read(*_of_shard_0(3))
    assert [sample.texts for sample in found] == [["one", "two"], [], ["three"]]
    assert [sample.image is None for sample in found] == [False, True, False]
    assert found[1].fault.endswith("00000.tar: sample 000000002 has no text")


def test_a_tar_that_is_cut_off_breaks_its_samples_and_moves_none(tmp_path):
    folder = write_folder(tmp_path / "a", [6, 6])
    cache = open_cache(folder, tmp_path / "cache")
    whole = Reader(cache).read(*everything(cache.index))
    tar = folder / "shards" / "00000.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    cut = Reader(cache).read(*everything(cache.index))
    broken = [sample for sample in cut if sample.fault]
    assert 0 < len(broken) < 6
    assert all("00000.tar: sample 00000" in sample.fault for sample in broken)
    assert [s.key for s in cut] == [s.key for s in whole]
    assert [s.image for s in cut if not s.fault] == [
        w.image for w, s in zip(whole, cut, strict=True) if not s.fault
    ]
    tar.unlink()
    assert [s.fault is None for s in Reader(cache).read(*everything(cache.index))] == [
        False
    ] * 6 + [True] * 6


def test_a_tar_without_a_member_that_the_table_names_gives_no_other_picture(tmp_path):
    folder = write_folder(tmp_path / "a", [6])
    tar = folder / "shards" / "00000.tar"
    data = bytearray(tar.read_bytes())
    cache = open_cache(folder, tmp_path / "cache")
    offset = cache.table(0)["offset"][2].as_py()
    other = b"000000009.jpg"
    data[offset - 512 : offset - 512 + len(other)] = other
    tar.write_bytes(data)
    found = Reader(cache).read(*everything(cache.index))
    assert [sample.fault is None for sample in found] == [True, True, False, True, True, True]
    assert "sample 000000004 is not where the table says" in found[2].fault


def test_a_table_of_another_run_is_refused(tmp_path):
    folder = write_folder(tmp_path / "a", [4])
    cache = open_cache(folder, tmp_path / "cache")
    write_shard(folder / "shards", "00000", 4, texts=["other"] * 4)
    with pytest.raises(
        UserError, match=r"00000\.parquet: is not the file that .*manifest\.json names"
    ):
        cache.table(0)
    (folder / "shards" / "00000.parquet").unlink()
    with pytest.raises(UserError, match=r"00000\.parquet: missing"):
        cache.table(0)


def test_a_manifest_that_counts_other_samples_than_the_table_is_refused(tmp_path):
    entry = write_shard(tmp_path, "00000", 4)
    (tmp_path / "manifest.json").write_text(_manifest([entry | {"successes": 5}]))
    with pytest.raises(UserError, match=r"00000\.parquet: has 4 samples, the manifest says 5"):
        open_cache(tmp_path, tmp_path / "cache").table(0)


def test_a_key_that_comes_twice_is_named(tmp_path):
    write_shard(tmp_path, "00000", 4)
    table = pq.read_table(tmp_path / "00000.parquet")
    keys = table["key"].to_pylist()
    keys[2] = keys[0]
    pq.write_table(table.set_column(0, "key", [keys]), tmp_path / "00000.parquet")
    path = tmp_path / "00000.parquet"
    with pytest.raises(UserError, match=r"00000\.parquet: key '000000000' comes twice"):
        read_rows(str(path), path.read_bytes(), 4)
    with pytest.raises(UserError, match=r"x\.parquet: not a readable table"):
        read_rows("x.parquet", b"PAR1 but not really", 4)


def _manifest(entries) -> str:
    return json.dumps({"format": 1, "folder": ".", "shards": entries})


def _of_shard_0(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(count, int), np.arange(count)


# --- batches ----------------------------------------------------------------------------------


def test_batches_are_the_orders_whatever_the_threads_and_the_memory(folder, tmp_path):
    cache = open_cache(folder, tmp_path / "cache")
    order = Order(cache.index.samples, 1, 0, lanes=8, window=512)
    wanted = [
        sample.key for step in (2, 3) for sample in Reader(cache).read(*order.batch(step, 256))
    ]
    for threads, memory in ((1, 1), (8, 1), (3, 1 << 30)):
        cache = open_cache(folder, tmp_path / "cache")
        batches = take(Loader(cache, order, 2, 256, 1, threads=threads, memory=memory), 2)
        assert [sample.key for batch in batches for sample in batch.values] == wanted
        assert [batch.step for batch in batches] == [2, 3]
        assert np.concatenate([b.positions for b in batches]).tolist() == [*range(512, 1024)]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_read_the_parts_of_one_global_batch_across_epochs(folder, tmp_path, world):
    index = read_index([str(folder)])
    order = Order(index.samples, 1, 0, lanes=8, window=512)
    last = order.steps(256) - 1
    parts = [
        take(
            Loader(Cache(index, str(tmp_path / "c"), 1 << 30), order, last, 256, 2, lanes=lanes), 2
        )
        for lanes in (order.lanes_of(rank, world) for rank in range(world))
    ]
    reader = Reader(Cache(index, str(tmp_path / "c"), 1 << 30))
    for i, (epoch_order, step) in enumerate([(order, last), (order.after(), 0)]):
        batches = [part[i] for part in parts]
        assert {(batch.epoch, batch.step) for batch in batches} == {(epoch_order.epoch, step)}
        keys = [sample.key for batch in batches for sample in batch.values]
        assert keys == [s.key for s in reader.read(*epoch_order.batch(step, 256))]
        positions = np.concatenate([batch.positions for batch in batches])
        assert positions.tolist() == [*range(step * 256, step * 256 + 256)]


def test_what_the_caller_makes_of_a_sample_knows_its_epoch_and_position(folder, tmp_path):
    def make(epoch: int, position: int, sample: Sample) -> tuple[int, int, str]:
        return epoch, position, sample.key

    cache = open_cache(folder, tmp_path / "cache")
    order = Order(cache.index.samples, 1, 4, lanes=8)
    (batch,) = take(Loader(cache, order, 3, 64, 5, make=make), 1)
    assert [value[:2] for value in batch.values] == [(4, 192 + i) for i in range(64)]


def test_reading_ahead_stops_at_its_memory(folder, tmp_path):
    begun = []

    def make(epoch: int, position: int, sample: Sample) -> int:
        begun.append(position)
        return position

    cache = open_cache(folder, tmp_path / "cache")
    order = Order(cache.index.samples, 1, 0, lanes=8)
    loader = Loader(
        cache, order, 0, 64, 9, make=make, threads=2, memory=64 * 5 * 1000, sample_bytes=1000
    )
    next(loader)
    until = time.monotonic() + 10
    while len(begun) < 64 * 6 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(begun) == 64 * (1 + 5)
    loader.close()


def test_waiting_is_counted(folder, tmp_path):
    release = threading.Event()

    def make(epoch: int, position: int, sample: Sample) -> None:
        release.wait()

    cache = open_cache(folder, tmp_path / "cache")
    loader = Loader(cache, Order(cache.index.samples, 1, 0, lanes=8), 0, 64, 1, make=make)
    threading.Timer(0.3, release.set).start()
    next(loader)
    assert 0.2 < loader.waited < 5
    loader.close()


def test_what_goes_wrong_in_a_thread_reaches_the_caller(tmp_path):
    folder = write_folder(tmp_path / "a", [50, 50])
    cache = open_cache(folder, tmp_path / "cache")
    (folder / "shards" / "00001.parquet").write_bytes(b"")
    loader = Loader(cache, Order(cache.index.samples, 1, 0, lanes=2), 0, 50, 1)
    with pytest.raises(UserError, match=r"00001\.parquet"):
        next(loader)
    loader.close()
    with pytest.raises(UserError, match="100 samples, fewer than one batch of 200"):
        Loader(cache, Order(cache.index.samples, 1, 0, lanes=2), 0, 200, 1)


# --- the state --------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.sampled_from(["index", "seed", "lanes", "window", "batch_size"]), st.integers(0, 3))
def test_a_run_goes_on_in_an_epoch_only_with_the_same_shards_and_order(changed, step):
    saved = State(2, step, "a" * 64, seed=1, lanes=64, window=131072, batch_size=512)
    check_state(saved, saved)
    given = State(**(vars(saved) | {changed: "b" * 64 if changed == "index" else 128}))
    if step == 0:
        check_state(saved, given)
        return
    with pytest.raises(UserError, match="at the start of an epoch"):
        check_state(saved, given)
