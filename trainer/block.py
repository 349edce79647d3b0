"""The transformer that both towers share: pre-LN blocks with OpenAI's names for their weights.

Letters in names: B batch, L tokens or patches, D width, H heads.
"""

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


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x_BLD: Tensor, causal: bool, rows_B: Tensor | None) -> Tensor:
        """[B, L, D]; or [B, 1, D] where only one row of each sample asks (`rows_B`)."""
        if rows_B is None:
            qkv = F.linear(x_BLD, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
            q, k, v = (split_heads(part, self.heads) for part in qkv)
            out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
            return self.out_proj(merge_heads(out))
        width = x_BLD.shape[-1]
        weight_q, weight_kv = self.in_proj_weight.split([width, 2 * width])
        bias_q, bias_kv = self.in_proj_bias.split([width, 2 * width])
        q = split_heads(F.linear(take_rows(x_BLD, rows_B), weight_q, bias_q), self.heads)
        kv = F.linear(x_BLD, weight_kv, bias_kv).chunk(2, dim=-1)
        k, v = (split_heads(part, self.heads) for part in kv)
        seen = None
        if causal:
            positions = torch.arange(x_BLD.shape[1], device=x_BLD.device)
            seen = (positions <= rows_B[:, None])[:, None, None, :]
        return self.out_proj(merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=seen)))


def split_heads(x_BLD: Tensor, heads: int) -> Tensor:
    """[B, L, D] -> [B, H, L, D / H], a view."""
    return x_BLD.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x_BHLD: Tensor) -> Tensor:
    """[B, H, L, D / H] -> [B, L, D]."""
    return x_BHLD.transpose(1, 2).flatten(2)


def take_rows(x_BLD: Tensor, rows_B: Tensor) -> Tensor:
    """One row of each sample: [B, 1, D]."""
    return x_BLD.gather(1, rows_B[:, None, None].expand(-1, 1, x_BLD.shape[-1]))


class MLP(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, gelu: Gelu) -> None:
        super().__init__()
        self.gelu = gelu
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        hidden = self.c_fc(x_BLD)
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

    def forward(self, x_BLD: Tensor, causal: bool, rows_B: Tensor | None = None) -> Tensor:
        """[B, L, D]; with `rows_B` int64 [B] only that row of each sample: [B, 1, D]."""
        if not self.recompute:
            return self.compute(x_BLD, causal, rows_B)
        return checkpoint(
            self.compute, x_BLD, causal, rows_B, use_reentrant=False, preserve_rng_state=False
        )

    def compute(self, x_BLD: Tensor, causal: bool, rows_B: Tensor | None) -> Tensor:
        """The block itself."""
        attended = self.attn(self.ln_1(x_BLD), causal, rows_B)
        x_BLD = (x_BLD if rows_B is None else take_rows(x_BLD, rows_B)) + attended
        return x_BLD + self.mlp(self.ln_2(x_BLD))


class Transformer(nn.Module):
    """Blocks in a row, read at one position of each sample.

    Both towers use a single row of the last block (the class token, the end-of-text token), so
    that block computes keys and values of all rows and the rest of one only: the same numbers for
    about 7 % less work in 12 layers.
    """

    def __init__(self, width: int, layers: int, heads: int, gelu: Gelu) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, gelu) for _ in range(layers))

    def forward(self, x_BLD: Tensor, rows_B: Tensor, causal: bool = False) -> Tensor:
        """[B, L, D] and the row to read, int64 [B] -> [B, D]."""
        for block in self.resblocks[:-1]:
            x_BLD = block(x_BLD, causal)
        return self.resblocks[-1](x_BLD, causal, rows_B).squeeze(1)

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
