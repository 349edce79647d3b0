"""Gradient checkpointing, and when the running statistics of a ResNet move."""

# ruff: noqa: E402 (what follows needs torch)

import copy

import pytest

torch = pytest.importorskip("torch", reason="no torch in this environment")
pytest.importorskip("open_clip", reason="no open_clip in this environment")
pytest.importorskip("transformers", reason="no transformers in this environment")

from benchmarks import models as peers
from tests.trainer.made_models import (
    TINY_RESNET,
    TINY_VIT,
    equal,
    gradients,
    random_model,
    tiny_models,
)
from trainer.clip import set_checkpointing
from trainer.resnet import (
    apply_collected,
    batch_norms,
    collecting,
    still,
    take_collected,
)


@tiny_models
@pytest.mark.parametrize("mode", ["at once", "collected"])
def test_checkpointing_changes_no_gradient_and_no_running_statistic(config, mode):
    images, tokens = peers.inputs(config, 0)
    plain = random_model(config)
    frugal = copy.deepcopy(plain)
    set_checkpointing(frugal, True)
    if mode == "at once":
        found = [gradients(model, images, tokens) for model in (plain, frugal)]
    else:
        found = []
        for model in (plain, frugal):
            with collecting(model):
                found.append(gradients(model, images, tokens))
            apply_collected(model, take_collected(model))
    assert equal(*found)
    assert equal(plain.state_dict(), frugal.state_dict())
    for norm in batch_norms(frugal):
        assert norm.statistics == "update"


@tiny_models
def test_checkpointing_keeps_fewer_tensors_for_the_backward_pass(config):
    images, _ = peers.inputs(config, 0)
    model, kept = random_model(config), []
    for on in (False, True):
        set_checkpointing(model, on)
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: saved.append(t.nbytes) or t, lambda t: t
        ):
            model.encode_image(images)
        kept.append(sum(saved))
    assert kept[1] < kept[0] / 2


def test_running_statistics_move_once_a_step_by_the_mean_over_micro_batches():
    model = random_model(TINY_RESNET)
    images = [peers.inputs(TINY_RESNET, seed)[0] for seed in range(3)]
    norm = model.visual.bn1
    before_mean, before_var = norm.running_mean.clone(), norm.running_var.clone()
    steps = norm.num_batches_tracked.item()
    with collecting(model):
        for micro_batch in images:
            model.encode_image(micro_batch)
    assert torch.equal(norm.running_mean, before_mean)
    inner = [model.visual.conv1(micro_batch) for micro_batch in images]
    means = torch.stack([x.mean(dim=(0, 2, 3)) for x in inner]).mean(dim=0)
    variances = torch.stack([x.var(dim=(0, 2, 3)) for x in inner]).mean(dim=0)
    apply_collected(model, take_collected(model))
    torch.testing.assert_close(norm.running_mean, 0.9 * before_mean + 0.1 * means)
    torch.testing.assert_close(norm.running_var, 0.9 * before_var + 0.1 * variances)
    assert norm.num_batches_tracked.item() == steps + 1


def test_sums_of_two_ranks_are_the_sums_of_one():
    one, two = (random_model(TINY_RESNET) for _ in range(2))
    images = [peers.inputs(TINY_RESNET, seed)[0] for seed in range(4)]
    with collecting(one):
        for micro_batch in images:
            one.encode_image(micro_batch)
    apply_collected(one, take_collected(one))
    sums = []
    for part in (images[:2], images[2:]):
        rank = random_model(TINY_RESNET)
        with collecting(rank):
            for micro_batch in part:
                rank.encode_image(micro_batch)
        sums.append(take_collected(rank))
    apply_collected(two, sums[0] + sums[1])
    for key, tensor in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[key], tensor)


def test_one_micro_batch_collected_is_one_step_of_torchs_batch_norm():
    ours, plain = random_model(TINY_RESNET), random_model(TINY_RESNET)
    images, _ = peers.inputs(TINY_RESNET, 0)
    with collecting(ours):
        features = ours.encode_image(images)
    apply_collected(ours, take_collected(ours))
    assert torch.equal(features, plain.encode_image(images))
    for key, tensor in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], tensor)


def test_a_second_forward_and_a_dropped_step_leave_no_trace():
    model = random_model(TINY_RESNET)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    images, _ = peers.inputs(TINY_RESNET, 0)
    with collecting(model):
        first = model.encode_image(images)
        with still(model):
            second = model.encode_image(images)
    assert torch.equal(first, second)
    assert take_collected(model)[-1] == 1
    assert take_collected(model).abs().sum() == 0
    assert equal(before, model.state_dict())


def test_a_vision_transformer_has_nothing_to_collect():
    model = random_model(TINY_VIT)
    with collecting(model):
        model.encode_image(peers.inputs(TINY_VIT, 0)[0])
    sums = take_collected(model)
    assert len(sums) == 0
    apply_collected(model, sums)


@pytest.mark.parametrize("mode", ["update", "collect"])
def test_a_compiled_checkpointed_block_of_a_resnet_counts_its_statistics_once(mode):
    plain = random_model(TINY_RESNET).visual.layer2[0]
    for norm in batch_norms(plain):
        norm.statistics = mode
    block, x = copy.deepcopy(plain), torch.randn(4, 32, 8, 8)
    block.recompute = True
    torch._dynamo.reset()
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    compiled(x).square().sum().backward()
    plain(x).square().sum().backward()
    assert equal(dict(plain.named_buffers()), dict(block.named_buffers()))
    for one, two in zip(plain.parameters(), block.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)
