"""A folder belongs to one configuration; groups cover all sources once."""

import dataclasses
import json

import pytest

from pipeline import run as runs
from pipeline.run import GROUPS, Config, Run, load_run, open_run
from wit.errors import UserError

CONFIG = Config(
    sources=[{"path": "a.warc"}, {"path": "b.warc"}],
    queries={"queries": 3, "sha256": "ab" * 32},
    fetch={"image_size": 256, "user_agent": "T/1 (a@b)"},
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
    ],
)
def test_another_configuration_is_refused_by_the_entry_that_differs(tmp_path, change, words):
    out = str(tmp_path / "out")
    open_run(out, CONFIG)
    before = (tmp_path / "out/run.json").read_bytes()
    with pytest.raises(UserError) as error:
        open_run(out, dataclasses.replace(CONFIG, **change))
    assert all(word in str(error.value) for word in [*words, "run.json", "--out"])
    assert (tmp_path / "out/run.json").read_bytes() == before


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
