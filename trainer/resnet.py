"""The modified ResNet: three stem convolutions, anti-aliased strides, an attention pool.

Letters in names: B batch, C channels, N positions of the last feature map, D its width, E embed.

Running statistics. A BatchNorm in train mode normalises with its own micro-batch and, outside of
`collecting`, updates its running statistics at once as torch's does. A step of several
micro-batches, on one rank or many, does instead:

    with collecting(model):
        for images in micro_batches: model.encode_image(images)
    sums = take_collected(model)            # add up over ranks: torch.distributed.all_reduce
    apply_collected(model, sums)            # or drop them: a step that was not finite

so the running statistics move once a step, by the mean over micro-batches, whoever computed them.
What is forwarded a second time (accumulation with cached features) is forwarded within `still`,
and gradient checkpointing does that for its own recomputation. DDP must not broadcast buffers
(`forward_sync_buffers=False`).
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from trainer.block import merge_heads, split_heads, uniform_
from trainer.zoo import ResNetConfig

MOMENTUM = 0.1  # of the running statistics
Statistics = Literal["update", "collect", "still"]


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that says when its running statistics move (see the head of the file)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=MOMENTUM)
        self.statistics: Statistics = "update"
        # Sums over micro-batches of the mean and the unbiased variance, and their number.
        self.register_buffer("collected", torch.zeros(2 * channels + 1), persistent=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The same shape and dtype; statistics in fp32."""
        if not self.training or self.statistics == "update":
            return super().forward(x_BCHW)
        # A momentum of 1 leaves the batch's own mean and unbiased variance in these.
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        out = F.batch_norm(
            x_BCHW, mean, variance, self.weight, self.bias, True, momentum=1.0, eps=self.eps
        )
        if self.statistics == "collect":
            self.collected.add_(torch.cat([mean, variance, mean.new_ones(1)]))
        return out


def batch_norms(model: nn.Module) -> list[BatchNorm]:
    """Every BatchNorm of a model, in order; none in a vision transformer."""
    return [module for module in model.modules() if isinstance(module, BatchNorm)]


@contextmanager
def _statistics(model: nn.Module, mode: Statistics) -> Iterator[None]:
    norms = batch_norms(model)
    before = [norm.statistics for norm in norms]
    for norm in norms:
        norm.statistics = mode
    try:
        yield
    finally:
        for norm, mode_before in zip(norms, before, strict=True):
            norm.statistics = mode_before


def collecting(model: nn.Module):
    """Context: each forward in train mode is one micro-batch added to the collected sums."""
    return _statistics(model, "collect")


def still(model: nn.Module):
    """Context: forwards in train mode leave running statistics and collected sums alone."""
    return _statistics(model, "still")


@torch.no_grad()
def take_collected(model: nn.Module) -> Tensor:
    """Sums of every BatchNorm in one flat fp32 vector, to be added up over ranks; starts anew.

    Empty for a model without BatchNorm.
    """
    norms = batch_norms(model)
    if not norms:
        return torch.zeros(0, device=next(model.parameters()).device)
    sums = torch.cat([norm.collected for norm in norms])
    for norm in norms:
        norm.collected.zero_()
    return sums


