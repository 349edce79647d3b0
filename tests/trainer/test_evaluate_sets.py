"""Evaluation sets, their classes and their prompts, as others publish them."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.trainer.made_shards import picture, write_folder
from trainer.evaluate.pictures import CaptionSet, ClassSet
from trainer.evaluate.prompts import GENERIC, fill, read_classes, read_templates
from trainer.evaluate.sets import open_set
from wit import tar_members
from wit.errors import UserError

JPEG = b"\xff\xd8\xff\xe0 as far as a set is concerned"


@pytest.fixture(scope="session")
def prompts(shared_data, tmp_path_factory) -> Path:
    """The folder of others' class names and templates."""
    out = tmp_path_factory.mktemp("prompts")
    with tarfile.open(shared_data / "text" / "prompts_labels.tar.gz") as archive:
        archive.extractall(out, filter="data")
    return next(out.rglob("openai_clip")).parent


@pytest.fixture(scope="session")
def openai(prompts) -> str:
    return str(prompts / "openai_clip" / "data" / "prompts.md")


@pytest.fixture(scope="session")
def clip_benchmark(prompts) -> Path:
    return prompts / "clip_benchmark" / "clip_benchmark" / "datasets"


def make(folder: Path, names: list[str]) -> str:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG + name.encode())
    return str(folder)


def make_tar(path: Path, members: dict[str, bytes]) -> str:
    data = b"".join(tar_members.member(name, content) for name, content in members.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data + tar_members.end(len(data)))
    return str(path)


def labels_of(evaluated) -> dict[str, str]:
    names = [evaluated.classes[label][0] for label in evaluated.labels]
    return dict(zip(evaluated.pictures.keys, names, strict=True))


# --- prompts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "classes", "templates"),
    [
        ("CIFAR10", 10, 18),
        ("CIFAR100", 100, 18),
        ("Caltech101", 102, 34),
        ("UCF101", 101, 48),
        ("Kinetics700", 700, 28),
        ("FacialEmotionRecognition2013", 7, 6),
        ("EuroSAT", 10, 3),
        ("PatchCamelyon", 2, 1),
    ],
)
def test_openais_markdown_has_the_papers_classes_and_templates(openai, name, classes, templates):
    assert len(read_classes([openai], name)) == classes
    assert len(read_templates([openai], name)) == templates


def test_clip_benchmarks_json_has_imagenets_thousand_classes_and_eighty_templates(clip_benchmark):
    names = read_classes([str(clip_benchmark / "en_classnames.json")], "imagenet1k")
    path = str(clip_benchmark / "en_zeroshot_classification_templates.json")
    templates = read_templates([path], "imagenet1k")
    assert (len(names), len(templates)) == (1000, 80)
    assert fill(templates[0], names[0][0]) == "a bad photo of a tench."


def test_a_set_is_found_whatever_its_capitals_and_a_list_by_its_own_name(openai, clip_benchmark):
    templates = str(clip_benchmark / "en_zeroshot_classification_templates.json")
    assert read_templates([templates], "CIFAR-10") == read_templates([templates], "cifar10")
    assert read_classes([openai + "#CIFAR10"], "mine") == read_classes([openai], "cifar10")
    with pytest.raises(UserError, match=r"prompts\.md: no classes of mine; .*NAME=PATH.*FILE#KEY"):
        read_classes([openai], "mine")


def test_a_class_may_have_several_names(openai):
    assert ["happy", "smiling"] in read_classes([openai], "FacialEmotionRecognition2013")


def test_a_list_may_be_a_text_with_one_entry_a_line(tmp_path):
    (tmp_path / "t.txt").write_text("a photo of a {}.\n\nmy {c}\n")
    assert read_templates([str(tmp_path / "t.txt")], "any") == ["a photo of a {}.", "my {c}"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.txt", "a photo\n", "template 1 of any is 'a photo'; it needs a place"),
        ("t.json", "{", "not JSON"),
        ("t.json", "3", "a list, or lists by the name of the set"),
        ("t.json", '{"any": []}', "are no list, or an empty one"),
        ("t.md", "## any\n```\ntemplates = [open('x')]\n```\n", "the section any holds more than"),
        ("t.json", b"\xff", "not UTF-8"),
    ],
)
def test_a_file_of_templates_that_is_none_is_named(tmp_path, name, content, said):
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=said) as error:
        read_templates([str(tmp_path / name)], "any")
    assert str(error.value).startswith(str(tmp_path / name))


