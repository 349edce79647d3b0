"""What a run says: what it will do and need before it starts, a line every so many steps."""

from __future__ import annotations

import torch

from trainer.batches import Part
from trainer.clip import CLIP
from trainer.config import Config
from trainer.index import Index
from trainer.log import Log
from trainer.order import Order
from trainer.parallel import World
from trainer.progress import Progress
from trainer.zoo import ResNetConfig, TextConfig, ViTConfig
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
    weights = 4 * parameters
    moments = (2 if config.adam == "fp16" else 4) * 2 * parameters
    log.say(
        f"{world.size} ranks on {world.device.type}, {config.batch // world.size:,} pairs each in "
        f"micro-batches of {config.micro_batch:,}; weights, gradients and moments take "
        f"{(2 * weights + moments) / 1e9:,.2f} GB a rank, "
        "beside the activations of a micro-batch"
    )
    if progress.step:
        log.say(f"continues after step {progress.step:,}, in epoch {progress.epoch + 1}")


def note(log: Log, part: Part, loss: float, norm: float, waited: float) -> None:
    """Adds a step to the averages, and names broken samples, the first few."""
    for fault in part.faults[: MOST_FAULTS - log.faults]:
        log.say(f"broken: {fault}")
    log.faults += len(part.faults)
    log.step(loss=loss, gradient_norm=norm, waited=waited)


def write(
    log: Log,
    config: Config,
    world: World,
    model: CLIP,
    progress: Progress,
    total: int,
    rate: float,
) -> None:
    """Writes a line of averages since the last one."""
    found = log.averages()
    seconds = max(found["seconds"], 1e-9)
    values = {
        "loss": found["loss"],
        "gradient_norm": found["gradient_norm"],
        "learning_rate": rate,
        "logit_scale": model.logit_scale.detach().exp().item(),
        "epoch": progress.epoch,
        "images_per_second": config.batch / seconds,
        "tflops": 3 * config.batch * forward_flops(model) / seconds / 1e12,
        "data_wait": min(1.0, found["waited"] / seconds),
        "memory_gb": memory(world.device) / 1e9,
        "broken": progress.broken,
        "skipped": progress.skipped,
    }
    log.write(progress.step, "train", values)
    left = duration(seconds * (total - progress.step))
    log.say(
        f"step {progress.step:>7,}/{total:,}  loss {values['loss']:.4f}  "
        f"{values['images_per_second']:,.1f} images/s  waiting {values['data_wait']:.0%}  "
        f"rate {rate:.2e}  scale {values['logit_scale']:.1f}  left {left}"
    )


def memory(device: torch.device) -> int:
    """Bytes at the peak: of a GPU what PyTorch had, of a CPU this process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forward_flops(model: CLIP) -> float:
    """Floating-point operations of one pair forward, texts of 77 tokens; a backward is twice that.

    Products only: 2 m n k each, attention's too.
    """
    vision, text = model.config.vision, model.config.text
    flops = transformer_flops(text.width, text.layers, text.context)
    if isinstance(vision, ViTConfig):
        tokens = vision.patches + 1
        patch = 2 * vision.patches * 3 * vision.patch**2 * vision.width
        return flops + patch + transformer_flops(vision.width, vision.layers, tokens)
    return flops + resnet_flops(vision, text)


def transformer_flops(width: int, layers: int, tokens: int) -> float:
    """Of blocks with four times as wide an MLP."""
    return layers * (24 * tokens * width**2 + 4 * tokens**2 * width)


def resnet_flops(vision: ResNetConfig, text: TextConfig) -> float:
    """Of stem, bottlenecks and attention pool."""
    side, width = vision.resolution // 2, vision.width
    flops = 2 * side**2 * 9 * (3 * width // 2 + width**2 // 4 + width**2 // 2)
    side, inside = side // 2, width
    for stage, blocks in enumerate(vision.layers):
        middle = width * 2**stage
        for block in range(blocks):
            before, stride = side, 2 if stage and not block else 1
            side //= stride
            flops += 2 * before**2 * (inside * middle + 9 * middle**2)
            flops += 2 * side**2 * 4 * middle**2
            if block == 0:
                flops += 2 * side**2 * inside * 4 * middle
            inside = 4 * middle
    positions = side**2 + 1
    return flops + 2 * positions * 2 * inside**2 + 4 * inside**2
