"""The dataset's card (README.md, as Hugging Face reads it), and beside it croissant.json.

Everything in it is read from the run's finished files: run.json, manifest.json, coverage.parquet,
hosts.parquet and the shards' stats, whose times are the only dates. The same run gives the same
bytes.

A card is for a person to complete: what stands in its front matter beside the computed entries
(`configs`, `size_categories`, and `language` where it was identified) and what stands below MARK
stay when the harvest's command is run again. A README.md without MARK is somebody's own, and is
left as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.compute as pc
import yaml

from pipeline import croissant
from pipeline.fetch.policy import FetchPolicy
from pipeline.report.gather import sum_traits
from pipeline.run import Run, read_many
from pipeline.tally import REASONS
from pipeline.traits import UNKNOWN
from wit import page, shards, storage
from wit.errors import UserError
from wit.outcomes import OUTCOMES, SUCCESS

CARD, CROISSANT, MANIFEST = "README.md", "croissant.json", "manifest.json"
MARK = "<!-- Everything below this line is yours: `wit harvest` keeps it. -->"
FRONT = re.compile(r"\A---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)
CRAWL = re.compile(r"CC-MAIN-\d{4}-\d{2}|CC-NEWS/\d{4}/\d{2}")
SHOWN_SOURCES = 20
LANGUAGE_SHARE = 0.01  # of the pairs, from which on a language is named
KEPT_OUT = (  # outcomes that are somebody's wish
    "robots_disallowed",
    "robots_unreachable",
    "opted_out",
    "host_paused",
    "blocklisted",
    "taken_down",
)
UNSET_LICENSE = "other"


@dataclass(frozen=True)
class Facts:
    """What a finished run says of itself.

    Attributes:
        name: of the folder.
        config: run.json without its sources.
        sources: (what, number of files) of the sources, the most first; local folders unnamed.
        source_files: how many there are.
        manifest: manifest.json, with the funnel.
        fates: (reason, count, meaning) of the funnel, in the order of a candidate's way.
        queries: counts of queries: listed, matched, present, short.
        hosts: how many hosts had a pair selected.
        began, ended: when the first shard was begun and the last was finished, as ISO 8601 in UTC;
            None without shards.
        languages: codes of ISO 639, the most frequent first; empty where none was identified.
        contact: by which hosts were told to reach whoever harvests; empty where it is unknown.
    """

    name: str
    config: dict[str, Any]
    sources: list[tuple[str, int]]
    source_files: int
    manifest: dict[str, Any]
    fates: list[tuple[str, int, str]]
    queries: dict[str, int]
    hosts: int
    began: str | None
    ended: str | None
    languages: list[str]
    contact: str

    @property
    def pairs(self) -> int:
        """Pictures with their texts that stand in the shards."""
        return self.manifest["totals"]["outcomes"].get(SUCCESS, 0)

    @property
    def count_of(self) -> dict[str, int]:
        """The funnel's counts by reason."""
        return {name: count for name, count, _ in self.fates}


def write(run: Run, later: Mapping[str, str], contact: str = "") -> None:
    """Writes README.md and croissant.json of a run whose other files are finished.

    later: what the funnel's reasons between matching and fetching mean.

    Raises:
        UserError: for a README.md of ours whose front matter has become unreadable.
    """
    path = run.path(CARD)
    old = storage.read_bytes(path).decode(errors="replace") if storage.exists(path) else None
    facts = gather(run, later, contact)
    front = front_matter(facts, read_front(path, old) if old and MARK in old else {})
    storage.write_json(run.path(CROISSANT), croissant.describe(facts, front, run.out))
    if old is None or MARK in old:
        notes = old.partition(MARK)[2] if old else ""
        storage.write_bytes(path, render(facts, front, notes).encode())


# --- what the run says ------------------------------------------------------------------------


def gather(run: Run, later: Mapping[str, str], contact: str) -> Facts:
    """Reads what the card says out of a run's files."""
    manifest = storage.read_json(run.path(MANIFEST))
    config = {k: v for k, v in storage.read_json(run.path("run.json")).items() if k != "sources"}
    meanings = {**REASONS, **later, **{name: text for name, (_, text) in OUTCOMES.items()}}
    funnel = manifest["funnel"]
    fates = [(name, funnel[name], text) for name, text in meanings.items() if funnel.get(name)]
    names = shards.list_shards(run.path("shards"))
    began, ended = dates(run, names)
    return Facts(
        name=run.out.rstrip("/").rpartition("/")[2],
        config=config,
        sources=source_groups([source["path"] for source in run.config.sources]),
        source_files=len(run.config.sources),
        manifest=manifest,
        fates=fates,
        queries=query_counts(run),
        hosts=len(storage.read_table(run.path("hosts.parquet"), ["pairs"])),
        began=began,
        ended=ended,
        languages=languages(run),
        contact=contact,
    )


