"""A run: the same weights however often it is stopped, the same batches on any number of ranks."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the trainer's install has torch: [train]")

from PIL import Image  # noqa: E402

from tests.trainer.made_shards import write_shard  # noqa: E402
from trainer.config import parse, to_toml  # noqa: E402
from trainer.parallel import World  # noqa: E402
from trainer.train import main, train  # noqa: E402
from wit.errors import UserError  # noqa: E402

MODEL = ["--model", "cpu-ViT-tiny/32", "--batch", "16", "--lanes", "4", "--warmup", "2"]
RUN = [*MODEL, "--epochs", "3", "--threads", "1", "--log-steps", "1"]
STEPS = 9  # three epochs of 53 samples in batches of 16
WORDS = ["a", "red", "green", "blue", "round", "square", "dog", "cat", "house", "tree", "on"]


def jpeg(number: int) -> bytes:
    noise = np.random.default_rng(number).integers(0, 256, (9, 11, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((80, 70)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Three shards of unequal size; one picture of the second is broken."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "shards").mkdir()
    entries = []
    for shard, count in enumerate((20, 3, 30)):
        pictures = [jpeg(100 * shard + i) for i in range(count)]
        if shard == 1:
            pictures[1] = pictures[1][:200]
        texts = [" ".join(random.Random(f"{shard} {i}").sample(WORDS, 4)) for i in range(count)]
        entries.append(
            write_shard(folder / "shards", f"{shard:05d}", count, texts=texts, pictures=pictures)
        )
    manifest = {"format": 1, "folder": "shards", "shards": entries}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """A run that nothing stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    torch.set_num_threads(1)
    assert main([str(data), "--out", str(out), *RUN]) == 0
    return out


def weights(out: Path, step: int = STEPS) -> bytes:
    return (out / "checkpoints" / f"{step:010d}" / "model.safetensors").read_bytes()


def losses(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}


def test_it_counts_every_sample_and_its_loss_falls(whole):
    facts = json.loads((whole / "checkpoints" / f"{STEPS:010d}" / "run.json").read_text())
    progress = facts["progress"]
    assert progress["step"] == STEPS
    assert progress["epoch"] == 3
    assert progress["pairs"] + progress["broken"] + progress["dropped"] == 3 * 53
    assert progress["dropped"] == 3 * 5
    assert 1 <= progress["broken"] <= 3
    found = losses(whole)
    assert list(found) == list(range(1, STEPS + 1))
    assert found[STEPS] < found[1]


@pytest.mark.parametrize("parts", [[4], [1, 5], [3, 3]])
def test_stopped_and_continued_it_has_the_same_weights_bit_by_bit(data, whole, tmp_path, parts):
    out = tmp_path / "run"
    for steps in parts:
        main([str(data), "--out", str(out), *RUN, "--stop-after", str(steps)])
    main([str(data), "--out", str(out), *RUN])
    assert weights(out) == weights(whole)
    assert losses(out) == losses(whole)


def test_killed_at_any_moment_it_ends_with_the_same_weights(data, whole, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "trainer", str(data), "--out", str(out), *RUN]
    command += ["--save-steps", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for at in (2, 5):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
        until = time.monotonic() + 120
        while process.poll() is None and not _has(out, at):
            assert time.monotonic() < until
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert weights(out) == weights(whole)


def _has(out: Path, step: int) -> bool:
    log = out / "log.jsonl"
    return log.exists() and any(f'"step": {step},' in line for line in log.open())


def test_sigterm_writes_a_checkpoint_of_the_step_under_way(data, whole, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "trainer", str(data), "--out", str(out), *RUN]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    while not _has(out, 1) and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0
    if not (out / "checkpoints" / f"{STEPS:010d}").exists():
        assert "the same command continues" in said
        assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert weights(out) == weights(whole)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_train_on_the_same_batches_to_the_same_losses(data, whole, tmp_path, ranks):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
    command += ["--master-addr=127.0.0.1", f"--master-port={29_500 + ranks}", "-m", "trainer"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*command, str(data), "--out", str(out), *RUN], env=environment, check=False
    )
    assert done.returncode == 0
    alone = losses(whole)
    for step, loss in losses(out).items():
        assert loss == pytest.approx(alone[step], rel=2e-5), step


