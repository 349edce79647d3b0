"""`wit train` and `torchrun -m trainer`: the whole of a training run, from top to bottom.

configuration -> shards -> model -> checkpoint -> steps: batch, gradient, step, log, checkpoint
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import asdict
from types import FrameType

import torch

from trainer import batches, checkpoint, optim, run_lines
from trainer.accumulate import backward
from trainer.cache import Cache
from trainer.clip import CLIP, create, set_checkpointing
from trainer.config import Config, open_run, parse
from trainer.convert import load_weights
from trainer.index import Index, read_index
from trainer.loader import Loader, State, check_state
from trainer.log import Log
from trainer.lowbit import halve_text_weights
from trainer.order import Order
from trainer.parallel import World, add_up, any_rank, barrier, joined, wrap
from trainer.progress import Progress
from trainer.resnet import apply_collected, take_collected
from trainer.zoo import MODELS, Model, ViTConfig
from wit.errors import UserError

SIGNALS = (signal.SIGTERM, signal.SIGINT)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def main(argv: list[str]) -> int:
    """Trains, or continues; the exit code."""
    config = parse(argv)
    with joined(config.device) as world:
        train(config, world)
    return 0


def train(config: Config, world: World) -> Progress:
    """Takes a run from wherever its folder is to its end, or to where it is told to stop."""
    # --- the run, its data, its model
    config = open_together(config, world)
    index = read_index(config.data)
    model_config = MODELS[config.model]
    vision = model_config.vision
    log = Log(config.out, world.rank)
    bare = make_model(config, model_config, world)
    optimizer = optim.adamw(
        bare,
        config.beta2 or model_config.beta2,
        config.eps or model_config.eps,
        config.beta1,
        config.weight_decay,
        half=config.adam == "fp16",
        seed=config.seed,
    )

    # --- where it stands
    progress, scale = resume(config, index, bare, optimizer)
    model = wrap(bare, world)
    order = Order(index.samples, config.seed, progress.epoch, config.lanes, config.window)
    steps_an_epoch = order.steps(config.batch)
    total = config.epochs * steps_an_epoch
    run_lines.announce(log, config, world, bare, index, order, total, progress)
    if progress.step >= total:
        log.say(f"the run is at its end: {checkpoint.folder_of(config.out, progress.step)}")
        return progress

    # --- its batches
    loader = Loader(
        Cache(index, config.cache or os.path.join(config.out, "cache"), config.cache_bytes),
        order,
        progress.step_of_epoch,
        config.batch,
        config.epochs,
        lanes=order.lanes_of(world.rank, world.size),
        node_lanes=world.node_lanes(order),
        make=batches.decoder(config.seed, vision.resolution, config.crop),
        threads=config.threads,
    )
    parts = batches.Parts(loader, config.seed, vision.resolution)
    patches = vision.patches if isinstance(vision, ViTConfig) else 0
    peak = config.learning_rate or model_config.learning_rate

    # --- steps
    begun, saved_at = progress.step, time.monotonic()
    with contextlib.closing(parts), contextlib.closing(log), Asked() as asked:
        while progress.step < total:
            part = next(parts)
            micros = batches.micros(
                part, config.micro_batch, world.device, config.seed, patches, config.patch_dropout
            )
            optimizer.zero_grad(set_to_none=True)
            outcome = backward(model, micros, lambda: autocast(config, world), scale.value)
            statistics = add_up(take_collected(bare))
            norm = optim.gradient_norm(bare.parameters()) / scale.value
            rate = optim.learning_rate(progress.step, peak, config.warmup, total)
            finite = bool(torch.isfinite(norm) & torch.isfinite(outcome.loss))
            if finite:
                multiplier = optim.clip_multiplier(norm.item(), config.clip_norm) / scale.value
                optim.step(optimizer, rate, multiplier)
                bare.clamp_logit_scale()
                if len(statistics):
                    apply_collected(bare, statistics)
            if config.precision == "fp16":
                scale = scale.after(finite)
            progress = progress.after(finite, int(outcome.pairs), config.batch, order)
            if progress.step_of_epoch == 0:
                order = order.after()
            if progress.skipped_in_a_row >= config.most_skipped:
                raise UserError(
                    f"step {progress.step:,}: {config.most_skipped} steps in a row without finite "
                    "gradients; lower --learning-rate, or use --precision bf16 or fp32"
                )
            run_lines.note(log, part, outcome.loss.item(), norm.item(), parts.take_waited())
            last = progress.step == total
            if last or progress.step % config.log_steps == 0:
                run_lines.write(log, config, world, bare, progress, total, rate)

            enough = bool(config.stop_after) and progress.step - begun >= config.stop_after
            stop = any_rank(asked.to_stop or enough, world.device)
            late = time.monotonic() - saved_at > 60 * config.save_minutes
            due = last or stop or progress.step_of_epoch == 0
            if due or progress.step % config.save_steps == 0 or any_rank(late, world.device):
                save(config, world, index, bare, optimizer, progress, scale)
                saved_at = time.monotonic()
            if stop:
                log.say(f"stopped at step {progress.step:,}; the same command continues")
                break
    return progress


# --- the parts of a run -----------------------------------------------------------------------


def open_together(config: Config, world: World) -> Config:
    """Opens the run's folder: the first rank writes its file, then the others read it."""
    if world.first:
        config = open_run(config, world.size)
    barrier()
    return config if world.first else open_run(config, world.size)


