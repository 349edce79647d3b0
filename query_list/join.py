"""The four sources joined to one list of at most `size` queries.

Radford et al. 2021, section 2.2: all words that occur at least 100 times in the English Wikipedia,
"augmented with all bi-grams with high pointwise mutual information as well as the names of all
Wikipedia articles above a certain search volume. Finally all WordNet synsets not already in the
query list are added." Words and WordNet stand in the list whole. What they leave of `size` is
shared: bigrams, by descending PMI, bring their part of new queries, titles, by descending views,
the rest; what one cannot fill goes to the other. So are the two thresholds found that the paper
does not give; a threshold that is given is taken instead.

A query names every source whose threshold it reaches. Bigrams of one PMI come by descending count,
then by text (in bytes); titles of equal views by text: of those at a threshold, some may be left
out. PMI is compared in the precision of the list (float32), so the list itself proves its rule.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from query_list.forms import cut_off, usable
from query_list.run import SOURCES
from wit.errors import UserError
from wit.hashing import hash64
from wit.pairs import QUERIES

SIZE = 500_000
RATIO = (100_646, 61_235)  # new bigrams to new titles in MetaCLIP's list (Xu et al. 2024, table 1)


@dataclass
class _Ranked:
    """A source that is cut: its usable rows by descending rank, and how far down they are taken."""

    table: pa.Table  # query and what it is ranked by; `size` + 1 rows at least, if it has them
    value: str  # the column that its threshold is of
    given: float | None  # a threshold that is not found but given
    meaningless: np.ndarray  # the values of rows that mean nothing alone
    taken: pa.Array  # the new queries that it brings
    threshold: float | None = None  # the lowest value admitted; None: nothing is

    def values(self) -> np.ndarray:
        return self.table[self.value].to_numpy()

    def take_new(self, known: list[pa.Array], room: int) -> None:
        """Takes the first queries that stand in none of the known lists, as many as have room.

        Where a threshold is given: of the rows that reach it.
        """
        values = self.values()
        new = ~_among(self.table["query"], pa.concat_arrays(known))
        if self.given is not None:
            new &= values >= self.given
        rows = np.flatnonzero(new)
        self.taken = _strings(self.table["query"].take(pa.array(rows[:room])))
        if self.given is not None:
            self.threshold = self.given
        elif len(rows) > room:  # what is left marks the threshold
            self.threshold = values[rows[room - 1]].item() if room else None
        else:
            self.threshold = values[-1].item() if len(values) else None

    def reaching(self) -> np.ndarray:
        """Returns bool [n]: the rows that reach the threshold."""
        nothing = self.threshold is None
        return np.zeros(len(self.table), bool) if nothing else self.values() >= self.threshold

    def reaching_queries(self) -> pa.Array:
        return _strings(self.table["query"].filter(pa.array(self.reaching())))

    def silent(self) -> int:
        """How many rows that mean nothing alone reach the threshold."""
        return 0 if self.threshold is None else int((self.meaningless >= self.threshold).sum())

    def edge(self, queries: pa.Array) -> dict[str, Any]:
        """The last row of the list that reaches the threshold, and the first row left out."""
        inside = _among(self.table["query"], queries)
        rows = np.flatnonzero(inside & self.reaching())[-1:], np.flatnonzero(~inside)[:1]
        found = [(self.table.take(pa.array(row)).to_pylist() or [None])[0] for row in rows]
        return {"last_admitted": found[0], "first_left_out": found[1]}


def join(
    words: pa.Table,
    bigrams: pa.Table,
    titles: pa.Table,
    wordnet: pa.Array,
    size: int = SIZE,
    ratio: tuple[float, float] = RATIO,
    least_pmi: float | None = None,
    least_views: int | None = None,
    language: str = "en",
) -> tuple[pa.Table, dict[str, Any]]:
    """(the list in the columns of `wit.pairs.QUERIES`, sorted by query; facts for queries.json).

    words: columns word, count; all that reach the threshold. bigrams: query, count, pmi (bits).
    titles: query, views. wordnet: strings. All are normal forms (`wit.text`), each once a source.
    `ratio`: new bigrams to new titles. `least_pmi`, `least_views`: thresholds that are given.
    `language`: of the corpus, see `forms.usable`. Where the sources have fewer than `size` queries
    the list is shorter. What must stand in the list and is more than `size` is a UserError with
    the sizes.
    """
    word, silent_words = _meaningful(_strings(words["word"]), language)
    synset, silent_synsets = _meaningful(_strings(wordnet), language)
    base = pa.concat_arrays([word, synset]).unique()
    if len(base) > size:
        raise UserError(
            f"{len(word):,} words and {len(synset):,} queries of WordNet are {len(base):,} "
            f"together, over --size {size}: raise --size or --word-count"
        )
    bigram = _ranked(_precise(bigrams), "pmi", least_pmi, size, language)
    title = _ranked(titles.select(["query", "views"]), "views", least_views, size, language)
    shares = _share(bigram, title, base, size, ratio)

    queries = pa.concat_arrays([base, bigram.taken, title.taken]).unique()
    queries = queries.take(pc.sort_indices(queries))
    reached = (word, bigram.reaching_queries(), title.reaching_queries(), synset)
    inside = np.stack([_among(queries, source) for source in reached])
    silent = (silent_words, bigram.silent(), title.silent(), silent_synsets)
    facts = {
        "queries": len(queries),
        "size": size,
        "shares": shares,
        **_sizes(inside),
        "thresholds": {"pmi": bigram.threshold, "views": title.threshold},
        "edges": {SOURCES[1]: bigram.edge(queries), SOURCES[2]: title.edge(queries)},
        "meaningless_alone": dict(zip(SOURCES, silent, strict=True)),
    }
    return _table(queries, inside, words, _precise(bigrams), titles), facts


# --- the two sources that are cut -------------------------------------------------------------


def _share(
    bigram: _Ranked, title: _Ranked, base: pa.Array, size: int, ratio: tuple[float, float]
) -> dict[str, Any]:
    """Takes new bigrams and titles; what each was to bring and what it has brought."""
    budget = size - len(base)
    part = Fraction(ratio[0]) / (Fraction(ratio[0]) + Fraction(ratio[1]))
    planned = int(budget * part + Fraction(1, 2))
    if title.given is not None:  # these titles must stand: bigrams have what they leave
        title.take_new([base], size + 1)
        _refuse_over(title, base, len(title.taken), size)
    free = planned if title.given is None else budget - len(title.taken)
    bigram.take_new([base, title.taken], free if bigram.given is None else size + 1)
    if bigram.given is not None:
        _refuse_over(bigram, base, len(bigram.taken) + len(title.taken), size)
    if title.given is None:
        title.take_new([base, bigram.taken], budget - len(bigram.taken))
        if bigram.given is None:  # bigrams have what titles cannot fill
            bigram.take_new([base, title.taken], budget - len(title.taken))
    counts = (planned, budget - planned), (len(bigram.taken), len(title.taken))
    names = SOURCES[1:3]
    planned_by, brought = (dict(zip(names, pair, strict=True)) for pair in counts)
    return {"budget": budget, "planned": planned_by, "brought": brought}


def _refuse_over(source: _Ranked, base: pa.Array, new: int, size: int) -> None:
    if len(base) + new > size:
        raise UserError(
            f"words and WordNet are {len(base):,} queries, and --min-{source.value} "
            f"{source.given:g} makes them more than --size {size}: raise one of the two"
        )


def _precise(bigrams: pa.Table) -> pa.Table:
    """Query, count and PMI, in the precision of the list."""
    pmi = bigrams["pmi"].cast(pa.float32(), safe=False)
    return bigrams.select(["query", "count"]).append_column("pmi", pmi)


def _ranked(table: pa.Table, value: str, given: float | None, size: int, language: str) -> _Ranked:
    """The usable rows that can be taken, and at least one that cannot, by rank."""
    queries = table["query"].combine_chunks()
    means = usable(queries, language)
    if value == "pmi":
        means &= ~cut_off(queries, language)
    meaningless = table[value].filter(pa.array(~means)).to_numpy()
    table = table.filter(pa.array(means))
    values = table[value].to_numpy()
    given = None if given is None else values.dtype.type(given).item()
    # Whatever stands above the first row that is left out is in the list: at most `size` rows.
    most = size + 1 + (0 if given is None else int(np.count_nonzero(values >= given)))
    if len(values) > most:
        lowest = np.partition(values, len(values) - most)[len(values) - most]
        table = table.filter(pa.array(values >= lowest))
    falling = [name for name in (value, "count") if name in table.column_names]
    table = table.sort_by([*((name, "descending") for name in falling), ("query", "ascending")])
    if len(table["query"].unique()) < len(table):
        raise ValueError(f"the source with {value} has a query twice")
    return _Ranked(table, value, given, meaningless, pa.array([], pa.string()))


# --- the list ---------------------------------------------------------------------------------


def _meaningful(queries: pa.Array, language: str) -> tuple[pa.Array, int]:
    """(the usable ones, how many are not)."""
    means = usable(queries, language)
    return queries.filter(pa.array(means)), int(np.count_nonzero(~means))


def _table(
    queries: pa.Array, inside: np.ndarray, words: pa.Table, bigrams: pa.Table, titles: pa.Table
) -> pa.Table:
    """The list; inside bool [4, n]: of which sources each query is."""
    names = [[s for i, s in enumerate(SOURCES) if code >> i & 1] for code in range(16)]
    codes = (inside * (1 << np.arange(4))[:, None]).sum(axis=0)
    word_count = _known(queries, words["word"], words["count"])
    count = pc.coalesce(word_count, _known(queries, bigrams["query"], bigrams["count"]))
    columns = {
        "query_id": pa.array(np.arange(len(queries), dtype=np.int32)),
        "query_hash": pa.array(hash64(queries)),
        "query": queries,
        "sources": pa.array(names, pa.list_(pa.string())).take(pa.array(codes)),
        "count": count.cast(pa.int64()),
        "pmi": _known(queries, bigrams["query"], bigrams["pmi"]),
        "views": _known(queries, titles["query"], titles["views"]).cast(pa.int64()),
    }
    return pa.table(columns, schema=QUERIES)


def _known(queries: pa.Array, names: pa.ChunkedArray, values: pa.ChunkedArray) -> pa.Array:
    """A source's value for each query, null where it has none."""
    mine = pa.array(_among(names, queries))
    rows = pc.index_in(queries, _strings(names.filter(mine)))
    return values.filter(mine).combine_chunks().take(rows)


def _among(queries: pa.Array | pa.ChunkedArray, listed: pa.Array) -> np.ndarray:
    """Returns bool [n]: the queries that stand in the list."""
    found = pc.is_in(queries, listed.cast(queries.type))
    return np.asarray(
        found.to_numpy(zero_copy_only=False) if isinstance(found, pa.Array) else found
    )


def _strings(queries: pa.Array | pa.ChunkedArray) -> pa.Array:
    queries = queries.cast(pa.string())
    return queries.combine_chunks() if isinstance(queries, pa.ChunkedArray) else queries


def _sizes(inside: np.ndarray) -> dict[str, Any]:
    first = inside & (np.cumsum(inside, axis=0) == 1)
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    return {
        "queries_per_source": dict(zip(SOURCES, inside.sum(axis=1).tolist(), strict=True)),
        # In the paper's order: what a source brings that those before it have not.
        "new_per_source": dict(zip(SOURCES, first.sum(axis=1).tolist(), strict=True)),
        "overlap": [
            {"sources": [SOURCES[i], SOURCES[j]], "queries": int((inside[i] & inside[j]).sum())}
            for i, j in pairs
        ],
    }
