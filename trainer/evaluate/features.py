"""Features of pictures and texts, shared among the ranks, with the same bits however many they are.

What is computed together depends on places in the set alone: batches of a fixed size, of which rank
r of R takes r, r + R, ... Rows of the others are 0 at first, so the sum over ranks is the union,
which every rank has. (Same device and threads: others add up in another order.) All ranks take as
many turns and meet after each: a sharded model has them meet anyway, and one that is far ahead
would give the others up.

Letters: N pictures, T texts, E embed, S side in pixels.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from trainer.clip import CLIP, normalise
from trainer.decode import centre_crop
from trainer.evaluate.pictures import Pictures
from trainer.tokenizer import trimmed
from wit.manifest import Progress, no_progress

IMAGES, TEXTS = 64, 256  # in a batch
AHEAD = 2  # batches decoded while one is computed
MOST_FAULTS = 10  # of which the reason is told

# (texts, length) -> token ids int64 [n, length], how many there are in each row int64 [n]
Tokenizer = Callable[[Sequence[str], int], tuple[np.ndarray, np.ndarray]]


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it no gradients, and every module in evaluation mode; then as before."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in before:
            module.training = training


def turns(batches: int) -> Iterator[tuple[int, bool]]:
    """(batch, whether its result counts) for each turn of this rank; ranks have as many turns."""
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    for start in range(0, batches, ranks):
        batch = min(start + rank, batches - 1)
        yield batch, batch == start + rank


def union(rows: np.ndarray, model: CLIP) -> np.ndarray:
    """The rows of all ranks, on every rank; each has left those of the others 0."""
    if not dist.is_initialized():
        return rows
    tensor = torch.from_numpy(rows).to(model.logit_scale.device)
    dist.all_reduce(tensor)
    return tensor.cpu().numpy()


def meet(model: CLIP) -> None:
    """Waits for the other ranks."""
    union(np.zeros(1, np.float32), model)


# --- pictures ---------------------------------------------------------------------------------


def image_features(
    model: CLIP,
    pictures: Pictures,
    *,
    batch: int = IMAGES,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(fp32 [N, E] of norm 1; bool [N], which could be decoded; why others could not, ten at most).

    A broken picture's row is 0. Pixels are open_clip's: decoded in full, bicubic, the centre.
    Raises what `pictures.read` does.
    """
    count, side = len(pictures.keys), model.config.vision.resolution
    device = model.logit_scale.device
    rows = np.zeros((count, model.config.embed), np.float32)
    fine = np.zeros(count, np.int64)
    schedule = list(turns(-(-count // batch)))
    threads = threads or min(8, os.cpu_count() or 1)
    with contextlib.ExitStack() as stack:
        pool = ThreadPoolExecutor(threads, thread_name_prefix="evaluate")
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        stack.enter_context(evaluating(model))
        started: deque[tuple[range, list[Future[np.ndarray | str]]]] = deque()
        for turn, (_, counts) in enumerate(schedule):
            for ahead, _ in schedule[turn + len(started) : turn + AHEAD + 1]:
                places = range(ahead * batch, min(ahead * batch + batch, count))
                made = [pool.submit(load, pictures, place, side) for place in places]
                started.append((places, made))
            places, made = started.popleft()
            cut = slice(places.start, places.stop)
            images = np.zeros((len(places), side, side, 3), np.uint8)
            whole = np.zeros(len(places), bool)
            for i, picture in enumerate(future.result() for future in made):
                if not isinstance(picture, str):
                    images[i], whole[i] = picture, True
            features = model.encode_image(normalise(torch.from_numpy(images).to(device)))
            if counts:
                found = F.normalize(features.float(), dim=-1).cpu().numpy()
                rows[cut], fine[cut] = np.where(whole[:, None], found, 0), whole
            meet(model)
            progress(places.stop, count)
    rows, fine = union(rows, model), union(fine, model)
    faults = []
    for place in np.flatnonzero(fine == 0)[:MOST_FAULTS].tolist():
        faults.append(f"{pictures.name}: {pictures.keys[place]}: {load(pictures, place, side)}")
    return rows, fine > 0, faults


def load(pictures: Pictures, place: int, side: int) -> np.ndarray | str:
    """A picture as uint8 [S, S, 3], or why there is none."""
    return centre_crop(pictures.read(place), side)


# --- texts ------------------------------------------------------------------------------------


def encode_texts(model: CLIP, tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """fp32 [T, E] of norm 1, computed together; to be called within `evaluating`."""
    tokens, counts = tokenizer(texts, model.config.text.context)
    cut = torch.from_numpy(trimmed(tokens, counts)).to(model.logit_scale.device)
    return F.normalize(model.encode_text(cut).float(), dim=-1).cpu().numpy()


def text_features(model: CLIP, tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """fp32 [T, E] of norm 1, in the order of the texts; all ranks share the work."""
    _, counts = tokenizer(texts, model.config.text.context)
    along = np.argsort(counts, kind="stable")  # so that short ones are trimmed to little
    rows = np.zeros((len(texts), model.config.embed), np.float32)
    with evaluating(model):
        for number, mine in turns(-(-len(texts) // TEXTS)):
            places = along[number * TEXTS : (number + 1) * TEXTS]
            found = encode_texts(model, tokenizer, [texts[i] for i in places])
            if mine:
                rows[places] = found
            meet(model)
    return union(rows, model)


# --- similarities -----------------------------------------------------------------------------


def similarities(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """fp32 [n, m]: the inner products of rows, computed in double precision on the CPU.

    Rounded afterwards, so that equal rows have equal products wherever they stand in a matrix.
    """
    return (left.astype(np.float64) @ right.astype(np.float64).T).astype(np.float32)
