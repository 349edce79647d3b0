import copy
import io
import json
import math
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

torch = pytest.importorskip("torch", reason="the trainer needs torch")

from torch import nn  # noqa: E402
from torch.func import functional_call  # noqa: E402

from tests.trainer.lowbit_ranks import everything, on_each_rank, random_gradients  # noqa: E402
from tests.trainer.made_models import state_bytes  # noqa: E402
from tests.trainer.ranks import run_ranks  # noqa: E402
from trainer import optim  # noqa: E402
from trainer.clip import CLIP, create  # noqa: E402
from trainer.loss import contrastive_loss  # noqa: E402
from trainer.lowbit import (  # noqa: E402
    CHUNK,
    DROPPED,
    check_one_dtype,
    dice,
    dice_keys,
    halve_text_weights,
    round_to_half,
)
from trainer.tokenizer import tokenize  # noqa: E402
from trainer.zoo import MODELS, Model, TextConfig, ViTConfig  # noqa: E402
from wit.errors import UserError  # noqa: E402

ALL_DICE = torch.arange(2**DROPPED, dtype=torch.int32)

# --- dice ---------------------------------------------------------------------------------------


def one_die(low: int, high: int, index: int) -> int:
    """The same hash in Python's integers, as its 32 bits."""
    word = 2**32 - 1
    x = (index + low) & word
    x ^= x >> 16
    x = (x * 0x7FEB352D) & word
    x ^= high & word
    x ^= x >> 15
    x = (x * 0x846CA68B) & word
    return x ^ (x >> 16)


def bits_of(thrown) -> np.ndarray:
    return thrown.numpy().view(np.uint32)


@given(
    low=st.integers(-(2**31), 2**31 - 1),
    high=st.integers(-(2**31), 2**31 - 1),
    first=st.integers(0, 2**33),
)
def test_dice_are_a_function_of_keys_and_index_alone(low, high, first):
    expected = [one_die(low, high, first + index) for index in range(20)]
    assert bits_of(dice((low, high), first, 20, "cpu")).tolist() == expected


def test_dice_never_change_from_one_version_to_the_next():
    keys = dice_keys(7, 1000, "token_embedding.weight", "moments")
    assert keys == (-383340021, 512923151)
    expected = [one_die(*keys, 2**31 - 1 + index) for index in range(3)]
    assert bits_of(dice(keys, 2**31 - 1, 3, "cpu")).tolist() == expected
    assert expected == [2604847087, 371150707, 274117778]


def test_seed_step_name_and_purpose_each_give_other_dice():
    settings = [(0, 1, "a", "weight"), (1, 1, "a", "weight"), (0, 2, "a", "weight")]
    settings += [(0, 1, "b", "weight"), (0, 1, "a", "moments"), (0, 11, "a", "weight")]
    thrown = [tuple(dice(dice_keys(*each), 0, 4, "cpu").tolist()) for each in settings]
    assert len(set(thrown)) == len(settings)


def test_dice_are_uniform_and_independent_of_neighbours_and_of_the_next_step():
    """Both fields of 13 bits that moments use: chi-squared in 512 bins, of single dice, and in
    32 x 32 of pairs: neighbours, neighbouring rows, neighbouring steps, and the two moments'.
    """
    count, steps = 2**20, [1, 2]
    thrown = [bits_of(dice(dice_keys(3, step, "x", "moments"), 0, count, "cpu")) for step in steps]
    fields = [(word >> shift) & (2**DROPPED - 1) for word in thrown for shift in (0, DROPPED)]
    p_values = [stats.chisquare(np.bincount(field >> 4, minlength=512)).pvalue for field in fields]
    first, second, later, _ = fields
    pairs = [(first[:-1], first[1:]), (first[:-512], first[512:]), (first, later), (first, second)]
    for one, other in pairs:
        joint = np.bincount((one >> 8) * 32 + (other >> 8), minlength=1024)
        p_values.append(stats.chisquare(joint).pvalue)
    assert min(p_values) > 1e-4
    assert max(p_values) < 1 - 1e-4


