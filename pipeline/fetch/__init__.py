"""A lane's work: fetch, decode, resize; knows nothing of Beam.

    with Fetcher(FetchPolicy("Name/1.0 (+https://example.org)")) as fetcher:
        for fetched in fetcher.run(urls, HostRules.from_table(robots_table)):
            ...

What is named here is imported when it is asked for: the decoder processes need none of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.fetch.fetched import Fetched
    from pipeline.fetch.fetcher import Fetcher
    from pipeline.fetch.policy import FetchPolicy
    from wit.web.robots import HostRule, HostRules

_MODULES = {
    "FetchPolicy": "pipeline.fetch.policy",
    "Fetched": "pipeline.fetch.fetched",
    "Fetcher": "pipeline.fetch.fetcher",
    "HostRule": "wit.web.robots",
    "HostRules": "wit.web.robots",
}
__all__ = ["FetchPolicy", "Fetched", "Fetcher", "HostRule", "HostRules"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
