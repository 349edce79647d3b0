"""Titles of a wiki: which article a title leads to, and how often each title's form was viewed.

Both work on 64-bit hashes (`wit.hashing.hash64`) and hold the strings of one file at a time: the
18 million titles of the English Wikipedia are 216 MB. Two titles with one hash count as one title:
its article is one of them, and the views of both go there. Among 18 million titles that happens
once with a probability of 1e-5 (n^2 / 2^65); for forms the same holds.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wit import storage, text
from wit.hashing import hash64

HASHES, ARTICLES = "title_hashes.npy", "title_articles.npy"
NOWHERE = -1
PIECE = 1 << 20  # hashes looked up at a time
# "Mercury (planet)", "水星（惑星）": what tells articles of one name apart; one pair more inside.
SUFFIXES = (r"(?s)^(.*\S) +\((?:[^()]|\([^()]*\))*\)$", r"(?s)^(.*\S) *（[^（）]*）$")


@dataclass(frozen=True)
class TitleIndex:
    """All titles of a wiki's articles and redirects, by position in the order of their hashes."""

    hashes: np.ndarray  # uint64 [n], ascending, distinct
    articles: np.ndarray  # int32 [n]: position of the article a title leads to; NOWHERE

    @staticmethod
    def build(paths: Sequence[str]) -> "TitleIndex":
        """Reads Parquet files with the columns title and redirect (null: an article).

        A redirect to a redirect leads to the last of them. One that ends in a circle, in a title
        that is not there or in another namespace leads NOWHERE. A title that comes twice is an
        article if one of them is; of redirects the one with the lowest hash of its target counts.
        """
        none = np.empty(0, np.uint64)
        hashes, targets, redirects = [none], [none], [np.empty(0, bool)]
        for path in paths:
            table = storage.read_table(path, ["title", "redirect"])
            hashes.append(hash64(table["title"]))
            targets.append(hash64(table["redirect"]))
            redirects.append(table["redirect"].is_valid().to_numpy())
        # A list goes as soon as it is joined, and what is unordered as soon as it is ordered.
        hashes = np.concatenate(hashes)
        targets = np.concatenate(targets)
        redirects = np.concatenate(redirects)
        order = _order(hashes, targets, redirects)
        hashes = hashes[order]
        targets = targets[order]
        redirects = redirects[order]
        del order
        return TitleIndex(hashes, _resolved(hashes, redirects, targets))

    def find(self, titles: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Returns int32 [n]: the article each title leads to, NOWHERE for unknown titles."""
        return self._article_of(_positions(self.hashes, hash64(titles)))

    def find_first_letter(self, titles: pa.Array) -> np.ndarray:
        """As `find`, on wikis that write the first letter of a title as a capital.

        A title that is not there as it stands is looked up with its first letter capitalised. That
        follows MediaWiki also where it leaves a letter as it is (the German sharp s, Georgian).
        """
        found = self.find(titles)
        missing = np.flatnonzero(found == NOWHERE)
        if len(missing):
            rest = titles.take(pa.array(missing))
            first = pc.utf8_slice_codeunits(rest, 0, 1)
            capital = pc.utf8_upper(first)
            changed = pc.not_equal(first, capital)
            tail = pc.utf8_slice_codeunits(rest.filter(changed), 1)
            capitalised = pc.binary_join_element_wise(capital.filter(changed), tail, "")
            missing = missing[changed.to_numpy(zero_copy_only=False)]
            found[missing] = self.find(capitalised)
        return found

    def _article_of(self, positions: np.ndarray) -> np.ndarray:
        found = np.full(len(positions), NOWHERE, np.int32)
        known = positions >= 0
        found[known] = self.articles[positions[known]]
        return found

    def save(self, folder: str) -> None:
        """Writes two .npy files into a folder."""
        for name, array in ((HASHES, self.hashes), (ARTICLES, self.articles)):
            with storage.open_write(storage.join(folder, name)) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)

    @staticmethod
    def load(folder: str) -> "TitleIndex":
        """Reads what `save` wrote; local files are mapped, so processes share their memory."""
        return TitleIndex(*(_loaded(storage.join(folder, name)) for name in (HASHES, ARTICLES)))


def _order(hashes: np.ndarray, targets: np.ndarray, redirects: np.ndarray) -> np.ndarray:
    """Returns int64 [distinct]: rows in the order of their hashes, one of those with equal ones."""
    order = np.argsort(hashes)
    sorted_hashes = hashes[order]
    same = sorted_hashes[1:] == sorted_hashes[:-1]
    again = np.flatnonzero(same)
    members = np.union1d(again, again + 1)
    rows = order[members]
    order[members] = rows[np.lexsort((targets[rows], redirects[rows], hashes[rows]))]
    return order[np.concatenate([np.ones(min(1, len(order)), bool), ~same])]


def _resolved(hashes: np.ndarray, redirects: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns int32 [n]: the article at the end of each title's redirects.

    Each round looks twice as far ahead (pointer jumping), so a chain of any length is followed, and
    a circle ends with the rounds.
    """
    goal = np.arange(len(hashes), dtype=np.int32)
    moved = np.flatnonzero(redirects)
    goal[moved] = _positions(hashes, targets[moved])
    for _ in range(len(hashes).bit_length() + 1):
        moved = moved[goal[moved] >= 0]
        moved = moved[redirects[goal[moved]]]
        if len(moved) == 0:
            return goal
        goal[moved] = goal[goal[moved]]
    goal[moved[redirects[goal[moved]] | (goal[moved] < 0)]] = NOWHERE
    return goal


def _positions(sorted_hashes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns int32 [n]: where each hash stands, -1 if nowhere."""
    found = np.full(len(wanted), -1, np.int32)
    if len(sorted_hashes) == 0:
        return found
    for start in range(0, len(wanted), PIECE):
        piece = wanted[start : start + PIECE]
        order = np.argsort(piece)  # neighbours then share what the processor has loaded
        ordered = piece[order]
        place = np.searchsorted(sorted_hashes, ordered)
        place[place == len(sorted_hashes)] = 0
        found[start + order] = np.where(sorted_hashes[place] == ordered, place, -1)
    return found


def _loaded(path: str) -> np.ndarray:
    if storage.is_local(path):
        return np.load(storage.local_path(path), mmap_mode="r", allow_pickle=False)
    return np.load(io.BytesIO(storage.read_bytes(path)), allow_pickle=False)


# --- forms ------------------------------------------------------------------------------------


def title_forms(
    paths: Sequence[str],
    index: TitleIndex,
    views: np.ndarray,
    main_page: str | None = None,
    least_views: int = 1,
) -> pa.Table:
    """The normal forms (`wit.text`) of the titles of viewed articles, with their views.

    Each article gives the form of its title and, where that ends in brackets ("Mercury (planet)"),
    the form without them. `paths` and `index` are those of `TitleIndex.build`; views int64 [n] by
    position in the index. The main page does not count. Columns: query (string, distinct), views
    (int64: the sum over the distinct articles of that form, at least `least_views`), articles
    (int32: how many they are); in the order in which forms first come in the files.
    """
    main = index.find(pa.array([main_page or ""]))[0]
    views = np.where(np.arange(len(views)) == main, 0, views)
    seen = [
        (hash64(forms), views[article]) for forms, article in _forms_by_file(paths, index, views)
    ]
    empty = np.empty(0, np.uint64), np.empty(0, np.int64)
    hashes, counts = map(np.concatenate, zip(empty, *seen, strict=True))
    del seen
    order = np.argsort(hashes, kind="stable")
    groups, starts = np.unique(hashes[order], return_index=True)
    total = np.add.reduceat(counts[order], starts) if len(starts) else counts
    articles = np.diff(starts, append=len(hashes)).astype(np.int32)
    wanted = total >= least_views
    queries, rows = [pa.array([], pa.string())], [np.empty(0, np.int64)]
    for forms, _ in _forms_by_file(paths, index, views):
        row = _positions(groups, hash64(forms))
        first = np.sort(np.unique(row, return_index=True)[1])
        first = first[wanted[row[first]]]
        wanted[row[first]] = False  # written now
        queries.append(forms.take(pa.array(first)))
        rows.append(row[first])
    row = np.concatenate(rows)
    return pa.table(
        {"query": pa.concat_arrays(queries), "views": total[row], "articles": articles[row]}
    )


def _forms_by_file(
    paths: Sequence[str], index: TitleIndex, views: np.ndarray
) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """(forms, position of the article of each) of each file's viewed articles.

    A form comes once an article, and an article once, whatever the files repeat.
    """
    done = np.zeros(len(views), bool)
    for path in paths:
        table = storage.read_table(path, ["title", "redirect"])
        titles = table["title"].filter(table["redirect"].is_null()).combine_chunks()
        article = _positions(index.hashes, hash64(titles))
        new = np.zeros(len(article), bool)
        new[np.unique(article, return_index=True)[1]] = True
        new &= (article >= 0) & (views[article] > 0) & ~done[article]
        titles, article = titles.filter(pa.array(new)), article[new]
        done[article] = True
        full, short = text.normalise(titles), text.normalise(_without_suffix(titles))
        other = pc.and_(pc.not_equal(short, full), pc.not_equal(short, ""))
        rows = np.concatenate([np.arange(len(titles)), np.flatnonzero(other)])
        forms = pa.concat_arrays([full, short.filter(other)])
        proper = pc.not_equal(forms, "")
        yield forms.filter(proper), article[rows[proper.to_numpy(zero_copy_only=False)]]


def _without_suffix(titles: pa.Array) -> pa.Array:
    """The titles that end in brackets without them; the others as they are."""
    ends = pc.or_(pc.ends_with(titles, ")"), pc.ends_with(titles, "）"))
    short = titles.filter(ends)
    for pattern in SUFFIXES:
        short = pc.replace_substring_regex(short, pattern, r"\1")
    return pc.replace_with_mask(titles, ends, short)
