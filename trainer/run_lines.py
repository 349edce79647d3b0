"""What a run says: what it will do and need before it starts, a line every so many steps."""

from __future__ import annotations

import math

import torch

from trainer import cost
from trainer.accumulate import Micro
from trainer.batches import Part, kept_patch_count
from trainer.clip import CLIP
from trainer.config import Config
from trainer.index import Index
from trainer.log import Log
from trainer.order import Order, neighbour_distance
from trainer.parallel import World
from trainer.progress import Progress
from trainer.step import Step
from trainer.zoo import Model, ViTConfig
from wit.console import duration

MOST_FAULTS = 20  # broken samples that are named


def announce(
    log: Log,
    config: Config,
    world: World,
    model: CLIP,
    index: Index,
    order: Order,
    total: int,
    progress: Progress,
) -> None:
    """Says what the run will do and the memory it expects."""
    parameters = sum(p.numel() for p in model.parameters())
    log.say(f"{config.model}: {parameters / 1e6:,.1f} M parameters, {config.precision}")
    log.say(
        f"{order.total:,} samples in {len(index.samples):,} shards; {config.epochs} epochs of "
        f"{order.steps(config.batch):,} steps of {config.batch:,} ({total:,} in all)"
    )
    log.say(
        f"{world.size} {'rank' if world.size == 1 else 'ranks'} on {world.device.type}, "
        f"{config.batch // world.size:,} pairs each in micro-batches of {config.micro_batch:,}"
    )
    area = f" of {config.crop_area:.0%} or more" if config.crop == "resized" else ""
    log.say(
        f"learning rate {config.learning_rate or model.config.learning_rate:g} after "
        f"{config.warmup:,} steps of warm-up, seed {config.seed}, {config.lanes} lanes, "
        f"{config.crop} crops{area}, Adam's moments in {config.adam}"
    )
    distance = neighbour_distance(order)
    log.say(f"neighbours in a shard come {distance:,.0f} samples apart, on average")
    if config.warmup >= total:
        log.say("warning: the run ends before its warm-up; a smaller --warmup is meant")
    ranks = world.size if config.sharding == "fsdp" else 1
    kept = kept_count(config, model.config)
    states = cost.training_bytes(
        parameters, cost.text_matrices(model), config.adam, config.text_weights
    )
    activations = cost.activation_bytes(
        model.config, config.micro_batch, world.device, config.precision, config.recompute, kept
    )
    needed = states / ranks + activations
    log.say(
        f"memory of a rank: {needed / 1e9:,.2f} GB or more ({states / ranks / 1e9:,.2f} weights, "
        f"gradients and moments, {activations / 1e9:,.2f} activations of a micro-batch)"
    )
    free = cost.free_bytes(world.device)
    if needed > free:
        log.say(
            f"warning: only {free / 1e9:,.2f} GB are free here; a smaller --micro-batch, "
            "--recompute, --precision bf16 or --sharding fsdp takes less"
        )
    if progress.step:
        log.say(f"continues after step {progress.step:,}, in epoch {progress.epoch + 1}")


def kept_count(config: Config, model: Model) -> int:
    """Patches that patch dropout leaves of a picture; 0 where it leaves all."""
    if not config.patch_dropout or not isinstance(model.vision, ViTConfig):
        return 0
    return kept_patch_count(model.vision.patches, config.patch_dropout)


def note(log: Log, part: Part, micros: list[Micro], step: Step, waited: float) -> None:
    """Adds a step to the averages, and names broken samples, the first few."""
    for fault in part.faults[: MOST_FAULTS - log.faults]:
        log.complain(f"broken: {fault}")
    log.faults += len(part.faults)
    length = sum(len(micro.places) for micro in micros) / len(part.fine)
    log.step(waited=waited, text_length=length)
    if step.finite:  # one that is not would hide the others
        log.add(loss=step.loss, gradient_norm=step.gradient_norm)


def write(
    log: Log,
    config: Config,
    world: World,
    model: CLIP,
    progress: Progress,
    total: int,
    rate: float,
    step: Step,
    peak: float,
) -> None:
    """Writes a line of averages since the last one. `peak`: operations a second of a device."""
    found = log.averages()
    seconds = max(found["seconds"], 1e-9)
    kept = kept_count(config, model.config) or None
    flops = 3 * config.batch * cost.forward_flops(model.config, found["text_length"], kept)
    values = {
        "loss": found.get("loss", math.nan),
        "gradient_norm": found.get("gradient_norm", math.nan),
        "learning_rate": rate,
        "logit_scale": model.logit_scale.detach().exp().item(),
        "epoch": progress.epoch,
        "images_per_second": config.batch / seconds,
        "mfu": flops / seconds / (peak * world.size),
        "data_wait": min(1.0, found["waited"] / seconds),
        "memory_gb": memory(world.device) / 1e9,
        "text_length": found["text_length"],
        "broken": progress.broken,
        "skipped": progress.skipped,
    }
    if step.update_norm is not None:
        values["update_norm"] = step.update_norm
    log.write(progress.step, "train", values)
    left = duration(seconds * (total - progress.step))
    log.say(
        f"step {progress.step:>7,}/{total:,}  loss {values['loss']:.4f}  "
        f"{values['images_per_second']:,.1f} images/s  MFU {values['mfu']:.0%}  "
        f"waiting {values['data_wait']:.0%}  rate {rate:.2e}  "
        f"scale {values['logit_scale']:.1f}  left {left}"
    )


def memory(device: torch.device) -> int:
    """Bytes at the peak: of a GPU what PyTorch had, of a CPU this process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
