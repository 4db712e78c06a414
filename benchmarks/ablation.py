"""Ablation: train one network with one change of options at a time, and score each run.

    python -m benchmarks.ablation --data anime-faces-64.zip --out runs/ablation

Each run is shown as many images as the base, with the same seed. Finished runs are skipped, so the
command can be stopped and repeated, and several processes can share one folder. Prints the table
at the end; with ``--table``, only the table.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import click
import torch

from service.core.atomic_write import write_atomically
from training.config import TrainingConfig
from training.core.randomness import batch_indices
from training.data import Dataset, load
from training.evaluation import features
from training.evaluation.metrics.frechet import frechet_distance
from training.evaluation.metrics.manifold import compare
from training.evaluation.snapshot_scores import Scorer
from training.loop.trainer import Trainer
from training.plots import grids
from training.runs import sampling
from training.runs.run import DatasetDescription

BASE: dict[str, Any] = {
    "mirror": True,
    "width": 32,
    "batch": 64,
    "lr": 4e-4,
    "lr_hold": 0.5,
    "ema_halflife_kimg": 5,
}
AUGMENT = {"augment": "translation,cutout"}
DEVIATION = {"minibatch": "stddev"}
PROJECTION = {"d_condition": "projection"}
SPECTRAL = {"d_norm": "spectral"}
BARE = {"d_norm": "none"}
CHANGES: dict[str, dict[str, Any]] = {
    "base": {},
    "lr 2e-4": {"lr": 2e-4},
    "lr 8e-4": {"lr": 8e-4},
    "lr 2e-4, discriminator 4e-4": {"lr": 2e-4, "d_lr": 4e-4},
    "no decay of the rate": {"lr_hold": 1.0},
    "beta1 0": {"beta1": 0.0},
    "batch 128": {"batch": 128},
    "no average": {"ema_halflife_kimg": 0},
    "float32": {"precision": "float32"},
    "spectral norm": SPECTRAL,
    "no norm": BARE,
    "no norm, R1 0.1": BARE | {"r1_gamma": 0.1},
    "no norm, R1 1": BARE | {"r1_gamma": 1.0},
    "spectral norm, R1 0.1": SPECTRAL | {"r1_gamma": 0.1},
    "labels: as input maps": {"d_condition": "input", "label_weight": 0.0},
    "labels: head alone": {"d_condition": "none", "mismatched_weight": 0.0},
    "labels: projection": PROJECTION,
    "labels: in the generator's norms": {"g_condition": "norm"},
    "labels: norms and projection, no head": {
        "g_condition": "norm",
        "d_condition": "projection",
        "label_weight": 0.0,
    },
    "no head": {"label_weight": 0.0},
    "no wrong labels": {"mismatched_weight": 0.0},
    "no head, no wrong labels": {"label_weight": 0.0, "mismatched_weight": 0.0},
    "head 0.2": {"label_weight": 0.2},
    "label dropout 0.1": {"label_dropout": 0.1},
    "labels fade in": {"label_ramp_kimg": 20.0},
    "augment translation": {"augment": "translation"},
    "augment translation,cutout": AUGMENT,
    "minibatch deviation": DEVIATION,
    "minibatch discrimination": {"minibatch": "discrimination"},
    "hinge": {"loss": "hinge"},
    "least squares": {"loss": "least-squares"},
    "relativistic, no norm, R1 and R2 0.1": BARE
    | {"loss": "relativistic", "r1_gamma": 0.1, "r2_gamma": 0.1},
    "WGAN-GP, no norm": BARE | {"loss": "wgan-gp"},
    # Combinations of changes that helped.
    "augment, minibatch deviation": AUGMENT | DEVIATION,
    "projection, augment": PROJECTION | AUGMENT,
    "projection, augment, lr 8e-4": PROJECTION | AUGMENT | {"lr": 8e-4},
    "projection, augment, head 0.2": PROJECTION | AUGMENT | {"label_weight": 0.2},
    "projection, augment, no wrong labels": PROJECTION | AUGMENT | {"mismatched_weight": 0.0},
    "projection, augment, minibatch deviation": PROJECTION | AUGMENT | DEVIATION,
}
CPU = torch.device("cpu")
GRID = 64
COLUMNS = ("frechet", "precision", "recall", "coverage", "labels_right")


@click.command()
@click.option("--data", required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--kimg", type=float, default=60, show_default=True)
@click.option("--seeds", default="0", show_default=True, help="Such as '0,1,2'.")
@click.option("--only", multiple=True, help="Name of a change; can be repeated.")
@click.option("--table", is_flag=True, help="Only print the table.")
def main(data: str, out: Path, kimg: float, seeds: str, only: tuple[str, ...], table: bool) -> None:
    """Ablate on DATA, a labelled set."""
    if not table:
        _run(data, out, kimg, [int(seed) for seed in seeds.split(",")], only or tuple(CHANGES))
    print("\n".join(_table(out)))


def _run(data: str, out: Path, kimg: float, seeds: list[int], names: tuple[str, ...]) -> None:
    dataset = load(data)
    trained, held_out = dataset.split(0.1)
    network = features.load_or_train(out / "features.safetensors", trained, mirror=True, device=CPU)
    scorer = Scorer(held_out, network, ("translation", "cutout"))
    _floor(out, trained, scorer)
    for seed in seeds:
        for name in names:
            target = out / f"{seed}" / f"{name}.json"
            if _claim(target):
                options = BASE | CHANGES[name] | {"kimg": kimg, "seed": seed}
                config = TrainingConfig(data=data, name="ablation", **options)
                result = _measure(config, dataset, trained, scorer, target)
                write_atomically(target, json.dumps(result, indent=2) + "\n")
                print(name, seed, result, flush=True)


def _claim(target: Path) -> bool:
    """Claim a run; return False if it is done or another process runs it."""
    if target.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    claim = target.with_suffix(".claim")
    try:
        with claim.open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        if Path(f"/proc/{claim.read_text()}").exists():
            return False
        write_atomically(claim, str(os.getpid()))  # left by a process that was stopped
    return True


def _measure(
    config: TrainingConfig, dataset: Dataset, trained: Dataset, scorer: Scorer, target: Path
) -> dict[str, Any]:
    trainer = Trainer(config, DatasetDescription.of(dataset, "unknown"))
    images, labels = torch.from_numpy(trained.images), torch.from_numpy(trained.labels)
    began = time.process_time()
    while trainer.shown < config.kimg * 1000:
        trainer.step(images, labels)
    seconds = time.process_time() - began
    if not trainer.is_finite():
        return {"diverged": True}
    trainer.recalibrate_batch_norm()
    grid = grids.grid(sampling.fixed_samples(trainer.ema, dataset.attributes, GRID))
    write_atomically(target.with_suffix(".png"), grid)
    trainer.save(target.with_suffix(".safetensors"))
    return {
        "shown": trainer.shown,
        "images_per_cpu_second": round(trainer.shown / seconds, 1),
    } | scorer.measure(trainer.ema).line()


def _floor(out: Path, trained: Dataset, scorer: Scorer) -> None:
    """Score real training images as if they were samples."""
    target = out / "floor.json"
    if target.exists():
        return
    chosen = batch_indices(0, len(trained), 0, scorer.count, CPU)
    found = scorer.network.features(torch.from_numpy(trained.images)[chosen])
    labels = torch.from_numpy(trained.labels)[chosen]
    compared = compare(scorer.real, found)
    right = scorer.network.read(found) == labels
    line = {
        "frechet": frechet_distance(scorer.real, found),
        "labels_right": float(right.all(dim=1).float().mean()),
    }
    write_atomically(target, json.dumps(line | compared._asdict(), indent=2) + "\n")


def _table(out: Path) -> Iterator[str]:
    """Markdown table: means over the seeds, and the range of the Frechet distance."""
    yield f"| change | seeds | {' | '.join(COLUMNS)} | images per CPU second |"
    yield "| --- |" + " --- |" * (len(COLUMNS) + 2)
    if (out / "floor.json").exists():
        floor = json.loads((out / "floor.json").read_text())
        yield f"| (real images) | | {' | '.join(f'{floor[c]:.3g}' for c in COLUMNS)} | |"
    for name in CHANGES:
        results = [json.loads(path.read_text()) for path in sorted(out.glob(f"*/{name}.json"))]
        if not results:
            continue
        if any("diverged" in result for result in results):
            yield f"| {name} | {len(results)} | diverged" + " |" * (len(COLUMNS) + 1)
            continue
        cells = [f"{mean(result[column] for result in results):.3g}" for column in COLUMNS]
        if len(results) > 1:
            distances = [result["frechet"] for result in results]
            cells[0] += f" ({min(distances):.3g} to {max(distances):.3g})"
        rate = mean(result["images_per_cpu_second"] for result in results)
        yield f"| {name} | {len(results)} | {' | '.join(cells)} | {rate:.0f} |"


if __name__ == "__main__":
    main()
