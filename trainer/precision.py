"""Arithmetic of the towers: fp32, or half precision by autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_of(precision: str) -> torch.dtype:
    """The type in which products are computed."""
    return HALVES.get(precision, torch.float32)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """The context in which towers compute."""
    if precision not in HALVES:
        return nullcontext()
    return torch.autocast(device.type, HALVES[precision])
