"""Ranks, and what is put round a model for them; models themselves know nothing of it.

Started by torchrun there is a process group (gloo on CPUs, NCCL on GPUs), else one process without.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
NEEDED = ("WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # beside RANK


@dataclass(frozen=True)
class World:
    """One process among the ranks.

    Attributes:
        rank, size: of all.
        device: this rank's.
        node: the number of this machine, and node_ranks the ranks on it, ascending.
        watch: over the others; None for one process.
    """

    rank: int
    size: int
    device: torch.device
    node: int = 0
    node_ranks: tuple[int, ...] = (0,)
    watch: Watch | None = None

    @property
    def first(self) -> bool:
        """Whether this rank speaks for all."""
        return self.rank == 0

    @property
    def first_of_node(self) -> bool:
        """Whether this rank speaks for its machine."""
        return self.rank == self.node_ranks[0]

    def node_lanes(self, order: Order) -> list[int]:
        """The lanes of all ranks on this machine."""
        return [lane for rank in self.node_ranks for lane in order.lanes_of(rank, self.size)]

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Within it an error is told to the others before anything is cleaned up, or waited for."""
        try:
            yield
        except BaseException as error:
            if self.watch is not None:
                self.watch.tell(error)
            raise


@contextlib.contextmanager
def joined(device: str | None) -> Iterator[World]:
    """The world that torchrun or Slurm has made, or that of one process.

    An error of one rank ends all within a minute (trainer.watch); this process too, at once.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {kind}: there is no GPU that this PyTorch can use")
    if "RANK" not in os.environ:
        if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
            raise UserError(
                "Slurm started several tasks, but RANK is not set, so each would be a run of its "
                "own; set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT for each"
            )
        yield World(0, 1, torch.device(kind))
        return
    absent = [name for name in NEEDED if name not in os.environ]
    if absent:
        raise UserError(f"RANK is set, but {absent[0]} is not; torchrun sets all that is needed")
    place = torch.device(kind)
    if kind == "cuda":
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        torch.cuda.set_device(place)
    store, rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
    dist.init_process_group(
        "nccl" if place.type == "cuda" else "gloo",
        store=store,
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
        device_id=place if place.type == "cuda" else None,
    )
    watch = Watch(store, rank, size, from_first(int.from_bytes(os.urandom(6))))
    try:
        yield World(rank, size, place, *nodes(rank), watch)
        dist.barrier()
        watch.stop()
    except BaseException as error:
        watch.tell(error)
        # Not by destroying the group: NCCL would wait for collectives that the others never join.
        sys.stderr.flush()
        os._exit(2 if isinstance(error, UserError) else 1)
    dist.destroy_process_group()


def nodes(rank: int) -> tuple[int, tuple[int, ...]]:
    """(number of this rank's machine, the ranks on it), by host names."""
    hosts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(hosts, socket.gethostname())
    names = list(dict.fromkeys(hosts))
    mine = tuple(r for r, host in enumerate(hosts) if host == hosts[rank])
    return names.index(hosts[rank]), mine


def from_first(value: Any) -> Any:
    """What the first rank has, on all ranks."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def check_same(world: World, **values: Any) -> None:
    """Raises a UserError on all ranks where one has another value than the first."""
    first = from_first(values)
    others = [name.replace("_", " ") for name, value in values.items() if first[name] != value]
    flags = highest([bool(others)], world.device)
    if others:
        raise UserError(
            f"rank {world.rank} has other {', '.join(others)} than rank 0; give every rank the "
            "same files and options"
        )
    if flags[0]:
        raise UserError("another rank has other files or options than rank 0")


# --- round the model --------------------------------------------------------------------------


def compile_blocks(model: CLIP) -> None:
    """Compiles what each block computes, once for all blocks of a kind; any length of texts."""
    torch._dynamo.config.recompile_limit = MOST_COMPILED
    torch._dynamo.config.optimize_ddp = False  # which would cut blocks in two
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
    model.to(memory_format=torch.contiguous_format)  # it takes no other
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


def highest(values: Sequence[float], device: torch.device) -> list[float]:
    """The highest of all ranks, one by one; all get the same."""
    tensor = torch.tensor([float(value) for value in values], device=device)
    if dist.is_initialized():
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor.tolist()
