"""Zero-shot classification: the class whose prompts a picture is nearest to.

A class's embedding is the normalised mean of the normalised embeddings of all its prompts (each
template with each of its names). Radford et al. 2021, section 3.1.4, and OpenAI's code.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from trainer.clip import CLIP
from trainer.evaluate.features import (
    IMAGES,
    TEXTS,
    Tokenizer,
    encode_texts,
    evaluating,
    image_features,
    meet,
    similarities,
    turns,
    union,
)
from trainer.evaluate.pictures import ClassSet
from trainer.evaluate.prompts import Names, fill, twins
from trainer.evaluate.results import Result
from wit.manifest import Progress, no_progress
from wit.pairs import PREDICTIONS

TILE = 4096  # pictures compared at once


def zero_shot(
    model: CLIP,
    tokenizer: Tokenizer,
    evaluated: ClassSet,
    *,
    batch: int = IMAGES,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> Result:
    """Classifies the pictures of a set; all ranks call it, and all get the same.

    top1, top5: shares of all pictures, a broken one is wrong. mean_per_class: the mean over classes
    of their share right. Ties count against the model: the label's rank is how many classes are not
    below it, and no number (NaN) is below another. Only of classes with the same names the first is
    ahead, as no model could do better.

    model: bare, of any dtype, on any device; call this within autocast for mixed precision. If it
    is sharded (FSDP2), `register_fsdp_forward_method` must know encode_image and encode_text.
    tokenizer: trainer.tokenizer.tokenize.
    """
    weights = class_embeddings(model, tokenizer, evaluated.classes, evaluated.templates)
    pictures, labels = evaluated.pictures, evaluated.labels
    features, fine, faults = image_features(
        model, pictures, batch=batch, threads=threads, progress=progress
    )
    alike = np.array(twins(evaluated.classes))
    predicted, ranks = np.zeros_like(labels), np.zeros_like(labels)
    for start in range(0, len(labels), TILE):
        cut = slice(start, start + TILE)
        scores = similarities(features[cut], weights)
        predicted[cut], ranks[cut] = classify(scores, labels[cut], alike)
    right = fine & (ranks == 1)
    present, per_class = np.unique(labels, return_counts=True)
    right_per_class = np.bincount(labels[right], minlength=len(evaluated.classes))[present]
    numbers = {
        "pictures": len(labels),
        "broken": int((~fine).sum()),
        "classes": len(evaluated.classes),
        "top1": float(right.mean()),
        "top5": float((fine & (ranks <= 5)).mean()),
        "mean_per_class": float((right_per_class / per_class).mean()),
    }
    names = pa.array([names[0] for names in evaluated.classes])
    table = pa.table(
        [
            pa.array([pictures.name] * len(labels)),
            pa.array(pictures.keys),
            names.take(pa.array(labels)),
            names.take(pa.array(predicted, mask=~fine)),
            pa.array(right),
            pa.array(ranks.astype(np.int32), mask=~fine),
        ],
        schema=PREDICTIONS,
    )
    return Result(pictures.name, "zero-shot", numbers, table, faults)


def class_embeddings(
    model: CLIP, tokenizer: Tokenizer, classes: Names, templates: Sequence[str]
) -> np.ndarray:
    """fp32 [classes, E] of norm 1."""
    each = len(templates) * max(map(len, classes))
    size = max(1, TEXTS // each)
    rows = np.zeros((len(classes), model.config.embed), np.float32)
    with evaluating(model):
        for number, mine in turns(-(-len(classes) // size)):
            chosen = classes[number * size : (number + 1) * size]
            prompts = [[fill(t, name) for name in names for t in templates] for names in chosen]
            found = encode_texts(model, tokenizer, [text for texts in prompts for text in texts])
            ends = np.cumsum([len(texts) for texts in prompts])
            parts = np.split(found.astype(np.float64), ends[:-1])
            means = np.stack([part.mean(axis=0) for part in parts])
            if mine:
                lengths = np.linalg.norm(means, axis=1, keepdims=True)
                rows[number * size : (number + 1) * size] = means / np.maximum(lengths, 1e-12)
            meet(model)
    return union(rows, model)


def classify(
    scores: np.ndarray, labels: np.ndarray, alike: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(predicted classes, ranks of the labels from 1 on), int64 [n], of scores [n, classes].

    alike: for each class the first with the same names. Where classes other than the label are
    highest, the first of them is predicted. See `zero_shot` for ties.
    """
    numbers, own = np.arange(scores.shape[1]), labels[:, None]
    ahead = ~(scores < np.take_along_axis(scores, own, axis=1))
    ahead &= (alike != alike[own]) | (numbers <= own)
    ranks = ahead.sum(axis=1)  # the label itself is one of them
    np.put_along_axis(ahead, own, False, axis=1)
    others = np.where(ahead, np.where(np.isnan(scores), np.inf, scores), -np.inf)
    return np.where(ranks == 1, labels, others.argmax(axis=1)), ranks
