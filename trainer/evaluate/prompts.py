"""Names of classes and templates: read from the files others publish, put together to prompts.

A file is JSON (a list, or lists by the name of the set, as CLIP_benchmark and MetaCLIP have them;
for classes also names by folder), OpenAI's markdown (`## SET`, then `classes = [...]` and
`templates = [...]`), or text with one entry a line. `FILE#KEY` takes the list of another name.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from wit import storage
from wit.errors import UserError

# For sets of which nobody says better.
GENERIC = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a picture of one {}.",
    "a picture of some {}.",
    "a close-up of a {}.",
    "a {} seen from far away.",
    "a small image of a {}.",
)
PLACE = re.compile(r"\{c?\}")  # OpenAI writes {}, CLIP_benchmark {c}
SECTION = re.compile(r"^## +(.+?) *$\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)

Kind = Literal["classes", "templates"]
Names = list[list[str]]  # of each class; a class may have several


def fill(template: str, name: str) -> str:
    """The template with a class's name in its place."""
    return PLACE.sub(lambda _: name, template)


def read_templates(paths: Sequence[str], set_name: str) -> list[str]:
    """The templates of a set, from the first file that has some.

    Raises:
        UserError: where none has, for a file that is unreadable, a template without a place.
    """
    for path in paths:
        found = _pick(path, "templates", read_lists(path, "templates"), set_name)
        if found is None:
            continue
        for number, template in enumerate(found, start=1):
            if not isinstance(template, str) or not PLACE.search(template):
                raise UserError(
                    f"{path}: template {number} of {set_name} is {template!r}; it needs a place, "
                    "{} or {c}, for the class"
                )
        return found
    raise _absent(paths, "templates", set_name)


def read_classes(paths: Sequence[str], set_name: str) -> Names:
    """The names of a set's classes in the order of their numbers, from the first file that has it.

    Raises:
        UserError: where none has, for a file that is unreadable, a name that is none.
    """
    for path in paths:
        found = _pick(path, "classes", read_lists(path, "classes"), set_name)
        if found is not None:
            return [_names(path, number, value) for number, value in enumerate(found)]
    raise _absent(paths, "classes", set_name)


def read_folder_names(paths: Sequence[str], folders: Sequence[str]) -> Names | None:
    """The names of each folder, from the first file whose entries are the folders; None if none."""
    for path in paths:
        lists = read_lists(path, "classes")
        if isinstance(lists, dict) and all(folder in lists for folder in folders):
            return [_names(path, folder, lists[folder]) for folder in folders]
    return None


def _names(path: str, which: int | str, value: Any) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if isinstance(names, list) and names and all(isinstance(n, str) and n.strip() for n in names):
        return names
    raise UserError(f"{path}: class {which} is {value!r}; a name or a list of names is needed")


def _absent(paths: Sequence[str], kind: Kind, set_name: str) -> UserError:
    return UserError(
        f"{', '.join(paths)}: no {kind} of {set_name}; name the set as the file does (NAME=PATH), "
        "or the list that it is to have (FILE#KEY)"
    )


# --- files ------------------------------------------------------------------------------------


def read_lists(path: str, kind: Kind) -> list[Any] | dict[str, Any]:
    """What a file has of a kind: one list, or lists by the name of the set."""
    path = path.partition("#")[0]
    try:
        text = storage.read_bytes(path).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file of {kind}; check the path") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error}); convert it") from error
    if path.endswith(".md"):
        return read_markdown(path, text)[kind]
    if path.endswith(".json"):
        return _read_json(path, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def _read_json(path: str, text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, (list, dict)):
        raise UserError(f"{path}: a list, or lists by the name of the set, are needed")
    return value


def read_markdown(path: str, text: str) -> dict[str, dict[str, list[Any]]]:
    """{"classes": {set: list}, "templates": {set: list}} of OpenAI's prompts.md; it is not run."""
    lists: dict[str, dict[str, list[Any]]] = {"classes": {}, "templates": {}}
    for name, body in SECTION.findall(text):
        for code in CODE.findall(body):
            try:
                for node in ast.parse(code).body:
                    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                        kind = node.targets[0].id
                        if kind in lists:
                            lists[kind][name] = ast.literal_eval(node.value)
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                raise UserError(
                    f"{path}: the section {name} holds more than lists ({error}); leave only "
                    "classes = [...] and templates = [...] in it"
                ) from error
    return lists


def _pick(path: str, kind: Kind, lists: list[Any] | dict[str, Any], name: str) -> Any:
    """The list of this name, None if there is none; where no name is equal, capitals and
    punctuation do not count. A file's only list is everybody's.
    """
    key = path.partition("#")[2]
    if isinstance(lists, dict):
        name = key or name
        alike = [k for k in lists if k == name] or [k for k in lists if _plain(k) == _plain(name)]
        if len(alike) != 1:
            return None
        lists = lists[alike[0]]
    if not isinstance(lists, list) or not lists:
        raise UserError(f"{path}: its {kind} of {name} are no list, or an empty one")
    return lists


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


# --- which folder is which class --------------------------------------------------------------


def match_folders(
    where: str, set_name: str, folders: Sequence[str], paths: Sequence[str]
) -> tuple[Names, list[int]]:
    """(names of all classes, the number of each folder's class), for folders in sorted order.

    Without files of classes: the folders' own names. Names by folder: those. A list: by name if
    every folder is called as one of the classes, else in sorted order, as torchvision numbers
    folders.

    Raises:
        UserError: where the numbers of folders and classes differ, or the order is in doubt.
    """
    if not paths:
        return [[folder.replace("_", " ")] for folder in folders], list(range(len(folders)))
    by_folder = read_folder_names(paths, folders)
    if by_folder is not None:
        return by_folder, list(range(len(folders)))
    given = read_classes(paths, set_name)
    numbers = {_plain(name): n for n, names in enumerate(given) for name in names}
    distinct = len(numbers) == sum(map(len, given))
    found = [numbers.get(_plain(folder)) for folder in folders]
    if distinct and None not in found and len(set(found)) == len(found):
        return given, [number for number in found if number is not None]
    if len(folders) != len(given):
        raise UserError(
            f"{where}: {len(folders):,} folders of pictures, {len(given):,} names of classes; one "
            "name for each folder is needed, in their sorted order"
        )
    if all(f.isdecimal() for f in folders) and sorted(folders, key=int) != list(folders):
        raise UserError(
            f"{where}: folders are numbers of different lengths, whose order is not that of text; "
            "give the names by folder, as JSON {folder: name}"
        )
    for number, (folder, other) in enumerate(zip(folders, found, strict=True)):
        if distinct and other is not None and other != number:
            raise UserError(
                f"{where}: folder {folder} is number {number} in sorted order, but the name of "
                f"class {other}; give the names by folder, as JSON {{folder: name}}"
            )
    return given, list(range(len(folders)))


def twins(classes: Names) -> list[int]:
    """For each class the first with the same names: no picture can tell them apart."""
    first: dict[tuple[str, ...], int] = {}
    return [first.setdefault(tuple(names), number) for number, names in enumerate(classes)]
