"""A run: the same weights however often it is stopped, the same batches on any number of ranks."""

import io
import json
import os
import random
import shutil
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
from trainer.evaluate.weights import load_model, weights_of  # noqa: E402
from trainer.options import parse, to_toml  # noqa: E402
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


def logged(out: Path, kind: str = "train") -> dict[int, dict]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines if line["kind"] == kind}


def losses(out: Path) -> dict[int, float]:
    return {step: line["loss"] for step, line in logged(out).items()}


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
    """However often it is sent: Slurm sends it to all processes, and torchrun passes it on."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "trainer", str(data), "--out", str(out), *RUN]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    while not _has(out, 1) and process.poll() is None:
        time.sleep(0.005)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.02)
    said = process.communicate(timeout=60)[1]
    ended = (out / "checkpoints" / f"{STEPS:010d}").exists()
    # Not 0 for what has not ended, so that what follows `&&` does not run.
    assert process.returncode == (0 if ended else 128 + signal.SIGTERM)
    if not ended:
        assert "the same command continues" in said
        assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert weights(out) == weights(whole)


def torchrun(ranks: int, *options: str) -> None:
    """A run of several ranks on this machine, to its end."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "-m", "trainer"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run([*command, *options], env=environment, check=True)


@pytest.mark.parametrize(("ranks", "sharding"), [(2, "ddp"), (4, "fsdp")])
def test_ranks_train_on_the_same_batches_to_the_same_losses(data, whole, tmp_path, ranks, sharding):
    out = tmp_path / "run"
    torchrun(ranks, str(data), "--out", str(out), *RUN, "--sharding", sharding)
    alone = losses(whole)
    assert losses(out).keys() == alone.keys()
    for step, loss in losses(out).items():
        assert loss == pytest.approx(alone[step], rel=2e-5), step


def test_a_run_begun_alone_goes_on_sharded_and_ends_alone(data, whole, tmp_path):
    out = tmp_path / "run"
    options = [str(data), "--out", str(out), *RUN, "--micro-batch", "8"]
    main([*options, "--stop-after", "3"])
    torchrun(2, *options, "--sharding", "fsdp", "--stop-after", "3")
    main(options)
    assert losses(out).keys() == losses(whole).keys()
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
        (["--text-weights", "fp16", "--adam", "fp16"], "--precision bf16"),
        (["--patch-dropout", "1.5"], "a share below 1"),
        (["--crop", "resized", "--crop-area", "0"], "a share above 0"),
        (["--crop-area", "0.4"], "add --crop resized, or --crop-area 0.9"),
    ],
)
def test_what_cannot_work_is_one_line(data, tmp_path, options, line):
    with pytest.raises(UserError, match=line):
        main([str(data), "--out", str(tmp_path / "run"), *RUN, *options])


def test_a_command_that_was_refused_can_be_corrected(data, whole, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(UserError, match="fewer than one batch"):
        main([str(data), "--out", str(out), *RUN, "--batch", "64"])
    main([str(data), "--out", str(out), *RUN])
    assert weights(out) == weights(whole)


def test_shards_may_change_between_two_epochs(data, tmp_path):
    out = tmp_path / "run"
    main([str(data), "--out", str(out), *RUN, "--stop-after", "3"])
    main([str(data), str(data / "manifest.json"), "--out", str(out), *RUN])
    # Two more epochs of 106 samples, six steps each.
    assert list(losses(out)) == list(range(1, 3 + 2 * 6 + 1))
    assert logged(out)[15]["learning_rate"] > 0


def test_of_epochs_long_past_only_the_weights_stay(data, tmp_path):
    out = tmp_path / "run"
    main([str(data), "--out", str(out), *RUN, "--keep", "1"])
    kept = {step: sorted(os.listdir(out / "checkpoints" / f"{step:010d}")) for step in (3, 6, 9)}
    assert kept[3] == kept[6] == ["model.safetensors", "run.json"]
    assert ".metadata" in kept[9]
    assert load_model(weights_of(str(out), 3))[0].config.name == "cpu-ViT-tiny/32"


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
        ["--adam", "fp16", "--text-weights", "fp16", "--precision", "bf16"],
        ["--recompute", "--micro-batch", "4"],
        ["--precision", "bf16"],
        ["--precision", "fp16"],
        ["--crop", "resized", "--crop-area", "0.4", "--clip-norm", "0.5"],
        ["--model", "cpu-RN-tiny", "--micro-batch", "8"],
    ],
)
def test_with_each_saving_it_continues_bit_by_bit(data, tmp_path, options):
    once, twice = tmp_path / "once", tmp_path / "twice"
    short = [*RUN, "--epochs", "1", *options]
    config = parse([str(data), "--out", str(once), *short])
    train(config, World(0, 1, torch.device("cpu")))
    main([str(data), "--out", str(twice), *short, "--stop-after", "2"])
    main([str(data), "--out", str(twice), *short])
    assert weights(once, 3) == weights(twice, 3)


