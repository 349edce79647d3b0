"""The query list's counts: beside gensim's WikiCorpus, and as the text grows.

    python -m benchmarks.query_list [--gigabytes 0.5 1 2] [--megabytes 60] [--rounds 3]
        [--workers 2] [--folder DIR]

`speed`: the 206 real pages of the shortened English dump, ten times with titles of their own (61 MB
of XML as a multistream bzip2), are read, made plain, cut into segments and counted, all in one
process. gensim's WikiCorpus (processes=1, no dictionary) extracts and tokenises them, and counts
nothing; its reader, its pool and its worker are three processes, so what is compared is processor
seconds of all of them. `alone` are the same functions of gensim's called in one process, without
handing pages from one to another. They take turns, each time in a fresh process; medians.

`growth`: dumps made from the same pages with new words and pairs at the rate of Heaps' law
(benchmarks/query_corpus.py) go through `wit queries build` with two workers and its thresholds.
Seconds of a stage are those between the plans that stages write when they begin. Peak memory is
that of the largest process (VmHWM), and `at once` the sum of the proportional set sizes of all.
`whole` takes processor seconds and disk a byte of XML of the largest dump times the English
Wikipedia's 95 GB, and for its many short pages as much as redirects alone cost.

The dumps stay in `--folder` (0.3 GB a gigabyte), where they are found again.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import descendants, proportional_memory
from benchmarks.query_corpus import TAIL, raw_pages, real_dump, write_corpus
from benchmarks.query_growth import SAMPLED, SCATTER
from query_list import run as builds
from query_list import work
from query_list.counting import WordCounter
from query_list.dump import read_pages, read_site
from query_list.pages import chunks
from query_list.plain_text import plain_text
from query_list.segments import spaced_segments
from wit import storage
from wit.hashing import hash64

COMMAND = [sys.executable, "-m", "wit.cli", "queries", "build"]
SOURCES = "wikipedia_word,wikipedia_bigram"
SHORT_PAGES = 20_000
SAMPLED_EVERY = 0.25  # seconds
TICK = os.sysconf("SC_CLK_TCK")
ENGLISH = {"bytes": 95e9, "pages": 18e6}  # of XML, of pages-articles


# --- beside gensim ----------------------------------------------------------------------------


def processor_seconds() -> float:
    """Of this process and of those below it that have ended."""
    multiprocessing.active_children()  # which takes notice of those that have
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def count_ours(path: str) -> dict[str, float]:
    """Counts a dump's words; processor seconds of each part, and how many words there are."""
    parts = dict.fromkeys(("unpack", "pages", "plain text", "segments", "counts"), 0.0)
    at = processor_seconds()

    def spent(part: str) -> None:
        nonlocal at
        now = processor_seconds()
        parts[part] += now - at
        at = now

    size = os.path.getsize(path)
    for _ in chunks(path, 0, size):
        pass
    spent("unpack")
    site, counter = read_site(path), WordCounter()
    for batch in read_pages(path, 0, size):
        spent("pages")
        plain = plain_text(batch["text"], site.namespaces)
        spent("plain text")
        segments = spaced_segments(plain, site.language)
        spent("segments")
        counter.add(segments)
        spent("counts")
    tokens = counter.finish().tokens
    parts["pages"] -= parts["unpack"]
    return {"seconds": sum(parts.values()), "tokens": tokens, **parts}


def count_gensim(path: str) -> dict[str, float]:
    """Extracts and tokenises a dump with WikiCorpus; processor seconds of all its processes."""
    from gensim.corpora.wikicorpus import WikiCorpus

    multiprocessing.set_start_method("fork", force=True)  # the only one that it works with
    started = processor_seconds()
    corpus = WikiCorpus(path, processes=1, dictionary={})
    tokens = sum(len(text) for text in corpus.get_texts())
    return {"seconds": processor_seconds() - started, "tokens": tokens}


def count_gensim_alone(path: str) -> dict[str, float]:
    """The same by the functions that WikiCorpus calls, in this process."""
    import bz2

    from gensim.corpora import wikicorpus

    started, tokens = processor_seconds(), 0
    with bz2.BZ2File(path) as file:
        for title, text, page in wikicorpus.extract_pages(file, ("0",)):
            given = (text, title, page)
            tokens += len(wikicorpus.process_article(given)[0])
    return {"seconds": processor_seconds() - started, "tokens": tokens}


