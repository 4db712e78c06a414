"""croissant.json of a set: its files and records for programs, in Croissant 1.1.

https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html
"""

from __future__ import annotations

import json
from typing import Any

from service.datasets.contents import Contents, contents_of
from service.datasets.manifest import DatasetFile, DatasetManifest
from service.formats.marks import SYNTHETIC
from service.formats.parquet import IMAGE
from service.formats.records import ADDRESS, FILE_NAME
from service.formats.registry import MEDIA_TYPES

TERMS = (
    *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field"),
    *("fileObject", "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset"),
    *("jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex"),
    *("repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "description": {"@container": "@language"},
    "name": {"@container": "@language"},
    **{term: f"cr:{term}" for term in TERMS},
}
"""Context of the specification; readers warn of another."""
CSV, PARQUET, ARRAY = "text/csv", "application/x-parquet", "application/octet-stream"
"""Media types by which ``mlcroissant`` chooses a reader, and one that it leaves alone."""
RECORDS, IMAGES = "files", "images"
"""Ids of the files with the records, and of the records."""


def croissant_of(manifest: DatasetManifest) -> str:
    """croissant.json of a complete set."""
    contents, origin = contents_of(manifest), manifest.origin
    format_ = manifest.asked["format"]
    files = [_file(file, format_) for file in manifest.files]
    description = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": f"{origin.model}-{origin.version}-{origin.seed}",
        "description": f"{manifest.images:,} synthetic images of {origin.model} {origin.version}.",
        "version": f"{origin.version}.0.0",
        "license": manifest.training_data.licence,
        "creator": {"@type": "sc:Organization", "name": "Figment"},
        "keywords": ["synthetic"],
        "digitalSourceType": SYNTHETIC,
        "distribution": [*files, _file_set(contents, format_, files)],
        "recordSet": [_records(contents, format_)],
    }
    return json.dumps(description, indent=1, ensure_ascii=False) + "\n"


def _file(file: DatasetFile, format_: str) -> dict[str, Any]:
    kinds = {**MEDIA_TYPES, "parquet": PARQUET, "npy": ARRAY}
    return {
        "@type": "cr:FileObject",
        "@id": file.name,
        "name": file.name,
        "contentUrl": file.name,
        "contentSize": f"{file.bytes} B",
        "encodingFormat": CSV if file.name.endswith(".csv") else kinds[format_],
        "sha256": file.sha256,
    }


def _file_set(contents: Contents, format_: str, files: list[dict[str, Any]]) -> dict[str, Any]:
    """The files that hold the records: some of the set's own, or those in its archives."""
    found: dict[str, Any]
    if format_ == "parquet":
        patterns = [split.pattern for split in contents.splits.values()]
        found = {"encodingFormat": PARQUET, "includes": patterns}
    elif contents.tables:
        found = {"encodingFormat": CSV, "includes": [*contents.tables]}
    else:
        archives = [{"@id": file["@id"]} for file in files]
        found = {"encodingFormat": MEDIA_TYPES["png"], "includes": ["*.png"]}
        found["containedIn"] = archives
    return {"@type": "cr:FileSet", "@id": RECORDS, "name": RECORDS, **found}


def _records(contents: Contents, format_: str) -> dict[str, Any]:
    """One record for each image.

    Croissant has no way to join an image in an archive with its labels, which are in its JSON file
    or in the archive's table.
    """
    image, file_name = (IMAGE, "sc:ImageObject"), (FILE_NAME, "sc:Text")
    kind = "sc:Integer" if contents.ids else "sc:Text"
    columns = [(name, kind) for name in contents.columns] + [(ADDRESS, "sc:Text")]
    if format_ == "parquet":
        fields = [_field(*column, {"column": column[0]}) for column in (image, *columns)]
        fields[0]["source"]["transform"] = {"jsonPath": "bytes"}
    elif contents.tables:
        fields = [_field(*column, {"column": column[0]}) for column in (file_name, *columns)]
    else:
        fields = [
            _field(*image, {"fileProperty": "content"}),
            _field(*file_name, {"fileProperty": "filename"}),
        ]
    return {"@type": "cr:RecordSet", "@id": IMAGES, "name": IMAGES, "field": fields}


def _field(name: str, kind: str, extract: dict[str, str]) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{IMAGES}/{name}",
        "name": name,
        "dataType": kind,
        "source": {"fileSet": {"@id": RECORDS}, "extract": extract},
    }
