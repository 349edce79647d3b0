r"""`wit queries build`: from dumps, page views and WordNet to the list, on one screen.

    dumps -> extract -> words -> bigrams -> pmi   \
    titles of the dumps, page views -> views       > join -> queries.parquet, .json, .html
    WordNet                                       /

Every arrow is a folder of files (query_list.run), every step a stage of one Beam pipeline
(query_list.stages) that skips what is finished.
"""

from __future__ import annotations

import argparse
import logging
import time

from query_list.inputs import CIRRUS, XML, Inputs, find_inputs
from query_list.run import SOURCES, Config, Run, cut_work, open_run
from wit import runner, storage, text
from wit.console import Screen, duration
from wit.errors import UserError

LOG = "work/build.log"


def build(options: argparse.Namespace, beam_options: list[str]) -> Run:
    """Builds a list, or goes on with one that was stopped."""
    started = time.monotonic()
    with Screen() as screen:
        screen.begin("looking at the inputs")
        runner.check_loads(options.runner)
        config = make_config(options, find_inputs(options.inputs))
    with storage.FolderLock(options.out, storage.owner_text()):
        run = open_run(options.out, config)
        storage.sweep(run.out)
        run_stages(run, options, beam_options)
        with Screen() as screen:
            screen.begin("joining the sources")
            from query_list import finish

            facts = finish.write_list(run)
    print("\n".join(finish.told(run, facts)))
    print(f"{duration(time.monotonic() - started)} in all")
    return run


def run_stages(run: Run, options: argparse.Namespace, beam_options: list[str]) -> None:
    """Runs every stage that is not finished, as one Beam pipeline, and shows how far it is."""
    logging.getLogger().setLevel(logging.ERROR)  # Beam tells at length what is no trouble
    from query_list import kernels, stages

    if stages.is_finished(run):
        return
    with Screen() as screen:
        screen.begin("loading the kernels (compiled once a machine)")
        kernels.main()
    stages.forget_plans(run)

    def execute() -> None:
        import apache_beam as beam

        chosen = runner.choose(options.runner, options.workers, beam_options)
        with beam.Pipeline(*chosen) as pipeline:
            stages.chain(pipeline, run)

    runner.watch(execute, options.runner, run.path(LOG), lambda screen: stages.board(run, screen))


def make_config(options: argparse.Namespace, found: Inputs) -> Config:
    """Returns what decides the list, with the dumps cut into splits.

    Raises:
        UserError: where a source's input is missing, or a dump is of another Wikipedia.
    """
    from query_list import cirrus, dump, pages

    sources = [name for name in SOURCES if name in options.sources]
    _check_complete(sources, found)
    wiki = options.wiki
    splits: list[list[int]] = []
    for number, (path, kind) in enumerate(found.dumps):
        site = {XML: dump, CIRRUS: cirrus}[kind].read_site(path)
        wiki = wiki or site.dbname
        pages.check_site(path, site, wiki)
        cuts = pages.plan_splits(path, options.split_bytes)
        splits += [[number, start, end] for start, end in cuts]
    dumps = [{"path": p, "size": storage.size(p), "format": kind} for p, kind in found.dumps]
    titles = "wikipedia_title" in sources
    return Config(
        wiki=wiki,
        dumps=dumps,
        splits=splits,
        views=[{"path": p, "size": storage.size(p)} for p in found.views] if titles else [],
        wordnet=found.wordnet if "wordnet" in sources else None,
        sources=sources,
        word_count=options.word_count,
        bigram_count=options.bigram_count or options.word_count,
        size=options.size,
        ratio=options.ratio,
        least_pmi=options.min_pmi,
        least_views=options.min_views,
        normalisation=text.VERSION,
        **cut_work(sum(entry["size"] for entry in dumps), options.split_bytes, len(splits)),
    )


def _check_complete(sources: list[str], found: Inputs) -> None:
    missing = []
    if not found.dumps and any(name.startswith("wikipedia") for name in sources):
        missing.append("a Wikipedia dump (enwiki-DATE-pages-articles-multistream.xml.bz2)")
    if not found.views and "wikipedia_title" in sources:
        missing.append("page views (pageviews-DATE-user.bz2) for wikipedia_title")
    if not found.wordnet and "wordnet" in sources:
        missing.append("WordNet (WNdb-3.0.tar.gz or its dict folder) for wordnet")
    if missing:
        raise UserError(
            f"missing among the inputs: {'; '.join(missing)}; fetch them with wit queries "
            "download, or leave a source out with --sources"
        )
