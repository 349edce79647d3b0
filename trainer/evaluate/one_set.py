"""One set, evaluated by what it has (classes or captions), and what is said of it."""

from __future__ import annotations

from typing import Any

from trainer.clip import CLIP
from trainer.evaluate.features import IMAGES
from trainer.evaluate.pictures import CaptionSet, ClassSet
from trainer.evaluate.prompts import twins
from trainer.evaluate.results import Result
from trainer.evaluate.retrieval import FIRST, retrieval
from trainer.evaluate.zero_shot import zero_shot
from trainer.precision import autocast
from trainer.tokenizer import tokenize
from wit.manifest import Progress, no_progress


def evaluate(
    model: CLIP,
    one: ClassSet | CaptionSet,
    precision: str = "fp32",
    *,
    batch: int = IMAGES,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> Result:
    """Zero-shot classification of a set with classes, retrieval in one with captions.

    All ranks call it, and get the same. `precision`: fp32, bf16 or fp16, of the towers.
    """
    task = zero_shot if isinstance(one, ClassSet) else retrieval
    with autocast(model.logit_scale.device, precision):
        return task(model, tokenize, one, batch=batch, threads=threads, progress=progress)


def described(one: ClassSet | CaptionSet) -> dict[str, Any]:
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


def line(name: str, entry: dict[str, Any]) -> str:
    """What results.json says of a set, for a person."""
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
    return f"{name}: {said}; {there}"
