"""The story of a query: its counts, how far its order was drawn, why it is short."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import dedupe
from pipeline.balance import FAILED, FETCHED, RESERVE, UNKNOWN
from pipeline.explain import draws
from pipeline.explain.files import Files
from pipeline.explain.lookup import Place, candidate, find_url, verdict_of
from pipeline.explain.pairs import fate_of
from pipeline.explain.story import WAITING, Step, Story, count_of, share
from pipeline.queries import load_matcher
from pipeline.unique import SURVIVES
from wit import storage
from wit.hashing import pair_hashes
from wit.matching import unmatchable
from wit.outcomes import OUTCOMES, SUCCESS
from wit.text import normalise_one

SCANNED = 10_000_000  # candidates looked through for the pairs of a query below its cap
EXAMINED = 200  # pairs of a short query whose fates are counted
NEAR = 10  # queries of the list shown for one that is not in it


@dataclass(frozen=True)
class Listed:
    """A query's pairs in its order, as far as they are known.

    Attributes:
        places: where they stand.
        priorities: theirs.
        whole: whether these are all, or surely the first.
        said: how they were found, for a person.
    """

    places: list[Place]
    priorities: list[int]
    whole: bool
    said: str


def query_story(files: Files, text: str, limit: int) -> Story:
    """Returns what became of a query, given by its text or as `#` and its id."""
    query_id, form = find_query(files, text)
    if query_id is None:
        return _absent(files, text, form)
    query = files.query(query_id)
    steps = [_list_step(files, query_id, text, query)]
    counts, cap = files.counts(), files.cap()
    title = f"{query} (#{query_id})"
    if counts is None or cap is None:
        return Story("query", title, WAITING, "its pairs are not counted yet (stage count)", steps)
    matched, unique = map(int, counts[:, query_id])
    cover = coverage_of(files, query_id)
    steps.append(_counts_step(matched, unique, cap, cover))
    if matched == 0:
        said = "no text that was read includes it"
        return Story("query", title, "unmatched", said, steps)
    entries = None
    if unique > cap and (wave := draws.entry_wave(files, query_id)) is not None:
        entries = draws.read_entries(files, wave, query_id)
        steps += _wave_steps(files, query_id, wave, entries, cap)
    most = EXAMINED if cover and cover["short_by"] else 0
    found = _pairs_in_order(files, query_id, entries, max(limit, most))
    fates = _fates(files, found, limit, most)
    word, reason = _why(files, cover, cap, unique, entries, query_id)
    if word == "short":
        steps.append(_fates_step(fates))
        lost = Counter(fate for fate, _, _ in fates if fate not in (SUCCESS, "over_cap"))
        most_lost = ", ".join(f"{n:,} {fate}" for fate, n in lost.most_common(5))
        reason += f"; of its first {count_of(len(fates), 'pair')}: {most_lost or 'none'}"
    steps.append(_first_step(files, found, fates[:limit]))
    return Story("query", title, word, reason, steps)


# --- which query ------------------------------------------------------------------------------


def find_query(files: Files, text: str) -> tuple[int | None, str]:
    """Returns the query's id, None where it is not in the list, and the form that was looked up."""
    table = files.queries()
    if text.startswith("#") and text[1:].isdigit():
        query_id = int(text[1:])
        return (query_id if query_id < len(table) else None), text
    form = normalise_one(text) if files.run.config.match == "default" else text
    found = pc.index(table["query"], form).as_py()
    return (None if found < 0 else found), form


def _absent(files: Files, text: str, form: str) -> Story:
    """A query that the list does not have: why it may not be there, and which ones are near."""
    mode, left = files.run.config.match, files.run.config.queries.get("left_out", {})
    table = files.queries()
    if text.startswith("#"):
        said = f"the list has the ids 0 to {len(table) - 1:,}"
        return Story("query", text, "not_in_list", said, [])
    never = unmatchable(pa.array([text]), mode)["reason"].to_pylist()
    said = f"the list of {count_of(len(table), 'query', 'queries')} does not have {form!r}"
    if never:
        said = f"no text can match it, so a list leaves it out: {never[0]}"
    counts = ", ".join(f"{n:,} {name}" for name, n in left.items() if n)
    if counts:
        said += f" (left out when the list was read: {counts})"
    facts = {"asked": text, "form": form, "unmatchable": never[0] if never else None}
    steps = [Step("list", f"looked up as {form!r} in mode {mode}", facts)]
    if not never:
        within = load_matcher(files.run.out).match(pa.array([text]))[0].as_py()
        padded = pc.binary_join_element_wise("", table["query"], "", " ")
        around = pc.indices_nonzero(pc.match_substring(padded, f" {form} ")).to_pylist()
        for name, ids in (("a text of these words matches", within), ("longer ones", around)):
            if not ids:
                continue
            table_rows = [[files.query(q), f"#{q}"] for q in ids[:NEAR]]
            facts = {"query_ids": ids[:NEAR], "queries": [files.query(q) for q in ids[:NEAR]]}
            number = count_of(len(ids), "query", "queries")
            steps.append(Step("near", f"{name}: {number} of the list", facts, table_rows))
    return Story("query", text, "not_in_list", said, steps)


