"""The rule of placeholders counted in plain Python, of a run's shards: what must be left out."""

from collections import defaultdict
from collections.abc import Iterable

import pyarrow.parquet as pq

from pipeline import lanes
from pipeline.run import Run
from wit import storage

Row = tuple[str, bytes, bytes]  # a picture's sha256, the hashes of its URL and of its text


def judged(rows: Iterable[Row], least: int) -> set[str]:
    """The pictures with so many URLs and so many texts."""
    urls, texts = defaultdict(set), defaultdict(set)
    for picture, url, text in rows:
        urls[picture].add(url)
        texts[picture].add(text)
    return {picture for picture in urls if min(len(urls[picture]), len(texts[picture])) >= least}


def told(rows: list[tuple[Row, bool]]) -> list[Row]:
    """What a lane tells of its (row, whether it is stored): pictures met twice, or left out."""
    times, left_out = defaultdict(int), set()
    for (picture, _, _), stored in rows:
        times[picture] += 1
        if not stored:
            left_out.add(picture)
    return [row for row, _ in rows if times[row[0]] > 1 or row[0] in left_out]


def met(run: Run, shard: int) -> dict[str, tuple[Row, bool]]:
    """By key, the rows of a shard that met a picture, and whether they are stored."""
    found = {}
    for row in pq.read_table(run.path("shards", f"{shard:05d}.parquet")).to_pylist():
        if row["outcome"] in ("success", "placeholder"):
            pair = row["sha256"], row["pair_id"][:8], row["pair_id"][8:]
            found[row["key"]] = pair, row["outcome"] == "success"
    return found


def expected(run: Run) -> tuple[dict[str, set[str]], set[str], int]:
    """Keys that must be left out by how they are known; all known; how many are stored of them.

    `alone`: by their shard alone; `pilot`: learnt from the first shards; `earlier`: from waves.
    """
    least, known, everything = run.config.placeholder_urls, set(), []
    keys: dict[str, set[str]] = {"alone": set(), "pilot": set(), "earlier": set()}
    stored: dict[str, int] = defaultdict(int)
    for wave in range(1, run.config.waves + 1):
        if not storage.exists(run.wave_path("lanes", wave, "shards.json")):
            break
        planned = lanes.planned_shards(run, wave)
        pilots = {ids.start for ids in planned if len(ids) > 1} if wave == 1 else set()
        if wave == 1:
            of_pilots = [told(list(met(run, shard).values())) for shard in sorted(pilots)]
            known = judged((row for rows in of_pilots for row in rows), least)
        for ids in planned:
            of_lane = []
            for shard in ids:
                rows = met(run, shard)
                alone = judged((row for row, _ in rows.values()), least)
                for key, (row, _) in rows.items():
                    if row[0] in alone:
                        keys["alone"].add(key)
                    elif row[0] in known and shard not in pilots:
                        keys["pilot" if wave == 1 else "earlier"].add(key)
                of_lane += rows.values()
            heard = told(of_lane)
            everything += heard
            for row, is_stored in of_lane:
                stored[row[0]] += is_stored and row in heard
        known |= judged(everything, least)
    return keys, known, sum(stored[picture] for picture in known)
