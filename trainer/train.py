"""`wit train` and `torchrun -m trainer`: the whole of a training run, from top to bottom.

configuration -> shards -> model -> checkpoint -> steps: batch, gradient, step, log, checkpoint
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import asdict, replace
from types import FrameType

import torch

from trainer import batches, checkpoint, cost, held_out, optim, run_lines
from trainer.accumulate import Micro
from trainer.cache import Cache
from trainer.clip import CLIP, create, set_checkpointing
from trainer.config import Config, scales_loss
from trainer.convert import load_weights
from trainer.evaluate.weights import weights_of
from trainer.index import Index, check_files, read_index
from trainer.loader import Batch, Loader, State, check_state
from trainer.log import Log
from trainer.lowbit import halve_text_weights
from trainer.options import parse, to_toml
from trainer.order import Order
from trainer.parallel import (
    World,
    check_same,
    compile_blocks,
    from_first,
    highest,
    joined,
    wrap,
)
from trainer.progress import Progress
from trainer.run_folder import cache_folder, keep, open_run
from trainer.step import take_step
from trainer.zoo import MODELS, Model, ViTConfig
from wit.errors import UserError
from wit.lock import FolderLock

SIGNALS = (signal.SIGTERM, signal.SIGINT)
AGAIN = 2.0  # seconds between two signals that are not one


def main(argv: list[str]) -> int:
    """Trains, or continues; the exit code, as `train` returns it."""
    config = parse(argv)
    with joined(config.device) as world, contextlib.ExitStack() as stack:
        if world.first:
            stack.enter_context(FolderLock(config.out))
        try:
            return train(config, world)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"no memory left on {world.device} ({str(error).splitlines()[0]}); a smaller "
                "--micro-batch, --recompute, --precision bf16, --adam fp16 or --sharding fsdp "
                "takes less"
            ) from error


def train(config: Config, world: World) -> int:
    """Takes a run from wherever its folder is to its end, or to where it is told to stop.

    Returns 0, or 128 and the number of the signal that stopped it before its end.
    """
    set_arithmetic(config)

    # --- the run, its data, its model
    config = open_run(config, world)
    index = read_index(config.data)
    if world.first_of_node:
        check_files(index)
    check_same(world, shards=index.sha256, options=steering(config))
    held = held_out.open_held_out(config, world)
    model_config = replace(MODELS[config.model], gelu=config.gelu or MODELS[config.model].gelu)
    vision = model_config.vision
    bare = make_model(config, model_config, world)
    model = wrap(bare, world, config.sharding)
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
    progress, scale = resume(config, world, index, bare, optimizer)
    order = Order(index.samples, config.seed, progress.epoch, config.lanes, config.window)
    total = progress.total(config.epochs, order.steps(config.batch))
    ended = progress.step >= total
    if world.first:
        keep(config)
    log = Log(config.out, world.rank)
    if not ended:
        run_lines.announce(log, config, world, bare, index, order, total, progress)
    if held and progress.step and held_out.is_due(config, progress, ended):
        held_out.look(held, config, world, bare, progress.step, log)
    if ended:
        log.say(f"the run is at its end: {checkpoint.folder_of(config.out, progress.step)}")
        return 0

    peak = cost.peak(world.device, config.precision)  # before threads decode
    log.say(f"MFU is of {peak[0] / 1e9:,.0f} GFLOPS a rank: {peak[1]}")

    # --- its batches
    loader = Loader(
        Cache(index, cache_folder(config, world), config.cache_bytes),
        order,
        progress.step_of_epoch,
        config.batch,
        config.epochs,
        lanes=order.lanes_of(world.rank, world.size),
        node_lanes=world.node_lanes(order),
        make=batches.decoder(config.seed, vision.resolution, config.crop, config.crop_area),
        threads=config.threads,
        sample_bytes=batches.sample_bytes(index, vision.resolution),
    )
    on_gpu = world.device.type == "cuda"
    patches = vision.patches if isinstance(vision, ViTConfig) else 0

    def prepare(batch: Batch) -> tuple[batches.Part, list[Micro]]:
        part = batches.assemble(batch, config.seed, vision.resolution, on_gpu)
        how = (config.micro_batch, world.device, config.seed, patches, config.patch_dropout)
        return part, batches.micros(part, *how)

    ahead = batches.Ahead(loader, prepare)

    # --- steps
    highest_rate = config.learning_rate or model_config.learning_rate
    begun, saved_at = progress.step, time.monotonic()
    log.start()
    closing = contextlib.closing
    with closing(ahead), closing(log), world.telling(), Asked() as asked:
        while progress.step < total:
            part, micros = next(ahead)
            last = progress.step + 1 == total
            writes = last or (progress.step + 1) % config.log_steps == 0
            rate = optim.learning_rate(progress.step, highest_rate, config.warmup, total)
            step = take_step(model, bare, optimizer, micros, config, world, rate, scale, writes)
            if scales_loss(config):
                scale = scale.after(step.finite)
            progress = progress.after(step.finite, step.pairs, config.batch, order)
            if progress.step_of_epoch == 0:
                order = order.after()
            if progress.skipped_in_a_row >= config.most_skipped:
                raise UserError(
                    f"step {progress.step:,}: {config.most_skipped} steps in a row without finite "
                    "gradients; lower --learning-rate, or use --precision bf16 or fp32"
                )
            enough = bool(config.stop_after) and progress.step - begun >= config.stop_after
            late = time.monotonic() - saved_at > 60 * config.save_minutes
            flags = (asked.by, enough, late, ahead.take_waited())
            by, enough, late, waited = highest(flags, world.device)
            stop = by or enough
            run_lines.note(log, part, micros, step, waited)
            if writes or stop:
                run_lines.write(log, config, world, bare, progress, total, rate, step, peak[0])

            due = last or stop or late or progress.step_of_epoch == 0
            if due or progress.step % config.save_steps == 0:
                with log.paused():
                    save(config, world, index, bare, optimizer, progress, scale)
                saved_at = time.monotonic()
            if stop and not last:
                log.say(f"stopped at step {progress.step:,}; the same command continues")
                return 128 + int(by) if by else 0
            if held and held_out.is_due(config, progress, last):
                with log.paused():
                    held_out.look(held, config, world, bare, progress.step, log)
    return 0


# --- the parts of a run -----------------------------------------------------------------------


def make_model(config: Config, model_config: Model, world: World) -> CLIP:
    """The model with fresh weights, or those of `init`, on this rank's device, for training."""
    model = create(model_config, config.seed)
    if config.init and not checkpoint.resumable(config.out):
        weights = weights_of(config.init)
        model.load_state_dict(load_weights(weights, model_config, config.gelu, resize=True))
    if config.text_weights == "fp16":
        halve_text_weights(model)
    model = model.to(world.device)
    if not isinstance(model_config.vision, ViTConfig):
        model = model.to(memory_format=torch.channels_last)
    set_checkpointing(model, config.recompute)
    if config.compile:
        compile_blocks(model)
    return model.train()


