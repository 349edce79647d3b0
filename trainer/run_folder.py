"""The folder of a run: whose it is, and its config.toml.

Until there is a checkpoint nothing is fixed: a first command that was refused can be corrected.
"""

from __future__ import annotations

import os
from dataclasses import asdict, replace

from trainer import checkpoint, log
from trainer.config import FILE, FREE, Config, checked, flag
from trainer.options import read_toml, to_toml
from trainer.parallel import World
from wit import storage
from wit.errors import UserError

# What a command leaves that ended before its first checkpoint.
OURS = {".lock", FILE, log.JSONL, log.BOARD, "cache", "held_out", checkpoint.FOLDER}


def open_run(config: Config, world: World) -> Config:
    """The configuration with nothing left open, checked against that of the run there, if any.

    All ranks call it; nothing is written. `micro_batch`, where it is not given, is what a rank of
    the first command had.

    Raises:
        UserError: naming the entry that decides the weights and differs; for a folder of others.
    """
    path = storage.join(config.out, FILE)
    fixed = None
    if checkpoint.steps_of(config.out) and storage.exists(path):
        saved = checked(Config(**read_toml(path)))
        fixed = saved.micro_batch
        config = replace(config, micro_batch=config.micro_batch or fixed)
        for name, value in asdict(config).items():
            before = getattr(saved, name)
            if name not in FREE and before != value:
                raise UserError(
                    f"{path}: the run there has {flag(name)} {before}, now {value}; repeat its "
                    "options, or choose another --out (to begin with its weights: --init)"
                )
    elif not set(storage.list_names(config.out)) <= OURS:
        raise UserError(f"{config.out}: not empty and no run ({FILE}); choose another --out")
    if config.lanes % world.size:
        raise UserError(
            f"--lanes {config.lanes} cannot be shared by {world.size} ranks; change one"
        )
    share = config.batch // world.size
    config = replace(config, micro_batch=config.micro_batch or share)
    if share % config.micro_batch:
        remedy = (
            "this run has it since its first command: choose another number of ranks"
            if fixed
            else "choose other ranks or another micro-batch"
        )
        raise UserError(
            f"a rank of {world.size} has {share} pairs a step, no multiple of --micro-batch "
            f"{config.micro_batch}; {remedy}"
        )
    cores = max(1, len(os.sched_getaffinity(0)) // len(world.node_ranks))
    return replace(config, threads=config.threads or cores)


def keep(config: Config) -> None:
    """Writes the run's file; one rank does."""
    storage.write_bytes(storage.join(config.out, FILE), to_toml(config).encode())


def cache_folder(config: Config, world: World) -> str:
    """Where this node keeps downloaded shards; no two nodes share one unless they are told to."""
    return config.cache or os.path.join(config.out, "cache", str(world.node))
