"""Checkpoints: whole or not there, in PyTorch's distributed format, with the weights apart.

    OUT/checkpoints/0000001200/        step 1,200
        .metadata *.distcp             the training state: weights, Adam's moments, the scaler
        model.safetensors              the weights, with OpenAI's keys, for everybody else
        run.json                       step, epoch, place in the data, counts; written last

A folder without run.json was cut off: it is no checkpoint, and is removed. Nothing draws from a
global random state, so there is none to keep. The training state is read from the run's own folder
only (its format has a pickle in it); others' weights come as safetensors.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import warnings
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)

from trainer.clip import CLIP
from trainer.convert import write_weights
from trainer.parallel import barrier
from wit import storage
from wit.errors import UserError

# It says so at each of several calls, though it was told.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable")
FOLDER, MARK, WEIGHTS = "checkpoints", "run.json", "model.safetensors"
STATE = ".metadata"  # of the distributed format; without it there are the weights alone
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def folder_of(out: str, step: int) -> str:
    """Returns the folder of a step's checkpoint."""
    return os.path.join(out, FOLDER, f"{step:010d}")


def steps_of(out: str) -> list[int]:
    """Returns the steps of the whole checkpoints, ascending."""
    return [
        int(name)
        for name in storage.list_names(os.path.join(out, FOLDER))
        if name.isdecimal() and storage.exists(os.path.join(out, FOLDER, name, MARK))
    ]


def resumable(out: str) -> list[int]:
    """Returns the steps of those with a training state, ascending."""
    return [s for s in steps_of(out) if os.path.exists(os.path.join(folder_of(out, s), STATE))]


def save(
    out: str,
    step: int,
    model: CLIP,
    optimizer: torch.optim.Optimizer,
    facts: dict[str, Any],
) -> None:
    """Writes a checkpoint; all ranks call it.

    Args:
        out: the run's folder, on a disk that all ranks see.
        step: steps done.
        model: CLIP, sharded or not, without DDP and torch.compile round it.
        optimizer: that of the model's parameters.
        facts: what run.json holds.

    Raises:
        UserError: where the disk is full; older checkpoints stand.
    """
    folder = folder_of(out, step)
    if _rank() == 0 and os.path.isdir(folder):
        shutil.rmtree(folder)
    barrier()
    weights, moments = get_state_dict(model, optimizer)
    try:
        dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=folder, no_dist=_alone())
        whole = get_model_state_dict(
            model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
        )
        if _rank() == 0:
            write_weights(os.path.join(folder, WEIGHTS), whole, model.config)
            storage.write_json(os.path.join(folder, MARK), facts)
    except (OSError, RuntimeError, dcp.CheckpointException) as error:
        if not _is_full(error):
            raise
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
        free = shutil.disk_usage(out).free
        raise UserError(
            f"{folder}: no space for the checkpoint ({free / 1e9:,.1f} GB are free); free some and "
            "run the same command again: it continues from the one before"
        ) from error
    barrier()


def _is_full(error: BaseException) -> bool:
    """Whether an error, or one that it tells of, is a full disk."""
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return True
    inner = list(error.failures.values()) if isinstance(error, dcp.CheckpointException) else []
    causes = [cause for cause, _ in inner] + [error.__cause__, error.__context__]
    if any(cause is not None and cause is not error and _is_full(cause) for cause in causes):
        return True
    return "No space left" in str(error)


def load(out: str, step: int, model: CLIP, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Reads a checkpoint into model and optimizer, at any world size; returns what run.json says.

    Raises:
        UserError: where it is of another model or damaged.
    """
    folder = folder_of(out, step)
    weights, moments = get_state_dict(model, optimizer)
    state = {"model": weights, "optimizer": moments}
    try:
        dcp.load(state, checkpoint_id=folder, no_dist=_alone())
    except (Exception, dcp.CheckpointException) as error:  # the latter is no Exception
        failures = error.failures if isinstance(error, dcp.CheckpointException) else {}
        cause = next(iter(failures.values()))[0] if failures else error
        said = " ".join(f"{type(cause).__name__} {cause}".split())[:300]
        raise UserError(
            f"{folder}: cannot be read ({said}); if it is damaged, remove it to use the one before"
        ) from error
    set_state_dict(
        model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
    )
    return storage.read_json(os.path.join(folder, MARK))


def prune(out: str, keep: int) -> None:
    """Removes what was cut off and all but the last `keep`; rank 0 does.

    Of those before them that end an epoch the weights stay, a quarter of the bytes.
    """
    if _rank():
        return
    whole = steps_of(out)
    last = set(whole[-keep:])
    for name in storage.list_names(os.path.join(out, FOLDER)):
        if not name.isdecimal() or int(name) in last:
            continue
        folder = os.path.join(out, FOLDER, name)
        if int(name) not in whole or not _ends_epoch(folder):
            shutil.rmtree(folder)
            continue
        for file in sorted(os.listdir(folder)):  # its .metadata first
            if file == STATE or file.endswith(".distcp"):
                os.unlink(os.path.join(folder, file))


def _ends_epoch(folder: str) -> bool:
    return bool(storage.read_json(os.path.join(folder, MARK)).get("epoch_end"))


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _alone() -> bool:
    return not dist.is_initialized()
