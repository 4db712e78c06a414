from __future__ import annotations

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.helpers.image_files import as_folder, as_zip, encoded
from training.audit import audit, near_duplicates
from training.audit import report as audit_report
from training.audit.near_duplicates import NEAR, Pair
from training.cli import main
from training.data import Dataset, avatars, load
from training.data.labelling import encode_labels
from training.errors import DataError

Images = near_duplicates.Images
COLOURS = ["red", "blue", "blue", "red"]


def noise(count: int, seed: int = 0, channels: int = 3, side: tuple[int, int] = (16, 16)) -> Images:
    """Smooth random pictures, no two alike."""
    small = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, channels), dtype=np.uint8)
    return small.repeat(side[0] // 4, axis=1).repeat(side[1] // 4, axis=2)


def data(images: Images, *labels: str, name: str = "faces") -> Dataset:
    columns = {"eyes": labels} if labels else {}
    names = tuple(f"{index}.png" for index in range(len(images)))
    return Dataset(name, images, *encode_labels(columns, len(images), name), names=names)


def shifted(image: Images, by: int) -> Images:
    """Every pixel ``by`` brighter or darker, whichever fits."""
    return np.where(image < 128, image + np.uint8(by), image - np.uint8(by))


@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_is_found_where_nothing_is(channels: int) -> None:
    images = noise(300, channels=channels)
    assert near_duplicates.exact(images) == []
    assert near_duplicates.near(images) == []
    assert near_duplicates.exact(images, noise(300, 1, channels)) == []
    assert near_duplicates.near(images, noise(300, 1, channels)) == []


def test_each_copy_is_listed_once_with_the_first() -> None:
    images = noise(10)
    images[4] = images[8] = images[1]
    images[6] = images[2][:, ::-1]
    images[9] = images[9][:, ::-1] // 2 + images[9] // 2  # a symmetric picture, of which ...
    images[7] = images[9]
    assert near_duplicates.exact(images) == [
        Pair(1, 4, mirrored=False),
        Pair(2, 6, mirrored=True),
        Pair(1, 8, mirrored=False),
        Pair(7, 9, mirrored=False),  # ... a copy mirrors it too
    ]


def test_images_that_only_share_their_sum_are_no_copies() -> None:
    images = noise(2)
    images[1] = images[0][::-1]
    assert near_duplicates.exact(images) == []


def test_copies_in_other_data() -> None:
    images, others = noise(6), noise(4, 1)
    others[0] = images[5]
    others[3] = images[2][:, ::-1]
    others[1] = shifted(images[4], 3)
    assert near_duplicates.exact(images, others) == [Pair(5, 0, False), Pair(2, 3, True)]
    assert Pair(4, 1, False, 3.0) in near_duplicates.near(images, others)


@pytest.mark.parametrize("side", [(16, 16), (28, 20), (4, 36)])
def test_near_copies_are_those_that_a_comparison_of_all_finds(side: tuple[int, int]) -> None:
    images = noise(60, side=side)
    dice = np.random.default_rng(5)
    for index in range(30, 60):
        strength = dice.uniform(4, 16)
        original = images[index - 30][:, ::-1] if index % 2 else images[index - 30]
        changed = original + dice.normal(0, strength, original.shape)
        images[index] = changed.round().clip(0, 255)

    expected = {}
    for second in range(60):
        for first in range(second):
            for mirrored in (False, True):
                one = images[first][:, ::-1] if mirrored else images[first]
                distance = np.sqrt(np.mean((one.astype(float) - images[second]) ** 2))
                if distance <= NEAR:
                    expected[second] = (first, mirrored, distance)
    assert 5 < len(expected) < 28
    found = near_duplicates.near(images)
    assert {pair.second: (pair.first, pair.mirrored) for pair in found} == {
        second: (first, mirrored) for second, (first, mirrored, _) in expected.items()
    }
    distances = [pair.distance for pair in found]
    assert distances == sorted(distances)
    assert distances == pytest.approx(sorted(distance for _, _, distance in expected.values()))


def test_pictures_without_contrast_are_not_alike() -> None:
    fog = np.random.default_rng(0).normal(128, 4, (50, 16, 16, 1)).round().astype(np.uint8)
    assert near_duplicates.near(fog) == []


def test_a_jpeg_of_a_picture_is_a_near_copy() -> None:
    images = avatars.draw(5).images
    jpeg = encoded(Image.fromarray(images[3]), "JPEG", quality=90)
    images[4] = np.asarray(Image.open(io.BytesIO(jpeg)))
    (pair,) = near_duplicates.near(images)
    assert (pair.first, pair.second, pair.mirrored) == (3, 4, False)


@pytest.fixture
def flawed() -> Dataset:
    images = noise(8)
    images[3] = images[0]  # both red
    images[5] = images[1]  # red, but 1 is blue
    images[6] = images[2][:, ::-1]
    images[7] = shifted(images[4], 2)
    return data(images, *COLOURS, "red", "red", "blue", "blue")


def test_report(flawed: Dataset) -> None:
    report = audit.audit(flawed)
    assert report.quick == audit.quick_audit(flawed)
    assert report.quick.duplicates == (Pair(0, 3, False), Pair(1, 5, False))
    assert report.quick.mirrored == (Pair(2, 6, True),)
    assert report.quick.conflicts == (Pair(1, 5, False),)
    assert report.near == (Pair(4, 7, False, 2.0),)
    assert [(x.values, x.images) for x in report.quick.counts] == [
        ({"eyes": "blue"}, 4),
        ({"eyes": "red"}, 4),
    ]
    assert (report.combinations, report.leaks) == (None, None)
    assert audit_report.as_text(report, flawed).splitlines() == [
        "faces: 8 images of 16x16 RGB",
        "eyes: blue 4, red 4",
        "duplicates: 2",
        "  0.png = 3.png",
        "  1.png = 5.png",
        "mirrored duplicates: 1",
        "  2.png = 6.png, mirrored",
        "near duplicates: 1",
        "  4.png ~ 7.png, 2.0 of 255 apart",
        "label conflicts: 1",
        "  1.png = 5.png: eyes blue or red",
    ]


def test_report_against_other_data(flawed: Dataset) -> None:
    held_out = noise(4, 1)
    held_out[1], held_out[2] = flawed.images[2][:, ::-1], shifted(flawed.images[1], 4)
    other = data(held_out, name="held-out")
    report = audit.audit(flawed, other)
    assert report.leaks == (Pair(6, 1, False), Pair(1, 2, False, 4.0))
    text = audit_report.as_text(report, flawed, other)
    assert text.endswith("also in held-out: 2\n  6.png = 1.png\n  1.png ~ 2.png, 4.0 of 255 apart")
    found = audit_report.as_json(report, flawed, other)
    assert found["against"]["sha256"] == other.sha256
    assert found["pairs"]["leaks"][0] == {
        "first": "6.png",
        "second": "1.png",
        "mirrored": False,
        "distance": 0.0,
    }


def test_other_data_of_another_shape(flawed: Dataset) -> None:
    with pytest.raises(DataError, match="16x16 grey, faces of 16x16 RGB: they cannot be compared"):
        audit.audit(flawed, data(noise(4, channels=1)))


def test_combinations() -> None:
    columns = {"hair": ["black"] * 60 + ["red"] * 2, "eyes": ["blue"] * 61 + ["green"]}
    dataset = Dataset("faces", noise(62), *encode_labels(columns, 62, "faces"))
    found = audit.audit(dataset).combinations
    assert found is not None
    assert (found.possible, found.occurring, found.few) == (4, 3, 3)
    assert [(x.values, x.images) for x in found.rarest] == [
        ({"hair": "black", "eyes": "green"}, 0),
        ({"hair": "red", "eyes": "blue"}, 1),
        ({"hair": "red", "eyes": "green"}, 1),
    ]
    text = audit_report.as_text(audit.audit(dataset), dataset)
    assert (
        "combinations: 3 of 4 occur; 3 below 50 images: hair black, eyes green (0); "
        "hair red, eyes blue (1); hair red, eyes green (1)\n"
    ) in text


def test_more_combinations_than_can_be_listed() -> None:
    columns = {f"a{n}": ["no", "yes"] * 10 for n in range(40)}
    dataset = Dataset("faces", noise(20), *encode_labels(columns, 20, "faces"))
    found = audit.audit(dataset).combinations
    assert found is not None
    assert (found.possible, found.occurring, found.few) == (2**40, 2, 2**40)
    assert [x.images for x in found.rarest] == [10, 10]


def test_many_values_are_shortened() -> None:
    labels = [str(n) for n in range(25) for _ in range(2)]
    dataset = data(noise(50), *labels)
    lines = audit_report.as_text(audit.audit(dataset), dataset).splitlines()
    assert lines[1] == "eyes: 25 values, the rarest 0 2, 1 2, 2 2, 3 2, 4 2"


def test_images_without_names_or_labels() -> None:
    images = noise(7)
    images[1:] = images[0]
    dataset = Dataset("faces", images, *encode_labels({}, 7, "faces"))
    lines = audit_report.as_text(audit.audit(dataset), dataset).splitlines()
    assert lines[1:5] == [
        "labels: none",
        "duplicates: 6",
        "  image 0 = image 1",
        "  image 0 = image 2",
    ]
    assert lines[8:10] == ["  ...", "mirrored duplicates: none"]
    assert audit.warnings(audit.quick_audit(dataset), "x") == [
        "of the images, 6 repeat another: `figment audit x` lists them"
    ]


def test_warnings(flawed: Dataset) -> None:
    assert audit.warnings(audit.quick_audit(flawed), "faces.zip") == [
        "of the images, 2 repeat another, 1 mirror another, 1 are one picture under different "
        "labels: `figment audit faces.zip` lists them",
        "values with fewer than 50 images, which a model hardly learns: eyes blue (4), "
        "eyes red (4)",
    ]
    assert audit.warnings(audit.quick_audit(data(noise(200), *["red", "blue"] * 100)), "x") == []


def files(dataset: Dataset) -> dict[str, bytes]:
    assert dataset.names is not None
    rows = ["file_name,eyes"]
    found = {}
    for name, image, (label,) in zip(dataset.names, dataset.images, dataset.labels, strict=True):
        found[name] = encoded(Image.fromarray(image))
        rows.append(f"{name},{dataset.attributes[0].values[label]}")
    return found | {"metadata.csv": "\n".join(rows).encode()}


def test_command(tmp_path: Path, flawed: Dataset) -> None:
    source = str(as_zip(tmp_path, files(flawed)))
    held_out = files(data(noise(4, 1), *COLOURS))
    other = str(as_folder(tmp_path, held_out | {"2.png": files(flawed)["4.png"]}))
    out, report = tmp_path / "pairs.png", tmp_path / "report.json"
    run = CliRunner().invoke(
        main, ["audit", source, "--against", other, "--out", str(out), "--json", str(report)]
    )
    assert run.exit_code == 0, run.output
    assert "also in faces: 1\n  4.png = 2.png" in run.stdout
    found = json.loads(report.read_text())
    assert found["sha256"] == load(source).sha256
    assert found["counts"] == {"eyes": {"blue": 4, "red": 4}}
    assert {what: len(pairs) for what, pairs in found["pairs"].items()} == {
        "duplicates": 2,
        "mirrored duplicates": 1,
        "near duplicates": 1,
        "label conflicts": 1,
        "leaks": 1,
    }
    with Image.open(out) as picture:
        assert picture.height == 6 * 16 * audit_report.SCALE


def test_command_without_anything_to_draw(tmp_path: Path) -> None:
    source = str(as_zip(tmp_path, files(data(noise(4), *COLOURS))))
    out = tmp_path / "pairs.png"
    run = CliRunner().invoke(main, ["audit", source, "--attributes", "none", "--out", str(out)])
    assert run.exit_code == 0, run.output
    assert "duplicates: none" in run.stdout
    assert not out.exists()
    assert f"no pairs to draw: {out} is not written" in run.stderr
    run = CliRunner().invoke(main, ["audit", source, "--size", "17"])
    assert run.exit_code == 2
    assert "--size: Input should be a multiple of 4" in run.stderr


def test_training_warns_and_continues(tmp_path: Path, flawed: Dataset) -> None:
    source = str(as_zip(tmp_path, files(flawed)))
    command = f"train --data {source} --name x --out {tmp_path / 'run'} --kimg 0.004 --batch 4"
    run = CliRunner().invoke(main, [*command.split(), "--width", "2", "--size", "20"])
    assert run.exit_code == 0, run.output
    assert "warning: of the images, 2 repeat another" in run.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["size"] == 20
    assert json.loads((tmp_path / "run" / "dataset.json").read_text())["image_shape"] == [20, 20, 3]
    again = CliRunner().invoke(main, ["resume", str(tmp_path / "run")])
    assert again.exit_code == 0, again.output


@pytest.mark.slow
@pytest.mark.real_data
def test_anime_faces_have_no_copies_and_are_audited_quickly(anime_faces: Dataset) -> None:
    began = time.process_time()
    found = audit.quick_audit(anime_faces)
    assert time.process_time() - began < 2
    assert (found.duplicates, found.mirrored, found.few) == ((), (), ())
