"""A full disk, missing rights, a read-only disk: one clear line, and nothing left behind."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.script import script
from wit import storage
from wit.errors import NotAllowed, StorageError

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
