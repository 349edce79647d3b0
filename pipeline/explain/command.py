"""`wit explain WHAT DIR`: why a picture, a pair, a query or a host is in a dataset, or is not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from typing import Any

from pipeline.explain import crawl, hosts, queries, urls, words
from pipeline.explain.fetched import sample_story
from pipeline.explain.files import Files, Progress, no_progress
from pipeline.explain.lookup import candidates_are_gone, find_url
from pipeline.explain.pairs import pair_story
from pipeline.explain.story import WAITING, Step, Story, count_of
from pipeline.extract.urls import Base, resolve
from pipeline.run import load_run
from wit import storage
from wit.console import Arguments, Screen
from wit.errors import UserError
from wit.shards import list_shards

KINDS = ("url", "pair", "query", "host")
PAIR_ID, KEY = re.compile(r"[0-9a-fA-F]{32}"), re.compile(r"\d{9}")
NAME = r"(?:[\w-]+\.)+[^\W\d][\w-]*|(?:\d{1,3}\.){3}\d{1,3}|\[[0-9a-fA-F:.]+\]"
HOST = re.compile(rf"(?:https?://)?(?:{NAME})\.?(?::\d{{1,5}})?", re.IGNORECASE)
BARE_URL = re.compile(rf"(?:{NAME})(?::\d{{1,5}})?[/?].*", re.IGNORECASE)
SCHEME = re.compile(
    r"\s*(?:[a-z][a-z0-9+.-]*:)?//|\s*(?:data|blob|javascript|file):", re.IGNORECASE
)
LIMIT = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `wit explain ...`; 0."""
    parser = Arguments(
        prog="wit explain",
        description="Says every step that a picture, a pair, a query or a host went through, with "
        "the reason and the numbers, of a harvest that is finished, half-finished or failed. Looks "
        "things up, and reads no more than it must. Of a crawl: what became of a page's URL.",
    )
    parser.add_argument(
        "what",
        metavar="WHAT",
        help="a picture's URL in any spelling; a pair_id (32 hexadecimal digits) or a sample's key "
        "(9 digits); a query, or # and its id; a host",
    )
    parser.add_argument("folder", metavar="DIR", help="the output folder of a harvest or a crawl")
    parser.add_argument("--as", dest="kind", choices=KINDS, help="what WHAT is; else recognised")
    parser.add_argument(
        "--limit", type=int, default=LIMIT, metavar="N", help=f"texts, pairs shown ({LIMIT})"
    )
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    options = parser.parse_args(argv)
    if options.limit < 1:
        parser.error("--limit must be at least 1")
    with Screen() as screen:

        def progress(what: str, done: int, total: int) -> None:
            if screen.live or total > 100:
                screen.now(f"{what}: {done:,} of {total:,}")

        stories = explain(options.folder, options.what, options.kind, options.limit, progress)
    if options.json:
        print(json.dumps([story.to_json() for story in stories], indent=1, ensure_ascii=False))
    else:
        print(
            words.render(
                stories, shutil.get_terminal_size((120, 24)).columns - 1, options.limit + 2
            )
        )
    return 0


def explain(
    folder: str,
    what: str,
    kind: str | None = None,
    limit: int = LIMIT,
    progress: Progress = no_progress,
) -> list[Story]:
    """Returns the stories of what is asked for, in the output folder of a harvest or a crawl.

    Args:
        folder: the output folder.
        what: a URL, pair_id, key, query, `#` and a query's id, or host.
        kind: one of KINDS; None where it is to be recognised.
        limit: how many texts of a URL, and pairs of a query, are told.
        progress: called with what is read, how much is done and how much there is.

    Raises:
        UserError: for a folder of something else, and for what is none of its kind.
    """
    folder = folder.rstrip("/") or folder
    if not storage.exists(storage.join(folder, "run.json")) and crawl.is_crawl(folder):
        if kind not in (None, "url"):
            raise UserError(f"{folder}: a crawl, of which pages are explained by their URLs")
        return crawl.page_stories(folder, what, limit, progress)
    load_run.cache_clear()
    files = Files(load_run(folder), progress)
    chosen = kind or kind_of(what)
    if chosen == "url":
        return urls.url_stories(files, what, limit)
    if chosen == "pair":
        return pair_stories(files, what, limit)
    if chosen == "host":
        found = [hosts.host_story(files, _host_url(what))]
        if kind is None and "://" not in what and queries.find_query(files, what)[0] is not None:
            found.append(queries.query_story(files, what, limit))
        return found
    return [queries.query_story(files, what, limit)]


def kind_of(what: str) -> str:
    """Returns which of KINDS an argument is taken for."""
    if PAIR_ID.fullmatch(what) or KEY.fullmatch(what):
        return "pair"
    if HOST.fullmatch(what):
        return "host"
    return "url" if SCHEME.match(what) or BARE_URL.fullmatch(what) else "query"


def _host_url(what: str) -> str:
    url, _ = resolve(what if "://" in what else f"http://{what}", Base())
    if url is None:
        raise UserError(f"{what}: no host name; name it as example.org or http://example.org:8080")
    return url


def pair_stories(files: Files, what: str, limit: int) -> list[Story]:
    """Returns the story of a pair, given by its pair_id or by the key of its sample.

    Raises:
        UserError: for what is neither, or a key that no shard has.
    """
    if KEY.fullmatch(what):
        sample = _sample(files, what)
        if candidates_are_gone(files):
            return [sample_story(files, sample)]
        pair_id = sample["pair_id"].hex()
    elif PAIR_ID.fullmatch(what):
        pair_id = what.lower()
    else:
        raise UserError(f"{what}: neither a pair_id (32 hexadecimal digits) nor a key (9 digits)")
    rows = find_url(files, int(pair_id[:16], 16))
    firsts = rows.firsts()
    mine = [place for place in firsts if place.pair_id == pair_id]
    if mine:
        return [pair_story(files, mine[0], rows, limit)]
    said = "no candidate has this pair_id"
    if firsts:
        said += f"; its URL has {count_of(len(firsts), 'other text')}, as {firsts[0].pair_id}"
    fate = WAITING if rows.unread else "no_candidate"
    unread = [Step("unread", f"{rows.unread:,} sources are not extracted yet")]
    return [Story("pair", pair_id, fate, said, unread if rows.unread else [])]


def _sample(files: Files, key: str) -> dict[str, Any]:
    folder = files.run.path("shards")
    table = files.shard(int(key[:-4]))
    if table is None:
        names = list_shards(folder)
        have = f"it has {names[0]} to {names[-1]}" if names else "it has none yet"
        raise UserError(f"{folder}: no shard {key[:-4]} for the key {key}; {have}")
    index = int(key[-4:])
    if index >= len(table):
        raise UserError(f"{folder}/{key[:-4]}.parquet: {len(table):,} rows, so no key {key}")
    return table.slice(index, 1).to_pylist()[0]
