import math
from argparse import Namespace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the trainer needs torch")

import torch.distributed as dist  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from benchmarks.loss import measure  # noqa: E402
from tests.trainer.ranks import run_ranks  # noqa: E402
from trainer import loss  # noqa: E402
from trainer.loss import contrastive_loss, loss_and_gradients  # noqa: E402

EMBED = 48
# How near a text is to its image, and exp(logit_scale): untrained, learning, trained, wrong.
STATES = [(0.0, 1.0), (0.0, 1 / 0.07), (0.3, 1 / 0.07), (0.6, 100.0), (-0.5, 100.0)]


def features(batch: int, nearness: float, seed: int = 0, embed: int = EMBED) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    image, text = torch.randn(2, batch, embed, generator=generator)
    image = F.normalize(image, dim=1)
    text = F.normalize(nearness * image + text / math.sqrt(embed), dim=1)
    return image, text


def one_process_fp64(image, text, scale, valid=None) -> tuple:
    """Value, gradients of image features, text features and scale, by the full matrix in fp64."""
    image, text, scale = (part.detach().double().requires_grad_() for part in (image, text, scale))
    kept = slice(None) if valid is None else valid
    logits = scale * image[kept] @ text[kept].T
    labels = torch.arange(len(logits))
    value = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    value.backward()
    return value.detach(), image.grad, text.grad, scale.grad


def assert_same(found, expected) -> None:
    """The issue's bounds: 1e-6 of the value, 1e-5 of the largest entry of a gradient."""
    assert abs(found[0] - expected[0]) <= 1e-6 * abs(expected[0])
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def with_gradients(image, text, scale, valid=None, **options) -> tuple:
    image, text, scale = (part.detach().requires_grad_() for part in (image, text, scale))
    value = contrastive_loss(image, text, scale, valid, **options)
    value.backward()
    return value.detach(), image.grad, text.grad, scale.grad


# --- one process --------------------------------------------------------------------------------


@pytest.mark.parametrize(("nearness", "scale"), STATES)
@pytest.mark.parametrize("masked", [False, True])
def test_value_and_gradients_are_those_of_the_full_matrix_in_fp64(nearness, scale, masked):
    image, text = features(300, nearness)
    scale = torch.tensor(scale)
    valid = torch.arange(300) % 7 != 2 if masked else None
    found = with_gradients(image, text, scale, valid, tile=128)
    assert_same(found, one_process_fp64(image, text, scale, valid))


@settings(max_examples=40)
@given(
    batch=st.integers(1, 40),
    tile=st.integers(1, 50),
    scale=st.floats(1, 100),
    broken=st.sets(st.integers(0, 39)),
    seed=st.integers(0, 2**30),
)
def test_any_tile_gives_the_loss_of_the_samples_that_are_not_broken(
    batch, tile, scale, broken, seed
):
    image, text = (part.double() for part in features(batch, 0.4, seed))
    scale = torch.tensor(scale, dtype=torch.float64)
    valid = torch.tensor([sample not in broken for sample in range(batch)])
    found = with_gradients(image, text, scale, valid, tile=tile)
    if not valid.any():
        assert all(not part.any() for part in found)
        return
    expected = one_process_fp64(image, text, scale, valid)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert not found[1][~valid].any()
    assert not found[2][~valid].any()


def test_the_gradients_are_the_derivatives_of_the_value():
    image, text = (part.double().requires_grad_() for part in features(7, 0.2, embed=5))
    scale = torch.tensor(14.3, dtype=torch.float64, requires_grad=True)
    valid = torch.tensor([True, True, False, True, True, True, True])
    assert torch.autograd.gradcheck(
        lambda *parts: contrastive_loss(*parts, valid, tile=3), (image, text, scale)
    )


def test_a_loss_near_zero_keeps_its_digits():
    image, text = features(64, 2.0)
    scale = torch.tensor(60.0)
    found, expected = with_gradients(image, text, scale), one_process_fp64(image, text, scale)
    assert 1e-13 < expected[0] < 1e-7
    assert abs(found[0] / expected[0] - 1) < 1e-4
    assert abs(found[3] / expected[3] - 1) < 1e-4


def test_opposite_pairs_at_the_largest_scale_do_not_overflow():
    image, _ = features(50, 0.0)
    scale = torch.tensor(100.0)
    assert_same(with_gradients(image, -image, scale), one_process_fp64(image, -image, scale))


