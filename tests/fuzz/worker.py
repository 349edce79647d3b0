"""One process of a fuzz run: a target, with coverage (atheris) or without, for some seconds.

    python -m tests.fuzz.worker TARGET guided|blind FOLDER SECONDS SEED

FOLDER has the inputs to begin with in small/TARGET and large/TARGET; `guided` begins with the small
ones and adds to found/TARGET those that reach new code; `blind` begins with all. The input under
way stands in FOLDER/current, for who watches (`Current`); what is found goes to FOLDER/findings,
pictures that took too much to FOLDER/odd, what was done to FOLDER/TARGET-HOW.json.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import resource
import struct
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.mutate import MOST, TOKENS, mend_png, mutate
from wit.lifeline import die_with

HEAD = struct.Struct("<QI")
TWICE = 16  # one of so many inputs is tried twice: the same answer
POOLED = 4  # of pictures, one of so many also by a decoder process
SLOW = 5.0  # processor seconds for one input, without coverage
LOOKED_AT = 2_000  # inputs between two looks at the memory
DECODER_MEMORY = 1_500_000_000
# What coverage is seen of. What a compiler reads must stand there as written; for `extract` nothing
# is compiled.
INSTRUMENTED = {
    "extract": ["pipeline"],
    "pictures": ["pipeline", "PIL"],
    "responses": ["pipeline", "wit", "aiohttp", "email"],
}
COMPILED = [f"pipeline.extract.{name}" for name in ("tokens", "walk", "strings", "urls")]
COMPILED += ["pipeline.fetch.kernels_area", "wit.hashing", "wit.kernel_types", "wit.text"]
GUIDED = {"extract": 4096, "pictures": 16 * 1024, "responses": 8192}  # bytes of an input
# Outcomes that are no findings, but to be looked at: the first KEPT_ODD inputs of each are kept.
ODD = ("decoder_out_of_memory", "decoder_crashed", "decoder_timeout")
KEPT_ODD = 10
REPEAT = "python -m tests.fuzz --targets {target} --repeat {path}\n"


class Current:
    """The input under way, in a file that another process reads: a counter, a length, the bytes."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(HEAD.size + MOST)
            self._memory = mmap.mmap(file.fileno(), HEAD.size + MOST)

    def write(self, number: int, data: bytes) -> None:
        """Says what is tried now."""
        self._memory[HEAD.size : HEAD.size + len(data)] = data
        self._memory[: HEAD.size] = HEAD.pack(number, len(data))

    def read(self) -> tuple[int, bytes]:
        """The number of the input, and its bytes."""
        number, size = HEAD.unpack(self._memory[: HEAD.size])
        return number, self._memory[HEAD.size : HEAD.size + size]


class Trial:
    """Tries inputs on a target, notes what is found, counts."""

    def __init__(self, target: str, how: str, folder: Path) -> None:
        from tests.fuzz import targets

        self._target, self._how, self._folder = target, how, folder
        self._try: Callable[[bytes], Any] = targets.TARGETS[target]
        self._resident = targets.resident
        self._pool = targets.Pool() if (target, how) == ("pictures", "blind") else None
        self._current = Current(folder / "current")
        self._known: set[str] = set()
        self._said = 0.0
        self.inputs = 0
        self.counts: Counter[str] = Counter()
        self.pooled: Counter[str] = Counter()
        self.memory: list[tuple[int, int]] = []
        self.slowest = 0.0

    def __call__(self, data: bytes) -> None:
        """Tries one input."""
        self.inputs += 1
        self._current.write(self.inputs, data)
        begun = time.process_time()
        try:
            answer = self._try(data)
            self.counts[answer[0]] += 1
            if answer[0] in ODD and self.counts[answer[0]] <= KEPT_ODD:
                self._keep(answer[0], data)
            spent = time.process_time() - begun
            if self.inputs % TWICE == 0:
                assert self._try(data) == answer, "another answer to the same input"
            if self._pool and self.inputs % POOLED == 0:
                self._compare(data, answer)
            assert self._how == "guided" or spent < SLOW, f"slow: {spent:.0f} s"
            self.slowest = max(self.slowest, spent)
        except Exception as error:
            self._note(data, error)
        if self.inputs % LOOKED_AT == 0:
            self.memory.append((self.inputs, self._resident()))
        if time.monotonic() > self._said + 2:
            self.say()

    def _compare(self, data: bytes, answer: Any) -> None:
        assert self._pool is not None
        other = self._pool(data)
        self.pooled[other[0]] += 1
        assert other == answer, f"the decoder process says {other[0]}, this one {answer[0]}"

    def _keep(self, outcome: str, data: bytes) -> None:
        place = self._folder / "odd"
        place.mkdir(exist_ok=True)
        (place / f"{outcome}-{self._how}-{self.counts[outcome]}").write_bytes(data)

    def _note(self, data: bytes, error: Exception) -> None:
        """Writes a finding, once for each place that errors come from."""
        frame = traceback.extract_tb(error.__traceback__)[-1]
        what = str(error)[:40] if isinstance(error, AssertionError) else ""
        place = f"{type(error).__name__}{what} {Path(frame.filename).name}:{frame.lineno}"
        self.counts[f"FOUND {place}"] += 1
        if place in self._known:
            return
        self._known.add(place)
        note(self._folder, self._target, data, "".join(traceback.format_exception(error)))

    def say(self) -> None:
        """Writes what was done so far."""
        self._said = time.monotonic()
        done = {"inputs": self.inputs, "slowest s": round(self.slowest, 3), "memory": self.memory}
        done |= {"counts": dict(self.counts.most_common()), "pooled": dict(self.pooled)}
        path = self._folder / f"{self._target}-{self._how}.json"
        path.with_suffix(".tmp").write_text(json.dumps(done))
        os.replace(path.with_suffix(".tmp"), path)

    def close(self) -> None:
        """Ends decoder processes."""
        self.say()
        if self._pool:
            self._pool.close()


