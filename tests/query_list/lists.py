"""Query lists for tests, made of a few rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from wit.hashing import hash64
from wit.pairs import QUERIES

WORD, BIGRAM, TITLE, WORDNET = "wikipedia_word", "wikipedia_bigram", "wikipedia_title", "wordnet"


def make_list(rows: dict[str, dict[str, Any]]) -> pa.Table:
    """A list of queries, each with what is known of it: sources, count, pmi, views."""
    queries = pa.array(rows, pa.string())
    columns = {
        "query_id": pa.array(np.arange(len(rows), dtype=np.int32)),
        "query_hash": pa.array(hash64(queries)),
        "query": queries,
    }
    for field in list(QUERIES)[3:]:
        values = [row.get(field.name) for row in rows.values()]
        columns[field.name] = pa.array(values, field.type)
    return pa.table(columns, schema=QUERIES)