@torch.no_grad()
def apply_collected(model: nn.Module, sums: Tensor) -> None:
    """Moves the running statistics once, towards the mean over the micro-batches in `sums`."""
    norms = batch_norms(model)
    for norm, part in zip(norms, sums.split([len(n.collected) for n in norms]), strict=True):
        mean, variance = (part[:-1] / part[-1]).chunk(2)
        norm.running_mean.lerp_(mean, MOMENTUM)
        norm.running_var.lerp_(variance, MOMENTUM)
        norm.num_batches_tracked += 1


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions; a stride is an average pool before the last of them.

    `recompute` frees its activations until the backward pass; the second forward leaves the
    running statistics alone.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.recompute = False
        self.stride = stride
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn1 = BatchNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = BatchNorm(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = BatchNorm(4 * channels)
        self.downsample = None
        if stride > 1 or channels_in != 4 * channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, 4 * channels, 1, bias=False), BatchNorm(4 * channels)
            )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 4 channels, H / stride, W / stride]."""
        if not self.recompute:
            return self.compute(x_BCHW)
        options = {"use_reentrant": False, "preserve_rng_state": False}
        # torch.compile repeats no change of a buffer, and takes no contexts.
        if not torch.compiler.is_compiling():
            options["context_fn"] = lambda: (nullcontext(), still(self))
        return checkpoint(self.compute, x_BCHW, **options)

    def compute(self, x_BCHW: Tensor) -> Tensor:
        """The block itself."""
        out = F.relu(self.bn1(self.conv1(x_BCHW)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        shortcut = x_BCHW
        if self.stride > 1:
            out = F.avg_pool2d(out, self.stride)
            shortcut = F.avg_pool2d(x_BCHW, self.stride)
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        return F.relu(out + shortcut, inplace=True)


class AttentionPool(nn.Module):
    """Attention whose only query is the mean over the feature map."""

    def __init__(self, positions: int, width: int, heads: int, embed: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.empty(positions + 1, width))
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, embed)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        """[B, D, H, W] -> [B, E]."""
        x_BND = x_BDHW.flatten(2).transpose(1, 2)
        x_BND = torch.cat([x_BND.mean(dim=1, keepdim=True), x_BND], dim=1)
        x_BND = x_BND + self.positional_embedding.to(x_BND.dtype)
        q = split_heads(self.q_proj(x_BND[:, :1]), self.heads)
        k = split_heads(self.k_proj(x_BND), self.heads)
        v = split_heads(self.v_proj(x_BND), self.heads)
        return self.c_proj(merge_heads(F.scaled_dot_product_attention(q, k, v))).squeeze(1)


class ModifiedResNet(nn.Module):
    """Images to features, with OpenAI's names for the weights."""

    def __init__(self, config: ResNetConfig, embed: int) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = BatchNorm(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = BatchNorm(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = BatchNorm(width)
        self.layer1 = stage(width, width, config.layers[0], stride=1)
        self.layer2 = stage(4 * width, 2 * width, config.layers[1], stride=2)
        self.layer3 = stage(8 * width, 4 * width, config.layers[2], stride=2)
        self.layer4 = stage(16 * width, 8 * width, config.layers[3], stride=2)
        positions = (config.resolution // 32) ** 2
        self.attnpool = AttentionPool(positions, 32 * width, config.heads, embed)

    def forward(self, images_BCSS: Tensor) -> Tensor:
        """Normalised pixels [B, 3, S, S], any memory format -> [B, E], not normalised.

        Raises ValueError where S is not the model's resolution.
        """
        side = self.config.resolution
        if images_BCSS.shape[2:] != (side, side):
            height, width = images_BCSS.shape[2:]
            raise ValueError(
                f"images of {height} x {width} pixels: this model takes {side} x {side}"
            )
        x_BCHW = images_BCSS.to(self.conv1.weight.dtype)
        for convolution, norm in (
            (self.conv1, self.bn1),
            (self.conv2, self.bn2),
            (self.conv3, self.bn3),
        ):
            x_BCHW = F.relu(norm(convolution(x_BCHW)), inplace=True)
        x_BCHW = F.avg_pool2d(x_BCHW, 2)
        for blocks in (self.layer1, self.layer2, self.layer3, self.layer4):
            x_BCHW = blocks(x_BCHW)
        return self.attnpool(x_BCHW)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator | None) -> None:
        """Sets every weight and buffer: torch's own for convolutions, the attention pool with std
        D^-.5, and a zero gain where a block joins its shortcut, so that blocks begin as identity.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                uniform_(module.weight, module.weight[0].numel(), generator)
            elif isinstance(module, BatchNorm):
                module.reset_parameters()
                module.collected.zero_()
        for module in self.modules():
            if isinstance(module, Bottleneck):
                module.bn3.weight.zero_()
        pool = self.attnpool
        width = pool.c_proj.in_features
        pool.positional_embedding.normal_(std=width**-0.5, generator=generator)
        for linear in (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj):
            linear.weight.normal_(std=width**-0.5, generator=generator)
            uniform_(linear.bias, width, generator)


def stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    """Bottleneck blocks of one width; the first has the stride."""
    first = Bottleneck(channels_in, channels, stride)
    return nn.Sequential(first, *(Bottleneck(4 * channels, channels, 1) for _ in range(blocks - 1)))
