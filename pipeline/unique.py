"""Which candidates are duplicates: one survivor of equal pairs, few texts for one image URL.

Of equal pairs the one with the lowest (source, row) survives, with its provenance. Of several texts
for one image URL the `texts_per_image` with the lowest text hash survive, so no host, crawl file or
order of input is favoured (as C4 chooses its duplicates' winners); an earlier crawl's texts come
before a later one's, so a dataset that grows keeps what it has. URLs are compared by 64-bit
hash: among 10 billion distinct URLs two or three are expected to fall together by chance.
"""

import numpy as np
from numba import njit, types

from wit.kernel_types import I32, I64, U8, U64, writable

SURVIVES, DUPLICATE_PAIR, OTHER_TEXT = 0, 1, 2
REASONS = {DUPLICATE_PAIR: "duplicate_pair", OTHER_TEXT: "other_text"}
URL_SLOTS = 4096  # a bucket is a range of these; so the most buckets there can be
KEY = np.dtype([("url", "<u8"), ("text", "<u8"), ("row", "<u4")])
LOSER = np.dtype([("row", "<u4"), ("reason", "u1")])


@njit(writable(U8)(U64, U64, I64, I32, types.int64), cache=True, nogil=True)
def _judge(url, text, order, crawl, texts_per_image):
    verdict = np.zeros(len(url), np.uint8)
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and url[order[end]] == url[order[start]]:
            end += 1
        if end - start > 1:
            run = order[start:end]
            texts = np.empty(end - start, np.uint64)
            for i in range(end - start):
                texts[i] = text[run[i]]
            by_text = np.argsort(texts, kind="mergesort")
            first = np.empty(len(by_text), np.int64)  # of each text, the row that came first
            distinct = 0
            for i in range(len(by_text)):
                if i and texts[by_text[i]] == texts[by_text[i - 1]]:
                    verdict[run[by_text[i]]] = DUPLICATE_PAIR
                else:
                    first[distinct] = run[by_text[i]]
                    distinct += 1
            if distinct > texts_per_image:
                since = np.empty(distinct, np.int32)
                for i in range(distinct):
                    since[i] = crawl[first[i]]
                by_crawl = np.argsort(since, kind="mergesort")
                for i in range(texts_per_image, distinct):
                    verdict[first[by_crawl[i]]] = OTHER_TEXT
        start = end
    return verdict


def judge(
    url: np.ndarray, text: np.ndarray, texts_per_image: int, crawl: np.ndarray | None = None
) -> np.ndarray:
    """Returns uint8 [n]: SURVIVES, DUPLICATE_PAIR or OTHER_TEXT for every pair.

    Args:
        url, text: uint64 [n], the pairs' hashes, in (source, row) order: of equals the first wins.
        texts_per_image: distinct texts kept for one URL.
        crawl: int32 [n], the crawl of each, ascending; None where there is one.
    """
    crawl = np.zeros(len(url), np.int32) if crawl is None else crawl
    order = np.argsort(url, kind="stable").astype(np.int64)
    columns = (np.ascontiguousarray(url), np.ascontiguousarray(text), order)
    return _judge(*columns, np.ascontiguousarray(crawl, np.int32), texts_per_image)
