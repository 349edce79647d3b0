"""What became of every candidate, told anew with pandas from the tables and not as `explain` does.

Also a harvest of real pages in this process, of which a made-up web answers in many ways.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import blocking, fetching, queries, sources
from pipeline.explain.command import pair_stories
from pipeline.explain.files import Files
from pipeline.explain.story import Story
from pipeline.run import Config, Run, load_run, open_run
from tests.pipeline.rows import Picture, go_on
from tests.pipeline.test_balance import place
from wit.outcomes import OUTCOMES

SEEDED = 7


def read(folder: Path, pattern: str, columns: list[str] | None = None) -> pd.DataFrame:
    """All tables of a pattern, each with its file's name."""
    parts = [
        pq.read_table(path, columns=columns).to_pandas().assign(file=path.stem)
        for path in sorted(folder.glob(pattern))
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def fates(out: Path) -> pd.DataFrame:
    """Each candidate's source, row, pair_id, url, text, query_ids, and its true `fate`.

    Of equal pairs the first stays; of an image's texts the one with the lowest hash. `key` and
    `message` are a sample's, `of` is the (source, row) of a duplicate's survivor, `stays` the
    pair_id of the text that stayed.
    """
    parts = []
    for path in sorted(out.glob("candidates/*.parquet")):
        table = pq.read_table(path).to_pandas()
        parts.append(table.assign(source=int(path.stem), row=range(len(table))))
    rows = pd.concat(parts, ignore_index=True)
    rows["pair_id"] = rows["pair_id"].map(bytes.hex)
    rows["image"] = rows["pair_id"].str[:16]
    first = rows.groupby("pair_id").head(1).set_index("pair_id")
    at = list(zip(first["source"], first["row"], strict=True))
    rows["of"] = rows["pair_id"].map(pd.Series(at, first.index))
    rows["stays"] = rows["image"].map(rows.groupby("image")["pair_id"].min())
    drawn = read(out, "selection/*/????.parquet", ["source", "row"]).drop_duplicates()
    samples = read(out, "shards/*.parquet", ["source", "row", "outcome", "key", "error_message"])
    rows = rows.merge(samples.drop(columns="file"), on=["source", "row"], how="left")
    rows = rows.merge(
        drawn[["source", "row"]].drop_duplicates().assign(drawn=True),
        on=["source", "row"],
        how="left",
    )
    rows["fate"] = rows["outcome"]
    left = rows["fate"].isna()
    rows.loc[left, "fate"] = rows.loc[left, "drawn"].map(
        lambda was: "deferred" if was is True else "over_cap"
    )
    rows.loc[rows["pair_id"] != rows["stays"], "fate"] = "other_text"
    rows.loc[rows.duplicated("pair_id"), "fate"] = "duplicate_pair"
    return rows.rename(columns={"error_message": "message"})


def some_of_each(rows: pd.DataFrame, most: int = 100) -> dict[str, pd.DataFrame]:
    """At most so many rows of each fate, drawn at random."""
    return {
        fate: some.sample(min(most, len(some)), random_state=SEEDED)
        for fate, some in rows.groupby("fate")
    }


# --- what is explained, beside it ---------------------------------------------------------------

MANY = 10_000


def step(story: Story, name: str) -> dict:
    """The facts of a story's step of a name."""
    return next(step.facts for step in story.steps if step.name == name)


class Orders:
    """Each query's unique pairs in its order, by plain Python."""

    def __init__(self, out: Path, rows: pd.DataFrame, seed: int = 0) -> None:
        self.seed = seed
        self.hashes = pq.read_table(out / "queries/queries.parquet")["query_hash"].to_pylist()
        if json.loads((out / "run.json").read_text())["sampling"] == "shared":
            self.hashes = [0] * len(self.hashes)
        stays = rows[(rows["pair_id"] == rows["stays"]) & ~rows.duplicated("pair_id")]
        self.of: dict[int, list[str]] = {}
        for pair_id, ids in zip(stays["pair_id"], stays["query_ids"], strict=True):
            for q in ids:
                self.of.setdefault(int(q), []).append(pair_id)
        self.known: dict[int, list[tuple[int, int, int]]] = {}

    def place(self, query: int, pair_id: str) -> tuple[int, int, int]:
        url, text = int(pair_id[:16], 16), int(pair_id[16:], 16)
        return place(self.seed, url, text, self.hashes[query])

    def ordered(self, query: int) -> list[tuple[int, int, int]]:
        if query not in self.known:
            self.known[query] = sorted(self.place(query, pair) for pair in self.of[query])
        return self.known[query]


def check(out: Path, rows: pd.DataFrame, most: int, cap: int) -> Counter:
    """Compares what is explained of so many candidates of each fate with what is true."""
    files, orders, compared = Files(load_run(str(out))), Orders(out, rows), Counter()
    for fate, some in some_of_each(rows, most).items():
        for row in some.itertuples():
            (story,) = pair_stories(files, row.pair_id, MANY)
            unique = step(story, "unique")
            if fate == "duplicate_pair":
                assert {"source": row.source, "row": row.row} in unique["duplicates"]
                assert tuple(unique["survivor"].values()) == row.of
            else:
                assert story.fate == fate, (row.url, story.fate, fate)
                assert tuple(unique["survivor"].values()) == (row.source, row.row)
            if fate == "other_text":
                assert [text["pair_id"] for text in unique["stays"]] == [row.stays]
            if fate in OUTCOMES:
                told = step(story, "fetch" if fate != "taken_down" else fate)
                assert (told["key"], told["outcome"]) == (row.key, fate)
                assert fate == "success" or told["error_message"] == row.message
            if fate in OUTCOMES or fate in ("over_cap", "deferred"):
                check_orders(story, orders, row, cap, fate)
            assert step(story, "text")["text"] == row.text
            compared[fate] += 1
    return compared


def check_orders(story: Story, orders: Orders, row, cap: int, fate: str) -> None:
    """The priority, counts and rank of a pair in each of its queries' orders are the true ones."""
    told = step(story, "order")["orders"]
    assert sorted(order["query_id"] for order in told) == sorted(row.query_ids)
    for order in told:
        ordered = orders.ordered(order["query_id"])
        mine = orders.place(order["query_id"], row.pair_id)
        assert order["unique"] == len(ordered)
        assert int(order["priority"], 16) == mine[0]
        if len(ordered) > cap:
            rank = ordered.index(mine) + 1
            assert order["rank"] == rank or not order["rank_is_exact"]
            assert order["rank_is_exact"] or rank > 4 * cap
            assert bool(order["within"]) or rank > cap
        assert not (fate == "over_cap" and order["within"])


# --- a harvest of real pages ------------------------------------------------------------------

FORBIDDEN = "/wp-content/"  # what some hosts' robots.txt forbids
LISTED = ("web.archive.org", "rutgers.edu")  # hosts on the run's blocklist


def digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def answer(url: str) -> str:
    """How the made-up web answers: half of the pictures are there, the rest fail in every way."""
    words = [name for name in OUTCOMES if name not in NOT_ANSWERS]
    kind = digest(url) % (2 * len(words))
    return words[kind] if kind < len(words) else "success"


# What comes before any request, and what tells that a run is ill and stops it.
NOT_ANSWERS = (
    *("success", "blocklisted", "taken_down", "robots_disallowed", "robots_unreachable"),
    *("internal_error", "engine_failed", "engine_lost", "encode_failed"),
    *("decoder_crashed", "decoder_timeout", "decoder_out_of_memory"),
)


def ask_robots(_: object, hosts: list[str], **part: int) -> pa.Table:
    """A tenth of the hosts fails, a fifth forbids what FORBIDDEN says."""
    kinds = [digest(host) % 10 for host in hosts]
    said = {0: "disallow_all", 1: "rules", 2: "rules"}
    text = f"User-agent: *\nDisallow: /private/\nDisallow: {FORBIDDEN}\n"
    return pa.table(
        {
            "host": pa.array(hosts, pa.string()),
            "robots": pa.array([said.get(kind, "allow_all") for kind in kinds], pa.string()),
            "rules": pa.array([text if kind in (1, 2) else None for kind in kinds], pa.string()),
            "crawl_delay": pa.nulls(len(hosts), pa.float64()),
            "tdm": pa.nulls(len(hosts), pa.string()),
        }
    )


class Web:
    """A fetcher whose answers follow from the URLs; placeholders are all the same picture."""

    def run(self, urls, hosts, look):
        for index, url in enumerate(urls):
            outcome = answer(url)
            brings = outcome in ("success", "placeholder")
            image = (url.encode() if outcome == "success" else b"sorry") if brings else None
            word = "success" if brings else outcome
            said = None if brings else f"{outcome} of {digest(url)}"
            yield Picture(index, word, image, said)

    def slowest(self, hosts):
        return []


def harvest_pages(
    shared: Path, folder: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Run, Callable[[], dict[str, int]]]:
    """A harvest of the real pages that has not begun, and what carries it out."""
    monkeypatch.setattr(fetching, "robots_table", ask_robots)
    monkeypatch.setattr(fetching, "shared_fetcher", lambda out, reach: Web())
    names = ("real_pages.warc.gz", "real_pages.warc.wat.gz")
    found = sources.expand([str(shared / "warc" / name) for name in names])
    table = queries.read_list(words, "default").table
    config = Config(
        sources=[source.to_json() for source in found],
        queries=queries.fingerprint(table),
        per_query=5,
        lanes=3,
        shard_size=400,
        waves=3,
        wave_hours=12 / 3600,
        product_token="t",
        fetch={"user_agent": "T/1 (a@b.example)", "host_rate": 1.0},
    )
    run = open_run(str(folder / "pages"), config)
    queries.install(run, table)
    listed = folder / "list.txt"
    listed.write_text("".join(f"host {host}\n" for host in LISTED))
    blocking.install(run, [str(listed)], lambda line: None)
    return run, lambda: go_on(run)
