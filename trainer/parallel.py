"""Ranks, and what is put round a model for them; models themselves know nothing of it.

Started by torchrun there is a process group (gloo on CPUs, NCCL on GPUs), else one process without.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel

from trainer.block import Block
from trainer.clip import CLIP
from trainer.lowbit import check_one_dtype
from trainer.order import Order
from trainer.resnet import Bottleneck
from trainer.watch import Watch
from wit.errors import UserError

# One rank may write or compile for minutes; one that is gone is found by trainer.watch.
TIMEOUT = datetime.timedelta(minutes=30)
# Of one block's code: two towers, one row or all, with and without gradients, two kinds of length.
MOST_COMPILED = 64


@dataclass(frozen=True)
class World:
    """One process among the ranks.

    Attributes:
        rank, size: of all.
        local_rank, local_size: of those on this machine.
        device: this rank's.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    device: torch.device

    def node_lanes(self, order: Order) -> range:
        """The lanes of all ranks on this machine."""
        first = self.rank - self.local_rank
        lanes = [order.lanes_of(rank, self.size) for rank in (first, first + self.local_size - 1)]
        return range(lanes[0].start, lanes[1].stop)

    @property
    def first(self) -> bool:
        """Whether this rank speaks for all."""
        return self.rank == 0


@contextlib.contextmanager
def joined(device: str | None) -> Iterator[World]:
    """The world that torchrun has made, or that of one process.

    An error of one rank ends all within a minute (trainer.watch).
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {kind}: there is no GPU that this PyTorch can use")
    if "RANK" not in os.environ:
        yield World(0, 1, 0, 1, torch.device(kind))
        return
    local = int(os.environ["LOCAL_RANK"])
    place = torch.device("cuda", local) if kind == "cuda" else torch.device(kind)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    store, rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
    watch = Watch(store, rank, size)
    backend = "nccl" if place.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        yield World(rank, size, local, int(os.environ["LOCAL_WORLD_SIZE"]), place)
        dist.barrier()
        watch.stop()
        dist.destroy_process_group()
    except BaseException as error:
        watch.tell(error)
        with contextlib.suppress(Exception):  # the error under way is the one that counts
            dist.destroy_process_group()
        raise SystemExit(2 if isinstance(error, UserError) else 1) from None


# --- round the model --------------------------------------------------------------------------


def compile_blocks(model: CLIP) -> None:
    """Compiles what each block computes, once for all blocks of a kind; any length of texts."""
    torch._dynamo.config.recompile_limit = MOST_COMPILED
    for module in model.modules():
        if isinstance(module, Block | Bottleneck):
            module.compute = torch.compile(module.compute)


def wrap(model: CLIP, world: World, sharding: str) -> nn.Module:
    """Returns a model whose gradients are averaged over the ranks; bare for one process.

    `ddp` leaves all of it on each rank. `fsdp` shards weights, gradients and moments in place, a
    block at a time; but for the scale, which is averaged by `average_scale`. To be called before
    the optimiser is made.
    """
    if not dist.is_initialized():
        return model
    if sharding == "fsdp":
        return shard(model, world)
    ids = [world.device.index] if world.device.type == "cuda" else None
    # Buffers are BatchNorm's statistics, which all ranks move alike (trainer.resnet).
    return DistributedDataParallel(
        model, device_ids=ids, forward_sync_buffers=False, gradient_as_bucket_view=True
    )


def shard(model: CLIP, world: World) -> CLIP:
    """Shards a model over all ranks, in place (FSDP2)."""
    check_one_dtype("--sharding fsdp", model.named_parameters())
    mesh = dist.init_device_mesh(world.device.type, (world.size,))
    for module in list(model.modules()):
        if isinstance(module, Block | Bottleneck):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh, ignored_params={model.logit_scale})  # it takes no scalars
    for method in ("encode_image", "encode_text"):
        register_fsdp_forward_method(model, method)
    return model


def average_scale(model: CLIP) -> None:
    """Averages the gradient of a sharded model's scale, which FSDP2 leaves alone."""
    if isinstance(model, FSDPModule):
        model.logit_scale.grad.copy_(add_up(model.logit_scale.grad) / dist.get_world_size())


@contextlib.contextmanager
def unsynchronised(model: nn.Module, on: bool) -> Iterator[None]:
    """Within it, where it is on, DDP's backward passes add gradients up without meeting others.

    FSDP2 averages each micro-batch's, so that no rank ever holds the whole gradient.
    """
    if on and isinstance(model, DistributedDataParallel):
        with model.no_sync():
            yield
    else:
        yield


def barrier() -> None:
    """Waits for all ranks."""
    if dist.is_initialized():
        dist.barrier()


def add_up(tensor: Tensor) -> Tensor:
    """The sum over ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def any_rank(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Which of the flags any rank has raised; all get the same answer."""
    return (add_up(torch.tensor(flags, dtype=torch.float32, device=device)) > 0).tolist()
