"""Image-text retrieval: R@1, R@5 and R@10 from pictures to captions and back.

A picture may have several captions: it is found if any of them is among the first k of all
captions; a caption if its picture is among the first k of all pictures.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from trainer.clip import CLIP
from trainer.evaluate.features import (
    IMAGES,
    Tokenizer,
    image_features,
    similarities,
    text_features,
)
from trainer.evaluate.pictures import CaptionSet
from trainer.evaluate.results import Result
from wit.manifest import Progress, no_progress
from wit.pairs import PREDICTIONS

FIRST = (1, 5, 10)
TILE = 1 << 23  # similarities computed at once
LOWEST = np.float32(-10)  # below any product of unit vectors
NONE = 0  # the rank of what has no counterpart


def retrieval(
    model: CLIP,
    tokenizer: Tokenizer,
    evaluated: CaptionSet,
    *,
    batch: int = IMAGES,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> Result:
    """Looks for pictures by captions and the reverse; all ranks call it, and all get the same.

    Shares are of all pictures and all captions: a broken picture is not found, nor are its
    captions, which stay among those to choose from. Ties count against the model: the rank is 1 +
    how many others are not below (no number, NaN, is below another). Equal captions of two pictures
    tie.
    The table has a row a picture: its best caption, the one that came first, the rank of its own.

    model, tokenizer: as for `zero_shot`.
    """
    pictures = evaluated.pictures
    texts = [text for captions in evaluated.captions for text in captions]
    owners = np.repeat(np.arange(len(pictures.keys)), [len(c) for c in evaluated.captions])
    text_rows = text_features(model, tokenizer, texts)
    image_rows, fine, faults = image_features(
        model, pictures, batch=batch, threads=threads, progress=progress
    )
    whole = np.flatnonzero(fine)
    found, best, first = search(image_rows[whole], whole, text_rows, owners)
    ranks = np.full(len(pictures.keys), NONE)
    ranks[whole] = found
    text_ranks, _, _ = search(text_rows, owners, image_rows[whole], whole)
    numbers = {"pictures": len(ranks), "broken": int((~fine).sum()), "texts": len(texts)}
    for direction, their in (("image_to_text", ranks), ("text_to_image", text_ranks)):
        for k in FIRST:
            numbers[f"{direction}_r{k}"] = float(((their != NONE) & (their <= k)).mean())
    labels = np.searchsorted(owners, np.arange(len(ranks)))  # a broken picture's: its first
    labels[whole] = best
    shown = np.zeros_like(labels)
    shown[whole] = first
    captions = pa.array(texts)
    table = pa.table(
        [
            pa.array([pictures.name] * len(ranks)),
            pa.array(pictures.keys),
            captions.take(pa.array(labels)),
            captions.take(pa.array(shown, mask=~fine)),
            pa.array(ranks == 1),
            pa.array(ranks.astype(np.int32), mask=~fine),
        ],
        schema=PREDICTIONS,
    )
    return Result(pictures.name, "retrieval", numbers, table, faults)


def search(
    queries: np.ndarray, query_owners: np.ndarray, targets: np.ndarray, target_owners: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each query the rank of its best own target, that target, and the first of all targets.

    queries: fp32 [n, E], targets: fp32 [m, E]; own is what has the same owner (int64 [n], [m]).
    int64 [n] each; the rank is NONE where there is no own target. Of equal targets the first is
    taken. See `retrieval` for ties.
    """
    ranks, best, first = (np.full(len(queries), NONE) for _ in range(3))
    size = max(1, TILE // max(1, len(targets)))
    for start in range(0, len(queries) if len(targets) else 0, size):
        cut = slice(start, start + size)
        scores = similarities(queries[cut], targets)
        own = query_owners[cut, None] == target_owners
        worst = np.where(np.isnan(scores), LOWEST, scores)
        best[cut] = np.where(own, worst, -np.inf).argmax(axis=1)
        highest = np.take_along_axis(scores, best[cut, None], axis=1)
        ahead = ~own & ~(scores < highest)
        ranks[cut] = np.where(own.any(axis=1), 1 + ahead.sum(axis=1), NONE)
        others = np.where(ahead, np.where(np.isnan(scores), np.inf, scores), -np.inf)
        first[cut] = np.where(ahead.any(axis=1), others.argmax(axis=1), best[cut])
    return ranks, best, first
