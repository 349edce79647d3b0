"""Which shards there are: the manifest of a harvest, or the index of others' shards.

A source is a folder with `manifest.json` (the harvest's, or its `shards/`) or with `index.json`
(`wit shards index DIR`). Both list for each shard a tar, a Parquet file that says where in the tar
each sample's picture stands, their sizes and sha256. Several sources stand one after another.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wit import remote, storage
from wit.errors import UserError

MANIFEST, INDEX = "manifest.json", "index.json"
FORMAT = 1


@dataclass(frozen=True)
class Index:
    """S shards, as arrays: `samples`, bytes of the tar and the table int64 [S], and names.

    `sha256` is of names, samples and files' hashes in their order: equal where the same samples
    stand in the same places, wherever the folders are.
    """

    sources: tuple[str, ...]  # paths of the manifests
    folders: tuple[str, ...]  # of the shards, for each source
    source: np.ndarray  # int32 [S]
    samples: np.ndarray
    tar_bytes: np.ndarray
    table_bytes: np.ndarray
    tar_names: list[str]
    table_names: list[str]
    tar_sha256: list[str]
    table_sha256: list[str]
    sha256: str

    def tar(self, shard: int) -> str:
        """Path of a shard's tar."""
        return storage.join(self.folders[self.source[shard]], self.tar_names[shard])

    def table(self, shard: int) -> str:
        """Path of the Parquet file that says what is in it."""
        return storage.join(self.folders[self.source[shard]], self.table_names[shard])

    def manifest(self, shard: int) -> str:
        """Path of the manifest that lists a shard."""
        return self.sources[self.source[shard]]

    @property
    def total_bytes(self) -> int:
        """Of all tars and tables."""
        return int(self.tar_bytes.sum() + self.table_bytes.sum())


def read_index(sources: Sequence[str]) -> Index:
    """The shards of all sources in their order.

    Raises:
        UserError: for a folder without shards or without a manifest, a manifest that is none, a
            shard that is listed twice, or where no shard has a sample.
    """
    if not sources:
        raise UserError("no folder of shards is given")
    found = [_read_source(source) for source in sources]
    entries = [entry for _, _, entries in found for entry in entries]
    digest = hashlib.sha256()
    for entry in entries:
        digest.update("\t".join(map(str, entry)).encode() + b"\n")
    columns: list[Any] = list(zip(*entries, strict=True)) or [()] * 7
    samples, tars, tar_bytes, tar_sha256, tables, table_bytes, table_sha256 = columns
    index = Index(
        sources=tuple(manifest for manifest, _, _ in found),
        folders=tuple(folder for _, folder, _ in found),
        source=np.repeat(np.arange(len(found)), [len(e) for _, _, e in found]).astype(np.int32),
        samples=np.array(samples, np.int64),
        tar_bytes=np.array(tar_bytes, np.int64),
        table_bytes=np.array(table_bytes, np.int64),
        tar_names=list(tars),
        table_names=list(tables),
        tar_sha256=list(tar_sha256),
        table_sha256=list(table_sha256),
        sha256=digest.hexdigest(),
    )
    if not index.samples.sum():
        listed = ", ".join(index.sources)
        raise UserError(f"{listed}: no shard has a sample with a picture; nothing to train on")
    return index


Entry = tuple[int, str, int, str, str, int, str]  # samples, then name, bytes, sha256 of tar, table


def _read_source(source: str) -> tuple[str, str, list[Entry]]:
    """(path of the manifest, folder of the shards, entries)."""
    path = _find_manifest(source)
    manifest = storage.read_json(path)
    home = storage.split(path)[0]
    shards = manifest.get("shards")
    if manifest.get("format") != FORMAT or not isinstance(shards, list):
        raise UserError(
            f"{path}: not a manifest of shards (format {FORMAT}); run: wit shards verify {home}"
        )
    inside = manifest.get("folder", ".")
    try:
        folder = home if inside == "." else storage.join(home, inside)
        entries = [_entry(shard) for shard in shards]
        repeated = _first_repeated([entry[1] for entry in entries])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: an entry lacks or misstates something ({error!r}); run: wit shards verify "
            f"{home}"
        ) from error
    if repeated:
        raise UserError(f"{path}: lists {repeated} twice; make the manifest again")
    return path, folder, entries


def _find_manifest(source: str) -> str:
    if source.endswith(".json"):
        if not storage.exists(source):
            raise UserError(f"{source}: no such manifest; check the path")
        return source
    above = storage.split(source.rstrip("/"))[0]
    paths = [storage.join(source, MANIFEST), storage.join(source, INDEX)]
    if source.rstrip("/").endswith("/shards"):
        paths.append(storage.join(above, MANIFEST))
    for path in paths:
        if storage.exists(path):
            return path
    names = storage.list_names(source)
    if any(name.endswith(".tar") and not name.startswith(".") for name in names):
        raise UserError(
            f"{source}: shards without {MANIFEST} or {INDEX}; run: wit shards index {source}"
        )
    raise UserError(f"{source}: no shards here (no {MANIFEST}, no tar); check the path")


def _entry(shard: dict[str, Any]) -> Entry:
    tar, table = shard["tar"], shard["parquet"]
    entry = (
        shard["successes"],
        *(tar[field] for field in ("name", "size", "sha256")),
        *(table[field] for field in ("name", "size", "sha256")),
    )
    for value, wanted in zip(entry, (int, str, int, str, str, int, str), strict=True):
        if type(value) is not wanted or (wanted is int and value < 0):
            raise ValueError(f"{value!r} in the entry of {tar['name']}")
    for name in (tar["name"], table["name"]):
        storage.join(".", name)  # refuses a name that leads out of the folder
    for sha256 in (tar["sha256"], table["sha256"]):
        if len(sha256) != 64 or not sha256.isalnum():
            raise ValueError(f"sha256 {sha256!r} in the entry of {tar['name']}")
    return entry


def _first_repeated(names: list[str]) -> str | None:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)


def check_files(index: Index) -> None:
    """Raises a UserError if a file that the index lists is missing or has another size.

    One listing a folder, so 50,000 shards of a remote store are checked in seconds.
    """
    listings: dict[str, dict[str, int]] = {}
    for shard in range(len(index.samples)):
        for path, size in (
            (index.tar(shard), int(index.tar_bytes[shard])),
            (index.table(shard), int(index.table_bytes[shard])),
        ):
            folder, name = storage.split(path)
            if folder not in listings:
                listings[folder] = _sizes(folder)
            found = listings[folder].get(name)
            if found == size:
                continue
            listed = index.manifest(shard)
            what = (
                f"missing, though {listed} lists it"
                if found is None
                else f"has {found:,} bytes, {listed} says {size:,}: cut off, or of another run"
            )
            raise UserError(
                f"{path}: {what}; bring the file back, or make the manifest again (wit shards "
                "verify says how)"
            )


def _sizes(folder: str) -> dict[str, int]:
    """Bytes of each file in a folder, {} where it is absent."""
    with storage.explained(folder, "read"):
        try:
            if storage.is_local(folder):
                with os.scandir(storage.local_path(folder)) as entries:
                    return {entry.name: entry.stat().st_size for entry in entries}
            fs, inner = remote.open_store(folder)
            listed = fs.ls(inner, detail=True)
            return {info["name"].rpartition("/")[2]: int(info["size"] or 0) for info in listed}
        except FileNotFoundError:
            return {}
