"""`wit train`'s options: flags on top of a TOML file on top of the defaults of trainer.config."""

from __future__ import annotations

import argparse
import tomllib
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from trainer.config import Config, checked, flag
from wit import storage
from wit.console import Arguments
from wit.errors import UserError

RECIPES = Path(__file__).parent / "configs"


def parse(argv: list[str]) -> Config:
    """Returns the configuration that flags give, on top of `--config FILE`, on top of the defaults.

    Raises:
        UserError: for an entry that is unknown, of the wrong kind, or does not go with another.
    """
    parser = _parser()
    given = {k: v for k, v in vars(parser.parse_args(argv)).items() if v is not None}
    if not given["data"]:  # argparse has a list for none
        del given["data"]
    values = read_toml(find(given.pop("config"))) if "config" in given else {}
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
    parser.add_argument(
        "--config",
        metavar="FILE.toml",
        help="options by name, which flags override; or a recipe that comes with the program: "
        + ", ".join(recipes()),
    )
    hints = get_type_hints(Config)
    for entry in fields(Config):
        if entry.name == "data":
            continue
        name = flag(entry.name)
        kind = _kind(hints[entry.name])
        text = entry.metadata["help"].replace("%", "%%")
        if entry.default not in (None, MISSING, (), False):
            text += f" ({entry.default})"
        if kind is bool:
            switch = argparse.BooleanOptionalAction
            parser.add_argument(name, action=switch, default=None, help=text)
            continue
        several = get_origin(hints[entry.name]) is tuple
        parser.add_argument(
            name,
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


def recipes() -> list[str]:
    """Names of the recipes that come with the program."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def find(config: str) -> str:
    """The path of a file, or of the recipe of that name."""
    return str(RECIPES / f"{config}.toml") if config in recipes() else config


def read_toml(path: str) -> dict[str, Any]:
    """Entries of a configuration. Raises UserError for one that is unknown or of another kind."""
    if not storage.exists(path):
        raise UserError(f"{path}: no such file, and no recipe; there are {', '.join(recipes())}")
    try:
        values = tomllib.loads(storage.read_bytes(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML ({error})") from error
    hints = get_type_hints(Config)
    parsers = {e.name: e.metadata["parse"] for e in fields(Config) if "parse" in e.metadata}
    for name, value in values.items():
        if name in parsers and isinstance(value, str):
            values[name] = value = parsers[name](value)
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
