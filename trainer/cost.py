"""What a run costs: operations, the device's peak of them, memory; counted, not guessed.

Operations are those of matrix products and convolutions, 2 m n k each, as in model FLOPs
utilisation (MFU; Chowdhery et al. 2022, PaLM, appendix B): what is computed twice to save memory
counts once. Texts count as long as they were, and the last block of a tower for the one row that it
computes in full: so the share is of work that was done.
"""

from __future__ import annotations

import re
import time

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from trainer.clip import CLIP, set_checkpointing
from trainer.precision import autocast, dtype_of
from trainer.resnet import still
from trainer.zoo import Model, ResNetConfig

# 10^12 operations a second that the makers' data sheets promise, without sparsity: (name in the
# device's name, in bf16 or fp16, in fp32).
PEAKS = (
    ("B200", 2250, 75),
    ("H200", 989, 67),
    ("H100 PCIe", 756, 51),
    ("H100 NVL", 835, 60),
    ("H100", 989, 67),
    ("A100", 312, 19.5),
    ("L40S", 362, 91.6),
    ("L40", 181, 90.5),
    ("L4", 121, 30.3),
    ("A10G", 70, 35),
    ("A10", 125, 31.2),
    ("RTX 4090", 165, 82.6),
    ("V100", 125, 15.7),
    ("T4", 65, 8.1),
)
PRODUCT = {"cpu": 1024, "cuda": 8192}  # side of what is timed where no data sheet is known
TURNS = 5


def peak(device: torch.device, precision: str) -> tuple[float, str]:
    """(operations a second of one device at its best, where that comes from).

    Of a CPU always those in fp32: it may compute in half precision by the help of these.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
    for known, half, single in PEAKS if device.type == "cuda" else ():
        if re.search(rf"\b{known}\b", name):
            return (single if precision == "fp32" else half) * 1e12, f"{known}'s data sheet"
    side = PRODUCT.get(device.type, PRODUCT["cuda"])
    dtype = torch.float32 if device.type == "cpu" else dtype_of(precision)
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    matrix @ matrix
    best = float("inf")
    for _ in range(TURNS):
        began = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for a GPU
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best, f"the fastest of {TURNS} products of matrices on {name}"


# --- operations -------------------------------------------------------------------------------


def forward_flops(model: Model, length: float, kept: int | None = None) -> float:
    """Of one pair forward, its text of `length` tokens, its picture of `kept` patches (all).

    A backward pass is twice that.
    """
    vision, text = model.vision, model.text
    flops = _tower(text.width, text.layers, length) + 2 * text.width * model.embed
    if isinstance(vision, ResNetConfig):
        return flops + _resnet(vision, model.embed)
    patches = vision.patches if kept is None else kept
    flops += 2 * patches * 3 * vision.patch**2 * vision.width + 2 * vision.width * model.embed
    return flops + _tower(vision.width, vision.layers, patches + 1)


def _tower(width: int, layers: int, tokens: float) -> float:
    """Blocks with an MLP four times as wide; the last one asks for one row."""
    whole = 24 * tokens * width**2 + 4 * tokens**2 * width
    last = 4 * tokens * width**2 + 20 * width**2 + 4 * tokens * width
    return (layers - 1) * whole + last


def _resnet(vision: ResNetConfig, embed: int) -> float:
    """Stem, bottlenecks and attention pool."""
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
    return flops + 2 * (2 * positions + 1) * inside**2 + 4 * positions * inside + 2 * inside * embed


# --- memory -----------------------------------------------------------------------------------


def activation_bytes(
    model: Model, batch: int, device: torch.device, precision: str, recompute: bool, kept: int
) -> int:
    """Bytes that a forward pass keeps for the backward one, of `batch` pairs with long texts.

    Counted in a pass over tensors without numbers, which takes neither memory nor much time.
    `kept`: patches of each picture, where some are dropped; 0 for all.
    """
    seen: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        seen[storage._cdata] = storage.nbytes()
        alive.append(storage)  # or another may get its number
        return tensor

    alive: list[torch.UntypedStorage] = []
    side = model.vision.resolution
    with FakeTensorMode(), torch.device(device):
        empty = CLIP(model)
        set_checkpointing(empty, recompute)
        images = torch.empty(batch, 3, side, side)
        tokens = torch.zeros(batch, model.text.context, dtype=torch.int64)
        patches = torch.zeros(batch, kept, dtype=torch.int64) if kept else None
        places = torch.arange(batch * model.text.context)
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with hooks, still(empty), autocast(device, precision):
            empty(images, tokens, patches, places)
        own = {parameter.untyped_storage()._cdata for parameter in empty.parameters()}
    return sum(size for number, size in seen.items() if number not in own)


def training_bytes(parameters: int, text_matrices: int, adam: str, text_weights: str) -> int:
    """Bytes of weights, gradients and Adam's two moments.

    `text_matrices`: how many of the parameters `text_weights` is about.
    """
    weight = 4 * parameters - (2 * text_matrices if text_weights == "fp16" else 0)
    return 2 * weight + (4 if adam == "fp16" else 8) * parameters


def text_matrices(model: CLIP) -> int:
    """Parameters in matrices outside the image tower."""
    named = model.named_parameters()
    return sum(p.numel() for name, p in named if p.ndim >= 2 and not name.startswith("visual."))


def free_bytes(device: torch.device) -> int:
    """Bytes that a process could still take: of a GPU's memory, or of the machine's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with open("/proc/meminfo", encoding="ascii") as lines:
        fields = dict(line.split(":") for line in lines)
    return 1024 * int(fields["MemAvailable"].split()[0])
