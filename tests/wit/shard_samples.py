"""A small shard's rows and what the fetcher would bring for them, from real pictures."""

import io
import os
import random
import tarfile
from functools import cache
from pathlib import Path

import pyarrow as pa
from PIL import Image

from pipeline.fetch import Fetched
from wit import shards

PHOTOGRAPHS = Path(__file__).resolve().parents[2] / "pipeline/demo/data/clothing_cc0_300.tar"
ROWS = 40
SHARD = 3


@cache
def jpegs(number: int = ROWS) -> list[bytes]:
    """The demo's photographs as small JPEGs."""
    with tarfile.open(PHOTOGRAPHS) as tar:
        members = [m for m in tar.getmembers() if m.name.endswith(".jpg")]
        files = [tar.extractfile(m) for m in members[:number]]
        images = [Image.open(io.BytesIO(f.read())).convert("RGB") for f in files if f]
    found = []
    for image in images:
        image.thumbnail((96, 96))
        data = io.BytesIO()
        image.save(data, "JPEG")
        found.append(data.getvalue())
    return found


def rows(number: int = ROWS) -> pa.Table:
    """The rows of a lane's shard; every tenth has a preset outcome."""
    ids = range(number)
    return pa.table(
        {
            "url": [f"https://pictures.example/{i}.jpg" for i in ids],
            "text": [f"Kleid № {i}, 緑の服" for i in ids],
            "pair_id": pa.array([(i * 2**90 + 7).to_bytes(16, "big") for i in ids], pa.binary(16)),
            "page_url": [f"https://shop.example/page{i % 3}" if i % 4 else None for i in ids],
            "attribute": ["alt" if i % 2 else "figcaption" for i in ids],
            "language": [None if i < 8 else "de" for i in ids],
            "query_ids": pa.array([[i, i + 1] for i in ids], pa.list_(pa.int32())),
            "priority": pa.array([(i * 2**60) % 2**64 for i in ids], pa.uint64()),
            "wave": pa.array([1] * number, pa.int8()),
            "source": pa.array([0] * number, pa.int32()),
            "row": pa.array(ids, pa.int32()),
            "host": ["pictures.example"] * number,
            "preset": pa.array(
                ["robots_disallowed" if i % 10 == 9 else None for i in ids], pa.string()
            ),
        }
    )


def fetched(number: int = ROWS) -> list[Fetched]:
    """A result for each row without a preset: pictures, and failures of both kinds."""
    results = []
    for i in range(number):
        if i % 10 == 9:
            continue
        if i % 7 == 5:
            results.append(Fetched(i, "not_found", "HTTP 404"))
        elif i % 11 == 6:
            results.append(Fetched(i, "undecodable", content_type="image/png"))
        else:
            image = jpegs()[i % len(jpegs())]
            width, height = Image.open(io.BytesIO(image)).size
            exif = None if i < 8 else '{"Orientation":1}'
            picture = Fetched(i, "success", None, image, "jpg", width, height, width, height)
            picture.content_type, picture.exif = "image/jpeg", exif
            picture.phash, picture.animated = i * 2**60 % 2**64 + i, i % 3 == 0
            results.append(picture)
    return results


def write(folder: str, attempt: str = "a", order: list[int] | None = None) -> bool:
    """Writes the shard; `order` permutes the results."""
    results = fetched()
    if order is not None:
        results = [results[i] for i in order]
    with shards.ShardWriter(folder, SHARD, rows(), attempt=attempt) as writer:
        for result in results:
            writer.add(result)
        return writer.commit({"lane": 1})


def shuffled(seed: int) -> list[int]:
    """An order of arrival."""
    order = list(range(len(fetched())))
    random.Random(seed).shuffle(order)
    return order


def products(folder: str | os.PathLike[str]) -> dict[str, bytes]:
    """Every file that must be the same whatever happened: all but `_stats.json`."""
    return {
        path.name: path.read_bytes()
        for path in sorted(Path(folder).iterdir())
        if not path.name.endswith("_stats.json") and not path.name.endswith(".damaged")
    }


def inside(folder: str, name: str) -> Path:
    """A file of the shards in an output folder."""
    return Path(folder) / "shards" / name
