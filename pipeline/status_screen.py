"""What `wit harvest status` knows of a run, as lines for a person."""

from __future__ import annotations

import re
import time
from typing import Any

from pipeline.stage_lines import StageRow, UnderWay
from wit.console import duration

PROCESS = re.compile(r"(.*) \((process .+?)(?:, since .+)?\)", re.DOTALL)
LONGEST = 80  # characters of a command that are shown
SHOWN = 8  # kinds of failures
WORDS = {  # of states in which the run is not at its end
    "stopped": "stopped {said}, at {when}",
    "interrupted": "stopped with Ctrl-C at {when}",
    "failed": "failed at {when}: {said}",
    "killed": "killed at {when}, its last sign of life",
    "out of sight": "no sign of life since {when}, and {command} cannot be seen from here: it was "
    "killed, or is busy with one long step",
    "unknown": "no command works on it",
}


def render(found: dict[str, Any]) -> str:
    """Returns the screen of what `pipeline.status.look` has found."""
    lines = [headline(found), *facts(found)]
    for row in found["stages"]:
        lines.append(StageRow(**row).line())
    if found["stage"] is not None:
        stage = found["stage"]
        names = ("name", "tasks", "share", "unit", "rate", "left")
        lines.append(UnderWay(**{name: stage[name] for name in names}).line())
        if found["fetching"] is not None:
            lines += fetching_lines(found["fetching"], found["state"] == "running")
    elif found["state"] == "running":
        steps = {"start": "starting", "summary": "writing the summary and the report"}
        lines.append(steps.get(found["step"], "between two stages"))
    return "\n".join(clean(line) for line in [*lines, *room_lines(found)])


def headline(found: dict[str, Any]) -> str:
    """Returns the line that says how the run stands."""
    command = shortened(found["command"] or "")
    if found["state"] == "running":
        since = duration(max(0.0, found["time"] - found["began"]))
        return f"{found['out']}: running for {since}, since {moment(found['began'])}: {command}"
    if found["state"] == "finished":
        when = f" at {moment(found['ended'])}" if found["ended"] else ""
        shards = count(found["shards"]["standing"], "shard")
        said = f"finished{when}: {count(found['pictures'], 'picture')} in {shards}"
    else:
        when = moment(found["ended"] or found["seen"])
        said = WORDS[found["state"]].format(when=when, said=found["said"], command=command)
        said = f"not finished: {said}; the same command goes on from there"
    if found["owner"]:
        said += f"; in use now by {shortened(found['owner'])}"
    return f"{found['out']}: {said}"


def facts(found: dict[str, Any]) -> list[str]:
    """Returns what the run is made of."""
    crawl = f"; crawl {found['crawl']} of {found['crawls']}" if found["crawls"] > 1 else ""
    queries = "1 query" if found["queries"] == 1 else f"{found['queries']:,} queries"
    return [f"of {count(found['inputs'], 'input')} and {queries}{crawl}"]


def fetching_lines(lately: dict[str, Any], runs: bool) -> list[str]:
    """Returns what came lately and the slowest hosts."""
    came = lately["pictures"]
    span = f"in the last {duration(lately['seconds'])}" + ("" if runs else " before that")
    if not came:
        return [f"  {span} nothing came"]
    lines = [
        f"  {span}: {lately['pictures_per_second']:,.1f} pictures/s, "
        f"{lately['bytes_per_second'] / 1e6:,.2f} MB/s",
        f"  {lately['successes']:>9,}  {lately['successes'] / came:>4.0%}  success",
    ]
    failures = list(lately["failures"].items())
    others = sum(number for _, number in failures[SHOWN:])
    failures = failures[:SHOWN] + ([("other failures", others)] if others else [])
    lines += [f"  {number:>9,}  {number / came:>4.0%}  {name}" for name, number in failures]
    if lately["hosts"]:
        lines.append("  the slowest hosts of the shards under way:")
    for host in lately["hosts"]:
        left, takes = count(host["left"], "picture"), duration(host["seconds"])
        lines.append(f"    {host['host']:<32} {left:>15} left  {takes:>10}  {host['why']}")
    return lines


def room_lines(found: dict[str, Any]) -> list[str]:
    """Returns the lines of shards, limits and the disk."""
    lines, planned = [], found["shards"]["planned"]
    if planned:
        lines.append(
            f"shards   {found['shards']['standing']:,} of {planned:,} planned so far stand"
        )
    hours, most = found["limits"].get("hours"), found["limits"].get("bytes")
    if hours and found["state"] == "running":
        left = found["began"] + hours * 3600 - found["time"]
        lines.append(f"limit    --max-hours {hours:g}: {duration(max(0.0, left))} left")
    if most and found["state"] == "running":
        lines.append(f"limit    --max-bytes: {found['fetched'] / most:.0%} of {size(most)} came")
    if found["disk_free"] is not None and found["state"] != "finished":
        lines.append(f"disk     {size(found['disk_free'])} free")
    return lines


def shortened(owner: str) -> str:
    """Returns a lock's owner in a line: the start of its command, and its process."""
    parts = PROCESS.fullmatch(owner)
    command, where = (parts[1], f" ({parts[2]})") if parts else (owner, "")
    return command[:LONGEST] + ("..." if len(command) > LONGEST else "") + where


def count(number: int, noun: str) -> str:
    """Returns 1 shard, 2 shards."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def size(number: float) -> str:
    """Returns 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:,.0f} B" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def moment(seconds: float | None) -> str:
    """Returns a time as a clock on the wall here has it."""
    if seconds is None:
        return "an unknown time"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def clean(line: str) -> str:
    """Returns a line without what a terminal would obey: hosts and messages are strangers'."""
    return "".join(c if c.isprintable() else "?" for c in line)
