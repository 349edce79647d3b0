"""`wit eval`: zero-shot classification and retrieval with a run's model, or anybody's weights."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Sequence
from typing import Any

import torch

from trainer.clip import CLIP
from trainer.evaluate.features import IMAGES
from trainer.evaluate.pictures import CaptionSet, ClassSet
from trainer.evaluate.prompts import twins
from trainer.evaluate.results import Result, read_results, write_results
from trainer.evaluate.retrieval import FIRST, retrieval
from trainer.evaluate.sets import open_set
from trainer.evaluate.weights import load_model, weights_of
from trainer.evaluate.zero_shot import zero_shot
from trainer.parallel import World, add_up, joined
from trainer.tokenizer import tokenize
from trainer.zoo import MODELS
from wit import storage
from wit.console import Arguments, Screen
from wit.errors import UserError
from wit.storage import FolderLock

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
ENDINGS = re.compile(r"(\.tar|\.tar\.gz|\.tgz)?/*$")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `wit eval ...`; 0. Each process that torchrun started takes a share of the pictures."""
    options = _parser().parse_args(argv)
    wanted = _named(options.sets)
    if options.captions and len(wanted) > 1:
        raise UserError("--captions are of one set; evaluate one at a time")
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(joined(options.device))
        screen = stack.enter_context(Screen()) if world.first else None
        if world.first:
            stack.enter_context(FolderLock(options.out))
        path = weights_of(options.weights, options.step)
        model, facts = load_model(path, options.model, options.gelu)
        model.to(world.device)
        facts |= {"precision": options.precision, "weights": path}
        sets = [
            open_set(
                name,
                path,
                classes=options.classes,
                templates=options.templates,
                captions=options.captions,
                limit=options.limit,
            )
            for name, path in wanted.items()
        ]
        _check_equal([one.sha256() for one in sets], world)
        found = read_results(options.out, facts) if world.first else {}
        for one in sets:
            name = one.pictures.name
            done = world.first and found.get(name, {}).get("sha256") == one.sha256()
            if add_up(torch.tensor(float(done), device=world.device)) > 0:
                continue
            result = _evaluate(model, one, options, world, screen)
            if screen is not None:
                entry = _entry(one)
                found = write_results(options.out, facts, found, entry, result)
                for fault in result.faults:
                    screen.done(f"broken: {fault}")
        if world.first:
            _show({name: found[name] for name in wanted})
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Arguments(
        prog="wit eval",
        description="Evaluates a model: zero-shot where the pictures have classes, retrieval where "
        "they have captions. Writes results.json and predictions.parquet. On several GPUs: "
        "torchrun ... -m trainer.evaluate with the same options.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "weights",
        metavar="RUN_OR_WEIGHTS",
        help="the folder of a run (its last checkpoint) or of a checkpoint; or weights: "
        "safetensors, OpenAI's archives, folders of open_clip or Hugging Face",
    )
    parser.add_argument(
        "--sets",
        nargs="+",
        required=True,
        metavar="[NAME=]PATH",
        help="pictures in one folder a class, WebDataset tars with .cls or .txt, shards with "
        "captions, pictures with a captions.json; a folder, a tar, or a folder in it "
        "(cifar10=cifar10.tar.gz/test)",
    )
    parser.add_argument("--out", required=True, help="folder of the results; it may hold others")
    parser.add_argument(
        "--classes",
        nargs="+",
        default=[],
        metavar="FILE[#KEY]",
        help="names of classes: JSON (a list, lists by set, names by folder), OpenAI's "
        "prompts.md, or text with one a line (default: the names of folders)",
    )
    parser.add_argument(
        "--templates",
        nargs="+",
        default=[],
        metavar="FILE[#KEY]",
        help="likewise templates, with {} or {c} for the class (default: those of the prompts.md "
        "that has the classes, else seven of our own)",
    )
    parser.add_argument(
        "--captions", metavar="FILE.json", help="{picture: [caption, ...]}; only these pictures"
    )
    parser.add_argument("--limit", type=_positive, help="pictures of a set, evenly spread over it")
    parser.add_argument("--step", type=int, help="of the run's checkpoint (the last)")
    parser.add_argument("--model", choices=tuple(MODELS), help="where the weights do not say it")
    parser.add_argument("--gelu", choices=("quick", "exact"), help="likewise")
    parser.add_argument("--precision", choices=("fp32", *DTYPES), default="fp32")
    parser.add_argument("--batch", type=_positive, default=IMAGES, help=f"pictures ({IMAGES})")
    parser.add_argument("--threads", type=_positive, help="that decode pictures, a rank (up to 8)")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _named(sets: Sequence[str]) -> dict[str, str]:
    """{name: path} of what --sets says."""
    named: dict[str, str] = {}
    for given in sets:
        name, equals, path = given.partition("=")
        if not equals or "/" in name:
            name, path = storage.split(ENDINGS.sub("", given))[1], given
        if not name or name in named:
            raise UserError(f"--sets {given}: give it a name of its own, as NAME=PATH")
        named[name] = path
    return named


