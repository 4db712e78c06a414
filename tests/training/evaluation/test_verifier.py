from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
import torch

from tests.helpers.small_runs import CPU, some
from training.data import Dataset
from training.evaluation import features, verifier
from training.evaluation.features import FeatureNetwork
from training.evaluation.verifier import Verifier, calibrated, to_onnx


@pytest.fixture(scope="module")
def split(portraits: Dataset) -> tuple[Dataset, Dataset]:
    """Avatars of 16x16: their hair is easily read, their eyes hardly."""
    return some(portraits, len(portraits), "hair", "eyes").split(0.4)


@pytest.fixture(scope="module")
def network(split: tuple[Dataset, Dataset]) -> FeatureNetwork:
    return features.train_network(split[0], mirror=True, device=CPU, schedule=features.THOROUGH)


def test_accuracy_is_the_share_of_held_out_images_read_right(
    split: tuple[Dataset, Dataset], network: FeatureNetwork
) -> None:
    _, held_out = split
    reader, accuracies = calibrated(network, held_out)
    probabilities = reader(torch.from_numpy(held_out.images))
    for a, (accuracy, each) in enumerate(zip(accuracies, probabilities, strict=True)):
        right = each.argmax(dim=1).numpy() == held_out.labels[:, a]
        assert accuracy.right == pytest.approx(right.mean())
        assert accuracy.images == len(held_out)
        assert each.sum(dim=1).tolist() == pytest.approx([1] * len(held_out))
    hair, eyes = accuracies
    assert hair.right > 0.95 > eyes.right


def test_overconfident_network_is_calibrated_to_the_same_confidence(
    split: tuple[Dataset, Dataset], network: FeatureNetwork
) -> None:
    _, held_out = split
    louder = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in louder.to_logits.parameters():
            parameter.mul_(2)
    (_, eyes), (_, louder_eyes) = (calibrated(each, held_out)[1] for each in (network, louder))
    assert louder_eyes.temperature == pytest.approx(2 * eyes.temperature, rel=0.15)
    assert louder_eyes.calibration_error == pytest.approx(eyes.calibration_error, abs=0.02)
    assert louder_eyes.calibration_error < louder_eyes.uncalibrated_error
    assert louder_eyes.calibration_error < louder_eyes.perfect_error + 0.05


def test_temperature_recovers_the_scale_of_the_logits() -> None:
    """Labels are drawn with the probabilities of logits; three times as large ones are too sure by
    a factor of three."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 5, generator=generator)
    truth = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    assert verifier._temperature(3 * logits, truth) == pytest.approx(3, rel=0.1)
    assert verifier._temperature(logits, truth) == pytest.approx(1, rel=0.1)


def test_the_model_file_keeps_the_contract(
    split: tuple[Dataset, Dataset], network: FeatureNetwork
) -> None:
    _, held_out = split
    reader, _ = calibrated(network, held_out)
    session = ort.InferenceSession(to_onnx(reader, held_out), providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape[1:]) == ("image", "tensor(uint8)", [16, 16, 3])
    assert [each.name for each in session.get_outputs()] == ["hair", "eyes"]
    for count in (1, 5):
        found = session.run(None, {"image": held_out.images[:count]})
        expected = reader(torch.from_numpy(held_out.images[:count]))
        for theirs, ours, attribute in zip(found, expected, held_out.attributes, strict=True):
            assert theirs.dtype == np.float32
            assert theirs.shape == (count, len(attribute.values))
            assert np.abs(theirs - ours.detach().numpy()).max() < 1e-5


def test_attribute_may_have_the_name_of_a_node_in_the_graph(portraits: Dataset) -> None:
    names = ("linear", "view", "__softmax", "a b|c", "5_o_Clock")
    attributes = tuple(
        attribute.model_copy(update={"name": name})
        for attribute, name in zip(portraits.attributes, names, strict=True)
    )
    renamed = replace(some(portraits, 40), attributes=attributes)
    reader = Verifier(features.new_network(renamed, CPU), [1.0] * len(names))
    session = ort.InferenceSession(to_onnx(reader, renamed), providers=["CPUExecutionProvider"])
    assert tuple(each.name for each in session.get_outputs()) == names


def test_calibration_does_not_harm_with_few_images(
    split: tuple[Dataset, Dataset], network: FeatureNetwork
) -> None:
    _, held_out = split
    rows = np.arange(len(held_out)) < 24
    for few in (held_out.take(rows), held_out.take(~rows)):
        for accuracy in calibrated(network, few)[1]:
            assert accuracy.images == len(few)
            assert 0 < accuracy.perfect_error < 0.5 or accuracy.right > 0.95


def test_exact_confidence_has_a_calibration_error_over_few_images() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2000, 5, generator=generator)
    few, many = (verifier._perfect_error(logits[:count]) for count in (30, 2000))
    assert few > 3 * many > 0
    truth = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    assert verifier.calibration_error(logits.softmax(dim=1), truth) == pytest.approx(many, abs=0.02)
