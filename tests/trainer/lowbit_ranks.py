"""What each rank computes in the tests of `trainer.lowbit`."""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from trainer import optim
from trainer.clip import create
from trainer.loss import contrastive_loss
from trainer.lowbit import halve_text_weights
from trainer.zoo import MODELS


def random_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """Weights and optimiser state, by name."""
    tensors = {name: p.detach().clone() for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"{name} {key}"] = value.clone()
    return tensors


def on_each_rank(rank: int) -> dict:
    """Weights and state of replicas under DDP, and of shards under FSDP2 gathered to the whole."""
    results = {"replicas": replicas(rank)}
    results["whole"], results["shards"], results["norms"] = shards()
    return results


def replicas(rank: int) -> dict:
    """Two steps of DDP, other samples on each rank, fp16 text weights under autocast."""
    model = create(MODELS["cpu-ViT-tiny/32"], seed=0)
    halve_text_weights(model)
    optimizer = optim.adamw(model, beta2=0.98, eps=1e-6, half=True)
    wrapped = DistributedDataParallel(model)
    generator = torch.Generator().manual_seed(rank)
    for _ in range(2):
        images = torch.randn(4, 3, 64, 64, generator=generator)
        tokens = torch.randint(1, 49_407, (4, 12), generator=generator)
        tokens[:, -1] = 49_407
        with torch.autocast("cpu", torch.bfloat16):
            features = wrapped(images, tokens)
        (contrastive_loss(*features) * dist.get_world_size() * 2**10).backward()
        optim.step(optimizer, 1e-3, 2.0**-10)
        wrapped.zero_grad()
    return everything(model, optimizer)


def shards() -> tuple[dict, dict, list]:
    """Two steps of the same gradients on the whole and on shards; between them the shards go
    through a distributed checkpoint's state dict.
    """

    def small() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.Conv2d(3, 7, 2))

    whole, sharded = small(), small()
    fully_shard(sharded, mesh=dist.init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizers, norms = [], []
    for model in (whole, sharded):
        optimizer = optim.adamw(model, beta2=0.98, eps=1e-6, half=True)
        for step in range(2):
            random_gradients(whole, step)
            if model is sharded:
                for parameter, ours in zip(sharded.parameters(), whole.parameters(), strict=True):
                    parameter.grad = distribute_tensor(
                        ours.grad, parameter.device_mesh, parameter.placements
                    )
            norms.append(optim.gradient_norm(model.parameters()))
            optim.step(optimizer, 1e-2)
            if step == 0:
                weights, state = get_state_dict(model, optimizer)
                optimizer = optim.adamw(model, beta2=0.98, eps=1e-6, half=True)
                set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)
        optimizers.append(optimizer)
    gathered = {
        name: value.full_tensor() if hasattr(value, "full_tensor") else value
        for name, value in everything(sharded, optimizers[1]).items()
    }
    return everything(whole, optimizers[0]), gathered, norms
