"""What the page of a query list shows, gathered from the list and the tables it was joined from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from query_list.forms import cut_off, usable
from query_list.lists import names_in, source_codes, sources_of
from query_list.run import SOURCES
from query_list.views import wiki_codes
from wit import text
from wit.hashing import hash64

SHOWN = 25  # rows of a ranking, and on either side of a threshold
LONGEST_SHOWN = 12
MOST_TOKENS = 9  # lengths from here on are one row
TITLES = dict(zip(SOURCES, ("words", "bigrams", "titles", "WordNet"), strict=True))
MEASURES = dict(zip(SOURCES, ("count", "pmi", "views"), strict=False))
# Sizes of MetaCLIP's list (Xu et al. 2024, table 1), in the order in which it adds its sources.
PUBLISHED = {"wordnet": 86_654, SOURCES[0]: 251_465, SOURCES[1]: 100_646, SOURCES[2]: 61_235}
PAGES = (  # what becomes of a page of a dump
    ("articles", "read"),
    ("redirects", "their views count for the article they lead to"),
    ("other_namespaces", "talk, users, templates, categories, ..."),
    ("other_models", "not wikitext"),
    ("too_large", "over 64 MB"),
    ("not_utf8", "cannot be read"),
)
MALFORMED = "malformed: "
KEYS = {  # the order of `query_list.join`; words, which it does not cut, of one count by chance
    "count": [("count", -1), ("query_hash", 1)],
    "pmi": [("pmi", -1), ("count", -1), ("query", 1)],
    "views": [("views", -1), ("query", 1)],
}


@dataclass(frozen=True)
class Entry:
    """One query with its numbers, and what else names it: `sources` without the one shown."""

    query: str
    count: int | None = None
    pmi: float | None = None
    views: int | None = None
    articles: int | None = None
    tokens: int | None = None
    characters: int | None = None
    sources: Sequence[str] = ()


@dataclass(frozen=True)
class Source:
    """One source: its threshold in words, and its queries.

    `size` of them are in the list, `new` are not of a source before it in the paper's order,
    `new_there` in MetaCLIP's order, and `published` is what MetaCLIP's list has in that place.
    """

    title: str
    says: str
    size: int
    new: int
    new_there: int
    published: int


@dataclass(frozen=True)
class Ranking:
    """A source's queries by its measure (count, pmi or views).

    `top` are the first; around the threshold `inside` are the last that reach it, `outside` the
    first that do not.
    """

    title: str
    measure: str
    threshold: float
    top: Sequence[Entry]
    inside: Sequence[Entry]
    outside: Sequence[Entry]


@dataclass(frozen=True)
class Tally:
    """A whole and its parts as (name, meaning, count), each thing counted in one part."""

    whole: int
    parts: Sequence[tuple[str, str, int]]


@dataclass(frozen=True)
class Input:
    """A file that was read."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ListPage:
    """Everything the page shows.

    `overlaps` are (sources, queries that have exactly these), `lengths` (tokens, queries of each
    source, queries), `meaningless` (source, forms that reach its threshold and mean nothing alone),
    `corpus` and `facts` (label, value) lines.
    """

    wiki: str
    queries: int
    never_matching: int
    facts: Sequence[tuple[str, str]]
    sources: Sequence[Source]
    overlaps: Sequence[tuple[Sequence[str], int]]
    rankings: Sequence[Ranking]
    most_tokens: Sequence[Entry]
    most_characters: Sequence[Entry]
    ambiguous: Sequence[Entry]
    ambiguous_count: int
    lengths: Sequence[tuple[str, Sequence[int], int]]
    meaningless: Sequence[tuple[str, int]]
    pages: Tally
    corpus: Sequence[tuple[str, str]]
    views: Tally
    inputs: Sequence[Input]


