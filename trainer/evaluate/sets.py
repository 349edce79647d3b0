"""Evaluation sets: pictures with the numbers of their classes, or with captions.

What a path holds is seen from its files: shards with a manifest or an index (captions), pictures
with a `captions.json`, WebDataset samples with `.cls` or `.txt` (a line is a caption), or pictures
in one folder a class. Every rank opens the same set, in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trainer.evaluate.files import TAR, Files, open_files
from trainer.evaluate.pictures import CaptionSet, ClassSet, Pictures, spread
from trainer.evaluate.prompts import GENERIC, Names, match_folders, read_classes, read_templates
from trainer.index import INDEX, MANIFEST, check_files, read_index
from trainer.table import read_rows
from wit import storage
from wit.errors import StorageError, UserError
from wit.shards_index import MEMBER, PICTURES

CAPTIONS = "captions.json"
# Beside CLIP_benchmark's WebDatasets.
CLASS_NAMES, CLASS_TEMPLATES = "classnames.txt", "zeroshot_classification_templates.txt"


def open_set(
    name: str,
    path: str,
    *,
    classes: Sequence[str] = (),
    templates: Sequence[str] = (),
    captions: str | None = None,
    limit: int | None = None,
) -> ClassSet | CaptionSet:
    """The set that a path holds.

    classes, templates: files of them, see trainer.evaluate.prompts. captions: a JSON object
    {picture: [caption, ...]}; its pictures are the set. limit: so many pictures at most, evenly
    spread over the set.

    Raises:
        UserError: where there are no pictures, names and pictures do not go together, a file is
            damaged.
    """
    if captions is None and any(
        storage.exists(storage.join(path, manifest)) for manifest in (MANIFEST, INDEX)
    ):
        return _read_shards(name, path, limit)
    files = open_files(path)
    numbers = [i for i, n in enumerate(files.names) if _extension(n) in PICTURES]
    if not numbers:
        raise StorageError(f"{path}: no pictures among its {len(files.names):,} files")
    listed = [i for i, n in enumerate(files.names) if storage.split(n)[1] == CAPTIONS]
    found: ClassSet | CaptionSet
    if captions is not None:
        found = _with_captions(name, files, numbers, captions, _read_file(captions))
    elif listed:
        found = _with_captions(
            name, files, numbers, f"{path}/{files.names[listed[0]]}", files.read(listed[0])
        )
    else:
        found = _from_members(name, files, numbers, classes, templates)
    if not found.pictures.keys:
        raise StorageError(f"{path}: no picture with a caption")
    kept = spread(len(found.pictures.keys), limit)
    pictures = found.pictures.take(kept)
    if isinstance(found, ClassSet):
        return replace(found, pictures=pictures, labels=found.labels[kept])
    return replace(found, pictures=pictures, captions=[found.captions[i] for i in kept])


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _read_file(path: str) -> bytes:
    try:
        return storage.read_bytes(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file of captions; check the path") from error


def _pictures(name: str, files: Files, numbers: Sequence[int], keys: Sequence[str]) -> Pictures:
    numbers = list(numbers)
    sizes = [files.places[i][2] for i in numbers]
    return Pictures(name, list(keys), sizes, lambda i: files.read(numbers[i]))


# --- captions ---------------------------------------------------------------------------------


def _with_captions(
    name: str, files: Files, numbers: Sequence[int], path: str, data: bytes
) -> CaptionSet:
    """Pictures by the names that a JSON object gives them: the file's, or its last part."""
    try:
        captions = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    if not isinstance(captions, dict) or not captions:
        raise UserError(f"{path}: an object {{picture: [caption, ...]}} is needed")
    ends: dict[str, int] = {}
    for number in numbers:
        end = storage.split(files.names[number])[1]
        ends[end] = -1 if end in ends else number
    places = ends | {files.names[number]: number for number in numbers}
    found = []
    for key, texts in captions.items():
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise UserError(f"{path}: {key} has {texts!r:.80}; a list of captions is needed")
        number = places.get(key, -1)
        if number < 0:
            why = "is there twice" if key in places else "is not there"
            raise UserError(f"{path}: the picture {key} {why}; take it out of the captions")
        texts = [text for text in texts if text.strip()]
        if not texts:
            raise UserError(f"{path}: {key} has no caption; take it out")
        found.append((key, number, texts))
    found.sort()
    pictures = _pictures(name, files, [n for _, n, _ in found], [key for key, _, _ in found])
    return CaptionSet(pictures, [texts for _, _, texts in found])


def _read_shards(name: str, path: str, limit: int | None) -> CaptionSet:
    """Of shards with a manifest or an index; what is not asked for is not read."""
    index = read_index([path])
    check_files(index)
    ends = np.cumsum(index.samples)
    kept = spread(int(ends[-1]), limit)
    shards = np.searchsorted(ends, kept, side="right")
    rows = []
    for shard in np.unique(shards).tolist():
        first, table = int(ends[shard] - index.samples[shard]), index.table(shard)
        batch = read_rows(table, storage.read_bytes(table), int(index.samples[shard]))
        for row in batch.take(kept[shards == shard] - first).to_pylist():
            rows.append(row | {"tar": index.tar(shard)})
    rows = [row for row in rows if row["texts"]]
    keys = [row["key"] for row in rows]
    if len(set(keys)) < len(keys):
        raise StorageError(f"{path}: a key stands in two shards; evaluate them one by one")

    def read(number: int) -> bytes:
        row = rows[number]
        return storage.read_bytes(row["tar"], row["offset"], row["offset"] + row["size"])

    pictures = Pictures(name, keys, [row["size"] for row in rows], read)
    return CaptionSet(pictures, [row["texts"] for row in rows])


