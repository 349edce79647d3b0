"""`wit queries download`: what is fetched, and what a folder keeps to."""

import bz2
import gzip
import hashlib
import json

import pytest

from query_list import download
from query_list.inputs import XML, find_inputs
from tests.query_list import dump_server
from tests.query_list.downloads import (
    DAILY,
    DAY,
    DUMP,
    HOURLY,
    LAST_DAY,
    ONE_DAY,
    files_in,
    inputs,
    make_dump,
    make_views,
    run,
)
from tests.query_list.dump_server import cut_at, says
from wit.console import Arguments
from wit.errors import UserError


def test_the_dump_page_views_and_wordnet_come_whole_and_are_known_by_what_is_in_them(
    server, tmp_path, shared_data
):
    server.files["/3.0/wordnet30.tar.xz"] = (shared_data / "text" / "wordnet30.tar.xz").read_bytes()
    wordnet = ("--wordnet", f"{server.url}/3.0/wordnet30.tar.xz")
    assert run(server, tmp_path, "--date", DAY, *ONE_DAY, *wordnet) == 0
    names = ["dump/" + DUMP, "views/pageviews-20260831-user.bz2", "wordnet/wordnet30.tar.xz"]
    assert files_in(tmp_path) == names
    found = find_inputs([str(tmp_path)])
    assert found.dumps == [(str(tmp_path / names[0]), XML)]
    assert found.views == [str(tmp_path / names[1])]
    assert found.wordnet == str(tmp_path / names[2])

    said = inputs(tmp_path)
    assert (said["wiki"], said["date"]) == ("enwiki", DAY)
    for source, path, checked in zip(
        ("dump", "views", "wordnet"),
        names,
        ("sha1", "unpacked", "read as WordNet 3.0"),
        strict=True,
    ):
        (file,) = said[source]["files"]
        data = (tmp_path / path).read_bytes()
        assert server.files[file["url"].removeprefix(server.url)] == data
        assert (file["path"], file["bytes"], file["checked"]) == (path, len(data), checked)
        assert file["sha1"] == hashlib.sha1(data).hexdigest()
        assert file["sha256"] == hashlib.sha256(data).hexdigest()
        assert file["last_modified"] == dump_server.MODIFIED


def test_a_second_run_asks_nobody_and_changes_nothing(server, tmp_path, capsys):
    wanted = ("--date", "latest", "--without", "wordnet", *ONE_DAY)
    run(server, tmp_path, *wanted)
    before = (tmp_path / "inputs.json").read_bytes()
    server.log.clear()
    run(server, tmp_path, *wanted)
    assert server.log == []
    assert (tmp_path / "inputs.json").read_bytes() == before
    assert "nothing to download" in capsys.readouterr().out


def test_a_file_that_lost_bytes_since_is_fetched_again(server, tmp_path):
    run(server, tmp_path, "--without", "wordnet", *ONE_DAY)
    path = tmp_path / "dump" / DUMP
    path.write_bytes(path.read_bytes()[:-1])
    server.log.clear()
    run(server, tmp_path, "--without", "wordnet", *ONE_DAY)
    assert path.read_bytes() == make_dump()
    assert server.asked("GET", "user.bz2") == []


def test_every_request_names_who_asks(server, tmp_path):
    run(server, tmp_path, "--without", "wordnet", *ONE_DAY)
    agents = {asked.headers["user-agent"] for asked in server.log}
    assert len(agents) == 1
    assert "WebImageText/" in (agent := agents.pop())
    assert "me@example.org" in agent


def test_without_a_contact_nothing_is_asked(server, tmp_path):
    parser = Arguments()
    download.add_arguments(parser)
    options = parser.parse_args(["--mirror", server.url, "--out", str(tmp_path / "new")])
    with pytest.raises(UserError, match="--contact is needed"):
        download.run(options)
    assert server.log == []
    assert not (tmp_path / "new").exists()


