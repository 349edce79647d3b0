"""The story of a pair: from the page on which it was found to its place in a shard."""

from __future__ import annotations

from typing import Any

from pipeline.explain import draws, fetched, way
from pipeline.explain.draws import Order
from pipeline.explain.files import Files
from pipeline.explain.lookup import Place, Rows, candidate, verdict_of
from pipeline.explain.story import WAITING, Step, Story, count_of, share
from pipeline.unique import DUPLICATE_PAIR, OTHER_TEXT, SURVIVES
from wit.errors import UserError
from wit.shard_rewrite import TAKEN_DOWN

Fate = tuple[str, str]  # the word and the sentence


def pair_story(files: Files, place: Place, rows: Rows, limit: int) -> Story:
    """Returns what became of a pair, given by its first row.

    Raises:
        UserError: where the run's candidates are not there any more.
    """
    try:
        row = candidate(files, place)
    except FileNotFoundError as error:
        raise UserError(
            f"{error}: is missing, so where the pair was found is not known any more; of what was "
            "fetched, shards/*.parquet say everything"
        ) from error
    (word, reason), steps = _judged(files, place, row, rows, limit)
    if fetched.listed(files, place, row) == TAKEN_DOWN:  # candidates/ still have what it showed
        said = f"{where(files, place)}; its text and addresses are taken down"
        found = Step("found", said, {"pair_id": place.pair_id, "row": place.row})
        steps = [step for step in steps if step.name not in ("robots", "rule")]
        return Story("pair", place.pair_id, word, reason, [found, *steps])
    head = [found_step(files, place, row), text_step(files, row)]
    return Story("pair", row["url"], word, reason, [*head, *steps])


def fate_of(files: Files, place: Place, url: str) -> tuple[str, str | None]:
    """Returns the fate of a pair that survived, and the key of its sample where it has one."""
    (word, _), steps = _drawn(files, place, url, [])
    keys = [step.facts["key"] for step in steps if step.facts.get("key")]
    return word, keys[-1] if keys else None


def where(files: Files, place: Place) -> str:
    """Returns the source and row of a candidate, for a person."""
    path = files.run.config.sources[place.source]["path"]
    return f"row {place.row:,} of candidates/{place.source:06d} ({path})"


def found_step(files: Files, place: Place, row: dict[str, Any]) -> Step:
    """Where a pair was found."""
    source = files.run.config.sources[place.source]
    offset = row["record_offset"]
    is_table = source.get("kind") == "table"
    record = "" if offset is None else f", row {offset:,}" if is_table else f", byte {offset:,}"
    page = f" on {row['page_url']}" if row["page_url"] else ""
    said = f"{source['path']}{record}: {row['attribute'] or 'a text'}{page}"
    facts = {
        "pair_id": place.pair_id,
        "source": place.source,
        "row": place.row,
        "path": source["path"],
        **{name: row[name] for name in ("record_offset", "page_url", "attribute")},
    }
    return Step("found", said, facts)


def text_step(files: Files, row: dict[str, Any]) -> Step:
    """Its text, and the queries that it includes."""
    language = f" [{row['language']}]" if row["language"] else ""
    names = [files.query(q) for q in row["query_ids"]]
    said = f'"{row["text"]}"{language}; includes {count_of(len(names), "query", "queries")}'
    facts = {"text": row["text"], "language": row["language"]}
    return Step("text", said, {**facts, "query_ids": row["query_ids"], "queries": names})


# --- duplicates -------------------------------------------------------------------------------


def _judged(
    files: Files, place: Place, row: dict[str, Any], rows: Rows, limit: int
) -> tuple[Fate, list[Step]]:
    verdict = verdict_of(files, place)
    if verdict is None:
        step = Step("unique", "duplicates are not told yet")
        return (WAITING, "the run has not told duplicates yet (stages keys to count)"), [step]
    steps = [unique_step(files, place, rows, verdict, limit)]
    if verdict == DUPLICATE_PAIR:  # a pair's first row is one only where a hash fell together
        return ("duplicate_pair", steps[0].said), steps
    if verdict == OTHER_TEXT:
        return ("other_text", steps[0].said), steps
    orders = draws.orders(files, place, row["query_ids"])
    steps.append(order_step(files, orders))
    fate, more = _drawn(files, place, row["url"], orders)
    return fate, steps + more


def unique_step(files: Files, place: Place, rows: Rows, verdict: int, limit: int) -> Step:
    """Which rows of a URL stayed, and which did not."""
    again, firsts = rows.again(place), rows.firsts()
    others = [p for p in firsts if p.text != place.text][:limit]
    kept = [p for p in others if verdict_of(files, p) == SURVIVES]
    table = [
        ["duplicate_pair", f"{where(files, p)} is the same pair; the first row stays"]
        for p in again[:limit]
    ]
    if len(again) > limit:
        table.append(["", f"and {len(again) - limit:,} more duplicates"])
    for other in others:
        word = "stays" if other in kept else "other_text"
        text = _text(files, other)
        table.append([word, f'"{text}" {other.pair_id}, {where(files, other)}'])
    if len(firsts) - 1 > len(others):
        table.append(["", f"and {len(firsts) - 1 - len(others):,} more texts"])
    most = files.run.config.texts_per_image
    if verdict == SURVIVES:
        said = "stays: no other row has this pair"
        if again:
            said = f"stays: the first of {count_of(len(again) + 1, 'row')} with this pair"
        if others:
            said += f", and of {count_of(len(firsts), 'text')} of the image it is one that stays"
    elif kept:
        said = (
            f"{_who_stays(files, place, kept)} (--texts-per-image {most}): "
            f'"{_text(files, kept[0])}", {where(files, kept[0])}'
        )
    else:
        said = f"other texts of the image stay (--texts-per-image {most})"
    facts = {
        "verdict": {0: "survives", 1: "duplicate_pair", 2: "other_text"}[verdict],
        "rows": len(again) + 1,
        "texts": len(firsts),
        "survivor": {"source": place.source, "row": place.row},
        "duplicates": [{"source": p.source, "row": p.row} for p in again[:limit]],
        "stays": [
            {"pair_id": p.pair_id, "source": p.source, "row": p.row, "text": _text(files, p)}
            for p in kept
        ],
    }
    return Step("unique", said, facts, table)


