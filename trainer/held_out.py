"""What a run looks at while it trains: the loss of held-out shards, and evaluation sets.

    OUT/held_out/0000001200/validation.json      the loss at step 1,200
    OUT/held_out/0000001200/results.json ...     as `wit eval` writes them

Looked at are the same samples with the same texts each time, pictures' centres, and the model as it
is in evaluation (BatchNorm's running statistics).
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

import torch

from trainer import batches
from trainer.cache import Cache
from trainer.clip import CLIP
from trainer.config import Config
from trainer.evaluate.command import named
from trainer.evaluate.features import evaluating
from trainer.evaluate.one_set import described, evaluate, line
from trainer.evaluate.pictures import CaptionSet, ClassSet
from trainer.evaluate.results import read_results, write_results
from trainer.evaluate.sets import open_set
from trainer.index import Index, check_files, read_index
from trainer.loader import Loader
from trainer.log import Log
from trainer.loss import loss_and_gradients
from trainer.order import Order
from trainer.parallel import World, add_up, check_same, highest
from trainer.precision import autocast
from trainer.progress import Progress
from trainer.run_folder import cache_folder
from wit import storage
from wit.errors import UserError

FOLDER, VALIDATION = "held_out", "validation.json"


@dataclass(frozen=True)
class HeldOut:
    """What there is to look at; `index` None: no shards."""

    index: Index | None
    sets: list[ClassSet | CaptionSet]

    def __bool__(self) -> bool:
        return self.index is not None or bool(self.sets)


def open_held_out(config: Config, world: World) -> HeldOut:
    """Opens all of it, so that what is wrong is said before a run starts. Raises UserError."""
    index = None
    if config.validation:
        index = read_index(config.validation)
        if world.first_of_node:
            check_files(index)
        if index.samples.sum() < config.lanes:
            raise UserError(
                f"--validation {' '.join(config.validation)}: {index.samples.sum():,} samples, "
                f"fewer than the {config.lanes} lanes; hold more out"
            )
    sets = [
        open_set(name, path, classes=config.evaluate_classes, templates=config.evaluate_templates)
        for name, path in named(config.evaluate, "--evaluate").items()
    ]
    sha256s = [one.sha256() for one in sets]
    check_same(world, validation=index and index.sha256, sets_to_evaluate=sha256s)
    return HeldOut(index, sets)


def is_due(config: Config, progress: Progress, last: bool) -> bool:
    """Whether it is to be looked at after this step."""
    if config.validate_steps:
        return last or progress.step % config.validate_steps == 0
    return last or progress.step_of_epoch == 0


def look(
    held: HeldOut,
    config: Config,
    world: World,
    model: CLIP,
    step: int,
    log: Log,
) -> None:
    """Looks at everything that was not looked at for this step; all ranks call it."""
    folder = storage.join(config.out, FOLDER, f"{step:010d}")
    path = storage.join(folder, VALIDATION)
    seen = world.first and storage.exists(path)
    if seen:  # of the same pairs?
        seen = held.index is not None and storage.read_json(path)["index"] == held.index.sha256
    if held.index is not None and not highest([seen], world.device)[0]:
        found = validate(held.index, config, world, model)
        log.write(step, "validation", found)
        log.say(
            f"step {step:>7,}  validation loss {found['loss']:.4f}  ({found['pairs']:,} pairs in "
            f"batches of {found['batch']:,}, {found['broken']:,} broken)"
        )
        if world.first:
            storage.write_json(path, found | {"index": held.index.sha256})
    facts = {"model": config.model, "precision": config.precision, "step": step}
    results = read_results(folder, facts) if world.first else {}
    for one in held.sets:
        name = one.pictures.name
        done = results.get(name, {}).get("sha256") == one.sha256()
        if highest([done], world.device)[0]:
            continue
        result = evaluate(model, one, config.precision, threads=config.threads)
        log.write(step, f"evaluation/{name}", result.numbers)
        if world.first:
            results = write_results(folder, facts, results, described(one), result)
            log.say(f"step {step:>7,}  {line(name, results[name])}")


def validate(
    index: Index,
    config: Config,
    world: World,
    model: CLIP,
) -> dict[str, float]:
    """The mean loss over held-out pairs, in batches of the run's size or of all where fewer.

    To be compared with a training loss only where the batch is as large.
    """
    total = int(index.samples.sum())
    most = config.validation_samples or config.batch
    batch = min(config.batch, most, total)
    batch = max(config.lanes, batch // config.lanes * config.lanes)
    order = Order(index.samples, config.seed, 0, config.lanes, config.window)
    steps = max(1, min(order.steps(batch), most // batch))
    vision = model.config.vision
    folder = os.path.join(cache_folder(config, world), "validation")
    loader = Loader(
        Cache(index, folder, config.cache_bytes),
        order,
        0,
        batch,
        epochs=1,
        lanes=order.lanes_of(world.rank, world.size),
        node_lanes=world.node_lanes(order),
        make=batches.decoder(config.seed, vision.resolution, "centre"),
        threads=config.threads,
        sample_bytes=batches.sample_bytes(index, vision.resolution),
    )
    losses = torch.zeros((), dtype=torch.float64)
    pairs = 0
    with contextlib.closing(loader), evaluating(model):
        for _ in range(steps):
            part = batches.assemble(next(loader), config.seed, vision.resolution)
            micros = batches.micros(part, config.micro_batch, world.device, config.seed)
            with autocast(world.device, config.precision):
                features = [model(*micro.inputs()) for micro in micros]
            image, text = (torch.cat([f[i] for f in features]) for i in (0, 1))
            fine = torch.cat([micro.to_device(micro.fine) for micro in micros])
            found = loss_and_gradients(image, text, features[0][2], fine, gradients=False)
            count = int(add_up(fine.sum()))
            losses += found.value.cpu() * count
            pairs += count
    loss = float(losses) / max(1, pairs)
    return {"loss": loss, "pairs": pairs, "batch": batch, "broken": steps * batch - pairs}