def test_the_log_says_how_fast_it_learns_and_what_it_waits_for(whole):
    for line in logged(whole).values():
        assert line["gradient_norm"] > 0
        assert line["images_per_second"] > 0
        assert 0 < line["mfu"] < 1.5
        assert 0 <= line["data_wait"] <= 1
        assert line["memory_gb"] > 0
    # Adam's first steps move each of 3.6 M parameters by about the rate, at most.
    assert 0 < logged(whole)[1]["update_norm"] < 1e-3 * 3.7e6**0.5


def test_held_out_pairs_are_looked_at_each_epoch_and_once(data, tmp_path):
    out = tmp_path / "run"
    held = ["--validation", str(data), "--evaluate", f"pairs={data}"]
    options = [str(data), "--out", str(out), *RUN, *held]
    main([*options, "--stop-after", "4"])
    assert list(logged(out, "validation")) == [3]
    first = logged(out, "validation")[3]
    assert first["pairs"] + first["broken"] == first["batch"] == 16
    main(options)
    assert list(logged(out, "validation")) == [3, 6, 9]
    evaluated = logged(out, "evaluation/pairs")
    assert list(evaluated) == [3, 6, 9]
    results = json.loads((out / "held_out" / f"{9:010d}" / "results.json").read_text())
    assert results["sets"]["pairs"]["image_to_text_r10"] == evaluated[9]["image_to_text_r10"]
    lines = (out / "log.jsonl").read_text()
    main(options)  # at its end, and nothing is looked at again
    assert (out / "log.jsonl").read_text() == lines


def test_what_is_held_out_changes_no_weight(data, whole, tmp_path):
    out = tmp_path / "run"
    main([str(data), "--out", str(out), *RUN, "--validation", str(data), "--validate-steps", "2"])
    assert weights(out) == weights(whole)
    assert list(logged(out, "validation")) == [2, 4, 6, 8, 9]


def test_a_run_begins_with_anothers_weights(data, whole, tmp_path):
    out = tmp_path / "run"
    main([str(data), "--out", str(out), *RUN, "--init", str(whole), "--stop-after", "1"])
    assert losses(out)[1] < losses(whole)[1] - 0.1


def test_a_missing_shard_is_said_before_the_first_step(data, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    (copy / "shards" / "00001.tar").unlink()
    with pytest.raises(UserError, match=r"00001\.tar: missing"):
        main([str(copy), "--out", str(tmp_path / "run"), *RUN])


def test_a_checkpoint_that_is_damaged_is_named(data, tmp_path):
    out = tmp_path / "run"
    options = [str(data), "--out", str(out), *RUN]
    main([*options, "--stop-after", "2"])
    folder = out / "checkpoints" / f"{2:010d}"
    for path in folder.glob("*.distcp"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read"):
        main(options)