def set_arithmetic(config: Config) -> None:
    """Has a GPU compute in fp32 what is said to be, in the same order if that is asked for."""
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    torch.backends.cudnn.benchmark = not config.deterministic
    if config.deterministic:
        torch.use_deterministic_algorithms(True)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first product


def steering(config: Config) -> str:
    """What must be equal on all ranks, or they would not meet: all but places on a machine."""
    return to_toml(replace(config, cache=None, threads=None, device=None, data=(), out=""))


def state_of(config: Config, index: Index, progress: Progress) -> State:
    """Where a run stands in its data."""
    place = (progress.epoch, progress.step_of_epoch, index.sha256)
    return State(*place, config.seed, config.lanes, config.window, config.batch)


def resume(
    config: Config,
    world: World,
    index: Index,
    model: CLIP,
    optimizer: torch.optim.Optimizer,
) -> tuple[Progress, optim.LossScale]:
    """Reads the last checkpoint that the first rank sees, where there is one."""
    steps = from_first(checkpoint.resumable(config.out))
    if not steps and checkpoint.steps_of(config.out):
        raise UserError(
            f"{config.out}: its checkpoints have weights alone, no training state; begin another "
            f"run with them (--init {config.out}), or remove them to begin this one anew"
        )
    if not steps:
        return Progress(), optim.LossScale() if scales_loss(config) else optim.LossScale(1.0)
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
    """Within it SIGTERM and Ctrl-C ask the run to stop after its step; Ctrl-C again ends it.

    Again is seconds later: those who start ranks may pass one signal on to each of them twice.
    """

    def __init__(self) -> None:
        self.by = 0  # the signal's number
        self.at = 0.0

    def __enter__(self) -> Asked:
        self.before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.by:
            self.by, self.at = number, now
        elif number == signal.SIGINT and now - self.at > AGAIN:
            raise KeyboardInterrupt
