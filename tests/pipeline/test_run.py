"""A folder belongs to one configuration; groups cover all sources once."""

import dataclasses
import json

import pytest

from pipeline import run as runs
from pipeline.run import GROUPS, Config, Run, load_run, open_run
from wit import storage
from wit.errors import UserError

CONFIG = Config(
    sources=[{"path": "a.warc"}, {"path": "b.warc"}],
    queries={"queries": 3, "sha256": "ab" * 32},
    fetch={"image_size": 256},
    product_token="t",
)


def test_the_same_configuration_opens_the_folder_again(tmp_path):
    out = str(tmp_path / "out")
    assert open_run(out, CONFIG).config == open_run(out, CONFIG).config == load_run(out).config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 5}, ["--seed 0", "now 5"]),
        ({"fetch": {**CONFIG.fetch, "image_size": 64}}, ["--image-size 256", "now 64"]),
        ({"sources": CONFIG.sources[:1]}, ["2 input files", "now 1"]),
        ({"queries": {"queries": 3, "sha256": "cd" * 32}}, ["another version of the query list"]),
        ({"product_token": "other"}, ["--user-agent 't'", "now 'other'"]),
    ],
)
def test_once_a_result_stands_another_configuration_is_refused_by_what_differs(
    tmp_path, change, words
):
    out = str(tmp_path / "out")
    storage.write_json(open_run(out, CONFIG).candidates(1, ".json"), {})
    before = (tmp_path / "out/run.json").read_bytes()
    with pytest.raises(UserError) as error:
        open_run(out, dataclasses.replace(CONFIG, **change))
    assert all(word in str(error.value) for word in [*words, "run.json", "--out"])
    assert (tmp_path / "out/run.json").read_bytes() == before


def test_before_a_result_stands_a_corrected_command_starts_anew(tmp_path):
    out = tmp_path / "out"
    run = open_run(str(out), CONFIG)
    left = ["queries/queries.parquet", "queries/matcher.bin", "candidates/000000.parquet"]
    left += ["progress/00-extract/a.plan.json"]
    for name in [*left, "progress/a.log", "candidates/thesis.txt"]:
        storage.write_bytes(run.path(name), b"of the first attempt")
    corrected = dataclasses.replace(CONFIG, seed=5)
    assert open_run(str(out), corrected).config == load_run(str(out)).config == corrected
    files = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    assert files == ["candidates/thesis.txt", "progress/a.log", "run.json"]


def test_the_name_for_robots_is_decided_when_a_host_is_to_be_asked_and_then_stays(tmp_path):
    out = str(tmp_path / "out")
    unnamed = dataclasses.replace(CONFIG, product_token=None)
    storage.write_json(open_run(out, unnamed).candidates(0, ".json"), {})
    assert open_run(out, CONFIG).config.product_token == "t"
    assert open_run(out, unnamed).config.product_token == "t"
    with pytest.raises(UserError, match="--user-agent"):
        open_run(out, dataclasses.replace(CONFIG, product_token="other"))


def test_what_was_left_out_of_an_equal_list_makes_no_other_run(tmp_path):
    out = str(tmp_path / "out")
    storage.write_json(open_run(out, CONFIG).candidates(0, ".json"), {})
    open_run(out, dataclasses.replace(CONFIG, queries={**CONFIG.queries, "left_out": {"a": 1}}))


@pytest.mark.parametrize("content", ['{"a": 1}', '{"version": "9"}'])
def test_a_run_json_of_something_else_is_never_replaced(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match="choose another --out"):
        open_run(str(tmp_path), CONFIG)
    assert (tmp_path / "run.json").read_text() == content


def test_a_run_of_another_version_of_the_program_is_refused(tmp_path):
    out = str(tmp_path / "out")
    open_run(out, CONFIG)
    saved = json.loads((tmp_path / "out/run.json").read_text())
    (tmp_path / "out/run.json").write_text(json.dumps(saved | {"version": "0.0.1"}))
    load_run.cache_clear()
    with pytest.raises(UserError, match=r"version 0\.0\.1"):
        load_run(out)


@pytest.mark.parametrize("count", [1, 2, GROUPS - 1, GROUPS, GROUPS + 1, 90_000])
def test_groups_cover_every_source_once_and_are_bounded(count):
    run = Run("out", dataclasses.replace(CONFIG, sources=[{}] * count))
    assert len(run.groups) <= GROUPS
    assert [s for group in run.groups for s in group] == list(range(count))


def test_every_entry_of_the_configuration_is_described():
    documented = runs.Config.__doc__
    assert all(field.name in documented for field in dataclasses.fields(Config))