def source_groups(paths: list[str]) -> list[tuple[str, int]]:
    """Returns (what, number of files): a crawl's name, a URL, or a file's bare name.

    Folders, buckets and what may be a password in a URL are nobody's business.
    """
    groups: Counter[str] = Counter()
    for path in paths:
        crawl, parts = CRAWL.search(path), urlsplit(path)
        web = parts.scheme in ("http", "https") and parts.hostname
        name = parts.path.rpartition("/")[2] or "?"
        groups[crawl[0] if crawl else f"{web}{parts.path}" if web else name] += 1
    return sorted(groups.items(), key=lambda item: (-item[1], item[0]))


def dates(run: Run, names: list[str]) -> tuple[str | None, str | None]:
    """Returns when the first shard was begun and the last was finished (ISO 8601, UTC)."""
    paths = [run.path("shards", f"{name}_stats.json") for name in names]
    spans = [(found["start_time"], found["end_time"]) for found in read_many(paths)]
    if not spans:
        return None, None
    began, ended = min(start for start, _ in spans), max(end for _, end in spans)
    return moment(began), moment(ended)


def moment(seconds: float) -> str:
    """Returns a time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def query_counts(run: Run) -> dict[str, int]:
    """Returns how many queries there are, and how many match, have a pair, or miss some."""
    columns = ["matched", "present", "short_by"]
    table = storage.read_table(run.path("coverage.parquet"), columns)
    found = {name: pc.sum(pc.greater(table[name], 0)).as_py() or 0 for name in columns}
    return {
        "listed": len(table),
        "matched": found["matched"],
        "present": found["present"],
        "short": found["short_by"],
    }


def languages(run: Run) -> list[str]:
    """Returns the languages of the texts: those that were asked for, or those that were found.

    Without identification the texts may be in any language, and none is named.
    """
    if run.config.languages:
        return sorted({code.partition("-")[0] for code in run.config.languages})
    if not run.config.identify_language:
        return []
    counts: Counter[str] = Counter()
    for code, number in sum_traits(run)["language"].items():
        if code != UNKNOWN:
            counts[code.partition("-")[0]] += number
    known = sum(counts.values())
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [code for code, n in ranked if code != "un" and n >= LANGUAGE_SHARE * known]


# --- the card ---------------------------------------------------------------------------------


def read_front(path: str, card: str) -> dict[str, Any]:
    """Returns the front matter of a card that was written before, with what was added to it."""
    found = FRONT.match(card.replace("\r\n", "\n"))
    try:
        front = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise UserError(
            f"{path}: its front matter is not YAML ({said}); mend it or delete the file, then run "
            "the same command again"
        ) from error
    if not isinstance(front, dict):
        raise UserError(f"{path}: its front matter is no list of `name: value`; mend it")
    return front


def front_matter(facts: Facts, kept: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the card's front matter: what is computed, over what was `kept`, over defaults."""
    front: dict[str, Any] = {
        "pretty_name": facts.name,
        "license": UNSET_LICENSE,
        "task_categories": ["zero-shot-image-classification", "image-to-text", "text-to-image"],
        "tags": ["image-text-pairs", "clip", "webdataset", "croissant"],
        **{name: value for name, value in kept.items() if name not in ("configs", "language")},
        "size_categories": [size_category(facts.pairs)],
    }
    if facts.languages or kept.get("language"):
        front["language"] = facts.languages or kept["language"]
    if facts.pairs:
        tars = [{"split": "train", "path": "shards/*.tar"}]
        front["configs"] = [{"config_name": "default", "data_files": tars}]
    return front


def size_category(pairs: int) -> str:
    """Returns the Hub's name of a dataset's size: n<1K, 1K<n<10K, ... n>1T."""
    if pairs < 1_000:
        return "n<1K"
    exponent = len(str(pairs)) - 1
    if exponent >= 12:
        return "n>1T"
    low, high = (f"{10 ** (n % 3)}{'KMBT'[n // 3 - 1]}" for n in (exponent, exponent + 1))
    return f"{low}<n<{high}"


def render(facts: Facts, front: Mapping[str, Any], notes: str = "") -> str:
    """Returns the card; `notes` stand below MARK."""
    environment = page.environment(Path(__file__).parent / "templates", html=False)
    environment.filters |= {"count": lambda n: f"{n:,}", "code": code, "cell": cell}
    body = environment.get_template("card.md").render(
        facts=facts,
        config=facts.config,
        fetch={f.name: f.default for f in fields(FetchPolicy)} | facts.config["fetch"],
        sources=facts.sources[:SHOWN_SOURCES],
        more_sources=max(0, len(facts.sources) - SHOWN_SOURCES),
        kept_out=[(n, facts.count_of.get(n, 0)) for n in KEPT_OUT],
        failed=[(n, c, m) for n, c, m in facts.fates if n in OUTCOMES and n != SUCCESS],
        unset=front["license"] == UNSET_LICENSE and not front.get("license_name"),
    )
    head = yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{head}---\n{body.rstrip()}\n\n{MARK}{notes or chr(10)}"


def code(text: str) -> str:
    """A text from outside as code in Markdown: in one line, and never more than code."""
    return "`" + " ".join(str(text).replace("`", "'").split()) + "`"


def cell(text: str) -> str:
    """A text of our own in a table's cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
