import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.wit import shard_samples as samples
from wit import lock, shards, storage
from wit.errors import FolderInUse, NotAllowed, StorageError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def s3():
    """A bucket on an S3 server of our own that stops with the tests."""
    pytest.importorskip("s3fs", reason="s3:// needs s3fs")
    server_module = pytest.importorskip("moto.server", reason="no moto[server]: s3:// not tested")
    import s3fs

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    saved = dict(os.environ)
    os.environ.update(
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_ENDPOINT_URL=f"http://{host}:{port}",
    )
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    yield "s3://bucket"
    s3fs.S3FileSystem.clear_instance_cache()
    os.environ.clear()
    os.environ.update(saved)
    server.stop()


@pytest.fixture(params=["local", "file", "memory", "s3"])
def base(request, tmp_path):
    """An empty folder in each kind of store."""
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex}"
    return {
        "local": str(tmp_path / "out"),
        "file": f"file://{tmp_path}/out",
        "memory": f"memory://{uuid.uuid4().hex}/out",
    }[request.param]


def script(code: str, *arguments: str, wrap: tuple[str, ...] = ()) -> subprocess.Popen:
    """A Python process in the repository's root."""
    command = [*wrap, sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


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


# --- what the system refuses ------------------------------------------------------------------

FULL = """
import sys
import pyarrow as pa
from wit import storage
from wit.errors import DiskFull
folder = sys.argv[1]
table = pa.table({"n": pa.array(range(100_000), pa.int64())})
for name, write in {
    "write_bytes": lambda p: storage.write_bytes(p, b"x" * 1_000_000),
    "write_new": lambda p: storage.write_new(p, b"x" * 1_000_000),
    "write_table": lambda p: storage.write_table(p, table),
}.items():
    try:
        write(f"{folder}/{name}")
    except DiskFull as error:
        print(error)
print(storage.list_names(folder))
storage.write_bytes(f"{folder}/small", b"still works")
print(storage.list_names(folder))
"""


def on_small_disk(folder: Path, size: str) -> tuple[str, ...]:
    """A command that runs another one with a small file system mounted on the folder."""
    mount = f'mount -t tmpfs -o size={size} tmpfs "{folder}" && exec "$@"'
    wrap = ("unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh")
    try:
        subprocess.run([*wrap, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount a small tmpfs in a namespace of its own")
    return wrap


def test_a_full_disk_is_a_clear_message_and_leaves_nothing(tmp_path):
    wrap = on_small_disk(tmp_path, "64k")
    output = script(FULL, str(tmp_path), wrap=wrap).communicate(timeout=60)[0].splitlines()
    assert len(output) == 5, output
    for name, line in zip(("write_bytes", "write_new", "write_table"), output, strict=False):
        assert line.startswith(f"{tmp_path}/{name}: cannot write: No space left on device")
        assert "free space there, then run the same command again to resume" in line
    assert output[3:] == ["[]", "['small']"]


FULL_SHARD = """
import os, sys
from tests.wit import shard_samples as samples
from wit.errors import DiskFull
folder, blocks, full = sys.argv[1], 120, 0

def clear(names):
    for name in names:
        os.unlink(f"{folder}/{name}")

assert samples.write(folder)
golden = samples.products(folder)
for free in range(66):
    clear(os.listdir(folder))
    fillers = [f"filler{i}" for i in range(blocks - free)]
    for name in fillers:
        with open(f"{folder}/{name}", "wb") as file:
            file.write(b"x" * 4096)
    try:
        won = samples.write(folder)
    except DiskFull as error:
        won, full, said = False, full + 1, str(error)
    clear(fillers)
    assert won or os.listdir(folder) == [], os.listdir(folder)
    assert won or samples.write(folder)
    assert samples.products(folder) == golden
assert won
print(full, said)
"""


def test_a_shard_on_a_disk_that_fills_up_anywhere_is_made_when_there_is_space(tmp_path):
    """Full at once, while images are spooled, in the tar, in the Parquet or the stats file."""
    process = script(FULL_SHARD, str(tmp_path), wrap=on_small_disk(tmp_path, "480k"))
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert 50 < int(output.split()[0]) < 65
    assert "No space left on device; free space there, then run the same" in output


DENIED = """
import os, sys
from wit import storage
from wit.errors import NotAllowed
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
for act in (
    lambda: storage.write_bytes(sys.argv[1] + "/x", b""),
    lambda: storage.write_new(sys.argv[1] + "/x", b""),
    lambda: storage.FolderLock(sys.argv[1]).__enter__(),
):
    try:
        act()
    except NotAllowed as error:
        print(error)
"""


def test_missing_rights_are_a_clear_message():
    # Not in tmp_path, whose parents are root's own when root runs the tests.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        output = script(DENIED, folder).communicate(timeout=60)[0].splitlines()
    assert len(output) == 3, output
    for line, path in zip(output, (f"{folder}/x", f"{folder}/x", folder), strict=True):
        assert line.startswith(f"{path}: cannot write: permission denied; give this user the right")


def test_a_read_only_disk_is_a_clear_message(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system", str(tmp_path))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(NotAllowed, match="read-only file system; mount it writable"):
        storage.write_bytes(str(tmp_path / "x"), b"")
    assert os.listdir(tmp_path) == []


def test_a_file_where_a_folder_is_needed_is_a_clear_message(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for act in (
        lambda: storage.write_bytes(str(tmp_path / "file" / "x"), b""),
        lambda: storage.list_names(str(tmp_path / "file")),
        lambda: storage.FolderLock(str(tmp_path / "file")).__enter__(),
    ):
        with pytest.raises(StorageError, match=str(tmp_path / "file")):
            act()


def test_file_systems_without_links_still_write_new_files_once(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    path = str(tmp_path / "once")
    assert storage.write_new(path, b"first")
    assert not storage.write_new(path, b"second")
    assert storage.read_bytes(path) == b"first"
    assert os.listdir(tmp_path) == ["once"]


# --- the lock ---------------------------------------------------------------------------------

OWNER = """
import os, sys, time
from wit import storage
with storage.FolderLock(sys.argv[1], "wit harvest of host A", renew=0.2, dead=2.0):
    if sys.argv[2] == "forks" and os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
    if sys.argv[2] != "forks":
        print("owned", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["plain", "forks"])
def test_a_second_owner_is_refused_by_name_and_a_killed_one_frees_the_folder(tmp_path, kind):
    out = str(tmp_path / "out")
    owner = script(OWNER, out, kind)
    try:
        said = owner.stdout.readline().strip()
        with pytest.raises(FolderInUse, match="in use by wit harvest of host A; wait until"):
            storage.FolderLock(out).__enter__()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        with storage.FolderLock(out, "the next") as mine:
            mine.check()
            if kind == "forks":
                os.kill(int(said), 0)  # the owner's child lives on and does not hold the lock
    finally:
        owner.kill()
        if kind == "forks":
            os.kill(int(said), signal.SIGKILL)


def test_a_folder_is_free_after_its_owner_ends(base):
    for _ in range(2):
        with (
            storage.FolderLock(base, "first", renew=0.1, dead=1.0),
            pytest.raises(FolderInUse, match="first"),
        ):
            storage.FolderLock(base, "second", renew=0.1, dead=1.0).__enter__()


def test_a_lease_whose_owner_was_killed_is_taken_over(s3):
    out = f"{s3}/{uuid.uuid4().hex}"
    owner = script(OWNER, out, "plain")
    try:
        assert owner.stdout.readline() == "owned\n"
        with pytest.raises(FolderInUse, match="host A"):
            storage.FolderLock(out, renew=0.2, dead=2.0).__enter__()
        owner.kill()
        owner.wait()
        with pytest.raises(FolderInUse, match="a killed run frees it after 2 s"):
            storage.FolderLock(out, renew=0.2, dead=2.0).__enter__()
        time.sleep(2.1)
        with storage.FolderLock(out, "the next", renew=0.2, dead=2.0) as mine:
            mine.check()
    finally:
        owner.kill()


def test_a_lease_that_is_renewed_stands_although_its_owner_s_clock_is_an_hour_behind(monkeypatch):
    out = f"memory://{uuid.uuid4().hex}"
    stop = threading.Event()

    def renew(beat: int) -> None:
        lease = {"owner": "alive", "token": "1", "beat": beat, "time": time.time() - 3600}
        storage.write_json(f"{out}/.lock", lease)

    def keep() -> None:
        beat = 0
        while not stop.wait(0.15):
            beat += 1
            renew(beat)

    taken: list[str] = []
    monkeypatch.setattr(lock._Lease, "_write", lambda lease: taken.append(lease.owner))
    renew(0)
    thread = threading.Thread(target=keep)
    thread.start()
    try:
        with pytest.raises(FolderInUse, match="alive"):
            storage.FolderLock(out, renew=0.3, dead=2.0).__enter__()
    finally:
        stop.set()
        thread.join()
    assert taken == []


def test_an_owner_that_lost_its_lease_is_told():
    out = f"memory://{uuid.uuid4().hex}"
    with storage.FolderLock(out, "first", renew=0.05, dead=0.5) as mine:
        mine.check()
        storage.write_json(f"{out}/.lock", {"owner": "second", "token": "x", "time": time.time()})
        time.sleep(0.3)
        with pytest.raises(FolderInUse, match="another one took the folder over"):
            mine.check()
    assert storage.read_json(f"{out}/.lock")["owner"] == "second"
