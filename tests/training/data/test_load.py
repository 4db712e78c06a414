from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.helpers.image_files import Pack, as_folder, as_zip, as_zip_of_a_folder, picture, problems
from training.data import MIN_AVATARS, load
from training.data.dataset import Dataset
from training.data.labelling import encode_labels
from training.errors import DataError

Images = npt.NDArray[np.uint8]

ROWS = ["a.png,red,yes", "b.png,blue,no", "sub/c.png,red,no", "d.png,blue,yes"]
FILES = {
    name: picture(value) for value, name in enumerate(("a.png", "b.png", "sub/c.png", "d.png"))
}


def csv(*rows: str, header: str = "file_name,eyes,glasses") -> dict[str, bytes]:
    return {"metadata.csv": "\n".join([header, *rows, ""]).encode()}


@pytest.mark.parametrize("pack", [as_folder, as_zip, as_zip_of_a_folder])
def test_imagefolder(tmp_path: Path, pack: Pack) -> None:
    dataset = load(str(pack(tmp_path, FILES | csv(*ROWS))))
    assert dataset.name == "faces"
    assert dataset.images.shape == (4, 16, 16, 3)
    assert dataset.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert [(x.name, x.values) for x in dataset.attributes] == [
        ("eyes", ("blue", "red")),
        ("glasses", ("no", "yes")),
    ]
    assert dataset.labels.tolist() == [[1, 1], [0, 0], [1, 0], [0, 1]]
    assert dataset.names == ("a.png", "b.png", "sub/c.png", "d.png")
    assert dataset.attributes[0].frequencies == (0.5, 0.5)


def test_imagefolder_columns_are_chosen_and_ordered(tmp_path: Path) -> None:
    path = as_folder(tmp_path, FILES | csv(*ROWS))
    assert [x.name for x in load(str(path), ["glasses", "eyes"]).attributes] == ["glasses", "eyes"]
    assert load(str(path), []).attributes == ()
    assert load(str(path), []).labels.shape == (4, 0)


def test_grey_stays_grey_and_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    grey = {name: picture(9, mode="L") for name in FILES}
    dataset = load(str(as_folder(tmp_path / "grey", grey | csv(*ROWS))))
    assert dataset.images.shape == (4, 16, 16, 1)
    clear = io.BytesIO()
    Image.new("RGBA", (16, 16), (10, 20, 30, 0)).save(clear, "PNG")
    dataset = load(
        str(as_folder(tmp_path / "clear", FILES | {"a.png": clear.getvalue()} | csv(*ROWS)))
    )
    assert dataset.images[0, 0, 0].tolist() == [255, 255, 255]


def test_everything_wrong_is_reported_at_once_with_its_place(tmp_path: Path) -> None:
    rows = [
        *ROWS,
        "missing.png,red,no",
        "e.png,red",
        "f.png,red,no",
        "g.png,red,no",
        "a.png,red,no",
        "h.png,,no",
        "i.png,rde,no",
        "../outside.png,blue,no",
    ]
    files = FILES | {
        "e.png": picture(),
        "f.png": picture(size=(20, 16)),
        "g.png": b"no picture",
        "h.png": picture(),
        "i.png": picture(),
    }
    found = problems(as_folder(tmp_path, files | csv(*rows)))
    assert len(found) == 8
    text = "\n".join(found)
    assert "line 6: no image 'missing.png'" in text
    assert "line 7: 2 fields, the header has 3" in text
    assert "line 8: 'f.png' is 20x16, the others are 16x16: --size draws all at one size" in text
    assert "line 9: 'g.png' is not a readable image" in text
    assert "line 10: 'a.png' stands on line 2 already" in text
    assert "line 11: no value for 'eyes'" in text
    assert "line 12: eyes 'rde' stands only here: misspelt?" in text
    assert "line 13: no image '../outside.png'" in text