def _list_step(files: Files, query_id: int, asked: str, query: str) -> Step:
    row = files.queries().slice(query_id, 1).to_pylist()[0]
    said = [f"from {', '.join(row['sources'])}"] if row["sources"] else []
    for name, unit in (("count", "occurrences"), ("pmi", "bits of pmi"), ("views", "page views")):
        if row[name] is not None:
            said.append(f"{row[name]:,.4g} {unit}" if name == "pmi" else f"{row[name]:,} {unit}")
    if asked != query and not asked.startswith("#"):
        said.append(f"{asked!r} normalised")
    facts = {"query_id": query_id, "query": query}
    facts |= {name: row[name] for name in ("sources", "count", "pmi", "views")}
    return Step("list", "; ".join(said) or "in the list", facts)


# --- counts and waves -------------------------------------------------------------------------


def coverage_of(files: Files, query_id: int) -> dict[str, Any] | None:
    """Returns the query's row of coverage.parquet (COVERAGE), None before the run is finished."""
    table = files.table(files.run.path("coverage.parquet"))
    return None if table is None else table.slice(query_id, 1).to_pylist()[0]


def _counts_step(matched: int, unique: int, cap: int, cover: dict[str, Any] | None) -> Step:
    said = f"{count_of(matched, 'candidate')} include it, {unique:,} of them unique; cap {cap:,}"
    facts = {"matched": matched, "unique": unique, "cap": cap}
    if cover is not None:
        facts |= {name: cover[name] for name in ("drawn", "present", "short_by")}
        said += (
            f"; {cover['drawn']:,} drawn with a picture, {cover['present']:,} in the dataset with "
            f"those of other queries, short by {cover['short_by']:,}"
        )
    return Step("counts", said, facts)


def _wave_steps(
    files: Files, query_id: int, last: int, entries: np.ndarray, cap: int
) -> list[Step]:
    """How far each wave drew, and what the last one that drew anew knew of the pictures."""
    steps = []
    for wave in files.waves():
        threshold = files.thresholds(wave)[query_id]
        if wave not in files.run.waves:  # its order has become longer since
            said = f"drew its order to {share(int(threshold['priority']))}, in an earlier crawl"
            steps.append(Step(f"wave {wave}", said, {"wave": wave}))
            continue
        drawn = draws.drawn_entries(entries, threshold)
        said = f"draws the first {drawn:,} of its order, to {share(int(threshold['priority']))}"
        facts = {"wave": wave, "drawn": drawn, "threshold": f"{int(threshold['priority']):016x}"}
        if wave == last:
            known = Counter(entries["status"][:drawn].tolist())
            facts |= {"fetched": known[FETCHED], "failed": known[FAILED], "asked": known[UNKNOWN]}
            if known[FAILED] or known[FETCHED]:
                said += (
                    f": {known[FETCHED]:,} fetched and {known[FAILED]:,} failed before, "
                    f"{known[UNKNOWN]:,} to ask for"
                )
        elif wave > last:
            said += ": nothing is left to draw anew"
        steps.append(Step(f"wave {wave}", said, facts))
    return steps


def _why(
    files: Files,
    cover: dict[str, Any] | None,
    cap: int,
    unique: int,
    entries: np.ndarray | None,
    query_id: int,
) -> tuple[str, str]:
    """The query's fate: full, short and why, or waiting."""
    if cover is None or not files.is_over():
        return WAITING, "the run is not finished; what is drawn may still change"
    short = cover["short_by"]
    if not short:
        full = f"its cap of {cap:,} is full" if unique > cap else "all its pairs are there"
        return "full", full
    said = f"short by {short:,}: "
    if entries is None:
        return "short", (
            f"{said}all its {unique:,} unique pairs are drawn, as many could not be fetched"
        )
    last = files.thresholds(files.waves()[-1])[query_id]
    drawn = draws.drawn_entries(entries, last)
    if last["settled"] or drawn >= min(RESERVE * cap, unique):
        reserve = (
            f"its reserve of {RESERVE} x {cap:,} pairs"
            if unique > RESERVE * cap
            else (f"its order of {unique:,} pairs")
        )
        return "short", f"{said}{reserve} is exhausted: {drawn - cover['drawn']:,} have no picture"
    return "short", (
        f"{said}what wave {files.waves()[-1]} drew failed or was deferred, and no wave was left to "
        "draw others (--waves)"
    )


