"""Every drawn pair comes to exactly one lane; hosts keep their share; opt-outs are not asked."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline import lanes
from pipeline.run import Config, Run
from pipeline.waves import hostnames, open_by_slot, origins, read_slots, write_hosts
from wit import storage
from wit.hashing import hash64, pair_ids
from wit.pairs import SELECTION

OURS = {"per_query": 5, "lanes": 6, "shard_size": 10, "fetch": {"host_rate": 1.0}}


def selection(urls: list[str], seed: int = 0) -> pa.Table:
    n = len(urls)
    rng = np.random.default_rng(seed)
    text = rng.integers(0, 2**63, n).astype(np.uint64)
    columns = {
        "pair_id": pair_ids(hash64(pa.array(urls)), text),
        "url": urls,
        "text": [f"text {i}" for i in range(n)],
        "page_url": [None] * n,
        "attribute": ["alt"] * n,
        "record_offset": list(range(n)),
        "language": [None] * n,
        "query_ids": [[0]] * n,
        "source": [0] * n,
        "row": list(range(n)),
        "drawn_by": [[0]] * n,
        "priority": rng.integers(0, 2**63, n).astype(np.uint64),
        "wave": [1] * n,
        "host": origins(pa.chunked_array([pa.array(urls)])),
    }
    return pa.table(columns).select(SELECTION.names).cast(SELECTION)


def robots(hosts: list[str]) -> pa.Table:
    """A robots step that knows three kinds of hosts."""
    kinds = [
        "disallow_all" if "closed" in h else "rules" if "ruled" in h else "allow_all" for h in hosts
    ]
    rules = ["private" if kind == "rules" else None for kind in kinds]
    delay = [10.0 if "slow" in h else None for h in hosts]
    return pa.table(
        {
            "host": pa.array(hosts),
            "robots": pa.array(kinds),
            "rules": pa.array(rules, pa.string()),
            "crawl_delay": pa.array(delay, pa.float64()),
            "tdm": pa.nulls(len(hosts), pa.string()),
        }
    )


def allowed(rules: str, urls: list[str]) -> list[bool]:
    return [rules not in url for url in urls]


def plan(tmp_path, urls: list[str], **changes) -> tuple[Run, list[pa.Table]]:
    """Runs the stages from a selection to the lanes' rows."""
    run = Run(str(tmp_path), Config(sources=[{}], queries={"queries": 1}, **(OURS | changes)))
    table = selection(urls)
    path = run.wave_path("selection", 1, "0000.parquet")
    with open_by_slot(path, SELECTION, run.config.lanes) as write:
        write(table, hash64(hostnames(table["host"])))
    hosts = table.group_by("host").aggregate([([], "count_all")]).rename_columns(["host", "pairs"])
    facts = {"pairs": len(table), "host_buckets": write_hosts(run, 1, 0, hosts)}
    storage.write_json(run.wave_path("selection", 1, "0000.json"), facts)
    lanes.sum_selection(run, 1)
    for bucket in lanes.used_host_buckets(run, 1):
        lanes.find_hosts(run, 1, bucket, robots)
    lanes.join_hosts(run, 1)
    for lane in range(run.config.lanes):
        lanes.plan_lane(run, 1, lane, allowed)
    tables = [
        storage.read_table(run.wave_path("lanes", 1, f"{lane:04d}.parquet"))
        for lane in range(run.config.lanes)
    ]
    return run, tables


