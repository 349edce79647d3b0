"""Half-precision Adam moments and text weights, rounded stochastically (Radford et al. 2021, 2.5).

Rounding to the nearest half would lose every change smaller than half a step of the format: an
average that should fall stays where it is, a weight of .05 never moves by 5e-6. Rounded up with the
probability of the part that is cut off, the mean of what is stored is the exact number. The dice
are a hash of (seed, step, parameter's name, element's index): so replicas throw the same, a resumed
run goes on with the same, and a CPU and a GPU throw alike.

Moments of matrices are fp16 times an fp32 scale a row: 11 bits of precision over 12 decimal orders
under the row's largest. Of the second moment it is the root that is stored, which doubles these
orders. Vectors and scalars (gains, biases: a thousandth of all) keep fp32 moments and weights.

Bytes a parameter: 4 of moments instead of 8; a text weight 2 instead of 4, and its gradient 2.
Time: 14 to 20 ns a parameter and step on one CPU core, where fused fp32 AdamW takes 1.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from wit.errors import UserError

DROPPED = 13  # bits of a fp32 fraction that fp16 has no room for
DICE = (1 << DROPPED) - 1
# fp16's exponents moved to the lowest of fp32: what is denormal in one is in the other, and so the
# bits to be dropped are the same ones for every number.
DOWN, UP = 2.0**-112, 2.0**112
# A row's largest is stored as 2^15, not 65,504: rounded up it must not become infinite.
LARGEST = 2.0**15
TINY = torch.finfo(torch.float32).tiny
# Elements updated at a time, so that the fp32 copies stay in a cache, or few.
CHUNK = {"cpu": 2**19, "cuda": 2**25}


# --- dice and rounding --------------------------------------------------------------------------


def dice_keys(seed: int, step: int, name: str, purpose: str) -> tuple[int, int]:
    """Two int32 keys for the dice of one tensor at one step."""
    text = f"{seed} {step} {purpose} {name}".encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return tuple(int.from_bytes(part, "little", signed=True) for part in (digest[:4], digest[4:]))


def dice(keys: tuple[int, int], first: int, count: int, device: torch.device | str) -> Tensor:
    """Uniform bits for elements first to first + count of a tensor: int32 [count].

    A hash of the index (modulo 2^32) and the keys, after Wellons' lowbias32: in int32 alone, whose
    products wrap alike everywhere.
    """
    low, high = keys
    start = (first + low + 2**31) % 2**32 - 2**31
    x = torch.arange(count, dtype=torch.int32, device=device).add_(start)
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    x *= 0x7FEB352D
    x ^= high
    x ^= (x >> 15).bitwise_and_(0x1FFFF)
    x *= 0x846CA68B - 2**32
    return x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))


def round_to_half(x: Tensor, dice: Tensor) -> Tensor:
    """fp32 -> fp16, up or down in magnitude so that the mean is `x`; denormals too.

    `dice` int32, of the shape of `x`: its lowest 13 bits decide. |x| at most 65,504, finite.
    """
    bits = (x * DOWN).view(torch.int32)
    bits += dice & DICE
    bits &= ~DICE
    return bits.view(torch.float32).mul_(UP).half()


# --- text weights -------------------------------------------------------------------------------


def halve_text_weights(model: nn.Module) -> list[str]:
    """Casts the matrices of the text encoder to fp16, in place; returns their names.

    Gains and biases stay fp32, so the towers must compute under autocast; and gradients of these
    weights are fp16, so the loss must be scaled (`trainer.optim.LossScale`).
    """
    names = []
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and not name.startswith("visual."):
            parameter.data = parameter.data.half()
            names.append(name)
    return names


def check_one_dtype(where: str, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Raises UserError where a group that FSDP2 is to shard mixes dtypes, which it refuses."""
    example: dict[torch.dtype, str] = {}
    for name, parameter in parameters:
        example.setdefault(parameter.dtype, name)
    if len(example) > 1:
        mixed = " and ".join(f"{name} ({str(dtype)[6:]})" for dtype, name in example.items())
        raise UserError(
            f"{where}: FSDP2 shards parameters of one dtype together, and here are {mixed}; keep "
            "the text weights in fp32 or use DDP"
        )


# --- the optimiser ------------------------------------------------------------------------------


