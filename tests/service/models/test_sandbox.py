"""Files that would have the service crash, hang, leak or burst: refused, and that is all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.core.manifest import Manifest
from service.errors import StartupError
from service.inference.model import Model
from service.inference.session import SessionFactory
from service.models.model_set import ModelSet
from service.models.repository import load_models
from service.models.sandbox import CheckResult, ModelSandbox
from tests.conftest import attribute, manifest
from tests.helpers import onnx_files
from tests.helpers.server import MODELS

PLAIN = manifest()
SMALL = manifest(attribute("eyes", "red", "blue")).model_copy(update={"height": 2, "width": 3})
"""So few weights that most of the file is structure."""
SHIPPED = MODELS / "digits" / "2" / "model.onnx"
Corruption = Callable[[np.random.Generator, bytes], bytes]


def load(folder: Path, vetter: ModelSandbox | None = None) -> ModelSet:
    return load_models(folder, SessionFactory("cpu"), {}, vetter=vetter or ModelSandbox(seconds=20))


def flip_bits(random: np.random.Generator, content: bytes) -> bytes:
    corrupt = np.frombuffer(content, np.uint8).copy()
    for place in random.integers(len(content), size=random.integers(1, 9)):
        corrupt[place] ^= 1 << random.integers(8)
    return corrupt.tobytes()


def flip_bits_of_structure(random: np.random.Generator, content: bytes) -> bytes:
    """At the end of a file, where graph and manifest of an exported one are."""
    cut = max(len(content) - 4000, 0)
    return content[:cut] + flip_bits(random, content[cut:])


def truncate(random: np.random.Generator, content: bytes) -> bytes:
    return content[: random.integers(len(content))]


def cut_out(random: np.random.Generator, content: bytes) -> bytes:
    first, last = sorted(random.integers(len(content) + 1, size=2))
    return content[:first] + content[last:]


def swap(random: np.random.Generator, content: bytes) -> bytes:
    corrupt = bytearray(content)
    one, other = random.integers(len(content), size=2)
    corrupt[one], corrupt[other] = corrupt[other], corrupt[one]
    return bytes(corrupt)


def overwrite(random: np.random.Generator, content: bytes) -> bytes:
    first = random.integers(len(content))
    some = random.bytes(int(random.integers(1, 65)))
    return (content[:first] + some + content[first + len(some) :])[: len(content)]


CORRUPTIONS = (flip_bits, flip_bits_of_structure, truncate, cut_out, swap, overwrite)


def corrupted(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    random = np.random.default_rng(seed)
    for number in range(count):
        yield CORRUPTIONS[number % len(CORRUPTIONS)](random, content)


def test_a_thousand_corrupted_files_are_refused_or_can_be_served(tmp_path: Path) -> None:
    whole = onnx_files.model(SMALL).SerializeToString()
    for number, content in enumerate(corrupted(whole, 1000, seed=1), start=1):
        onnx_files.put(tmp_path, "tiny", number, content)
    onnx_files.put(tmp_path, "tiny", 1001, whole)
    library = load(tmp_path)
    served = library.models["tiny"]
    assert 1001 in served
    assert len(served) + len(library.refused) == 1001
    assert len(library.refused) > 500
    for refusal in library.refused:
        assert refusal.reason
        assert refusal.reason.isprintable(), refusal
    for model in served.values():
        check_served(model)


def check_served(model: Model) -> None:
    images = model.generate(
        np.zeros((3, model.manifest.latent_size), dtype=np.float32),
        np.zeros((3, model.manifest.condition_size), dtype=np.float32),
    )
    assert images.dtype == np.uint8
    assert images.shape == (3, *model.manifest.image_shape)


def test_hundreds_of_corruptions_of_a_shipped_model(tmp_path: Path) -> None:
    refused = 0
    for seed in range(5):
        for number, content in enumerate(corrupted(SHIPPED.read_bytes(), 48, seed), start=1):
            onnx_files.put(tmp_path, "digits", number, content)
        paths = sorted(tmp_path.glob("*/*/*"))
        verdicts = list(ModelSandbox(seconds=20).vet(paths))
        assert [verdict.path for verdict in verdicts] == paths
        for verdict in verdicts:
            assert (verdict.sha256 is None) == bool(verdict.reason)
            assert verdict.reason.isprintable(), verdict
        refused += sum(verdict.sha256 is None for verdict in verdicts)
    assert 100 < refused < 240


def refusal(
    folder: Path, built: bytes | onnx.ModelProto, vetter: ModelSandbox | None = None
) -> str:
    """Why a model is refused, and that a good one after it is served."""
    onnx_files.put(folder, "tiny", 1, built)
    onnx_files.put(folder, "tiny", 2, onnx_files.model(PLAIN))
    library = load(folder, vetter)
    assert list(library.models["tiny"]) == [2]
    (refused,) = library.refused
    assert refused.path == "tiny/1/model.onnx"
    return refused.reason


def with_nodes(*nodes: onnx.NodeProto, described: Manifest = PLAIN) -> onnx.ModelProto:
    """A model whose input goes through ``nodes`` first, from ``latent`` to ``changed``."""
    built = onnx_files.model(described)
    first = built.graph.node[0]
    first.input[0] = "changed"
    kept = list(built.graph.node)
    del built.graph.node[:]
    built.graph.node.extend([*nodes, *kept])
    return built


def graph(node: onnx.NodeProto, *, inputs: tuple[str, ...] = ()) -> onnx.GraphProto:
    value = helper.make_tensor_value_info
    return helper.make_graph(
        [node],
        "inner",
        [value(name, TensorProto.FLOAT, None) for name in inputs],
        [value(name, TensorProto.FLOAT, None) for name in node.output],
    )


EVIL = helper.make_node("Exfiltrate", ["latent"], ["out"], domain="evil")
TRUE = helper.make_node("Constant", [], ["true"], value=numpy_helper.from_array(np.array(True)))


def test_an_operator_that_is_not_of_onnx_is_refused(tmp_path: Path) -> None:
    built = with_nodes(helper.make_node("Exfiltrate", ["latent"], ["changed"], domain="evil"))
    assert "'Exfiltrate' is of 'evil'; only standard ONNX operators" in refusal(tmp_path, built)


def test_one_that_onnx_runtime_adds_is_no_standard_either(tmp_path: Path) -> None:
    built = with_nodes(helper.make_node("Gelu", ["latent"], ["changed"], domain="com.microsoft"))
    built.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert "'Gelu' is of 'com.microsoft'" in refusal(tmp_path, built)


def test_nor_is_one_that_it_adds_to_the_standard_domain(tmp_path: Path) -> None:
    scale = numpy_helper.from_array(np.ones(8, dtype=np.float32), "scale")
    built = with_nodes(
        helper.make_node("SimplifiedLayerNormalization", ["latent", "scale"], ["changed"])
    )
    built.graph.initializer.append(scale)
    assert "'SimplifiedLayerNormalization' is of ''" in refusal(tmp_path, built)


def test_operators_are_looked_at_in_subgraphs(tmp_path: Path) -> None:
    fine = helper.make_node("Identity", ["latent"], ["out"])
    branches = {"then_branch": graph(fine), "else_branch": graph(EVIL)}
    built = with_nodes(TRUE, helper.make_node("If", ["true"], ["changed"], **branches))
    assert "'Exfiltrate' is of 'evil'" in refusal(tmp_path, built)


@pytest.mark.parametrize(("domain", "name"), [("mine", "Mine"), ("com.microsoft", "QuickGelu")])
def test_functions_of_its_own_are_refused(tmp_path: Path, domain: str, name: str) -> None:
    """ONNX Runtime has an operator of its own for the second, and would run that."""
    built = with_nodes(helper.make_node(name, ["latent"], ["changed"], domain=domain))
    built.opset_import.append(helper.make_opsetid(domain, 1))
    opset = list(built.opset_import)
    fine = helper.make_node("Identity", ["latent"], ["out"])
    built.functions.append(helper.make_function(domain, name, ["latent"], ["out"], [fine], opset))
    assert "only standard ONNX operators" in refusal(tmp_path, built)


def test_so_are_those_that_nothing_calls(tmp_path: Path) -> None:
    built = onnx_files.model(PLAIN)
    opset = list(built.opset_import)
    fine = helper.make_node("Identity", ["latent"], ["out"])
    built.functions.append(helper.make_function("mine", "Mine", ["latent"], ["out"], [fine], opset))
    assert "it defines a function, 'Mine'" in refusal(tmp_path, built)


def test_the_format_of_onnx_runtime_is_not_taken(tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "converted")
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(onnx_files.model(PLAIN).SerializeToString(), options)
    content = (tmp_path / "converted").read_bytes()
    (tmp_path / "converted").unlink()
    assert "ONNX Runtime's own format" in refusal(tmp_path, content)
    with pytest.raises(Exception, match="protobuf parsing failed"):
        SessionFactory("cpu").create(content)


def test_nor_is_what_is_both_that_and_onnx(tmp_path: Path) -> None:
    """Fields that ONNX does not know are passed over: a message without a graph is left."""
    content = b"\x48\x00\x4d\x00ORTM\x00\x00\x00\x00"
    assert onnx.ModelProto.FromString(content).ListFields() == []
    assert "ONNX Runtime's own format" in refusal(tmp_path, content)


def test_a_graph_without_nodes_is_refused(tmp_path: Path) -> None:
    built = onnx_files.model(PLAIN)
    del built.graph.node[:]
    assert "its graph is empty" in refusal(tmp_path, built)


@pytest.mark.parametrize("place", ["/etc/passwd", "../../../etc/passwd", "weights"])
def test_weights_in_other_files_are_refused(tmp_path: Path, place: str) -> None:
    built = onnx_files.model(PLAIN)
    matrix = built.graph.initializer[0]
    onnx.external_data_helper.set_external_data(matrix, place)
    matrix.ClearField("raw_data")
    assert "'matrix' are external data" in refusal(tmp_path, built)


def test_so_are_those_of_a_constant_in_a_subgraph(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.zeros(8, dtype=np.float32), "hidden")
    constant = helper.make_node("Constant", [], ["out"], value=tensor)
    onnx.external_data_helper.set_external_data(constant.attribute[0].t, "/etc/passwd")
    branches = {"then_branch": graph(constant), "else_branch": graph(constant)}
    built = with_nodes(TRUE, helper.make_node("If", ["true"], ["changed"], **branches))
    assert "'hidden' are external data" in refusal(tmp_path, built)


def test_sparse_weights_are_refused(tmp_path: Path) -> None:
    built = onnx_files.model(PLAIN)
    values = numpy_helper.from_array(np.ones(1, dtype=np.float32), "sparse")
    places = numpy_helper.from_array(np.zeros(1, dtype=np.int64), "places")
    built.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [8]))
    assert "sparse tensors" in refusal(tmp_path, built)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_finite_numbers_are_refused(tmp_path: Path, number: float) -> None:
    built = onnx_files.model(PLAIN)
    matrix = numpy_helper.to_array(built.graph.initializer[0]).copy()
    matrix[1, 2] = number
    built.graph.initializer[0].CopyFrom(numpy_helper.from_array(matrix, "matrix"))
    assert "'matrix' contain NaN or infinity" in refusal(tmp_path, built)


def test_an_input_too_many_is_refused(tmp_path: Path) -> None:
    built = onnx_files.model(PLAIN)
    built.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["N", 8]))
    assert "its inputs are" in refusal(tmp_path, built)


def test_a_batch_that_does_not_come_whole_is_refused(tmp_path: Path) -> None:
    """One image whatever was asked for: right for a single one only."""
    first = [numpy_helper.from_array(np.array([at]), name) for at, name in ((0, "from"), (1, "to"))]
    nodes = [helper.make_node("Constant", [], [each.name], value=each) for each in first]
    built = with_nodes(*nodes, helper.make_node("Slice", ["latent", "from", "to"], ["changed"]))
    assert "the model returned uint8 of shape (1, 16, 16, 3)" in refusal(tmp_path, built)


def test_a_loop_without_end_is_given_up(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["go_on_out"]),
            helper.make_node("Identity", ["state"], ["state_out"]),
        ],
        "body",
        [
            value("turn", TensorProto.INT64, []),
            value("go_on", TensorProto.BOOL, []),
            value("state", TensorProto.FLOAT, None),
        ],
        [value("go_on_out", TensorProto.BOOL, []), value("state_out", TensorProto.FLOAT, None)],
    )
    loop = helper.make_node("Loop", ["", "true", "latent"], ["changed"], body=body)
    said = refusal(tmp_path, with_nodes(TRUE, loop), ModelSandbox(seconds=3))
    assert said == "it does not come to an end within 3 s"


def test_memory_is_bounded(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([2**38], dtype=np.int64))
    built = with_nodes(
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("ConstantOfShape", ["shape"], ["terabyte"]),
        helper.make_node("ReduceMax", ["terabyte"], ["most"], keepdims=0),
        helper.make_node("Add", ["latent", "most"], ["changed"]),
    )
    assert refusal(tmp_path, built)


def examiners() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE
        and "service.models.sandbox_worker" in child.cmdline()
    ]


def test_a_process_that_is_lost_takes_one_file_with_it(tmp_path: Path) -> None:
    paths = [
        onnx_files.put(tmp_path, "tiny", number, onnx_files.model(PLAIN)) for number in (1, 2, 3)
    ]
    verdicts = ModelSandbox(seconds=20).vet(paths)
    found = [next(verdicts)]
    (child,) = examiners()
    child.kill()
    found.extend(verdicts)
    lost = [verdict for verdict in found if verdict.sha256 is None]
    assert [verdict.path for verdict in found] == paths
    assert len(lost) <= 1
    assert all("killed by SIGKILL" in verdict.reason for verdict in lost)
    assert not examiners()


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    onnx_files.put(tmp_path, "tiny", 1, onnx_files.model(PLAIN))
    for number, make in ((2, os.mkfifo), (3, lambda path: path.symlink_to("/dev/zero"))):
        (tmp_path / "tiny" / str(number)).mkdir()
        make(tmp_path / "tiny" / str(number) / "model.onnx")
    library = load(tmp_path)
    assert list(library.models["tiny"]) == [1]
    assert [refused.path for refused in library.refused] == [
        "tiny/2/model.onnx",
        "tiny/3/model.onnx",
    ]


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    content = onnx_files.model(PLAIN).SerializeToString()
    onnx_files.put(tmp_path, "tiny", 1, content)
    path = onnx_files.put(tmp_path, "tiny", 2, content)
    os.truncate(path, 1024**4)
    library = load(tmp_path, ModelSandbox(max_bytes=1024**2))
    assert list(library.models["tiny"]) == [1]
    assert "is larger than the 1 MB that FIGMENT_MAX_MODEL_MB" in library.refused[0].reason


class _Swapper(ModelSandbox):
    """Puts another file in the place of each that was looked at."""

    def vet(self, files: list[Path]) -> Iterator[CheckResult]:  # type: ignore[override]
        for verdict in super().vet(files):
            if verdict.path.parent.name == "1":
                verdict.path.write_bytes(verdict.path.read_bytes() + b"\0")
            yield verdict


def test_a_file_that_changes_after_it_was_looked_at_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path, onnx_files.model(PLAIN), _Swapper())
    assert said.startswith("changed while it was loaded")


def test_a_verifier_is_vetted_too(tmp_path: Path) -> None:
    model = onnx_files.put(tmp_path, "tiny", 1, onnx_files.model(SMALL))
    evil = onnx_files.model(SMALL)
    evil.graph.node[0].domain = "evil"
    model.with_name("verifier.onnx").write_bytes(evil.SerializeToString())
    library = load(tmp_path)
    assert library.get("tiny").verifier is None
    (refused,) = library.refused
    assert refused.path == "tiny/1/verifier.onnx"
    assert "is of 'evil'" in refused.reason


def test_secrets_stay_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("FIGMENT_API_KEYS", "AWS_SECRET_ACCESS_KEY", "OTEL_EXPORTER_OTLP_HEADERS"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    vetter = ModelSandbox()
    vetter.prepare()
    (child,) = examiners()
    assert "secret" not in child.environ().values()
    assert child.environ()["TMPDIR"] == str(tmp_path)
    path = onnx_files.put(tmp_path, "tiny", 1, onnx_files.model(PLAIN))
    assert [verdict.reason for verdict in vetter.vet([path])] == [""]


def test_without_a_process_nothing_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_files.put(tmp_path, "tiny", 1, onnx_files.model(PLAIN))
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(StartupError, match=r"models cannot be looked at: .* ended with status 1"):
        load(tmp_path)
