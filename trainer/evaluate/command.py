"""`wit eval`: zero-shot classification and retrieval with a run's model, or anybody's weights."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Sequence

from trainer.evaluate.features import IMAGES
from trainer.evaluate.one_set import described, evaluate, line
from trainer.evaluate.results import read_results, write_results
from trainer.evaluate.sets import open_set
from trainer.evaluate.weights import add_options, load_model, weights_of
from trainer.parallel import check_same, from_first, highest, joined
from trainer.zoo import PRECISIONS
from wit import storage
from wit.console import Arguments, Screen
from wit.errors import UserError
from wit.manifest import Progress
from wit.storage import FolderLock

ENDINGS = re.compile(r"(\.tar|\.tar\.gz|\.tgz)?/*$")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `wit eval ...`; 0. Each process that torchrun started takes a share of the pictures."""
    options = _parser().parse_args(argv)
    wanted = named(options.sets)
    if options.captions and len(wanted) > 1:
        raise UserError("--captions are of one set; evaluate one at a time")
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(joined(options.device))
        screen = stack.enter_context(Screen()) if world.first else None
        if world.first:
            stack.enter_context(FolderLock(options.out))
        path = from_first(weights_of(options.weights, options.step))
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
        check_same(world, weights=facts["sha256"], sets=[one.sha256() for one in sets])
        found = read_results(options.out, facts) if world.first else {}
        for one in sets:
            name = one.pictures.name
            done = world.first and found.get(name, {}).get("sha256") == one.sha256()
            if highest([done], world.device)[0]:
                continue
            result = evaluate(
                model,
                one,
                options.precision,
                batch=options.batch,
                threads=options.threads,
                progress=_progress(screen, name),
            )
            if screen is not None:
                found = write_results(options.out, facts, found, described(one), result)
                for fault in result.faults:
                    screen.done(f"broken: {fault}")
        if world.first:
            for name in wanted:
                print(line(name, found[name]))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Arguments(
        prog="wit eval",
        description="Evaluates a model: zero-shot where the pictures have classes, retrieval where "
        "they have captions. Writes results.json and predictions.parquet. On several GPUs: "
        "torchrun ... -m trainer.evaluate with the same options.",
        allow_abbrev=False,
    )
    add_options(parser)
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
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--batch", type=_positive, default=IMAGES, help=f"pictures ({IMAGES})")
    parser.add_argument("--threads", type=_positive, help="that decode pictures, a rank (up to 8)")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def named(sets: Sequence[str], flag: str = "--sets") -> dict[str, str]:
    """{name: path} of what a flag says of sets. Raises UserError."""
    named: dict[str, str] = {}
    for given in sets:
        name, equals, path = given.partition("=")
        if not equals or "/" in name:
            name, path = storage.split(ENDINGS.sub("", given))[1], given
        if not name or name in named:
            raise UserError(f"{flag} {given}: give it a name of its own, as NAME=PATH")
        named[name] = path
    return named


# --- the sets ---------------------------------------------------------------------------------


def _progress(screen: Screen | None, name: str) -> Progress:
    """Shows how many pictures of a set are done."""

    def show(done: int, total: int) -> None:
        if screen is not None:
            screen.now(f"{name}: {done:,} of {total:,} pictures")

    return show
