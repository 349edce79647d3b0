"""The transformer that both towers share: pre-LN blocks with OpenAI's names for their weights.

Pictures are [B, L, D]. Texts are packed, [N, D]: the tokens of all texts one after another, without
padding, which stands only where attention is computed. In a batch of web captions the longest is
four times the mean, so most of a padded batch is padding.

Letters in names: B batch, L tokens or patches, N tokens of all texts, D width, H heads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from trainer.zoo import Gelu


class LayerNorm(nn.LayerNorm):
    """Layer normalisation in fp32, whatever autocast or half-precision weights say around it."""

    def forward(self, x: Tensor) -> Tensor:
        """Any [..., D]; the same shape and dtype."""
        out = F.layer_norm(
            x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps
        )
        return out.to(x.dtype)


class Packing(NamedTuple):
    """Where packed texts lie in [B, L] read row by row; their attention is causal.

    Attributes:
        length: L, at least the longest text's tokens.
        places_N: int64, ascending, of each token in [B * L].
        last_B: int64, the last token of each text in [L], and `ends_B` in [N].
    """

    length: int
    places_N: Tensor
    last_B: Tensor
    ends_B: Tensor

    def pad(self, x_ND: Tensor) -> Tensor:
        """[N, D] -> [B, L, D], zeros after each text."""
        batch, width = len(self.last_B), x_ND.shape[-1]
        padded = x_ND.new_zeros(batch * self.length, width).index_copy(0, self.places_N, x_ND)
        return padded.view(batch, self.length, width)

    def pack(self, x_BLD: Tensor) -> Tensor:
        """[B, L, D] -> [N, D]."""
        return x_BLD.flatten(0, 1).index_select(0, self.places_N)

    def seen(self) -> Tensor:
        """The tokens that each text's last one looks at, itself among them: bool [B, 1, 1, L]."""
        positions = torch.arange(self.length, device=self.last_B.device)
        return (positions <= self.last_B[:, None])[:, None, None, :]


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, packing: Packing | None) -> Tensor:
        """Of all rows: [B, L, D], or [N, D] with its packing; the same shape."""
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        if packing is not None:
            qkv = packing.pad(qkv)
        q, k, v = (split_heads(part, self.heads) for part in qkv.chunk(3, dim=-1))
        out = merge_heads(F.scaled_dot_product_attention(q, k, v, is_causal=packing is not None))
        return self.out_proj(out if packing is None else packing.pack(out))

    def of_one(self, x: Tensor, packing: Packing | None) -> Tensor:
        """Of the one row of each sample that is read, which asks all of them: [B, D]."""
        width = x.shape[-1]
        weight_q, weight_kv = self.in_proj_weight.split([width, 2 * width])
        bias_q, bias_kv = self.in_proj_bias.split([width, 2 * width])
        q = split_heads(F.linear(read(x, packing), weight_q, bias_q)[:, None], self.heads)
        kv = F.linear(x, weight_kv, bias_kv)
        kv = kv if packing is None else packing.pad(kv)
        k, v = (split_heads(part, self.heads) for part in kv.chunk(2, dim=-1))
        seen = None if packing is None else packing.seen()
        out = merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=seen))
        return self.out_proj(out.squeeze(1))


def read(x: Tensor, packing: Packing | None) -> Tensor:
    """The row of each sample that makes its feature, [B, D]: a picture's first, a text's last."""
    return x[:, 0] if packing is None else x.index_select(0, packing.ends_B)


def split_heads(x_BLD: Tensor, heads: int) -> Tensor:
    """[B, L, D] -> [B, H, L, D / H], a view."""
    return x_BLD.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x_BHLD: Tensor) -> Tensor:
    """[B, H, L, D / H] -> [B, L, D]."""
    return x_BHLD.transpose(1, 2).flatten(2)


class MLP(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, gelu: Gelu) -> None:
        super().__init__()
        self.gelu = gelu
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Any [..., D]; the same shape."""
        hidden = self.c_fc(x)
        hidden = F.gelu(hidden) if self.gelu == "exact" else quick_gelu(hidden)
        return self.c_proj(hidden)


def quick_gelu(x: Tensor) -> Tensor:
    """The GELU x * sigmoid(1.702 x), as silu: one tensor kept for the backward pass, not two."""
    return F.silu(1.702 * x) / 1.702


class Block(nn.Module):
    """A pre-LN residual block; `recompute` frees its activations until the backward pass."""

    def __init__(self, width: int, heads: int, gelu: Gelu) -> None:
        super().__init__()
        self.recompute = False
        self.ln_1 = LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = LayerNorm(width)
        self.mlp = MLP(width, gelu)

    def forward(self, x: Tensor, packing: Packing | None = None, one: bool = False) -> Tensor:
        """[B, L, D], or [N, D] with its packing; the same shape, or [B, D] of the row read."""
        if not self.recompute:
            return self.compute(x, packing, one)
        return checkpoint(
            self.compute, x, packing, one, use_reentrant=False, preserve_rng_state=False
        )

    def compute(self, x: Tensor, packing: Packing | None, one: bool) -> Tensor:
        """The block itself."""
        if one:
            x = read(x, packing) + self.attn.of_one(self.ln_1(x), packing)
        else:
            x = x + self.attn(self.ln_1(x), packing)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """Blocks in a row, read at one position of each sample.

    Both towers use a single row of the last block (the class token, the end-of-text token), so
    that block computes keys and values of all rows and the rest of one only: the same numbers for
    about 7 % less work in 12 layers.
    """

    def __init__(self, width: int, layers: int, heads: int, gelu: Gelu) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, gelu) for _ in range(layers))

    def forward(self, x: Tensor, packing: Packing | None = None) -> Tensor:
        """[B, L, D], or [N, D] with its packing -> [B, D] (`read`)."""
        for block in self.resblocks[:-1]:
            x = block(x, packing)
        return self.resblocks[-1](x, packing, one=True)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator | None) -> None:
        """Sets every weight: std D^-.5 for q, k, v; (2D)^-.5 for c_fc; the two layers that write
        to the residual stream D^-.5 (2 layers)^-.5; biases as OpenAI's code leaves them.
        """
        for block in self.resblocks:
            width = block.ln_1.weight.numel()
            residual = width**-0.5 * (2 * len(self.resblocks)) ** -0.5
            block.ln_1.reset_parameters()
            block.ln_2.reset_parameters()
            block.attn.in_proj_weight.normal_(std=width**-0.5, generator=generator)
            block.attn.in_proj_bias.zero_()
            block.attn.out_proj.weight.normal_(std=residual, generator=generator)
            block.attn.out_proj.bias.zero_()
            block.mlp.c_fc.weight.normal_(std=(2 * width) ** -0.5, generator=generator)
            uniform_(block.mlp.c_fc.bias, width, generator)
            block.mlp.c_proj.weight.normal_(std=residual, generator=generator)
            uniform_(block.mlp.c_proj.bias, 4 * width, generator)


def uniform_(tensor: Tensor, fan_in: int, generator: torch.Generator | None) -> None:
    """Within fan_in^-.5 of 0: what torch draws for linear and convolutional layers."""
    tensor.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
