from __future__ import annotations

import random
import time
from itertools import product

import numpy as np
import pytest

from service.core.labels import Label, Vocabulary
from service.errors import InvalidLabel, InvalidModel
from tests.conftest import attribute

FACES = Vocabulary(
    [
        attribute("hair", "black", "red", "salt and pepper", "blonde"),
        attribute("eyes", "red", "blue", "black"),
        attribute("Smiling", "no", "yes"),
        attribute("Wavy_Hair", "-1", "1"),
    ],
    "/models/faces/labels",
)
DIGITS = Vocabulary([attribute("digit", *"0123456789")], "/models/digits/labels")
CLOTHES = Vocabulary(
    [attribute("kind", "Ankle boot", "T-shirt/top", "Bag")], "/models/clothes/labels"
)


def read(vocabulary: Vocabulary, label: Label) -> dict[str, str]:
    """Requested values by attribute name."""
    attributes = vocabulary.attributes
    return {attributes[a].name: attributes[a].values[v] for a, v in vocabulary.parse(label).items()}


@pytest.mark.parametrize(
    ("label", "meaning"),
    [
        ("red eyes", {"eyes": "red"}),
        ("eyes red", {"eyes": "red"}),
        ("eyes: red", {"eyes": "red"}),
        ("eyes=red", {"eyes": "red"}),
        ("  RED   Eyes ", {"eyes": "red"}),
        ("blue", {"eyes": "blue"}),
        ("red eyes, black hair", {"eyes": "red", "hair": "black"}),
        ("black hair and red eyes", {"eyes": "red", "hair": "black"}),
        ("black hair, and red eyes,", {"eyes": "red", "hair": "black"}),
        ("red eyes and red eyes", {"eyes": "red"}),
        ("salt and pepper", {"hair": "salt and pepper"}),
        ("salt and pepper hair and red eyes", {"hair": "salt and pepper", "eyes": "red"}),
        ("Smiling", {"Smiling": "yes"}),
        ("not smiling", {"Smiling": "no"}),
        ("smiling: no", {"Smiling": "no"}),
        ("wavy hair", {"Wavy_Hair": "1"}),
        ("not Wavy_Hair and blonde", {"Wavy_Hair": "-1", "hair": "blonde"}),
        ({"eyes": "red", "Hair": "BLACK"}, {"eyes": "red", "hair": "black"}),
        ({"Smiling": True}, {"Smiling": "yes"}),
        ({"wavy hair": False}, {"Wavy_Hair": "-1"}),
        ({"wavy hair": "yes"}, {"Wavy_Hair": "1"}),
    ],
)
def test_phrases_for_one_meaning(label: Label, meaning: dict[str, str]) -> None:
    assert read(FACES, label) == meaning


def test_values_without_their_attribute() -> None:
    assert read(DIGITS, "7") == {"digit": "7"}
    assert read(DIGITS, {"digit": 7}) == {"digit": "7"}
    assert read(CLOTHES, "ankle boot") == {"kind": "Ankle boot"}
    assert read(CLOTHES, "t-shirt/top") == {"kind": "T-shirt/top"}


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("red eys", "did you mean 'red eyes'"),
        ("blond hair", "did you mean 'blonde hair'"),
        ("elephant", "no label is similar"),
        ("red", "ambiguous: say 'red hair' or 'red eyes'"),
        ("red eyes, blue eyes", "two values of 'eyes'"),
        ("red eyes, elephant", "unknown label 'elephant'"),
        ("", "empty"),
        (" , and ", "empty"),
        ({}, "empty"),
        ({"eye": "red"}, "unknown attribute 'eye'"),
        ({"eyes": "rad"}, "did you mean 'red'"),
        ({"eyes": True}, "unknown value 'true'"),
        ("red eyes, black hair, Smiling, wavy hair, red eyes, red eyes", "more values than"),
    ],
)
def test_invalid_labels_are_explained(label: Label, said: str) -> None:
    with pytest.raises(InvalidLabel, match=said) as caught:
        FACES.parse(label)
    assert caught.value.extra["labels"] == "/models/faces/labels"


def test_error_lists_the_nearest_matches() -> None:
    with pytest.raises(InvalidLabel) as caught:
        FACES.parse("red eys")
    assert caught.value.extra["matches"][0] == "red eyes"


