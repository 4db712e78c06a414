from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.image_files import (
    Pack,
    as_folder,
    as_zip,
    as_zip_of_a_folder,
    below,
    classes,
    picture,
    problems,
)
from training.data import load

FILES = {
    f"{kind}/{n}.{ending}": picture(10 * k + n, form=form)
    for k, kind in enumerate(("Ankle boot", "bag", "10"))
    for n, (ending, form) in enumerate((("png", "PNG"), ("bmp", "BMP"), ("PNG", "PNG")))
}


@pytest.mark.parametrize("pack", [as_folder, as_zip, as_zip_of_a_folder])
def test_each_folder_is_a_class(tmp_path: Path, pack: Pack) -> None:
    dataset = load(str(pack(tmp_path, FILES)))
    assert dataset.name == "faces"
    assert [(x.name, x.values) for x in dataset.attributes] == [
        ("label", ("10", "Ankle boot", "bag"))
    ]
    assert dataset.names is not None
    classes = [dataset.attributes[0].values[label] for (label,) in dataset.labels]
    assert [name.split("/")[-2] for name in dataset.names] == classes
    reds = {"Ankle boot": 0, "bag": 10, "10": 20}
    for value, image in zip(classes, dataset.images, strict=True):
        assert image[0, 0, 0] in range(reds[value], reds[value] + 3)


def test_the_attribute_is_named_or_left_out(tmp_path: Path) -> None:
    path = str(as_folder(tmp_path, FILES))
    assert load(path, ["kind"]).attributes[0].name == "kind"
    assert load(path, []).attributes == ()
    assert load(path, []).labels.shape == (9, 0)
    assert problems(path, ["kind", "colour"]) == [
        "has one attribute; name just one with --attributes"
    ]


@pytest.mark.parametrize("wrap", ["", "clothes/", "a/b/"])
@pytest.mark.parametrize("train", ["train", "Training"])
def test_the_training_split_is_taken(tmp_path: Path, wrap: str, train: str) -> None:
    files = {f"{wrap}{train}/{name}": file for name, file in FILES.items()}
    files |= {f"{wrap}test/{name}": file for name, file in FILES.items()}
    files |= {f"{wrap}val/hat/1.png": picture(), "preview.png" if not wrap else "x": picture()}
    dataset = load(str(as_folder(tmp_path, files)))
    assert len(dataset) == 9
    assert dataset.attributes[0].values == ("10", "Ankle boot", "bag")
    assert load(str(as_folder(tmp_path, files)), []).images.shape[0] == 9


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    files = {f"{kind}/{n}.png": picture(n) for kind in ("bus", "train") for n in range(2)}
    assert load(str(as_folder(tmp_path, files))).attributes[0].values == ("bus", "train")


def test_images_may_lie_deeper_and_other_files_beside_them(tmp_path: Path) -> None:
    files = {
        f"{kind}/{name}": picture(n)
        for kind in ("cat", "dog")
        for n, name in enumerate(("1.png", "young/2.png"))
    }
    clutter = {"cat/Thumbs.db": b"", "README.md": b"", "cat/.hidden.png": b"", ".git/a.png": b""}
    clutter["__MACOSX/cat/._1.png"] = b""
    dataset = load(str(as_zip(tmp_path, files | clutter)))
    assert dataset.names == ("cat/1.png", "cat/young/2.png", "dog/1.png", "dog/young/2.png")
    assert dataset.labels[:, 0].tolist() == [0, 0, 1, 1]


def test_images_without_folders_can_only_be_learnt_without_labels(tmp_path: Path) -> None:
    path = as_folder(tmp_path, {f"all/{n}.png": picture(n) for n in range(3)})
    assert load(str(path), []).images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert problems(path) == [
        "has images, but no folder for each class of them; --unconditional learns without labels"
    ]


