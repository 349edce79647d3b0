"""The paper's optimisation: AdamW, warm-up and cosine, clipping, the scale of a fp16 loss.

Radford et al. 2021, 2.5 and the appendix on hyper-parameters.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from trainer.lowbit import HalfAdamW, local
from wit.errors import UserError


def decays(parameter: Tensor) -> bool:
    """Whether a parameter decays: all but gains, biases and single vectors, as in open_clip.

    Gains and biases are what has fewer than two dimensions; so have the class embedding and
    logit_scale, which do not decay either.
    """
    return parameter.ndim >= 2


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Groups of named parameters: those that decay, the others, and scalars, which do not either.

    Scalars apart, for FSDP2 does not shard them, and a group is either sharded or not.
    """
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    groups = [
        {"params": [pair for pair in named if decays(pair[1])], "weight_decay": weight_decay},
        {
            "params": [pair for pair in named if pair[1].ndim and not decays(pair[1])],
            "weight_decay": 0.0,
        },
        {"params": [pair for pair in named if not pair[1].ndim], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def adamw(
    model: nn.Module,
    beta2: float,
    eps: float,
    beta1: float = 0.9,
    weight_decay: float = 0.2,
    half: bool = False,
    seed: int = 0,
) -> torch.optim.Optimizer:
    """AdamW with decoupled weight decay on weights that are neither gains nor biases.

    `half`: moments in half precision (trainer.lowbit), rounded by dice of `seed`. The learning rate
    is given at each `step`. Make it after FSDP2 has sharded the model and before DDP wraps it.
    Raises UserError for fp16 weights with fp32 moments.
    """
    groups = parameter_groups(model, weight_decay)
    if half:
        return _begun(HalfAdamW(groups, lr=0.0, betas=(beta1, beta2), eps=eps, seed=seed))
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise UserError(
                f"{name} is {str(parameter.dtype)[6:]}: half-precision text weights need "
                "half-precision Adam moments (--adam fp16), whose step rounds them stochastically"
            )
    # One pass over memory instead of a dozen: 0.8 instead of 6 ns a parameter on a CPU.
    return _begun(torch.optim.AdamW(groups, lr=0.0, betas=(beta1, beta2), eps=eps, fused=True))


def _begun(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser with moments of zero, so that it can be saved before its first step."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if isinstance(optimizer, HalfAdamW):
                state = optimizer.begin(parameter)
            else:  # as torch's own first step makes them where it is fused
                moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                state = {"step": torch.zeros((), device=parameter.device)} | moments
            optimizer.state[parameter] = state
    return optimizer


def learning_rate(step: int, peak: float, warmup: int, steps: int) -> float:
    """Of the step number `step`, from 0: linear up to `peak` over `warmup` steps, then a cosine.

    The last of the warm-up steps has the peak; after the last of all `steps` comes 0.
    """
    if step < warmup:
        return peak * ((step + 1) / warmup)
    if step >= steps:
        return 0.0
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The 2-norm of all gradients together, as `norm_of` has it."""
    return norm_of([p.grad for p in parameters if p.grad is not None])


@torch.no_grad()
def norm_of(tensors: Sequence[Tensor]) -> Tensor:
    """The 2-norm of all elements together, an fp32 scalar, equal on all ranks; 0 for no tensors.

    Not finite where any element is not. fp16 is summed in fp32. Of sharded tensors all ranks'
    shards count, of others one rank's.
    """
    if not tensors:
        return torch.zeros(())
    sharded = [tensor.to_local() for tensor in tensors if isinstance(tensor, DTensor)]
    whole = [tensor for tensor in tensors if not isinstance(tensor, DTensor)]
    # In fp64, where the square of no fp32 number overflows.
    total = torch.zeros((), dtype=torch.float64, device=(sharded + whole)[0].device)
    if sharded:
        total += _square(sharded)
        dist.all_reduce(total)
    if whole:
        total += _square(whole)
    return total.sqrt().float()


def _square(tensors: list[Tensor]) -> Tensor:
    """The sum of the squares of all elements, fp64."""
    norms = torch._foreach_norm(tensors, 2, torch.float32)
    return torch.stack(norms).double().square().sum()


def clip_multiplier(norm: float, largest: float | None) -> float:
    """What gradients of this norm are to be multiplied with, so that it is at most `largest`."""
    return 1.0 if largest is None or norm <= largest else largest / norm


def step(
    optimizer: torch.optim.Optimizer, learning_rate: float, multiplier: float | Tensor = 1.0
) -> None:
    """One step of an optimiser that `adamw` made; gradients count times `multiplier`."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    if isinstance(optimizer, HalfAdamW):
        optimizer.step(multiplier=multiplier)
        return
    if isinstance(multiplier, Tensor) or multiplier != 1:
        groups = [group["params"] for group in optimizer.param_groups]
        gradients = [local(p.grad) for group in groups for p in group if p.grad is not None]
        torch._foreach_mul_(gradients, multiplier)
    optimizer.step()


@dataclass(frozen=True)
class LossScale:
    """By how much the loss is multiplied, so that fp16 gradients do not vanish; an immutable state.

    Halved by a step whose gradients are not finite, doubled after 2,000 in a row that are, as
    torch's GradScaler does; which refuses fp16 weights.
    """

    value: float = 2.0**16
    finite_steps: int = 0

    def after(self, finite: bool, patience: int = 2000) -> "LossScale":
        """The scale of the next step."""
        if not finite:
            return LossScale(max(1.0, self.value / 2))
        if self.finite_steps + 1 == patience:
            return LossScale(min(2.0**24, self.value * 2))
        return LossScale(self.value, self.finite_steps + 1)
