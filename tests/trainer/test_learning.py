"""It learns as open_clip does: from equal weights and batches, equal losses step after step.

Ours is `wit train` as a user runs it. Theirs is open_clip's model, initialisation, normalisation,
loss, schedule and the loop of its own trainer; it has the pictures and texts that our loader gave.
"""

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the trainer's install has torch: [train]")
open_clip = pytest.importorskip("open_clip", reason="open_clip is with the peers: [peers]")

from open_clip_train.scheduler import cosine_lr  # noqa: E402
from open_clip_train.train import train_one_epoch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torchvision.transforms import Normalize  # noqa: E402

from tests.trainer.made_models import TINY_RESNET, TINY_VIT  # noqa: E402
from tests.trainer.made_shards import write_shard  # noqa: E402
from trainer.batches import Ahead, Part, assemble, decoder  # noqa: E402
from trainer.cache import Cache  # noqa: E402
from trainer.convert import OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, to_open_clip  # noqa: E402
from trainer.index import read_index  # noqa: E402
from trainer.loader import Loader  # noqa: E402
from trainer.order import Order  # noqa: E402
from trainer.train import main  # noqa: E402
from trainer.zoo import Model  # noqa: E402

PICTURES, BATCH, LANES, EPOCHS, SEED = 660, 32, 8, 5, 3
STEPS = 100  # five epochs of twenty batches; twenty pictures of each epoch are in none
SHARD = 220
WARMUP, DECAY, CLIP_NORM = 10, 0.2, 1.0


@pytest.fixture(scope="module")
def data(shared_data, tmp_path_factory) -> Path:
    """Shards of real photographs with five captions each."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "shards").mkdir()
    with tarfile.open(shared_data / "images" / "flickr8k_train_128.tar") as tar:
        captions = json.load(tar.extractfile("captions.json"))
        names = sorted(captions)[:PICTURES]
        pictures = [tar.extractfile(f"images/{name}").read() for name in names]
    entries = []
    for shard, start in enumerate(range(0, PICTURES, SHARD)):
        cut = slice(start, start + SHARD)
        texts = [captions[name] for name in names[cut]]
        entries.append(
            write_shard(
                folder / "shards", f"{shard:05d}", SHARD, texts=texts, pictures=pictures[cut]
            )
        )
    manifest = {"format": 1, "folder": "shards", "shards": entries}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def fresh_open_clip(config: Model, folder: Path) -> torch.nn.Module:
    """open_clip's model as it begins; saved in a folder as open_clip saves."""
    torch.manual_seed(SEED)
    told = to_open_clip(config)
    model = open_clip.CLIP(**told["model_cfg"], output_dict=True)
    folder.mkdir()
    (folder / OPEN_CLIP_CONFIG).write_text(json.dumps(told))
    save_file(model.state_dict(), folder / OPEN_CLIP_WEIGHTS)
    return model


def losses_of_ours(config: Model, data: Path, init: Path, out: Path) -> np.ndarray:
    """float64 [steps]: what `wit train` logs."""
    flags = {
        **{"model": config.name, "init": init, "out": out, "seed": SEED, "crop": "resized"},
        **{"epochs": EPOCHS, "batch": BATCH, "lanes": LANES, "warmup": WARMUP, "log-steps": 1},
        **{"learning-rate": config.learning_rate, "weight-decay": DECAY, "clip-norm": CLIP_NORM},
        "threads": 1,
    }
    assert main([str(data), *(f"--{name}={value}" for name, value in flags.items())]) == 0
    lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return np.array([line["loss"] for line in lines if line["kind"] == "train"])


def parts(config: Model, data: Path, cache: Path) -> list[Part]:
    """What our loader gives a run: pixels and whole rows of tokens."""
    index = read_index([str(data)])
    make = decoder(SEED, config.vision.resolution, "resized")
    order = Order(index.samples, SEED, 0, LANES)
    loader = Loader(Cache(index, str(cache), 1 << 30), order, 0, BATCH, EPOCHS, make=make)
    given = Ahead(loader, lambda batch: assemble(batch, SEED, config.vision.resolution))
    try:
        return [next(given) for _ in range(STEPS)]
    finally:
        given.close()


class Batches(list):
    """Pictures and texts as open_clip's trainer takes them: all steps of a run as one epoch."""

    def __init__(self, given: list[Part]) -> None:
        normalise = Normalize(open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
        super().__init__(
            (normalise(part.images.permute(0, 3, 1, 2) / 255), torch.from_numpy(part.tokens))
            for part in given
        )
        self.num_batches = self.num_samples = len(given)


def losses_of_open_clip(config: Model, model: torch.nn.Module, given: list[Part]) -> np.ndarray:
    """float64 [steps]: what open_clip's trainer logs."""
    # As open_clip_train/main.py has it, where it is no function of its own.
    named = list(model.named_parameters())
    plain = [n for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in named if n in plain], "weight_decay": 0.0},
            {"params": [p for n, p in named if n not in plain], "weight_decay": DECAY},
        ],
        lr=config.learning_rate,
        betas=(0.9, config.beta2),
        eps=config.eps,
    )
    args = SimpleNamespace(
        **{"device": "cpu", "precision": "fp32", "rank": 0, "world_size": 1, "log_local": False},
        **{"batch_size": BATCH, "accum_freq": 1, "grad_clip_norm": CLIP_NORM},
        **{"log_every_n_steps": 1, "skip_scheduler": False},
        **{"distill": False, "horovod": False, "wandb": False},
    )
    logged: dict[int, float] = {}

    def add_scalar(name: str, value: float, step: int) -> None:
        if name == "train/loss":
            logged[step] = value

    train_one_epoch(
        model,
        {"train": SimpleNamespace(dataloader=Batches(given), set_epoch=lambda epoch: None)},
        open_clip.ClipLoss(cache_labels=True),
        epoch=0,
        optimizer=optimizer,
        scaler=None,
        scheduler=cosine_lr(optimizer, config.learning_rate, WARMUP, STEPS),
        dist_model=None,
        args=args,
        tb_writer=SimpleNamespace(add_scalar=add_scalar),
    )
    return np.array([logged[step] for step in range(STEPS)])


def follows(config: Model, data: Path, folder: Path) -> None:
    """Asserts that each of the losses equals open_clip's, and that they fall."""
    model = fresh_open_clip(config, folder / "init")
    ours = losses_of_ours(config, data, folder / "init", folder / "run")
    given = parts(config, data, folder / "cache")
    theirs = losses_of_open_clip(config, model, given)
    assert len(ours) == STEPS
    assert theirs[-10:].mean() < theirs[:10].mean() - 0.3
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)


def test_a_hundred_losses_of_a_vision_transformer_equal_those_of_open_clip(data, tmp_path):
    follows(TINY_VIT, data, tmp_path)


@pytest.mark.long
def test_a_hundred_losses_of_a_resnet_equal_those_of_open_clip(data, tmp_path):
    # At 1e-3 the last bit of a weight is 0.02 of the loss after a hundred steps, in open_clip too.
    follows(replace(TINY_RESNET, learning_rate=1e-4), data, tmp_path)