def gather(
    table: pa.Table,
    facts: Mapping[str, Any],
    words: pa.Table,
    bigrams: pa.Table,
    titles: pa.Table,
) -> ListPage:
    """Gathers what the page shows.

    Args:
        table: `wit.pairs.QUERIES`, the list.
        facts: as queries.json has them (`query_list.finish`).
        words: columns word, count: those of the list, and below its threshold those that are told.
        bigrams: query, count, pmi: all that are frequent enough.
        titles: query, views, articles: all forms.
    """
    codes = source_codes(table, SOURCES)
    language = wiki_codes(facts["wiki"])[0]
    evidence = (words.rename_columns(["query", "count"]), bigrams, titles)
    thresholds = {"count": facts["asked"]["word_count"], **facts["thresholds"]}
    rankings = []
    for place, (name, found) in enumerate(zip(MEASURES, evidence, strict=True)):
        members = table.filter(pa.array(codes >> place & 1 == 1))
        if len(members):
            threshold = thresholds[MEASURES[name]]
            rankings.append(_ranking(name, threshold, members, found, table, language))
    forms = text.spaced(table["query"])
    measured = table.append_column("tokens", pc.add(pc.count_substring(forms, " "), 1))
    measured = measured.append_column("characters", pc.utf8_length(table["query"]))
    several = titles.filter(pc.greater(titles["articles"], 1))
    several = several.filter(pc.is_in(several["query"], table["query"].combine_chunks()))
    return ListPage(
        wiki=facts["wiki"],
        queries=len(table),
        never_matching=facts["never_matching"],
        facts=_facts(facts),
        sources=_sources(codes, facts),
        overlaps=_overlaps(table),
        rankings=rankings,
        most_tokens=_longest(measured, "tokens", "characters"),
        most_characters=_longest(measured, "characters", "tokens"),
        ambiguous=_entries(_best(several, [("articles", -1), ("views", -1), ("query", 1)], SHOWN)),
        ambiguous_count=len(several),
        lengths=_lengths(measured["tokens"].to_numpy(), codes),
        meaningless=[(TITLES[name], count) for name, count in facts["meaningless_alone"].items()],
        pages=_pages(facts["dumps"]),
        corpus=_corpus(facts["dumps"]),
        views=_views(facts["page_views"]),
        inputs=[Input(**entry) for entry in facts["inputs"]],
    )


# --- rankings ---------------------------------------------------------------------------------


def _ranking(
    name: str,
    threshold: float,
    members: pa.Table,
    evidence: pa.Table,
    table: pa.Table,
    language: str,
) -> Ranking:
    """What stands at the top of a source and around its threshold."""
    measure = MEASURES[name]
    keys = KEYS[measure]
    lowest = pc.min(members[measure]).as_py()
    last = _best(members, [(key, -way) for key, way in keys], SHOWN)
    first = _best(_outside(evidence, measure, lowest, members, language), keys, SHOWN)
    place = pc.index_in(first["query"], table["query"].combine_chunks())
    first = first.append_column("sources", table["sources"].combine_chunks().take(place))
    return Ranking(
        TITLES[name],
        measure,
        threshold,
        _entries(_best(members, keys, SHOWN), name),
        _entries(last, name)[::-1],
        _entries(first, name),
    )


def _outside(
    evidence: pa.Table, measure: str, lowest: float, members: pa.Table, language: str
) -> pa.Table:
    """What the source has that would come next, were there more room; with string queries."""
    values = evidence[measure].cast(members[measure].type, safe=False)
    near = evidence.set_column(evidence.column_names.index(measure), measure, values)
    near = near.filter(pc.less_equal(values, lowest))
    queries = near["query"].cast(pa.string()).combine_chunks()
    near = near.set_column(near.column_names.index("query"), "query", queries)
    fit = usable(queries, language)
    if measure == "pmi":
        fit &= ~cut_off(queries, language)
    tied = np.flatnonzero(pc.equal(near[measure], lowest))
    inside = pc.is_in(queries.take(pa.array(tied)), members["query"].combine_chunks())
    fit[tied[inside.to_numpy(zero_copy_only=False)]] = False
    near = near.filter(pa.array(fit))
    return near.append_column("query_hash", pa.array(hash64(near["query"])))


def _best(table: pa.Table, keys: Sequence[tuple[str, int]], count: int) -> pa.Table:
    """The first rows in an order (1 ascending, -1 descending), without sorting the others."""
    name, way = keys[0]
    values = table[name].to_numpy()
    if len(values) > count:
        place = count - 1 if way > 0 else len(values) - count
        bound = np.partition(values, place)[place]
        table = table.filter(pa.array(values <= bound if way > 0 else values >= bound))
    order = [(key, "ascending" if way > 0 else "descending") for key, way in keys]
    return table.sort_by(order).slice(0, count)


def _entries(table: pa.Table, source: str = "") -> list[Entry]:
    """The rows of a small table."""
    known = [name for name in Entry.__dataclass_fields__ if name in table.column_names]
    rows = table.select(known).to_pylist()
    for row in rows:
        others = [name for name in row.get("sources") or [] if name != source]
        row["sources"] = [TITLES.get(name, name) for name in others]
    return [Entry(**row) for row in rows]


def _longest(table: pa.Table, first: str, second: str) -> list[Entry]:
    return _entries(_best(table, [(first, -1), (second, -1), ("query", 1)], LONGEST_SHOWN))


# --- sizes ------------------------------------------------------------------------------------