def note(folder: Path, target: str, data: bytes, text: str) -> None:
    """Writes a finding: the input, and beside it what happened and how to repeat it."""
    place = folder / "findings"
    place.mkdir(exist_ok=True)
    path = place / f"{target}-{len(list(place.glob('*.txt'))):03d}"
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(REPEAT.format(target=target, path=path) + text)


def guided(trial: Trial, target: str, folder: Path, seconds: int, seed: int) -> None:
    """Inputs that coverage leads to; never returns."""
    import atheris

    words = [f'"{"".join(f"{chr(92)}x{byte:02x}" for byte in token)}"' for token in TOKENS[target]]
    (folder / "words").write_text("\n".join(words))
    options = {
        "max_total_time": seconds,
        "seed": seed,
        "max_len": GUIDED[target],
        "timeout": 100_000,
    }
    options |= {"rss_limit_mb": 0, "verbosity": 0, "dict": folder / "words", "detect_leaks": 0}
    options |= {"artifact_prefix": f"{folder}/", "reload": 0}
    found = folder / "found" / target
    found.mkdir(parents=True, exist_ok=True)
    arguments = [f"-{name}={value}" for name, value in options.items()]
    arguments = ["fuzz", *arguments, str(found), str(folder / "small" / target)]

    def change(data: bytes, most: int, seed: int) -> bytes:
        changed = bytearray(atheris.Mutate(data, most))
        if changed.startswith(b"\x89PNG") and seed % 5:
            mend_png(changed)
        return bytes(changed)

    own = {"custom_mutator": change} if target == "pictures" else {}
    atheris.Setup(arguments, trial, **own)
    atheris.Fuzz()


def blind(trial: Trial, target: str, folder: Path, seconds: int, seed: int) -> None:
    """Inputs that chance makes of the seeds and of what coverage has led to."""
    chance = random.Random(seed)
    places = ("small", "large", "found")
    paths = [path for place in places for path in sorted(folder.glob(f"{place}/{target}/*"))]
    seeds = [path.read_bytes() for path in paths]
    end = time.monotonic() + seconds
    for data in seeds:
        trial(data)
    while time.monotonic() < end:
        trial(mutate(seeds, chance, TOKENS[target]))
    trial.close()


def main(target: str, how: str, folder: Path, seconds: int, seed: int) -> None:
    """Works until the time is over, which begins before what it needs is imported."""
    die_with(os.getppid())
    end = time.monotonic() + seconds
    warnings.simplefilter("ignore")
    if how == "guided":
        import atheris

        compiled = [] if target == "extract" else COMPILED
        with atheris.instrument_imports(include=INSTRUMENTED[target], exclude=compiled):
            trial = Trial(target, how, folder)
    else:
        trial = Trial(target, how, folder)
    if target == "pictures":  # as the decoder process does
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + DECODER_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        from PIL import AvifImagePlugin, Image

        Image.MAX_IMAGE_PIXELS = 64_000_000
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    left = max(5, round(end - time.monotonic()))
    {"guided": guided, "blind": blind}[how](trial, target, folder, left, seed)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
