"""The dataset's card and its Croissant description: true, readable by the Hub's tools, kept."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from pipeline import card, croissant
from pipeline.report.gather import LATER
from pipeline.run import Run, load_run
from tests.pipeline.demo_run import manifest
from wit.errors import UserError
from wit.pairs import COVERAGE, SAMPLES

LOAD = """
import json, sys
import mlcroissant
dataset = mlcroissant.Dataset(sys.argv[1])
assert not dataset.metadata.ctx.issues.errors
rows = list(dataset.records("pairs"))
pictures = {r["pictures/key"].decode(): r["pictures/image"] for r in dataset.records("pictures")}
coverage = [r["queries/present"] for r in dataset.records("queries")]
print(json.dumps({
    "rows": [[r["pairs/key"].decode(), r["pairs/outcome"].decode(), r["pairs/width"] and
              int(r["pairs/width"]), [int(q) for q in r["pairs/query_ids"]]] for r in rows],
    "sizes": {key: picture.size for key, picture in pictures.items()},
    "present": int(sum(coverage)),
    "json": dataset.metadata.to_json(),
}))
"""


@pytest.fixture
def out(finished, tmp_path) -> Path:
    """A copy of a finished harvest."""
    return Path(shutil.copytree(finished, tmp_path / "mine"))


@pytest.fixture(scope="module")
def loaded(finished, tmp_path_factory) -> dict:
    """What mlcroissant makes of it."""
    where = tmp_path_factory.mktemp("cache")
    environment = {**os.environ, "CROISSANT_CACHE": str(where)}
    command = [sys.executable, "-c", LOAD, str(finished / "croissant.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def sql(out: Path, text: str) -> list[tuple]:
    return duckdb.sql(text.replace("SHARDS", f"'{out}/shards/*.parquet'")).fetchall()


def write(out: Path, contact: str = "me@example.org") -> DatasetCard:
    load_run.cache_clear()
    card.write(load_run(str(out)), LATER, contact)
    return DatasetCard((out / "README.md").read_text())


def test_mlcroissant_loads_every_row_with_its_columns(finished, loaded):
    told = sql(finished, "SELECT key, outcome, width, query_ids FROM SHARDS ORDER BY key")
    assert sorted(loaded["rows"]) == [list(row) for row in told]
    assert loaded["present"] == sum(
        pq.read_table(finished / "coverage.parquet")["present"].to_pylist()
    )


def test_mlcroissant_loads_every_picture_out_of_the_tars_by_key(finished, loaded):
    told = sql(finished, "SELECT key, width, height FROM SHARDS WHERE outcome = 'success'")
    assert loaded["sizes"] == {key: [width, height] for key, width, height in told}


def test_every_file_is_listed_with_its_size_and_sha256(finished):
    described = json.loads((finished / "croissant.json").read_text())
    files = [d for d in described["distribution"] if d["@type"] == "cr:FileObject"]
    shards = {
        f"shards/{p.name}" for p in finished.glob("shards/*") if p.suffix in (".tar", ".parquet")
    }
    assert {f["contentUrl"] for f in files} == {*shards, "manifest.json", "coverage.parquet"}
    for file in files:
        data = (finished / file["contentUrl"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(data).hexdigest()
        assert file["contentSize"] == f"{len(data)} B"


def test_a_large_dataset_is_described_by_globs_and_the_manifests_hash(out, monkeypatch):
    monkeypatch.setattr(croissant, "LISTED", 1)
    write(out)
    described = json.loads((out / "croissant.json").read_text())
    kinds = {d["@id"]: d["@type"] for d in described["distribution"]}
    assert {i for i, kind in kinds.items() if kind == "cr:FileObject"} == {
        "manifest.json",
        "coverage.parquet",
    }
    assert [r["@id"] for r in described["recordSet"]] == ["pairs", "queries"]
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(out / "croissant.json")
    assert next(iter(dataset.records("pairs")))["pairs/key"] == b"000000000"


def test_every_column_is_described_or_left_out_for_a_reason():
    for schema in (SAMPLES, COVERAGE):
        for field in schema:
            assert field.name in croissant.LEFT_OUT or field.type in croissant.TYPES, field
            assert field.name in croissant.LEFT_OUT or field.name in croissant.MEANINGS, field


def test_a_column_that_older_shards_lack_is_not_promised(out):
    path = sorted(out.glob("shards/*.parquet"))[0]
    pq.write_table(pq.read_table(path).drop_columns(["animated"]), path)
    write(out)
    described = json.loads((out / "croissant.json").read_text())
    fields = [field["name"] for field in described["recordSet"][0]["field"]]
    assert "outcome" in fields
    assert "animated" not in fields


def test_the_hub_reads_the_card_and_its_counts_are_those_of_the_tables(finished):
    text = (finished / "README.md").read_text()
    front = DatasetCard(text).data
    ((pairs,),) = sql(finished, "SELECT count(*) FROM SHARDS WHERE outcome = 'success'")
    assert (front.license, front.size_categories) == ("other", ["n<1K"])
    assert 0 < pairs < 1_000
    assert f"| pairs | {pairs:,} |" in text
    funnel = manifest(finished)["funnel"]
    for outcome, count in sql(finished, "SELECT outcome, count(*) FROM SHARDS GROUP BY outcome"):
        assert f"| `{outcome}` | {count:,} |" in text
    assert f"{funnel['links']:,} image links" in text
    ((present, short),) = duckdb.sql(
        "SELECT count(*) FILTER (present > 0), count(*) FILTER (short_by > 0) "
        f"FROM '{finished}/coverage.parquet'"
    ).fetchall()
    assert f"{present:,} have a pair here,\n{short:,} have fewer" in text
    stats = [json.loads(p.read_text()) for p in finished.glob("shards/*_stats.json")]
    assert card.moment(min(s["start_time"] for s in stats)) in text
    assert "`test@example.org`" in text


def test_datasets_loads_the_pictures_by_the_cards_configuration(finished, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    pairs = list(datasets.load_dataset(str(finished), split="train", streaming=True))
    ((told,),) = sql(finished, "SELECT count(*) FROM SHARDS WHERE outcome = 'success'")
    assert len(pairs) == told
    assert all(p["txt"] == p["json"]["caption"] and p["jpg"].size for p in pairs)


def test_languages_are_those_of_all_pairs_however_many_shards_there_are(out, monkeypatch):
    found = {"en": 700, "pt": 200, "pt-BR": 100, "fr": 5, "un": 40, "unknown": 900}
    for number, path in enumerate(sorted(out.glob("fetched/*/*.traits.json"))):
        traits = json.loads(path.read_text())
        path.write_text(json.dumps(traits | {"language": found if number == 3 else {}}))
    run = load_run(str(out))
    identified = Run(run.out, replace(run.config, identify_language=True))
    assert card.languages(identified) == ["en", "pt"]
    assert card.languages(run) == []
    asked = replace(run.config, identify_language=True, languages=["zh-Hant", "de"])
    assert card.languages(Run(run.out, asked)) == ["de", "zh"]


def test_the_card_names_no_folder_of_the_maker_and_nobody_who_was_harvested(finished):
    text = (finished / "README.md").read_text() + (finished / "croissant.json").read_text()
    assert str(finished.parent) not in text
    for (url,) in sql(finished, "SELECT DISTINCT url FROM SHARDS"):
        assert url not in text


def test_the_same_run_has_the_same_card(out):
    files = [out / "README.md", out / "croissant.json"]
    write(out)
    before = [file.read_bytes() for file in files]
    write(out)
    assert [file.read_bytes() for file in files] == before


def test_what_a_person_adds_to_the_card_stays(out):
    path = out / "README.md"
    text = path.read_text().replace("license: other", "license: cc-by-4.0\nviewer: false")
    text = text.replace("size_categories:\n- n<1K", "size_categories:\n- 1M<n<10M")
    path.write_text(text.replace("# Dataset card", "# DATASET CARD") + "\nWrite to us.\n")
    after = write(out)
    assert (after.data.license, after.data.viewer) == ("cc-by-4.0", False)
    assert after.data.size_categories == ["n<1K"]
    assert "DATASET CARD" not in after.text
    assert "Set `license`" not in after.text
    assert after.text.endswith(f"{card.MARK}\n\nWrite to us.\n")
    assert json.loads((out / "croissant.json").read_text())["license"] == "cc-by-4.0"


def test_a_readme_of_somebodys_own_is_left_as_it_is(out):
    (out / "README.md").write_text("# mine\n")
    load_run.cache_clear()
    card.write(load_run(str(out)), LATER)
    assert (out / "README.md").read_text() == "# mine\n"


def test_a_card_that_became_unreadable_is_one_line_that_names_it(out):
    path = out / "README.md"
    path.write_text(path.read_text().replace("license: other", "license: [other"))
    with pytest.raises(UserError, match=r"README\.md: its front matter is not YAML .*; mend it"):
        write(out)


def test_sources_are_named_without_folders_buckets_and_passwords():
    paths = [
        "/home/alice/secret/pages.warc.gz",
        "s3://private-bucket/x/feed.parquet",
        "https://alice:pw@data.example/feed.tsv?token=abc",
        *(f"s3://commoncrawl/crawl-data/CC-MAIN-2024-22/segments/{i}.wat.gz" for i in range(3)),
    ]
    assert card.source_groups(paths) == [
        ("CC-MAIN-2024-22", 3),
        ("data.example/feed.tsv", 1),
        ("feed.parquet", 1),
        ("pages.warc.gz", 1),
    ]


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1_000, "1K<n<10K"),
        (99_999, "10K<n<100K"),
        (999_999, "100K<n<1M"),
        (400_000_000, "100M<n<1B"),
        (10**11, "100B<n<1T"),
        (10**12, "n>1T"),
    ],
)
def test_sizes_have_the_hubs_names(pairs, said):
    assert card.size_category(pairs) == said
