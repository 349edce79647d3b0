"""The options of `wit harvest --dry-run`, and what a harvest needs that a dry run does not."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from wit.errors import UserError

SUCCESS = 0.6  # of pictures that are still there: what crawls of the last years have met
ONLY = ("sample", "success", "price", "json")


def add_options(add: Callable[..., argparse.Action]) -> None:
    """Adds them to a group of the harvest's."""
    add(
        "--dry-run",
        action="store_true",
        help="write nothing and ask no host of pictures: forecast, from a sample of the inputs, "
        "what the same command would take with --workers, which may be more than there are here",
    )
    add(
        "--sample",
        type=_part,
        metavar="SHARE",
        help="of the inputs' bytes (default: 0.001, but no less than 64 MB and no more than 1 GB)",
    )
    add(
        "--success",
        type=_part,
        metavar="SHARE",
        help=f"of the pictures, taken to be there still (default: {SUCCESS})",
    )
    add("--price", type=_price, metavar="PER_CORE_HOUR", help="in what money you like")
    add("--json", metavar="FILE", help="write the forecast there, too, as JSON; `-` prints it")


def check(options: argparse.Namespace) -> None:
    """Fills in defaults, and refuses what does not go together.

    Raises:
        UserError: for an option of the dry run without it, or what a harvest needs and lacks.
    """
    given = [name for name in ONLY if getattr(options, name) is not None]
    if given and not options.dry_run:
        raise UserError(f"--{given[0]} goes with --dry-run only; add that or leave it out")
    options.success = SUCCESS if options.success is None else options.success
    if options.dry_run:
        return
    if not options.out:
        raise UserError("--out DIR is needed: the output folder (--dry-run needs none)")
    if not (options.user_agent or options.contact or options.until):
        raise UserError(
            "--contact is needed to fetch: a URL or a mail address where the owner of a host can "
            "reach you (--until select asks no host and needs none)"
        )


def _part(text: str) -> float:
    value = _number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share, above 0 and at most 1")
    return value


def _price(text: str) -> float:
    value = _number(text)
    if not 0 <= value < 1e12:
        raise argparse.ArgumentTypeError(f"{text} is no price")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
