"""The options of `wit harvest` by what they are about; `wit crawl` shares those of a guest."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from wit.console import parse_size
from wit.errors import UserError
from wit.runner import LOCAL_RUNNER

Add = Callable[..., argparse.Action]  # a group's add_argument


def natural(text: str) -> int:
    """Returns a whole number that is not below 0."""
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error
    if not 0 <= value <= 10**15:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 10**15")
    return value


def positive(text: str) -> int:
    """Returns a whole number that is above 0."""
    value = natural(text)
    if value == 0:
        raise argparse.ArgumentTypeError("0 is below 1")
    return value


def add_agent(add: Add) -> None:
    """Adds who asks."""
    add(
        "--contact",
        metavar="URL|MAIL",
        help="where the owner of a host reaches you: part of the user agent, and needed to fetch",
    )
    add("--user-agent", metavar="TEXT", help="the whole user agent, with a contact in it, instead")


def add_addresses(add: Add) -> None:
    """Adds addresses that are reached although no name server gives them or they are private."""
    exact = {"action": "append", "default": []}
    add(
        "--allow-address",
        metavar="IP:PORT",
        help="reach this address although it is not public: for tests of your own",
        **exact,
    )
    add(
        "--resolve",
        metavar="HOST:IP[:PORT]",
        help="find this host there, without asking the name server",
        **exact,
    )


def resolved(texts: list[str]) -> dict[str, str]:
    """Returns the addresses of --resolve by host."""
    found = dict(text.partition(":")[::2] for text in texts)
    for host, address in found.items():
        if not address:
            raise UserError(f"--resolve {host}: HOST:IP or HOST:IP:PORT is expected")
    return found


def add_choice(group: argparse._ArgumentGroup) -> None:
    """Adds which pairs are taken."""
    add, size = group.add_argument, group.add_mutually_exclusive_group().add_argument
    size("--per-query", type=positive, metavar="T", help="pairs a query (default: 20000)")
    size("--pairs", type=positive, metavar="N", help="solve the cap for about N pairs instead")
    add(
        "--sampling",
        choices=["independent", "shared"],
        default="independent",
        help="each query draws by itself, or all in one order, which fills the caps with fewer "
        "pictures (default: %(default)s)",
    )
    add(
        "--match",
        choices=["default", "metaclip"],
        default="default",
        help="normalise text and query, or match exactly as MetaCLIP does (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="of the draw (default: %(default)s)")
    add(
        "--texts-per-image",
        type=positive,
        default=1,
        metavar="N",
        help="distinct texts kept for one image URL (default: %(default)s)",
    )
    length = {"type": positive, "metavar": "N"}
    add("--min-text", default=1, help="characters at least (default: %(default)s)", **length)
    add("--max-text", default=1000, help="characters at most (default: %(default)s)", **length)
    add(
        "--language",
        action="append",
        default=[],
        metavar="CODE",
        help="keep texts in this language only, as en or de; may be repeated",
    )
    add("--identify-language", action="store_true", help="fill the language column")


def add_inputs(add: Add) -> None:
    """Adds how inputs are read."""
    add("--url-column", metavar="NAME", help="of tables; recognised by name unless set")
    add("--text-column", metavar="NAME", help="of tables; recognised by name unless set")
    add("--files", type=positive, metavar="N", help="take only N of cc:'s files, by stable hash")
    add(
        "--common-crawl",
        choices=["https", "s3"],
        default="https",
        help="where cc: reads from (default: %(default)s)",
    )


def add_pictures(add: Add) -> None:
    """Adds what becomes of a picture."""
    pixels = {"type": positive, "metavar": "PIXELS"}
    add("--image-size", default=256, help="of the resized side (default: %(default)s)", **pixels)
    add(
        "--resize-mode",
        choices=["border", "keep_ratio", "keep_ratio_largest", "center_crop", "no"],
        default="keep_ratio",
        help="as img2dataset's: keep_ratio fits the shorter side, keep_ratio_largest the longer, "
        "border pads to a square, center_crop cuts one, no keeps the size (default: %(default)s)",
    )
    add(
        "--min-image-size",
        type=natural,
        default=0,
        metavar="PIXELS",
        help="of the shorter side as it is sent: smaller pictures are left out (default: "
        "%(default)s)",
    )
    add(
        "--max-aspect-ratio",
        type=float,
        default=0.0,
        metavar="RATIO",
        help="of the longer side to the shorter; 0 is no limit (default: %(default)s)",
    )
    add("--upscale", action="store_true", help="resize pictures that are smaller, too")
    add(
        "--encode-quality",
        type=positive,
        default=95,
        metavar="1-100",
        help="of JPEG, where a picture must be encoded again (default: %(default)s)",
    )
    add(
        "--max-picture-bytes",
        type=positive,
        default=20_000_000,
        metavar="N",
        help="of a picture as it is sent (default: %(default)s)",
    )
    add(
        "--max-pixels", default=100_000_000, help="before decoding (default: %(default)s)", **pixels
    )
    add(
        "--placeholder-urls",
        type=natural,
        default=10,
        metavar="N",
        help="a picture under N URLs with N texts is left out; 0 keeps all (default: %(default)s)",
    )


def add_manners(add: Add) -> None:
    """Adds how hosts are asked."""
    number = {"type": positive, "metavar": "N"}
    add_agent(add)
    add(
        "--blocklist",
        action="append",
        default=[],
        metavar="FILE",
        help="what is not to be asked for or stored, an entry a line: `url https://...`, `host "
        "example.org` (with all below it), `page-host example.org`, `sha256 HEX`, `pair HEX`; may "
        "be repeated, and be longer when the run is resumed",
    )
    add(
        "--host-rate",
        type=float,
        default=5.0,
        metavar="PER_SECOND",
        help="requests to one host over all workers; 0 is no limit (default: %(default)s)",
    )
    add(
        "--host-concurrency",
        default=2,
        help="requests to one host at a time (default: %(default)s)",
        **number,
    )
    add(
        "--address-concurrency",
        type=natural,
        metavar="N",
        help="requests to one IP address at a time in a process, however many hosts it has; 0 is "
        "no limit (default: 16, and none for --allow-address and --resolve)",
    )
    add(
        "--give-up-after",
        type=natural,
        default=5,
        metavar="N",
        help="failures of a host in a row, and one more after half a minute: the rest of its "
        "pictures are not asked for in this shard; 0 never gives up (default: %(default)s)",
    )
    add(
        "--no-tdmrep",
        action="store_true",
        help="do not ask each host for its /.well-known/tdmrep.json, by which it may reserve text "
        "and data mining (default: ask once, after robots.txt)",
    )
    seconds = {"type": float, "metavar": "SECONDS"}
    add(
        "--timeout",
        default=60.0,
        help="for one picture with all its redirects (default: %(default)s)",
        **seconds,
    )
    add(
        "--connect-timeout",
        default=10.0,
        help="for a name, and for a connection with its TLS handshake (default: %(default)s)",
        **seconds,
    )
    add(
        "--read-timeout",
        default=10.0,
        help="of silence, before the answer and within it (default: %(default)s)",
        **seconds,
    )
    add(
        "--min-speed",
        type=natural,
        default=1000,
        metavar="BYTES",
        help="a second that a body must bring once ten seconds are over (default: %(default)s)",
    )
    add(
        "--shard-timeout",
        default=3600.0,
        help="for one shard, beyond what its slowest host takes at its rate (default: %(default)s)",
        **seconds,
    )
    add(
        "--retries",
        type=int,
        default=2,
        metavar="N",
        help="after failures that may pass (default: %(default)s)",
    )
    add(
        "--concurrency",
        default=256,
        help="pictures under way in a process (default: %(default)s)",
        **number,
    )
    add_addresses(add)


def add_work(add: Add) -> None:
    """Adds how much is done, where and in what parts."""
    add(
        "--until",
        choices=["extract", "unique", "count", "select"],
        help="stop after this stage; nothing is asked of the web",
    )
    add(
        "--max-hours",
        type=float,
        metavar="H",
        help="stop after so long: shards under way have five minutes to end, the same command goes "
        "on (default: no limit)",
    )
    add(
        "--max-bytes",
        type=parse_size,
        metavar="SIZE",
        help="stop in the same way once the pictures that this command has fetched make up so "
        "much, as 500GB (default: no limit)",
    )
    add(
        "--keep-going",
        action="store_true",
        help="go on where everything fails at once (no network, a broken codec, a blocked address)",
    )
    add(
        "--lanes",
        type=positive,
        default=8,
        metavar="L",
        help="into which hosts are hashed; at least as many as workers (default: %(default)s)",
    )
    add(
        "--shard-size",
        type=positive,
        default=10_000,
        metavar="PAIRS",
        help="at most 10000 (default: %(default)s)",
    )
    add(
        "--waves",
        type=positive,
        default=4,
        metavar="N",
        help="rounds of fetching that fill up what failed (default: %(default)s)",
    )
    add(
        "--wave-hours",
        type=float,
        default=24.0,
        metavar="HOURS",
        help="of a host's rate that a wave plans at most (default: %(default)s)",
    )
    add(
        "--workers",
        type=positive,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes on this machine (default: its cores)",
    )
    add(
        "--runner",
        default=LOCAL_RUNNER,
        metavar="NAME",
        help="Beam's runner; %(default)s is this machine, other options then go to Beam",
    )
