import copy
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the trainer needs torch")

from torch import nn  # noqa: E402

from trainer import optim  # noqa: E402
from trainer.clip import CLIP  # noqa: E402
from trainer.lowbit import halve_text_weights  # noqa: E402
from trainer.zoo import MODELS  # noqa: E402
from wit.errors import UserError  # noqa: E402

DECAY = {
    *("token_embedding.weight", "positional_embedding", "text_projection"),
    *("transformer.resblocks.N.attn.in_proj_weight", "transformer.resblocks.N.mlp.c_fc.weight"),
    *("transformer.resblocks.N.attn.out_proj.weight", "transformer.resblocks.N.mlp.c_proj.weight"),
}
NO_DECAY = {
    *("logit_scale", "ln_final.weight", "ln_final.bias"),
    *("transformer.resblocks.N.ln_N.weight", "transformer.resblocks.N.ln_N.bias"),
    *("transformer.resblocks.N.attn.in_proj_bias", "transformer.resblocks.N.attn.out_proj.bias"),
    *("transformer.resblocks.N.mlp.c_fc.bias", "transformer.resblocks.N.mlp.c_proj.bias"),
}
OF_VISION = {  # the model: (its own names that decay, those that do not)
    "ViT-B/32": (
        {
            *("visual.convN.weight", "visual.positional_embedding", "visual.proj"),
            *(f"visual.{name}" for name in DECAY if name.startswith("transformer.")),
        },
        {
            *("visual.class_embedding", "visual.ln_pre.weight", "visual.ln_pre.bias"),
            *("visual.ln_post.weight", "visual.ln_post.bias"),
            *(f"visual.{name}" for name in NO_DECAY if name.startswith("transformer.")),
        },
    ),
    "RN50": (
        {
            *("visual.convN.weight", "visual.layerN.N.convN.weight"),
            *("visual.layerN.N.downsample.0.weight", "visual.attnpool.positional_embedding"),
            *(f"visual.attnpool.{part}_proj.weight" for part in "qkvc"),
        },
        {
            *("visual.bnN.weight", "visual.bnN.bias"),
            *("visual.layerN.N.bnN.weight", "visual.layerN.N.bnN.bias"),
            *("visual.layerN.N.downsample.1.weight", "visual.layerN.N.downsample.1.bias"),
            *(f"visual.attnpool.{part}_proj.bias" for part in "qkvc"),
        },
    ),
}


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return CLIP(MODELS[name])


def kind(name: str) -> str:
    """A parameter's name without the numbers of layers."""
    return re.sub(r"(?<!downsample\.)\d+", "N", name)


@pytest.mark.parametrize("name", ["ViT-B/32", "RN50"])
def test_weights_decay_but_gains_and_biases_do_not(name):
    decay, other, scale = optim.parameter_groups(on_meta(name), 0.2)
    assert (decay["weight_decay"], other["weight_decay"], scale["weight_decay"]) == (0.2, 0, 0)
    assert {kind(name) for name, _ in decay["params"]} == DECAY | OF_VISION[name][0]
    others = [*other["params"], *scale["params"]]
    assert {kind(name) for name, _ in others} == NO_DECAY | OF_VISION[name][1]


@pytest.mark.parametrize("name", MODELS)
def test_the_groups_are_open_clips(name):
    def excluded(name, parameter):  # open_clip 3.3.0, open_clip_train/main.py
        words = ("bn", "ln", "bias", "logit_scale")
        return parameter.ndim < 2 or any(word in name for word in words)

    model = on_meta(name)
    decay, other, scale = optim.parameter_groups(model, 0.2)
    others = [*other["params"], *scale["params"]]
    assert {name for name, _ in others} == {
        name for name, parameter in model.named_parameters() if excluded(name, parameter)
    }
    assert len(decay["params"]) + len(others) == len(list(model.parameters()))


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(6, 5)


