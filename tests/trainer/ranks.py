"""Several ranks on this machine: processes of their own, joined by gloo over the loopback."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing


def run_ranks(work: Callable[..., object], world: int, folder: Path, *args: object) -> list:
    """What `work(rank, *args)`, a function of a module, returns on each rank: tensors, numbers.

    An exception on one rank ends them all and is raised here.
    """
    # The server of this start method imports torch once, for all ranks of all tests.
    multiprocessing.set_forkserver_preload(["torch.distributed.tensor", "pytest", "hypothesis"])
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    arguments = (work, world, store.port, folder, args)
    torch.multiprocessing.start_processes(_rank, arguments, nprocs=world, start_method="forkserver")
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(world)]


def _rank(rank: int, work: Callable, world: int, port: int, folder: Path, args: tuple) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    try:
        torch.save(work(rank, *args), folder / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()
