"""Steps of training beside open_clip's: `python -m benchmarks.training [--compile]`.

Forward, backward and the optimiser's step of a batch, fp32, in one process and turn by turn;
medians of wall time. Both begin with the same weights, and the losses of their first step must be
equal. Captions are real (Conceptual Captions' and LAION's of ../shared/data), pictures noise:
arithmetic takes as long whatever it adds up.

Ours is `trainer.step` on `trainer.batches.micros`: pictures arrive as uint8 and are normalised in
the step, texts are computed without their padding (so the source of the captions matters), the
loss is tiled, the gradient's norm is taken. Theirs is what open_clip's trainer does in a step, on
pictures normalised before the clock starts and 77 tokens, with its ClipLoss and groups of
parameters; and with AdamW `fused`, which its trainer does not ask for, so that nothing is lost
there. ResNets have the memory format channels_last on both sides.

`--compile` adds each side compiled by torch.compile: our blocks, as `wit train --compile` does, and
their whole model, as `--torchcompile` does. That takes minutes, which do not count. `times as fast`
is the faster of ours beside the faster of theirs. MFU is of what a step needs with texts of these
lengths (trainer.cost).

On a GPU (`--device cuda`): bf16 (their `amp_bf16`), ViT-B/16 and ViT-L/14 too, each side with the
largest power of two of pairs that it has memory for; and the memory of the loss at 32k and 64k
pairs. Written to `benchmarks/results/DEVICE.json`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip_train.precision import get_autocast

from benchmarks import loss as losses
from benchmarks.common import take_turns
from benchmarks.models import open_clip_name
from benchmarks.tokenizer import captions
from trainer import batches, cost, optim
from trainer.clip import normalise
from trainer.config import Config
from trainer.parallel import World
from trainer.step import take_step
from trainer.tokenizer import tokenize
from trainer.train import make_model, set_arithmetic
from trainer.zoo import MODELS, PAPER, Model, ViTConfig

MODELS_OF = {
    "cpu": ("RN50", "ViT-B/32"),
    "cuda": ("RN50", "ViT-B/32", "ViT-B/16", "ViT-L/14"),
}
PRECISIONS = {"cpu": "fp32", "cuda": "bf16"}
ON_CPU = 32  # pairs
FEWEST, LOSSES = 64, (32_768, 65_536)  # pairs, on a GPU
RATE = 1e-5
ALIKE = {"fp32": 1e-4, "bf16": 0.05}  # of the first losses
OPEN_CLIP = {"fp32": "fp32", "bf16": "amp_bf16"}  # its names of precisions
RESULTS = Path(__file__).resolve().parent / "results"

Step = Callable[[batches.Part], float]  # of a batch; its loss


@dataclass(frozen=True)
class Contestant:
    """One side with one source of captions, as it is written or compiled."""

    side: str
    source: str
    compiled: bool
    step: Step
    parts: list[batches.Part]

    @property
    def name(self) -> str:
        """What it is called in the results."""
        return f"{self.side}, {self.source}" + (", compiled" if self.compiled else "")

    @property
    def pairs(self) -> int:
        """Of a batch."""
        return len(self.parts[0].fine)

    def tokens(self) -> float:
        """The mean of what a text is long in the batches that are measured."""
        if self.side == "open_clip":
            return self.parts[0].tokens.shape[1]
        return statistics.mean(map(mean_length, self.parts[1:]))


# --- the two sides ----------------------------------------------------------------------------


def our_step(config: Model, options: argparse.Namespace) -> tuple[Step, dict[str, torch.Tensor]]:
    """Our step, and the weights before the first."""
    device = torch.device(options.device)
    settings = Config(
        data=(), out="", model=config.name, precision=options.precision, compile=options.compile
    )
    world = World(0, 1, device)
    set_arithmetic(settings)
    model = make_model(settings, config, world)
    optimizer = optim.adamw(model, config.beta2, config.eps)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def step(part: batches.Part) -> float:
        micros = batches.micros(part, len(part.fine), device, seed=0)
        scale = optim.LossScale(1.0)
        found = take_step(model, model, optimizer, micros, settings, world, RATE, scale, False)
        losses.synchronise(device)
        return found.loss

    return step, weights


def their_step(
    config: Model, options: argparse.Namespace, weights: dict[str, torch.Tensor]
) -> Step:
    """open_clip's step, as its `main` and `train_one_epoch` have it on one device."""
    device = torch.device(options.device)
    model = open_clip.create_model(open_clip_name(config), device=device, output_dict=True)
    model.load_state_dict(weights)
    if not isinstance(config.vision, ViTConfig):
        model = model.to(memory_format=torch.channels_last)
    forward = torch.compile(model.train()) if options.compile else model.train()
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        no_weight = any(part in name for part in ("bn", "ln", "bias", "logit_scale"))
        groups[parameter.ndim >= 2 and not no_weight].append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": groups[yes], "weight_decay": 0.2 if yes else 0.0} for yes in groups],
        lr=RATE,
        betas=(0.9, config.beta2),
        eps=config.eps,
        fused=True,
    )
    loss_of = open_clip.ClipLoss()
    autocast = get_autocast(OPEN_CLIP[options.precision], device_type=device.type)
    ready: dict[int, torch.Tensor] = {}

    def step(part: batches.Part) -> float:
        size = len(part.fine)
        if size not in ready:  # the pictures of all batches of a size are the same
            vit = isinstance(config.vision, ViTConfig)
            layout = torch.contiguous_format if vit else torch.channels_last
            ready[size] = normalise(part.images).contiguous(memory_format=layout)
        images = ready[size].to(device, non_blocking=True)
        texts = torch.from_numpy(part.tokens).to(device, non_blocking=True)
        optimizer.zero_grad()
        with autocast():
            loss = loss_of(**forward(images, texts))
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        losses.synchronise(device)
        return loss.item()

    return step


