"""A download: what is wanted and not there is asked for, and brought."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from query_list.download import plan
from query_list.download.command import MOST_DAYS, Wish
from query_list.download.dumps import Shelf, expected_place, find_date, plan_dump
from query_list.download.state import (
    File,
    Source,
    State,
    check_disk,
    day_of,
    files_told,
    open_state,
)
from query_list.download.web import FIRST_TRIES, Pace, Unreachable, Web
from query_list.download.work import bring
from wit import storage
from wit.console import Screen
from wit.errors import UserError

HOUR = re.compile(r"-[0-9]{2}0000\.gz$")
DATE = "DATE"  # where it is not known


def run(wish: Wish) -> int:
    """Downloads what is not there yet; the exit code.

    Raises:
        UserError: what is wrong; where a server cannot be reached, with the files to bring by hand.
    """
    with storage.FolderLock(wish.out, storage.owner_text()), Screen() as screen:
        storage.sweep(wish.out)
        state = open_state(wish.out, wish.wiki, wish.day)
        try:
            with Web(wish.agent, Pace(screen.done), FIRST_TRIES) as web:
                prepare(wish, state, web, screen)
            wanted = state.wanted(wish.sources)
            check_disk(state, wanted)
            bring(wish.out, wanted, wish.agent, state.note, screen)
        except Unreachable as error:
            raise UserError(
                f"{error}; run the same command again when there is a network, leave a source out "
                "with --without, or bring these files by hand and run wit queries build "
                f"{wish.out}, which knows them by what is in them:\n"
                + "\n".join(f"  {line}" for line in by_hand(wish, state))
            ) from error
    news = f"{len(wanted):,} of them new" if wanted else "nothing to download"
    print(f"{files_told(state.files())} in {wish.out}, {news}")
    return 0


def prepare(wish: Wish, state: State, web: Web, screen: Screen) -> None:
    """Asks for the files of what is wanted and not all there, and writes them down."""
    shelf = _shelf(wish, web, screen)
    span = wish.first is not None and wish.last is not None
    if state.date is None and ("dump" in wish.sources or ("views" in wish.sources and not span)):
        screen.begin(f"asking {wish.base} for the newest dump of {wish.wiki}")
        state.date = find_date(shelf)
        screen.done(f"the newest finished dump of {wish.wiki} is that of {state.date}")
    for name in wish.sources:
        settings = settings_of(name, wish, state.date)
        saved = state.source(name)
        for key, value in saved.settings.items():
            state.agree(key, value, settings.get(key))
        if saved.files and all(state.has(file) for file in saved.files):
            continue
        screen.begin(f"asking for the files of: {name}")
        files, missing = _plan(name, wish, state, shelf, settings)
        state.sources[name] = Source(settings, files, missing)
        state.save()
        screen.done(f"{name}: {files_told(files)}")
        if missing:
            screen.done(f"left out, because the server lacks them: {len(missing)}, as {missing[0]}")


def _shelf(wish: Wish, web: Web, screen: Screen) -> Shelf:
    def asked(what: str) -> None:
        screen.now(f"asking for {what}")

    return Shelf(web, wish.base, wish.wiki, wish.form, asked)


def _plan(
    name: str, wish: Wish, state: State, shelf: Shelf, settings: dict[str, Any]
) -> tuple[list[File], list[str]]:
    """A source's files, those that were downloaded as they were, and the URLs that are missing."""
    known = {file.path: file for file in state.source(name).files}
    done = {path: file for path, file in known.items() if state.has(file)}
    missing: list[str] = []
    if name == "dump":
        files = plan_dump(shelf, state.date or "", set(known))
    elif name == "views":
        places = list(_view_places(wish, settings))
        files, missing = plan.plan_views(shelf.web, places, done, shelf.asked)
    else:
        files = plan.plan_wordnet(shelf.web, wish.wordnet, shelf.asked)
    stale = done.keys() - {file.path for file in files}
    if stale:
        raise UserError(
            f"{wish.out}/{min(stale)}: was downloaded, but the server no longer lists it; choose "
            "another --out"
        )
    return [_merged(file, done.get(file.path)) for file in files], missing


def _merged(file: File, done: File | None) -> File:
    """A file as it is listed now, or as it was downloaded where that is the same."""
    if done is None or done.bytes != file.bytes or file.sha1 not in (None, done.sha1):
        return file
    return done


def settings_of(name: str, wish: Wish, day: str | None) -> dict[str, Any]:
    """Returns what decides which files a source has; `day` is the dump's."""
    if name == "dump":
        return {"format": wish.form}
    if name == "wordnet":
        return {"version": plan.WORDNET_VERSION}
    last = wish.last or day_of(day or "") - timedelta(1)
    first = wish.first or last - timedelta(wish.every * (plan.DAYS - 1))
    if not 0 <= (last - first).days < MOST_DAYS:
        raise UserError(f"page views from {first} to {last}: set both with --from and --to")
    return {"views": wish.views, "from": f"{first}", "to": f"{last}", "every": wish.every}


def _view_places(wish: Wish, settings: dict[str, Any]) -> Iterator[plan.Place]:
    first, last = (date.fromisoformat(settings[name]) for name in ("from", "to"))
    return plan.view_places(wish.base, wish.views, first, last, wish.every)


# --- without a network ------------------------------------------------------------------------


def by_hand(wish: Wish, state: State) -> list[str]:
    """Returns `URL -> place` of each file that is not there, as far as they can be known."""
    lines: dict[str, None] = {}
    for name in wish.sources:
        if name in state.sources:
            places = [plan.Place(file.path, file.url) for file in state.wanted((name,))]
        else:
            places = list(_expected(name, wish, state.date))
        for place in places:
            url, path = (HOUR.sub("-{00..23}0000.gz", text) for text in (place.url, place.path))
            lines[f"{url} -> {storage.join(wish.out, path)}"] = None
    if state.date is None and any(DATE in line for line in lines):
        lines[f"where {DATE} is that of a finished dump"] = None
    return list(lines)


def _expected(name: str, wish: Wish, day: str | None) -> Iterator[plan.Place]:
    """A source's files as they must be, before a server was asked."""
    if name == "wordnet":
        yield plan.wordnet_place(wish.wordnet)
    elif name == "dump":
        yield expected_place(wish.base, wish.wiki, wish.form, day or DATE)
    elif day or (wish.first and wish.last):
        yield from _view_places(wish, settings_of(name, wish, day))
    else:
        tree = f"{wish.base}/{plan.VIEW_TREES[wish.views]}"
        yield plan.Place("views", f"{tree}/, the {plan.DAYS} days before {DATE}")