def test_every_pair_comes_to_one_lane_and_a_large_host_to_several(tmp_path):
    urls = [f"http://h{i % 30}.example/{i}.jpg" for i in range(200)]
    urls += [f"https://large.example:8443/{i}.jpg" for i in range(300)]
    run, tables = plan(tmp_path, urls)
    together = pa.concat_tables(tables)
    assert sorted(together["url"].to_pylist()) == sorted(urls)
    lanes_of: dict[str, set[int]] = {}
    for lane, table in enumerate(tables):
        for host in table["host"].to_pylist():
            lanes_of.setdefault(host, set()).add(lane)
    assert len(lanes_of.pop("https://large.example:8443")) > 1
    assert all(len(of_host) == 1 for of_host in lanes_of.values())
    for table in tables:
        assert table["priority"].to_pylist() == sorted(table["priority"].to_pylist())
    lanes.number_shards(run, 1)
    numbered = storage.read_json(run.wave_path("lanes", 1, "shards.json"))
    ids = [i for first, count in numbered["lanes"] for i in range(first, first + count)]
    assert ids == list(range(numbered["next"]))
    assert len(ids) == sum(-(-len(table) // 10) for table in tables)


def test_a_host_gets_at_most_its_rate_times_the_planned_hours(tmp_path):
    urls = [f"http://large.example/{i}.jpg" for i in range(40)]
    urls += [f"http://slow.example/{i}.jpg" for i in range(40)]
    run, tables = plan(tmp_path, urls, wave_hours=30 / 3600, shard_size=100)
    together = pa.concat_tables(tables)
    by_host = {h["values"]: h["counts"] for h in together["host"].value_counts().to_pylist()}
    assert by_host == {"http://large.example": 30, "http://slow.example": 3}
    plans = [
        storage.read_json(run.wave_path("lanes", 1, f"{lane:04d}.json"))
        for lane in range(run.config.lanes)
    ]
    assert sum(p["deferred"] for p in plans) == 80 - 33
    whole = selection(urls)
    kept = set(together["url"].to_pylist())
    of_slow = whole.filter(pa.compute.equal(whole["host"], "http://slow.example"))
    order = np.argsort(of_slow["priority"].to_numpy())[:3]
    assert {of_slow["url"][int(i)].as_py() for i in order} <= kept


@pytest.mark.parametrize("shard_size", [100, 10])
def test_a_host_whose_delay_is_longer_than_the_wave_is_asked_once_over_all_its_lanes(
    tmp_path, shard_size
):
    urls = [f"http://slow.example/{i}.jpg" for i in range(40)]
    run, tables = plan(tmp_path, urls, wave_hours=9 / 3600, shard_size=shard_size)
    hosts = storage.read_table(run.wave_path("lanes", 1, f"{_lane_of(tables):04d}.hosts.parquet"))
    assert (hosts["lanes"][0].as_py() > 1) == (shard_size == 10)
    assert sum(map(len, tables)) == 1
    asked = tables[_lane_of(tables)]["priority"][0].as_py()
    if shard_size == 100:  # its first picture
        assert asked == min(selection(urls)["priority"].to_pylist())


def _lane_of(tables: list[pa.Table]) -> int:
    return next(lane for lane, table in enumerate(tables) if len(table))


def test_what_a_host_may_be_asked_is_shared_among_its_lanes_to_the_last_request(tmp_path):
    urls = [f"http://large.example/{i}.jpg" for i in range(400)]
    _, tables = plan(tmp_path, urls, wave_hours=33 / 3600)
    assert sum(map(len, tables)) == 33
    assert sum(len(table) > 0 for table in tables) == 6


@pytest.mark.parametrize("parts", [1, 3])
def test_a_slot_has_its_rows_whether_they_were_written_at_once_or_in_parts(tmp_path, parts):
    path = str(tmp_path / "x.parquet")
    hashes = np.random.default_rng(1).integers(0, 2**64, 90, np.uint64)
    table = pa.table({"row": np.arange(90)})
    with open_by_slot(path, table.schema, 4) as write:
        for part in np.array_split(np.arange(90), parts):
            write(table.take(part), hashes[part])
    for slots in ({0}, {1, 3}, set()):
        expected = [i for i, h in enumerate(hashes.tolist()) if h // 2**62 in slots]
        assert sorted(read_slots([path, path], slots)["row"].to_pylist()) == sorted(expected * 2)


def test_what_robots_txt_forbids_keeps_its_row_and_costs_the_host_nothing(tmp_path):
    urls = [f"http://closed.example/{i}.jpg" for i in range(5)]
    urls += [f"http://ruled.example/{'private' if i % 2 else 'open'}/{i}.jpg" for i in range(8)]
    _, tables = plan(tmp_path, urls, wave_hours=4 / 3600)
    preset = {
        url: outcome
        for table in tables
        for url, outcome in zip(table["url"].to_pylist(), table["preset"].to_pylist(), strict=True)
    }
    assert set(preset) == set(urls)
    assert all(preset[u] == "robots_disallowed" for u in urls if "closed" in u or "private" in u)
    assert all(preset[u] is None for u in urls if "/open/" in u)


@pytest.mark.parametrize(
    ("url", "host", "name"),
    [
        ("http://a.example/x?y#z", "http://a.example", "a.example"),
        ("https://a.example:8443?x", "https://a.example:8443", "a.example"),
        ("http://user:secret@a.example/", "http://a.example", "a.example"),
        ("http://[2001:db8::1]:81/x", "http://[2001:db8::1]:81", "[2001:db8::1]"),
    ],
)
def test_a_host_is_scheme_and_authority_without_the_user(url, host, name):
    found = origins(pa.chunked_array([[url]]))
    assert found.to_pylist() == [host]
    assert hostnames(found).to_pylist() == [name]
