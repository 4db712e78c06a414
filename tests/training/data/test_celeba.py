from __future__ import annotations

from pathlib import Path

import pytest

from service.core.labels import Vocabulary
from tests.helpers.image_files import Pack, as_folder, as_zip, as_zip_of_a_folder, picture, problems
from training.data import load
from training.errors import DataError

IMAGES = {f"img_align_celeba/00000{n}.jpg": picture(20 * n, form="JPEG") for n in range(1, 7)}
ROWS = ["-1 1", " 1 -1", "-1 -1", " 1  1", "-1  1", " 1 -1"]


def listed(*rows: str, header: str = "Smiling No_Beard ") -> dict[str, bytes]:
    lines = [f"00000{n}.jpg {row}" for n, row in enumerate(rows, start=1)]
    return {"list_attr_celeba.txt": "\r\n".join([str(len(rows)), header, *lines, ""]).encode()}


def partition(*parts: int) -> dict[str, bytes]:
    lines = [f"00000{n}.jpg {part}\n" for n, part in enumerate(parts, start=1)]
    return {"list_eval_partition.txt": "".join(lines).encode()}


@pytest.mark.parametrize("pack", [as_folder, as_zip, as_zip_of_a_folder])
def test_attributes_are_no_and_yes(tmp_path: Path, pack: Pack) -> None:
    dataset = load(str(pack(tmp_path, IMAGES | listed(*ROWS))))
    assert [(x.name, x.values) for x in dataset.attributes] == [
        ("Smiling", ("no", "yes")),
        ("No_Beard", ("no", "yes")),
    ]
    assert dataset.labels.tolist() == [[0, 1], [1, 0], [0, 0], [1, 1], [0, 1], [1, 0]]
    assert dataset.images.shape == (6, 16, 16, 3)
    reds = dataset.images[:, 8, 8, 0].astype(int)
    assert all(abs(red - 20 * n) < 6 for n, red in enumerate(reds, start=1))
    assert dataset.names is not None
    assert dataset.names[0] == "000001.jpg"


def test_attributes_are_labels_of_the_vocabulary(tmp_path: Path) -> None:
    vocabulary = Vocabulary(load(str(as_folder(tmp_path, IMAGES | listed(*ROWS)))).attributes, "")
    assert vocabulary.parse("Smiling") == {0: 1}
    assert vocabulary.parse("not smiling, no beard") == {0: 0, 1: 1}


def test_attributes_are_chosen(tmp_path: Path) -> None:
    path = as_folder(tmp_path, IMAGES | listed(*ROWS))
    assert [x.name for x in load(str(path), ["No_Beard"]).attributes] == ["No_Beard"]
    assert load(str(path), []).labels.shape == (6, 0)
    assert problems(path, ["Hat"]) == ["no attribute 'Hat'; there are: Smiling, No_Beard"]


def test_layout_of_the_authors_with_images_in_the_wild(tmp_path: Path) -> None:
    files = {f"Img/{name}": file for name, file in IMAGES.items()}
    files |= {name.replace("align_", ""): picture(size=(30, 20)) for name in files}
    files |= {f"Anno/{name}": file for name, file in listed(*ROWS).items()}
    files |= {f"Eval/{name}": file for name, file in partition(0, 0, 0, 0, 1, 2).items()}
    assert load(str(as_folder(tmp_path, files))).images.shape == (4, 16, 16, 3)


def test_only_partition_0_is_trained_on(tmp_path: Path) -> None:
    path = as_folder(tmp_path, IMAGES | listed(*ROWS) | partition(0, 0, 1, 2, 0, 0))
    dataset = load(str(path))
    assert dataset.names == ("000001.jpg", "000002.jpg", "000005.jpg", "000006.jpg")
    assert dataset.labels.tolist() == [[0, 1], [1, 0], [0, 1], [1, 0]]


def test_size_and_crop(tmp_path: Path) -> None:
    faces = {name: picture(90, size=(178, 218), form="JPEG") for name in IMAGES}
    path = as_folder(tmp_path, faces | listed(*ROWS))
    assert load(str(path), size=64, crop=148).images.shape == (6, 64, 64, 3)
    assert load(str(path)).images.shape == (6, 218, 178, 3)


