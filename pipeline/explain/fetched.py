"""What a wave did with a pair that it drew: its host, its lane, the server's answer."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.explain import way
from pipeline.explain.files import Files
from pipeline.explain.lookup import Place, pair_of
from pipeline.explain.story import WAITING, Step, Story, count_of
from pipeline.explain.way import Address, Planned
from wit import storage, takedown
from wit.blocklist import Blocklist, read_own
from wit.outcomes import OUTCOMES, SUCCESS
from wit.shard_rewrite import TAKEN_DOWN

BLOCKLISTED = "blocklisted"
PLACEHOLDER = "placeholder"
LISTS = {TAKEN_DOWN: takedown.LIST, BLOCKLISTED: "blocklist.parquet"}
PLACEHOLDERS = "placeholders.parquet"
EVICTED = "since a crawl was added no query draws it any more, but it stays in its shard"
ROBOTS = {
    "allow_all": "there is no robots.txt, so all is allowed",
    "rules": "its robots.txt decides",
    "disallow_all": "the server failed when asked for robots.txt, which forbids all",
    "unreachable": "no answer came for robots.txt, so nothing else was asked",
    "forbidden_address": "its address is not globally reachable, so it was not asked",
    "blocklisted": "the host is on a blocklist, so it was not asked",
}


def in_wave(
    files: Files, wave: int, place: Place, address: Address, row: dict[str, Any]
) -> tuple[tuple[str, str] | None, list[Step]]:
    """Returns the fate of a pair in a wave that drew it, None where the wave deferred it."""
    hosts = way.host_rows(files, wave, address)
    rows = [host for host in hosts if host["host"] == address.host]
    if not rows:
        said = f"wave {wave} has not asked {address.host} for its robots.txt yet"
        return (WAITING, said), []
    host = rows[0]
    steps = [host_step(files, wave, address, host, row["url"])]
    lane = way.lane_of(files, address, host["lanes"], place.text)
    try:
        planned = way.planned(files, wave, lane, place, row["priority"])
    except FileNotFoundError:
        return (WAITING, f"lane {lane} of wave {wave} is not planned yet"), steps
    if planned is None:
        steps.append(_deferred_step(files, wave, lane, address, hosts))
        return None, steps
    steps.append(_lane_step(files, wave, planned))
    table = None if planned.shard is None else files.shard(planned.shard)
    if table is None:
        key = f": sample {planned.key}" if planned.key else ""
        return (WAITING, f"planned for wave {wave}, not fetched yet{key}"), steps
    sample = table.slice(planned.index, 1).to_pylist()[0]
    steps += sample_steps(files, sample, host, row["url"], wave)
    outcome = sample["outcome"]
    return (outcome, _reason(files, sample, host, row["url"], wave)), steps


def host_step(files: Files, wave: int, address: Address, host: dict[str, Any], url: str) -> Step:
    """The host's robots.txt and its part of the wave."""
    said = f"{address.host}: {ROBOTS[host['robots']]}"
    if host["crawl_delay"]:
        said += f"; crawl delay {host['crawl_delay']:g} s"
    said += f"; {count_of(host['pairs'], 'pair')} planned in wave {wave}"
    facts = {name: host[name] for name in ("host", "hostname", "robots", "crawl_delay", "tdm")}
    facts |= {"planned_pairs": host["pairs"], "lanes": host["lanes"], "wave": wave}
    return Step("robots", said, facts)


def _deferred_step(
    files: Files, wave: int, lane: int, address: Address, hosts: list[dict[str, Any]]
) -> Step:
    planned, width = sum(host["pairs"] for host in hosts), hosts[0]["lanes"]
    budget = way.lane_budget(files, lane, address, hosts)
    rate = way.rate_of(files, max(host["crawl_delay"] or 0.0 for host in hosts)) or 0.0
    said = (
        f"deferred: lane {lane} of wave {wave} leaves it for the next wave; at {rate:g} requests a "
        f"second for {files.run.config.wave_hours:g} hours it may ask {address.hostname} for "
        f"{budget:,.0f} pictures, and {count_of(planned, 'pair')} were drawn"
    )
    if width > 1:
        said += f" for its {width} lanes"
    facts = {"wave": wave, "lane": lane, "deferred": True, "budget": budget, "drawn": planned}
    return Step("lane", said, facts)