def test_a_run_begun_alone_goes_on_with_two_ranks(data, whole, tmp_path):
    out = tmp_path / "run"
    micro = ["--micro-batch", "8"]
    main([str(data), "--out", str(out), *RUN, *micro, "--stop-after", "5"])
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--master-addr=127.0.0.1", "--master-port=29511", "-m", "trainer"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command += [str(data), "--out", str(out), *RUN, *micro]
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    for step, loss in losses(out).items():
        assert loss == pytest.approx(losses(whole)[step], rel=2e-5), step


def test_changed_shards_are_refused_in_the_middle_of_an_epoch(data, tmp_path):
    out = tmp_path / "run"
    main([str(data), "--out", str(out), *RUN, "--stop-after", "1"])
    with pytest.raises(UserError, match="the shards have changed"):
        main([str(data), str(data / "shards"), "--out", str(out), *RUN])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--batch", "64"], "fewer than one batch"),
        (["--batch", "18"], "no multiple of --lanes"),
        (["--micro-batch", "5"], "no multiple of --micro-batch"),
        (["--text-weights", "fp16"], "--adam fp16"),
        (["--patch-dropout", "1.5"], "a share below 1"),
    ],
)
def test_what_cannot_work_is_one_line(data, tmp_path, options, line):
    with pytest.raises(UserError, match=line):
        main([str(data), "--out", str(tmp_path / "run"), *RUN, *options])


def test_another_model_in_a_runs_folder_is_refused(data, whole):
    options = [*RUN, "--model", "cpu-RN-tiny"]
    with pytest.raises(UserError, match="--model cpu-ViT-tiny/32, now cpu-RN-tiny"):
        main([str(data), "--out", str(whole), *options])


def test_no_space_for_a_checkpoint_is_one_line_and_the_one_before_stands(
    data, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    main([str(data), "--out", str(out), *RUN, "--stop-after", "2"])

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.checkpoint.dcp.save", full)
    with pytest.raises(UserError, match="no space for the checkpoint"):
        main([str(data), "--out", str(out), *RUN])
    monkeypatch.undo()
    main([str(data), "--out", str(out), *RUN])
    assert (out / "checkpoints" / f"{STEPS:010d}").exists()


def test_steps_without_finite_gradients_change_nothing_and_end_the_run(data, tmp_path):
    options = ["--learning-rate", "1e30", "--most-skipped", "3", "--warmup", "1"]
    with pytest.raises(UserError, match="3 steps in a row without finite gradients"):
        main([str(data), "--out", str(tmp_path / "run"), *RUN, *options])


def test_a_configuration_is_read_back_as_it_was_written(data, tmp_path):
    config = parse([str(data), "--out", str(tmp_path), *RUN])
    path = tmp_path / "given.toml"
    path.write_text(to_toml(config))
    assert parse(["--config", str(path)]) == config
    assert parse(["--config", str(path), "--seed", "7"]).seed == 7


@pytest.mark.parametrize(
    "options",
    [
        ["--patch-dropout", "0.5"],
        ["--adam", "fp16"],
        ["--adam", "fp16", "--text-weights", "fp16"],
        ["--recompute", "--micro-batch", "4"],
        ["--precision", "bf16"],
        ["--precision", "fp16"],
        ["--crop", "resized", "--clip-norm", "0.5"],
        ["--model", "cpu-RN-tiny", "--micro-batch", "8"],
    ],
)
def test_with_each_saving_it_continues_bit_by_bit(data, tmp_path, options):
    once, twice = tmp_path / "once", tmp_path / "twice"
    short = [*RUN, "--epochs", "1", *options]
    config = parse([str(data), "--out", str(once), *short])
    train(config, World(0, 1, 0, 1, torch.device("cpu")))
    main([str(data), "--out", str(twice), *short, "--stop-after", "2"])
    main([str(data), "--out", str(twice), *short])
    assert weights(once, 3) == weights(twice, 3)