def test_what_a_broken_sample_became_does_not_matter():
    image, text = features(20, 0.3)
    valid = torch.arange(20) != 4
    scale = torch.tensor(20.0)
    expected = with_gradients(image, text, scale, valid)
    image[4], text[4] = math.nan, math.inf
    for ours, theirs in zip(with_gradients(image, text, scale, valid), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_a_feature_that_is_not_finite_makes_the_loss_not_finite():
    image, text = features(20, 0.3)
    image[4, 0] = math.nan
    assert contrastive_loss(image, text, torch.tensor(20.0), tile=8).isnan()


def test_the_loss_is_fp32_inside_autocast_and_its_gradients_fit_the_features():
    image, text = (part.bfloat16().requires_grad_() for part in features(64, 0.3))
    scale = torch.tensor(100.0)
    with torch.autocast("cpu", torch.bfloat16):
        value = contrastive_loss(image, text, scale)
    value.backward()
    expected = one_process_fp64(image, text, scale)
    assert value.dtype == torch.float32
    assert abs(value - expected[0]) <= 1e-6 * expected[0]
    assert image.grad.dtype == torch.bfloat16
    assert (image.grad - expected[1]).abs().max() <= 2**-8 * expected[1].abs().max()


def test_products_are_exact_fp32_and_the_process_keeps_its_setting():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with loss.full_precision():
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
            assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_same_features_give_the_same_bits():
    image, text = features(200, 0.3)
    scale = torch.tensor(30.0)
    first, second = (with_gradients(image, text, scale, tile=64) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_gradients_of_cached_features_are_those_of_the_backward_pass():
    image, text = features(200, 0.3)
    scale = torch.tensor(30.0)
    value, *gradients = with_gradients(image, text, scale, tile=64)
    cached = loss_and_gradients(image, text, scale, tile=64)
    assert torch.equal(cached.value, value)
    for ours, theirs in zip((cached.image, cached.text, cached.scale), gradients, strict=True):
        assert torch.equal(ours, theirs)


def test_without_gradients_only_the_value_is_computed(monkeypatch):
    image, text = features(30, 0.3)
    scale = torch.tensor(30.0, requires_grad=True)
    expected = contrastive_loss(image, text, scale)
    monkeypatch.delattr(loss, "_gradients")
    with torch.no_grad():
        assert torch.equal(contrastive_loss(image, text, scale), expected)


def test_features_of_other_shapes_are_refused():
    image, text = features(8, 0.3)
    with pytest.raises(ValueError, match=r"\(8, 48\) and text features \(7, 48\)"):
        contrastive_loss(image, text[:7], torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"valid \(7,\): must be \[8\]"):
        contrastive_loss(image, text, torch.tensor(1.0), torch.ones(7, dtype=torch.bool))


# --- several ranks ------------------------------------------------------------------------------

SAMPLES = 48  # of the global batch, whatever the number of ranks


def global_batch(nearness: float) -> tuple:
    """Inputs of two linear towers, their weights, and a mask that leaves ranks unequal."""
    generator = torch.Generator().manual_seed(5)
    image = torch.randn(SAMPLES, EMBED, generator=generator)
    text = nearness * image + torch.randn(SAMPLES, EMBED, generator=generator)
    tower = torch.eye(EMBED) + torch.randn(EMBED, EMBED, generator=generator) / 10
    valid = torch.ones(SAMPLES, dtype=torch.bool)
    valid[[0, 1, 2, 5, 7, 40]] = False
    return image, text, tower, valid


def step(loss_of, image, text, tower, logit_scale) -> list:
    """Value and gradients of the shared tower and of logit_scale."""
    tower, logit_scale = tower.clone().requires_grad_(), logit_scale.clone().requires_grad_()
    images, texts = (F.normalize(part @ tower, dim=1) for part in (image, text))
    value = loss_of(images, texts, logit_scale.exp())
    value.backward()
    return [value.detach(), tower.grad, logit_scale.grad]


def on_each_rank(rank: int) -> dict:
    """Results by (world size, nearness, masked), of the ranks that take part in that world."""
    results = {}
    for world in (1, 2, 4):
        group = dist.new_group(list(range(world)))
        if rank >= world:
            continue
        own = slice(rank * SAMPLES // world, (rank + 1) * SAMPLES // world)
        for nearness, scale in ((0.0, 1 / 0.07), (0.4, 100.0)):
            image, text, tower, valid = global_batch(nearness)
            for mask in (None, valid[own]):
                loss_of = partial(contrastive_loss, valid_B=mask, group=group, tile=10)
                logit_scale = torch.tensor(scale).log()
                inputs = image[own], text[own], tower, logit_scale
                found = [step(loss_of, *inputs) for _ in range(2)]
                again = all(torch.equal(*pair) for pair in zip(*found, strict=True))
                results[f"{world} {nearness} {mask is not None}"] = [*found[0], again]
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    return run_ranks(on_each_rank, 4, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize(("nearness", "scale"), [(0.0, 1 / 0.07), (0.4, 100.0)])
@pytest.mark.parametrize("masked", [False, True])
def test_ranks_gradients_add_up_to_those_of_one_process(ranks, world, nearness, scale, masked):
    image, text, tower, valid = global_batch(nearness)

    def full_matrix(images, texts, scale):
        kept = valid if masked else slice(None)
        logits = scale * images[kept] @ texts[kept].T
        labels = torch.arange(len(logits))
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

    inputs = (part.double() for part in (image, text, tower, torch.tensor(scale).log()))
    expected = step(full_matrix, *inputs)
    parts = [ranks[rank][f"{world} {nearness} {masked}"] for rank in range(world)]
    for value, *_, again in parts:
        assert torch.equal(value, parts[0][0])
        assert again
    summed = [sum(part[place] for part in parts) for place in (1, 2)]
    assert_same([parts[0][0], *summed], expected)


# --- memory and time ----------------------------------------------------------------------------


def measured(rank: int, contestant: str, batch: int, embed: int) -> dict:
    options = {"scale": 14.3, "threads": 1, "device": "cpu"}
    return measure(Namespace(contestant=contestant, batch=batch, embed=embed, **options))


def in_processes_of_their_own(folder: Path, *size: int) -> tuple[dict, dict]:
    tiled, full = (
        run_ranks(measured, 1, folder, contestant, *size)[0]
        for contestant in ("tiled", "full matrix")
    )
    assert tiled["loss"] == pytest.approx(full["loss"], rel=1e-6)
    return tiled, full


def test_memory_is_a_tenth_of_the_full_matrix(tmp_path):
    tiled, full = in_processes_of_their_own(tmp_path, 4096, 32)
    assert full["peak_bytes"] > 3 * 4 * 4096**2
    assert tiled["peak_bytes"] <= full["peak_bytes"] / 10


@pytest.mark.long
def test_a_batch_of_16384_takes_a_tenth_of_the_memory_and_no_more_time(tmp_path):
    tiled, full = in_processes_of_their_own(tmp_path, 16_384, 512)
    assert tiled["peak_bytes"] <= full["peak_bytes"] / 10
    assert tiled["cpu_seconds"] <= full["cpu_seconds"]