def test_dice_of_one_element_are_uniform_over_steps():
    keys = [dice_keys(0, step, "x", "weight") for step in range(4000)]
    thrown = np.concatenate([bits_of(dice(each, 12_345, 1, "cpu")) for each in keys])
    assert stats.kstest(thrown / 2**32, "uniform").pvalue > 1e-4


# --- rounding -----------------------------------------------------------------------------------


@given(st.floats(-65504, 65504, width=32))
def test_the_mean_over_all_dice_is_the_number_itself(number):
    exact = torch.tensor(number)
    found = round_to_half(exact.expand(len(ALL_DICE)), ALL_DICE)
    low, high = found.min(), found.max()
    assert high == low or torch.nextafter(low, high) == high
    step = (high - low).item()
    allowed = max(step, 2.0**-24) / 2**DROPPED  # dice are not finer
    assert low.item() - allowed <= number <= high.item() + allowed
    assert abs(found.double().mean().item() - number) <= allowed


@given(st.integers(0, 2**16 - 1))
def test_what_fp16_can_hold_stays(bits):
    half = torch.tensor(bits, dtype=torch.int32).to(torch.int16).view(torch.float16)
    if half.isfinite():
        found = round_to_half(half.float().expand(len(ALL_DICE)), ALL_DICE)
        assert (found == half).all()


@pytest.mark.parametrize("size", [1e-7, 3e-6, 1e-3, 0.05, 1.0, 1000.0])
def test_rounding_with_real_dice_is_unbiased(size):
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(2**18, generator=generator) * size
    found = round_to_half(exact, dice(dice_keys(0, 1, "x", "weight"), 0, len(exact), "cpu"))
    error = (found.double() - exact.double()).numpy()
    assert error.any()
    assert stats.ttest_1samp(error, 0).pvalue > 1e-3


# --- the optimiser ------------------------------------------------------------------------------


class Matrix(nn.Module):
    def __init__(self, rows: int, columns: int, value: float, dtype=torch.float32):
        super().__init__()
        self.weight = nn.Parameter(torch.full((rows, columns), value, dtype=dtype))


def test_a_second_moment_that_should_fall_does_where_nearest_rounding_sticks():
    model = Matrix(64, 64, 0.0)
    optimizer = optim.adamw(model, beta2=0.999, eps=1e-8, half=True)
    model.weight.grad = torch.full_like(model.weight, 0.5)
    optim.step(optimizer, 0.0)
    state = optimizer.state[model.weight]
    state["exp_avg_sq_root"].fill_(2.0**15)
    state["exp_avg_sq_root_scale"].fill_(math.sqrt(0.5) * 2.0**-15)
    nearest = torch.tensor(0.5, dtype=torch.float16)
    for _ in range(1500):
        optim.step(optimizer, 0.0)
        nearest = (0.999 * nearest.float() + 0.001 * 0.5**2).half()
    root = state["exp_avg_sq_root"].double() * state["exp_avg_sq_root_scale"][:, None].double()
    exact = 0.25 + 0.25 * 0.999**1500
    assert (root**2).mean().item() == pytest.approx(exact, rel=2e-3)
    assert nearest > 1.2 * exact


def test_steps_smaller_than_half_of_what_fp16_can_tell_apart_add_up():
    model = Matrix(64, 64, 0.05, torch.float16)
    start = model.weight.detach().double().mean()
    optimizer = optim.adamw(model, beta2=0.98, eps=1e-6, weight_decay=0, half=True)
    model.weight.grad = torch.ones_like(model.weight)
    for _ in range(400):
        optim.step(optimizer, 5e-6)
    nearest = model.weight.new_tensor(0.05)
    assert (nearest.float() - 5e-6).half() == nearest
    moved = start - model.weight.double()
    assert moved.mean().item() == pytest.approx(400 * 5e-6, rel=0.02)
    assert model.weight.unique().numel() > 10