def test_boolean_is_not_a_digit() -> None:
    with pytest.raises(InvalidLabel, match="unknown value 'true'"):
        DIGITS.parse({"digit": True})


def test_composed_and_decomposed_accents_are_equal() -> None:
    cafes = Vocabulary([attribute("kind", "caf\u00e9", "bar")], "/models/cafes/labels")
    assert read(cafes, "cafe\u0301") == {"kind": "caf\u00e9"}


def test_long_phrases_are_parsed_in_linear_time() -> None:
    """Trying every run of parts, a long phrase would hold up all other requests for seconds."""
    started = time.process_time()
    for phrase in (
        "7," * 2000,
        "7 and " * 600,
        "x," * 2000,
        "7 and 7, " * 400,
        "x" + " " * 4000 + "x",
    ):
        with pytest.raises(InvalidLabel):
            DIGITS.parse(phrase)
    assert time.process_time() - started < 0.5


def test_unknown_labels_are_explained_in_bounded_time() -> None:
    """Comparing all phrases by difflib would hold up all other requests for seconds."""
    letters = random.Random(0)
    values = ["".join(letters.choices("ab", k=150)) for _ in range(2000)]
    many = Vocabulary([attribute("kind", *values), attribute("size", "s", "l")], "/labels")
    unknown = "".join(letters.choices("ab", k=80))
    labels: list[Label] = [unknown, {"kind": unknown}, {unknown: "s"}, unknown + " kind"]
    started = time.process_time()
    for label in labels:
        with pytest.raises(InvalidLabel):
            many.parse(label)
    assert time.process_time() - started < 0.5


def test_matches_are_found_among_many() -> None:
    breeds = [f"{colour}{n} terrier" for n in range(500) for colour in ("golden", "black", "red")]
    dogs = Vocabulary([attribute("breed", *breeds)], "/labels")
    with pytest.raises(InvalidLabel, match="did you mean 'golden123 terrier'"):
        dogs.parse("goldn123 terier")
    with pytest.raises(InvalidLabel, match="did you mean 'golden123 terrier'"):
        dogs.parse({"breed": "goldn123 terrier"})


def test_many_labels_of_many_values_take_little_time() -> None:
    classes = Vocabulary([attribute("class", *(f"word {n}" for n in range(1000)))], "/labels")
    started = time.process_time()
    for _ in range(1024):
        assert classes.parse({"class": "word 999"}) == {0: 999}
    assert time.process_time() - started < 0.5


def test_value_of_too_many_parts_is_refused() -> None:
    """Looking up every run of parts of a phrase takes time that grows with their number."""
    Vocabulary([attribute("kind", "a, b, c, d, e, f, g, h, i", "x")], "/labels").check()
    with pytest.raises(InvalidModel, match="no label selects"):
        Vocabulary([attribute("kind", "a, b, c, d, e, f, g, h, i, j", "x")], "/labels").check()


def test_unconditional_model_rejects_labels() -> None:
    with pytest.raises(InvalidLabel, match="unconditional"):
        Vocabulary([], "/models/free/labels").parse("red eyes")


@pytest.mark.parametrize("vocabulary", [FACES, DIGITS, CLOTHES])
def test_canonical_phrases_parse_to_their_values(vocabulary: Vocabulary) -> None:
    sizes = [range(len(attribute.values)) for attribute in vocabulary.attributes]
    for values in product(*sizes):
        choice = dict(enumerate(values))
        assert vocabulary.parse(vocabulary.phrase(choice)) == choice


def test_canonical_phrases_are_natural() -> None:
    assert FACES.phrase({1: 0}) == "red eyes"
    assert FACES.phrase({2: 0}) == "not Smiling"
    assert DIGITS.phrase({0: 7}) == "7"


def test_condition_is_one_hot_vectors_side_by_side() -> None:
    rows = FACES.condition(np.array([[1, 2, 0, 1], [0, 0, 1, 0]]))
    assert rows.dtype == np.float32
    assert rows.tolist() == [
        [0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 1],
        [1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0],
    ]
    assert Vocabulary([], "/models/free/labels").condition(
        np.zeros((3, 0), dtype=np.int64)
    ).shape == (3, 0)
