"""Random labels and addresses: accepted ones are answered correctly, others get a problem."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import product
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from service.core.labels import Choice, Label, Vocabulary
from service.core.manifest import Attribute, normalise
from service.errors import InvalidLabel, InvalidModel, InvalidRequest
from tests.conftest import EXAMPLES, attribute, manifest
from tests.helpers.onnx_files import model, put
from tests.helpers.server import Server, serve

pytestmark = pytest.mark.server

ATTRIBUTES = (
    attribute("hair", "black", "red", "salt and pepper", "blonde"),
    attribute("eyes", "red", "blue", "black"),
    attribute("Smiling", "no", "yes"),
    attribute("Wavy_Hair", "-1", "1"),
    attribute("kind", "T-shirt/top", "caf\u00e9", "7"),
)
FACES = Vocabulary(ATTRIBUTES, "/models/faces/labels")
JSON = {"Content-Type": "application/json"}

fuzzed = settings(max_examples=10 * EXAMPLES, deadline=None, derandomize=True, database=None)

CASES: list[Callable[[str], str]] = [str, str.upper, str.lower, str.title]
words = st.sampled_from(
    [word for each in ATTRIBUTES for word in (each.name, *each.values)]
    + [
        "not",
        "and",
        ",",
        ":",
        "=",
        "-",
        "_",
        " ",
        "true",
        "0",
        "\u0130",
        "\u00df",
        "cafe\u0301",
        "\ud800",
        "\0",
    ]
)
cased = st.builds(
    lambda word, change: change(word),
    words | st.text(max_size=5),
    st.sampled_from([*CASES, str.swapcase]),
)
phrases = st.builds(
    lambda parts, glue: glue.join(parts),
    st.lists(cased, max_size=8),
    st.sampled_from([" ", "", ", ", " and ", ": ", "\u3000"]),
)
mappings = st.dictionaries(
    cased, cased | st.booleans() | st.integers() | st.sampled_from([7, -1, 1]), max_size=3
)
labels = phrases | mappings


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("models")
    put(folder, "faces", 1, model(manifest(*ATTRIBUTES, name="faces")))
    put(folder, "free", 12, model(manifest(name="free")))
    with serve("--models", str(folder), "--max-images", "16") as running:
        yield running
        log = "".join(running.log)
        assert "Traceback" not in log and "ERROR" not in log


class Caller:
    """One connection, over which any target is sent as it is."""

    def __init__(self, server: Server) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)

    def __call__(
        self, method: str, target: str, body: Any = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        content = None if body is None else json.dumps(body)
        self._connection.request(method, target, content, JSON)
        answer = self._connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def call(server: Server) -> Iterator[Caller]:
    with closing(Caller(server)) as caller:
        yield caller


def problem(status: int, headers: http.client.HTTPMessage, content: bytes) -> dict[str, Any]:
    assert headers["content-type"] == "application/problem+json", (status, content)
    found: dict[str, Any] = json.loads(content)
    assert {"type", "title", "status", "detail"} <= found.keys()
    assert found["status"] == status < 500, found
    assert len(content) < 20_000 and b"Traceback" not in content
    return found


@fuzzed
@given(labels)
def test_any_label_is_parsed_or_rejected(label: Label) -> None:
    try:
        choice = FACES.parse(label)
    except InvalidLabel as error:
        assert len(str(error)) < 2000
        assert error.extra["labels"] == "/models/faces/labels"
        json.dumps(error.problem())
        return
    assert choice
    assert FACES.parse(FACES.phrase(choice)) == choice
    for a, v in choice.items():
        name, value = ATTRIBUTES[a].name, ATTRIBUTES[a].values[v]
        if isinstance(label, str):  # a value, or as in "not Smiling", its attribute
            assert normalise(value) in normalise(label) or normalise(name) in normalise(label)
        else:
            assert normalise(name) in map(normalise, label)


@st.composite
def said(draw: st.DrawFn) -> tuple[Choice, str]:
    """A choice, and one of the many ways to say it."""
    order = draw(st.lists(st.sampled_from(range(len(ATTRIBUTES))), min_size=1, unique=True))
    choice = {a: draw(st.sampled_from(range(len(ATTRIBUTES[a].values)))) for a in order}
    parts = []
    for a, v in choice.items():
        name, value = ATTRIBUTES[a].name, ATTRIBUTES[a].values[v]
        ways = [f"{value} {name}", f"{name} {value}", f"{name}: {value}", f"{name}={value}"]
        if name in ("Smiling", "Wavy_Hair"):
            ways.append(name if v else f"not {name}")
        part = draw(st.sampled_from(ways)).replace(" ", draw(st.sampled_from([" ", "  ", "\t"])))
        parts.append(draw(st.sampled_from(CASES))(part))
    return choice, draw(st.sampled_from([",", ", ", " and ", ", AND "])).join(parts)


good = said().map(lambda pair: pair[1])


@fuzzed
@given(said())
def test_phrases_give_the_values_they_name(pair: tuple[Choice, str]) -> None:
    choice, phrase = pair
    assert FACES.parse(phrase) == choice


@st.composite
def vocabularies(draw: st.DrawFn) -> Vocabulary:
    """Vocabularies of any valid attributes, however similar, without separators."""
    word = st.text("ab -_:", min_size=1, max_size=4) | st.sampled_from(
        ["not a", "not", "no", "yes", "1", "0", "true"]
    )
    attributes: list[Attribute] = []
    for _ in range(draw(st.integers(1, 3))):
        with suppress(ValidationError):
            attributes.append(attribute(draw(word), *draw(st.lists(word, min_size=2, max_size=3))))
    assume(attributes)
    try:
        vocabulary = Vocabulary(manifest(*attributes).attributes, "/models/any/labels")
        vocabulary.check()
    except (ValidationError, InvalidModel):
        reject()
    return vocabulary


@fuzzed
@given(vocabularies())
def test_canonical_phrase_gives_the_same_values(vocabulary: Vocabulary) -> None:
    sizes = [range(len(attribute.values)) for attribute in vocabulary.attributes]
    for values in product(*sizes):
        choice = dict(enumerate(values))
        assert vocabulary.parse(vocabulary.phrase(choice)) == choice


@fuzzed
@given(labels | good | st.lists(labels | good | good, max_size=3), st.integers(1, 3))
def test_labelled_images_equal_their_urls(call: Caller, label: Label | list[Label], n: int) -> None:
    status, headers, content = call("POST", "/generate", {"label": label, "n": n, "seed": 3})
    if status != 200:
        found = problem(status, headers, content)
        assert status == 422
        assert found["type"] in (InvalidLabel.kind(), InvalidRequest.kind())
        return
    asked = label if isinstance(label, list) else [label]
    images = json.loads(content)["images"]
    assert len(images) == n
    for image in images:
        choice = FACES.parse(asked[image["index"] % len(asked)])
        wanted = {ATTRIBUTES[a].name: ATTRIBUTES[a].values[v] for a, v in choice.items()}
        assert wanted.items() <= image["labels"].items()
        assert call("GET", image["url"])[2] == base64.b64decode(image["data"])


numbers = st.one_of(
    st.integers(0, 20).map(str),
    st.sampled_from([2**53 - 1, 2**53, 2**64, 10**40, -1]).map(str),
    st.sampled_from(["", "00", "01", "1.0", "1e3", "+1", "1_0", "0x1", "\u0663", " 1", "1" * 5000]),
    st.text(max_size=4),
)
queries = st.dictionaries(
    st.sampled_from(["label", "truncation", "truncatoin", "format", ""]),
    phrases | st.floats(-0.5, 2).map(repr) | numbers | st.sampled_from(["0.8", "red eyes", "nan"]),
    max_size=3,
)
raw = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=6)


@st.composite
def targets(draw: st.DrawFn) -> str:
    """An address that is right, or wrong in a few places; encoded as it should be, or not."""

    def part(good: st.SearchStrategy[str], bad: st.SearchStrategy[str]) -> str:
        kind = draw(st.integers(0, 19))
        if kind == 0:
            return draw(raw)
        return quote(draw(bad if kind == 1 else good), safe="")

    few = st.integers(0, 20).map(str)
    names = draw(st.sampled_from([("faces", "1"), ("faces", "1"), ("free", "12")]))
    model, version = part(st.just(names[0]), st.text(max_size=5)), part(st.just(names[1]), numbers)
    seed, index = part(few, numbers), part(few | st.just(str(2**53 - 1)), numbers)
    extension = part(st.sampled_from(["png", "webp", "jpeg"]), st.text(max_size=5))
    query = draw(
        st.one_of(
            st.just(""),
            st.sampled_from(
                ["label=RED+eyes", "label=caf%C3%A9", "truncation=0.80", "truncation=1"]
            ),
            st.builds(lambda label: urlencode({"label": label}), good),
            queries.map(lambda query: urlencode(query, errors="surrogatepass")),
            st.lists(raw, max_size=3).map("&".join),
        )
    )
    return f"/images/{model}/{version}/{seed}/{index}.{extension}" + (f"?{query}" if query else "")


@fuzzed
@given(targets())
def test_any_address_gives_its_image_or_a_problem(call: Caller, target: str) -> None:
    status, headers, content = call("GET", target)
    if status != 200:
        problem(status, headers, content)
        assert status in (404, 422)
        return
    canonical = headers["content-location"]
    again = call("GET", canonical)
    assert (again[0], again[2]) == (200, content)
    assert again[1]["etag"] == headers["etag"]
    address = urlsplit(canonical)
    _, _, model, version, seed, file = address.path.split("/")
    index, _, extension = file.partition(".")
    body = {"model": model, "version": int(version), "seed": int(seed), "offset": int(index)}
    query = dict(parse_qsl(address.query))
    body |= {"label": query["label"]} if "label" in query else {}
    body |= {"truncation": float(query["truncation"])} if "truncation" in query else {}
    status, _, content = call("POST", "/generate", body)
    (image,) = json.loads(content)["images"]
    assert image["url"] == canonical.replace(f".{extension}", ".png", 1)
    assert call("GET", image["url"])[2] == base64.b64decode(image["data"])
    if extension == "png":
        assert again[2] == base64.b64decode(image["data"])
