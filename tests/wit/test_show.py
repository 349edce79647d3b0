"""`wit shards show`: the right rows, few shards read, hostile texts harmless, one-line errors."""

import re
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wit import shard_samples as samples
from wit import cli, shards, show, storage
from wit.errors import UserError
from wit.takedown import make_request, takedown


def write_shards(folder: Path, number: int) -> Path:
    for shard in range(number):
        with shards.ShardWriter(str(folder), shard, samples.rows(), attempt="a") as writer:
            for result in samples.fetched():
                writer.add(result)
            assert writer.commit({})
    return folder


@pytest.fixture
def run(tmp_path) -> Path:
    """A harvest's folder: four shards, and queries of which the last two match nothing."""
    write_shards(tmp_path / "mine/shards", 4)
    names = [f"kleid {i}" for i in range(39)] + ["緑の服", "robe verte", "never"]
    ids = pa.array(range(len(names)), pa.int32())
    storage.write_table(
        str(tmp_path / "mine/queries/queries.parquet"), pa.table({"query_id": ids, "query": names})
    )
    return tmp_path / "mine"


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The names of the shards whose rows were read."""
    found: list[str] = []
    whole = show.read_rows

    def noted(dataset: show.Dataset, name: str) -> pa.Table:
        found.append(name)
        return whole(dataset, name)

    monkeypatch.setattr(show, "read_rows", noted)
    return found


def keys(folder: Path, wanted: str | None, **options) -> list[str]:
    return [row["key"] for row in show.show(str(folder), wanted, **options)[2]]


def test_a_key_is_found_in_its_shard_alone(run, read):
    dataset, _, (row,) = show.show(str(run), "000020003")
    assert read == ["00002"]
    assert (row["key"], row["url"]) == ("000020003", "https://pictures.example/3.jpg")
    assert row["queries"] == ["kleid 3", "kleid 4"]
    assert show.picture_of(dataset, row) == samples.jpegs()[3]


def test_a_query_is_looked_up_and_the_search_stops_when_enough_is_found(run, read):
    assert keys(run, "KLEID: 3", limit=3) == ["000000002", "000000003", "000010002"]
    assert read == ["00000", "00001"]


def test_what_the_coverage_says_is_present_ends_the_search(run, read):
    ids = pa.array([3, 40], pa.int32())
    counts = {"query_id": ids, "matched": [9, 7], "present": [2, 0]}
    storage.write_table(str(run / "coverage.parquet"), pa.table(counts))
    assert keys(run, "kleid 3") == ["000000002", "000000003"]
    assert read == ["00000"]
    with pytest.raises(UserError, match="is in the list and has no picture; 7 candidates matched"):
        keys(run, "Robe verte")
    assert read == ["00000"]


def test_in_a_folder_of_shards_a_query_is_sought_in_the_texts(run, read):
    assert keys(run / "shards", "kleid № 4", limit=2) == ["000000004", "000010004"]
    assert keys(run / "shards", "の", limit=1) == ["000000000"]
    with pytest.raises(UserError, match=r"no picture of .*shards has it in its text"):
        keys(run / "shards", "klei")


def test_without_a_wish_pictures_come_from_all_over_and_are_the_same_each_time(run, read):
    found = keys(run, None, limit=8)
    assert [key[:5] for key in found] == [f"0000{i}" for i in (0, 0, 1, 1, 2, 2, 3, 3)]
    assert keys(run, None, limit=8) == found
    read.clear()
    assert [key[:5] for key in keys(run, None, limit=2)] == ["00000", "00003"]
    assert read == ["00000", "00003"]


def test_only_pictures_are_shown_but_a_key_is_shown_whatever_became_of_it(run):
    assert len(keys(run, None, limit=500)) == 4 * sum(
        r.outcome == "success" for r in samples.fetched()
    )
    text = "\n".join(show.command(str(run), "000000005", 24, None, False, lambda *_: None))
    assert "000000005  not_found" in text
    assert "HTTP 404" in text
    assert "pictures" not in text.splitlines()[-1]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("000090000", "has no shard 00009; it has 00000 to 00003"),
        ("000000999", "none of the 40 samples of .*00000.parquet has it"),
        ("no such thing", "no such query in .*queries.parquet"),
        ("...", "has no letter, number or symbol"),
    ],
)
def test_what_is_not_there_is_one_line(run, wanted, said):
    with pytest.raises(UserError, match=said) as error:
        keys(run, wanted)
    assert "\n" not in str(error.value)


def test_a_picture_that_was_taken_out_is_said_to_be(run):
    request = make_request({"url": ["https://pictures.example/3.jpg"]})
    takedown(str(run / "shards"), request)
    with pytest.raises(UserError, match="key 000010003: was taken out of the dataset"):
        keys(run, "000010003")


@pytest.mark.parametrize("part", ["tar", "parquet"])
def test_a_missing_file_of_a_shard_is_one_line(run, part):
    (run / f"shards/00001.{part}").unlink()
    with pytest.raises(UserError, match=rf"00001\.{part}: is missing; run the command"):
        list(show.command(str(run), "000010003", 24, str(run / "x.html"), False, lambda *_: None))


def test_img2datasets_shards_are_shown_too(run, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    columns = ["url", "caption", "key", "status", "error_message", "width", "height"]
    table = pq.read_table(run / "shards/00000.parquet", columns=columns)
    pq.write_table(table, theirs / "00000.parquet")
    (theirs / "00000.tar").write_bytes((run / "shards/00000.tar").read_bytes())
    dataset, _, (row,) = show.show(str(theirs), "000000003")
    assert show.picture_of(dataset, row) == samples.jpegs()[3]
    assert keys(theirs, "kleid", limit=2) == ["000000000", "000000001"]
    with tarfile.open(theirs / "00000.tar", "w"):
        pass
    with pytest.raises(UserError, match="has no picture of sample 000000003"):
        show.picture_of(dataset, row)


def test_a_key_of_few_digits_is_found_and_other_numbers_are_sought_in_the_texts(run, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for number in range(2):
        table = pq.read_table(run / f"shards/0000{number}.parquet").drop_columns("key")
        keys_of = [f"0000{number}{row:03d}" for row in range(len(table))]  # of 1,000 samples
        pq.write_table(table.append_column("key", [keys_of]), theirs / f"0000{number}.parquet")
    assert keys(theirs, "00001003") == ["00001003"]
    assert keys(theirs, "3", limit=5) == ["00000003", "00001003"]
    for wanted in ("00001999", "00007003"):
        with pytest.raises(UserError, match=f"'{wanted}': no picture of .* has it in its text"):
            keys(theirs, wanted)


def test_the_page_holds_the_pictures_and_nothing_that_runs(run, monkeypatch):
    hostile = "<script>alert(1)</script> \x1b[2J\u202e kleid"
    dataset, _, rows = show.show(str(run), "000000003")
    rows[0] |= {"caption": hostile, "url": "javascript:alert(2)"}
    text = show.render(dataset, hostile, "kleid", rows)
    assert "<script" not in text
    assert "href" not in text
    assert "\x1b" not in text
    assert "default-src 'none'" in text
    assert "<mark>kleid</mark>" in text
    assert re.findall(r'src="([^"]{22})', text) == ["data:image/jpeg;base64"]
    assert "\x1b" not in "".join(show.lines(rows[0], "kleid", bold=False))


@given(st.text(max_size=60), st.text(max_size=20))
def test_a_marked_text_is_the_text_without_what_a_terminal_obeys(text, query):
    pieces = show.marked(text, query)
    assert "".join(piece for piece, _ in pieces) == show.clean(text)
    assert sum(hit for _, hit in pieces) <= 1
    assert show.clean(text).isprintable()


def test_the_command_writes_the_page_and_opens_it_where_there_is_a_display(
    run, tmp_path, monkeypatch, capsys
):
    opened: list[str] = []
    monkeypatch.setattr(show.webbrowser, "open", opened.append)
    monkeypatch.setattr(show.sys, "platform", "linux")
    for name in ("WAYLAND_DISPLAY", "BROWSER", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    page = tmp_path / "page.html"
    command = ["shards", "show", str(run), "kleid 3", "--limit", "2", "--html", str(page)]
    assert cli.main(command) == 0
    assert opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    assert cli.main([*command, "--no-browser"]) == 0
    assert opened == []
    assert cli.main(command) == 0
    assert opened == [page.as_uri()]
    said = capsys.readouterr().out
    assert "Kleid № 3, 緑の服" in said
    assert said.splitlines()[-1] == f"pictures  {page}"
    assert page.read_text().count("<img") == 2


def test_without_a_file_the_page_is_a_temporary_one(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cli.main(["shards", "show", str(run), "--no-browser"]) == 0
    (page,) = tmp_path.glob("wit-*.html")
    assert capsys.readouterr().out.splitlines()[-1] == f"pictures  {page}"


@pytest.mark.parametrize("limit", ["0", "501", "-1", "many"])
def test_a_limit_without_sense_is_refused(run, limit, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["shards", "show", str(run), "--limit", limit])
    assert ended.value.code == 2
    assert "--limit" in capsys.readouterr().err
