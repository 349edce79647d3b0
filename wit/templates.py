"""Jinja templates as all files for people are made: what a template names must be given to it."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def environment(folder: Path, *, html: bool) -> Environment:
    """The templates of a folder; in HTML every string is escaped. Blocks leave no empty lines."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not html,
    )
