"""WordNet is read whole from a folder or a tar, and what is damaged is told with file and line."""

import io
import re
import tarfile

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from query_list.wordnet import FILES, read_wordnet
from wit import text
from wit.errors import UserError

LICENCE = "  1 This software and database ...\n  2 WordNet 3.0 Copyright 2006 by Princeton\n"
SYNSETS = {  # file -> synsets: words, pointers by (symbol, file, number of the synset there)
    "data.noun": [
        (["dog", "domestic_dog", "Canis_familiaris"], [("@", "data.noun", 1)]),
        (["animal"], [("~", "data.noun", 0), ("+", "data.adj", 0)]),
    ],
    "data.verb": [(["dog", "tail"], [])],
    "data.adj": [(["galore(ip)", "beastly(a)"], [("+", "data.noun", 1)]), (["afloat(p)"], [])],
    "data.adv": [(["U.S.-style"], [])],
}


@pytest.fixture(scope="module")
def archive(shared_data) -> str:
    return str(shared_data / "text" / "wordnet30.tar.xz")


@pytest.fixture(scope="module")
def real(archive):
    return read_wordnet(archive)


def small(version: str = "3.0") -> dict[str, bytes]:
    """A WordNet of six synsets, in the format of wndb(5WN)."""

    def line(name: str, number: int, starts: dict[tuple[str, int], int]) -> str:
        words, pointers = SYNSETS[name][number]
        listed = " ".join(f"{word} 0" for word in words)
        behind = "".join(
            f" {symbol} {starts.get((file, at), 0):08d} {FILES[file]} 0000"
            for symbol, file, at in pointers
        )
        frames = " 01 + 02 00" if name == "data.verb" else ""
        start = starts.get((name, number), 0)
        head = f"{start:08d} 05 {FILES[name]} {len(words):02x} {listed} {len(pointers):03d}"
        return f"{head}{behind}{frames} | a gloss; with @ 00000000 n  \n"

    licence = LICENCE.replace("3.0", version)
    starts: dict[tuple[str, int], int] = {}
    for name, synsets in SYNSETS.items():
        at = len(licence)
        for number in range(len(synsets)):
            starts[name, number] = at
            at += len(line(name, number, starts))
    return {
        name: (licence + "".join(line(name, n, starts) for n in range(len(SYNSETS[name])))).encode()
        for name in SYNSETS
    }


def folder_of(path, files: dict[str, bytes]) -> str:
    path.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    return str(path)


def tar_of(path, members: list[tuple[str, bytes]], mode: str = "w:gz") -> str:
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


# --- the real one -----------------------------------------------------------------------------


def test_all_117659_synsets_of_wordnet_30_are_covered(real):
    assert (real.version, real.synsets) == ("3.0", 117_659)
    assert len(real.lemmas) == 206_978
    kinds = real.lemmas.filter(real.lemmas["first"])["pos"].value_counts().to_pylist()
    assert {kind["values"]: kind["counts"] for kind in kinds} == {
        "n": 82_115,
        "v": 13_767,
        "a": 7_463,
        "s": 10_693,
        "r": 3_621,
    }


def test_its_queries_are_the_normal_forms_of_all_lemmas_of_its_index_files(real, archive):
    lemmas = set()
    with tarfile.open(archive) as tar:
        for member in tar:
            if re.search(r"/index\.(noun|verb|adj|adv)$", member.name):
                lines = tar.extractfile(member).read().decode().splitlines()
                lemmas |= {line.split(" ")[0] for line in lines if not line.startswith("  ")}
    spaced = pa.array([lemma.replace("_", " ") for lemma in sorted(lemmas)])
    queries = real.queries().to_pylist()
    assert len(queries) == len(set(queries)) == 146_740
    assert set(queries) == set(text.normalise(spaced).to_pylist())


def test_metaclips_86654_synsets_are_first_lemmas_and_the_numbers_below_100(real):
    first = real.lemmas.filter(real.lemmas["first"])["lemma"].to_pylist()
    names = {lemma.lower().split(".")[0] for lemma in first} - {""}
    assert len(names) == 86_554
    assert len(names | {str(number) for number in range(100)}) == 86_654


def test_adjective_markers_and_underscores_are_gone(real):
    lemmas = set(real.lemmas["lemma"].to_pylist())
    assert {"galore", "afloat", "golden retriever", "Canis familiaris"} <= lemmas
    assert not [lemma for lemma in lemmas if "(" in lemma or "_" in lemma]


# --- where it lies ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["3.0", "3.1"])
def test_a_folder_and_tars_of_it_read_the_same(tmp_path, version):
    files = small(version)
    found = read_wordnet(folder_of(tmp_path / "dict", files))
    assert (found.version, found.synsets, len(found.lemmas)) == (version, 6, 10)
    assert found.lemmas["lemma"].to_pylist()[-4:] == ["galore", "beastly", "afloat", "U.S.-style"]
    assert read_wordnet(str(tmp_path)).lemmas.equals(found.lemmas)  # the folder above dict
    others = [("../../index.noun", b"not read"), ("dict/README", b"")]
    for ending, mode in (
        ("tar", "w"),
        ("tar.gz", "w:gz"),
        ("tar.bz2", "w:bz2"),
        ("tar.xz", "w:xz"),
    ):
        members = others + [(f"WNdb/dict/{name}", data) for name, data in files.items()]
        tar = tar_of(tmp_path / f"wn.{ending}", members, mode)
        assert read_wordnet(tar).lemmas.equals(found.lemmas)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "dict", "wn.tar", "wn.tar.bz2", "wn.tar.gz", "wn.tar.xz",
    ]  # fmt: skip


