"""Property: every file of a random layout is read with its label, or counted as left out."""

from __future__ import annotations

import tarfile
import tempfile
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.image_files import picture
from training.data import load

JUNK = {
    ".DS_Store": b"x",
    "Thumbs.db": b"x",
    "@eaDir/a.png/SYNOFILE_THUMB_M.png": picture(200),
    "__MACOSX/._a.png": b"\0\5\x16\7",
    "notes.txt": b"hello",
    ".cache/b.png": picture(201),
    "$RECYCLE.BIN/c.png": picture(202),
    "thumbnail of a camera.dng": picture(203, form="TIFF"),
    "photo.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
}
SPLITS = (
    ("train", "test"),
    ("training_set", "test_set"),
    ("seg_train", "seg_test"),
    ("Train", "val"),
    ("trainSet", "testSet"),
    ("train", "test", "sample"),
)
ENDINGS = ("png", "PNG", "jpeg", "dat", "")
CLASSES = ("cat", "dög", "thé", "10", "Ankle boot")

layouts = st.fixed_dictionaries(
    {
        "classes": st.lists(st.sampled_from(CLASSES), min_size=2, max_size=4, unique=True),
        "per_class": st.integers(2, 4),
        "wrapped": st.sampled_from(["", "data/", "a/b/"]),
        "splits": st.sampled_from([None, *SPLITS]),
        "ending": st.sampled_from(ENDINGS),
        "deeper": st.booleans(),
        "junk": st.lists(st.sampled_from(sorted(JUNK)), unique=True),
        "decomposed": st.booleans(),
        "source": st.sampled_from(["folder", "linked", "zip", "tar", "tgz"]),
        "dotted": st.booleans(),
        "table": st.sampled_from([None, "utf-8", "utf-8-sig", "utf-16"]),
        "separator": st.sampled_from([",", ";", "\t"]),
    }
)


def lay_out(layout: dict[str, object]) -> tuple[dict[str, bytes], dict[int, str], int]:
    """Files, the label of each red value that is to be read, and the number of all files."""
    files: dict[str, bytes] = {}
    labels: dict[int, str] = {}
    value = 0
    splits = layout["splits"] or ("",)
    for split in splits:  # type: ignore[attr-defined]
        prefix = f"{layout['wrapped']}{split}/" if split else str(layout["wrapped"])
        rows = [str(layout["separator"]).join(("file_name", "kind"))]
        for kind in layout["classes"]:  # type: ignore[attr-defined]
            for n in range(int(layout["per_class"])):  # type: ignore[call-overload]
                ending = f".{layout['ending']}" if layout["ending"] else ""
                inner = "deep/" if layout["deeper"] and n else ""
                name = f"{n}{ending}" if layout["table"] is None else f"{kind}{n}{ending}"
                below = f"{kind}/{inner}{name}" if layout["table"] is None else f"{inner}{name}"
                files[prefix + below] = picture(value)
                rows.append(str(layout["separator"]).join((below, kind)))
                if split == splits[0]:  # type: ignore[index]
                    labels[value] = kind
                value += 1
        if layout["table"] is not None:
            files[f"{prefix}metadata.csv"] = "\n".join(rows).encode(str(layout["table"]))
    for junk in layout["junk"]:  # type: ignore[attr-defined]
        files[f"{layout['wrapped']}{junk}"] = JUNK[junk]
    if layout["decomposed"]:
        files = {unicodedata.normalize("NFD", name): data for name, data in files.items()}
    tables = sum(name.endswith("metadata.csv") for name in files)
    return files, labels, len(files) - tables


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(layouts)
def test_every_file_is_read_with_its_label_or_counted(layout: dict[str, object]) -> None:
    files, labels, count = lay_out(layout)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "data"
        for path, content in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        start = "./" if layout["dotted"] else ""
        if layout["source"] == "zip":
            source = Path(name) / "a.zip"
            with zipfile.ZipFile(source, "w") as archive:
                for path, content in files.items():
                    archive.writestr(start + path, content)
        elif layout["source"] in ("tar", "tgz"):
            source = Path(name) / f"a.{layout['source']}"
            with tarfile.open(source, "w" if source.suffix == ".tar" else "w:gz") as tar:
                for path in files:
                    tar.add(root / path, start + path)
        elif layout["source"] == "linked":
            source = Path(name) / "link"
            source.symlink_to(root)
            (root / "loop").symlink_to(root)
            count += 1  # the link, which is counted once
        else:
            source = root
        dataset = load(str(source))
        (attribute,) = dataset.attributes
        read = {
            int(image[0, 0, 0]): attribute.values[label]
            for image, (label,) in zip(dataset.images, dataset.labels, strict=True)
        }
        assert read == labels
        assert dataset.reading is not None
        left_out = dataset.reading.left_out
        tables = sum(f.count for why, f in left_out.items() if why.startswith("table of another"))
        assert len(dataset) + dataset.reading.files_left_out - tables == count
        assert all(files.examples for files in left_out.values())
        assert np.unique(dataset.images[:, 0, 0, 0]).size == len(dataset)