# --- pictures by class ------------------------------------------------------------------------


def test_cifar_10s_classes_are_those_of_its_folders_whatever_holds_them(shared_data, openai):
    archive = shared_data / "images" / "cifar10_jpeg.tar.gz"
    evaluated = open_set("cifar10", f"{archive}/cifar10/test", classes=[openai])
    assert isinstance(evaluated, ClassSet)
    assert len(evaluated.pictures.keys) == 10_000
    assert all(key.split("/")[0] == name for key, name in labels_of(evaluated).items())
    assert len(evaluated.templates) == 18
    assert evaluated.pictures.read(9_999).startswith(b"\xff\xd8")


def test_a_folder_and_a_tar_of_it_are_the_same_set(tmp_path):
    names = ["b/1.jpg", "a/2.png", "a/1.JPEG", "a/.hidden.jpg", "a/notes.txt"]
    folder = open_set("s", make(tmp_path / "f", names))
    members = {f"./top/{name}": (tmp_path / "f" / name).read_bytes() for name in names}
    plain = make_tar(tmp_path / "s.tar", members)
    Path(plain + ".gz").write_bytes(gzip.compress(Path(plain).read_bytes()))
    for path in (plain, plain + ".gz", f"{plain}/top"):
        same = open_set("s", path)
        assert same.sha256() == folder.sha256()
        assert labels_of(same) == {"a/1.JPEG": "a", "a/2.png": "a", "b/1.jpg": "b"}
        assert [same.pictures.read(i) for i in range(3)] == [
            JPEG + name.encode() for name in ("a/1.JPEG", "a/2.png", "b/1.jpg")
        ]
    assert folder.templates == list(GENERIC)


def test_two_splits_are_not_taken_for_two_classes(tmp_path):
    path = make(tmp_path / "s", ["test/cat/1.jpg", "train/cat/1.jpg"])
    with pytest.raises(UserError, match=r"as CLASS/PICTURE, test/cat/1\.jpg is not; give the path"):
        open_set("s", path)
    assert open_set("s", path + "/test").pictures.keys == ["cat/1.jpg"]


def write_classes(tmp_path: Path, value: object) -> list[str]:
    (tmp_path / "classes.json").write_text(json.dumps(value))
    return [str(tmp_path / "classes.json")]


def test_folders_called_as_classes_are_those_classes_in_any_order(tmp_path):
    path = make(tmp_path / "f", ["polar_bear/1.jpg", "cat/1.jpg"])
    evaluated = open_set("s", path, classes=write_classes(tmp_path, ["Polar Bear", "dog", "cat"]))
    assert evaluated.labels.tolist() == [2, 0]
    assert labels_of(evaluated) == {"cat/1.jpg": "cat", "polar_bear/1.jpg": "Polar Bear"}


def test_folders_of_other_names_are_classes_in_sorted_order(tmp_path):
    path = make(tmp_path / "f", ["n02/1.jpg", "n01/1.jpg"])
    evaluated = open_set("s", path, classes=write_classes(tmp_path, ["tench", ["cat", "tom"]]))
    assert labels_of(evaluated) == {"n01/1.jpg": "tench", "n02/1.jpg": "cat"}
    by_folder = write_classes(tmp_path, {"n01": "tench", "n02": "cat", "n03": "dog"})
    assert labels_of(open_set("s", path, classes=by_folder))["n01/1.jpg"] == "tench"


@pytest.mark.parametrize(
    ("folders", "names", "said"),
    [
        (["n1", "n2"], ["a", "b", "c"], "2 folders of pictures, 3 names of classes"),
        (["cat", "n2"], ["dog", "cat"], "folder cat is number 0 .* but the name of class 1"),
        (["10", "9"], ["a", "b"], "numbers of different lengths"),
    ],
)
def test_names_that_do_not_fit_the_folders_are_refused(tmp_path, folders, names, said):
    path = make(tmp_path / "f", [f"{folder}/1.jpg" for folder in folders])
    with pytest.raises(UserError, match=said):
        open_set("s", path, classes=write_classes(tmp_path, names))


# --- WebDataset, captions ---------------------------------------------------------------------


