"""What a process pays for compiled code: nothing where it lies ready, and never a wrong answer."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa

from wit import kernels_loader
from wit.matching import Matcher

ROOT = Path(__file__).resolve().parents[2]


def test_a_process_that_only_matches_never_loads_the_compiler(tmp_path):
    path = tmp_path / "matcher"
    Matcher.build(pa.array(["a dog"])).save(path)
    code = (
        "import sys, pyarrow as pa; from wit.matching import Matcher; "
        "print(Matcher.load(sys.argv[1]).match(pa.array(['A DOG!'])).to_pylist(), "
        "'numba' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "[[0]] False"


def test_a_damaged_kernel_file_is_compiled_anew(tmp_path):
    kernels = [("name", "symbol", 3, b"code")]
    packed = kernels_loader._pack(kernels)
    assert [tuple(k) for k in kernels_loader._unpack(packed)] == kernels
    path = tmp_path / "folder" / "kernels"
    assert kernels_loader._write(path, packed)
    assert kernels_loader._read(path) == packed
    path.write_bytes(path.read_bytes()[:-1])
    assert kernels_loader._read(path) is None
    assert kernels_loader._read(tmp_path / "absent") is None
    (tmp_path / "file").write_bytes(b"")
    assert not kernels_loader._write(tmp_path / "file" / "kernels", packed)


def test_what_is_stored_is_made_once_and_anew_when_what_it_depends_on_changes(tmp_path):
    source = tmp_path / "module.py"
    made = []

    def stored(version: str) -> bytes:
        def make() -> bytes:
            made.append(version)
            return version.encode()

        return kernels_loader.stored("table.bin", [source], [version], make)

    source.write_text("one")
    assert [stored("1"), stored("1"), stored("2")] == [b"1", b"1", b"2"]
    source.write_text("two")
    assert stored("1") == b"1"
    assert made == ["1", "2", "1"]