@pytest.mark.parametrize(
    ("files", "attributes", "said"),
    [
        (
            csv("1,red,yes", "2,blue,no", header="name,eyes,glasses"),
            None,
            "line 1: no column 'file_name'",
        ),
        (csv(*ROWS, header="file_name,eyes,eyes"), None, "line 1: column 'eyes' stands twice"),
        (csv(*ROWS), ["hair"], "no attribute 'hair'; there are: eyes, glasses"),
        (csv(), None, "has no rows"),
        ({"metadata.csv": b"\xff\xfe\x00"}, None, "is not UTF-8"),
        ({"metadata.csv": b""}, None, "no column 'file_name'"),
        (
            csv("a.png,red,1", "b.png,blue,2", "sub/c.png,red,3", "d.png,blue,4"),
            None,
            "attribute 'glasses': 4 of 4 values stand only once: this is no label",
        ),
        (csv(*ROWS, header="file_name,eyes,"), None, "attribute '': String should have at least 1"),
        (
            csv("a.png,red,1", "b.png,Red,2", "sub/c.png,red,1", "d.png,Red,2"),
            None,
            "the values 'Red' and 'red', which are equal as labels",
        ),
        (
            csv("a.png,and,1", "b.png,red,2", "sub/c.png,red,1", "d.png,and,2"),
            None,
            "'and' cannot be used as a label",
        ),
        (csv(*ROWS, f"e.png,{'x' * 200_000},no"), None, "field larger than field limit"),
        (
            csv("a.png,red,1", "b.png,red,2", "sub/c.png,red,1", "d.png,red,2"),
            None,
            "attribute 'eyes': only one value",
        ),
    ],
)
def test_tables_that_cannot_be_used(
    tmp_path: Path, files: dict[str, bytes], attributes: list[str] | None, said: str
) -> None:
    assert said in "\n".join(problems(as_folder(tmp_path, FILES | files), attributes))


def test_a_zip_whose_images_are_damaged(tmp_path: Path) -> None:
    path = as_zip(tmp_path, FILES | csv(*ROWS))
    content = path.read_bytes()
    at = content.index(FILES["a.png"]) + 20
    path.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
    (found,) = problems(path)
    assert "line 2: 'a.png' is not a readable image: Bad CRC-32" in found


def test_sources_that_cannot_be_read(tmp_path: Path) -> None:
    assert "does not exist" in problems(tmp_path / "nowhere")[0]
    (tmp_path / "empty").mkdir()
    assert "no data that can be read" in problems(tmp_path / "empty")[0]
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 cut short")
    assert "not a readable zip" in problems(tmp_path / "broken.zip")[0]
    assert "no number of avatars" in problems(Path("avatars:many"))[0]
    assert "at least 128" in problems(Path("avatars:5"))[0]


