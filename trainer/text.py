"""The text transformer.

Its weights stand at the top of a state dict (`token_embedding`, `transformer`, ...), where OpenAI
put them: so they are attributes of CLIP, and this is a function over them.
Letters in names: B batch, L tokens, D width, E embed, V vocabulary, T context.
"""

import torch
from torch import Tensor, nn

from trainer.block import LayerNorm, Transformer


def text_features(
    tokens_BL: Tensor,
    token_embedding: nn.Embedding,
    positions_TD: Tensor,
    transformer: Transformer,
    ln_final: LayerNorm,
    projection_DE: Tensor,
) -> Tensor:
    """Token ids int64 [B, L] -> [B, E], not normalised.

    The feature is read at the end-of-text token, the greatest id of a text. Attention is causal,
    so what follows that token changes nothing: any L up to the context gives the same features, as
    long as no end-of-text token is cut off. Raises ValueError for an L beyond the context.
    """
    length = tokens_BL.shape[1]
    if length > len(positions_TD):
        raise ValueError(f"texts of {length} tokens: this model takes at most {len(positions_TD)}")
    x_BLD = token_embedding(tokens_BL)
    x_BLD = x_BLD + positions_TD[:length].to(x_BLD.dtype)
    return ln_final(transformer(x_BLD, tokens_BL.argmax(dim=1), causal=True)) @ projection_DE


@torch.no_grad()
def initialise_text(
    token_embedding: nn.Embedding,
    positions_TD: Tensor,
    transformer: Transformer,
    ln_final: LayerNorm,
    projection_DE: Tensor,
    generator: torch.Generator | None,
) -> None:
    """Sets every weight: std .02 for tokens, .01 for positions, D^-.5 for the projection."""
    token_embedding.weight.normal_(std=0.02, generator=generator)
    positions_TD.normal_(std=0.01, generator=generator)
    transformer.initialise(generator)
    ln_final.reset_parameters()
    projection_DE.normal_(std=len(projection_DE) ** -0.5, generator=generator)
