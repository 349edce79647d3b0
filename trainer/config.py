"""One run's configuration: every option with its default and its meaning, in one dataclass.

What decides the weights and what does not are told apart: a run is continued only with the first
unchanged. It comes from a TOML file, flags, or both (trainer.options), and is saved with the run.
"""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from trainer.decode import LEAST_AREA
from trainer.zoo import MODELS, PRECISIONS
from wit import storage
from wit.console import parse_size
from wit.errors import UserError

FILE = "config.toml"  # in the folder of a run
FREE = {  # may differ when a run is continued: they change no weight (data: its index counts)
    *("data", "out", "threads", "cache", "cache_bytes", "device", "stop_after"),
    *("save_steps", "save_minutes", "keep", "log_steps"),
    *("compile", "sharding", "recompute", "deterministic"),  # rounding apart
    *("validation", "validation_samples", "validate_steps"),
    *("evaluate", "evaluate_classes", "evaluate_templates"),
}


def option(default: Any, text: str, **more: Any) -> Any:
    """A field with what its flag's help says; `choices` or `parse` where they are needed."""
    metadata = {"help": text, **more}
    if isinstance(default, tuple) or default is MISSING:
        return field(metadata=metadata, **({} if default is MISSING else {"default": default}))
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Config:
    """A training run. Sizes in samples unless said; null takes the paper's value for the model."""

    data: tuple[str, ...] = option(MISSING, "folders of shards")
    out: str = option(MISSING, "folder of the run: checkpoints, logs, config.toml")
    model: str = option("ViT-B/32", "one of the zoo", choices=tuple(MODELS))
    init: str | None = option(None, "weights to begin with: of a run, or a file or folder")
    gelu: str | None = option(
        None, "of the model, and of --init where its file does not say (default: quick)",
        choices=("quick", "exact"),
    )  # fmt: skip
    seed: int = option(0, "of weights, order, crops and every other draw")

    epochs: int = option(32, "passes over the data")
    batch: int = option(32_768, "pairs a step, over all ranks")
    micro_batch: int | None = option(
        None, "pairs whose features are computed at a time; decides BatchNorm (default: a rank's)"
    )
    learning_rate: float | None = option(None, "at its peak (default: the paper's)")
    warmup: int = option(2_000, "steps until the peak, before the cosine")
    weight_decay: float = option(0.2, "on weights that are no gains or biases")
    beta1: float = option(0.9, "of Adam")
    beta2: float | None = option(None, "of Adam (default: the paper's)")
    eps: float | None = option(None, "of Adam (default: the paper's)")
    clip_norm: float | None = option(None, "largest norm of the gradient (default: any)")
    patch_dropout: float = option(0.0, "share of patches left out of each picture (ViT)")

    lanes: int = option(64, "into which an epoch is cut; a multiple of the ranks")
    window: int = option(131_072, "samples shuffled together")
    crop: str = option(
        "square", "square: a random one of the resized picture; resized: a random part of its area",
        choices=("square", "resized"),
    )  # fmt: skip
    crop_area: float = option(
        LEAST_AREA, "the smallest part of a picture's area that a resized crop shows"
    )
    threads: int | None = option(
        None, "that decode pictures, a rank (default: the machine's cores, shared by its ranks)"
    )
    cache: str | None = option(
        None, "folder on a local disk for downloaded shards (default: OUT/cache/NODE)"
    )
    cache_bytes: int = option(500 * 10**9, "that the cache may take, as 500GB", parse=parse_size)

    precision: str = option("fp32", "of the towers' arithmetic", choices=PRECISIONS)
    adam: str = option("fp32", "of Adam's moments", choices=("fp32", "fp16"))
    text_weights: str = option(
        "fp32", "of the text tower: fp16 is rounded stochastically", choices=("fp32", "fp16")
    )
    recompute: bool = option(False, "free activations and compute them twice (checkpointing)")
    deterministic: bool = option(
        False, "sums on a GPU always in the same order, so that a resumed run has the same bits"
    )
    compile: bool = option(False, "compile the blocks (torch.compile): minutes, then faster")
    sharding: str = option(
        "ddp", "ddp: all of the model on each rank; fsdp: weights and moments shared out",
        choices=("ddp", "fsdp"),
    )  # fmt: skip
    device: str | None = option(None, "cpu or cuda (default: cuda where there is one)")

    validation: tuple[str, ...] = option((), "folders of shards held out, for a validation loss")
    validation_samples: int | None = option(
        None, "how many of them at most (default: a batch, so that its loss compares)"
    )
    evaluate: tuple[str, ...] = option(
        (), "sets to evaluate while training, as wit eval --sets takes them: NAME=PATH"
    )
    evaluate_classes: tuple[str, ...] = option((), "names of the sets' classes: wit eval --classes")
    evaluate_templates: tuple[str, ...] = option((), "their prompts: wit eval --templates")
    validate_steps: int | None = option(
        None, "between two looks at what is held out (default: an epoch)"
    )

    save_steps: int = option(1_000, "between two checkpoints")
    save_minutes: float = option(30.0, "between two checkpoints, if steps take long")
    keep: int = option(2, "checkpoints that stay, beside the weights of each epoch")
    log_steps: int = option(20, "between two lines of the log")
    most_skipped: int = option(100, "steps in a row without finite gradients, then it stops")
    stop_after: int | None = option(None, "steps of this command; the run can go on later")


