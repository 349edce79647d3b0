"""Recipes that come with it: `wit train` takes each, the paper's have the paper's numbers."""

import pytest

from trainer.options import RECIPES as FOLDER
from trainer.options import parse
from trainer.zoo import MODELS, ViTConfig

RECIPES = sorted(path.name for path in FOLDER.glob("*.toml"))
RESNETS, VITS = (0.999, 1e-8), (0.98, 1e-6)  # beta2, eps
PAPER = {  # Radford et al. 2021, tables 18 to 20: model, learning rate, Adam's constants
    "rn50.toml": ("RN50", 5e-4, RESNETS),
    "rn101.toml": ("RN101", 5e-4, RESNETS),
    "rn50x4.toml": ("RN50x4", 5e-4, RESNETS),
    "rn50x16.toml": ("RN50x16", 4e-4, RESNETS),
    "rn50x64.toml": ("RN50x64", 3.6e-4, RESNETS),
    "vit-b-32.toml": ("ViT-B/32", 5e-4, VITS),
    "vit-b-16.toml": ("ViT-B/16", 5e-4, VITS),
    "vit-l-14.toml": ("ViT-L/14", 4e-4, VITS),
    "vit-l-14-336px.toml": ("ViT-L/14@336px", 2e-5, VITS),
}
GPUS = [2**n for n in range(7)]


def read(name: str):
    return parse(["DATA", "--out", "RUN", "--config", str(FOLDER / name)])


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_taken_as_it_stands(name):
    config = read(name)
    assert config.model in MODELS
    resnet = not isinstance(MODELS[config.model].vision, ViTConfig)
    if resnet:  # or BatchNorm would depend on the number of ranks
        assert config.micro_batch


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_recipes_have_the_papers_numbers(name):
    config = read(name)
    model, learning_rate, constants = PAPER[name]
    assert config.model == model
    assert config.learning_rate == learning_rate
    assert (config.beta2, config.eps) == constants
    assert (config.beta1, config.weight_decay) == (0.9, 0.2)
    assert (config.batch, config.warmup) == (32_768, 2_000)
    assert config.epochs == (1 if "336px" in name else 32)
    assert config.crop == "square"
    assert config.precision != "fp32"


@pytest.mark.parametrize("name", PAPER)
def test_without_a_recipe_a_model_is_trained_with_the_same_numbers(name):
    config, model = read(name), MODELS[PAPER[name][0]]
    assert (model.learning_rate, model.beta2, model.eps) == (
        config.learning_rate,
        config.beta2,
        config.eps,
    )


@pytest.mark.parametrize("ranks", GPUS)
@pytest.mark.parametrize("name", PAPER)
def test_the_papers_batch_can_be_shared_by_up_to_64_gpus(name, ranks):
    config = read(name)
    assert config.lanes % ranks == 0
    assert config.batch // ranks % config.micro_batch == 0
