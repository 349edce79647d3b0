"""One run's configuration: a readable TOML file, flags, or both; saved with the run.

Every default stands in the one dataclass below. What decides the weights and what does not are
told apart: a run is continued only with the first unchanged.
"""

from __future__ import annotations

import argparse
import os
import tomllib
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, get_args, get_origin, get_type_hints

from trainer.zoo import MODELS, PRECISIONS
from wit import storage
from wit.console import Arguments, parse_size
from wit.errors import UserError

FILE = "config.toml"
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
    init: str | None = option(None, "weights to begin with (a file or folder), not a run")
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
        "square", "square: a random one of the resized picture; resized: 0.9 to 1 of its area",
        choices=("square", "resized"),
    )  # fmt: skip
    threads: int = option(os.cpu_count() or 1, "that decode pictures, a rank")
    cache: str | None = option(None, "folder for downloaded shards (default: OUT/cache)")
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
    validation_samples: int = option(8_192, "of them at most")
    evaluate: tuple[str, ...] = option((), "sets as wit eval takes them: NAME=PATH")
    evaluate_classes: tuple[str, ...] = option((), "files of their classes, as for wit eval")
    evaluate_templates: tuple[str, ...] = option((), "likewise of their templates")
    validate_steps: int | None = option(
        None, "between two looks at what is held out (default: an epoch)"
    )

    save_steps: int = option(1_000, "between two checkpoints")
    save_minutes: float = option(30.0, "between two checkpoints, if steps take long")
    keep: int = option(2, "checkpoints that stay, beside the last of each epoch")
    log_steps: int = option(20, "between two lines of the log")
    most_skipped: int = option(100, "steps in a row without finite gradients, then it stops")
    stop_after: int | None = option(None, "steps of this command; the run can go on later")


def scales_loss(config: Config) -> bool:
    """Whether some gradients are fp16, so that the loss is to be scaled."""
    return "fp16" in (config.precision, config.text_weights)


def parse(argv: list[str]) -> Config:
    """Returns the configuration that flags give, on top of `--config FILE`, on top of the defaults.

    Raises:
        UserError: for an entry that is unknown, of the wrong kind, or does not go with another.
    """
    parser = _parser()
    given = {k: v for k, v in vars(parser.parse_args(argv)).items() if v is not None}
    if not given["data"]:  # argparse has a list for none
        del given["data"]
    values = _read(given.pop("config")) if "config" in given else {}
    values |= given
    for name in ("data", "out"):
        if name not in values:
            parser.error(f"{'DATA' if name == 'data' else '--out'} is needed")
    return checked(Config(**values))


def _parser() -> argparse.ArgumentParser:
    parser = Arguments(
        prog="wit train",
        description="Train a CLIP model of the paper on WebDataset shards. On several GPUs or "
        "machines: torchrun ... -m trainer with the same options. The same command again continues "
        "the run in --out.",
        allow_abbrev=False,
    )
    parser.add_argument("data", nargs="*", default=None, metavar="DATA", help="folders of shards")
    parser.add_argument("--config", metavar="FILE.toml", help="options by name; flags go before")
    hints = get_type_hints(Config)
    for entry in fields(Config):
        if entry.name == "data":
            continue
        flag = f"--{entry.name.replace('_', '-')}"
        kind = _kind(hints[entry.name])
        text = entry.metadata["help"].replace("%", "%%")
        if entry.default not in (None, MISSING, (), False):
            text += f" ({entry.default})"
        if kind is bool:
            parser.add_argument(flag, action="store_true", default=None, help=text)
            continue
        several = get_origin(hints[entry.name]) is tuple
        parser.add_argument(
            flag,
            type=entry.metadata.get("parse", kind),
            choices=entry.metadata.get("choices"),
            nargs="*" if several else None,
            metavar=None if "choices" in entry.metadata else entry.name.upper(),
            help=text,
        )
    return parser


def _kind(hint: Any) -> type:
    """The type of an entry, without None and of a tuple's items."""
    if get_origin(hint) is tuple:
        return get_args(hint)[0]
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return kinds[0] if kinds else hint


def _read(path: str) -> dict[str, Any]:
    if not storage.exists(path):
        raise UserError(f"{path}: no such configuration")
    try:
        values = tomllib.loads(storage.read_bytes(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML ({error})") from error
    hints = get_type_hints(Config)
    for name, value in values.items():
        if name not in hints:
            raise UserError(f"{path}: unknown entry {name!r}; see wit train --help")
        kind = _kind(hints[name])
        items = value if get_origin(hints[name]) is tuple else [value]
        fits = isinstance(items, list) and all(
            isinstance(item, (int, float) if kind is float else kind)
            and (kind is bool or not isinstance(item, bool))
            for item in items
        )
        if not fits:
            raise UserError(f"{path}: {name} = {value!r} is not of the kind {kind.__name__}")
    return values


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
            raise UserError(f"{_flag(entry.name)} {value}: choose one of {', '.join(choices)}")
    positive = ("epochs", "batch", "micro_batch", "lanes", "window", "threads", "save_steps",
                "log_steps", "stop_after", "keep", "most_skipped", "validation_samples",
                "validate_steps")  # fmt: skip
    for name in positive:
        if values[name] is not None and values[name] < 1:
            raise UserError(f"{_flag(name)} {values[name]}: a number from 1 on is needed")
    if not 0 <= config.patch_dropout < 1:
        raise UserError(f"--patch-dropout {config.patch_dropout}: a share below 1 is needed")
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


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


# --- the run's file ---------------------------------------------------------------------------


def to_toml(config: Config) -> str:
    """Returns the configuration as TOML; what is null is left out."""
    lines = []
    for name, value in asdict(config).items():
        if value is None:
            continue
        lines.append(f"{name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)


def open_run(config: Config, world: int) -> Config:
    """Writes the run's file, or checks it against the one there; returns it with no size left open.

    `micro_batch`, where it is not given, is what a rank of the first command has.

    Raises:
        UserError: naming the entry that decides the weights and differs.
    """
    path = storage.join(config.out, FILE)
    if storage.exists(path):
        saved = checked(Config(**_read(path)))
        config = replace(config, micro_batch=config.micro_batch or saved.micro_batch)
        for name, value in asdict(config).items():
            before = getattr(saved, name)
            if name not in FREE and before != value:
                raise UserError(
                    f"{path}: the run there has {_flag(name)} {before}, now {value}; repeat its "
                    "options, or choose another --out (to begin with its weights: --init)"
                )
    elif storage.list_names(config.out):
        raise UserError(f"{config.out}: not empty and no run ({FILE}); choose another --out")
    if config.lanes % world:
        raise UserError(f"--lanes {config.lanes} cannot be shared by {world} ranks; change one")
    config = replace(config, micro_batch=config.micro_batch or config.batch // world)
    if config.batch // world % config.micro_batch:
        raise UserError(
            f"a rank of {world} has {config.batch // world} pairs a step, no multiple of "
            f"--micro-batch {config.micro_batch}; choose other ranks or another micro-batch"
        )
    storage.write_bytes(path, to_toml(config).encode())
    return config