def test_moments_take_two_bytes_and_a_row_more():
    with torch.device("meta"):
        sizes = {name: p.shape for name, p in CLIP(MODELS["cpu-ViT-20M/16"]).named_parameters()}
    model = nn.Module()
    for name, shape in sizes.items():
        model.register_parameter(name.replace(".", "/"), nn.Parameter(torch.zeros(shape)))
    count = sum(p.numel() for p in model.parameters())
    taken = {}
    for half in (False, True):
        optimizer = optim.adamw(model, beta2=0.98, eps=1e-6, half=half)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optim.step(optimizer, 0.0)
        taken[half] = state_bytes(optimizer) / count
    assert 8 <= taken[False] < 8.001
    assert 4 < taken[True] < 4.06


def test_rows_of_very_different_size_keep_their_digits():
    model = Matrix(8, 16, 0.0)
    optimizer = optim.adamw(model, beta2=0.98, eps=0.0, half=True)
    sizes = 10.0 ** torch.arange(-16, 16, 4)
    model.weight.grad = sizes[:, None].expand(8, 16).clone()
    for _ in range(3):
        optim.step(optimizer, 1e-3)
    torch.testing.assert_close(
        model.weight, torch.full_like(model.weight, -3e-3), rtol=2e-3, atol=0
    )


def test_any_chunk_of_rows_gives_the_same_bits(monkeypatch):
    def trained():
        model = create(MODELS["cpu-RN-tiny"], seed=0)
        halve_text_weights(model)
        optimizer = optim.adamw(model, beta2=0.98, eps=1e-6, half=True)
        for step in range(2):
            random_gradients(model, step)
            optim.step(optimizer, 1e-3)
        return everything(model, optimizer)

    whole = trained()
    monkeypatch.setitem(CHUNK, "cpu", 200_000)
    assert same_bits(trained(), whole)


