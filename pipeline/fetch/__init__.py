"""A lane's work: fetch, decode, resize; knows nothing of Beam.

with Fetcher(FetchPolicy("Name/1.0 (+https://example.org)")) as fetcher:
    for fetched in fetcher.run(urls, HostRules.from_table(robots_table)):
        ...
"""

from pipeline.fetch.fetcher import Fetcher
from pipeline.fetch.policy import FetchPolicy
from pipeline.fetch.schedule import Fetched
from wit.web.robots import HostRule, HostRules

__all__ = ["FetchPolicy", "Fetched", "Fetcher", "HostRule", "HostRules"]
