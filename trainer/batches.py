"""From shards to micro-batches on the device: read, decode, choose a text, tokenise, trim, send.

Everything about a sample is a function of (seed, epoch, position): its crop, its text, the patches
that are dropped. A broken sample keeps its place as zeros, masked from the loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.accumulate import Micro
from trainer.decode import centre_crop, random_crop
from trainer.loader import Batch, Loader
from trainer.order import key_of, keyed_permutation
from trainer.reader import Sample
from trainer.tokenizer import tokenize

TRIM = 8  # texts are cut to a multiple of so many tokens
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


class Parts:
    """A rank's parts, step after step, one made ahead; `waited`: seconds spent waiting for one."""

    def __init__(self, loader: Loader, seed: int, side: int, pinned: bool = False) -> None:
        """Takes a loader whose samples `decoder` makes; `side` is the pictures', in pixels.

        `pinned`: for a GPU, which then copies them while it computes.
        """
        self.loader, self.seed, self.side, self.pinned = loader, seed, side, pinned
        self.waited = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next = self._thread.submit(self._make)

    def __iter__(self) -> Iterator[Part]:
        """The parts themselves."""
        return self

    def __next__(self) -> Part:
        """The next step's."""
        began = time.perf_counter()
        part = self._next.result()
        self.waited += time.perf_counter() - began
        self._next = self._thread.submit(self._make)
        return part

    def take_waited(self) -> float:
        """Seconds spent waiting for parts since this was last asked."""
        waited, self.waited = self.waited, 0.0
        return waited

    def close(self) -> None:
        """Ends the threads."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self.loader.close()

    def _make(self) -> Part:
        return assemble(next(self.loader), self.seed, self.side, self.pinned)


def decoder(seed: int, side: int, crop: str) -> Callable[[int, int, Sample], Made]:
    """What the loader makes of each sample in its threads, a crop by (seed, epoch, position).

    `crop`: "square" or "resized" (trainer.decode.random_crop), or "centre" as in evaluation.
    """

    def make(epoch: int, position: int, sample: Sample) -> Made:
        if sample.image is None:
            return None, sample, sample.fault or "broken"
        if crop == "centre":
            picture = centre_crop(sample.image, side)
        else:
            picture = random_crop(sample.image, side, key_of(seed, epoch, position), crop)
        if isinstance(picture, str):
            return None, sample, f"sample {sample.key}: {picture}"
        return picture, sample, ""

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
    part: Part, size: int, device: torch.device, seed: int, patches: int = 0, dropped: float = 0.0
) -> list[Micro]:
    """A part as micro-batches of `size` samples on the device.

    Texts are cut to the longest of the micro-batch: exact, for no token looks at a later one.
    `dropped` is the share of `patches` that each picture goes without.
    """
    found = []
    for start in range(0, len(part.fine), size):
        cut = slice(start, start + size)
        longest = int(part.lengths[cut].max())
        length = min(part.tokens.shape[1], -(-longest // TRIM) * TRIM)
        kept = None
        if dropped:
            kept = kept_patches(part, cut, seed, patches, dropped).to(device)
        found.append(
            Micro(
                part.images[cut].to(device, non_blocking=True),
                torch.from_numpy(part.tokens[cut, :length].copy()).to(device),
                torch.from_numpy(part.fine[cut]).to(device),
                kept,
            )
        )
    return found


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
