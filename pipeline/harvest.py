"""`wit harvest`: the whole flow on one screen.

    sources -> extract and match -> unique -> count                          (once)
            -> collect -> thresholds -> select -> robots -> lanes -> fetch   (each wave)
            -> coverage -> manifest, report

Every arrow is a folder of files (pipeline.run), every step a stage of one Beam pipeline
(pipeline.stages) that skips what is finished.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import shlex
import sys
from typing import TYPE_CHECKING

from pipeline.arguments import LOCAL_RUNNER, parse
from wit.console import Screen

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    from pipeline.run import Run


def main(argv: list[str]) -> int:
    """Runs or resumes a harvest; the exit code."""
    options, beam_options = parse(argv)
    harvest(options, beam_options)
    return 0


def harvest(options: argparse.Namespace, beam_options: list[str]) -> Run:
    """Takes a harvest from wherever its folder is to its end."""
    with Screen() as screen:
        screen.now("reading the query list")
        from pipeline.options import make_config
        from pipeline.queries import install
        from pipeline.run import open_run
        from wit import shards, storage

        config, queries = make_config(options)
    with storage.FolderLock(options.out, storage.owner_text()):
        run = open_run(options.out, config)
        storage.sweep(run.out)
        shards.sweep(run.path("shards"))
        install(run, queries)
        run_stages(run, options, beam_options)
        if options.until:
            from pipeline.summary import so_far

            print("\n".join(so_far(run)))
            print(f"stopped after {options.until}, as asked; without --until the run goes on")
        else:
            from pipeline.summary import cap_line, summarise

            tell(run, summarise(run))
            if run.config.pairs is not None:
                print(cap_line(run))
    return run


def tell(run: Run, funnel: dict[str, int]) -> None:
    """Prints where the candidates went and where the report is."""
    links = sum(funnel.values())
    print(f"{links:,} image links and rows, each in one row of:")
    for reason, count in sorted(funnel.items(), key=lambda item: (-item[1], item[0])):
        if count:
            print(f"  {count:>12,}  {reason}")
    print(f"shards   {run.path('shards')}")
    print(f"report   {run.path('report.html')}")


def run_stages(run: Run, options: argparse.Namespace, beam_options: list[str]) -> None:
    """Runs every stage that is not finished, as one Beam pipeline, and shows how far it is."""
    logging.getLogger().setLevel(logging.ERROR)  # Beam tells at length what is no trouble
    from pipeline.monitor import watch
    from pipeline.options import reach_settings
    from pipeline.stages import Reach, chain

    local = options.runner == LOCAL_RUNNER
    reach = Reach(
        session=secrets.token_hex(4),
        fetch=reach_settings(options),
        workers=options.workers if local else 0,
    )

    def execute() -> None:
        import apache_beam as beam

        runner, settings = choose_runner(options, beam_options)
        with beam.Pipeline(runner, settings) as pipeline:
            chain(pipeline, run, reach, options.until)

    watch(run, reach.session, execute)


def choose_runner(
    options: argparse.Namespace, beam_options: list[str]
) -> tuple[FnApiRunner | str, PipelineOptions]:
    """Returns Beam's runner and options: on this machine as many processes as asked for."""
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    if options.runner != LOCAL_RUNNER:
        return options.runner, PipelineOptions(beam_options)
    settings = PipelineOptions([f"--direct_num_workers={options.workers}"])
    if options.workers == 1:
        return FnApiRunner(), settings
    command = [sys.executable, "-m", "pipeline.worker", str(os.getpid())]
    environment = SubprocessSDKEnvironment.from_command_string(f"exec {shlex.join(command)}")
    return FnApiRunner(environment), settings