def with_gradients(model: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return model


@pytest.mark.parametrize("half", [False, True])
def test_steps_are_those_of_the_paper(half):
    model = small_model()
    optimizer = optim.adamw(model, beta2=0.98, eps=1e-6, half=half)
    expected = {name: p.detach().double() for name, p in model.named_parameters()}
    mean = {name: torch.zeros_like(p) for name, p in expected.items()}
    square = {name: torch.zeros_like(p) for name, p in expected.items()}
    for step in range(1, 20):
        rate = optim.learning_rate(step, 1e-2, 5, 25)
        with_gradients(model, step)
        for name, parameter in model.named_parameters():
            gradient = parameter.grad.double()
            mean[name] = 0.9 * mean[name] + 0.1 * gradient
            square[name] = 0.98 * square[name] + 0.02 * gradient**2
            divisor = (square[name] / (1 - 0.98**step)).sqrt() + 1e-6
            decay = 0.2 if name == "weight" else 0
            expected[name] = (1 - rate * decay) * expected[name]
            expected[name] -= rate * mean[name] / (1 - 0.9**step) / divisor
        optim.step(optimizer, rate)
    for name, parameter in model.named_parameters():
        tolerance = 1e-3 if half and name == "weight" else 1e-6
        torch.testing.assert_close(parameter.double(), expected[name], rtol=0, atol=tolerance)


def test_a_parameter_without_gradient_stays():
    for half in (False, True):
        model = small_model()
        optimizer = optim.adamw(model, beta2=0.98, eps=1e-6, half=half)
        before = model.weight.detach().clone()
        model.bias.grad = torch.ones_like(model.bias)
        optim.step(optimizer, 1e-2)
        assert torch.equal(model.weight, before)
        assert not torch.equal(model.bias, small_model().bias)


def test_half_weights_are_refused_with_moments_in_fp32():
    with torch.device("meta"):
        model = CLIP(MODELS["cpu-ViT-tiny/32"])
    halve_text_weights(model)
    with pytest.raises(UserError, match=r"positional_embedding is float16: .*--adam fp16"):
        optim.adamw(model, beta2=0.98, eps=1e-6)


@given(st.integers(1, 500), st.integers(1, 10_000), st.floats(1e-6, 1))
def test_the_rate_rises_to_its_peak_and_falls_to_zero(warmup, cosine, peak):
    steps = warmup + cosine
    rates = [optim.learning_rate(step, peak, warmup, steps) for step in range(steps + 1)]
    assert rates[0] == pytest.approx(peak / warmup)
    assert rates[warmup - 1] == rates[warmup] == max(rates) == peak
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rates[steps] == 0 < rates[steps - 1]
    halfway = optim.learning_rate(warmup + cosine, peak, warmup, warmup + 2 * cosine)
    assert halfway == pytest.approx(peak / 2)


def test_the_rate_is_open_clips():
    def of_open_clip(step, base, warmup, steps):  # open_clip_train/scheduler.py, cosine_lr
        if step < warmup:
            return base * (step + 1) / warmup
        done, all_steps = step - warmup, steps - warmup
        return 0.5 * (1 + math.cos(math.pi * done / all_steps)) * base

    for step in range(0, 10_000, 7):
        expected = of_open_clip(step, 5e-4, 2000, 10_000)
        assert optim.learning_rate(step, 5e-4, 2000, 10_000) == pytest.approx(expected, rel=1e-12)


def test_training_without_warm_up_begins_at_the_peak():
    assert optim.learning_rate(0, 5e-4, 0, 10) == 5e-4
    assert optim.learning_rate(10, 5e-4, 10, 10) == 0


def test_the_norm_is_that_of_all_gradients_together():
    model = with_gradients(small_model(), 1)
    everything = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    found = optim.gradient_norm(model.parameters())
    assert found.item() == pytest.approx(everything.double().norm().item(), rel=1e-6)
    model.bias.grad = None
    found = optim.gradient_norm(model.parameters())
    assert found.item() == pytest.approx(model.weight.grad.double().norm().item(), rel=1e-6)
    model.weight.grad = None
    assert optim.gradient_norm(model.parameters()) == 0


def test_the_norm_of_fp16_gradients_is_not_limited_to_fp16():
    model = small_model().half()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 60_000)
    found = optim.gradient_norm(model.parameters())
    assert found.item() == pytest.approx(60_000 * math.sqrt(35), rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_bad_gradient_shows_in_the_norm(bad):
    model = with_gradients(small_model(), 1)
    model.bias.grad[2] = bad
    assert not optim.gradient_norm(model.parameters()).isfinite()


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_clipping_and_unscaling_give_the_step_of_smaller_gradients(half, scale):
    stepped = []
    for largest, factor in ((0.5, scale), (None, 1.0)):
        model = with_gradients(small_model(), 1)
        optimizer = optim.adamw(model, beta2=0.98, eps=1e-2, half=half)
        norm = optim.gradient_norm(model.parameters()).item()
        for parameter in model.parameters():
            parameter.grad *= factor if largest else 0.5 / norm
        norm = optim.gradient_norm(model.parameters()).item() / factor
        optim.step(optimizer, 1e-2, optim.clip_multiplier(norm, largest) / factor)
        stepped.append(model.state_dict())
    for name, value in stepped[0].items():
        torch.testing.assert_close(value, stepped[1][name], rtol=0, atol=1e-7)


def test_a_norm_within_the_limit_changes_nothing():
    assert optim.clip_multiplier(0.9, 1.0) == optim.clip_multiplier(1e9, None) == 1
    assert optim.clip_multiplier(4.0, 1.0) == 0.25


def test_the_loss_scale_falls_at_once_and_rises_after_finite_steps():
    scale = optim.LossScale(8.0)
    values = []
    for finite in [False, True, True, True, True, False, True, True, True]:
        scale = scale.after(finite, patience=3)
        values.append(scale.value)
    assert values == [4, 4, 4, 8, 8, 4, 4, 4, 8]
    assert optim.LossScale(1.0).after(False).value == 1
    assert optim.LossScale(2.0**24, 1999).after(True).value == 2**24


@pytest.mark.parametrize("half", [False, True])
def test_a_saved_state_goes_on_with_the_same_bits(half):
    straight = small_model()
    optimizer = optim.adamw(straight, beta2=0.98, eps=1e-6, half=half)
    for step in range(6):
        if step == 3:
            resumed = small_model()
            resumed.load_state_dict(straight.state_dict())
            state = copy.deepcopy(optimizer.state_dict())  # torch's is the live one
            other = optim.adamw(resumed, beta2=0.98, eps=1e-6, half=half)
            other.load_state_dict(state)
        with_gradients(straight, step)
        optim.step(optimizer, 1e-2)
        if step >= 3:
            with_gradients(resumed, step)
            optim.step(other, 1e-2)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])
