"""`wit harvest`: the whole flow on one screen.

    sources -> extract and match -> keys -> unique -> count                  (once)
            -> collect -> thresholds -> select -> robots -> lanes
            -> pilot (first wave) -> fetch                                   (each wave)
            -> coverage -> manifest, report

Every arrow is a folder of files (pipeline.run), every step a stage of one Beam pipeline
(pipeline.stages) that skips what is finished.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from typing import TYPE_CHECKING

from pipeline.arguments import parse
from wit import runner
from wit.console import Screen
from wit.errors import UserError

if TYPE_CHECKING:
    from pipeline.progress import Clock
    from pipeline.run import Run
    from pipeline.session import Record


def main(argv: list[str]) -> int:
    """Runs or resumes a harvest, forecasts it, or says how far one is; the exit code."""
    if argv[:1] == ["status"]:
        from pipeline.status import main as status

        return status(argv[1:])
    options, beam_options = parse(argv)
    if options.dry_run:
        from pipeline.forecast.command import dry_run

        dry_run(options)
        return 0
    harvest(options, beam_options)
    return 0


def harvest(options: argparse.Namespace, beam_options: list[str]) -> Run:
    """Takes a harvest from wherever its folder is to its end."""
    from pipeline.progress import Clock

    clock = Clock()
    with Screen() as screen:
        screen.begin("starting")
        from pipeline import blocking, engine, fetching
        from pipeline.options import make_config
        from pipeline.queries import install
        from pipeline.run import open_run
        from pipeline.session import recorded
        from wit import shards, storage

        runner.check_loads(options.runner)
        engine.prepare(options, screen.done)
        config, queries = make_config(options, screen.begin)
        if sum(queries.left_out.values()):
            screen.done(queries.told(options.queries))
    owner = storage.owner_text()
    given = {"hours": options.max_hours, "bytes": options.max_bytes}
    with storage.FolderLock(options.out, owner):
        run = open_run(options.out, config)
        with recorded(run, owner, clock.started, given) as record:
            storage.sweep(run.out)
            shards.sweep(run.path("shards"))
            engine.sweep(run.out)
            fetching.remake_lost(run)
            fetching.finish_takedowns(run)
            with Screen() as screen:
                blocking.install(run, options.blocklist, screen.begin)
            install(run, queries.table)
            go_on(run, options, beam_options, clock, record)
    return run


def go_on(
    run: Run,
    options: argparse.Namespace,
    beam_options: list[str],
    clock: Clock,
    record: Record,
) -> None:
    """Takes a run that is in order to its end, or to where the command is to stop."""
    from pipeline import limits
    from wit import shards, storage

    stood = len(shards.list_shards(run.path("shards")))
    if not limits.is_at_end(run):
        storage.remove(run.path("report.html"))
    try:
        run_stages(run, options, beam_options, clock, record)
    except UserError as error:
        with contextlib.suppress(UserError, FileNotFoundError):  # the first error is to be told
            report_unfinished(run, f"it failed; {error}")
        raise
    if limit := limits.stopped_by(run, record.session):
        record.stop(f"by {limit}, as asked")
        report_unfinished(run, f"stopped by {limit}, as asked")
        print("\n".join(limits.last_lines(run, limit, stood)))
    elif options.until:
        from pipeline.summary import so_far

        record.stop(f"after {options.until}, as asked")
        if not limits.is_at_end(run):
            report_unfinished(run, f"stopped after {options.until}, as asked")
        print("\n".join(so_far(run)))
        print(f"stopped after {options.until}, as asked; without --until the run goes on")
    else:
        from pipeline.summary import cap_line, summarise, took

        record.sum_up()
        with Screen() as screen:
            screen.begin("writing the summary and the report")
            funnel = summarise(run, options.contact or options.user_agent or "")
            for line in took(run):
                screen.done(line)
        tell(run, funnel)
        if run.config.pairs is not None:
            print(cap_line(run))


def report_unfinished(run: Run, why: str) -> None:
    """Writes the report of a run that is not at its end."""
    from pipeline import summary

    summary.report_unfinished(run, why)


def tell(run: Run, funnel: dict[str, int]) -> None:
    """Prints where the candidates went and where the report is."""
    from pipeline import placeholders
    from wit import storage

    links = sum(funnel.values())
    print(f"{links:,} image links and rows, each in one row of:")
    for reason, count in sorted(funnel.items(), key=lambda item: (-item[1], item[0])):
        if count:
            print(f"  {count:>12,}  {reason}")
    ends = {"placeholders": placeholders.told(run)}
    if run.crawl:
        evicted = storage.read_json(run.path("manifest.json"))["evicted"]
        ends["evicted"] = f"{evicted:,} pictures in the shards are drawn no more: evicted.parquet"
    ends |= {"shards": run.path("shards"), "report": run.path("report.html")}
    ends["card"] = f"{run.path('README.md')}, croissant.json"
    for name, what in ends.items():
        print(f"{name:<13} {what}")


def run_stages(
    run: Run,
    options: argparse.Namespace,
    beam_options: list[str],
    clock: Clock,
    record: Record,
) -> None:
    """Runs every stage that is not finished, as one Beam pipeline, and shows how far it is."""
    logging.getLogger().setLevel(logging.ERROR)  # Beam tells at length what is no trouble
    from pipeline.fetching import waves_to_repair
    from pipeline.monitor import watch
    from pipeline.options import reach_settings
    from pipeline.progress import START
    from pipeline.stages import Reach, chain

    local = options.runner == runner.LOCAL_RUNNER
    reach = Reach(
        session=record.session,
        fetch=reach_settings(options),
        workers=options.workers if local else 0,
        deadline=clock.started + options.max_hours * 3600 if options.max_hours else None,
        limited=bool(options.max_hours or options.max_bytes),
        keep_going=options.keep_going,
        repair=waves_to_repair(run),
    )
    if options.keep_going:
        print("--keep-going: no jump of failures will stop this run", file=sys.stderr)

    clock.note(run, START, reach.session)

    def execute() -> None:
        import apache_beam as beam

        chosen = runner.choose(options.runner, options.workers, beam_options)
        with beam.Pipeline(*chosen) as pipeline:
            chain(pipeline, run, reach, options.until)

    watch(run, reach.session, options.runner, execute, options.max_bytes, reach.repair, record)