# --- the sets ---------------------------------------------------------------------------------


def _check_equal(hashes: Sequence[str], world: World) -> None:
    """Raises a UserError where another rank sees other sets than this one."""
    mine = torch.tensor([int(sha256[:6], 16) for sha256 in hashes], device=world.device)
    if not torch.equal(add_up(mine.clone()), world.size * mine):
        raise UserError(f"rank {world.rank} sees other sets than another: copy them to every node")


def _evaluate(
    model: CLIP,
    one: ClassSet | CaptionSet,
    options: argparse.Namespace,
    world: World,
    screen: Screen | None,
) -> Result:
    def progress(done: int, total: int) -> None:
        if screen is not None:
            screen.now(f"{one.pictures.name}: {done:,} of {total:,} pictures")

    how: dict[str, Any] = {"batch": options.batch, "threads": options.threads}
    low = options.precision in DTYPES
    dtype = DTYPES.get(options.precision, torch.bfloat16)
    with torch.autocast(world.device.type, dtype, enabled=low):
        if isinstance(one, ClassSet):
            return zero_shot(model, tokenize, one, **how, progress=progress)
        return retrieval(model, tokenize, one, **how, progress=progress)


def _entry(one: ClassSet | CaptionSet) -> dict[str, Any]:
    """What results.json says of a set beside its numbers."""
    if isinstance(one, CaptionSet):
        return {"sha256": one.sha256()}
    same = [n for n, first in enumerate(twins(one.classes)) if n != first]
    return {
        "sha256": one.sha256(),
        "class_names": [names[0] if len(names) == 1 else names for names in one.classes],
        "class_names_from": one.sources["classes"],
        "classes_named_as_an_earlier_one": same,
        "templates": one.templates,
        "templates_from": one.sources["templates"],
    }


def _show(found: dict[str, dict[str, Any]]) -> None:
    """Prints a line a set."""
    for name, entry in found.items():
        there = f"{entry['pictures']:,} pictures, {entry['broken']:,} broken"
        if entry["task"] == "zero-shot":
            shares = [("top-1", "top1"), ("top-5", "top5"), ("mean per class", "mean_per_class")]
            said = ", ".join(f"{label} {entry[key]:.2%}" for label, key in shares)
            there += f", {entry['classes']:,} classes (names: {entry['class_names_from']}; "
            there += f"{len(entry['templates'])} templates: {entry['templates_from']})"
        else:
            ways = [("image to text", "image_to_text"), ("text to image", "text_to_image")]
            said = "; ".join(
                f"{label} " + ", ".join(f"R@{k} {entry[f'{key}_r{k}']:.2%}" for k in FIRST)
                for label, key in ways
            )
            there += f", {entry['texts']:,} captions"
        print(f"{name}: {said}; {there}")