def _sources(codes: np.ndarray, facts: Mapping[str, Any]) -> list[Source]:
    says = _thresholds(facts)
    new, there = _new(codes, list(SOURCES)), _new(codes, list(PUBLISHED))
    rows = []
    for place, name in enumerate(SOURCES):
        size = int(np.count_nonzero(codes >> place & 1))
        said = says[name] if size else "none in this list"
        rows.append(Source(TITLES[name], said, size, new[name], there[name], PUBLISHED[name]))
    return rows


def _new(codes: np.ndarray, order: Sequence[str]) -> dict[str, int]:
    """What each source has that those before it in an order have not."""
    found, before = {}, 0
    for name in order:
        bit = 1 << SOURCES.index(name)
        found[name] = int(np.count_nonzero((codes & bit != 0) & (codes & before == 0)))
        before |= bit
    return found


def _thresholds(facts: Mapping[str, Any]) -> dict[str, str]:
    asked, reached = facts["asked"], facts["thresholds"]
    how = {
        name: "as asked" if asked[f"least_{name}"] is not None else "found from the size"
        for name in ("pmi", "views")
    }
    says = {SOURCES[0]: f"at least {asked['word_count']:,} times in the text"}
    if reached["pmi"] is not None:
        says[SOURCES[1]] = (
            f"PMI of at least {reached['pmi']:.4f} bits ({how['pmi']}), at least "
            f"{asked['bigram_count']:,} times"
        )
    if reached["views"] is not None:
        says[SOURCES[2]] = f"at least {reached['views']:,} views ({how['views']})"
    if "wordnet" in facts:
        synsets, version = facts["wordnet"]["synsets"], facts["wordnet"]["version"]
        says["wordnet"] = f"all lemmas of {synsets:,} synsets of WordNet {version}"
    return says


def _overlaps(table: pa.Table) -> list[tuple[list[str], int]]:
    names = sources_of(table)
    sets, sizes = np.unique(source_codes(table, names), return_counts=True)
    return [
        ([TITLES.get(name, name) for name in names_in(int(sets[i]), names)], int(sizes[i]))
        for i in np.argsort(-sizes, kind="stable")
    ]


def _lengths(tokens: np.ndarray, codes: np.ndarray) -> list[tuple[str, list[int], int]]:
    rows = []
    capped = np.minimum(tokens, MOST_TOKENS)
    for length in range(1, int(capped.max(initial=0)) + 1):
        these = codes[capped == length]
        each = [int(np.count_nonzero(these >> place & 1)) for place in range(len(SOURCES))]
        rows.append((f"{length}{'+' * (length == MOST_TOKENS)}", each, len(these)))
    return rows


# --- what was read ----------------------------------------------------------------------------


def _facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    asked, shares = facts["asked"], facts["shares"]
    planned, brought = (
        " and ".join(f"{count:,} {TITLES[name]}" for name, count in shares[key].items())
        for key in ("planned", "brought")
    )
    taken = "as planned" if planned == brought else f"planned were {planned}"
    ratio = " : ".join(f"{part:,.12g}" for part in asked["ratio"])
    return [
        ("Wikipedia", facts["wiki"]),
        ("normal form", facts["normalisation"]),
        ("asked for", f"{asked['size']:,} queries; new bigrams to new titles as {ratio}"),
        (
            "of the rest",
            f"{brought} of the {shares['budget']:,} left by words and WordNet, {taken}",
        ),
    ]


def _pages(dumps: Mapping[str, Any]) -> Tally:
    reasons = [name for name in dumps if name.startswith(MALFORMED)]
    parts = [(name.replace("_", " "), says, dumps.get(name, 0)) for name, says in PAGES]
    parts += [("malformed", name.removeprefix(MALFORMED), dumps[name]) for name in sorted(reasons)]
    return Tally(dumps.get("pages", 0), [part for part in parts if part[2]])


def _corpus(dumps: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("unpacked", f"{dumps.get('bytes', 0):,} bytes"),
        ("plain text", f"{dumps.get('text_bytes', 0):,} bytes"),
        ("words", f"{dumps.get('tokens', 0):,}"),
        ("distinct", f"{dumps.get('distinct_words', 0):,} words"),
    ]


def _views(views: Mapping[str, Any]) -> Tally:
    found = views.get("found", 0)
    parts = [
        ("of articles", f"{views.get('found_views', 0):,} views, redirects and mobile among them",
         found),
        ("of no article", "a page of another kind, or one that the dump lacks",
         views.get("of_wiki", 0) - found),
        ("untitled", "the title is “-”", views.get("untitled", 0)),
        ("other wikis", "not of this Wikipedia", views.get("other_wikis", 0)),
    ]  # fmt: skip
    parts += [("malformed", why, n) for why, n in sorted(views.get("malformed", {}).items())]
    return Tally(views.get("lines", 0), [part for part in parts if part[2]])