# --- damage -----------------------------------------------------------------------------------


def says(path: str) -> str:
    with pytest.raises(UserError) as error:
        read_wordnet(path)
    assert "\n" not in str(error.value)
    assert "wordnet.princeton.edu" in str(error.value)  # what to do
    return str(error.value)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path, name):
    files = {other: data for other, data in small().items() if other != name}
    assert f"{name}: no such file" in says(folder_of(tmp_path / "wn", files))
    tar = tar_of(tmp_path / "wn.tar.gz", list(files.items()))
    assert f"wn.tar.gz: no {name} in this tar" in says(tar)


def test_no_folder_and_no_tar_are_told(tmp_path):
    assert "data.noun: no such file" in says(str(tmp_path / "nowhere"))
    assert "no such file" in says(str(tmp_path / "nowhere.tar.gz"))
    (tmp_path / "page.tar.gz").write_bytes(b"<html>not found</html>")
    assert "page.tar.gz: cut short, damaged or no tar" in says(str(tmp_path / "page.tar.gz"))


def damaged(tmp_path, name: str, change) -> str:
    files = small()
    files[name] = change(files[name])
    return says(folder_of(tmp_path, files))


def test_a_file_that_is_cut_short_is_told_with_its_line(tmp_path):
    assert "data.noun, line 4: ends without a line end" in damaged(
        tmp_path, "data.noun", lambda data: data[:-10]
    )
    cut_at_line = damaged(
        tmp_path, "data.noun", lambda data: b"".join(data.splitlines(keepends=True)[:3])
    )
    assert re.search(r"line 3: points to synset \d+ of n, which is not there", cut_at_line)
    assert "data.adv: no synsets" in damaged(tmp_path, "data.adv", lambda _: LICENCE.encode())


def test_other_damage_is_told_with_its_line(tmp_path):
    changed_ends = damaged(tmp_path, "data.verb", lambda data: data.replace(b"\n", b"\r\n"))
    assert "data.verb, line 3: synset 00000079 begins at byte 81" in changed_ends
    assert "line 3: no synset in the format" in damaged(
        tmp_path, "data.verb", lambda data: data.replace(b" 02 dog", b" zz dog")
    )
    assert "line 3: no synset in the format" in damaged(
        tmp_path, "data.verb", lambda data: data.replace(b" 000 01", b" 999 01")
    )
    assert "line 3: not UTF-8" in damaged(
        tmp_path, "data.verb", lambda data: data.replace(b"tail", b"\xff\xfeil")
    )
    assert "is no pointer" in damaged(
        tmp_path, "data.adj", lambda data: data.replace(b" n 0000", b" x 0000")
    )
    assert "data.adv, line 1: no licence" in damaged(tmp_path, "data.adv", lambda _: b"<html>\n")
    assert "several versions of WordNet" in damaged(
        tmp_path, "data.adv", lambda data: data.replace(b"WordNet 3.0", b"WordNet 3.1")
    )


def test_a_hostile_tar_is_refused(tmp_path):
    files = list(small().items())
    twice = tar_of(tmp_path / "twice.tar", [*files, ("x/data.adv", b"")], "w")
    assert "the tar has it already" in says(twice)

    with tarfile.open(tmp_path / "link.tar", "w") as tar:
        link = tarfile.TarInfo("data.noun")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert "no data.noun in this tar" in says(str(tmp_path / "link.tar"))

    large = tarfile.TarInfo("dict/data.noun")
    large.size = 1 << 32
    (tmp_path / "large.tar").write_bytes(large.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert "more than WordNet has" in says(str(tmp_path / "large.tar"))
    large.size = 65 << 20
    (tmp_path / "large.tar").write_bytes(large.tobuf() + bytes(1024))
    assert "68,157,440 bytes are too many" in says(str(tmp_path / "large.tar"))

    many = tar_of(tmp_path / "many.tar", [(f"{n}", b"") for n in range(10_001)], "w")
    assert "more than WordNet has" in says(many)

    whole = tar_of(tmp_path / "whole.tar.gz", files)
    data = (tmp_path / "whole.tar.gz").read_bytes()
    for size in (20, len(data) // 2, len(data) - 30):
        (tmp_path / "whole.tar.gz").write_bytes(data[:size])
        assert "cut short, damaged or no tar" in says(whole)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(
    name=st.sampled_from(list(FILES)),
    place=st.floats(0, 1),
    removed=st.integers(0, 40),
    added=st.binary(max_size=4),
)
def test_any_change_is_read_or_refused_in_one_line(tmp_path, name, place, removed, added):
    files = small()
    at = int(place * len(files[name]))
    files[name] = files[name][:at] + added + files[name][at + removed :]
    said = ""
    try:
        read_wordnet(folder_of(tmp_path, files))
    except UserError as error:
        said = str(error)
    assert "\n" not in said
