"""`wit harvest --dry-run`: samples, measures, and shows what the run will take."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from pipeline.forecast import costs
from pipeline.forecast.forecast import find_hosts, find_pairs, find_stages
from pipeline.forecast.frame import choose, make_frame, sample_bytes
from pipeline.forecast.sample import read_sample
from pipeline.forecast.table import Forecast, lines, to_json
from pipeline.options import make_config
from pipeline.sources import Source
from wit import storage
from wit.console import Screen


def dry_run(options: argparse.Namespace) -> Forecast:
    """Prints the forecast of the harvest that the options mean; nothing is written into --out."""
    with Screen() as screen:
        found = forecast(options, screen.begin)
    if options.json == "-":
        print(json.dumps(to_json(found), indent=1))
        return found
    if options.json:
        storage.write_json(options.json, to_json(found))
    print("\n".join(lines(found)))
    return found


def forecast(options: argparse.Namespace, tell: Callable[[str], None]) -> Forecast:
    """Returns what the harvest will take.

    As many processes measure at the same time as the run will have on this machine, since cores
    that share a cache or are halves of one are slower together.

    Raises:
        UserError: for inputs, a list or settings that the harvest would refuse.
    """
    config, queries = make_config(options, tell)
    frame = make_frame([Source.from_json(source) for source in config.sources], options.seed)
    wanted = sample_bytes(frame.total.mid, options.sample)
    pieces = choose(frame, wanted, options.seed)
    processes = min(options.workers, os.cpu_count() or 1)
    spawned = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="wit-forecast-") as folder,
        ProcessPoolExecutor(processes, mp_context=spawned) as pool,
    ):
        sample = read_sample(frame, pieces, config, queries.table, folder, pool, processes, tell)
        tell("estimating duplicates and what queries draw")
        pairs = find_pairs(frame, sample, config, options.success)
        hosts = find_hosts(sample, pairs, config)
        tell("measuring the stages after extraction")
        number = max(pairs.candidates.mid, 1.0)
        part = min(1.0, pairs.unique.mid / number)
        measured = costs.measure(sample, config, part, pairs.cap.mid, number, pool, processes)
    known = frame, sample, pairs, hosts, measured
    how = options.workers, options.success, options.until
    stages = find_stages(*known, config, *how)
    return Forecast(*known, stages, config, *how, options.price)
