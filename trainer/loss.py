"""Symmetric InfoNCE in tiles: memory grows with the batch, not with its square, on 1 or many ranks.

Each rank holds the block of the similarity matrix between its images and all texts, a tile at a
time, and walks it twice: once for the softmax statistics of rows and columns, once more for the
gradients, which are therefore ready when the value is. Ranks exchange the text features, two
numbers a sample, and the gradients of the text features; every product is computed once in the
world. All of it happens in the forward pass, so nothing is communicated in the backward pass.

A matched pair is kept apart from the rest of its row: the loss of a row is
log(1 + sum over the others of exp(s_ij - s_ii)), so that a loss near zero keeps its digits.

Letters in names: N samples of the world, B of this rank, E embed, R and C rows and columns of a
tile.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

# A tile stays in a CPU's cache; a GPU wants fewer, larger kernels.
TILE = {"cpu": 1024, "cuda": 4096}
# Under e^-87 a fp32 number is denormal: slow on CPUs, and nothing beside the 1 of the own pair.
LOWEST = -87.0


@dataclass(frozen=True)
class Loss:
    """The loss of the global batch and this rank's gradients (None where they were not wanted).

    `value` and `scale` are scalars, `image` and `text` fp32 [B, E].
    """

    value: Tensor
    image: Tensor | None
    text: Tensor | None
    scale: Tensor | None


def contrastive_loss(
    image_BE: Tensor,
    text_BE: Tensor,
    scale: Tensor,
    valid_B: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
    tile: int | None = None,
) -> Tensor:
    """The mean over the global batch of both cross-entropies, halved: a scalar, on every rank.

    `image_BE` and `text_BE`: this rank's features, of norm 1, the same B on every rank; computed
    in fp32 whatever their dtype and whatever autocast says. `scale`: exp(logit_scale), a scalar.
    `valid_B`, bool: samples that are False are neither rows nor columns and have no gradient; the
    mean is over those that remain (0 if none does). Given on every rank or on none.

    The gradients of the ranks *add up* to those of a single process with the global batch, those
    of the scale too: sum parameters' gradients over the ranks. Where they are averaged (DDP, FSDP
    unless told), multiply the loss by the world size first.

    `group` None: all ranks, if torch.distributed is initialised. `tile`: side of a tile, 1,024 on
    a CPU and 4,096 on a GPU. Raises ValueError for shapes that do not fit.
    """
    features = [image_BE, text_BE]
    if image_BE.dtype != torch.float64:
        features = [part.float() for part in features]
    scale = scale.to(features[0].dtype)
    if torch.is_grad_enabled() and any(part.requires_grad for part in (*features, scale)):
        return _Contrastive.apply(*features, scale, valid_B, group, tile)
    return loss_and_gradients(*features, scale, valid_B, group, tile, gradients=False).value


class _Contrastive(torch.autograd.Function):
    """`loss_and_gradients` for autograd: the backward pass only scales what is there already."""

    @staticmethod
    def forward(ctx, image_BE, text_BE, scale, valid_B, group, tile) -> Tensor:
        """The value; the gradients are kept."""
        loss = loss_and_gradients(image_BE, text_BE, scale, valid_B, group, tile)
        ctx.save_for_backward(loss.image, loss.text, loss.scale)
        return loss.value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, above: Tensor) -> tuple[Tensor | None, ...]:
        """The kept gradients times that of the value."""
        return *(above * gradient for gradient in ctx.saved_tensors), None, None, None


@torch.no_grad()
def loss_and_gradients(
    image_BE: Tensor,
    text_BE: Tensor,
    scale: Tensor,
    valid_B: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
    tile: int | None = None,
    gradients: bool = True,
) -> Loss:
    """What `contrastive_loss` computes, with the gradients as tensors: for cached features.

    Arguments as there, but image and text features of one dtype, fp32 or fp64.
    """
    if image_BE.shape != text_BE.shape or image_BE.ndim != 2:
        raise ValueError(
            f"image features {tuple(image_BE.shape)} and text features {tuple(text_BE.shape)}: "
            "both must be [batch, embed]"
        )
    if valid_B is not None and valid_B.shape != image_BE.shape[:1]:
        raise ValueError(f"valid {tuple(valid_B.shape)}: must be [{len(image_BE)}]")
    device = image_BE.device
    tile = tile or TILE.get(device.type, TILE["cuda"])
    if valid_B is not None:
        valid_B = valid_B.to(device)
        # Whatever a broken sample became, also NaN, must not reach a product.
        image_BE = image_BE.masked_fill(~valid_B[:, None], 0)
        text_BE = text_BE.masked_fill(~valid_B[:, None], 0)
    with torch.autocast(device.type, enabled=False), full_precision():
        block = _gather(image_BE, text_BE, scale, valid_B, group, tile)
        value, rows_B, columns_N, count = _statistics(block, group)
        if not gradients:
            return Loss(value, None, None, None)
        image_BE, text_BE, scale = _gradients(block, rows_B, columns_N, count, group)
    if valid_B is not None:
        image_BE.masked_fill_(~valid_B[:, None], 0)
        text_BE.masked_fill_(~valid_B[:, None], 0)
    return Loss(value, image_BE, text_BE, scale)


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Products of fp32 matrices are fp32 within, whatever the process allows elsewhere."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


# --- the block of this rank ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Block:
    """Images of one rank against all texts; `own_B`, `own_N`: the logits of matched pairs."""

    image_BE: Tensor
    query_BE: Tensor  # images times scale: their products with texts are logits
    text_NE: Tensor
    scale: Tensor
    own_B: Tensor
    own_N: Tensor
    valid_B: Tensor | None
    valid_N: Tensor | None
    first: int  # the place of this rank's first sample in the world
    tile: int


def _gather(
    image_BE: Tensor,
    text_BE: Tensor,
    scale: Tensor,
    valid_B: Tensor | None,
    group: dist.ProcessGroup | None,
    tile: int,
) -> _Block:
    own_B = (image_BE.double() * text_BE.double()).sum(1) * scale.double()
    own_B = own_B.to(image_BE.dtype)
    text_NE, own_N, valid_N, rank = text_BE, own_B, valid_B, 0
    if _world_size(group) > 1:
        rank = dist.get_rank(group)
        text_NE = _all_gather(text_BE, group)
        own_N = _all_gather(own_B, group)
        valid_N = None if valid_B is None else _all_gather(valid_B.to(own_B.dtype), group).bool()
    query_BE = image_BE * scale
    first = rank * len(image_BE)
    return _Block(image_BE, query_BE, text_NE, scale, own_B, own_N, valid_B, valid_N, first, tile)


def _tiles(block: _Block) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """(rows, columns, their logits [R, C], room for as many), in tensors that the next tile reuses.

    Matched pairs and masked rows and columns are -inf.
    """
    height, width = len(block.query_BE), len(block.text_NE)
    shape = min(block.tile, height), min(block.tile, width)
    logits, room = (block.query_BE.new_empty(shape) for _ in range(2))
    for top in range(0, height, block.tile):
        rows = slice(top, min(top + block.tile, height))
        for left in range(0, width, block.tile):
            columns = slice(left, min(left + block.tile, width))
            part = (slice(rows.stop - top), slice(columns.stop - left))
            tile_RC = logits[part]
            torch.mm(block.query_BE[rows], block.text_NE[columns].T, out=tile_RC)
            if block.valid_B is not None:
                tile_RC.masked_fill_(~block.valid_B[rows, None], -torch.inf)
                tile_RC.masked_fill_(~block.valid_N[columns], -torch.inf)
            _matched(block, rows, columns, tile_RC).fill_(-torch.inf)
            yield rows, columns, tile_RC, room[part]


def _matched(block: _Block, rows: slice, columns: slice, tile_RC: Tensor) -> Tensor:
    """A view of the tile's matched pairs; empty where the tile has none."""
    offset = block.first + rows.start - columns.start
    if -tile_RC.shape[0] < offset < tile_RC.shape[1]:
        return tile_RC.diagonal(offset)
    return tile_RC.flatten()[:0]


