"""One worker of `benchmarks.fetch`: reads a task, says `ready`, waits for a line, prints JSON.

The task, a line of JSON on its standard input: `fetch` (the policy's settings) with `origin`,
`urls`, `out` and `shard`: fetch the URLs into that shard as the harvest's fetch stage does; or with
`alone`: decode, resize and encode these files over and over for some seconds, and nothing else.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa

from pipeline.fetch import Fetcher, FetchPolicy, HostRule, HostRules
from pipeline.fetch.images import decode_resize
from wit import shards
from wit.pairs import PAIR_ID

AGENT = "WebImageTextBenchmark/1.0 (+https://example.org/bot)"
ALONE_SECONDS = 3.0


def rows_of(urls: list[str]) -> pa.Table:
    """Returns the rows of a shard for the URLs."""
    n = len(urls)
    return pa.table(
        {
            "url": urls,
            "text": ["a picture"] * n,
            "pair_id": pa.array([i.to_bytes(16) for i in range(n)], PAIR_ID),
            "page_url": [f"https://example.org/{i}" for i in range(n)],
            "attribute": ["alt"] * n,
            "language": ["en"] * n,
            "query_ids": pa.array([[i % 1000, i % 999] for i in range(n)], pa.list_(pa.int32())),
            "priority": pa.array(range(n), pa.uint64()),
            "wave": pa.array([1] * n, pa.int8()),
            "source": pa.array([0] * n, pa.int32()),
            "row": pa.array(range(n), pa.int32()),
            "preset": pa.nulls(n, pa.string()),
        }
    )


def wait_for_go() -> float:
    """Says that all is ready; returns the time at which the work may begin."""
    print("ready", flush=True)
    sys.stdin.readline()
    return time.time()


def fetch(task: dict) -> dict:
    """Fetches the task's URLs into its shard."""
    policy = FetchPolicy.from_json({"user_agent": AGENT, **task["fetch"]})
    rules = HostRules({task["origin"]: HostRule("allow_all")})
    rows, urls = rows_of(task["urls"]), task["urls"]
    outcomes: Counter[str] = Counter()
    with Fetcher(policy) as fetcher:
        for _ in fetcher.run(urls[: 4 * policy.decode_workers], rules):
            pass
        start = wait_for_go()
        with shards.ShardWriter(task["out"], task["shard"], rows, attempt="benchmark") as writer:
            for fetched in fetcher.run(urls, rules):
                outcomes[fetched.outcome] += 1
                writer.add(fetched)
            writer.commit({})
        end = time.time()
    return {"start": start, "end": end, "successes": outcomes["success"], "outcomes": outcomes}


def decode_alone(task: dict) -> dict:
    """Decodes, resizes and encodes files for some seconds."""
    policy = FetchPolicy.from_json({"user_agent": AGENT, **task["fetch"]})
    pictures = [Path(path).read_bytes() for path in task["alone"]]
    decode_resize(pictures[0], policy)
    done, start = 0, wait_for_go()
    for data in itertools.cycle(pictures):
        done += decode_resize(data, policy).outcome == "success"
        if time.time() > start + ALONE_SECONDS:
            break
    return {"start": start, "end": time.time(), "successes": done}


def main() -> None:
    """Does the task."""
    task = json.loads(sys.stdin.readline())
    print(json.dumps(decode_alone(task) if "alone" in task else fetch(task)))


if __name__ == "__main__":
    main()