def test_clip_benchmarks_webdataset_brings_its_names_and_templates(tmp_path):
    for tar, keys in ((0, ("s0", "s1")), (1, ("s2",))):
        members = {}
        for key in keys:
            members |= {f"{key}.cls": key[1:].encode() + b"\n", f"{key}.webp": JPEG}
        make_tar(tmp_path / "test" / f"{tar}.tar", members)
    (tmp_path / "classnames.txt").write_text("cat\ndog\nhen\n")
    (tmp_path / "zeroshot_classification_templates.txt").write_text("itself, a {c}\n")
    evaluated = open_set("s", str(tmp_path))
    assert labels_of(evaluated) == {"s0": "cat", "s1": "dog", "s2": "hen"}
    assert evaluated.templates == ["itself, a {c}"]
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    with pytest.raises(UserError, match=r"s2 is of class 2, .* names of 2 classes"):
        open_set("s", str(tmp_path))
    (tmp_path / "classnames.txt").unlink()
    with pytest.raises(UserError, match="its classes are numbers; name them with --classes"):
        open_set("s", str(tmp_path))
    make_tar(tmp_path / "train" / "0.tar", {"s0.webp": JPEG})
    with pytest.raises(UserError, match="has tars in test and train; name one of them"):
        open_set("s", str(tmp_path))


def test_a_line_of_a_text_is_a_caption_and_a_json_may_have_them_all(tmp_path):
    tar = make_tar(tmp_path / "s.tar", {"a.jpg": JPEG, "a.txt": b"one\n\ntwo\n", "b.jpg": JPEG})
    evaluated = open_set("s", tar)
    assert isinstance(evaluated, CaptionSet)
    assert dict(zip(evaluated.pictures.keys, evaluated.captions, strict=True)) == {
        "a": ["one", "two"]
    }
    (tmp_path / "c.json").write_text(json.dumps({"b.jpg": "three"}))
    chosen = open_set("s", tar, captions=str(tmp_path / "c.json"))
    assert (chosen.pictures.keys, chosen.captions) == (["b.jpg"], [["three"]])
    (tmp_path / "c.json").write_text(json.dumps({"c.jpg": ["three"]}))
    with pytest.raises(UserError, match=r"the picture c\.jpg is not there"):
        open_set("s", tar, captions=str(tmp_path / "c.json"))


def test_flickr8ks_pictures_have_five_captions_each(shared_data):
    evaluated = open_set("f", str(shared_data / "images" / "flickr8k_train_128.tar"))
    assert len(evaluated.pictures.keys) == 7_498
    assert {len(captions) for captions in evaluated.captions} == {5}


def test_a_harvests_shards_are_a_set_of_captions_of_which_few_may_be_asked(tmp_path):
    out = str(write_folder(tmp_path / "harvest", [3, 5, 2]))
    whole, some = open_set("s", out), open_set("s", out, limit=5)
    assert len(whole.pictures.keys) == 10
    assert some.pictures.keys == whole.pictures.keys[::2]
    for number, key in enumerate(some.pictures.keys):
        data = some.pictures.read(number)
        assert data == picture(key, len(data))
        assert some.captions[number] == [f"picture {key}"]


# --- what is damaged --------------------------------------------------------------------------


def test_damaged_and_empty_sets_are_named(tmp_path):
    tar = Path(make_tar(tmp_path / "s.tar", {"a/1.jpg": JPEG * 100}))
    packed = gzip.compress(tar.read_bytes())
    (tmp_path / "cut.tar").write_bytes(tar.read_bytes()[:700])
    (tmp_path / "cut.tar.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "none.tgz").write_bytes(b"no gzip")
    (tmp_path / "empty").mkdir()
    make(tmp_path / "texts", ["a/1.txt"])
    for name, said in (
        ("cut.tar", "cut off after"),
        ("cut.tar.gz", "cut off or damaged"),
        ("none.tgz", "cut off or damaged"),
        ("absent.tar", "no such tar"),
        ("empty", "no files here"),
        ("texts", "no pictures among its 1 files"),
        ("s.tar/b", "has no folder b, but a/1.jpg"),
    ):
        with pytest.raises(UserError, match=said) as error:
            open_set("s", str(tmp_path / name))
        assert name.removesuffix("/b") in str(error.value)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("a/twice.jpg"))
    (tmp_path / "twice.tar").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match=r"a/twice\.jpg comes twice"):
        open_set("s", str(tmp_path / "twice.tar"))
