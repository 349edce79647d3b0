"""The vision transformer.

Letters in names: B batch, C colours, S side of the image, P patch side, G patches a side,
L patches, K patches kept, D width, E embed.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.block import LayerNorm, Transformer, uniform_
from trainer.zoo import Gelu, ViTConfig


class VisionTransformer(nn.Module):
    """Images to features, with OpenAI's names for the weights (`conv1` cuts the patches)."""

    def __init__(self, config: ViTConfig, embed: int, gelu: Gelu) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.conv1 = nn.Conv2d(3, width, config.patch, stride=config.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(config.patches + 1, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, config.layers, config.heads, gelu)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, embed))

    def forward(self, images_BCSS: Tensor, kept_BK: Tensor | None = None) -> Tensor:
        """Normalised pixels [B, 3, S, S] -> [B, E], not normalised.

        `kept_BK`, int64, are the patches that patch dropout keeps (0 is the upper left, row after
        row), K the same for all; None keeps all.
        """
        return self.features(images_BCSS, kept_BK) @ self.proj

    def features(self, images_BCSS: Tensor, kept_BK: Tensor | None = None) -> Tensor:
        """[B, D]: what the projection is given (the paper's linear probe reads this)."""
        patches_BLP = cut_patches(images_BCSS.to(self.conv1.weight.dtype), self.config)
        places = self.positional_embedding[1:]
        if kept_BK is not None:
            index = kept_BK[:, :, None].expand(-1, -1, patches_BLP.shape[2])
            patches_BLP, places = patches_BLP.gather(1, index), places[kept_BK]
        x_BLD = F.linear(patches_BLP, self.conv1.weight.flatten(1))
        x_BLD = x_BLD + places.to(x_BLD.dtype)
        head_D = (self.class_embedding + self.positional_embedding[0]).to(x_BLD.dtype)
        x_BLD = torch.cat([head_D.expand(len(x_BLD), 1, -1), x_BLD], dim=1)
        return self.ln_post(self.transformer(self.ln_pre(x_BLD)))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator | None) -> None:
        """Sets every weight; std D^-.5 outside the blocks, torch's own for the convolution."""
        scale = self.config.width**-0.5
        uniform_(self.conv1.weight, self.conv1.weight[0].numel(), generator)
        for parameter in (self.class_embedding, self.positional_embedding, self.proj):
            parameter.normal_(std=scale, generator=generator)
        self.ln_pre.reset_parameters()
        self.ln_post.reset_parameters()
        self.transformer.initialise(generator)


def cut_patches(images_BCSS: Tensor, config: ViTConfig) -> Tensor:
    """[B, 3, S, S] -> [B, L, 3 P P], pixels in the order of a convolution's weight.

    A product of these with the weight is the convolution, and costs less than one where some
    patches are dropped. Raises ValueError where S is not the model's resolution.
    """
    batch, colours, height, width = images_BCSS.shape
    if (height, width) != (config.resolution, config.resolution):
        raise ValueError(
            f"images of {height} x {width} pixels: this model takes {config.resolution} x "
            f"{config.resolution}"
        )
    grid, patch = config.resolution // config.patch, config.patch
    x_BCGPGP = images_BCSS.reshape(batch, colours, grid, patch, grid, patch)
    return x_BCGPGP.permute(0, 2, 4, 1, 3, 5).reshape(batch, grid * grid, colours * patch * patch)