def make_model(config: Config, model_config: Model, world: World) -> CLIP:
    """The model with fresh weights, or those of `init`, on this rank's device, for training."""
    model = create(model_config, config.seed)
    if config.init:
        model.load_state_dict(load_weights(config.init, model_config, resize=True))
    if config.text_weights == "fp16":
        halve_text_weights(model)
    model = model.to(world.device)
    if not isinstance(model_config.vision, ViTConfig):
        model = model.to(memory_format=torch.channels_last)
    set_checkpointing(model, config.recompute)
    return model.train()


def autocast(config: Config, world: World) -> contextlib.AbstractContextManager:
    """The context in which the towers compute."""
    dtype = DTYPES.get(config.precision)
    return torch.autocast(world.device.type, dtype) if dtype else contextlib.nullcontext()


def state_of(config: Config, index: Index, progress: Progress) -> State:
    """Where a run stands in its data."""
    place = (progress.epoch, progress.step_of_epoch, index.sha256)
    return State(*place, config.seed, config.lanes, config.window, config.batch)


def resume(
    config: Config, index: Index, model: CLIP, optimizer: torch.optim.Optimizer
) -> tuple[Progress, optim.LossScale]:
    """Reads the last checkpoint, where there is one."""
    steps = checkpoint.steps_of(config.out)
    if not steps:
        return Progress(), optim.LossScale(1.0 if config.precision != "fp16" else 2.0**16)
    facts = checkpoint.load(config.out, steps[-1], model, optimizer)
    progress = Progress(**facts["progress"])
    check_state(State(**facts["data"]), state_of(config, index, progress))
    return progress, optim.LossScale(**facts["scale"])


def save(
    config: Config,
    world: World,
    index: Index,
    model: CLIP,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    scale: optim.LossScale,
) -> None:
    """Writes a checkpoint, and removes those that are not to be kept."""
    facts = {
        "data": asdict(state_of(config, index, progress)),
        "progress": asdict(progress),
        "scale": asdict(scale),
        "epoch_end": progress.step_of_epoch == 0,
        "model": config.model,
        "ranks": world.size,
        "torch": torch.__version__,
    }
    checkpoint.save(config.out, progress.step, model, optimizer, facts)
    checkpoint.prune(config.out, config.keep)


class Asked:
    """Within it SIGTERM and Ctrl-C ask the run to stop after its step; a second one ends it."""

    def __init__(self) -> None:
        self.to_stop = False

    def __enter__(self) -> Asked:
        self.before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.to_stop:
            raise KeyboardInterrupt
        self.to_stop = True
