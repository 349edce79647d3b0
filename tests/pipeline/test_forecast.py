"""`--dry-run`: a sample takes every record once, and says what the run then finds."""

import csv
import gzip
import io
import json
import os
import random
from concurrent.futures import Future
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pipeline import arguments, harvest, sources
from pipeline.forecast import forecast, frame, pieces, sample
from pipeline.options import make_config
from pipeline.sources import Source
from pipeline.tally import Tally
from wit.errors import UserError

CHUNK = 4096  # bytes, so that small files are cut into many pieces


class Here:
    """A pool of no processes."""

    def submit(self, work, *arguments):
        done = Future()
        done.set_result(work(*arguments))
        return done


def warc(pages: int, end: bytes = b"\r\n") -> list[bytes]:
    """Records of pages of many lengths, with an image each."""
    rng, records = random.Random(5), []
    for i in range(pages):
        html = b'<html><img src="/%d.jpg" alt="a red dress %d">%s' % (
            *(i, i % 50),
            b"x" * rng.randrange(3000),
        )
        body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + html
        head = (
            b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://h%d.example/\r\n"
            b"Content-Type: application/http; msgtype=response\r\nContent-Length: %d\r\n\r\n"
        )
        records.append(head % (i % 9, len(body)) + body + b"\r\n\r\n")
    return records


def arc(pages: int) -> list[bytes]:
    records = []
    for i in range(pages):
        html = b'<html><img src="/%d.jpg" alt="a red dress">' % i + b"x\n" * (i % 700)
        body = b"HTTP/1.1 200 OK\nContent-Type: text/html\n\n" + html
        head = b"http://h%d.example/ 127.0.0.1 20200101000000 text/html %d\n" % (i, len(body))
        records.append(head + body + b"\n")
    return records


def rows(n: int) -> pa.Table:
    urls = [f"https://h{i % 7}.example/{i}.jpg" for i in range(n)]
    texts = [f"a red dress, number {i % 97}" + " and more" * (i % 5) for i in range(n)]
    return pa.table({"url": urls, "text": texts})


def as_csv(table: pa.Table, delimiter: str, header: bool = True) -> bytes:
    out = io.BytesIO()
    text = io.TextIOWrapper(out, encoding="utf-8", newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    if header:
        writer.writerow(table.column_names)
    writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))
    text.flush()
    return out.getvalue()


def as_parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=300)
    return out.getvalue()


FILES = {
    "pages.warc": lambda: b"".join(warc(300)),
    "pages.warc.gz": lambda: b"".join(map(gzip.compress, warc(1500))),
    "pages.warc.zst": lambda: b"".join(map(zstandard.compress, warc(1500))),
    "pages.arc": lambda: b"".join(arc(300)),
    "pages.arc.gz": lambda: b"".join(map(gzip.compress, arc(1500))),
    "rows.parquet": lambda: as_parquet(rows(5000)),
    "rows.tsv": lambda: as_csv(rows(2000), "\t"),
    "rows.csv": lambda: as_csv(rows(2000), ","),
    "headless.tsv": lambda: as_csv(rows(2000), "\t", header=False),
    "rows.jsonl": lambda: b"\n".join(json.dumps(r).encode() for r in rows(2000).to_pylist()),
}


def links(source: Source, first: int = 0) -> list[tuple[str, str]]:
    batches = sources.read(source, Tally())
    found = [(r["url"], r["text"]) for batch in batches for r in batch.to_pylist()]
    return found[first:]


def cut(path: Path, share: float | None):
    """The file's frame, and its pieces of a sample."""
    (source,) = sources.expand([str(path)])
    whole = frame.make_frame([source], 0)
    size = int(whole.sizes[0])
    wanted = size if share is None else int(size * share)
    return whole, frame.choose(whole, wanted, 1)


def read_all(tmp_path: Path, whole, chosen) -> list[tuple[str, str]]:
    found = []
    for number, piece in enumerate(chosen):
        part = pieces.read_piece(whole, piece)
        if part.data:
            found += links(pieces.written(part, str(tmp_path / f"piece-{number}")), part.added)
    return found


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(frame, "LEAST_CHUNK", CHUNK)
    monkeypatch.setattr(frame, "CHUNK", CHUNK)
    monkeypatch.setattr(pieces, "TAIL", 1000)


@pytest.mark.parametrize("name", FILES)
def test_pieces_of_all_bytes_hold_each_record_once(name, tmp_path, small_chunks):
    path = tmp_path / name
    path.write_bytes(FILES[name]())
    whole, chosen = cut(path, None)
    assert len(chosen) > 5
    assert read_all(tmp_path, whole, chosen) == links(whole.sources[0])


@pytest.mark.parametrize("name", FILES)
def test_a_sample_has_a_like_share_of_bytes_and_records_from_all_over_the_file(
    name, tmp_path, small_chunks
):
    path = tmp_path / name
    path.write_bytes(FILES[name]())
    whole, chosen = cut(path, 0.3)
    parts = [pieces.read_piece(whole, piece) for piece in chosen]
    all_links = links(whole.sources[0])
    found = read_all(tmp_path, whole, chosen)
    places = [all_links.index(link) for link in found]
    assert places == sorted(set(places))
    assert max(places) > 0.8 * len(all_links)
    size = sum(part.size for part in parts) / path.stat().st_size
    assert len(found) / len(all_links) == pytest.approx(size, rel=0.35)
    assert 0.15 < size < 0.45


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("one.warc.gz", lambda: gzip.compress(b"".join(warc(3000)))),
        ("rows.tsv.gz", lambda: gzip.compress(as_csv(rows(30_000), "\t"))),
    ],
)
def test_a_file_of_one_stream_gives_its_start(name, make, tmp_path, small_chunks):
    data = make()
    (tmp_path / name).write_bytes(data)
    whole, chosen = cut(tmp_path / name, 0.4)
    assert len(chosen) > 1
    (piece,) = pieces.join_streams(whole, chosen)
    part = pieces.read_piece(whole, piece)
    assert data.startswith(part.data)
    assert part.size == len(part.data) == pytest.approx(0.4 * len(data), rel=0.02)
    found = read_all(tmp_path, whole, [piece])
    assert found == links(whole.sources[0])[: len(found)]
    assert len(found) > 100


