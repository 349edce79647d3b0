"""The model that is evaluated: the last checkpoint of a run, or anybody's weights."""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import replace
from typing import Any

from trainer import checkpoint
from trainer.clip import CLIP, empty
from trainer.config import FILE
from trainer.convert import (
    HUGGING_FACE_WEIGHTS,
    OPEN_CLIP_WEIGHTS,
    OPENAI_SHA256,
    State,
    load_weights,
)
from trainer.zoo import MODELS, Gelu, Model
from wit import storage
from wit.errors import UserError

MOST_HEADER = 100_000_000  # bytes of the header of safetensors, as the format says
ZIP = b"PK"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what says which weights are meant, and what they do not record."""
    parser.add_argument(
        "weights",
        metavar="RUN_OR_WEIGHTS",
        help="the folder of a run (its last checkpoint) or of a checkpoint; or weights: "
        "safetensors, OpenAI's archives, folders of open_clip or Hugging Face",
    )
    parser.add_argument("--step", type=int, help="of the run's checkpoint (the last)")
    parser.add_argument("--model", choices=tuple(MODELS), help="where the weights do not say it")
    parser.add_argument("--gelu", choices=("quick", "exact"), help="likewise")


def weights_of(path: str, step: int | None = None) -> str:
    """The path of the weights that a run, a checkpoint or weights stand for.

    step: of a run's checkpoint, its last where None. Raises UserError.
    """
    if not storage.exists(path):
        raise UserError(f"{path}: no such run, folder or file of weights; check the path")
    if storage.exists(storage.join(path, FILE)):
        steps = checkpoint.steps_of(path)
        if not steps:
            raise UserError(f"{path}: this run has no checkpoint yet")
        if step is not None and step not in steps:
            there = ", ".join(map(str, steps))
            raise UserError(f"{path}: no checkpoint of step {step}; there are {there}")
        path = checkpoint.folder_of(path, steps[-1] if step is None else step)
    elif step is not None:
        raise UserError(f"{path}: no run, so it has no steps to choose from; leave --step out")
    if storage.exists(storage.join(path, checkpoint.MARK)):
        return storage.join(path, checkpoint.WEIGHTS)
    return path


def load_model(
    path: str, name: str | None = None, gelu: Gelu | None = None
) -> tuple[CLIP, dict[str, Any]]:
    """The model of weights, on the CPU, in fp32; and its name, GELU and sha256.

    name, gelu: needed where the weights do not record them. Raises UserError.
    """
    config = config_of(path, name, gelu)
    state = load_weights(path, config, gelu)
    model = empty(config)
    model.load_state_dict(state)
    return model, {"model": config.name, "gelu": config.gelu, "sha256": sha256_of(state)}


def config_of(path: str, name: str | None = None, gelu: Gelu | None = None) -> Model:
    """The model that weights record, or that is named. Raises UserError."""
    said = recorded(path)
    name = name or said.get("model")
    if name not in MODELS:
        raise UserError(
            f"{path}: does not say which model it is of; add --model NAME: {', '.join(MODELS)}"
        )
    return replace(MODELS[name], gelu=gelu or said.get("gelu") or MODELS[name].gelu)


def recorded(path: str) -> dict[str, Any]:
    """What the metadata of safetensors say, or which of OpenAI's archives a file is."""
    if storage.is_folder(path):
        names = (OPEN_CLIP_WEIGHTS, HUGGING_FACE_WEIGHTS)
        files = [storage.join(path, name) for name in names]
        path = next((file for file in files if storage.exists(file)), path)
    if storage.is_folder(path) or not storage.exists(path):
        return {}
    start = storage.read_bytes(path, 0, 9)
    if start.startswith(ZIP):
        sha256 = hashlib.sha256(storage.read_bytes(path)).hexdigest()
        return {"model": OPENAI_SHA256[sha256]} if sha256 in OPENAI_SHA256 else {}
    size = int.from_bytes(start[:8], "little")
    if start[8:] != b"{" or size > MOST_HEADER:
        return {}
    try:
        metadata = json.loads(storage.read_bytes(path, 8, 8 + size)).get("__metadata__", {})
    except (ValueError, RecursionError):
        return {}
    return {key: value for key, value in metadata.items() if isinstance(value, str)}


def sha256_of(state: State) -> str:
    """Of the weights themselves, whichever file they came from."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(f"{key} {tuple(state[key].shape)}\n".encode())
        digest.update(state[key].contiguous().numpy())
    return digest.hexdigest()