def test_everything_wrong_is_reported_at_once(tmp_path: Path) -> None:
    wrong = {
        "bag/9.png": b"no picture",
        "bag/wide.png": picture(size=(20, 16)),
        "bga/1.png": picture(),
        "loose.png": picture(),
    }
    found = problems(as_folder(tmp_path, FILES | wrong))
    assert len(found) == 4
    assert found[0] == "'bga/1.png': label 'bga' stands only here: misspelt?"
    assert found[1] == "'loose.png': no value for 'label'"
    assert found[2].startswith("'bag/9.png' is not a readable image: cannot identify")
    assert found[3].startswith("'bag/wide.png' is 20x16, the others are 16x16")


def test_names_that_cannot_be_labels(tmp_path: Path) -> None:
    files = {f"{kind}/{n}.png": picture() for kind in ("red", "Red") for n in range(2)}
    assert "which are equal as labels" in problems(as_zip(tmp_path, files))[0]


def test_folders_of_two_attributes(tmp_path: Path) -> None:
    files = {
        f"hair={hair}/eyes={eyes}/{n}.png": picture(n)
        for hair in ("dark%20red", "blue")
        for eyes in ("green", "gray")
        for n in range(2)
    }
    dataset = load(str(as_folder(tmp_path, files)))
    assert [(x.name, x.values) for x in dataset.attributes] == [
        ("hair", ("blue", "dark red")),
        ("eyes", ("gray", "green")),
    ]


def test_folder_of_a_missing_value_is_an_error(tmp_path: Path) -> None:
    path = as_folder(tmp_path, classes("hair=red", "hair=blue", "hair=__HIVE_DEFAULT_PARTITION__"))
    assert "no value for 'hair'" in problems(path)[0]


def test_class_may_have_the_name_of_a_missing_value(tmp_path: Path) -> None:
    dataset = load(str(as_folder(tmp_path, classes("nan", "null"))))
    assert dataset.attributes[0].values == ("nan", "null")


def test_folders_that_name_different_attributes_are_an_error(tmp_path: Path) -> None:
    path = as_folder(tmp_path, classes("dog", "label=cat"))
    assert problems(path) == [
        "folders of 'dog/0.png' and 'label=cat/0.png' name different attributes"
    ]


def test_folders_below_the_classes_are_named(tmp_path: Path) -> None:
    reading = load(str(as_folder(tmp_path, classes("animals/cat", "animals/dog", "plants/oak"))))
    assert reading.reading is not None
    assert reading.reading.unread == {"cat and 2 more": "folders below the classes"}


@pytest.mark.parametrize("other", ["masks", "annotations/trimaps", "SegmentationClass", "labels"])
def test_images_beside_their_masks_are_no_classes(tmp_path: Path, other: str) -> None:
    path = as_folder(tmp_path, classes("images", other))
    assert "look like images and what belongs to them" in problems(path)[0]
    assert "look like images and what belongs to them" in problems(path, [])[0]
    assert len(load(str(path), [], split="images")) == 2


@pytest.mark.parametrize(
    "name", ["{0:05}/{1:05}.png", "{2:05}/img{1:08}.png", "{3:04}/{1}.png"], ids=str
)
def test_folders_that_number_the_files_are_no_classes(tmp_path: Path, name: str) -> None:
    numbers = (0, 1, 1000, 1001)
    files = {name.format(n // 1000 * 1000, n, n // 1000, n % 1000): picture() for n in numbers}
    path = as_folder(tmp_path, files)
    assert "only number the files; --unconditional" in problems(path)[0]
    assert len(load(str(path), ["label"])) == 4


def test_nested_copy_of_the_classes_is_left_out(tmp_path: Path) -> None:
    hands = classes("rock", "paper", "scissors")
    dataset = load(str(as_folder(tmp_path, hands | below("rps-cv-images", hands))))
    assert dataset.attributes[0].values == ("paper", "rock", "scissors")
    assert len(dataset) == 6
    assert dataset.reading is not None
    assert dataset.reading.left_out["nested copy of the classes"].count == 6