# --- what they compute ------------------------------------------------------------------------


def made(texts: list[str], pairs: int, side: int, number: int) -> list[batches.Part]:
    """So many batches of captions, drawn at random but always the same, with pictures of noise."""
    rng = np.random.default_rng(0)
    pictures = torch.from_numpy(rng.integers(0, 256, (pairs, side, side, 3), np.uint8))
    parts = []
    for step, rows in enumerate(rng.integers(0, len(texts), (number, pairs))):
        tokens, lengths = tokenize([texts[row] for row in rows])
        fine, positions = np.ones(pairs, bool), np.arange(pairs)
        parts.append(batches.Part(0, step, pictures, tokens, lengths, fine, positions, ()))
    return parts


def mean_length(part: batches.Part) -> float:
    """Tokens a text that our step computes with."""
    (micro,) = batches.micros(part, len(part.fine), torch.device("cpu"), seed=0)
    return len(micro.places) / len(micro.fine)


def largest(step: Step, texts: list[str], side: int) -> int:
    """The largest power of two of pairs that a GPU has memory for."""
    pairs = FEWEST
    while True:
        try:
            step(made(texts, 2 * pairs, side, 1)[0])
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            return pairs
        pairs *= 2


# --- measuring --------------------------------------------------------------------------------


def measure(config: Model, options: argparse.Namespace) -> dict[str, Any]:
    """Both sides of one model."""
    ours, weights = our_step(config, options)
    sides = {"ours": ours, "open_clip": their_step(config, options, weights)}
    texts, side = captions(), config.vision.resolution
    with as_written(options.compile):
        check_first(sides, made(texts["CC3M"], 16, side, 1)[0], options.precision)
        pairs = {
            name: options.pairs or largest(sides[name], texts["LAION"], side) for name in sides
        }
    contestants = []
    for (name, step), source in itertools.product(sides.items(), texts):
        parts = made(texts[source], pairs[name], side, options.rounds + 1)
        for compiled in (False, True)[: 1 + options.compile]:
            contestants.append(Contestant(name, source, compiled, step, parts))
    # All texts are of one length to open_clip.
    contestants = [c for c in contestants if (c.side, c.source) != ("open_clip", "LAION")]
    compiling = {c.name: compile_ahead(c) for c in contestants if c.compiled}
    runs = {contestant.name: turn(contestant) for contestant in contestants}
    seconds = take_turns(runs, options.rounds, time.perf_counter)
    return {
        "model": config.name,
        "rounds": options.rounds,
        "pairs": pairs,
        "seconds to compile": compiling,
        **speeds(config, contestants, seconds, options),
    }


