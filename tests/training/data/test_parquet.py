from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.image_files import picture, problems
from training.data import load

NAMES = ["Ankle boot", "Bag"]
EIGHT: list[dict[str, bytes | str | None]] = [
    {"bytes": picture(n), "path": f"{n}.png"} for n in range(8)
]


def write(path: Path, image: Any = EIGHT, features: Any = None, **columns: Any) -> Path:
    """A Parquet file of four row groups, with the metadata that `datasets` writes."""
    table = pa.table({"image": image} | columns)
    if features is not None:
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=2)
    return path


CLASS_LABEL = {"label": {"names": NAMES, "_type": "ClassLabel"}, "image": {"_type": "Image"}}


def test_class_labels_have_their_names(tmp_path: Path) -> None:
    path = write(tmp_path / "shoes.parquet", features=CLASS_LABEL, label=[0, 1] * 4)
    dataset = load(str(path))
    assert dataset.name == "shoes"
    assert dataset.images[:, 0, 0, 0].tolist() == list(range(8))
    assert [(x.name, x.values) for x in dataset.attributes] == [("label", ("Ankle boot", "Bag"))]
    assert dataset.labels[:, 0].tolist() == [0, 1] * 4
    assert dataset.names is not None
    assert dataset.names[3] == "row 3"


def test_text_numbers_and_bools_are_attributes(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet",
        image=pa.array([file["bytes"] for file in EIGHT], pa.large_binary()),
        eyes=pa.array(["red", "blue"] * 4).dictionary_encode(),
        count=pa.array([10, 9] * 4, pa.int8()),
        smiling=[True, False] * 4,
        box=[[1.0, 2.0]] * 8,
        score=[0.5] * 8,
    )
    dataset = load(str(path))
    assert [(x.name, x.values) for x in dataset.attributes] == [
        ("eyes", ("blue", "red")),
        ("count", ("9", "10")),
        ("smiling", ("no", "yes")),
    ]
    assert dataset.labels.tolist() == [[1, 1, 1], [0, 0, 0]] * 4
    assert [x.name for x in load(str(path), ["smiling"]).attributes] == ["smiling"]
    assert load(str(path), []).labels.shape == (8, 0)
    assert problems(path, ["box"]) == ["no attribute 'box'; there are: eyes, count, smiling"]


def test_shards_for_training_are_read_in_order(tmp_path: Path) -> None:
    for shard in range(2):
        file = tmp_path / "data" / f"train-0000{shard}-of-00002.parquet"
        write(file, EIGHT[4 * shard : 4 * shard + 4], x=["a", "b"] * 2)
    write(tmp_path / "data" / "test-00000-of-00001.parquet", x=["c"] * 8)
    dataset = load(str(tmp_path))
    assert dataset.images[:, 0, 0, 0].tolist() == list(range(8))
    assert dataset.attributes[0].values == ("a", "b")
    assert dataset.names is not None
    assert dataset.names[5] == "data/train-00001-of-00002.parquet row 1"


def test_splits_may_be_folders_and_lie_in_a_zip(tmp_path: Path) -> None:
    for split, n in (("train", 6), ("validation", 2)):
        write(tmp_path / "default" / split / "0000.parquet", EIGHT[:n], x=["a", "b"] * (n // 2))
    assert len(load(str(tmp_path))) == 6
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in tmp_path.rglob("*.parquet"):
            archive.write(path, path.relative_to(tmp_path))
    assert load(str(tmp_path / "a.zip")).sha256 == load(str(tmp_path)).sha256


def test_the_column_of_images_may_have_another_name(tmp_path: Path) -> None:
    features = {"img": {"_type": "Image"}, "label": CLASS_LABEL["label"]}
    table = pa.table({"img": EIGHT, "label": [0, 1] * 4})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "a.parquet")
    assert load(str(tmp_path / "a.parquet")).attributes[0].values == tuple(NAMES)


def test_size_and_crop(tmp_path: Path) -> None:
    images = [picture(n, size=(20 + n, 40)) for n in range(5)]
    path = write(tmp_path / "a.parquet", images)
    assert load(str(path), [], size=16, crop=20).images.shape == (5, 16, 16, 3)
    assert "row 3 is 23x40, the others are 20x40" in problems(path, [])[2]


def test_everything_wrong_is_reported_at_once(tmp_path: Path) -> None:
    images = list(EIGHT)
    images[2] = {"bytes": None, "path": "2.png"}
    images[5] = {"bytes": b"none", "path": "5.png"}
    path = write(
        tmp_path / "a.parquet",
        images,
        CLASS_LABEL,
        label=[0, 1, 0, -1, None, 2, 1, 1],
        x=["a", "b", "a", "b", "a", "b", "b", "c"],
    )
    found = problems(path)
    assert found[:-1] == [
        "row 5: label is 2, but there are 2 names",
        "row 3: no value for 'label'",
        "row 4: no value for 'label'",
        "row 5: label '2' stands only here: misspelt?",
        "row 7: x 'c' stands only here: misspelt?",
        "row 2: no image bytes, only the path '2.png'",
    ]
    assert found[-1].startswith("row 5 is not a readable image: cannot identify")


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 cut short")
    assert problems(path)[0].startswith("a.parquet is not a readable Parquet file: ")
    pq.write_table(pa.table({"text": ["a"]}), path)
    assert problems(path) == ["no column 'image'; there are: text"]
    write(path, [1, 2])
    assert problems(path) == ["column 'image' holds int64, not encoded images"]
    write(path, pa.array([], pa.binary()))
    assert problems(path) == ["holds no images"]
    write(path, x=["only"] * 8)
    assert problems(path) == ["attribute 'x': only one value, 'only': nothing to learn"]
    write(tmp_path / "b.parquet", y=["a", "b"] * 4)
    assert problems(tmp_path) == ["b.parquet has other columns than a.parquet"]


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": {"features": {"x": 1}}}'])
def test_metadata_of_other_programs_is_ignored(tmp_path: Path, metadata: bytes) -> None:
    table = pa.table({"image": EIGHT, "x": [0, 1] * 4})
    table = table.replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "a.parquet")
    assert load(str(tmp_path / "a.parquet")).attributes[0].values == ("0", "1")


def test_damage_behind_a_sound_footer(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", x=["a", "b"] * 4)
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    assert problems(path)[0].startswith("is a damaged Parquet file: ")


def test_column_of_images_is_found_by_content(tmp_path: Path) -> None:
    pq.write_table(pa.table({"photo": EIGHT, "x": ["a", "b"] * 4}), tmp_path / "a.parquet")
    assert len(load(str(tmp_path))) == 8
    pq.write_table(pa.table({"left": EIGHT, "right": EIGHT}), tmp_path / "a.parquet")
    assert problems(tmp_path) == [
        "several columns of images: left, right; call one of them 'image'"
    ]


def test_missing_shards_are_named(tmp_path: Path) -> None:
    for shard in (0, 2):
        write(tmp_path / f"train-0000{shard}-of-00003.parquet", x=["a", "b"] * 4)
    reading = load(str(tmp_path)).reading
    assert reading is not None
    assert reading.notes["shards that are not there"].examples == ["train-00001-of-00003.parquet"]
