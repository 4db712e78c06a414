"""README.md of a set: a Hugging Face dataset card, so that ``load_dataset(FOLDER)`` works.

https://huggingface.co/docs/hub/datasets-cards describes the fields of its YAML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from service.core.licences import hub_licence
from service.core.set_request import SetRequest
from service.datasets.contents import Contents, contents_of
from service.datasets.manifest import MANIFEST, DatasetManifest
from service.formats.marks import SYNTHETIC
from service.formats.parquet import IMAGE
from service.formats.records import ADDRESS, FILE_NAME
from service.formats.registry import FOLDER

SIZES = (
    *((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")),
    *((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M")),
)
CONTENTS = {
    "zip": "Each zip has the images and a `metadata.csv` with labels and addresses.",
    "webdataset": "Each tar has `KEY.png` and `KEY.json` with labels and address, and `.cls` files "
    "with the indices of the values.",
    "parquet": "Each row has an image as PNG, its labels and its address.",
    "folder": "Each class has a folder of PNG files. The tables have all labels and addresses, and "
    "the SHA-256 of each image.",
    "npy": "Each array is uint8 `[N, height, width, channels]`; the table beside it has the labels "
    "and addresses of its rows. `load_dataset` reads the tables.",
}

IN_FOLDERS = (
    "Each zip has a folder for each class. Unpack them to load images with their classes; from the "
    "zips, `load_dataset` reads images alone."
)


def card_of(manifest: DatasetManifest) -> str:
    """README.md of a complete set."""
    contents = contents_of(manifest)
    head = yaml.safe_dump(_head(manifest, contents), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n{_text(manifest, contents)}"


def _head(manifest: DatasetManifest, contents: Contents) -> dict[str, Any]:
    """YAML in front of the card."""
    larger = (name for least, name in SIZES if manifest.images < least)
    tasks = ["image-classification"] if contents.columns else []
    info: dict[str, Any] = {
        "splits": [
            {"name": name, "num_examples": split.images, "num_bytes": split.bytes}
            for name, split in contents.splits.items()
            if split.bytes
        ]
    }
    if features := _features(manifest, contents):
        info = {"features": features} | info
    arrays = manifest.asked["format"] == "npy"
    config: dict[str, Any] = {
        "config_name": "default",
        "data_files": [
            {"split": name, "path": contents.tables[0] if arrays else split.pattern}
            for name, split in contents.splits.items()
        ],
    }
    if contents.zipped_folders:
        config["drop_labels"] = True  # which ``datasets`` 5.2 takes for the folder of the zip
    elif manifest.asked["format"] == FOLDER.name:
        config["drop_labels"] = False  # it would drop those of a single class
    return {
        "pretty_name": _title(manifest),
        "license": hub_licence(manifest.training_data.licence),
        "license_details": manifest.training_data.licence,
        "task_categories": [*tasks, "unconditional-image-generation"],
        "tags": ["synthetic", "figment"],
        "annotations_creators": ["machine-generated"],
        "size_categories": [next(larger, "100M<n<1B")],
        "configs": [config],
        **({"dataset_info": info} if info["splits"] else {}),
    }


def _features(manifest: DatasetManifest, contents: Contents) -> list[dict[str, Any]]:
    """Columns with their types; none where ``datasets`` finds more in the files."""
    format_ = manifest.asked["format"]
    labels = [
        {"name": name, "dtype": _class(values) if contents.ids else "string"}
        for name, values in contents.columns.items()
    ]
    if format_ == "parquet":
        facts = [{"name": name, "dtype": kind} for name, kind in contents.facts.items()]
        return [{"name": IMAGE, "dtype": "image"}, *labels, *facts]
    if format_ == "npy":
        texts = [{"name": name, "dtype": "string"} for name in (FILE_NAME, ADDRESS)]
        return [texts[0], *labels, texts[1]]
    return []


def _class(values: Any) -> dict[str, Any]:
    """``ClassLabel`` in a card."""
    return {"class_label": {"names": {str(at): value for at, value in enumerate(values)}}}


def _title(manifest: DatasetManifest) -> str:
    origin = manifest.origin
    return f"{manifest.images:,} synthetic images of {origin.model} {origin.version}"


def _text(manifest: DatasetManifest, contents: Contents) -> str:
    """Text of the card."""
    origin, trained, asked = manifest.origin, manifest.training_data, manifest.asked
    mark = (
        "Arrays carry no mark: say so where you pass them on."
        if asked["format"] == "npy"
        else f"Every PNG says so in XMP: `Iptc4xmpExt:DigitalSourceType` is `{SYNTHETIC}`."
    )
    columns = [
        (name, ", ".join(f"`{value}`" for value in values))
        for name, values in contents.columns.items()
    ]
    labels = [
        (_phrase(count.label) or "none", f"{count.images:,}", f"{count.tried:,}")
        for count in manifest.labels
    ]
    checked = (
        f"Only images whose verifier (SHA-256 `{origin.verifier_sha256}`) gives every requested "
        f"value a probability of {asked['verify']} or more were kept."
        if asked["verify"]
        else "The labels are the requested ones. No verifier has checked the images."
    )
    splits = [
        (name, f"{split.images:,}", f"`{split.pattern}`") for name, split in contents.splits.items()
    ]
    facts = [
        ("model", f"{origin.model}, version {origin.version}"),
        ("SHA-256 of the model", f"`{origin.model_sha256}`"),
        ("seed", str(origin.seed)),
        ("recipe of latents", str(origin.latent_recipe)),
        ("trained on", f"{trained.name}, {trained.images:,} images"),
        ("rights in the training images", trained.licence),
        ("computed by", "; ".join(manifest.software)),
        ("packed by", "; ".join(manifest.packed_by)),
    ]
    parts = [
        f"# {_title(manifest)}",
        f"All images are synthetic: drawn by a model, not photographed or painted. {mark}",
        "## Files",
        _table(("split", "images", "files"), splits),
        IN_FOLDERS if contents.zipped_folders else CONTENTS[asked["format"]],
        f"`{MANIFEST}` has the SHA-256 of every file.",
        "## Labels",
        _table(("column", "values"), columns) if columns else "The model is unconditional.",
        _table(("label", "images", "tried"), labels),
        checked,
        "## Origin",
        _table(("", ""), facts),
        "What may be done with the images follows from the rights in the training images.",
        "## Make it again",
        _again(manifest),
    ]
    return "\n\n".join(parts) + "\n"


def _again(manifest: DatasetManifest) -> str:
    """Plan that makes the same files again."""
    origin, asked = manifest.origin, manifest.asked
    pinned = {"model": origin.model, "version": origin.version, "seed": origin.seed}
    defaults = {name: field.default for name, field in SetRequest.model_fields.items()}
    fields = {
        name: value
        for name, value in (asked | pinned).items()
        if name in pinned or value != defaults.get(name)
    }
    command = "fetch --plan" if "verify" in fields else "make-dataset"
    plan = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    return (
        f"`figment {command} plan.yaml --out SET` makes the same files of this "
        f"`plan.yaml`:\n\n```yaml\n{plan}```"
    )


def _phrase(label: str | Mapping[str, Any] | None) -> str:
    """A label as a phrase; empty if every attribute is drawn."""
    if isinstance(label, Mapping):
        return ", ".join(f"{name}: {value}" for name, value in label.items())
    return label or ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """``text``, which may be of a server, in one line and one cell."""
    return " ".join(text.split()).replace("|", "\\|")
