"""Small random models for the tests, and what they are compared by."""

import pytest
import torch
from torch.nn import functional as F

from benchmarks import models as peers
from trainer.clip import CLIP, empty
from trainer.zoo import MODELS

TINY_VIT, TINY_RESNET = MODELS["cpu-ViT-tiny/32"], MODELS["cpu-RN-tiny"]
tiny_models = pytest.mark.parametrize("config", [TINY_VIT, TINY_RESNET], ids=lambda c: c.name)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimiser's state."""
    states = optimizer.state.values()
    return sum(value.numel() * value.element_size() for s in states for value in s.values())


def random_model(config, seed=0) -> CLIP:
    model = empty(config)
    peers.randomise(model, seed)
    return model


def gradients(model, images, tokens) -> dict:
    model.zero_grad()
    image_features, text_features, scale = model(images, tokens)
    logits = scale * image_features @ text_features.T
    F.cross_entropy(logits, torch.arange(len(images))).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