# --- its pairs --------------------------------------------------------------------------------


def _pairs_in_order(files: Files, query_id: int, entries: np.ndarray | None, most: int) -> Listed:
    if entries is None:
        return _scan(files, query_id)
    places, priorities = [], []
    for entry in entries[:most]:
        rows = find_url(files, int(entry["url"]))
        mine = [place for place in rows.firsts() if place.text == int(entry["text"])]
        places += mine[:1]
        priorities += [int(entry["priority"])] * len(mine[:1])
    return Listed(places, priorities, True, "the first in its order")


def _scan(files: Files, query_id: int) -> Listed:
    """The query's pairs, found in the candidates' query_ids: all, or those among the first rows."""
    run, looked, found = files.run, 0, []
    matched = int(files.counts()[0][query_id])
    index, seen = dedupe.load_index(run.base), 0
    for source in range(len(run.config.sources)):
        if seen == matched or looked > SCANNED:
            break
        rows, url, text = _rows_with(run.candidates(source, ".parquet"), query_id)
        seen, looked = seen + len(rows), looked + int(index[source])
        places = [Place(source, *map(int, at)) for at in zip(rows, url, text, strict=True)]
        found += [place for place in places if verdict_of(files, place) == SURVIVES]
        files.progress("candidates", looked, min(SCANNED, int(index.sum())))
    found = [(draws.priorities(files, place, [query_id])[0], place) for place in found]
    found.sort(key=lambda item: (item[0], item[1].url, item[1].text))
    whole = seen == matched
    said = "in its order" if whole else f"in its order, among the first {looked:,} candidates"
    return Listed([p for _, p in found], [at for at, _ in found], whole, said)


def _rows_with(path: str, query_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns rows, URL hashes and text hashes of a source's candidates that include a query."""
    parts, start = [], 0
    with storage.open_read(path) as file:
        parquet = pq.ParquetFile(file)
        for i in range(parquet.num_row_groups):
            table = parquet.read_row_group(i, columns=["pair_id", "query_ids"])
            lists = table["query_ids"].combine_chunks()
            ends = lists.offsets.to_numpy() - lists.offsets[0].as_py()
            hits = np.flatnonzero(lists.flatten().to_numpy() == query_id)
            rows = np.searchsorted(ends, hits, "right") - 1
            url, text = pair_hashes(table["pair_id"].take(pa.array(rows)))
            parts.append((rows + start, url, text))
            start += len(table)
    if not parts:
        empty = np.empty(0, np.int64)
        return empty, empty, empty
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _fates(files: Files, found: Listed, limit: int, most: int) -> list[tuple[str, str | None, str]]:
    """Returns fate, key and URL of the first pairs: those to show, and more where it is short."""
    fates = []
    for done, place in enumerate(found.places[: max(limit, most)], start=1):
        url = candidate(files, place)["url"]
        fates.append((*fate_of(files, place, url), url))
        files.progress("pairs of the query", done, min(len(found.places), max(limit, most)))
    return fates


def _fates_step(fates: list[tuple[str, str | None, str]]) -> Step:
    counts = Counter(word for word, _, _ in fates)
    rows = [
        [f"{n:,}", word, OUTCOMES[word][1] if word in OUTCOMES and word != SUCCESS else ""]
        for word, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    said = f"of the first {count_of(len(fates), 'pair')} in its order"
    return Step(
        "fates", said, {"examined": len(fates), "fates": dict(sorted(counts.items()))}, rows
    )


def _first_step(files: Files, found: Listed, fates: list[tuple[str, str | None, str]]) -> Step:
    rows, facts = [], []
    for number, (place, at, (word, key, url)) in enumerate(
        zip(found.places[: len(fates)], found.priorities, fates, strict=False), start=1
    ):
        rows.append([f"{number:,}", share(at), word, key or "", url])
        facts.append(
            {
                **{"rank": number if found.whole else None, "priority": f"{at:016x}"},
                **{"fate": word, "key": key, "pair_id": place.pair_id, "url": url},
                **{"source": place.source, "row": place.row},
            }
        )
    return Step("pairs", f"{found.said}: place, fate, sample", {"pairs": facts}, rows)
