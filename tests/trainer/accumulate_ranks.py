"""What each rank computes in the tests of `trainer.accumulate`: gradients of one made batch."""

import contextlib

import torch
import torch.distributed as dist

from trainer.accumulate import Micro, backward
from trainer.clip import CLIP, create, set_checkpointing
from trainer.parallel import World, add_up, average_scale, compile_blocks, wrap
from trainer.resnet import apply_collected, take_collected
from trainer.text import real_places
from trainer.zoo import MODELS


def made_batch(model: CLIP, size: int) -> Micro:
    """Pictures and texts of noise, some of them broken, the same for everybody."""
    side = model.config.vision.resolution
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (size, side, side, 3), generator=generator, dtype=torch.uint8)
    tokens = torch.randint(1, 49_000, (size, 16), generator=generator)
    tokens[torch.arange(size), torch.randint(4, 16, (size,), generator=generator)] = 49_407
    fine = torch.rand(size, generator=generator) > 0.02
    return Micro(images, tokens, real_places(tokens), fine)


def cut(batch: Micro, size: int) -> list[Micro]:
    """Micro-batches; each texts trimmed as training does, so they differ in length."""
    parts = []
    for start in range(0, len(batch.fine), size):
        part = slice(start, start + size)
        tokens = batch.tokens[part]
        tokens = tokens[:, : int(tokens.argmax(1).max()) + 1]
        places = real_places(tokens)
        parts.append(Micro(batch.images[part], tokens, places, batch.fine[part]))
    return parts


def gradients(
    name: str,
    size: int,
    micro: int,
    rank: int = 0,
    world: int = 1,
    sharding: str = "ddp",
    recompute: bool = False,
    compiled: bool = False,
) -> dict[str, torch.Tensor]:
    """Gradients by name, running statistics after the step, and the loss."""
    model = create(MODELS[name], 0).train().to(memory_format=torch.channels_last)
    torch.nn.init.constant_(model.logit_scale, 3.0)
    set_checkpointing(model, recompute)
    if compiled:
        compile_blocks(model)
    wrapped = wrap(model, World(rank, world, torch.device("cpu"), 0, tuple(range(world))), sharding)
    mine = size // world
    micros = cut(made_batch(model, size), micro)
    share = micros[rank * mine // micro : (rank + 1) * mine // micro]
    outcome = backward(wrapped, share, contextlib.nullcontext)
    average_scale(model)
    found = {"loss": outcome.loss, "pairs": outcome.pairs}
    for key, parameter in model.named_parameters():
        grad = parameter.grad
        found[key] = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
    statistics = add_up(take_collected(model))
    if len(statistics):
        apply_collected(model, statistics)
    return found | {key: value.clone() for key, value in model.named_buffers()}


def on_rank(
    rank: int, name: str, size: int, micro: int, sharding: str, *how: bool
) -> dict[str, torch.Tensor]:
    """The same on one of several ranks."""
    return gradients(name, size, micro, rank, dist.get_world_size(), sharding, *how)
