"""The paper's nine models, and small ones for a CPU, as rows of a table.

Sizes, learning rates and Adam's constants: Radford et al. 2021, tables 18 to 20 (the appendix on
hyper-parameters). No torch here: the table can be read without it.
"""

from dataclasses import dataclass
from typing import Literal

Gelu = Literal["quick", "exact"]
PRECISIONS = ("fp32", "bf16", "fp16")  # in which the towers compute (trainer.precision)
# Of the colours red, green, blue in 0 .. 1, over the paper's training images.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ViTConfig:
    """A vision transformer; `resolution` and `patch` in pixels."""

    resolution: int
    patch: int
    width: int
    layers: int
    heads: int

    @property
    def patches(self) -> int:
        """Patches of an image, without the class token."""
        return (self.resolution // self.patch) ** 2


@dataclass(frozen=True)
class ResNetConfig:
    """A modified ResNet; `layers` are bottleneck blocks per stage, `heads` the attention pool's."""

    resolution: int
    width: int
    layers: tuple[int, int, int, int]
    heads: int


@dataclass(frozen=True)
class TextConfig:
    """A text transformer; `context` is the greatest number of tokens."""

    width: int
    heads: int
    layers: int = 12
    context: int = 77
    vocabulary: int = 49408


@dataclass(frozen=True)
class Model:
    """A CLIP model: what its weights need (`gelu` too) and the paper's settings to train it."""

    name: str
    embed: int
    vision: ViTConfig | ResNetConfig
    text: TextConfig
    learning_rate: float
    beta2: float
    eps: float
    gelu: Gelu = "quick"


def _resnet(
    name: str, embed: int, vision: ResNetConfig, text: TextConfig, learning_rate: float
) -> Model:
    return Model(name, embed, vision, text, learning_rate, beta2=0.999, eps=1e-8)


def _vit(name: str, embed: int, vision: ViTConfig, text: TextConfig, learning_rate: float) -> Model:
    return Model(name, embed, vision, text, learning_rate, beta2=0.98, eps=1e-6)


PAPER = (
    _resnet("RN50", 1024, ResNetConfig(224, 64, (3, 4, 6, 3), 32), TextConfig(512, 8), 5e-4),
    _resnet("RN101", 512, ResNetConfig(224, 64, (3, 4, 23, 3), 32), TextConfig(512, 8), 5e-4),
    _resnet("RN50x4", 640, ResNetConfig(288, 80, (4, 6, 10, 6), 40), TextConfig(640, 10), 5e-4),
    _resnet("RN50x16", 768, ResNetConfig(384, 96, (6, 8, 18, 8), 48), TextConfig(768, 12), 4e-4),
    _resnet(
        "RN50x64", 1024, ResNetConfig(448, 128, (3, 15, 36, 10), 64), TextConfig(1024, 16), 3.6e-4
    ),
    _vit("ViT-B/32", 512, ViTConfig(224, 32, 768, 12, 12), TextConfig(512, 8), 5e-4),
    _vit("ViT-B/16", 512, ViTConfig(224, 16, 768, 12, 12), TextConfig(512, 8), 5e-4),
    _vit("ViT-L/14", 768, ViTConfig(224, 14, 1024, 24, 16), TextConfig(768, 12), 4e-4),
    _vit("ViT-L/14@336px", 768, ViTConfig(336, 14, 1024, 24, 16), TextConfig(768, 12), 2e-5),
)
SMALL = (
    _vit("cpu-ViT-20M/16", 256, ViTConfig(128, 16, 320, 6, 5), TextConfig(192, 3, 6), 1.5e-4),
    _vit("cpu-ViT-tiny/32", 64, ViTConfig(64, 32, 64, 2, 2), TextConfig(64, 2, 2), 1e-3),
    _resnet("cpu-RN-tiny", 64, ResNetConfig(64, 8, (1, 2, 1, 1), 4), TextConfig(64, 2, 2), 1e-3),
)
MODELS: dict[str, Model] = {model.name: model for model in (*PAPER, *SMALL)}
