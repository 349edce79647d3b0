"""What a small CLIP learns in half an hour: `python -m benchmarks.learning`.

    python -m benchmarks.learning --pictures flickr8k_train_128.tar --cifar FOLDER --folder WORK

Writes the Flickr8k pictures as WebDataset shards with five captions each, without 500 that are held
out, indexes them (`wit shards index`), trains a ViT for a CPU (`wit train`) for as many epochs as
the minutes allow at the speed of its first steps, and evaluates it (`wit eval`): retrieval on the
500, zero-shot on CIFAR-10's test pictures. Prints JSON, and keeps it as WORK/learning.json. The
same command again goes on where it was stopped, with the epochs chosen before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import webdataset

from benchmarks.common import SHARED

HELD_OUT = 500
SHARDS = 8
TRIAL = 60  # steps whose speed gives the number of epochs; the first third of them do not count
SHARE = 0.95  # of the minutes is planned for; checkpoints and slower steps have the rest
RECIPE = {
    "config": "cpu-vit-20m-16",
    "batch": 128,
    "precision": "fp32",
}


def main(argv: list[str] | None = None) -> None:
    """Writes, trains, evaluates; prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    pictures = SHARED / "images" / "flickr8k_train_128.tar"
    parser.add_argument("--pictures", type=Path, default=pictures, help="a tar with captions.json")
    parser.add_argument("--cifar", type=Path, required=True, help="folder: test/CLASS/*.jpg")
    parser.add_argument("--prompts", help="OpenAI's prompts.md (default: names and templates ours)")
    parser.add_argument("--folder", type=Path, required=True, help="for all that is written")
    parser.add_argument("--minutes", type=float, default=30.0, help="of training")
    parser.add_argument("--ranks", type=int, default=1, help="processes; one a core is fastest")
    parser.add_argument("--set", nargs="*", default=[], metavar="OPTION=VALUE", help="of wit train")
    options = parser.parse_args(argv)
    recipe = RECIPE | dict(given.split("=", 1) for given in options.set)

    train, held_out = options.folder / "train", options.folder / "held_out"
    samples = write_shards(options.pictures, train, held_out)
    epochs = epochs_within(options, recipe, train, samples["train"])
    run = options.folder / "run"
    wit_train(train, run, recipe | {"epochs": epochs}, options.ranks)
    training = of_log(run / "log.jsonl", int(recipe["batch"]))
    steps = epochs * (samples["train"] // int(recipe["batch"]))
    if training["steps"] < steps:
        sys.exit(f"stopped at step {training['steps']} of {steps}; the same command goes on")
    sets = {"flickr8k": held_out, "cifar10": options.cifar / "test"}
    found = wit_eval(run, options.folder / "eval", sets, options.prompts)
    result = {
        "machine": {"cores": os.cpu_count(), "processor": processor(), "ranks": options.ranks},
        "pictures": samples,
        "recipe": recipe | {"epochs": epochs},
        "training": training,
        "evaluation": {
            name: {k: v for k, v in found[name].items() if isinstance(v, (int, float))}
            for name in sets
        },
    }
    text = json.dumps(result, indent=2)
    (options.folder / "learning.json").write_text(text + "\n")
    print(text)


def write_shards(pictures: Path, train: Path, held_out: Path) -> dict[str, int]:
    """Two folders of indexed shards; how many samples each has."""
    with tarfile.open(pictures) as tar:
        captions = json.load(tar.extractfile("captions.json"))
        names = sorted(captions, key=lambda name: hashlib.sha256(name.encode()).digest())
        parts = {held_out: names[:HELD_OUT], train: names[HELD_OUT:]}
        for folder, part in parts.items():
            if (folder / "index.json").exists():
                continue
            folder.mkdir(parents=True, exist_ok=True)
            shards = SHARDS if folder == train else 1
            size = -(-len(part) // shards)
            pattern = str(folder / "%05d.tar")
            with webdataset.ShardWriter(pattern, maxcount=size, verbose=0) as writer:
                for name in part:
                    picture = tar.extractfile(f"images/{name}").read()
                    key = name.removesuffix(".jpg")
                    sample = {"__key__": key, "jpg": picture}
                    writer.write(sample | {"json": {"captions": captions[name]}})
            wit("shards", "index", folder)
    return {"train": len(parts[train]), "held_out": len(parts[held_out])}


def epochs_within(
    options: argparse.Namespace, recipe: dict[str, Any], train: Path, samples: int
) -> int:
    """How many epochs fit into the minutes, from the speed of the first steps of another run."""
    trial = options.folder / "trial"
    chosen = trial / "epochs.json"
    if not chosen.exists():
        few = recipe | {"epochs": 1000, "stop-after": TRIAL, "log-steps": TRIAL // 3}
        wit_train(train, trial, few, options.ranks)
        speeds = [line["images_per_second"] for line in log_lines(trial / "log.jsonl")]
        steps = samples // int(recipe["batch"])
        of_epoch = steps * int(recipe["batch"]) * (len(speeds) - 1) / sum(speeds[1:])
        chosen.write_text(json.dumps(max(1, int(SHARE * 60 * options.minutes / of_epoch))))
    return json.loads(chosen.read_text())


def wit_train(train: Path, run: Path, recipe: dict[str, Any], ranks: int) -> None:
    """Trains, or goes on training, in this many processes, which share the cores."""
    given = [train, f"--out={run}", *(f"--{name}={value}" for name, value in recipe.items())]
    if ranks == 1:
        wit("train", *given)
    else:
        threads = max(1, (os.cpu_count() or 1) // ranks)
        module("torch.distributed.run", f"--nproc-per-node={ranks}", "-m", "trainer", *given,
               OMP_NUM_THREADS=str(threads))  # fmt: skip


def wit_eval(run: Path, out: Path, sets: dict[str, Path], prompts: str | None) -> dict[str, Any]:
    """Evaluates the run's last checkpoint; what results.json says of each set."""
    more = [f"--classes={prompts}#CIFAR10", f"--templates={prompts}#CIFAR10"] if prompts else []
    named = [f"{name}={path}" for name, path in sets.items()]
    wit("eval", run, "--sets", *named, f"--out={out}", *more)
    return json.loads((out / "results.json").read_text())["sets"]


def wit(*arguments: object) -> None:
    """Runs a command of wit."""
    module("wit.cli", *arguments)


def module(*arguments: object, **environment: str) -> None:
    """Runs a module; its output goes where this one's errors go."""
    command = [sys.executable, "-m", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=sys.stderr, env=os.environ | environment)


def log_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's training, the last of each step."""
    lines = map(json.loads, path.read_text().splitlines())
    return list({line["step"]: line for line in lines if line["kind"] == "train"}.values())


def of_log(path: Path, batch: int) -> dict[str, Any]:
    """Numbers of a run over all its steps; those of them that are rates are means over time."""
    lines = log_lines(path)
    numbers = [line["step"] for line in lines]
    steps = [here - before for before, here in zip([0, *numbers], numbers, strict=False)]
    seconds = [n * batch / line["images_per_second"] for n, line in zip(steps, lines, strict=True)]
    waited = sum(s * line["data_wait"] for s, line in zip(seconds, lines, strict=True))
    return {
        "steps": numbers[-1],
        "minutes": sum(seconds) / 60,
        "images_per_second": numbers[-1] * batch / sum(seconds),
        "fastest_images_per_second": max(line["images_per_second"] for line in lines),
        "data_wait": waited / sum(seconds),
        "memory_gb": max(line["memory_gb"] for line in lines),
        "last_loss": lines[-1]["loss"],
        "logit_scale": lines[-1]["logit_scale"],
        "losses": {line["step"]: round(line["loss"], 4) for line in lines[:: len(lines) // 20 + 1]},
    }


def processor() -> str:
    """The processor's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
