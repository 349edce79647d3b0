"""A step of small micro-batches, on one rank or many, is the step of the whole batch."""

import pytest

torch = pytest.importorskip("torch", reason="the trainer's install has torch: [train]")

from tests.trainer.accumulate_ranks import gradients, on_rank  # noqa: E402
from tests.trainer.ranks import run_ranks  # noqa: E402

VIT, RESNET = "cpu-ViT-tiny/32", "cpu-RN-tiny"


def assert_close(found: dict, expected: dict, share: float) -> None:
    """Within `share` of the largest of each tensor; keys' biases have no gradient but rounding."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        largest = value.double().abs().max().item()
        difference = (found[key].double() - value.double()).abs().max().item()
        assert difference <= share * largest + 1e-8, key


def test_eight_micro_batches_have_the_gradient_of_one_of_1024():
    """A ViT has no statistics of a batch, so the cut does not matter; the scale's gradient too."""
    whole = gradients(VIT, 1024, 1024)
    parts = gradients(VIT, 1024, 128)
    assert_close(parts, whole, 1e-5)
    assert whole["logit_scale"].abs() > 1e-4  # not a comparison of zeros


def test_without_cached_features_it_would_be_another_gradient():
    """The loss of eight batches of 128 is not that of one of 1,024: what users of others get."""
    whole, small = gradients(VIT, 1024, 1024), gradients(VIT, 128, 128)
    assert abs(whole["loss"] - small["loss"]) > 1


def test_eight_micro_batches_of_a_resnet_are_one_on_each_of_eight_ranks(tmp_path):
    """Statistics are a micro-batch's on both sides; running ones move by the mean, once."""
    alone = gradients(RESNET, 1024, 128)
    for found in run_ranks(on_rank, 8, tmp_path, RESNET, 1024, 128, "ddp"):
        assert_close(found, alone, 2e-5)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_ranks_with_several_micro_batches_each_do_the_same(tmp_path, sharding):
    for found in run_ranks(on_rank, 2, tmp_path, VIT, 64, 8, sharding):
        assert_close(found, gradients(VIT, 64, 64), 1e-5)


minute = pytest.mark.long  # of the compiler


@pytest.mark.parametrize(
    ("name", "recompute"),
    [
        (VIT, True),
        pytest.param(VIT, False, marks=minute),
        pytest.param(RESNET, True, marks=minute),
        pytest.param(RESNET, False, marks=minute),
    ],
)
def test_compiled_blocks_have_the_same_gradients(name, recompute):
    """With texts of several lengths, so that compiled code is met with other shapes."""
    torch._dynamo.reset()
    compiled = gradients(name, 48, 12, recompute=recompute, compiled=True)
    assert_close(compiled, gradients(name, 48, 12), 1e-4)


@minute
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", [VIT, RESNET])
def test_compiled_blocks_on_two_ranks_have_the_same_gradients(tmp_path, name, sharding):
    for found in run_ranks(on_rank, 2, tmp_path, name, 48, 12, sharding, True, True):
        assert_close(found, gradients(name, 48, 12), 1e-4)
