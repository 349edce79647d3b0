"""croissant.json: the dataset in MLCommons' Croissant 1.1, with its RAI 1.0 vocabulary.

Specifications: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html and
croissant-rai-spec.html. Paths are relative to the file, which stands in the output folder.

`pairs` reads the shards' Parquet files, named by a glob. Up to LISTED shards each file is listed
with its size and SHA-256 as well, and `pictures` reads the pictures out of the listed tars. Of a
larger dataset the list would be megabytes that every reader parses first, so there the globs stand
alone and the hashes are those of manifest.json, whose own is here: a reader who checks that file
can check every other. mlcroissant cannot look into the tars of a glob, so `pictures` is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from wit import storage
from wit.outcomes import SUCCESS
from wit.pairs import COVERAGE, SAMPLES

if TYPE_CHECKING:
    from pipeline.card import Facts

Json = dict[str, Any]

LISTED = 500  # shards; mlcroissant reads about 500 objects a second
VERSIONS = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
ID, PARQUET, TAR = "@id", "application/x-parquet", "application/x-tar"
TYPES = {
    pa.string(): "sc:Text",
    pa.bool_(): "sc:Boolean",
    pa.int8(): "cr:Int8",
    pa.int32(): "cr:Int32",
    pa.int64(): "cr:Int64",
    pa.uint64(): "cr:UInt64",
    pa.list_(pa.int32()): "cr:Int32",
}
URLS = ("url", "page_url", "final_url")
# pair_id is bytes, which Croissant has no type for; phash is null in some rows, and readers that
# go through pandas would round its 64 bits there.
LEFT_OUT = ("pair_id", "phash")
MEANINGS = {
    "url": "Address of the picture.",
    "caption": "Text that stood beside the picture.",
    "key": "Of the sample in the tars: shard and number.",
    "status": "success, failed_to_download or failed_to_resize.",
    "error_message": "Why there is no picture; null for success.",
    "width": "Pixels of the stored picture.",
    "height": "Pixels of the stored picture.",
    "original_width": "Pixels of the fetched picture.",
    "original_height": "Pixels of the fetched picture.",
    "exif": "JSON of camera and exposure.",
    "sha256": "SHA-256 of the stored picture, hexadecimal.",
    "outcome": "What became of the picture, from WebImageText's closed list.",
    "page_url": "Page that the picture stood on.",
    "attribute": "Where the text stood: alt, title, figcaption, ...",
    "language": "Language of the text; null where it was not identified.",
    "query_ids": "The queries that the text includes: rows of coverage.parquet.",
    "priority": "Seeded hash by which the pair was drawn.",
    "wave": "Round of fetching, from 1.",
    "source": "Index of the source file.",
    "row": "Row among the source's candidates.",
    "animated": "Whether the fetched file has a second frame.",
    "content_type": "What the server said.",
    "final_url": "Address after redirects.",
    "image_ext": "Extension of the picture in the tar.",
    "image_offset": "Bytes into the tar at which the picture begins.",
    "image_size": "Bytes of the picture.",
    "query_id": "Number of the query in its list.",
    "query": "The query, normalised.",
    "matched": "Candidates whose text includes it.",
    "unique": "Of them, after deduplication.",
    "drawn": "Of its cap, with a picture.",
    "present": "In the shards, also through other queries.",
    "short_by": "What is missing to the cap or to all distinct candidates.",
}
PREFIXED = (  # of the recommended context: names that stand for cr:NAME
    *("annotation", "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty"),
    *("excludes", "extract", "field", "fileProperty", "fileObject", "fileSet", "format"),
    *("includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path"),
    *("readLines", "recordSet", "references", "regex", "repeated", "replace", "samplingRate"),
    *("sdVersion", "separator", "source", "subField", "transform", "unArchive", "value"),
)
CONTEXT: Json = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {ID: "cr:data", "@type": "@json"},
    "dataType": {ID: "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {ID: "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{name: f"cr:{name}" for name in PREFIXED},
}


def describe(facts: Facts, front: Mapping[str, Any], out: str) -> Json:
    """Returns the Croissant description of the dataset in an output folder.

    front: of the card, where a person may have named a license.
    """
    entries = facts.manifest["shards"]
    listed = len(entries) <= LISTED
    dataset: Json = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": VERSIONS,
        "name": str(front["pretty_name"]),
        "description": (
            f"{facts.pairs:,} pairs of a picture and a text found beside it on the web, harvested "
            f"by WebImageText {facts.config['version']} with {facts.queries['listed']:,} queries, "
            f"at most {facts.manifest['per_query']:,} pairs a query. The card is README.md."
        ),
        "license": license_of(front),
        "keywords": [str(tag) for tag in front.get("tags") or []],
        "distribution": distribution(facts, out, listed),
        "recordSet": [
            *([pairs(out, entries[0]["name"])] if entries else []),
            *([pictures()] if entries and listed else []),
            record_set("queries", "coverage.parquet", "fileObject", COVERAGE, "query_id"),
        ],
        **responsible(facts),
    }
    if facts.ended:
        dataset["dateCreated"] = facts.ended
    if facts.languages:
        dataset["inLanguage"] = facts.languages
    return dataset


def license_of(front: Mapping[str, Any]) -> str:
    """Returns the license that the card names: its link where that is a URL, else its name."""
    link = str(front.get("license_link") or "")
    if link.startswith(("http://", "https://")):
        return link
    named = front.get("license_name") or front["license"]
    return ", ".join(map(str, named)) if isinstance(named, list) else str(named)


def distribution(facts: Facts, out: str, listed: bool) -> list[Json]:
    """Returns the files: the tables, the shards by glob and, where `listed`, one by one."""
    found = [
        file_object(out, "manifest.json", "application/json"),
        file_object(out, "coverage.parquet", PARQUET),
    ]
    entries = facts.manifest["shards"]
    if not entries:
        return found
    found += [
        file_set("parquet", "shards/*.parquet", PARQUET, "A row for each selected picture."),
        file_set("tar", "shards/*.tar", TAR, "WebDataset: pictures, texts and rows."),
    ]
    if listed:
        for entry in entries:
            for part, format_ in (("parquet", PARQUET), ("tar", TAR)):
                name = f"shards/{entry['name']}.{part}"
                size, sha256 = entry[part]["size"], entry[part]["sha256"]
                found.append(object_of(name, format_, size, sha256))
    inside = [{ID: f"shards/{entry['name']}.tar"} for entry in entries] if listed else {ID: "tar"}
    found.append(file_set("jpg", "*.jpg", "image/jpeg", "The pictures.") | {"containedIn": inside})
    return found


def file_object(out: str, name: str, format_: str) -> Json:
    """Returns a FileObject of a file that is read to know its hash."""
    data = storage.read_bytes(storage.join(out, name))
    return object_of(name, format_, len(data), hashlib.sha256(data).hexdigest())


def object_of(name: str, format_: str, size: int, sha256: str) -> Json:
    """Returns a FileObject; its name is its path."""
    more = {"contentUrl": name, "contentSize": f"{size} B", "sha256": sha256}
    return _resource("cr:FileObject", name, format_, more)


def file_set(name: str, includes: str, format_: str, description: str) -> Json:
    """Returns a FileSet: all files that a glob finds."""
    more = {"description": description, "includes": includes}
    return _resource("cr:FileSet", name, format_, more)


def _resource(kind: str, name: str, format_: str, more: Json) -> Json:
    return {"@type": kind, ID: name, "name": name, "encodingFormat": format_, **more}


def pairs(out: str, shard: str) -> Json:
    """Returns the record set of the shards' rows; columns that a first, older shard lacks are out.

    Who resumes a harvest with a program that has learnt new columns has shards of both kinds.
    """
    with storage.open_read(storage.join(out, "shards", f"{shard}.parquet")) as file:
        present = pq.read_schema(file).names
    schema = pa.schema([of for of in SAMPLES if of.name in present])
    found = record_set("pairs", "parquet", "fileSet", schema, "key")
    found["description"] = (
        f"A row for each selected picture; where `outcome` is not {SUCCESS} there is none in the "
        f"tars. The columns {' and '.join(LEFT_OUT)} stand in the files only."
    )
    return found


def record_set(name: str, source: str, kind: str, schema: pa.Schema, key: str) -> Json:
    """Returns a record set with a field for each column of a table."""
    described = [f for f in schema if f.name not in LEFT_OUT and f.type in TYPES]
    return {
        "@type": "cr:RecordSet",
        ID: name,
        "name": name,
        "key": {ID: f"{name}/{key}"},
        "field": [column(name, source, kind, of) for of in described],
    }


def column(records: str, source: str, kind: str, of: pa.Field) -> Json:
    """Returns the field of one column."""
    found: Json = {
        "@type": "cr:Field",
        ID: f"{records}/{of.name}",
        "name": of.name,
        "description": MEANINGS.get(of.name, of.name),
        "dataType": "sc:URL" if of.name in URLS else TYPES[of.type],
        "source": {kind: {ID: source}, "extract": {"column": of.name}},
    }
    if pa.types.is_list(of.type):
        found |= {"isArray": True, "arrayShape": "-1"}
    return found


def pictures() -> Json:
    """Returns the record set of the pictures, whose keys are those of `pairs`."""

    def field(name: str, kind: str, property_: str, **more: Any) -> Json:
        extract = {"fileProperty": property_}
        return {
            "@type": "cr:Field",
            ID: f"pictures/{name}",
            "name": name,
            "dataType": kind,
            "source": {"fileSet": {ID: "jpg"}, "extract": extract, **more},
        }

    regex = {"transform": {"regex": r"([0-9]+)\.jpg"}}
    return {
        "@type": "cr:RecordSet",
        ID: "pictures",
        "name": "pictures",
        "description": (
            "The pictures by key. mlcroissant unpacks tars into CROISSANT_CACHE and knows them "
            "there by their path alone: give each dataset a cache of its own."
        ),
        "key": {ID: "pictures/key"},
        "field": [
            field("key", "sc:Text", "filename", **regex),
            field("image", "sc:ImageObject", "content"),
        ],
    }


def responsible(facts: Facts) -> Json:
    """Returns what the RAI vocabulary asks for and the run knows."""
    config, counts = facts.config, facts.count_of
    selected = facts.manifest["totals"]["count"]
    found: Json = {
        "rai:dataCollection": (
            f"Addresses of pictures and texts beside them were read from {facts.source_files:,} "
            f"source files ({facts.manifest['funnel']['links']:,} candidates); texts that include "
            f"a query were kept, each query drew at most {facts.manifest['per_query']:,} pairs by "
            f"a hash seeded with {config['seed']}, and the pictures were fetched."
        ),
        "rai:dataCollectionType": ["Web Scraping"],
        "rai:dataCollectionMissingData": (
            f"{selected - facts.pairs:,} of {selected:,} selected pictures could not be fetched, "
            "read or kept; `outcome` says why."
        ),
        "rai:dataPreprocessingProtocol": [
            f"Deduplication by address and text: {counts.get('duplicate_pair', 0):,} equal pairs "
            f"and {counts.get('other_text', 0):,} further texts of a picture were left out.",
            "Opt-outs (robots.txt, X-Robots-Tag, TDM reservations) at the time of fetching: "
            f"{counts.get('robots_disallowed', 0):,} and {counts.get('opted_out', 0):,} pictures.",
        ],
        "rai:dataLimitations": [
            "Texts were found beside pictures; nothing checked that they describe them.",
            "No filter for sexual, violent, hateful or illegal content was applied.",
            "Languages and subjects without queries are rare or missing.",
        ],
        "rai:personalSensitiveInformation": [
            "Pictures and texts are as they stood on public web pages; they were not searched for "
            "people or personal data, and none was removed."
        ],
        "rai:dataReleaseMaintenancePlan": (
            "Pictures are taken out by address, host, SHA-256 or pair (wit shards takedown)."
        ),
    }
    if facts.began:
        found["rai:dataCollectionTimeframe"] = [facts.began, facts.ended]
    return found