def test_everything_wrong_is_reported_at_once(tmp_path: Path) -> None:
    wrong = listed("-1 1", "1 -1", "-1", "1 0", "-1 1", "1 -1", "-1 1")
    files = IMAGES | {"img_align_celeba/000005.jpg": b"none"}
    found = problems(as_folder(tmp_path, files | wrong | {"list_eval_partition.txt": b"1.jpg"}))
    assert found == [
        "line 5: 1 values, line 2 names 2",
        "line 6: '0' is neither -1 nor 1",
        "list_eval_partition.txt line 1: not a file name and 0, 1 or 2",
    ]
    found = problems(as_zip(tmp_path, files | listed(*ROWS, "-1 1")))
    assert found[0].startswith("line 7: '000005.jpg' is not a readable image: cannot identify")
    assert found[1] == "line 9: no image '000007.jpg'"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"list_attr_celeba.txt": b"7\nSmiling\n000001.jpg 1"}, "line 1: says 7 images, but the"),
        ({"list_attr_celeba.txt": b""}, "line 1: not the number of images"),
        ({"list_attr_celeba.txt": b"image_id,Smiling\n1,1\n"}, "line 1: not the number of images"),
        ({"list_attr_celeba.txt": b"\xff\xfe\n"}, "is not UTF-8"),
        (listed(*["1 -1"] * 6), "attribute 'Smiling': only one value, 'yes': nothing to learn"),
        (listed(*ROWS) | partition(1, 1, 1, 2, 2, 2), "leaves no image for training"),
        (listed(), "holds no images"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    assert said in "\n".join(problems(as_folder(tmp_path, IMAGES | files)))


def test_images_that_are_still_packed(tmp_path: Path) -> None:
    files = listed(*ROWS) | {"img_align_celeba.zip": b""}
    assert problems(as_folder(tmp_path, files)) == [
        "none of its images is there, such as 000001.jpg: is img_align_celeba.zip unpacked?"
    ]


def test_lists_in_two_folders_are_an_error(tmp_path: Path) -> None:
    both = IMAGES | listed(*ROWS)
    files = {f"{folder}/{name}": content for folder in "ab" for name, content in both.items()}
    path = as_folder(tmp_path, files)
    assert problems(path) == [
        "has several lists: a/list_attr_celeba.txt, b/list_attr_celeba.txt; name one with "
        "--table a/list_attr_celeba.txt"
    ]
    dataset = load(str(path), table="b/list_attr_celeba.txt")
    assert dataset.reading is not None
    left_out = dataset.reading.left_out["image that the table does not list"]
    assert left_out.examples[0] == "a/img_align_celeba/000001.jpg"


def test_one_image_in_two_places_is_an_error(tmp_path: Path) -> None:
    files = IMAGES | {f"more/{name}": content for name, content in IMAGES.items()}
    assert (
        "000001.jpg is there several times: "
        in problems(as_folder(tmp_path, files | listed(*ROWS)))[0]
    )


@pytest.mark.parametrize("name", ["LIST_ATTR_CELEBA.TXT", "CelebAMask-HQ-attribute-anno.txt"])
def test_other_names_of_the_list(tmp_path: Path, name: str) -> None:
    files = IMAGES | {name: listed(*ROWS)["list_attr_celeba.txt"]}
    assert load(str(as_folder(tmp_path, files))).labels.tolist()[:2] == [[0, 1], [1, 0]]


def test_images_as_png(tmp_path: Path) -> None:
    files = {
        name.replace("celeba/", "celeba_png/").replace(".jpg", ".png"): picture(n)
        for n, name in enumerate(IMAGES)
    }
    dataset = load(str(as_folder(tmp_path, files | listed(*ROWS))))
    assert dataset.images[:, 0, 0, 0].tolist() == list(range(6))


def test_split_without_a_partition_is_an_error(tmp_path: Path) -> None:
    path = as_folder(tmp_path, IMAGES | listed(*ROWS))
    with pytest.raises(DataError, match="has no list_eval_partition"):
        load(str(path), split="test")
