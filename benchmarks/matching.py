"""The matcher beside MetaCLIP's algorithm on pyahocorasick: `python -m benchmarks.matching`.

Real texts from ../shared/data: CC3M and LAION captions, Flickr8k captions, the alt texts of real
pages in many languages. Queries: the starter list, with pairs of neighbouring words of the captions
to make 500,000. One core, one run; the contestants take turns, and medians are printed. Start and
memory are measured in fresh processes that already have numpy and pyarrow.
"""

import argparse
import gzip
import json
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from query_list.starter import build_starter
from wit import text
from wit.matching import Matcher

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
QUERIES = 500_000
SAMPLE = 20_000  # distinct texts of a source that everyone matches, at most
MARKS = ",.;:?!`"

START = """
import sys, time
import numpy, pyarrow as pa, pyarrow.compute
def memory():
    lines = open("/proc/self/smaps_rollup").read().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
    return sizes["Rss"], sizes["Pss"]
texts = pa.array([f"A photo of the dog no. {i} in a park on a sunny day" for i in range(20_000)])
before, start = memory(), time.perf_counter()
from wit.matching import Matcher
matcher = Matcher.load(sys.argv[1])
matcher.match(texts[:1])
ready = time.perf_counter() - start
matcher.match(texts)
after = memory()
print(ready, after[0] - before[0], after[1] - before[1])
"""


# --- real texts -------------------------------------------------------------------------------


def read_texts(folder: Path) -> dict[str, list[str]]:
    """The texts of the shared data by source: cc3m, laion, flickr8k, alt."""
    rows = gzip.decompress((folder / "text/cc3m_val.tsv.gz").read_bytes()).decode().split("\n")
    laion = pq.read_table(folder / "text/laion_10000.parquet")
    column = next(name for name in laion.column_names if name.lower() in ("text", "caption"))
    with tarfile.open(folder / "images/flickr8k_train_128.tar") as tar:
        member = next(m for m in tar if m.name.endswith("captions.json"))
        flickr = json.load(tar.extractfile(member))
    return {
        "cc3m": [row.split("\t")[0] for row in rows if row],
        "laion": [caption for caption in laion[column].to_pylist() if caption is not None],
        "flickr8k": [caption for captions in flickr.values() for caption in captions],
        "alt": list(read_alt_texts(folder / "warc/real_pages.warc.wat.gz")),
    }


def read_alt_texts(path: Path) -> Iterator[str]:
    """The alt texts of a WAT file, in order."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    with path.open("rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.metadata):
            try:
                payload = json.loads(record.reader.read())["Envelope"]["Payload-Metadata"]
                links = payload["HTTP-Response-Metadata"]["HTML-Metadata"]["Links"]
            except (KeyError, ValueError):
                continue
            for link in links:
                if link.get("path", "").startswith("IMG@") and link.get("alt"):
                    yield link["alt"]


# --- MetaCLIP's algorithm ---------------------------------------------------------------------


def spaced_out(caption: str) -> str:
    """The text as MetaCLIP searches it: padded, its marks set between spaces."""
    caption = f" {caption} "
    for mark in MARKS:
        caption = caption.replace(mark, f" {mark} ")
    for blank in "\t\n\r":
        caption = caption.replace(blank, " ")
    return caption


def peer(queries: list[str]) -> Callable[[str], list[int]]:
    """MetaCLIP's matcher on pyahocorasick: the positions of the queries in a text, in any order."""
    import ahocorasick

    automaton = ahocorasick.Automaton()
    for position, query in enumerate(queries):
        key = f" {query} "
        automaton.add_word(key, (position, key))
    automaton.make_automaton()

    def match(caption: str) -> list[int]:
        return list({position for _, (position, _) in automaton.iter(spaced_out(caption))})

    return match


# --- the run ----------------------------------------------------------------------------------


def query_list(texts: dict[str, list[str]], size: int) -> pa.Array:
    """The starter list and bigrams of real captions: `size` normalised queries."""
    queries = dict.fromkeys(build_starter()["query"].to_pylist())
    for captions in texts.values():
        for form in text.normalise(pa.array(captions)).to_pylist():
            for first, second in pairwise(form.split(" ")):
                queries[text.normalise_one(f"{first} {second}")] = None
                if len(queries) == size:
                    return pa.array(list(queries))
    raise SystemExit(f"the captions give {len(queries):,} queries only, not {size:,}")


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def compare(
    captions: list[str], matchers: dict[str, Matcher], peer_match: Callable, repeat: int
) -> dict[str, float]:
    """Medians of texts a second, in turns, and of the peer's time over ours."""
    sample = random.Random(0).sample(captions, min(len(captions), SAMPLE))
    batch = pa.array(sample)
    runs: dict[str, list[float]] = {name: [] for name in ("peer", *matchers)}
    for _ in range(repeat):
        runs["peer"].append(len(sample) / timed(lambda: [peer_match(t) for t in sample]))
        for name, matcher in matchers.items():
            runs[name].append(len(sample) / timed(lambda m=matcher: m.match(batch)))
    ratios = [ours / theirs for ours, theirs in zip(runs["metaclip"], runs["peer"], strict=True)]
    found = matchers["metaclip"].match(batch)
    if found.to_pylist() != [sorted(peer_match(caption)) for caption in sample]:
        raise SystemExit("the matches differ from the peer's")
    return {
        "characters": statistics.mean(map(len, sample)),
        "matches": pc.sum(pc.list_value_length(found)).as_py() / len(sample),
        **{f"{name} texts/s": statistics.median(values) for name, values in runs.items()},
        "metaclip / peer": statistics.median(ratios),
    }


def start_up(matcher: Matcher, folder: Path, repeat: int) -> dict[str, float]:
    """Medians of the seconds to the first match, and of the MiB that a fresh process grows by."""
    path = folder / f"{matcher.mode}.matcher"
    matcher.save(path)
    root = Path(__file__).resolve().parents[1]
    runs = []
    for _ in range(repeat):
        command = [sys.executable, "-c", START, str(path)]
        done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
        runs.append([float(value) for value in done.stdout.split()])
    names = ("start s", "RSS MiB", "PSS MiB")
    figures = dict(zip(names, map(statistics.median, zip(*runs, strict=True)), strict=True))
    return {"file MiB": path.stat().st_size / 2**20, **figures}


def main() -> None:
    """Runs everything and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the shared data")
    parser.add_argument("--repeat", type=int, default=5, help="turns to take medians of")
    options = parser.parse_args()
    texts = read_texts(options.data)
    queries = query_list(texts, QUERIES)
    texts["alt, not ASCII"] = [alt for alt in texts["alt"] if not alt.isascii()]
    build = {}
    matchers = {}
    for mode in ("default", "metaclip"):
        Matcher.build(queries[:1], mode).match(queries[:1])  # the kernels are compiled by now
        start = time.perf_counter()
        matchers[mode] = Matcher.build(queries, mode)
        build[f"{mode} s"] = time.perf_counter() - start
    peer_match = peer(queries.to_pylist())
    result = {
        "queries": len(queries),
        "build": build,
        "speed": {
            name: compare(captions, matchers, peer_match, options.repeat)
            for name, captions in texts.items()
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        result["process"] = {
            mode: start_up(matcher, Path(folder), options.repeat)
            for mode, matcher in matchers.items()
        }
    rounded = json.loads(json.dumps(result), parse_float=lambda value: round(float(value), 2))
    print(json.dumps(rounded, indent=1))


if __name__ == "__main__":
    main()
