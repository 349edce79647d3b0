"""A starter query list of about 400,000 queries, made offline in seconds.

It joins the English words of the package `wordfreq` (its large list: all that occur at least once
in 10^8 words) and the lemmas of WordNet 3.1, whose list and license stand in `data/`. It is a list
to begin with: it has neither Wikipedia's bigrams nor its titles. Its sources are named `wordfreq`
and `wordnet`, for it knows no counts in Wikipedia.

What means nothing alone (`query_list.forms`) is left out.
"""

import gzip
import hashlib
import importlib.metadata
import re
from importlib import resources
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import wordfreq

from query_list.forms import usable
from wit import storage, text
from wit.hashing import hash64
from wit.pairs import QUERIES

LEMMAS = "wordnet31_lemmas.txt.gz"
SOURCES = ("wordfreq", "wordnet")
SMASHED = re.compile(r"\d[\d.,]*\d")  # wordfreq writes 0 for each digit of a number: not a word


def build_starter() -> pa.Table:
    """The list in the columns of `wit.pairs.QUERIES`, sorted by query; count, pmi, views null."""
    return _build()[0]


def write_starter(out_path: str) -> pa.Table:
    """Writes the list as Parquet and, beside it with the ending `.json`, what it was made of.

    Equal packages give equal bytes. Returns the list.
    """
    table, facts = _build()
    storage.write_table(out_path, table)
    folder, name = storage.split(out_path)
    storage.write_json(storage.join(folder, name.removesuffix(".parquet") + ".json"), facts)
    return table


def _build() -> tuple[pa.Table, dict[str, Any]]:
    words, lemmas, inputs = _words(), *_lemmas()
    forms = [text.normalise(pa.array(strings, pa.string())).unique() for strings in (words, lemmas)]
    queries = pa.concat_arrays(forms).unique()
    queries = queries.filter(pc.not_equal(queries, ""))
    means = usable(queries)
    left_out = len(queries) - int(np.count_nonzero(means))
    queries = queries.filter(pa.array(means))
    queries = queries.take(pc.sort_indices(queries))
    inside = [
        pc.is_in(queries, form).to_numpy(zero_copy_only=False).astype(np.int64) for form in forms
    ]
    choices = pa.array([[SOURCES[0]], [SOURCES[1]], list(SOURCES)], pa.list_(pa.string()))
    count = len(queries)
    columns = {
        "query_id": pa.array(np.arange(count, dtype=np.int32)),
        "query_hash": pa.array(hash64(queries)),
        "query": queries,
        "sources": choices.take(pa.array(inside[0] + 2 * inside[1] - 1)),
        "count": pa.nulls(count, pa.int64()),
        "pmi": pa.nulls(count, pa.float32()),
        "views": pa.nulls(count, pa.int64()),
    }
    facts = {
        "kind": "starter",
        "normalisation": text.VERSION,
        "queries": count,
        "left_out": {"meaningless_alone": left_out},
        "queries_per_source": {
            name: int(flags.sum()) for name, flags in zip(SOURCES, inside, strict=True)
        },
        "inputs": [
            {
                "name": "wordfreq",
                "version": importlib.metadata.version("wordfreq"),
                "list": "English, large, without numbers of two digits and more",
                "entries": len(words),
            },
            inputs,
        ],
    }
    return pa.table(columns, schema=QUERIES), facts


def _words() -> list[str]:
    words = wordfreq.get_frequency_dict("en", wordlist="large")
    return [word for word in words if not SMASHED.search(word)]


def _lemmas() -> tuple[list[str], dict[str, Any]]:
    packed = resources.files("query_list").joinpath("data", LEMMAS).read_bytes()
    lemmas = gzip.decompress(packed).decode("ascii").split("\n")[:-1]
    digest = hashlib.sha256(packed).hexdigest()
    return lemmas, {"name": "wordnet", "version": "3.1", "sha256": digest, "entries": len(lemmas)}
