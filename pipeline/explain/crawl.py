"""The story of a page in the folder of a `wit crawl`: its row of pages.parquet."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.crawl.outcomes import ALL, FETCHED
from pipeline.explain.files import Progress
from pipeline.explain.story import Step, Story
from pipeline.extract.urls import Base, resolve
from wit import storage
from wit.errors import UserError

PAGES, STATE = "pages.parquet", ".crawl"


def is_crawl(folder: str) -> bool:
    """Whether a folder is a crawl's, finished or not."""
    return any(storage.exists(storage.join(folder, name)) for name in (PAGES, STATE))


def page_stories(folder: str, text: str, limit: int, progress: Progress) -> list[Story]:
    """Returns the stories of a page's URL in any spelling, at most `limit`.

    Raises:
        UserError: before the crawl has written its table, or for what is no address.
    """
    path = storage.join(folder, PAGES)
    url, _ = resolve(text if "://" in text else f"https://{text}", Base())
    if url is None:
        raise UserError(
            f"{text}: no http or https address; a crawl's pages are explained by theirs"
        )
    if not storage.exists(path):
        raise UserError(
            f"{path}: not written yet; the crawl's own command ends with it, also when stopped"
        )
    urls = {url, url.replace("https://", "http://", 1)} if "://" not in text else {url}
    found = _rows(path, sorted(urls), progress)
    if not found:
        said = "the crawl met no link to it (pages.parquet has every URL that it met)"
        return [Story("page", url, "not_met", said, [])]
    return [_story(row) for row in found[:limit]]


def _rows(path: str, urls: list[str], progress: Progress) -> list[dict]:
    found = []
    with storage.open_read(path) as file:
        parquet = pq.ParquetFile(file)
        for number in range(parquet.num_row_groups):
            column = parquet.read_row_group(number, columns=["url"])["url"].combine_chunks()
            rows = pc.indices_nonzero(pc.is_in(column, pa.array(urls)))
            if len(rows):
                found += parquet.read_row_group(number).take(rows).to_pylist()
            progress("pages", number + 1, parquet.num_row_groups)
    return found


def _story(row: dict) -> Story:
    parent = f" from {row['parent']}" if row["parent"] else ""
    links = "a seed" if row["depth"] == 0 else f"{row['depth']} links from a seed"
    steps = [Step("met", f"{links}{parent}", {"depth": row["depth"], "parent": row["parent"]})]
    facts = {name: row[name] for name in ("status", "content_type", "bytes", "message")}
    if row["status"] is not None or row["message"]:
        said = f"status {row['status']}" if row["status"] is not None else "no answer"
        said += f", {row['content_type']}" if row["content_type"] else ""
        said += f", {row['bytes']:,} bytes" if row["bytes"] is not None else ""
        said += f": {row['message']}" if row["message"] else ""
        steps.append(Step("answer", said, facts))
    if row["outcome"] == FETCHED and row["warc"]:
        said = f"byte {row['offset']:,} of {row['warc']}"
        steps.append(Step("stored", said, {"warc": row["warc"], "offset": row["offset"]}))
    return Story("page", row["url"], row["outcome"], ALL[row["outcome"]], steps)
