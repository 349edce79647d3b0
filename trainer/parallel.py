"""Ranks, and what is put round a model for them; models themselves know nothing of it.

Started by torchrun there is a process group (gloo on CPUs, NCCL on GPUs), else one process without.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.clip import CLIP
from trainer.order import Order
from wit.errors import UserError

TIMEOUT = datetime.timedelta(seconds=60)  # a rank that is gone ends the others within this


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

    An error of one rank ends all: torchrun stops the others, and what waits for the one that is
    gone gives up after TIMEOUT.
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
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield World(
            dist.get_rank(),
            dist.get_world_size(),
            local,
            int(os.environ["LOCAL_WORLD_SIZE"]),
            place,
        )
    finally:
        with contextlib.suppress(Exception):  # an error is under way, and is the one to be told
            dist.destroy_process_group()


def wrap(model: CLIP, world: World) -> nn.Module:
    """Returns a model whose gradients are averaged over the ranks (DDP); bare for one process."""
    if not dist.is_initialized():
        return model
    ids = [world.device.index] if world.device.type == "cuda" else None
    # Buffers are BatchNorm's statistics, which all ranks move alike (trainer.resnet).
    return DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)


@contextlib.contextmanager
def unsynchronised(model: nn.Module, on: bool) -> Iterator[None]:
    """Within it, where it is on, backward passes add gradients up without meeting other ranks."""
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


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether any rank says so; all get the same answer."""
    return bool(add_up(torch.tensor(float(flag), device=device)) > 0)
