"""What a run says it will cost is what PyTorch itself counts."""

import pytest

torch = pytest.importorskip("torch", reason="the trainer's install has torch: [train]")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from tests.trainer.made_models import state_bytes  # noqa: E402
from trainer import cost, optim  # noqa: E402
from trainer.clip import CLIP, create, set_checkpointing  # noqa: E402
from trainer.lowbit import halve_text_weights  # noqa: E402
from trainer.zoo import MODELS, PAPER  # noqa: E402

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", [model.name for model in PAPER])
@pytest.mark.parametrize("length", [16, 77])
def test_operations_are_those_of_torchs_counter(name, length):
    model = MODELS[name]
    with torch.device("meta"):
        clip = CLIP(model).eval()
        side = model.vision.resolution
        images = torch.empty(1, 3, side, side)
        tokens = torch.zeros(1, length, dtype=torch.int64)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        clip(images, tokens, None, torch.arange(length, device="meta"))
    assert cost.forward_flops(model, length) == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("name", ["cpu-ViT-20M/16", "cpu-RN-tiny"])
@pytest.mark.parametrize("recompute", [False, True])
def test_activations_are_the_bytes_that_a_real_pass_keeps(name, recompute):
    model = create(MODELS[name], 0)
    set_checkpointing(model, recompute)
    side, kept = model.config.vision.resolution, {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no other gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # A text ends at its greatest id, so these have 77 tokens.
        model(torch.zeros(4, 3, side, side), torch.arange(77).expand(4, -1))
    measured = sum(storage.nbytes() for storage in kept.values())
    expected = cost.activation_bytes(model.config, 4, CPU, "fp32", recompute, 0)
    assert expected == pytest.approx(measured, rel=0.02)


def test_patch_dropout_and_half_precision_take_less():
    model = MODELS["ViT-B/32"]
    whole = cost.activation_bytes(model, 64, CPU, "fp32", False, 0)
    assert cost.activation_bytes(model, 64, CPU, "bf16", False, 0) < 0.75 * whole
    assert cost.activation_bytes(model, 64, CPU, "fp32", False, 12) < 0.75 * whole


@pytest.mark.parametrize("half", [False, True])
def test_weights_gradients_and_moments_are_what_a_step_leaves(half):
    model = create(MODELS["cpu-ViT-tiny/32"], 0)
    matrices = cost.text_matrices(model)
    if half:
        halve_text_weights(model)
    optimizer = optim.adamw(model, 0.98, 1e-6, half=half)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optim.step(optimizer, 1e-3)
    found = state_bytes(optimizer)
    found += 2 * sum(p.numel() * p.element_size() for p in model.parameters())
    kind = "fp16" if half else "fp32"
    count = sum(p.numel() for p in model.parameters())
    assert cost.training_bytes(count, matrices, kind, kind) == pytest.approx(found, rel=0.03)
