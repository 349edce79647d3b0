"""The end of a build: the sources joined to the list, and what is said of it."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from query_list import forms, page, work
from query_list.inputs import CIRRUS
from query_list.join import join
from query_list.run import Run
from query_list.titles import title_forms
from query_list.views import wiki_codes
from query_list.wordnet import read_wordnet
from wit import storage


def write_list(run: Run) -> dict[str, Any]:
    """Writes queries.parquet, queries.json and queries.html; returns what the JSON says.

    Raises:
        UserError: where words and WordNet alone are more than the list may have.
    """
    config = run.config
    words, bigrams = work.read_words(run), work.read_bigrams(run)
    titles = read_titles(run)
    lexicon = read_wordnet(config.wordnet) if config.wordnet else None
    table, joined = join(
        words.filter(pc.greater_equal(words["count"], config.word_count))
        if "wikipedia_word" in config.sources
        else words.slice(0, 0),
        bigrams,
        titles,
        lexicon.queries() if lexicon else pa.array([], pa.string()),
        size=config.size,
        ratio=tuple(config.ratio),
        least_pmi=config.least_pmi,
        least_views=config.least_views,
        language=wiki_codes(config.wiki)[0],
    )
    wrong = forms.never_matching(table["query"].combine_chunks())
    if len(wrong):
        raise RuntimeError(f"queries that never match: {wrong.to_pylist()[:5]}")
    facts = {
        "kind": "wikipedia",
        "wiki": config.wiki,
        "normalisation": config.normalisation,
        "queries": len(table),
        "never_matching": len(wrong),
        "asked": {
            name: getattr(config, name)
            for name in ("size", "ratio", "word_count", "bigram_count", "least_pmi", "least_views")
        },
        "dumps": work.extracted(run) | {"distinct_words": work.distinct_words(run)},
        "page_views": work.viewed(run),
        "inputs": [
            storage.read_json(run.work("inputs", number, ".json")) for number in work.inputs(run)
        ],
        **joined,
    }
    if lexicon:
        facts["wordnet"] = {"version": lexicon.version, "synsets": lexicon.synsets}
    facts = json.loads(storage.to_json(facts))  # so that the page, too, has them in one order
    storage.write_table(run.path("queries.parquet"), table)
    storage.write_json(run.path("queries.json"), facts)
    html = page.render(page.gather(table, facts, words, bigrams, titles))
    storage.write_bytes(run.path("queries.html"), html.encode())
    return facts


def read_titles(run: Run) -> pa.Table:
    """Returns the forms of viewed titles: query, views, articles."""
    if not work.title_tasks(run):
        columns = {"query": pa.string(), "views": pa.int64(), "articles": pa.int32()}
        return pa.schema(columns).empty_table()
    xml = [entry["path"] for entry in run.config.dumps if entry["format"] != CIRRUS]
    main_page = work.site_of(xml[0]).main_page if xml else None
    index = work.load_titles(run.out)
    return title_forms(work.page_files(run), index, work.add_views(run), main_page)


def told(run: Run, facts: dict[str, Any]) -> list[str]:
    """Returns what the command prints at its end: sizes, thresholds, and where the files are."""
    lines = [f"{facts['queries']:,} queries of at most {facts['size']:,}"]
    found = facts["thresholds"]
    rules = {
        "wikipedia_word": f"at least {facts['asked']['word_count']:,} times",
        "wikipedia_bigram": _rule("PMI of at least {:.4g} bits", found["pmi"]),
        "wikipedia_title": _rule("at least {:,} views", found["views"]),
        "wordnet": "every lemma",
    }
    for name in run.config.sources:
        count, new = (facts[key][name] for key in ("queries_per_source", "new_per_source"))
        lines.append(f"  {name:<17}{count:>9,}  of these new {new:>9,}  {rules[name]}")
    if facts["queries"] < facts["size"]:
        lines.append("the sources have no more: lower --word-count or --bigram-count, or add views")
    return [
        *lines,
        f"list  {run.path('queries.parquet')}",
        f"page  {run.path('queries.html')}",
        f"facts {run.path('queries.json')}",
        f"work  {run.path('work')} (for another --size; may be removed)",
    ]


def _rule(text: str, threshold: float | None) -> str:
    return "none" if threshold is None else text.format(threshold)