class HalfAdamW(torch.optim.Optimizer):
    """AdamW with half-precision moments; parameters in fp32, or in fp16 with stochastic rounding.

    `groups` as torch.optim.AdamW takes them, of named parameters. The state of a matrix:
    `exp_avg` and `exp_avg_sq_root` in fp16, each with its `_scale`, fp32 of one number a row (the
    first dimension). Parameters that FSDP2 shards by rows have their state sharded alike, with the
    bits that the whole would have.
    """

    def __init__(
        self,
        groups: Iterable[dict],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        seed: int,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self.seed = seed

    @torch.no_grad()
    def step(self, closure: None = None, multiplier: float | Tensor = 1.0) -> None:
        """One step; gradients count times `multiplier`, in fp32 (clipping, a scaled loss undone).

        No `closure`: it is in the place where torch's callers pass None.
        """
        for group in self.param_groups:
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                if parameter.grad is not None:
                    self._update(name, parameter, group, multiplier)

    def load_state_dict(self, state_dict: dict) -> None:
        """As torch's, which would cast the moments to the dtype of the weights."""
        super().load_state_dict(state_dict)
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            for parameter, index in zip(group["params"], saved["params"], strict=True):
                if index not in state_dict["state"]:
                    continue
                entries = state_dict["state"][index]
                self.state[parameter] = {
                    key: value.to("cpu" if key == "step" else parameter.device, copy=True)
                    for key, value in entries.items()
                }

    def begin(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """The state of a parameter before its first step."""
        dtype = torch.float16 if parameter.ndim >= 2 else torch.float32
        state = {"step": torch.zeros((), device="cpu")}
        for name in ("exp_avg", "exp_avg_sq_root"):
            state[name] = torch.zeros_like(parameter, dtype=dtype)
            if dtype == torch.float16:
                rows = parameter.flatten(1)[:, 0]
                state[f"{name}_scale"] = torch.zeros_like(rows, dtype=torch.float32)
        return state

    def _update(
        self, name: str, parameter: nn.Parameter, group: dict, multiplier: float | Tensor
    ) -> None:
        if parameter not in self.state:
            self.state[parameter] = self.begin(parameter)
        self.state[parameter]["step"] += 1
        state = {key: local(value) for key, value in self.state[parameter].items()}
        step = int(state.pop("step"))
        weight, gradient = local(parameter), local(parameter.grad)
        if parameter.ndim < 2:
            gradient = gradient.float() * multiplier
            _adamw(weight, gradient, state["exp_avg"], state["exp_avg_sq_root"], step, group)
            return
        width = parameter.numel() // len(parameter)
        rows = max(1, CHUNK.get(weight.device.type, CHUNK["cuda"]) // width)
        first_row = _first_row(parameter)
        for top in range(0, len(weight), rows):
            part = slice(top, top + rows)
            _update_rows(
                weight[part],
                gradient[part].float() * multiplier,
                {key: value[part] for key, value in state.items()},
                step,
                group,
                _Dice(self.seed, step, name, (first_row + top) * width),
            )


@dataclass(frozen=True)
class _Dice:
    """Of the elements of one tensor at one step, from the element `first` on."""

    seed: int
    step: int
    name: str
    first: int

    def throw(self, purpose: str, like: Tensor) -> Tensor:
        """Int32 dice in the shape and on the device of `like`."""
        keys = dice_keys(self.seed, self.step, self.name, purpose)
        return dice(keys, self.first, like.numel(), like.device).view(like.shape)


def _update_rows(
    weight: Tensor,
    gradient: Tensor,
    state: dict[str, Tensor],
    step: int,
    group: dict,
    thrown: _Dice,
) -> None:
    """Some rows of a matrix (or of what has more dimensions), in place; `gradient` fp32."""
    column = (-1, *[1] * (weight.ndim - 1))
    names = ("exp_avg", "exp_avg_sq_root")
    moments = [state[name].float().mul_(state[f"{name}_scale"].view(column)) for name in names]
    exact = weight.float()  # an fp32 weight itself
    _adamw(exact, gradient, *moments, step, group)
    if weight.dtype == torch.float16:
        weight.copy_(round_to_half(exact, thrown.throw("weight", weight)))
    bits = thrown.throw("moments", weight)
    for name, moment in zip(names, moments, strict=True):
        rest = tuple(range(1, weight.ndim))
        scale = moment.abs().amax(rest).div_(LARGEST).clamp_(min=TINY)
        state[f"{name}_scale"].copy_(scale)
        state[name].copy_(round_to_half(moment.div_(scale.view(column)), bits))
        bits = bits >> DROPPED  # the second moment has the next 13


def _adamw(
    weight: Tensor, gradient: Tensor, exp_avg: Tensor, root: Tensor, step: int, group: dict
) -> None:
    """Loshchilov & Hutter 2019, as torch.optim.AdamW computes it, on fp32 tensors in place.

    `root` is that of the second moment.
    """
    beta1, beta2 = group["betas"]
    exp_avg.lerp_(gradient, 1 - beta1)
    root.square_().mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2).sqrt_()
    weight.mul_(1 - group["lr"] * group["weight_decay"])
    divisor = (root / (1 - beta2**step) ** 0.5).add_(group["eps"])
    weight.addcdiv_(exp_avg, divisor, value=-group["lr"] / (1 - beta1**step))


def local(tensor: Tensor) -> Tensor:
    """Returns this rank's rows of a tensor that FSDP2 shards; any other tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _first_row(tensor: Tensor) -> int:
    """The place of this rank's rows in a tensor that FSDP2 shards by rows."""
    if not isinstance(tensor, DTensor):
        return 0
    if any(placement.is_shard() and placement.dim != 0 for placement in tensor.placements):
        raise ValueError(f"a parameter sharded as {tensor.placements}: only by rows, Shard(0)")
    _, offset = compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    return offset[0]
