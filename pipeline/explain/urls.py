"""The stories of a URL: one for each text that stood beside it, or that it never became a pair."""

from __future__ import annotations

from typing import Any

from pipeline.explain.files import Files
from pipeline.explain.lookup import Rows, find_url, hash_of
from pipeline.explain.pairs import pair_story
from pipeline.explain.story import WAITING, Step, Story, count_of
from pipeline.extract.urls import EXTRACTED, OUTCOMES, Base, resolve
from pipeline.run import read_many
from pipeline.tally import REASONS, Tally
from wit import storage

PASSED = "extracted"
OTHER = {"https://": "http://", "http://": "https://"}


def url_stories(files: Files, text: str, limit: int) -> list[Story]:
    """Returns the stories of a URL in any spelling, at most `limit`.

    One without a scheme is looked up with both.
    """
    spelled = [text]
    if "://" not in text and not text.startswith(("//", "data:")):
        spelled = [f"{scheme}{text}" for scheme in OTHER]
    elif text.startswith("//"):
        spelled = [scheme.removesuffix("//") + text for scheme in OTHER]
    stories: list[Story] = []
    for spelling in spelled:
        url, outcome = resolve(spelling, Base())
        if url is None or outcome != EXTRACTED:
            return [_refused(files, text, OUTCOMES[outcome])]
        rows = find_url(files, hash_of(url))
        stories += stories_of(files, rows, limit)
    if stories:
        return stories[:limit]
    last, _ = resolve(spelled[0], Base())
    return [_absent(files, last or text, rows, len(spelled) > 1)]


def stories_of(files: Files, rows: Rows, limit: int) -> list[Story]:
    """Returns the stories of all texts of a URL, those that stayed first, at most `limit`."""
    stories = [pair_story(files, place, rows, limit) for place in rows.firsts()[:limit]]
    lost = ("duplicate_pair", "other_text")
    return sorted(stories, key=lambda story: story.fate in lost)


def _refused(files: Files, text: str, outcome: str) -> Story:
    """An address that the harvest counts and drops."""
    counts, unread = _tally(files)
    said = f"{REASONS[outcome]} The sources have {count_of(counts.get(outcome, 0), 'such link')}."
    steps = [_unread_step(files, unread)] if unread else []
    return Story("url", text, outcome, said, steps)


def _absent(files: Files, url: str, rows: Rows, both: bool) -> Story:
    """A URL that no candidate has: what can be said of it and what cannot."""
    steps = [Step("url", f"looked up as {url}{', and with http://' if both else ''}", {"url": url})]
    other = next(
        (OTHER[scheme] + url.removeprefix(scheme) for scheme in OTHER if url.startswith(scheme)),
        None,
    )
    if other is not None and not both:
        there = find_url(files, hash_of(other))
        if len(there.found):
            said = f"there is a pair with {other}, which is another URL to a harvest"
            steps.append(Step("near", said, {"url": other}))
    counts, unread = _tally(files)
    passed = counts.get(PASSED, 0)
    lost = {name: n for name, n in counts.items() if name != PASSED and n}
    said = (
        "either no input has it, or it was dropped for one of these reasons; rows that are dropped "
        "are only counted, so which cannot be known"
    )
    ranked = sorted(lost.items(), key=lambda item: (-item[1], item[0]))
    table = [[f"{n:,}", name, REASONS[name]] for name, n in ranked]
    steps.append(Step("dropped", said, {"counts": dict(sorted(lost.items()))}, table))
    if unread:
        steps.append(_unread_step(files, unread))
        said = f"not among the {passed:,} pairs with a query so far; {unread:,} sources are unread"
        return Story("url", url, WAITING, said, steps)
    said = f"not among the {passed:,} pairs whose text includes a query"
    return Story("url", url, "no_candidate", said, steps)


def _unread_step(files: Files, unread: int) -> Step:
    total = len(files.run.config.sources)
    said = f"{unread:,} of {count_of(total, 'source')} are not extracted yet"
    return Step("unread", said, {"unread": unread, "sources": total})


def _tally(files: Files) -> tuple[dict[str, int], int]:
    """Image links of all sources by reason, and how many sources are not read yet."""
    manifest: dict[str, Any] | None = files.json(files.run.path("manifest.json"))
    if manifest and "funnel" in manifest:
        funnel = manifest["funnel"]
        counts = {name: n for name, n in funnel.items() if name in REASONS}
        return {**counts, PASSED: funnel["links"] - sum(counts.values())}, 0
    present = set(storage.list_names(files.run.path("candidates")))
    sources = range(len(files.run.config.sources))
    paths = [files.run.candidates(source, ".json") for source in sources]
    paths = [path for path in paths if storage.split(path)[1] in present]
    total = Tally()
    for done, found in enumerate(read_many(paths), start=1):
        total.merge(Tally.from_json(found))
        files.progress("counts of sources", done, len(paths))
    return total.counts, len(sources) - len(paths)