def speeds(
    config: Model,
    contestants: list[Contestant],
    seconds: dict[str, float],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """What follows from each contestant's seconds a step."""
    peak, source = cost.peak(torch.device(options.device), options.precision)
    rates = {c.name: c.pairs / seconds[c.name] for c in contestants}
    flops = {c.name: 3 * cost.forward_flops(config, c.tokens()) for c in contestants}
    best = {
        (c.side, c.source): max(rates[d.name] for d in contestants if alike(c, d))
        for c in contestants
    }
    theirs = best["open_clip", "CC3M"]
    return {
        "tokens a text": {c.name: c.tokens() for c in contestants},
        "images/s": rates,
        "MFU": {name: rates[name] * flops[name] / peak for name in rates},
        "peak": f"{peak / 1e12:.3g} TFLOPS: {source}",
        "best": {f"{side}, {source}": rate for (side, source), rate in best.items()},
        "times as fast": {
            source: rate / theirs for (side, source), rate in best.items() if side == "ours"
        },
    }


def alike(one: Contestant, other: Contestant) -> bool:
    """Whether they differ at most in being compiled."""
    return (one.side, one.source) == (other.side, other.source)


def as_written(yes: bool) -> AbstractContextManager:
    """Within it what torch.compile would compile runs as it was written, where `yes`."""
    return torch.compiler.set_stance("force_eager") if yes else nullcontext()


def turn(contestant: Contestant) -> Callable[[], float]:
    """A step on the next batch, each time that it is called."""
    parts = itertools.cycle(contestant.parts)

    def run() -> float:
        with as_written(not contestant.compiled):
            return contestant.step(next(parts))

    return run


def compile_ahead(contestant: Contestant) -> float:
    """Seconds of a step on each batch that comes, most of them of the compiler."""
    began = time.perf_counter()
    for part in contestant.parts:
        contestant.step(part)
    return time.perf_counter() - began


def check_first(sides: dict[str, Step], part: batches.Part, precision: str) -> None:
    """Ends the benchmark if the same weights and batch give the sides losses that differ."""
    ours, theirs = (sides[name](part) for name in ("ours", "open_clip"))
    if not abs(ours - theirs) <= ALIKE[precision]:
        raise SystemExit(f"the first losses differ: ours {ours}, open_clip's {theirs}")


def loss_memory(pairs: int, options: argparse.Namespace) -> dict[str, Any]:
    """`benchmarks.loss` on a GPU."""
    return losses.compare(
        argparse.Namespace(
            batch=pairs, embed=512, scale=14.3, turns=3, threads=options.threads, device="cuda"
        )
    )


def rows(results: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """The README's rows: what, measured, beside it, times."""
    found = []
    for result in results:
        for source, times in result["times as fast"].items():
            tokens = result["tokens a text"][f"ours, {source}"]
            compiled = "each at its best" if result["seconds to compile"] else "neither compiled"
            what = f"training {result['model']}, fp32, {compiled}, two cores, batches of "
            what += f"{result['pairs']['ours']}, {source} captions ({tokens:.0f} tokens on average)"
            ours, theirs = result["best"][f"ours, {source}"], result["best"]["open_clip, CC3M"]
            found.append(
                (what, f"{ours:.2f} images/s", f"open_clip: {theirs:.2f} images/s", f"{times:.2f}")
            )
    return found


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="each side compiled, too: minutes")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of a CPU")
    parser.add_argument("--pairs", type=int, help="of a batch (default: 32; a GPU's largest)")
    parser.add_argument("--device", choices=MODELS_OF, default="cpu")
    parser.add_argument("--precision", choices=ALIKE, help="(default: fp32; on a GPU bf16)")
    parser.add_argument("--models", nargs="+", choices=[model.name for model in PAPER])
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    options.precision = options.precision or PRECISIONS[options.device]
    options.pairs = options.pairs or (None if on_gpu else ON_CPU)
    torch.set_num_threads(options.threads)
    name = torch.cuda.get_device_name() if on_gpu else "CPU"
    settings = {"device": name, "threads": options.threads, "precision": options.precision}
    results = []
    for model in options.models or MODELS_OF[options.device]:
        print(f"{model} ...", file=sys.stderr, flush=True)
        results.append(measure(MODELS[model], options))
        torch.compiler.reset()
    result: dict[str, Any] = {**settings, "torch": torch.__version__, "training": results}
    if on_gpu:
        result["loss"] = [loss_memory(pairs, options) for pairs in LOSSES]
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{name.replace(' ', '_')}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
    else:
        result["rows"] = rows(results)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
