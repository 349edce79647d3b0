"""Compiled kernels without the compiler in every process.

`import numba` and its first kernel cost a process 125 MB and 1.5 s. A kernel here is a numba
function that takes only addresses and whole numbers and calls nothing of Python. It is compiled
once, on the machine's first use of it, to an object file in `__pycache__` (or the user's cache
folder); from then on llvmlite alone maps it into a process: 55 MB and 0.1 s. The object's name
holds a hash of the source, the compiler's version and the processor, so it can never be stale.

A kernel module has `KERNELS`: name -> (function, numba signature). Arguments are pointers
(numpy arrays go in as they are, C-contiguous) and int64; the result is int64. Bounds are the
caller's to keep. Kernels run without the GIL.
"""

import ctypes
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np

MAGIC = b"WITKRN01"
CALLEES = ("llvm.", "mem", "bzero")  # what compiled code may call: the C runtime's own
_ENGINES: list[Any] = []  # the owners of the mapped code, for the life of the process


@functools.cache
def load(module: str, *constants: str) -> dict[str, Callable[..., int]]:
    """The kernels of a module by name, compiled now if this machine has not done so before.

    `constants` names further modules that the kernels take values from.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    paths = [Path(importlib.util.find_spec(name).origin) for name in (module, *constants)]
    versions = [importlib.metadata.version(package) for package in ("numba", "llvmlite")]
    depends = [*versions, llvm.get_default_triple(), *_processor()]
    made = stored(
        f"{paths[0].stem}.kernels",
        [*paths, Path(__file__)],
        depends,
        lambda: _pack(_compile(importlib.import_module(module).KERNELS)),
    )
    return _map(_unpack(made))


def stored(name: str, sources: list[Path], depends: list[str], make: Callable[[], bytes]) -> bytes:
    """What `make` gives; made once a machine, then read from a file.

    The file, in `__pycache__` beside the first source or else in the user's cache folder, is named
    after the content of `sources` and all that the result further `depends` on, so it can never be
    stale; one that a crash cut short is made again.
    """
    parts = [path.read_bytes() for path in sources] + [text.encode() for text in depends]
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    stem, ending = os.path.splitext(name)
    home = Path(os.path.expanduser("~"))
    folders = [sources[0].parent / "__pycache__", home / ".cache" / "webimagetext"]
    paths = [folder / f"{stem}.{key}{ending}" for folder in folders]
    for path in paths:
        data = _read(path)
        if data is not None:
            return data
    data = make()
    for path in paths:
        if _write(path, data):
            break
    return data


def _processor() -> tuple[str, str]:
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def _machine() -> Any:
    cpu, features = _processor()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(
        cpu=cpu, features=features, opt=3, codemodel="jitdefault", jit=True
    )


# A set of kernels is a list of (name, symbol, number of arguments, object file).
Kernels = list[tuple[str, str, int, bytes]]


def _compile(kernels: dict[str, tuple[Callable[..., int], Any]]) -> Kernels:
    from numba import cfunc

    machine = _machine()
    compiled = []
    for name, (function, signature) in kernels.items():
        wrapper = cfunc(signature, error_model="numpy")(function)
        # The function behind numba's wrapper has C's calling convention: result*, error**, then
        # the arguments. The wrapper would need Python's and numba's symbols.
        symbol = wrapper.native_name.removeprefix("cfunc.")
        module = llvm.parse_assembly(wrapper.inspect_llvm())
        for entry in module.functions:
            if not entry.is_declaration and entry.name != symbol:
                entry.linkage = "internal"
        # Once more, since numba leaves out what puts neighbouring sums into one instruction.
        options = llvm.create_pipeline_tuning_options(speed_level=3)
        options.slp_vectorization = True
        builder = llvm.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
        foreign = [f.name for f in module.functions if f.is_declaration]
        foreign = [callee for callee in foreign if not callee.startswith(CALLEES)]
        if foreign:
            raise TypeError(f"kernel {name} needs {', '.join(foreign)}: not plain machine code")
        compiled.append((name, symbol, len(signature.args), machine.emit_object(module)))
    return compiled


def _map(kernels: Kernels) -> dict[str, Callable[..., int]]:
    found = {}
    for name, symbol, arguments, code in kernels:
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        _ENGINES.append(engine)
        kinds = [ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * arguments
        address = engine.get_function_address(symbol)
        found[name] = _callable(name, ctypes.CFUNCTYPE(ctypes.c_int32, *kinds)(address))
    return found


def _callable(name: str, function: Callable[..., int]) -> Callable[..., int]:
    def call(*arguments: np.ndarray | int) -> int:
        result, error = ctypes.c_int64(), ctypes.c_void_p()
        values = [_argument(argument) for argument in arguments]
        if function(ctypes.addressof(result), ctypes.addressof(error), *values):
            raise RuntimeError(f"kernel {name} failed")
        return result.value

    return call


def _argument(value: np.ndarray | int) -> int:
    if not isinstance(value, np.ndarray):
        return int(value)
    if not value.flags.c_contiguous:
        raise ValueError("a kernel takes contiguous arrays only")
    return value.ctypes.data


def _unpack(data: bytes) -> Kernels:
    start = 4 + int.from_bytes(data[:4], "little")
    kernels = []
    for name, symbol, arguments, length in json.loads(data[4:start]):
        kernels.append((name, symbol, arguments, data[start : start + length]))
        start += length
    return kernels


def _pack(kernels: Kernels) -> bytes:
    header = json.dumps([(*kernel[:3], len(kernel[3])) for kernel in kernels]).encode()
    return len(header).to_bytes(4, "little") + header + b"".join(code for *_, code in kernels)


def _read(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    head = len(MAGIC) + 32
    if data[: len(MAGIC)] != MAGIC or hashlib.sha256(data[head:]).digest() != data[8:head]:
        return None  # cut short by a crash
    return data[head:]


def _write(path: Path, body: bytes) -> bool:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(MAGIC + hashlib.sha256(body).digest() + body)
        os.replace(temporary, path)
    except OSError:
        return False
    return True
