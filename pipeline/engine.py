"""Which engine fetches the pictures: ours, or img2dataset with what it does not promise."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from pipeline.fetch.policy import ENGINES
from wit.errors import UserError

OLDEST = (1, 45)
INSTALL = (
    "install it into an environment of its own: python -m venv .img2dataset; "
    ".img2dataset/bin/pip install img2dataset; then --img2dataset .img2dataset/bin/img2dataset"
)
NOT_KEPT = (
    "no rate per host, no robots.txt after a redirect, no guard of the addresses that names and "
    "redirects lead to, no limit of bytes, pixels or seconds for a picture, no contact in the user "
    "agent, metadata left in pictures that are kept as they came, not the same bytes twice"
)
SCRATCH = ".img2dataset-"  # how folders in a run's begin where img2dataset works
# Options that would be obeyed by nobody.
UNTRUE = (
    *("host_rate", "host_concurrency", "address_concurrency", "give_up_after", "resolve"),
    *("timeout", "connect_timeout", "min_speed", "max_picture_bytes"),
    "max_bytes",  # it does not say how many it has fetched
)
PROBE = "import img2dataset; from importlib.metadata import version; print(version('img2dataset'))"
PROBE_SECONDS = 180.0
SHEBANG = re.compile(rb"(?:#!|exec' \")\s*(/[^\"\n]*?python[^\"\n ]*)")


def add_options(add: Callable[..., argparse.Action]) -> None:
    """Adds the options of the engine to a parser."""
    add(
        "--engine",
        choices=ENGINES,
        default="wit",
        help="who fetches the pictures that robots.txt and the lists allow; with img2dataset there "
        f"is {NOT_KEPT}; more in docs/engines.md (default: %(default)s)",
    )
    add(
        "--img2dataset",
        default="img2dataset",
        metavar="PATH",
        help="its executable, in an environment of its own (default: the one in PATH)",
    )


def refuse_untrue(
    parser: argparse.ArgumentParser, argv: list[str], options: argparse.Namespace
) -> None:
    """Raises UserError for options that were given although img2dataset does not know them.

    `--host-rate 0` is as true as can be, and allowed.
    """
    if options.engine != "img2dataset":
        return
    given, _ = parser.parse_known_args(argv, argparse.Namespace(**dict.fromkeys(UNTRUE)))
    for name in UNTRUE:
        value = getattr(given, name)
        if value is not None and not (name == "host_rate" and value == 0):
            raise UserError(
                f"--{name.replace('_', '-')}: img2dataset cannot keep it; leave it out, or leave "
                "out --engine img2dataset"
            )


def prepare(options: argparse.Namespace, tell: Callable[[str], None]) -> None:
    """Finds and tries img2dataset where it is the engine, and says what it does not promise.

    Raises:
        UserError: where it is missing, too old, or does not start.
    """
    if options.engine != "img2dataset" or options.until:
        return
    path = shutil.which(options.img2dataset)
    if path is None:
        raise UserError(f"--engine img2dataset: no {options.img2dataset} found; {INSTALL}")
    version = find_version(path)
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise UserError(f"{path}: version {version}, {oldest} is the oldest that is used; upgrade")
    options.img2dataset = os.path.abspath(path)
    tell(f"pictures are fetched by img2dataset {version}: {NOT_KEPT}")


def sweep(out: str) -> None:
    """Removes what killed processes left in a run's folder; for its owner, before work starts."""
    from wit import storage

    if storage.is_local(out):
        for path in Path(storage.local_path(out)).glob(f"{SCRATCH}*"):
            shutil.rmtree(path, ignore_errors=True)


def find_version(path: str) -> str:
    """Returns the version of the img2dataset that an executable runs, having loaded it."""
    from pipeline.fetch.img2dataset import environment

    python = _interpreter(path)
    try:
        done = subprocess.run(
            [python, "-c", PROBE],
            cwd=os.path.dirname(python),  # where -c looks for modules first
            env=environment(os.path.expanduser("~")),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{path}: {python} does not start ({error}); {INSTALL}") from error
    lines = done.stdout.split()
    if done.returncode or not lines:
        said = " ".join((done.stderr.strip().split("\n")[-1]).split())
        raise UserError(f"{path}: does not start ({said}); {INSTALL}")
    return lines[-1]


def _interpreter(path: str) -> str:
    """The Python that runs an installed script: its first lines say so, else it stands beside."""
    with open(path, "rb") as file:
        if found := SHEBANG.search(file.read(512)):
            return os.fsdecode(found[1])
    return str(Path(os.path.realpath(path)).with_name("python"))
