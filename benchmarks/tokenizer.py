"""The tokenizer beside open_clip's: `python -m benchmarks.tokenizer`.

The real captions of ../shared/data, in batches of 1,024, one core. Both keep the words they have
seen; `cold` begins without any, as the first batch of a run does, and `warm` is the same captions
again. A run of many millions lies between: new words never cease, but are a few in a hundred. Every
id is compared, too.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.common import SHARED, one_core, take_turns
from trainer import tokenizer

BATCH = 1024


def captions() -> dict[str, list[str]]:
    """Real captions by source."""
    lines = gzip.decompress((SHARED / "text/cc3m_val.tsv.gz").read_bytes()).decode().split("\n")
    table = pq.read_table(SHARED / "text/laion_10000.parquet")
    return {
        "CC3M": [line.split("\t")[0] for line in lines if line],
        "LAION": [text for text in table["TEXT"].to_pylist() if text is not None],
    }


def in_batches(tokenize: Callable[[list[str]], Any], texts: list[str]) -> list[Any]:
    """What `tokenize` gives for each batch."""
    return [tokenize(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]


def measure(texts: list[str], rounds: int) -> dict[str, Any]:
    """Ours and open_clip's on some captions."""
    from open_clip.tokenizer import SimpleTokenizer

    theirs = SimpleTokenizer()
    names = dict(theirs.cache)

    def ours_cold() -> list[Any]:
        tokenizer._words.clear()
        return in_batches(tokenizer.tokenize, texts)

    def theirs_cold() -> list[Any]:
        theirs.cache = dict(names)
        return in_batches(theirs, texts)

    ours, others = ours_cold(), theirs_cold()
    for (tokens, _), their_tokens in zip(ours, others, strict=True):
        np.testing.assert_array_equal(tokens, their_tokens.numpy())
    seconds = take_turns(
        {
            "ours, cold": ours_cold,
            "ours, warm": lambda: in_batches(tokenizer.tokenize, texts),
            "open_clip, cold": theirs_cold,
            "open_clip, warm": lambda: in_batches(theirs, texts),
        },
        rounds,
    )
    return {
        "captions": len(texts),
        "words": len(tokenizer._words),
        "captions/s": {name: len(texts) / value for name, value in seconds.items()},
        "times as fast": {
            state: seconds[f"open_clip, {state}"] / seconds[f"ours, {state}"]
            for state in ("cold", "warm")
        },
    }


def rows(measured: dict[str, dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """The README's rows: what, measured, beside it, times."""
    return [
        (
            f"tokenizing {source} captions ({found['captions']:,}), one core",
            f"{found['captions/s']['ours, cold']:,.0f} captions/s",
            f"open_clip: {found['captions/s']['open_clip, cold']:,.0f} captions/s",
            f"{found['times as fast']['cold']:.1f}",
        )
        for source, found in measured.items()
    ]


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    one_core()
    measured = {source: measure(texts, options.rounds) for source, texts in captions().items()}
    print(json.dumps({"tokenizer": measured, "rows": rows(measured)}, indent=1))


if __name__ == "__main__":
    main()
