"""The text transformer.

Its weights stand at the top of a state dict (`token_embedding`, `transformer`, ...), where OpenAI
put them: so they are attributes of CLIP, and this is a function over them.
Letters in names: B batch, L tokens, N tokens of all texts, D width, E embed, T context.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.block import LayerNorm, Packing, Transformer


def text_features(
    tokens_BL: Tensor,
    places_N: Tensor | None,
    token_embedding: nn.Embedding,
    positions_TD: Tensor,
    transformer: Transformer,
    ln_final: LayerNorm,
    projection_DE: Tensor,
) -> Tensor:
    """Token ids int64 [B, L] -> [B, E], not normalised.

    The feature is read at the end-of-text token, the greatest id of a text. Attention is causal,
    so what follows that token changes nothing, and is not computed: `places_N` says where the
    others are (`real_places`); a GPU waits where that is None. Any L up to the context gives the
    same features, as long as no end-of-text token is cut off. Raises ValueError for an L beyond it.
    """
    length = tokens_BL.shape[1]
    if length > len(positions_TD):
        raise ValueError(f"texts of {length} tokens: this model takes at most {len(positions_TD)}")
    if places_N is None:
        places_N = real_places(tokens_BL)
    last_B = tokens_BL.argmax(dim=1)
    packing = Packing(length, places_N, last_B, (last_B + 1).cumsum(0) - 1)
    x_ND = token_embedding(tokens_BL.flatten().index_select(0, places_N))
    x_ND = x_ND + F.embedding(places_N % length, positions_TD).to(x_ND.dtype)
    return ln_final(transformer(x_ND, packing)) @ projection_DE


def real_places(tokens_BL: Tensor) -> Tensor:
    """int64 [N]: where in [B * L] the tokens up to each text's end are."""
    positions = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
    real_BL = positions <= tokens_BL.argmax(dim=1)[:, None]
    return real_BL.flatten().nonzero().squeeze(1)


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
