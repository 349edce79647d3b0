"""Shards far away: brought once, kept within a limit, and there at once after a resume."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.made_shards import open_cache, write_folder
from tests.trainer.slow_store import LATENCY, SlowStore, serve
from trainer import store as patience
from trainer.cache import Cache
from trainer.index import check_files, read_index
from trainer.loader import Batch, Loader
from trainer.order import Order
from trainer.reader import Reader, Sample
from wit.errors import UserError


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """48 shards of 60 samples."""
    return write_folder(tmp_path_factory.mktemp("many"), [60] * 48, size=3000)


def take(loader: Loader, batches: int) -> list[Batch]:
    found = [next(loader) for _ in range(batches)]
    loader.close()
    return found


@pytest.fixture(scope="module")
def far(many) -> SlowStore:
    """The folder at s3://far/ours, 50 ms away."""
    pytest.importorskip("s3fs", reason="s3:// needs s3fs")
    pytest.importorskip("moto.server", reason="no moto[server]: s3:// is not tested")
    with serve() as store:
        import s3fs

        s3fs.S3FileSystem().put(str(many), "far/ours", recursive=True)
        yield store
        store.latency = 0


def read_epoch(cache: Cache, order: Order, step: int = 0) -> list[Sample]:
    loader = Loader(cache, order, step, 256, 1)
    batches = list(loader)
    loader.close()
    assert [batch.step for batch in batches] == [*range(step, order.steps(256))]
    return [sample for batch in batches for sample in batch.values]


def test_an_epoch_from_a_store_far_away_reads_hardly_more_than_its_bytes(far, many, tmp_path):
    index = read_index(["s3://far/ours"])
    check_files(index)
    assert index.sha256 == read_index([str(many)]).sha256
    order = Order(index.samples, 1, 0, lanes=2, window=512)
    limit = index.total_bytes * 3 // 5
    far.reset(LATENCY)
    cache = Cache(index, str(tmp_path / "far"), limit)
    found = read_epoch(cache, order)
    assert far.bytes < 1.1 * index.total_bytes
    assert sum(path.stat().st_size for path in (tmp_path / "far").iterdir()) <= limit
    near = Reader(open_cache(many, tmp_path / "near"))
    assert found == [s for k in range(order.steps(256)) for s in near.read(*order.batch(k, 256))]


def test_the_first_batch_after_a_resume_is_there_within_seconds(far, tmp_path):
    index = read_index(["s3://far/ours"])
    order = Order(index.samples, 1, 0, lanes=2, window=512)
    far.reset(LATENCY)
    began = time.perf_counter()
    loader = Loader(Cache(index, str(tmp_path / "c"), 1 << 30), order, 9, 128, 1)
    batch = next(loader)
    assert time.perf_counter() - began < 10
    assert not any(sample.fault for sample in batch.values)
    loader.close()
    assert far.bytes < 1.1 * index.total_bytes


