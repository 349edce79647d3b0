"""What decides a crawl's result, kept in OUT/.crawl/run.json: the same command resumes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.crawl.state import FOLDER
from wit import __version__, storage
from wit.errors import UserError

OPTIONS = {  # of entries that are not called as their options are
    "fetch user_agent": "contact or --user-agent",
    "fetch per_host_concurrency": "host-concurrency",
    "fetch total_seconds": "timeout",
    "warc_bytes": "warc-size",
    "fetch max_bytes": "max-page-bytes",
}


@dataclass(frozen=True)
class Config:
    """Everything that decides which records a crawl writes, given the same web.

    Attributes:
        seeds: normal URLs, in order.
        scope: `site`, `host` or `any`.
        hosts: further hosts.
        max_pages: pages kept.
        max_host_pages: of one host; None for no limit.
        max_depth: links from a seed; None for no limit.
        max_bytes: of the bodies kept; None for no limit.
        sitemaps: whether they are read.
        other_types: whether answers that are no HTML pages are kept.
        warc_bytes: of a WARC file's records before packing.
        fetch: the part of `wit.web.policy.WebPolicy` that decides the result.
    """

    seeds: list[str]
    scope: str = "site"
    hosts: list[str] = field(default_factory=list)
    max_pages: int = 1000
    max_host_pages: int | None = None
    max_depth: int | None = None
    max_bytes: int | None = None
    sitemaps: bool = True
    other_types: bool = False
    warc_bytes: int = 1_000_000_000
    fetch: dict[str, Any] = field(default_factory=dict)
    version: str = __version__


def open_crawl(out: str, config: Config) -> None:
    """Starts a crawl in a folder, or makes sure that the one there is the same.

    Raises:
        UserError: naming the first option that differs, or where the folder holds something else.
    """
    path = storage.join(out, FOLDER, "run.json")
    if not storage.exists(path):
        if [name for name in storage.list_names(out) if not name.startswith(".")]:
            raise UserError(f"{out}: not empty and not a crawl; choose another --out")
        storage.write_json(path, asdict(config))
        return
    saved = storage.read_json(path)
    before = _entries(saved)
    for name, value in _entries(asdict(config)).items():
        old = before.get(name)
        if old == value:
            continue
        if name == "version":
            what = f"version {old} of this program, now {value}; install that one"
        elif name == "seeds":
            known = next((s for s in [*value, *old] if s not in old or s not in value), value[0])
            what = f"other seeds (or another order), as {known}; repeat those it was started with"
        else:
            said = (repr(v) if v not in (None, []) else "not set" for v in (old, value))
            option = OPTIONS.get(name, name.removeprefix("fetch ").replace("_", "-"))
            what = f"--{option} {', now '.join(said)}; repeat the options it was started with"
        raise UserError(f"{out}: this folder holds a crawl of {what}, or choose another --out")


def _entries(config: dict[str, Any]) -> dict[str, Any]:
    fetch = {f"fetch {name}": value for name, value in config.get("fetch", {}).items()}
    return {**{name: value for name, value in config.items() if name != "fetch"}, **fetch}