def test_latest_is_the_newest_finished_dump_and_stays_it(server, tmp_path):
    unfinished = "enwiki-20261001-pages-articles-multistream.xml.bz2"
    server.add_dump("enwiki", "20261001", {unfinished: b"x"}, articlesmultistreamdump="in-progress")
    server.faults[f"/enwiki/{DAY}/{DUMP}"] = [cut_at(100_000), says(401)]
    with pytest.raises(UserError, match="refuses with status 401"):
        run(server, tmp_path, "--without", "wordnet", "views")
    server.add_dump("enwiki", "20261001", {unfinished: make_dump(5)})
    run(server, tmp_path, "--without", "wordnet", "views")
    assert inputs(tmp_path)["date"] == DAY
    assert files_in(tmp_path) == [f"dump/{DUMP}"]


def test_page_views_are_by_default_of_the_26_days_before_the_dump(server, tmp_path):
    for day in range(1, 32):
        server.files[DAILY.format(day)] = bz2.compress(make_views(day, 3))
    run(server, tmp_path, "--date", DAY, "--without", "wordnet", "dump")
    days = [f"views/pageviews-202608{day:02d}-user.bz2" for day in range(6, 32)]
    assert files_in(tmp_path) == days


def test_every_other_day_by_the_hour_is_24_files_a_day(server, tmp_path):
    for day in (29, 30, 31):
        for hour in range(24):
            path = HOURLY.format(hour).replace("20260831", f"202608{day}")
            server.files[path] = gzip.compress(b"en Cats 1 0\nen.m Cats 2 0\n")
    span = ("--from", "2026-08-29", "--to", "2026-08-31", "--every", "2", "--views", "hourly")
    run(server, tmp_path, "--without", "wordnet", "dump", *span)
    names = files_in(tmp_path)
    assert len(names) == 48
    assert {name[len("views/pageviews-") :][:8] for name in names} == {"20260829", "20260831"}


def test_a_day_that_the_server_lacks_is_told_and_written_down(server, tmp_path, capsys):
    server.files[DAILY.format(29)] = bz2.compress(make_views(29, 3))
    span = ("--from", "2026-08-29", "--to", "2026-08-31")
    run(server, tmp_path, "--without", "wordnet", "dump", *span)
    assert inputs(tmp_path)["views"]["missing"] == [server.url + DAILY.format(30)]
    assert DAILY.format(30) in capsys.readouterr().err
    with pytest.raises(UserError, match="no page views of this span"):
        run(
            server, tmp_path / "none", "--without", "wordnet", "dump",
            "--from", "2026-01-01", "--to", "2026-01-02",
        )  # fmt: skip


PARTS = {
    f"enwiki-{DAY}-pages-articles-multistream{name}": make_dump(seed)
    for seed, name in enumerate(
        ["1.xml-p1p41242.bz2", "2.xml-p41243p151573.bz2", "10.xml-p151574p300000.bz2"], 1
    )
}


def test_a_dump_in_parts_comes_in_all_its_parts(server, tmp_path):
    index = {f"enwiki-{DAY}-pages-articles-multistream-index1.txt-p1p41242.bz2": b"1:2:A"}
    server.add_dump("enwiki", DAY, PARTS | index)
    run(server, tmp_path, "--without", "wordnet", "views")
    assert [file["path"] for file in inputs(tmp_path)["dump"]["files"]] == [
        f"dump/{name}" for name in PARTS
    ]
    for name, data in PARTS.items():
        assert (tmp_path / "dump" / name).read_bytes() == data


def test_where_there_are_parts_and_one_file_the_one_is_taken_unless_the_parts_were_begun(
    server, tmp_path
):
    server.add_dump("enwiki", DAY, PARTS)
    for name in PARTS:
        server.faults[f"/enwiki/{DAY}/{name}"] = [cut_at(100_000), says(401)]
    with pytest.raises(UserError, match="401"):
        run(server, tmp_path / "begun", "--without", "wordnet", "views")
    server.faults.clear()
    server.add_dump("enwiki", DAY, {DUMP: make_dump(), **PARTS})
    run(server, tmp_path / "begun", "--without", "wordnet", "views")
    run(server, tmp_path / "new", "--without", "wordnet", "views")
    assert files_in(tmp_path / "begun") == sorted(f"dump/{name}" for name in PARTS)
    assert files_in(tmp_path / "new") == [f"dump/{DUMP}"]


