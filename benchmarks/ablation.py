"""Effect of each training option: runs that differ from a base by one change, scored alike.

    python -m benchmarks.ablation --data anime-faces-64.zip --out runs/ablation

Needs a labelled dataset; a run of 50 kimg takes about five minutes of a core, and all changes
several hours. Each run is shown as many images as the base, with the same seed. Finished runs are
skipped, so the command can be stopped and repeated, and several processes can share one folder.
Prints the table at the end; with ``--table``, only the table.
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
"""Options that all runs share, unless their change differs."""
AUGMENT = {"augment": "translation,cutout"}
DEVIATION = {"minibatch": "stddev"}
PROJECTION = {"d_condition": "projection"}
SPECTRAL = {"d_norm": "spectral"}
NO_NORM = {"d_norm": "none"}
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
    "no norm": NO_NORM,
    "no norm, R1 0.1": NO_NORM | {"r1_gamma": 0.1},
    "no norm, R1 1": NO_NORM | {"r1_gamma": 1.0},
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
    "relativistic, no norm, R1 and R2 0.1": NO_NORM
    | {"loss": "relativistic", "r1_gamma": 0.1, "r2_gamma": 0.1},
    "WGAN-GP, no norm": NO_NORM | {"loss": "wgan-gp"},
    # Combinations of changes that helped.
    "augment, minibatch deviation": AUGMENT | DEVIATION,
    "projection, augment": PROJECTION | AUGMENT,
    "projection, augment, lr 8e-4": PROJECTION | AUGMENT | {"lr": 8e-4},
    "projection, augment, head 0.2": PROJECTION | AUGMENT | {"label_weight": 0.2},
    "projection, augment, no wrong labels": PROJECTION | AUGMENT | {"mismatched_weight": 0.0},
    "projection, augment, minibatch deviation": PROJECTION | AUGMENT | DEVIATION,
}
"""Options that differ from ``BASE``, by the name of the change."""
CPU = torch.device("cpu")
GRID_IMAGES = 64
HELD_OUT_SHARE = 0.1
"""Share of the dataset that samples are compared with, and that no run is trained on."""
COLUMNS = ("frechet", "precision", "recall", "coverage", "labels_right")


@click.command()
@click.option("--data", required=True, help="Labelled dataset, as for training.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the results."
)
@click.option(
    "--kimg", type=float, default=60, show_default=True, help="Thousand images shown to each run."
)
@click.option("--seeds", default="0", show_default=True, help="Seeds, such as '0,1,2'.")
@click.option("--only", multiple=True, help="Name of a change; can be repeated.")
@click.option("--table", is_flag=True, help="Only print the table.")
def main(data: str, out: Path, kimg: float, seeds: str, only: tuple[str, ...], table: bool) -> None:
    """Train and score one run for each change of options."""
    if not table:
        _run_all(data, out, kimg, [int(seed) for seed in seeds.split(",")], only or tuple(CHANGES))
    print("\n".join(_table(out)))


def _run_all(data: str, out: Path, kimg: float, seeds: list[int], names: tuple[str, ...]) -> None:
    dataset = load(data)
    trained, held_out = dataset.split(HELD_OUT_SHARE)
    network = features.load_or_train(out / "features.safetensors", trained, mirror=True, device=CPU)
    scorer = Scorer(held_out, network, ("translation", "cutout"))
    _score_real_images(out, trained, scorer)
    for seed in seeds:
        for name in names:
            path = out / f"{seed}" / f"{name}.json"
            if _claim(path):
                options = BASE | CHANGES[name] | {"kimg": kimg, "seed": seed}
                config = TrainingConfig(data=data, name="ablation", **options)
                result = _train_and_score(config, dataset, trained, scorer, path)
                write_atomically(path, json.dumps(result, indent=2) + "\n")
                print(name, seed, result, flush=True)


def _claim(path: Path) -> bool:
    """Claim the run of a result file; return False if it is done or another process runs it."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    claim = path.with_suffix(".claim")
    try:
        with claim.open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        if Path(f"/proc/{claim.read_text()}").exists():
            return False
        write_atomically(claim, str(os.getpid()))  # its owner was stopped
    return True


def _train_and_score(
    config: TrainingConfig, dataset: Dataset, trained: Dataset, scorer: Scorer, path: Path
) -> dict[str, Any]:
    """Train one run, write a grid and a snapshot beside ``path``, and return the scores."""
    trainer = Trainer(config, DatasetDescription.of(dataset, "unknown"))
    images, labels = torch.from_numpy(trained.images), torch.from_numpy(trained.labels)
    started = time.process_time()
    while trainer.shown < config.kimg * 1000:
        trainer.step(images, labels)
    cpu_seconds = time.process_time() - started
    if not trainer.is_finite():
        return {"diverged": True}
    trainer.recalibrate_batch_norm()
    grid = grids.grid(sampling.fixed_samples(trainer.ema, dataset.attributes, GRID_IMAGES))
    write_atomically(path.with_suffix(".png"), grid)
    trainer.save(path.with_suffix(".safetensors"))
    return {
        "shown": trainer.shown,
        "images_per_cpu_second": round(trainer.shown / cpu_seconds, 1),
    } | scorer.measure(trainer.ema).line()


def _score_real_images(out: Path, trained: Dataset, scorer: Scorer) -> None:
    """Score real training images like samples: the best that a generator could reach."""
    path = out / "floor.json"
    if path.exists():
        return
    indices = batch_indices(0, len(trained), 0, scorer.count, CPU)
    real_features = scorer.network.features(torch.from_numpy(trained.images)[indices])
    labels = torch.from_numpy(trained.labels)[indices]
    right = scorer.network.read(real_features) == labels
    scores = {
        "frechet": frechet_distance(scorer.real, real_features),
        "labels_right": float(right.all(dim=1).float().mean()),
    }
    manifold = compare(scorer.real, real_features)
    write_atomically(path, json.dumps(scores | manifold._asdict(), indent=2) + "\n")


def _table(out: Path) -> Iterator[str]:
    """Lines of a Markdown table: means over the seeds, and the range of the Frechet distance."""
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
