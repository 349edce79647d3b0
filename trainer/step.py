"""One step: the gradient of a batch, its norm, and the move it leads to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from trainer import optim
from trainer.accumulate import Micro, backward
from trainer.clip import CLIP
from trainer.config import Config
from trainer.parallel import World, add_up, average_scale
from trainer.precision import autocast
from trainer.resnet import apply_collected, take_collected


@dataclass(frozen=True)
class Step:
    """What a step found, equal on all ranks; `update_norm` where it was asked for."""

    loss: float
    pairs: int
    gradient_norm: float
    update_norm: float | None
    finite: bool


def take_step(
    model: torch.nn.Module,
    bare: CLIP,
    optimizer: torch.optim.Optimizer,
    micros: list[Micro],
    config: Config,
    world: World,
    rate: float,
    scale: optim.LossScale,
    measured: bool,
) -> Step:
    """The gradient of a batch and the step it leads to; none where it is not finite."""
    optimizer.zero_grad(set_to_none=True)
    outcome = backward(model, micros, lambda: autocast(world.device, config.precision), scale.value)
    average_scale(bare)
    statistics = take_collected(bare)
    if len(statistics):
        add_up(statistics)
    norm = optim.gradient_norm(bare.parameters()).item() / scale.value
    loss, moved = outcome.loss.item(), None
    finite = math.isfinite(norm) and math.isfinite(loss)
    if finite:
        # A copy of the weights takes less than the activations, which are gone by now.
        before = [p.detach().clone() for p in bare.parameters()] if measured else []
        optim.step(optimizer, rate, optim.clip_multiplier(norm, config.clip_norm) / scale.value)
        bare.clamp_logit_scale()
        if len(statistics):
            apply_collected(bare, statistics)
        if measured:
            pairs = zip(bare.parameters(), before, strict=True)
            moved = optim.norm_of([new.detach() - old for new, old in pairs]).item()
    return Step(loss, int(outcome.pairs), norm, moved, finite)
