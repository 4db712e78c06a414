"""Export a run's generator to ONNX, and check that ONNX Runtime and PyTorch agree."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from service.core import latents
from service.core.atomic_write import write_atomically
from service.core.labels import Vocabulary
from service.core.manifest import (
    CONDITION,
    IMAGE,
    LATENT,
    METADATA_KEY,
    MODEL_FILE,
    REPORT_FILE,
    VERIFIER_FILE,
    Manifest,
)
from training.core.onnx_model import convert, to_bytes
from training.core.pixels import to_uint8
from training.errors import ExportError
from training.evaluation.report_html import scores
from training.export import model_card, triton
from training.networks.marginal import Marginal
from training.networks.networks import Block, Generator
from training.networks.norms import ConditionalBatchNorm
from training.networks.resampling import SmoothUp
from training.runs.run import RECOMMENDATION, Run

EVALUATED = (VERIFIER_FILE, "report.json", REPORT_FILE)
"""Files of an evaluation that are copied beside the model."""
PARITY_LATENTS = 256
PARITY_SHARE = 1e-4
"""At most one byte in 10,000 may differ, and by at most one level of 255: two runtimes that add in
different orders may round differently."""


def export(
    run: Run,
    generator: Generator,
    shown: int,
    folder: Path,
    version: int | None,
    unconditional: str | None = None,
    repository: Path | None = None,
) -> Path:
    """Write ``folder/NAME/VERSION`` with model file, card and samples; returns that path.

    ``generator`` is the run's EMA after ``shown`` images, with recalibrated batch norm. Without
    ``version``, the next free one is used. With ``unconditional``, a name, the variant that draws
    its labels is exported. With ``repository``, the same version is added to that Triton model
    repository. Raises ``ExportError`` if the version exists, weights are not finite, or ONNX
    Runtime and PyTorch disagree.
    """
    if run.config.clusters is not None:
        unconditional = run.config.name
    if unconditional is not None:
        run.check_marginal(unconditional)
    name = run.config.name if unconditional is None else unconditional
    versions = folder / name
    targets = [versions] if repository is None else [versions, repository / name]
    version = version or max(map(next_version, targets))
    target = versions / str(version)
    for parent in targets:
        if (parent / str(version)).exists():
            raise ExportError(f"{parent / str(version)} exists already: use another --version")

    if not all(bool(parameter.isfinite().all()) for parameter in generator.parameters()):
        raise ExportError(f"{run.folder}: some weights are NaN or infinite: the run has diverged")
    exported: Generator | Marginal = generator
    if unconditional is None:
        manifest = run.manifest(shown)
    else:
        manifest = run.marginal_manifest(shown, unconditional)
        exported = Marginal(generator, generator.latent_size, run.dataset.attributes)
    if repository is not None:
        triton.check(repository, manifest)
    model = to_onnx(exported, manifest)
    check_parity(exported, model, manifest)
    picture = model_card.samples(exported, manifest)
    evaluation = run.evaluation(name)
    report = run.report(shown, name)

    unfinished = versions / f".{version}.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    write_atomically(unfinished / MODEL_FILE, model)
    write_atomically(unfinished / "samples.png", picture)
    for part in EVALUATED if report else ():
        if (path := evaluation / part).exists():
            write_atomically(unfinished / part, path.read_bytes())
    if (
        manifest.recommendation is not None
        and (plan := run.recommendation / RECOMMENDATION).exists()
    ):
        pinned = json.loads(plan.read_bytes()) | {"version": version}
        write_atomically(unfinished / RECOMMENDATION, json.dumps(pinned, indent=2) + "\n")
    card = model_card.text(manifest, version, scores(report) if report else ())
    write_atomically(unfinished / "README.md", card)
    if repository is not None:
        triton.add(repository, manifest, version, model)
    unfinished.replace(target)
    return target


def to_onnx(generator: Generator | Marginal, manifest: Manifest) -> bytes:
    """Content of the model file: inputs ``latent``, ``condition``; output ``image``; manifest."""
    module: nn.Module
    if isinstance(generator, Marginal):
        assert isinstance(generator.generator, Generator)
        module = copy.deepcopy(generator)
        module.generator = _Exported(generator.generator)
    else:
        module = _Exported(generator)
    examples = [torch.zeros(2, generator.latent_size)]
    names = [LATENT]
    if generator.condition_size:
        examples.append(torch.zeros(2, generator.condition_size))
        names.append(CONDITION)
    model = convert(module, examples, names, [IMAGE])
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, manifest.model_dump_json()
    return to_bytes(model)


def check_parity(generator: Generator | Marginal, model: bytes, manifest: Manifest) -> None:
    """Compare ONNX Runtime with PyTorch over 256 latents and every value of every attribute.

    Raises ``ExportError`` if a byte differs by more than one level, or more than one byte in 10,000
    differs.
    """
    sizes = [len(attribute.values) for attribute in manifest.attributes]
    count = max([PARITY_LATENTS, *sizes])
    latent = latents.latents(0, 0, count, manifest.latent_size)
    values = np.arange(count)[:, None] % np.array(sizes, dtype=np.int64).reshape(1, -1)
    condition = Vocabulary(manifest.attributes, where="").condition(values)

    with torch.no_grad():
        expected = to_uint8(generator(torch.from_numpy(latent), torch.from_numpy(condition)))
    feeds = {LATENT: latent} | ({CONDITION: condition} if sizes else {})
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (images,) = session.run([IMAGE], feeds)
    difference = np.abs(images.astype(int) - expected.numpy().astype(int))
    share = float((difference > 0).mean())
    if difference.max() > 1 or share > PARITY_SHARE:
        raise ExportError(
            f"ONNX Runtime and PyTorch disagree: by up to {difference.max()} of 255, in "
            f"{share:.2e} of the bytes; the limits are 1 and {PARITY_SHARE:.0e}"
        )


class _Exported(nn.Module):
    """Generator for export: batch norm folded into convolutions, output uint8 NHWC."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_FoldedBlock(block) for block in generator.blocks)
        last = generator.to_image
        self.to_image = last.folded() if isinstance(last, SmoothUp) else last
        self.reads_input = generator.reads_input
        self.strength = float(generator.condition_strength)

    def forward(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
        if condition is not None and self.strength != 1:
            condition = condition * self.strength
        x = latent
        if condition is not None and self.reads_input:
            x = torch.cat([latent, condition], dim=1)
        x = x[:, :, None, None]
        for block in self.blocks:
            x = block(x, condition)
        return to_uint8(torch.tanh(self.to_image(x)))


class _FoldedBlock(nn.Module):
    """Block of the generator with its batch norm folded into its convolution."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        norm = block.norm
        self.conditional: ConditionalBatchNorm | None = None
        if isinstance(norm, ConditionalBatchNorm):
            self.conditional, norm = norm, norm.norm
        self.convolution = fuse_conv_bn_eval(block.convolution, norm, transpose=True)
        self.activation: nn.Module = block.activation

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        x = self.convolution(x)
        if self.conditional is not None and condition is not None:
            x = self.conditional.modulate(x, condition)
        return self.activation(x)


def next_version(versions: Path) -> int:
    taken = [int(path.name) for path in versions.glob("*") if path.name.isdecimal()]
    return max(taken, default=0) + 1