def same_bits(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(
        value.dtype == second[key].dtype and torch.equal(value, second[key])
        for key, value in first.items()
    )


def test_a_state_dict_keeps_the_moments_of_half_weights_and_their_scales():
    model = Matrix(5, 7, 0.05, torch.float16)
    optimizer = optim.adamw(model, beta2=0.98, eps=1e-6, half=True)
    random_gradients(model, 0)
    optim.step(optimizer, 1e-3)
    other_model = copy.deepcopy(model)
    other = optim.adamw(other_model, beta2=0.98, eps=1e-6, half=True)
    saved = io.BytesIO()
    torch.save(optimizer.state_dict(), saved)
    saved.seek(0)
    other.load_state_dict(torch.load(saved))
    assert same_bits(everything(model, optimizer), everything(other_model, other))


def test_only_matrices_of_the_text_encoder_become_half():
    with torch.device("meta"):
        model = CLIP(MODELS["cpu-ViT-tiny/32"])
    halved = set(halve_text_weights(model))
    for name, parameter in model.named_parameters():
        text = not name.startswith("visual.") and parameter.ndim == 2
        assert (name in halved) == (parameter.dtype == torch.float16) == text
    assert {"token_embedding.weight", "positional_embedding", "text_projection"} <= halved


def test_a_group_of_two_dtypes_is_refused_before_fsdp2_refuses_it():
    with torch.device("meta"):
        model = CLIP(MODELS["cpu-ViT-tiny/32"])
    block = "transformer.resblocks.0"
    check_one_dtype(block, model.get_submodule(block).named_parameters())
    halve_text_weights(model)
    with pytest.raises(UserError, match=rf"^{block}: .*\(float32\) and .*\(float16\); .* use DDP$"):
        check_one_dtype(block, model.get_submodule(block).named_parameters())


# --- learning -----------------------------------------------------------------------------------

SMALL = Model(
    "small", 64, ViTConfig(64, 32, 64, 2, 2), TextConfig(64, 2, 2), 1e-3, beta2=0.98, eps=1e-6
)
LOSS_SCALE = 2.0**12


def flickr8k(folder, pairs: int) -> tuple:
    """Pictures at 64 px, fp32 [n, 3, 64, 64], and a caption of each: ids [n, 16] of those that
    occur, renumbered without changing their order.
    """
    pictures, texts = [], []
    with tarfile.open(folder / "images" / "flickr8k_train_128.tar") as tar:
        captions = json.load(tar.extractfile("captions.json"))
        for member in tar.getmembers()[:pairs]:
            name = member.name.removeprefix("images/")
            if name in captions:
                picture = Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB")
                pictures.append(np.asarray(picture.resize((64, 64), Image.Resampling.BICUBIC)))
                texts.append(captions[name][0])
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    ids, tokens = np.unique(tokenize(texts, 16)[0], return_inverse=True)
    return images, torch.from_numpy(tokens.reshape(len(texts), 16)), len(ids)


def train(images, tokens, words: int, steps: int, half: bool) -> list[float]:
    """The losses of a small CLIP, computed in fp32 whatever its weights and moments are kept in."""
    text = replace(SMALL.text, context=tokens.shape[1], vocabulary=words)
    model = create(replace(SMALL, text=text), seed=0)
    if half:
        halve_text_weights(model)
    optimizer = optim.adamw(model, SMALL.beta2, SMALL.eps, half=half)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for step in range(steps):
        batch = torch.randint(len(images), (64,), generator=generator)
        weights = {name: parameter.float() for name, parameter in model.named_parameters()}
        features = functional_call(model, weights, (images[batch], tokens[batch]))
        loss = contrastive_loss(*features)
        model.zero_grad()
        (loss * LOSS_SCALE).backward()
        norm = optim.gradient_norm(model.parameters()).item() / LOSS_SCALE
        rate = optim.learning_rate(step, SMALL.learning_rate, min(steps // 4, 200), steps)
        optim.step(optimizer, rate, optim.clip_multiplier(norm, 1.0) / LOSS_SCALE)
        model.clamp_logit_scale()
        losses.append(loss.item())
    return losses


def smoothed(losses: list[float], window: int) -> np.ndarray:
    return np.array(losses).reshape(-1, window).mean(1)


def test_the_loss_with_half_precision_follows_that_of_fp32(shared_data):
    data = flickr8k(shared_data, 500)
    exact, half = (smoothed(train(*data, 50, half), 10) for half in (False, True))
    assert exact[-1] < exact[0] - 0.3
    assert np.abs(half / exact - 1).max() < 0.01


@pytest.mark.long
def test_over_2000_steps_the_loss_with_half_precision_follows_that_of_fp32(shared_data):
    data = flickr8k(shared_data, 7498)
    exact, half = (smoothed(train(*data, 2000, half), 100) for half in (False, True))
    assert exact[-1] < 0.5 * exact[0]
    # Of the loss's fall: two fp32 runs whose weights begin 1 % apart are 1.6 % of it apart, too.
    assert np.abs(half - exact).max() < 0.01 * (exact[0] - exact[-1])


# --- ranks --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    return run_ranks(on_each_rank, 2, tmp_path_factory.mktemp("ranks"))


def test_replicas_stay_the_same_bit_by_bit(ranks):
    first, second = (rank["replicas"] for rank in ranks)
    assert same_bits(first, second)
    start = create(MODELS["cpu-ViT-tiny/32"], seed=0).token_embedding.weight
    assert first["token_embedding.weight"].dtype == torch.float16
    assert (first["token_embedding.weight"] - start).abs().max() > 1e-3


def test_shards_have_the_bits_of_the_whole_also_through_a_checkpoint(ranks):
    for rank in ranks:
        assert same_bits(rank["shards"], rank["whole"])
        norms = torch.stack(rank["norms"])
        torch.testing.assert_close(norms[2:], norms[:2])
