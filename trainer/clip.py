"""CLIP: an image tower and a text tower that meet in one space.

Letters in names: B batch, S side of the image, L tokens, K patches kept, E embed.
"""

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.block import Block, LayerNorm, Transformer
from trainer.resnet import Bottleneck, ModifiedResNet
from trainer.text import initialise_text, text_features
from trainer.vit import VisionTransformer
from trainer.zoo import MEAN, STD, Model, ViTConfig

LARGEST_LOGIT_SCALE = math.log(100)


class CLIP(nn.Module):
    """A model of the zoo; its state dict has OpenAI's keys. `create` gives one with weights."""

    def __init__(self, config: Model) -> None:
        super().__init__()
        self.config = config
        vision, text = config.vision, config.text
        if isinstance(vision, ViTConfig):
            self.visual = VisionTransformer(vision, config.embed, config.gelu)
        else:
            self.visual = ModifiedResNet(vision, config.embed)
        self.token_embedding = nn.Embedding(text.vocabulary, text.width)
        self.positional_embedding = nn.Parameter(torch.empty(text.context, text.width))
        self.transformer = Transformer(text.width, text.layers, text.heads, config.gelu)
        self.ln_final = LayerNorm(text.width)
        self.text_projection = nn.Parameter(torch.empty(text.width, config.embed))
        self.logit_scale = nn.Parameter(torch.empty(()))

    def encode_image(self, images: Tensor, kept: Tensor | None = None) -> Tensor:
        """Pixels [B, 3, S, S], normalised by colour -> features [B, E], not normalised.

        `kept`, int64 [B, K], are the patches that patch dropout keeps (vision transformers only).
        """
        return self._image_features(images, kept)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids int64 [B, L], any L up to 77 -> features [B, E], not normalised."""
        return text_features(tokens, None, *self._text())

    def forward(
        self,
        images: Tensor,
        tokens: Tensor,
        kept: Tensor | None = None,
        places: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(image features [B, E], text features [B, E], both fp32 of norm 1; exp(logit_scale)).

        `places` are `trainer.text.real_places` of the tokens, for which a GPU need not wait then.
        """
        # Not by the methods above: FSDP2 has hooks round those, and round this one.
        image = F.normalize(self._image_features(images, kept).float(), dim=-1)
        text = F.normalize(text_features(tokens, places, *self._text()).float(), dim=-1)
        return image, text, self.logit_scale.exp()

    def _image_features(self, images: Tensor, kept: Tensor | None) -> Tensor:
        return self.visual(images) if kept is None else self.visual(images, kept)

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keeps the scale between 1 and 100; to be called after each step of the optimiser."""
        self.logit_scale.clamp_(0, LARGEST_LOGIT_SCALE)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Sets every weight and buffer, drawn from `generator` alone (None: torch's default)."""
        self.visual.initialise(generator)
        initialise_text(*self._text(), generator)
        self.logit_scale.fill_(math.log(1 / 0.07))

    def _text(self) -> tuple[nn.Embedding, Tensor, Transformer, LayerNorm, Tensor]:
        return (
            self.token_embedding,
            self.positional_embedding,
            self.transformer,
            self.ln_final,
            self.text_projection,
        )


def normalise(images_BSSC: Tensor) -> Tensor:
    """Pixels uint8 [B, S, S, 3] -> what the image tower takes: fp32 [B, 3, S, S], by colour."""
    mean, std = colours(images_BSSC.device)
    # Divided by 255 first: the same bits as torchvision's transforms, so as open_clip's.
    return ((images_BSSC.float() / 255 - mean) / std).permute(0, 3, 1, 2)


@functools.cache
def colours(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation by colour; kept, for a copy to a GPU waits for it."""
    return torch.tensor(MEAN, device=device), torch.tensor(STD, device=device)


def create(config: Model, seed: int) -> CLIP:
    """A model on the CPU with fresh fp32 weights, a function of the seed alone."""
    model = empty(config)
    model.initialise(torch.Generator().manual_seed(seed))
    return model


def empty(config: Model) -> CLIP:
    """A model on the CPU whose weights are whatever the memory held."""
    with torch.device("meta"):
        model = CLIP(config)
    return model.to_empty(device="cpu")


def set_checkpointing(model: nn.Module, on: bool) -> None:
    """Gradient checkpointing: every block frees its activations and computes them twice."""
    for module in model.modules():
        if isinstance(module, Block | Bottleneck):
            module.recompute = on