# --- classes ----------------------------------------------------------------------------------


def _from_members(
    name: str,
    files: Files,
    numbers: Sequence[int],
    classes: Sequence[str],
    templates: Sequence[str],
) -> ClassSet | CaptionSet:
    """WebDataset samples by what is beside their pictures, or pictures in folders."""
    samples: dict[str, dict[str, int]] = {}
    for number, member in enumerate(files.names):
        match = MEMBER.fullmatch(member)
        if match:
            samples.setdefault(match[1], {})[match[2].lower()] = number
    there = set(numbers)
    pairs = []
    for key, parts in sorted(samples.items()):
        picture = next((number for number in parts.values() if number in there), None)
        if picture is not None:
            pairs.append((key, picture, parts))
    for kind in ("cls", "txt"):
        found = [(key, picture, parts[kind]) for key, picture, parts in pairs if kind in parts]
        if not found:
            continue
        texts = [files.read(number).decode("utf-8", "replace") for _, _, number in found]
        keys = [key for key, _, _ in found]
        pictures = _pictures(name, files, [number for _, number, _ in found], keys)
        if kind == "cls":
            return _numbered(pictures, files.path, texts, classes, templates)
        lines = [[line for line in text.splitlines() if line.strip()] for text in texts]
        kept = np.array([i for i, captions in enumerate(lines) if captions], np.int64)
        return CaptionSet(pictures.take(kept), [lines[i] for i in kept])
    return _in_folders(name, files, numbers, classes, templates)


def _numbered(
    pictures: Pictures,
    path: str,
    texts: Sequence[str],
    classes: Sequence[str],
    templates: Sequence[str],
) -> ClassSet:
    """Samples whose `.cls` is the number of their class, from 0 on."""
    beside = _beside(path, CLASS_NAMES)
    if not classes and not beside:
        raise UserError(
            f"{path}: its classes are numbers; name them with --classes FILE, in their order"
        )
    names = read_classes(classes or [beside], pictures.name)
    for key, text in zip(pictures.keys, texts, strict=True):
        if not text.strip().isdecimal():
            raise UserError(f"{path}: {key}.cls holds {text!r:.40}, no number of a class")
        if int(text) >= len(names):
            raise UserError(
                f"{path}: {key} is of class {int(text)}, counted from 0, and there are names of "
                f"{len(names):,} classes; give the names that belong to this set"
            )
    if not templates and not classes and _beside(path, CLASS_TEMPLATES):
        templates = [_beside(path, CLASS_TEMPLATES)]
    labels = np.array([int(text) for text in texts], np.int64)
    return _prompted(pictures, labels, names, classes or [beside], templates)


def _beside(path: str, name: str) -> str:
    """The path of a file in the set's folder or one of two above it, empty if there is none."""
    inside = TAR.fullmatch(path)
    folder = storage.split(inside[1])[0] if inside else path.rstrip("/")
    for _ in range(3):
        if storage.exists(storage.join(folder, name)):
            return storage.join(folder, name)
        folder = storage.split(folder)[0]
    return ""


def _in_folders(
    name: str,
    files: Files,
    numbers: Sequence[int],
    classes: Sequence[str],
    templates: Sequence[str],
) -> ClassSet:
    """CLASS/PICTURE, perhaps below one more folder that all of them share."""
    parts = [files.names[i].split("/") for i in numbers]
    while min(map(len, parts)) > 2 and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    odd = [number for number, part in zip(numbers, parts, strict=True) if len(part) != 2]
    if odd:
        raise UserError(
            f"{files.path}: pictures are expected as CLASS/PICTURE, {files.names[odd[0]]} is not; "
            "give the path of the folder that holds the classes (tar files too: FILE.tar/FOLDER)"
        )
    folders = sorted({folder for folder, _ in parts})
    names, numbers_of = match_folders(files.path, name, folders, classes)
    label = dict(zip(folders, numbers_of, strict=True))
    labels = np.array([label[folder] for folder, _ in parts], np.int64)
    pictures = _pictures(name, files, numbers, ["/".join(part) for part in parts])
    return _prompted(pictures, labels, names, classes or ["names of folders"], templates)


def _prompted(
    pictures: Pictures,
    labels: np.ndarray,
    names: Names,
    classes: Sequence[str],
    templates: Sequence[str],
) -> ClassSet:
    """The set with its templates: those given, of the file of classes, or generic ones."""
    templates = templates or [p for p in classes if p.partition("#")[0].endswith(".md")]
    found = read_templates(templates, pictures.name) if templates else list(GENERIC)
    sources = {"classes": ", ".join(classes), "templates": ", ".join(templates) or "built-in"}
    return ClassSet(pictures, labels, names, found, sources)