def _exp(tile_RC: Tensor, shift: Tensor, out: Tensor) -> Tensor:
    """exp(tile - shift), never denormal."""
    return torch.sub(tile_RC, shift, out=out).clamp_(min=LOWEST).exp_()


def _statistics(
    block: _Block, group: dist.ProcessGroup | None
) -> tuple[Tensor, "_Softmax", "_Softmax", Tensor]:
    """(the loss, softmax statistics of this rank's rows and of all columns, samples that count)."""
    top_B, top_N = block.own_B.clone(), block.own_N.clone()
    others_B, others_N = torch.zeros_like(top_B), torch.zeros_like(top_N)
    for rows, columns, tile_RC, room in _tiles(block):
        for top, others, dim in (
            (top_B[rows], others_B[rows], 1),
            (top_N[columns], others_N[columns], 0),
        ):
            higher = torch.maximum(top, tile_RC.amax(dim))
            others.mul_((top - higher).exp_())
            others.add_(_exp(tile_RC, higher.unsqueeze(dim), out=room).sum(dim))
            top.copy_(higher)
    if _world_size(group) > 1:
        highest_N = top_N.clone()
        dist.all_reduce(highest_N, dist.ReduceOp.MAX, group)
        others_N.mul_((top_N - highest_N).exp_())
        dist.all_reduce(others_N, dist.ReduceOp.SUM, group)
        top_N = highest_N
    rows_B = _softmax(block.own_B, top_B, others_B)
    columns_N = _softmax(block.own_N, top_N, others_N)
    losses_B = rows_B.loss.double() + columns_N.loss[block.first :][: len(top_B)].double()
    if block.valid_B is None:
        count = losses_B.new_full((), len(block.own_N))
    else:
        losses_B.masked_fill_(~block.valid_B, 0)
        count = block.valid_N.sum().clamp_(min=1).double()
    total = losses_B.sum()
    if _world_size(group) > 1:
        dist.all_reduce(total, dist.ReduceOp.SUM, group)
    return (total / (2 * count)).to(top_B.dtype), rows_B, columns_N, count