def _lane_step(files: Files, wave: int, planned: Planned) -> Step:
    said = (
        f"lane {planned.lane} of {files.run.config.lanes}, row {planned.row:,} of {planned.rows:,}"
    )
    if planned.key:
        said += f"; sample {planned.key} of shard {planned.key[:-4]}"
    if planned.preset:
        said += f"; decided without a request: {planned.preset}"
    facts = {
        **{"wave": wave, "lane": planned.lane, "row_in_lane": planned.row, "key": planned.key},
        **{"lane_rows": planned.rows, "deferred": False, "preset": planned.preset},
    }
    return Step("lane", said, facts)


# --- the answer -------------------------------------------------------------------------------


def sample_steps(
    files: Files, sample: dict[str, Any], host: dict[str, Any] | None, url: str, wave: int
) -> list[Step]:
    """What a shard's row says of the answer and the picture."""
    outcome = sample["outcome"]
    if outcome == TAKEN_DOWN:
        return [takedown_step(files, sample["key"])]
    said = OUTCOMES[outcome][1]
    if sample["error_message"] and sample["error_message"] != outcome:
        said += f" It says: {sample['error_message']}"
    names = ("error_message", "content_type", "final_url", "original_width", "original_height")
    facts = {"key": sample["key"], "outcome": outcome, **{name: sample[name] for name in names}}
    table = []
    if sample["content_type"]:
        table.append(["content type", sample["content_type"]])
    if sample["final_url"] and sample["final_url"] != url:
        table.append(["final URL", sample["final_url"]])
    if sample["original_width"]:
        table.append(["fetched", f"{sample['original_width']:,} x {sample['original_height']:,}"])
    steps = [Step("fetch", f"{outcome}: {said}", facts, table)]
    if (more := _more(files, sample, host, url, wave)) is not None:
        steps.append(more)
    if outcome == SUCCESS:
        steps.append(stored_step(sample))
        if is_evicted(files, sample["key"]):
            facts = {"key": sample["key"], "evicted": True}
            steps.append(Step("evicted", f"{EVICTED}; evicted.parquet lists it", facts))
    return steps


def sample_story(files: Files, sample: dict[str, Any]) -> Story:
    """Returns what a shard's row alone tells, where the run's other tables are deleted."""
    pair_id, url, wave = sample["pair_id"].hex(), sample["url"], sample["wave"]
    steps = [Step(f"wave {wave}", "drawn and fetched", {"wave": wave, "pair_id": pair_id})]
    if sample["caption"] is not None:
        steps.insert(0, Step("text", f'"{sample["caption"]}"', {"text": sample["caption"]}))
    steps += sample_steps(files, sample, None, url, wave)
    reason = _reason(files, sample, None, url, wave)
    return Story("pair", url or pair_id, sample["outcome"], reason, steps)


def stored_step(sample: dict[str, Any]) -> Step:
    """Where the picture stands."""
    key, size = sample["key"], sample["image_size"]
    said = (
        f"{sample['width']:,} x {sample['height']:,}, {size:,} bytes of {sample['image_ext']} at "
        f"byte {sample['image_offset']:,} of shards/{key[:-4]}.tar"
    )
    names = ("width", "height", "image_ext", "image_offset", "image_size", "sha256")
    return Step("stored", said, {"key": key, **{name: sample[name] for name in names}})


def _reason(
    files: Files, sample: dict[str, Any], host: dict[str, Any] | None, url: str, wave: int
) -> str:
    outcome = sample["outcome"]
    if outcome == TAKEN_DOWN:
        return takedown_step(files, sample["key"]).said
    if outcome == SUCCESS:
        said = f"in the dataset as sample {sample['key']}"
        return f"{said}; {EVICTED}" if is_evicted(files, sample["key"]) else said
    more = _more(files, sample, host, url, wave)
    if more is not None:
        return more.said
    message = sample["error_message"]
    return message if message and message != outcome else OUTCOMES[outcome][1]


