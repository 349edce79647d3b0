"""What an evaluation set is, wherever it was read from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.evaluate.prompts import Names


@dataclass(frozen=True)
class Pictures:
    """n pictures of a set. `read(i)`, from any thread, gives the stored bytes of the i-th."""

    name: str
    keys: list[str]
    sizes: list[int]  # bytes
    read: Callable[[int], bytes]

    def take(self, chosen: np.ndarray) -> Pictures:
        """Those of these numbers, in this order."""
        numbers = chosen.tolist()
        return Pictures(
            self.name,
            [self.keys[i] for i in numbers],
            [self.sizes[i] for i in numbers],
            lambda i: self.read(numbers[i]),
        )


@dataclass(frozen=True)
class ClassSet:
    """Pictures with labels, int64 [n], numbers of `classes`; and what zero-shot prompts are of."""

    pictures: Pictures
    labels: np.ndarray
    classes: Names
    templates: list[str]
    sources: dict[str, str]  # where names and templates come from

    def sha256(self) -> str:
        """Of all that decides the result, but the pictures' bytes."""
        return _sha256(self.pictures, self.labels.tolist(), self.classes, self.templates)


@dataclass(frozen=True)
class CaptionSet:
    """Pictures with one or more captions each."""

    pictures: Pictures
    captions: list[list[str]]

    def sha256(self) -> str:
        """Of all that decides the result, but the pictures' bytes."""
        return _sha256(self.pictures, self.captions)


def _sha256(pictures: Pictures, *more: Any) -> str:
    text = json.dumps([pictures.name, pictures.keys, pictures.sizes, *more])
    return hashlib.sha256(text.encode()).hexdigest()


def spread(count: int, limit: int | None) -> np.ndarray:
    """int64: all of `count` numbers, or `limit` of them, evenly spread."""
    kept = count if limit is None else min(limit, count)
    return np.arange(kept) * count // max(1, kept)