def page_seconds() -> float:
    """Processor seconds that a short page costs: a redirect, in a dump of nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        head, pages = raw_pages(real_dump(Path(folder)))
        redirects = [page for page in pages if b"<redirect " in page]
        path = f"{folder}/redirects.xml"
        times = -(-SHORT_PAGES // len(redirects))
        Path(path).write_bytes(b"".join([head, *redirects * times, TAIL]))
        started = processor_seconds()
        for _ in read_pages(path, 0, os.path.getsize(path)):
            pass
        return (processor_seconds() - started) / (times * len(redirects))


def apart(function: Callable[..., Any], *given: Any) -> Any:
    """Calls a function in a fresh process."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
        return pool.submit(function, *given).result()


def measure_speed(folder: Path, size: float, rounds: int) -> dict[str, Any]:
    """Our counts and gensim's extraction of the same dump, in turns."""
    (file,) = write_corpus(folder / "repeated", [size * 1e6], grow=False)["files"]
    path, megabytes = str(folder / "repeated" / file["name"]), file["xml_bytes"] / 1e6
    tools = {"ours": count_ours, "gensim": count_gensim, "alone": count_gensim_alone}
    took: dict[str, list[dict]] = {name: [] for name in tools}
    for _ in range(rounds):
        for name, tool in tools.items():
            took[name].append(apart(tool, path))
    middle = {name: _median(found, "seconds") for name, found in took.items()}
    parts = {name: _median(took["ours"], name) for name in took["ours"][0]}
    del parts["seconds"], parts["tokens"]
    return {
        "MB of XML": megabytes,
        "tokens": {name: found[0]["tokens"] for name, found in took.items()},
        "seconds": {name: [entry["seconds"] for entry in found] for name, found in took.items()},
        "MB/s": {name: megabytes / seconds for name, seconds in middle.items()},
        "times": min(middle["gensim"], middle["alone"]) / middle["ours"],
        "milliseconds a MB": {name: 1e3 * took / megabytes for name, took in parts.items()},
        "microseconds a redirect": 1e6 * apart(page_seconds),
    }


def _median(found: list[dict], name: str) -> float:
    return statistics.median(entry[name] for entry in found)


# --- as the text grows ------------------------------------------------------------------------


class Watch:
    """What a process and all below it use, sampled until `stop`."""

    def __init__(self, pid: int) -> None:
        self.highest: dict[int, int] = {}  # process -> peak resident set, bytes
        self.at_once = 0
        self.samples: list[tuple[float, float, int]] = []  # time, processor s, largest set
        self._spent: dict[int, float] = {}
        self._pid, self._done = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(SAMPLED_EVERY):
            sets = [self._look(pid) for pid in (self._pid, *descendants(self._pid))]
            self.at_once = max(self.at_once, proportional_memory(self._pid))
            self.samples.append((time.time(), sum(self._spent.values()), max(sets)))

    def _look(self, pid: int) -> int:
        """Notes what a process used so far; its resident set now."""
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            used = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return 0
        lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        if "VmHWM" not in lines:
            return 0
        self.highest[pid] = int(lines["VmHWM"].split()[0]) * 1024
        self._spent[pid] = (int(used[11]) + int(used[12])) / TICK
        return int(lines["VmRSS"].split()[0]) * 1024

    def stop(self) -> None:
        """Ends it."""
        self._done.set()
        self._thread.join()

    def between(self, start: float, end: float) -> dict[str, float]:
        """Seconds, processor seconds and largest resident set in a span of time."""
        moments, spent, _ = zip(*self.samples, strict=True)
        used = np.interp([start, end], moments, spent)
        sets = [size for moment, _, size in self.samples if start <= moment <= end]
        return {
            "seconds": end - start,
            "processor seconds": float(used[1] - used[0]),
            "peak MB": max(sets, default=0) / 1e6,
        }


