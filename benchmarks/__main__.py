"""All benchmarks, and the README's table of what they measured: `python -m benchmarks`.

Needs ../shared/data (real captions and pages). `--only NAME` runs some; the table keeps the rows of
the others, from `benchmarks/results.json`. The trainer's are run where PyTorch is installed (the
extras `train` and `peers`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
README, RESULTS = HERE.parent / "README.md", HERE / "results.json"
START, END = "<!-- benchmarks -->\n", "<!-- /benchmarks -->"
HARVEST = ("matching", "extract", "balance", "fetch", "query_list")
TRAINER = ("models", "training", "loader", "decode", "tokenizer", "loss")
NAMES = HARVEST + TRAINER
OPTIONS = {"training": ["--compile"]}
Row = tuple[str, str, str, str]


def run(name: str) -> list[dict]:
    """Runs one benchmark; the JSON values that it prints."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *OPTIONS.get(name, [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=HERE.parent)
    decoder, text, values = json.JSONDecoder(), done.stdout.lstrip(), []
    while text:
        value, end = decoder.raw_decode(text)
        values.append(value)
        text = text[end:].lstrip()
    return values


def thousands(value: float) -> str:
    """Returns 1,234k."""
    return f"{value / 1000:,.0f}k"


def matching_rows(results: list[dict]) -> list[Row]:
    """Returns the rows of the matcher."""
    (result,) = results
    peer = "MetaCLIP's algorithm on pyahocorasick"
    rows = []
    for name, label in (("cc3m", "CC3M captions"), ("alt, not ASCII", "alt texts not in ASCII")):
        speed = result["speed"][name]
        ours, theirs = (f"{thousands(speed[f'{k} texts/s'])} texts/s" for k in ("metaclip", "peer"))
        what = f"matching {result['queries']:,} queries, `metaclip` mode, {label}"
        rows.append((what, ours, f"{peer}: {theirs}", f"{speed['metaclip / peer']:.1f}"))
        what = f"the same, default mode, {label}"
        rows.append((what, f"{thousands(speed['default texts/s'])} texts/s", "", ""))
    process = result["process"]["default"]
    what = "matcher of 500,000 queries: start, memory added"
    rows.append((what, f"{process['start s']:.2f} s, {process['RSS MiB']:.0f} MiB", "", ""))
    return rows


def own_rows(results: list[dict]) -> list[Row]:
    """Returns the rows that a benchmark has made itself."""
    (result,) = results
    return [tuple(row) for row in result["rows"]]


def balance_rows(results: list[dict]) -> list[Row]:
    """Returns the rows of unique and balance."""
    return [
        (
            f"unique and balance, {r['millions']} million candidates, 400,000 queries, two cores",
            f"{r['seconds']:.0f} s, {r['peak_mb'] / 1000:.2f} GB",
            "",
            "",
        )
        for r in results
    ]


def fetch_rows(results: list[dict]) -> list[Row]:
    """Returns the rows of the fetcher."""
    rows = []
    for r in results:
        what = f"fetching {r['pictures']:,} pictures of {r['side']} px over {r['scheme'].upper()}"
        what += ", resized to 256, two processes"
        ours = f"{r['ours']['images/s']:,.0f} images/s, {r['ours']['peak MB']:,} MB"
        if "img2dataset" not in r:
            rows.append((f"{what}, shards of {r['shard']:,}", ours, "", ""))
            continue
        ours += f"; {r['ours / alone']:.0%} of decode, resize and encode alone"
        peer = r["img2dataset"]
        beside = f"img2dataset: {peer['images/s']:,.0f} images/s, {peer['peak MB']:,} MB"
        rows.append((what, ours, beside, f"{r['times']:.1f}"))
    return rows


def query_list_rows(results: list[dict]) -> list[Row]:
    """Returns the rows of the query list."""
    speed = results[0]["speed"]
    rate, theirs = speed["MB/s"]["ours"], max(speed["MB/s"][name] for name in ("gensim", "alone"))
    what = (
        f"words of a Wikipedia dump counted ({speed['MB of XML']:.0f} MB of XML in bzip2), one core"
    )
    beside = f"gensim's WikiCorpus, which only extracts: {theirs:.1f} MB/s"
    rows = [(what, f"{rate:.1f} MB/s", beside, f"{speed['times']:.1f}")]
    for r in (result["growth"] for result in results if "growth" in result):
        dump, seconds = r["dump"], r["seconds"]
        what = f"list from {dump['xml_bytes'] / 1e9:.1f} GB of XML"
        what += f" ({dump['words']:,} different words), two processes"
        rows.append((what, f"{seconds:.0f} s, {r['peak MB'] / 1000:.2f} GB a process", "", ""))
    return rows


def models_rows(results: list[dict]) -> list[Row]:
    """Returns the row of the models' equality."""
    (result,) = results
    ways = [found["largest difference of a logit"] for found in result["models"]]
    largest = max(difference for each in ways for difference in each.values())
    what = f"logits of {len(ways)} models with random weights, exported and imported"
    beside = f"open_clip {result['versions']['open_clip']}'s and, of the ViTs, transformers "
    beside += f"{result['versions']['transformers']}'s"
    return [(what, f"largest difference {largest:.1e}", beside, "")]


def loss_rows(results: list[dict]) -> list[Row]:
    """Returns the row of the loss."""
    (result,) = results

    def told(name: str) -> str:
        return f"{result[name]['seconds']:.1f} s, {result[name]['peak_bytes'] / 1e6:,.0f} MB"

    what = f"loss and its gradients, {result['batch']:,} pairs, one core"
    peers = [name for name in ("full matrix", "open_clip") if name in result]
    beside = "; ".join(f"{name}: {told(name)}" for name in peers)
    times = 1 / max(result[name]["tiled_share_of_seconds"] for name in peers)
    return [(what, told("tiled"), beside, f"{times:.1f}")]


MAKE_ROWS = {
    "matching": matching_rows,
    "extract": own_rows,
    "balance": balance_rows,
    "fetch": fetch_rows,
    "query_list": query_list_rows,
    "models": models_rows,
    "training": own_rows,
    "loader": own_rows,
    "decode": own_rows,
    "tokenizer": own_rows,
    "loss": loss_rows,
}


def main() -> None:
    """Runs the benchmarks and writes the README's table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    here = NAMES if importlib.util.find_spec("torch") else HARVEST
    parser.add_argument("--only", nargs="+", choices=NAMES, default=here)
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in options.only:
        results[name] = run(name)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    lines = ["| what | measured | beside it | times |", "|---|---|---|---|"]
    for name in NAMES:
        if name in results:
            lines += ["| " + " | ".join(row) + " |" for row in MAKE_ROWS[name](results[name])]
    text = README.read_text()
    before, after = text.split(START)[0], text.split(END)[1]
    README.write_text(before + START + "\n".join(lines) + "\n" + END + after)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