def idx(array: Images) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Eight 28x28 images in IDX files; image i is filled with i and labelled i mod 3."""
    images = np.repeat(np.arange(8, dtype=np.uint8), 28 * 28).reshape(8, 28, 28)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(8, dtype=np.uint8) % 3))
    return tmp_path


def test_idx(digits: Path) -> None:
    for source in (digits, digits / "train-images-idx3-ubyte.gz"):
        dataset = load(str(source), ["digit"])
        assert dataset.images.shape == (8, 28, 28, 1)
        assert dataset.images[:, 5, 5, 0].tolist() == list(range(8))
        assert dataset.attributes[0].name == "digit"
        assert dataset.attributes[0].values == ("0", "1", "2")
        assert dataset.labels[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert load(str(digits)).attributes[0].name == "label"


def test_idx_without_labels(digits: Path) -> None:
    dataset = load(str(digits), [])
    assert (dataset.attributes, dataset.labels.shape) == ((), (8, 0))


def test_idx_training_split_comes_before_the_test_split(digits: Path) -> None:
    (digits / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((2, 28, 28), dtype=np.uint8)))
    assert len(load(str(digits))) == 8


def test_idx_class_names(digits: Path) -> None:
    (digits / "classes.txt").write_text("Ankle boot\nBag\nCoat\n")
    dataset = load(str(digits))
    assert dataset.attributes[0].values == ("Ankle boot", "Bag", "Coat")
    (digits / "classes.txt").write_text("Ankle boot\n")
    assert "has 1 lines, but a label is 2" in problems(digits)[0]


def test_idx_faults(digits: Path) -> None:
    images, labels = digits / "train-images-idx3-ubyte.gz", digits / "train-labels-idx1-ubyte"
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-1])
    assert "says 8 bytes but holds 7" in problems(digits)[0]
    labels.write_bytes(idx(np.array([0, 0, 1, 1, 2, 2, 0], dtype=np.uint8)))
    assert "holds 7 labels for 8 images" in problems(digits)[0]
    labels.write_bytes(idx(np.array([0, 0, 0, 1, 1, 1, 0, 2], dtype=np.uint8)))
    assert "label '2' stands only once" in problems(digits)[0]
    labels.unlink()
    assert "no train-labels-idx1-ubyte" in problems(digits)[0]
    labels.write_bytes(whole)
    labels.write_bytes(idx(np.full(8, 5, dtype=np.uint8)))
    assert "at least 2 items" in problems(digits)[0]
    labels.write_bytes(whole)
    images.write_bytes(images.read_bytes()[:-20])
    assert "cannot be read" in problems(digits)[0]
    images.write_bytes(gzip.compress(b"\0\0\x0d\x03 floats"))
    assert "is not an IDX file" in problems(digits)[0]


def test_avatars() -> None:
    fewest = load(f"avatars:{MIN_AVATARS}")
    assert all(min(x.frequencies) >= 2 / MIN_AVATARS for x in fewest.attributes)
    dataset = load("avatars:128", ["eyes", "glasses"])
    assert load("avatars:128", size=128).images.shape[1:] == (128, 128, 3)
    with pytest.raises(DataError, match="a --size of 16, 32, 64, 128, and no --crop"):
        load("avatars:128", size=100)
    assert len(dataset) == 128
    assert [x.name for x in dataset.attributes] == ["eyes", "glasses"]
    assert "no attribute 'beard'" in problems(Path("avatars:128"), ["beard"])[0]


def test_values_stand_in_natural_order() -> None:
    _, (attribute,) = encode_labels({"x": ["10", "9", "b2", "b10", "9"]}, 5, "here")
    assert attribute.values == ("9", "10", "b2", "b10")
    assert attribute.frequencies == (0.4, 0.2, 0.2, 0.2)


def test_digest_depends_on_pixels_labels_and_vocabulary() -> None:
    images = np.zeros((4, 16, 16, 3), dtype=np.uint8)
    labels, attributes = encode_labels({"x": ["a", "a", "b", "b"]}, 4, "here")
    digests = {
        Dataset("one", images, labels, attributes).sha256,
        Dataset("one", images + 1, labels, attributes).sha256,
        Dataset("one", images, labels[::-1], attributes).sha256,
        Dataset("one", images, *encode_labels({"y": ["a", "a", "b", "b"]}, 4, "here")).sha256,
        Dataset("one", images, *encode_labels({"x": ["a", "a", "c", "c"]}, 4, "here")).sha256,
    }
    assert len(digests) == 5
    assert Dataset("two", images.copy(), labels, attributes).sha256 in digests


def test_anime_faces(anime_faces: Dataset) -> None:
    assert anime_faces.images.shape == (15_698, 64, 64, 3)
    assert [len(attribute.values) for attribute in anime_faces.attributes] == [12, 10]


def test_mnist(real_data: Path) -> None:
    dataset = load(str(real_data / "mnist"), ["digit"])
    assert dataset.images.shape == (8_000, 28, 28, 1)
    assert dataset.attributes[0].values == tuple("0123456789")