def scales_loss(config: Config) -> bool:
    """Whether some gradients are fp16, so that the loss is to be scaled."""
    return "fp16" in (config.precision, config.text_weights)


def checked(config: Config) -> Config:
    """Returns a configuration with tuples for lists; a UserError if entries do not go together."""
    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in asdict(config).items()
    }
    config = Config(**values)
    for entry in fields(Config):
        choices, value = entry.metadata.get("choices"), values[entry.name]
        if choices and value is not None and value not in choices:
            raise UserError(f"{flag(entry.name)} {value}: choose one of {', '.join(choices)}")
    positive = ("epochs", "batch", "micro_batch", "lanes", "window", "threads", "save_steps",
                "log_steps", "stop_after", "keep", "most_skipped", "validation_samples",
                "validate_steps")  # fmt: skip
    for name in positive:
        if values[name] is not None and values[name] < 1:
            raise UserError(f"{flag(name)} {values[name]}: a number from 1 on is needed")
    if not storage.is_local(config.out):
        raise UserError(f"--out {config.out}: a run stands in a folder of this machine's")
    if not 0 <= config.patch_dropout < 1:
        raise UserError(f"--patch-dropout {config.patch_dropout}: a share below 1 is needed")
    if not 0 < config.crop_area <= 1:
        raise UserError(f"--crop-area {config.crop_area}: a share above 0, at most 1, is needed")
    if config.crop == "square" and config.crop_area != LEAST_AREA:
        raise UserError(
            f"--crop-area {config.crop_area} is of resized crops, not of square ones: add --crop "
            f"resized, or --crop-area {LEAST_AREA} if a configuration sets it"
        )
    if config.text_weights == "fp16" and (config.adam == "fp32" or config.precision == "fp32"):
        raise UserError(
            "--text-weights fp16 needs --adam fp16, whose step rounds them, and --precision bf16 "
            "or fp16, to compute with them; add these"
        )
    if config.sharding == "fsdp" and config.text_weights == "fp16":
        raise UserError(
            "--text-weights fp16 does not go with --sharding fsdp, which shards weights of one "
            "dtype together; leave one of them out"
        )
    if config.batch % config.lanes:
        raise UserError(
            f"--batch {config.batch} is no multiple of --lanes {config.lanes}; change one of them"
        )
    if config.micro_batch and config.batch % config.micro_batch:
        raise UserError(
            f"--batch {config.batch} is no multiple of --micro-batch {config.micro_batch}"
        )
    return config


def flag(name: str) -> str:
    """The flag of an entry."""
    return f"--{name.replace('_', '-')}"