def test_a_sum_that_dumpstatus_lacks_is_taken_from_sha1sums(server, tmp_path):
    path = f"/enwiki/{DAY}/dumpstatus.json"
    status = json.loads(server.files[path])
    said = status["jobs"]["articlesmultistreamdump"]["files"][DUMP]
    sums = f"{said.pop('sha1')}  {DUMP}\n".encode()
    server.files[path] = json.dumps(status).encode()
    server.files[f"/enwiki/{DAY}/enwiki-{DAY}-sha1sums.txt"] = sums
    run(server, tmp_path, "--without", "wordnet", "views")
    assert inputs(tmp_path)["dump"]["files"][0]["checked"] == "sha1"


def test_a_cirrussearch_dump_comes_in_all_parts_once_it_is_finished(server, tmp_path):
    folder = f"/other/cirrus_search_index/{DAY}/index_name=enwiki_content/"
    names = [f"enwiki_content-{DAY}-{number:05d}.json.bz2" for number in range(3)]
    line = b'{"index":{}}\n{"title":"A","text":"a"}\n'
    server.files |= {folder + name: bz2.compress(line) for name in names}
    wanted = ("--dump", "cirrus", "--date", DAY, "--without", "wordnet", "views")
    server.files["/other/cirrus_search_index/"] = f'<a href="{DAY}/">'.encode()
    server.files[folder] = "".join(f'<a href="{name}">{name}</a>' for name in names).encode()
    with pytest.raises(UserError, match="not finished"):
        run(server, tmp_path, *wanted)
    server.files[folder + "_SUCCESS"] = b""
    run(server, tmp_path, *wanted)
    assert files_in(tmp_path) == [f"dump/{name}" for name in names]
    assert [kind for _, kind in find_inputs([str(tmp_path)]).dumps] == ["cirrus"] * 3
    server.files[folder] = f'<a href="{names[0]}"><a href="{names[2]}">'.encode()
    with pytest.raises(UserError, match="part 00001 is missing"):
        run(server, tmp_path / "gap", *wanted)


# --- dates and folders ------------------------------------------------------------------------


def test_a_date_without_a_finished_dump_is_told_with_the_nearest_that_are(server, tmp_path):
    for day in ("20260601", "20260801", "20261001"):
        name = f"enwiki-{day}-pages-articles-multistream.xml.bz2"
        state = {"articlesmultistreamdump": "in-progress"} if day == "20261001" else {}
        server.add_dump("enwiki", day, {name: b"x"}, **state)
    near = "finished near it: 20260601, 20260801, 20260901"
    with pytest.raises(UserError, match=f"20260820: there is no such dump .*; {near}"):
        run(server, tmp_path, "--date", "20260820")
    with pytest.raises(UserError, match=f"20261001: .*'in-progress'.*; {near}"):
        run(server, tmp_path, "--date", "2026-10-01")
    with pytest.raises(UserError, match="'nowiki' a Wikipedia's database name"):
        run(server, tmp_path, "--wiki", "nowiki")


def test_a_folder_keeps_to_its_date_and_days(server, tmp_path):
    run(server, tmp_path, "--without", "wordnet", *ONE_DAY)
    with pytest.raises(UserError, match="has date 20260901, now 20260801"):
        run(server, tmp_path, "--date", "20260801")
    with pytest.raises(UserError, match="has from 2026-08-31, now 2026-08-30"):
        run(server, tmp_path, "--from", "2026-08-30", "--to", "2026-08-31")
    with pytest.raises(UserError, match="has format xml, now cirrus"):
        run(server, tmp_path, "--dump", "cirrus", *ONE_DAY)
    with pytest.raises(UserError, match="has wiki enwiki, now dewiki"):
        run(server, tmp_path, "--wiki", "dewiki")


def test_a_source_can_be_added_later(server, tmp_path):
    run(server, tmp_path, "--without", "wordnet", "views")
    server.log.clear()
    run(server, tmp_path, "--without", "wordnet", *ONE_DAY)
    assert len(files_in(tmp_path)) == 2
    assert {asked.path for asked in server.log} == {LAST_DAY}