def build(dumps: list[str], out: Path, workers: int) -> dict[str, Any]:
    """Builds the counts of dumps; seconds and memory by stage, bytes by room of the work."""
    command = [*COMMAND, *dumps, "--out", str(out), "--sources", SOURCES]
    started = time.time()
    child = subprocess.Popen(
        [*command, "--workers", str(workers)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    watch = Watch(child.pid)
    _, said = child.communicate()
    ended = time.time()
    watch.stop()
    if child.returncode:
        raise RuntimeError(said)
    from query_list.stages import STAGES, plan_path  # Beam, which the other half does without

    made = builds.load_run(str(out))
    begun = {stage.name: os.path.getmtime(plan_path(made, stage)) for stage in STAGES}
    joining = max(path.stat().st_mtime for path in out.glob("work/*/*") if path.is_file())
    marks = [("start", started), *begun.items(), ("join", joining), ("", ended)]
    spans = {name: watch.between(since, until) for (name, since), (_, until) in pairwise(marks)}
    return {
        "seconds": ended - started,
        "processor seconds": watch.samples[-1][1],
        "peak MB": max(watch.highest.values()) / 1e6,
        "peak MB of each process": sorted(size / 1e6 for size in watch.highest.values())[::-1],
        "at once MB": watch.at_once / 1e6,
        "stages": {name: span for name, span in spans.items() if name not in ("titles", "views")},
        "MB of work": {
            room.name: sum(path.stat().st_size for path in room.iterdir()) / 1e6
            for room in sorted((out / "work").iterdir())
            if room.is_dir()
        },
        "counted": counted(made),
    }


def counted(made: builds.Run) -> dict[str, int]:
    """What a build found: words, distinct ones, distinct pairs (estimated), frequent ones."""
    sums = work.extracted(made)
    return {
        "pages": sums["pages"],
        "tokens": sums["tokens"],
        "words": work.distinct_words(made),
        "pairs": distinct_pairs(made),
        "vocabulary": len(work.read_words(made)),
        "bigrams": len(work.read_bigrams(made)),
    }


def distinct_pairs(made: builds.Run) -> int:
    """Distinct pairs of neighbours in the text, from one in SAMPLED by a hash of both words."""
    seen = np.empty(0, np.uint64)
    for split in work.splits(made):
        with builds.open_buckets(made.work("words", split, ".arrow")) as reader:
            words = reader.read_all()
        hashes = np.empty(len(words), np.uint64)
        hashes[words["number"].to_numpy()] = hash64(words["word"])
        stream = storage.read_table(made.work("tokens", split, ".parquet"))["word"].to_numpy()
        ends = np.flatnonzero((stream[1:] >= 0) & (stream[:-1] >= 0)) + 1
        keys = (hashes[stream[ends - 1]] ^ np.uint64(1)) * SCATTER + hashes[stream[ends]]
        keys *= SCATTER
        keys ^= keys >> np.uint64(32)
        seen = np.union1d(seen, keys[keys * SCATTER < np.uint64(2**64 // SAMPLED)])
    return len(seen) * SAMPLED


def measure_growth(folder: Path, gigabytes: list[float], workers: int) -> Iterator[dict[str, Any]]:
    """Builds of ever larger dumps."""
    corpus = write_corpus(folder / "heaps", [size * 1e9 for size in sorted(gigabytes)], grow=True)
    dumps = []
    for file in corpus["files"]:
        dumps.append(file)
        paths = [str(folder / "heaps" / dump["name"]) for dump in dumps]
        out = folder / f"build-{len(dumps)}"
        shutil.rmtree(out, ignore_errors=True)
        made = build(paths, out, workers)
        shutil.rmtree(out)
        curves = {
            name: line["factor"] * file["tokens"] ** line["exponent"]
            for name, line in corpus["fit"].items()
        }
        sizes = {name: sum(dump[name] for dump in dumps) for name in ("xml_bytes", "bytes")}
        yield {"dump": file | sizes, "fit": corpus["fit"], "curve": curves} | made


def whole(largest: dict[str, Any], page_microseconds: float) -> dict[str, float]:
    """What the English Wikipedia costs by what the largest dump cost a byte of XML."""
    times = ENGLISH["bytes"] / largest["dump"]["xml_bytes"]
    stages = {
        name: span["processor seconds"] * times / 3600
        for name, span in largest["stages"].items()
        if name not in ("start", "join")
    }
    stages["short pages"] = ENGLISH["pages"] * page_microseconds / 1e6 / 3600
    return {
        "core-hours": sum(stages.values()),
        "core-hours by stage": stages,
        "GB of work": {name: size * times / 1e3 for name, size in largest["MB of work"].items()},
    }


def main() -> None:
    """Prints JSON lines: speed, growth for each size, the cost of the English Wikipedia."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.5])
    parser.add_argument("--megabytes", type=float, default=60, help="for the comparison")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        speed = measure_speed(folder, options.megabytes, options.rounds)
        print(json.dumps({"speed": speed}), flush=True)
        for grown in measure_growth(folder, options.gigabytes, options.workers):
            print(json.dumps({"growth": grown}), flush=True)
    print(json.dumps({"whole": whole(grown, speed["microseconds a redirect"])}))


if __name__ == "__main__":
    main()
