"""`wit harvest status OUT`: how far a run is, from another shell; it only reads, a few files."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipeline import session
from pipeline.limits import is_at_end
from pipeline.progress import StageState, read_stage
from pipeline.run import Run, is_finished, load_run
from pipeline.stage_lines import UnderWay, under_way
from pipeline.status_screen import render
from wit import shards, storage
from wit.console import Arguments
from wit.errors import UserError
from wit.outcomes import SUCCESS
from wit.owner import Owner, read_owner

MOST = 1_000  # heartbeats of a stage that are read; more are counted and scaled
LATELY = 5  # minutes that rates and failures are said of
SILENT = 150.0  # seconds without a sign of life, where it cannot be seen whether the owner lives
WATCH = 5.0  # seconds
RUNNING, KILLED, OUT_OF_SIGHT, UNKNOWN = "running", "killed", "out of sight", "unknown"


def main(argv: Sequence[str]) -> int:
    """Runs `wit harvest status ...`; 0."""
    parser = Arguments(
        prog="wit harvest status",
        description="Says how far a harvest is, from another shell or another machine: while it "
        "runs, or after it has ended, failed or was killed. It writes nothing and stops nothing.",
    )
    parser.add_argument("out", metavar="OUT", help="the output folder of a harvest")
    parser.add_argument("--json", action="store_true", help="the same, for programs")
    parser.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=WATCH,
        metavar="SECONDS",
        help=f"again and again, until Ctrl-C (every {WATCH:g} seconds)",
    )
    options = parser.parse_args(argv)
    if options.watch is not None and not options.watch > 0:
        parser.error("--watch must be above 0")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            found = look(options.out)
            text = json.dumps(found, ensure_ascii=False) if options.json else render(found)
            clear = options.watch and not options.json and sys.stdout.isatty()
            print(("\x1b[H\x1b[2J" if clear else "") + text, flush=True)
            if options.watch is None:
                break
            time.sleep(options.watch)
    return 0


def look(out: str) -> dict[str, Any]:
    """Returns what is known of a run; times are seconds since 1970.

    `state` is running, finished, stopped, interrupted, failed, killed, `out of sight` (its machine
    cannot be seen from here, and it has given no sign of life lately) or unknown (no command has
    left word); `said` why it stopped or failed; `command`, `began`, `ended` and `seen`, the last
    sign of life, are of the last command. `stages` are the rows of those that are over, `stage` the
    one under way, `fetching` what came lately.

    Raises:
        UserError: where no harvest is.
    """
    out = out.rstrip("/") or out
    if not storage.exists(storage.join(out, "run.json")):
        raise UserError(f"{out}: no harvest there (no run.json); name the --out of a wit harvest")
    load_run.cache_clear()
    run = load_run(out)
    owner, record = read_both(run)
    current = find_current(run, record)
    state, seen = state_of(run, record, owner, current)
    rows = [row for row in record.get("rows", []) if row["tasks"] or row["seconds"] is not None]
    keys = [session.START, *(key for key, _, _ in record.get("stages", [])), session.SUMMARY]
    places = {key: place for place, key in enumerate(keys)}
    rows.sort(key=lambda row: places.get(row["key"], 0))
    fetched = sum(row["fetched"] for row in rows if row["session"] == record.get("session"))
    found: dict[str, Any] = {
        "out": out,
        "state": state,
        "said": record.get("said"),
        "command": record.get("owner"),
        "owner": owner.text if owner and owner.text != record.get("owner") else None,
        "time": time.time(),
        "began": record.get("began"),
        "ended": record.get("ended"),
        "seen": seen,
        "inputs": len(run.config.sources) - run.config.crawls[-1],
        "queries": run.config.queries["queries"],
        "crawl": run.crawl + 1,
        "crawls": len(run.config.crawls),
        "step": record.get("step"),
        "stages": rows,
        "stage": None,
        "fetching": None,
        "shards": count_shards(run),
        "limits": record.get("limits", {}),
        "disk_free": free_space(out),
    }
    if current and state != session.FINISHED:
        name, unit, planned = current
        begun, last = planned.spans[record["session"]]
        now = found["time"] if state == RUNNING else last
        stage = under_way(name, unit, planned, max(0.0, now - begun))
        found["stage"] = stage_facts(stage, planned, state == RUNNING)
        found["fetching"] = lately(planned, begun, last) if unit == "pictures" else None
        fetched += planned.fetched
    found["fetched"] = fetched
    if state == session.FINISHED:
        if record.get("how") != session.FINISHED:  # a later command had nothing to do, and failed
            found["ended"] = None
        manifest = storage.read_json(run.path("manifest.json"))
        found["pictures"] = manifest["totals"]["successes"]
    return found


def read_both(run: Run) -> tuple[Owner | None, dict[str, Any]]:
    """Returns the folder's owner and the record of its last command; {} where there is none.

    They are read once more where they do not fit: a command may have begun or ended in between.
    """
    for _ in range(2):
        owner, record = read_owner(run.out), session.read_record(run) or {}
        if record.get("ended") or (owner and owner.text == record.get("owner")):
            break
    return owner, record


def find_current(run: Run, record: dict[str, Any]) -> tuple[str, str, StageState] | None:
    """Returns name, unit and state of the stage that the last command planned last.

    None before the first, and once all are over.
    """
    name = record.get("session")
    over, found = set(record.get("over", [])), None
    for key, stage, unit in record.get("stages", []):
        if key not in over:
            state = read_stage(run, key, name, most=MOST)
            if state is None:
                break
            found = stage, unit, state
    return found


def state_of(
    run: Run,
    record: dict[str, Any],
    owner: Owner | None,
    current: tuple[str, str, StageState] | None,
) -> tuple[str, float | None]:
    """Returns the state, as of `look`, and the time of the last sign of life."""
    signs = [record.get("written"), owner.seen if owner else None]
    if current:
        signs.append(current[2].spans[record["session"]][1])
    seen = max((sign for sign in signs if sign is not None), default=None)
    is_own = owner is not None and owner.text == record.get("owner")
    if owner is not None and is_own and not record["ended"]:
        if owner.alive or (owner.alive is None and seen and time.time() - seen < SILENT):
            return RUNNING, seen
        if owner.alive is None:
            return OUT_OF_SIGHT, seen
    if is_finished(run) and is_at_end(run):
        return session.FINISHED, seen
    if not record:
        return UNKNOWN, seen
    return record["how"] if record["ended"] else KILLED, seen


def stage_facts(stage: UnderWay, state: StageState, runs: bool) -> dict[str, Any]:
    """Returns the stage under way for programs; it takes no less than its slowest host."""
    left = stage.left if runs else None
    if left is not None:
        left = max(left, *(host["seconds"] for host in state.hosts), 0.0)
    return {
        "name": stage.name,
        "tasks": stage.tasks,
        "done": state.done,
        "share": stage.share,
        "units": state.units,
        "unit": stage.unit,
        "rate": stage.rate,
        "left": left,
    }


def lately(state: StageState, begun: float, last: float) -> dict[str, Any]:
    """Returns what came in the last LATELY minutes until a stage's last heartbeat.

    `seconds` of them belong to the stage, that began at `begun`; the first may be part of a minute.
    """
    first = int(last // 60) - LATELY + 1
    minutes = [found for found in state.minutes if found["minute"] >= first]
    outcomes = Counter[str]()
    for found in minutes:
        outcomes.update(found["outcomes"])
    seconds = max(1.0, last - max(begun, first * 60.0))
    came = outcomes.total()
    return {
        "seconds": seconds,
        "pictures": came,
        "pictures_per_second": came / seconds,
        "bytes_per_second": sum(found["bytes"] for found in minutes) / seconds,
        "successes": outcomes.pop(SUCCESS, 0),
        "failures": dict(sorted(outcomes.items(), key=lambda item: (-item[1], item[0]))),
        "minutes": state.minutes,
        "hosts": state.hosts,
    }


def free_space(out: str) -> int | None:
    """Returns the bytes that are free where a local folder is; None of a remote one."""
    return shutil.disk_usage(storage.local_path(out)).free if storage.is_local(out) else None


def count_shards(run: Run) -> dict[str, int]:
    """Returns how many shards stand, and how many are planned so far; of all crawls."""
    planned = 0
    for wave in reversed(range(1, run.waves.stop)):
        with contextlib.suppress(FileNotFoundError):
            planned = storage.read_json(run.wave_path("lanes", wave, "shards.json"))["next"]
            break
    return {"standing": len(shards.list_shards(run.path("shards"))), "planned": planned}
