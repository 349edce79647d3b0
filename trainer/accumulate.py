"""The gradient of one step: the global batch's loss, computed micro-batch by micro-batch.

The unit is the micro-batch: the global batch is cut in position order into micro-batches of fixed
size, of which each rank has contiguous ones. All that happens inside one (BatchNorm's statistics,
crops, texts, patch dropout) depends on its samples and their positions only, so one rank with eight
micro-batches computes what eight ranks with one each do.

With several micro-batches a rank, features are computed without a graph first, the loss gives their
gradients, and each micro-batch is computed once more to take its gradient back through the towers
(cached features: Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size). So activations of
one micro-batch are in memory at a time, and the loss is that of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.clip import normalise
from trainer.loss import loss_and_gradients
from trainer.parallel import add_up, unsynchronised
from trainer.resnet import collecting, still

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Micro:
    """Part of a step's batch, on the host; a GPU gets it when it computes with it.

    Attributes:
        images: uint8 [b, S, S, 3]; in pinned memory for a GPU, as all of these.
        tokens: int64 [b, L], trimmed to the longest text.
        places: int64 [N], where in [b * L] the texts' tokens are (trainer.text.real_places).
        fine: bool [b]; False for broken samples, which the loss leaves out.
        kept: int64 [b, K], the patches that patch dropout leaves; None for all.
        device: where it is computed.
    """

    images: Tensor
    tokens: Tensor
    places: Tensor
    fine: Tensor
    kept: Tensor | None = None
    device: torch.device = CPU

    def inputs(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """What the model takes, on the device."""
        kept = None if self.kept is None else self.to_device(self.kept)
        images = normalise(self.to_device(self.images))
        return images, self.to_device(self.tokens), kept, self.to_device(self.places)

    def to_device(self, tensor: Tensor) -> Tensor:
        """The tensor on the device, without waiting for it."""
        return tensor.to(self.device, non_blocking=True)


@dataclass(frozen=True)
class Outcome:
    """What a step's gradient was made of, equal on all ranks.

    Attributes:
        loss: mean over the fine pairs of the global batch, fp32 scalar.
        pairs: how many these are.
    """

    loss: Tensor
    pairs: Tensor


def backward(
    model: nn.Module,
    micros: Sequence[Micro],
    autocast: Callable[[], AbstractContextManager],
    factor: float = 1.0,
) -> Outcome:
    """Adds the global batch's gradient to the parameters' `grad`.

    Args:
        model: CLIP, bare or wrapped (gradients are averaged over ranks by the wrapper).
        micros: the rank's micro-batches, as many on each rank.
        autocast: makes the context in which the towers compute.
        factor: that the gradient is multiplied with, as a gradient scaler wants.
    """
    with collecting(model):
        if len(micros) == 1:
            with autocast():
                features = [model(*micros[0].inputs())]
        else:
            with torch.no_grad(), autocast():
                features = [model(*m.inputs()) for m in micros]
    image, text = (torch.cat([f[i].detach() for f in features]) for i in (0, 1))
    fine = torch.cat([m.to_device(m.fine) for m in micros])
    found = loss_and_gradients(image, text, features[0][2].detach(), fine)
    ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    scale = factor * ranks  # the wrapper divides by the ranks
    sizes = [len(m.fine) for m in micros]
    image_parts = (found.image * scale).split(sizes)
    text_parts = (found.text * scale).split(sizes)
    last = len(micros) - 1
    for i, micro in enumerate(micros):
        with unsynchronised(model, i < last), still(model):
            outputs = features[i]
            if len(micros) > 1:
                with autocast():
                    outputs = model(*micro.inputs())
            # The scale is one parameter for all micro-batches: its gradient goes back once.
            share = found.scale * scale if i == last else torch.zeros_like(found.scale)
            torch.autograd.backward(outputs, (image_parts[i], text_parts[i], share))
    return Outcome(found.value, add_up(fine.sum()))
