"""From shards to micro-batches on the device: read, decode, choose a text, tokenise, trim, send.

Everything about a sample is a function of (seed, epoch, position): its crop, its text, the patches
that are dropped. A broken sample keeps its place as zeros, masked from the loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.accumulate import Micro
from trainer.decode import LEAST_AREA, centre_crop, placing, random_crop
from trainer.index import Index
from trainer.loader import Batch, Loader
from trainer.order import key_of, keyed_permutation
from trainer.reader import Sample
from trainer.text import real_places
from trainer.tokenizer import tokenize, trimmed

TEXT, PATCHES = 101, 102  # what a key is for, beside those of trainer.order

Made = tuple[np.ndarray | None, Sample, str]  # uint8 [S, S, 3] or None, and then why


@dataclass(frozen=True)
class Part:
    """A rank's part of a step, on the host, uint8 and untrimmed.

    Attributes:
        epoch, step: which it is.
        images: uint8 [b, S, S, 3].
        tokens, lengths: int64 [b, 77] and [b].
        fine: bool [b].
        positions: int64 [b], in the epoch.
        faults: what was wrong with the broken samples.
    """

    epoch: int
    step: int
    images: Tensor
    tokens: np.ndarray
    lengths: np.ndarray
    fine: np.ndarray
    positions: np.ndarray
    faults: tuple[str, ...]


class Ahead:
    """What is made of a loader's batches, one ahead; `waited`: seconds spent waiting for one."""

    def __init__(self, loader: Loader, make: Callable[[Batch], Any]) -> None:
        """`make` is called in a thread, one batch after the other."""
        self.loader, self.make = loader, make
        self.waited = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next = self._thread.submit(self._make)

    def __iter__(self) -> Iterator[Any]:
        """The batches themselves."""
        return self

    def __next__(self) -> Any:
        """The next step's."""
        began = time.perf_counter()
        found = self._next.result()
        self.waited += time.perf_counter() - began
        self._next = self._thread.submit(self._make)
        return found

    def take_waited(self) -> float:
        """Seconds spent waiting since this was last asked."""
        waited, self.waited = self.waited, 0.0
        return waited

    def close(self) -> None:
        """Ends the threads."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self.loader.close()
        self._thread.shutdown(wait=True)

    def _make(self) -> Any:
        return self.make(next(self.loader))


def decoder(
    seed: int, side: int, crop: str, least_area: float = LEAST_AREA
) -> Callable[[int, int, Sample], Made]:
    """What the loader makes of each sample in its threads, a crop by (seed, epoch, position).

    `crop`: "square" or "resized" (trainer.decode.placing), or "centre" as in evaluation.
    """

    def make(epoch: int, position: int, sample: Sample) -> Made:
        if sample.image is None:
            return None, sample, sample.fault or "broken"
        if crop == "centre":
            picture = centre_crop(sample.image, side)
        else:
            place = placing(crop, least_area)
            picture = random_crop(sample.image, side, key_of(seed, epoch, position), place)
        if isinstance(picture, str):
            return None, sample, f"sample {sample.key}: {picture}"
        return picture, sample._replace(image=None), ""  # what was stored takes memory

    return make


def assemble(batch: Batch, seed: int, side: int, pinned: bool = False) -> Part:
    """One batch's samples as arrays."""
    size = len(batch.values)
    whole = torch.zeros(size, side, side, 3, dtype=torch.uint8, pin_memory=pinned)
    images = whole.numpy()
    fine = np.zeros(size, bool)
    texts: list[str] = [""] * size
    faults = []
    for i, (picture, sample, fault) in enumerate(batch.values):
        if picture is None:
            faults.append(fault)
            continue
        images[i], fine[i] = picture, True
        choice = key_of(seed, batch.epoch, int(batch.positions[i]), TEXT) % len(sample.texts)
        texts[i] = sample.texts[choice]
    tokens, lengths = tokenize(texts)
    return Part(
        batch.epoch,
        batch.step,
        whole,
        tokens,
        lengths,
        fine,
        batch.positions,
        tuple(faults),
    )


def micros(
    part: Part,
    size: int,
    device: torch.device,
    seed: int,
    patches: int = 0,
    dropped: float = 0.0,
) -> list[Micro]:
    """A part as micro-batches of `size` samples, to be computed on the device.

    Texts are cut to the longest of the micro-batch. `dropped` is the share of `patches` that each
    picture goes without.
    """
    found = []
    for start in range(0, len(part.fine), size):
        cut = slice(start, start + size)
        tokens = torch.from_numpy(trimmed(part.tokens[cut], part.lengths[cut]))
        others = [
            tokens,
            real_places(tokens),
            torch.from_numpy(part.fine[cut]),
            kept_patches(part, cut, seed, patches, dropped) if dropped else None,
        ]
        if device.type == "cuda":
            others = [tensor if tensor is None else tensor.pin_memory() for tensor in others]
        found.append(Micro(part.images[cut], *others, device))
    return found


def sample_bytes(index: Index, side: int) -> float:
    """Bytes of a sample that waits for its step: its pixels, and for a while what was stored."""
    return 3 * side**2 + index.total_bytes / int(index.samples.sum())


def kept_patch_count(patches: int, dropped: float) -> int:
    """Patches of a picture that stay when this share is dropped."""
    return max(1, round(patches * (1 - dropped)))


def kept_patches(part: Part, cut: slice, seed: int, patches: int, dropped: float) -> Tensor:
    """int64 [b, K]: the patches that each picture keeps, ascending; at least one."""
    keep = kept_patch_count(patches, dropped)
    rows = [
        np.sort(keyed_permutation(patches, key_of(seed, part.epoch, int(p), PATCHES))[:keep])
        for p in part.positions[cut]
    ]
    return torch.from_numpy(np.stack(rows).astype(np.int64))
