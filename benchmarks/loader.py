"""The loader beside webdataset's pipeline: `python -m benchmarks.loader`.

From shards on a local disk to batches, one core: one reading thread of ours, one process of theirs
(no worker process, which would only add the passing on). Processor time, turn by turn, medians.

Ours is what `wit train` reads with: `trainer.loader` in the order of an epoch, decoding with the
paper's random square crop, tokens; a batch is uint8, its pictures normalised on the device.
`normalised here` adds that on this core. Theirs is webdataset as open_clip sets it up: shuffled,
decoded by Pillow, its train transform (RandomResizedCrop by bicubic, ToTensor, Normalize), its
tokenizer.

The pictures are those of `benchmarks.decode`, JPEGs of quality 95, repeated to fill the shards;
captions are Conceptual Captions'. `ms` says where our time goes, each part measured alone, in
milliseconds a sample: reading (tar, table, order), decoding, resizing to the crop, tokens, and what
is left: arrays, threads, keys.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
import webdataset
from open_clip.transform import image_transform

from benchmarks.common import one_core, take_turns
from benchmarks.decode import corpora, size_of
from benchmarks.tokenizer import captions
from trainer import decode
from trainer.batches import Ahead, assemble, decoder
from trainer.cache import Cache
from trainer.clip import normalise
from trainer.index import Index, read_index
from trainer.loader import Loader, unchanged
from trainer.order import Order, key_of
from trainer.tokenizer import tokenize
from wit.shards_index import index_shards

SIDE = 224
SAMPLES, SHARDS, BATCH = 1024, 4, 64
SHUFFLED = 512  # samples in webdataset's buffer; open_clip's 5,000 would hold all of them


def write_shards(pictures: list[bytes], texts: list[str], folder: Path) -> Index:
    """Shards of pictures in turn, each with a text."""
    pattern = str(folder / "%05d.tar")
    with webdataset.ShardWriter(pattern, maxcount=SAMPLES // SHARDS, verbose=0) as writer:
        for number in range(SAMPLES):
            picture = pictures[number % len(pictures)]
            writer.write({"__key__": f"{number:09}", "jpg": picture, "txt": texts[number]})
    index_shards(str(folder))
    return read_index([str(folder)])


# --- the two sides ----------------------------------------------------------------------------


def our_loader(index: Index, folder: Path, make: Callable) -> Loader:
    """Of one epoch, read by one thread."""
    order, cache = Order(index.samples, 0, 0), Cache(index, str(folder / "cache"), 1 << 30)
    return Loader(cache, order, 0, BATCH, 1, make=make, threads=1)


def our_epoch(index: Index, folder: Path, normalised: bool = False) -> int:
    """Makes all batches of ours; how many samples are fine."""
    loader = our_loader(index, folder, decoder(0, SIDE, "square"))
    parts = Ahead(loader, lambda batch: assemble(batch, 0, SIDE))
    count = 0
    for part in parts:
        count += int(part.fine.sum())
        if normalised:
            normalise(part.images)
    parts.close()
    return count


def their_epoch(folder: Path) -> int:
    """Makes all batches of webdataset's; how many samples."""
    transform = image_transform(SIDE, is_train=True)
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    urls = str(folder / f"{{{0:05d}..{SHARDS - 1:05d}}}.tar")
    batches = (
        webdataset.WebDataset(urls, shardshuffle=SHARDS)
        .shuffle(SHUFFLED)
        .decode("pilrgb")
        .to_tuple("jpg", "txt")
        .map_tuple(transform, lambda text: tokenizer(text)[0])
        .batched(BATCH)
    )
    return sum(len(images) for images, _ in batches)


# --- measuring --------------------------------------------------------------------------------


def measure(pictures: list[bytes], texts: list[str], folder: Path, rounds: int) -> dict[str, Any]:
    """Both on shards of some JPEGs, and the parts of ours."""
    index = write_shards(pictures, texts, folder)
    counts = our_epoch(index, folder), their_epoch(folder)
    if counts != (SAMPLES, SAMPLES):
        raise SystemExit(f"of {SAMPLES:,} samples ours gave {counts[0]:,}, theirs {counts[1]:,}")
    samples = [pictures[number % len(pictures)] for number in range(SAMPLES)]
    keys = [key_of(0, 0, position) for position in range(SAMPLES)]

    def decoded(number: int) -> tuple:
        key = keys[number]
        place = lambda width, height: decode.square_box(width, height, SIDE, key)  # noqa: E731
        return decode.jpeg_part(samples[number], SIDE, place)

    some = list(map(decoded, range(min(SAMPLES, len(pictures)))))
    out = decode.square_array(SIDE)

    def read() -> None:
        loader = our_loader(index, folder, unchanged)
        for _ in loader:
            pass
        loader.close()

    def resize() -> None:
        for number in range(SAMPLES):
            decode.resize(*some[number % len(some)], SIDE, out)

    def tokens() -> None:
        for start in range(0, SAMPLES, BATCH):
            tokenize(texts[start : start + BATCH])

    seconds = take_turns(
        {
            "ours": lambda: our_epoch(index, folder),
            "webdataset": lambda: their_epoch(folder),
            "ours, normalised here": lambda: our_epoch(index, folder, normalised=True),
            "read": read,
            "decode": lambda: [decoded(number) for number in range(SAMPLES)],
            "resize": resize,
            "tokens": tokens,
        },
        rounds,
    )
    each = {name: 1000 * value / SAMPLES for name, value in seconds.items()}
    whole = {name: each.pop(name) for name in ("ours", "webdataset", "ours, normalised here")}
    each["the rest"] = whole["ours"] - sum(each.values())
    return {
        "pictures": len(pictures),
        "KB each": statistics.mean(map(len, pictures)) / 1000,
        "sizes": sorted({"{}x{}".format(*size_of(data)) for data in pictures}),
        "samples/s": {name: 1000 / value for name, value in whole.items()},
        "ms": each,
        "times as fast": whole["webdataset"] / whole["ours"],
        "times as fast, normalised here": whole["webdataset"] / whole["ours, normalised here"],
    }


def rows(measured: dict[str, dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """The README's rows: what, measured, beside it, times."""
    return [
        (
            f"shards to batches: {name} JPEGs ({found['KB each']:.0f} KB), one core",
            f"{found['samples/s']['ours']:,.0f} samples/s",
            "webdataset with Pillow and open_clip's transform and tokenizer: "
            f"{found['samples/s']['webdataset']:,.0f} samples/s",
            f"{found['times as fast']:.1f}",
        )
        for name, found in measured.items()
    ]


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    one_core()
    torch.set_num_threads(1)
    texts = captions()["CC3M"][:SAMPLES]
    measured = {}
    for name, pictures in corpora().items():
        with tempfile.TemporaryDirectory() as folder:
            measured[name] = measure(pictures, texts, Path(folder), options.rounds)
    print(json.dumps({"loader": measured, "rows": rows(measured)}, indent=1))


if __name__ == "__main__":
    main()