@dataclass(frozen=True)
class _Softmax:
    """Of rows or columns: `log_sum` the logsumexp of the logits, `loss` = log_sum - own logit,
    `missed` = 1 - the softmax of the own pair.
    """

    log_sum: Tensor
    loss: Tensor
    missed: Tensor


def _softmax(own: Tensor, top: Tensor, others: Tensor) -> _Softmax:
    """From the own logit, the highest, and the sum of exp(logit - highest) of all others."""
    gap = top - own
    loss = gap + torch.log1p(others + torch.expm1(-gap))
    missed = others / (others + torch.exp(-gap))
    return _Softmax(own + loss, loss, missed)


def _gradients(
    block: _Block,
    rows_B: _Softmax,
    columns_N: _Softmax,
    count: Tensor,
    group: dist.ProcessGroup | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the global loss by this rank's image features and text features, and its part by scale."""
    image_BE = torch.zeros_like(block.query_BE)
    text_NE = torch.zeros_like(block.text_NE)
    for rows, columns, tile_RC, room in _tiles(block):
        weights_RC = _exp(tile_RC, rows_B.log_sum[rows, None], out=room)
        weights_RC += _exp(tile_RC, columns_N.log_sum[columns], out=tile_RC)
        matched = _matched(block, rows, columns, weights_RC)
        if len(matched):
            start = max(rows.start, columns.start - block.first)
            own = slice(start, start + len(matched))
            everywhere = slice(block.first + own.start, block.first + own.stop)
            matched.copy_(rows_B.missed[own]).add_(columns_N.missed[everywhere]).neg_()
        image_BE[rows].addmm_(weights_RC, block.text_NE[columns])
        text_NE[columns].addmm_(weights_RC.T, block.query_BE[rows])
    half = (0.5 / count).to(image_BE.dtype)
    scale = (image_BE.double() * block.image_BE.double()).sum().to(image_BE.dtype) * half
    image_BE *= block.scale * half
    text_NE *= half
    if _world_size(group) > 1:
        text_BE = torch.empty_like(image_BE)
        dist.reduce_scatter_single(text_BE, text_NE, dist.ReduceOp.SUM, group)
        return image_BE, text_BE, scale
    return image_BE, text_NE, scale


def _world_size(group: dist.ProcessGroup | None) -> int:
    return dist.get_world_size(group) if dist.is_initialized() else 1


def _all_gather(part: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """[B, ...] of every rank -> [N, ...], in the order of ranks."""
    whole = part.new_empty(dist.get_world_size(group) * len(part), *part.shape[1:])
    dist.all_gather_single(whole, part.contiguous(), group)
    return whole