def _who_stays(files: Files, lost: Place, kept: list[Place]) -> str:
    """By what the texts that stay were chosen: earlier crawls' first, then by their hashes."""
    crawl_of = files.run.crawl_of
    earlier = sum(crawl_of(place.source) < crawl_of(lost.source) for place in kept)
    if not earlier:
        return "another text of the image stays, the one with the lowest hash"
    if earlier == len(kept):
        return "what an earlier crawl has kept of the image stays, whatever the hash"
    return "what an earlier crawl has kept of the image stays, and of later texts the lowest hash"


def _text(files: Files, place: Place) -> str:
    row = candidate(files, place)
    return "(taken down)" if fetched.listed(files, place, row) == TAKEN_DOWN else row["text"]


# --- the draw ---------------------------------------------------------------------------------


def order_step(files: Files, orders: list[Order]) -> Step:
    """The pair's place in each of its queries' orders."""
    cap = files.cap()
    number = count_of(len(orders), "query", "queries")
    said = f"its place, from 0 to 1, in the order of each of {number}"
    if cap is not None:
        said += f"; a query draws {count_of(cap, 'pair')}"
    table, facts = [["query", "unique", "matched", "place", "rank", "drawn to"]], []
    for order in sorted(orders, key=lambda o: (not o.within, o.query_id)):
        row = [f"{order.query} (#{order.query_id})"]
        if order.unique is None:
            table.append([*row, "", "", share(order.priority), "", "not counted yet"])
        else:
            row += [f"{order.unique:,}", f"{order.matched:,}", share(order.priority)]
            if cap is not None and order.unique <= cap:
                table.append([*row, "", "draws all"])
            else:
                about = "" if order.exact else "about "
                table.append([*row, f"{about}{order.rank or 0:,}", _drew_to(order)])
        facts.append(
            {
                "query_id": order.query_id,
                "query": order.query,
                "matched": order.matched,
                "unique": order.unique,
                "priority": f"{order.priority:016x}",
                "thresholds": {
                    str(wave): None if last is None else f"{last:016x}"
                    for wave, last in order.thresholds.items()
                },
                "within": order.within,
                "rank": order.rank,
                "rank_is_exact": order.exact,
            }
        )
    return Step("order", said, {"cap": cap, "orders": facts}, table)


def _drew_to(order: Order) -> str:
    """The thresholds of a query, those of waves that changed nothing left out."""
    said, before = [], -1
    for wave, last in order.thresholds.items():
        if last is not None and last != before:
            said.append(f"{share(last)} (wave {wave})")
            before = last
    if not said:
        return "nothing yet"
    return f"{', '.join(said)}: {f'drawn in {order.within[0]}' if order.within else 'not drawn'}"


def _drawn(files: Files, place: Place, url: str, orders: list[Order]) -> tuple[Fate, list[Step]]:
    """What the waves did with a pair that survived."""
    address, steps, deferred = way.address_of(url), [], False
    for wave in files.waves_of(place.source):
        try:
            row = way.selected(files, wave, place, address)
        except FileNotFoundError:
            fate = WAITING, f"wave {wave} has not drawn yet (stage select)"
            return fate, [*steps, Step(f"wave {wave}", fate[1], {"wave": wave})]
        deferred = row is not None
        if row is None:
            continue
        steps.append(_selected_step(files, wave, row))
        fate, more = fetched.in_wave(files, wave, place, address, row)
        steps += more
        if fate is not None:
            return fate, steps
    if not files.is_over():
        waves = [wave for wave in files.waves() if wave in files.run.waves]
        said = f"no wave so far ({len(waves)} of {files.run.config.waves} have begun to draw)"
        said = f"{said} has drawn it; a later one may" if waves else "nothing is drawn yet"
        said = "its host's rate did not allow it yet; the next wave may" if deferred else said
        return (WAITING, said), steps
    if deferred:
        said = "drawn, but its host's rate did not allow it within the waves (--wave-hours, "
        return ("deferred", f"{said}--waves, --host-rate)"), steps
    return ("over_cap", _over_cap(files, orders)), steps


def _selected_step(files: Files, wave: int, row: dict[str, Any]) -> Step:
    names = [files.query(q) for q in row["drawn_by"]]
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    said = f"drawn by {shown}"
    facts = {"wave": wave, "drawn_by": row["drawn_by"], "queries": names}
    return Step(f"wave {wave}", said, {**facts, "priority": f"{row['priority']:016x}"})


def _over_cap(files: Files, orders: list[Order]) -> str:
    said = "each of its queries has drawn its share of other pairs"
    if not orders:
        return said
    last = files.waves()[-1]
    nearest = min(orders, key=lambda o: o.priority - (o.thresholds[last] or 0))
    return (
        f"{said}; nearest was {nearest.query}: place {share(nearest.priority)}, drawn to "
        f"{share(nearest.thresholds[last] or 0)}"
    )