def _more(
    files: Files, sample: dict[str, Any], host: dict[str, Any] | None, url: str, wave: int
) -> Step | None:
    """What a run knows of an outcome beyond its meaning."""
    outcome = sample["outcome"]
    if outcome == BLOCKLISTED:
        return _listed_step(files, sample)
    if outcome == PLACEHOLDER:
        least = files.run.config.placeholder_urls
        said = (
            f"the picture with sha256 {sample['sha256']} stands under {least} URLs and more, with "
            "as many texts (--placeholder-urls): counted in its shard, or known before"
        )
        return Step("picture", said, {"sha256": sample["sha256"], "least": least})
    if outcome == SUCCESS and is_placeholder(files, sample["sha256"]):
        said = "placeholders.parquet has this picture: that it is one was known only afterwards"
        return Step("picture", said, {"sha256": sample["sha256"]})
    if outcome == "robots_disallowed" and host is not None:
        if host["robots"] != "rules":
            return Step("rule", ROBOTS[host["robots"]], {"robots": host["robots"]})
        rules = way.rules_of(files, wave, way.address_of(url))
        token = files.run.config.product_token
        line = way.forbidding_line(rules, token, url) if rules and token else None
        if line is not None:
            said = f"robots.txt of {host['host']} says to {token}: {line}"
            return Step("rule", said, {"robots": "rules", "rule": line})
    return None


def is_evicted(files: Files, key: str) -> bool:
    """Whether a stored picture is one that no query draws since a crawl was added."""
    table = files.table(files.run.path("evicted.parquet"), ["key"])
    return table is not None and pc.index(table["key"], key).as_py() >= 0


# --- lists ------------------------------------------------------------------------------------


def own_list(files: Files, name: str) -> Blocklist:
    """Returns a list in the run's folder; an empty one where it has none."""
    return files.kept(name, lambda: read_own(files.run.path(name)))


def is_placeholder(files: Files, sha256: str | None) -> bool:
    """Whether a stored picture is known as a placeholder at the end of the run."""
    known = own_list(files, PLACEHOLDERS)
    return bool(len(known)) and known.find(pa.table({"sha256": [sha256]}))[0].is_valid


def listed(files: Files, place: Place, row: dict[str, Any]) -> str | None:
    """Returns the outcome of the list that means a candidate, None where none does."""
    table = pa.table(
        {"pair_id": pair_of(place), "url": [row["url"]], "page_url": [row["page_url"]]}
    )
    for outcome, name in LISTS.items():
        entries = own_list(files, name)
        if len(entries) and entries.find(table)[0].is_valid:
            return outcome
    return None


def takedown_step(files: Files, key: str) -> Step:
    """What the log of takedowns keeps: nothing of the picture, its text or its addresses."""
    log = takedown.read_log(files.run.out)
    lines = [line for line in log if key[:-4] in line["shards"]]
    said = "taken out of the dataset" if lines else "kept out since something was taken down"
    table = [
        [line["when"], line["reason"] or "no reason given", count_of(line["samples"], "sample")]
        for line in lines or log
    ]
    names = ("when", "reason", "samples")
    facts = {"key": key, "takedowns": [{n: line[n] for n in names} for line in lines or log]}
    return Step(TAKEN_DOWN, f"{said}; takedown.jsonl says when and why", facts, table)


def _listed_step(files: Files, sample: dict[str, Any]) -> Step | None:
    """Which list keeps a row out, and by what."""
    names = ("pair_id", "url", "page_url", "final_url", "sha256")
    table = pa.table({name: [sample[name]] for name in names if sample[name] is not None})
    table = table.cast(
        pa.schema(
            [(f.name, pa.binary(16) if f.name == "pair_id" else f.type) for f in table.schema]
        )
    )
    kind = own_list(files, LISTS[BLOCKLISTED]).find(table)[0].as_py()
    record = files.run.path("blocklist.json")
    paths = sorted(storage.read_json(record)["files"]) if storage.exists(record) else []
    if kind is None:
        return None
    said = f"listed by its {kind} in {' or '.join(paths) or 'a list of --blocklist'}"
    return Step("list", said, {"by": kind, "lists": paths})