def test_files_share_the_sample_by_their_bytes(tmp_path):
    paths = []
    for number, size in enumerate([1, 2_000_000, 500_000, 100_000]):
        paths.append(tmp_path / f"{number}.warc")
        paths[-1].write_bytes(b"x" * size)
    found = [Source(str(path), "warc", path.stat().st_size) for path in paths]
    whole = frame.make_frame(found, 0)
    chosen = frame.choose(whole, 1_300_000, 0)
    taken = [sum(p.end - p.start for p in chosen if p.source == i) for i in range(4)]
    assert taken[1] == pytest.approx(1_000_000, rel=0.1)
    assert sum(taken) == pytest.approx(1_300_000, rel=0.01)
    assert all(0 <= p.start < p.end <= whole.sizes[p.source] for p in chosen)


def test_of_files_without_sizes_some_are_asked_and_stand_for_the_others(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(frame, "size_of", lambda s: asked.append(s.path) or 1000 + len(asked))
    found = [Source(f"https://h.example/{i}.warc.gz", "warc") for i in range(6400)]
    whole = frame.make_frame(found, 0)
    assert len(asked) == len(whole.sources) == 64
    assert whole.total.low < whole.total.mid < whole.total.high
    assert whole.total.mid == pytest.approx(6400 * 1032, rel=0.02)
    chosen = frame.choose(whole, 60_000, 0)
    assert sum(p.end - p.start for p in chosen) <= 60_000


def options(inputs: list[str], queries: Path, *more: str):
    return arguments.parse([*inputs, "--queries", str(queries), "--dry-run", *more])[0]


@pytest.fixture
def dresses(tmp_path) -> Path:
    path = tmp_path / "queries.txt"
    path.write_text("red\ndress\nnumber\nmore\nblue\n")
    return path


def test_a_sample_of_a_third_says_what_is_in_the_whole(tmp_path, dresses, small_chunks):
    paths = []
    for name in ("pages.warc.gz", "rows.parquet", "rows.tsv"):
        paths.append(str(tmp_path / name))
        Path(paths[-1]).write_bytes(FILES[name]())
    asked = options(paths, dresses, "--per-query", "500", "--workers", "1")
    config, queries = make_config(asked)
    whole = frame.make_frame([Source.from_json(s) for s in config.sources], 0)
    size = int(whole.total.mid)
    folder = str(tmp_path / "sample")
    read = {}
    for share in (1.0, 0.33):
        chosen = frame.choose(whole, int(size * share), 0)
        taken = sample.read_sample(
            whole, chosen, config, queries.table, f"{folder}{share}", Here(), 1, lambda line: None
        )
        read[share] = forecast.find_pairs(whole, taken, config, 0.6), taken
    exact, some = read[1.0][0], read[0.33][0]
    assert exact.candidates.mid == pytest.approx(1500 + 5000 + 2000)
    assert exact.unique.mid == 1500 + 5000  # the rows of the TSV are in the Parquet table too
    assert some.candidates.low <= exact.candidates.mid <= some.candidates.high
    assert some.links.mid == pytest.approx(exact.links.mid, rel=0.25)
    assert some.waves[0].mid == pytest.approx(exact.waves[0].mid, rel=0.25)
    hosts = forecast.find_hosts(read[1.0][1], exact, config)
    assert hosts.number.mid == 9
    assert len(hosts.largest) == 3
    assert sum(r.mid for _, r in hosts.largest) <= exact.asked.mid + 1
    assert hosts.bound.mid == pytest.approx(hosts.largest[0][1].mid / (5 * 0.8))


def test_a_dry_run_needs_no_folder_and_no_contact(tmp_path, dresses):
    assert options(["x.parquet"], dresses).success == 0.6
    for wrong, said in (
        (["--price", "1"], "--price goes with --dry-run only"),
        ([], "--out DIR is needed"),
        (["--out", "o"], "--contact is needed"),
    ):
        with pytest.raises(UserError, match=said):
            arguments.parse(["x.parquet", "--queries", str(dresses), *wrong])


@pytest.mark.long
def test_a_dry_run_shows_every_stage_and_writes_no_more_than_its_json(
    tmp_path, dresses, capsys, monkeypatch, shared_data
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.forecast.costs.LARGE", 40_000)
    pages = str(shared_data / "warc/real_pages.warc.wat.gz")
    before = set(os.listdir(tmp_path))
    asked = [pages, "--queries", str(dresses), "--dry-run", "--pairs", "300", "--workers", "1"]
    assert harvest.main([*asked, "--price", "0.05", "--sample", "0.3", "--json", "found.json"]) == 0
    assert set(os.listdir(tmp_path)) - before == {"found.json"}
    text = capsys.readouterr().out
    found = json.loads(Path("found.json").read_text())
    names = [stage["name"] for stage in found["stages"]]
    assert names == list(forecast.ORDER)
    assert all(name in text for name in names[1:])
    assert len(text.splitlines()) <= 30
    assert "solves --pairs" in text
    assert found["money"]["mid"] > 0
    assert found["cap"]["low"] <= found["cap"]["mid"] <= found["cap"]["high"]
    total = sum(stage["core"]["mid"] for stage in found["stages"])
    assert found["core_seconds"]["mid"] == pytest.approx(total)