def test_ranks_of_a_node_bring_each_shard_once(far, tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.reader.RANGED_SHARE", 0)
    index = read_index(["s3://far/ours"])
    far.reset(0)
    order = Order(index.samples, 1, 0, lanes=4)  # one window: every rank reads every shard
    caches = [Cache(index, str(tmp_path / "c"), 1 << 30) for _ in range(2)]
    loaders = [
        Loader(cache, order, 0, 256, 1, lanes=order.lanes_of(rank, 2), node_lanes=range(4))
        for rank, cache in enumerate(caches)
    ]
    threads = [threading.Thread(target=take, args=(loader, 5)) for loader in loaders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(far.whole.values()) == {1}
    assert {name for name in far.whole if name.endswith(".tar")}


def test_a_cache_without_room_reads_ranges_and_stays_within_its_limit(far, tmp_path):
    index = read_index(["s3://far/ours"])
    far.reset(0)
    order = Order(index.samples, 1, 0, lanes=4)
    limit = int(index.table_bytes.sum()) + 5 * int(index.tar_bytes[0])
    cache = Cache(index, str(tmp_path / "c"), limit)
    batches = take(Loader(cache, order, 0, 64, 1, threads=2, memory=1), 1)
    assert not any(sample.fault for batch in batches for sample in batch.values)
    assert sum(path.stat().st_size for path in (tmp_path / "c").iterdir()) <= limit


def test_room_is_made_by_what_is_needed_last(far, tmp_path):
    index = read_index(["s3://far/ours"])
    far.reset(0)
    size = int(index.tar_bytes[0])
    cache = Cache(index, str(tmp_path / "c"), 3 * size + 100)
    cache.needed = np.arange(48) * 10
    cache.needed[7] = 5
    for shard in (7, 40, 30):
        assert cache.fetch(shard)
    assert cache.fetch(20)
    assert [cache.tar(shard) is not None for shard in (7, 40, 30, 20)] == [True, False, True, True]
    assert cache.fetch(45) is None  # everything here is needed before
    assert [cache.tar(shard) is not None for shard in (7, 30, 20)] == [True] * 3


def test_ranges_are_read_up_to_a_twentieth_of_an_epoch_then_shards_are_brought(far, tmp_path):
    index = read_index(["s3://far/ours"])
    far.reset(0)
    reader = Reader(Cache(index, str(tmp_path / "c"), 1 << 30))
    for shard in range(8):
        found = reader.read(np.full(60, shard), np.arange(60))
        assert not any(sample.fault for sample in found)
    assert 0 < reader.ranged < index.total_bytes / 20
    assert reader.cache.tar(0) is None  # as the first of all it was read by ranges
    assert reader.cache.tar(7) is not None


def test_a_store_that_fails_for_a_moment_is_asked_again(far, tmp_path, monkeypatch):
    monkeypatch.setattr(patience, "TRIES", (0.0, 0.0, 0.0))
    index = read_index(["s3://far/ours"])
    far.reset(0)
    far.fail = 3
    found = Reader(Cache(index, str(tmp_path / "c"), 1 << 30), 0).read(np.array([1]), np.array([3]))
    assert [(sample.key, sample.fault) for sample in found] == [("000010006", None)]


def test_a_read_is_repeated_a_few_times_then_the_file_is_named(monkeypatch):
    monkeypatch.setattr(patience, "TRIES", (0.0, 0.0, 0.0))
    asked = []

    def read(failures: int, error: Exception) -> int:
        asked.append(error)
        if len(asked) <= failures:
            raise error
        return 7

    assert patience.patiently("s3://b/x.tar", lambda: read(3, OSError("out of sorts"))) == 7
    asked.clear()
    with pytest.raises(
        UserError, match=r"s3://b/x\.tar: cannot be read after 4 tries \(out of sorts"
    ):
        patience.patiently("s3://b/x.tar", lambda: read(9, OSError("out of sorts")))
    asked.clear()
    with pytest.raises(FileNotFoundError):
        patience.patiently("s3://b/x.tar", lambda: read(9, FileNotFoundError("x")))
    asked.clear()
    with pytest.raises(UserError, match="permission denied"):
        patience.patiently("s3://b/x.tar", lambda: read(9, PermissionError(13, "no")))
    assert len(asked) == 1


def test_what_a_killed_process_left_in_the_cache_is_removed(tmp_path):
    folder = write_folder(tmp_path / "a", [2])
    (tmp_path / "c").mkdir()
    left = tmp_path / "c" / f".{'0' * 32}.tar.tmp"
    left.write_bytes(b"x")
    open_cache(folder, tmp_path / "c")
    assert not left.exists()


def test_a_table_that_a_crash_left_empty_is_made_again(tmp_path):
    folder = write_folder(tmp_path / "a", [2])
    wanted = open_cache(folder, tmp_path / "c").table(0).to_pydict()
    for path in (tmp_path / "c").glob("*.arrow"):
        path.write_bytes(bytes(path.stat().st_size))
    assert open_cache(folder, tmp_path / "c").table(0).to_pydict() == wanted


def test_a_damaged_copy_in_the_store_breaks_samples_and_nothing_else(far, many, tmp_path):
    import s3fs

    s3 = s3fs.S3FileSystem()
    tar = (many / "shards" / "00003.tar").read_bytes()
    index = read_index(["s3://far/ours"])
    far.reset(0)
    try:
        s3.pipe_file("far/ours/shards/00003.tar", tar[: len(tar) // 2])
        s3.rm_file("far/ours/shards/00004.tar")
        for share in (0, 1000):  # brought, or read by ranges
            reader = Reader(Cache(index, str(tmp_path / f"c{share}"), 1 << 30), share)
            shards = np.repeat([2, 3, 4], 60)
            found = reader.read(shards, np.tile(np.arange(60), 3))
            assert [s.fault is None for s in found[:60]] == [True] * 60
            assert {s.fault.partition(" cannot")[2] for s in found[60:120] if s.fault} == {
                " be read: the tar is cut off"
            }
            assert 20 < sum(s.fault is None for s in found[60:120]) < 40
            assert all("00004.tar" in s.fault and "missing" in s.fault for s in found[120:])
    finally:
        s3.pipe_file("far/ours/shards/00003.tar", tar)
        s3.put_file(str(many / "shards" / "00004.tar"), "far/ours/shards/00004.tar")
