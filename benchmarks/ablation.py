"""Effect of each training option: successive halving over runs that differ by one change.

    python -m benchmarks.ablation --data anime-faces-64.zip --out runs/ablation \\
        --rung 100:20 --rung 300:8 --rung 800:3

A rung trains the best recipes of the rung before, each from the beginning to a length in thousand
images, so that the learning rate falls within it; the first rung takes the first of ``RECIPES``,
and each later one those whose last snapshots have the least faults (``Run.best_shown``). Needs a
labelled dataset, and hours. One thread, at the lowest priority. Runs are ordinary run folders,
``OUT/KIMG/RECIPE-SEED``; the command can be stopped and repeated. Prints the table at the end; with
``--table``, only the table.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import click
import torch

from service.core.atomic_write import write_atomically
from training.config import TrainingConfig
from training.data import Dataset, load
from training.errors import Diverged
from training.evaluation import features
from training.evaluation.snapshot_scores import Scorer
from training.loop.loop import train
from training.loop.trainer import Trainer
from training.presets import PRESETS
from training.runs.ranking import faults
from training.runs.run import DatasetDescription, Run

BASE: dict[str, Any] = PRESETS["faces"] | {"width": 32, "snapshot_kimg": 25}
"""Options that all runs share, unless their recipe differs."""
CHAIN = {"d_norm": "chain"}
LECAM = {"lecam_weight": 0.1}
DETAIL = {"last_block": "detail"}
RECIPES: dict[str, dict[str, Any]] = {
    "base": {},
    "detail": DETAIL,
    "nearest": {"last_block": "nearest"},
    "soft": {"last_block": "soft"},
    "blurred": {"last_block": "blurred"},
    "band": {"d_band": True},
    "wide": {"d_width": 48},
    "lecam": LECAM,
    "chain": CHAIN,
    "spectral": {"d_norm": "spectral"},
    "chain-lecam": CHAIN | LECAM,
    "chain-hinge-lecam": CHAIN | {"loss": "hinge", "lecam_weight": 0.3, "lr": 2e-4, "d_lr": 4e-4},
    "adaptive": {"augment_target": 0.6, "augment_probability": 0.85},
    "geometric": {"augment": "geometric,noise"},
    "consistency": {"consistency_real": 10},
    "fading-head": {"label_weight_end": 0.02},
    "averages": {"ema_sigmas": (0.05, 0.1)},
    "detail-band": DETAIL | {"d_band": True},
    "wide-lecam": {"d_width": 48} | LECAM,
}
"""Options that differ from ``BASE``, by the name of the recipe, in order of expected value."""
CPU = torch.device("cpu")
TIMED_STEPS = 8
SHARES = ("frechet", "precision", "recall", "coverage", "labels_right")
COLUMNS = (*SHARES, "pyramid_64", "pyramid_32", "pyramid_16", "fine", "hatch")


@click.command()
@click.option("--data", required=True, help="Labelled dataset, as for training.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the results."
)
@click.option(
    "--rung",
    "rungs",
    multiple=True,
    default=("100:99",),
    show_default=True,
    help="Length in kimg and number of recipes, such as 300:8; can be repeated.",
)
@click.option("--seeds", default="0", show_default=True, help="Seeds, such as '0,1,2'.")
@click.option("--only", multiple=True, help="Name of a recipe of the first rung; can be repeated.")
@click.option("--table", is_flag=True, help="Only print the table.")
def main(
    data: str, out: Path, rungs: Sequence[str], seeds: str, only: tuple[str, ...], table: bool
) -> None:
    """Train and score the recipes, rung by rung."""
    steps = [tuple(map(int, rung.split(":"))) for rung in rungs]
    if not table:
        os.nice(19)
        torch.set_num_threads(1)
        dataset = load(data)
        _score_real_images(out, dataset)
        names = list(only or RECIPES)
        for kimg, count in steps:
            for name in names[:count]:
                for seed in map(int, seeds.split(",")):
                    _run(data, out, dataset, kimg, name, seed)
            names.sort(key=lambda name: _score(out, kimg, name))
    for kimg, _ in steps:
        print("\n".join(_table(out, kimg)))


def _run(data: str, out: Path, dataset: Dataset, kimg: int, name: str, seed: int) -> None:
    """Start or continue a run; nothing if it is finished."""
    folder = out / f"{kimg}" / f"{name}-{seed}"
    if not folder.exists():
        options = BASE | RECIPES[name] | {"kimg": kimg, "seed": seed}
        config = TrainingConfig(data=data, name=name, **options)
        run = Run.plan(folder, config, DatasetDescription.of(dataset, "unknown"))
        run.create()
        shutil.copy(out / "features.safetensors", run.features)
        write_atomically(folder / "speed.json", json.dumps(_images_per_cpu_second(run, dataset)))
    run = Run.open(folder)
    if _last(run).get("shown", 0) < kimg * 1000 and not (folder / "verdict.txt").exists():
        print(f"{folder} ...", flush=True)
        try:
            train(run, dataset, stop_on_failure=False)
        except Diverged as error:
            print(error, flush=True)


def _images_per_cpu_second(run: Run, dataset: Dataset) -> float:
    trainer = Trainer(run.config, run.dataset)
    images, labels = torch.from_numpy(dataset.images), torch.from_numpy(dataset.labels)
    trainer.step(images, labels)
    started = time.process_time()
    for _ in range(TIMED_STEPS):
        trainer.step(images, labels)
    return TIMED_STEPS * run.config.batch / (time.process_time() - started)


def _last(run: Run) -> dict[str, Any]:
    return (run.scores.lines() or [{}])[-1]


def _results(out: Path, kimg: int, name: str) -> list[dict[str, Any]]:
    """Scores of the last snapshots, with the speed, of every seed that is finished."""
    results = []
    for folder in sorted((out / f"{kimg}").glob(f"{name}-[0-9]*")):
        line = _last(Run.open(folder))
        if line.get("shown", 0) >= kimg * 1000:
            results.append(line | {"speed": json.loads((folder / "speed.json").read_text())})
    return results


def _score(out: Path, kimg: int, name: str) -> float:
    """Mean faults over the seeds; infinite for a recipe that was not run, or diverged."""
    results = _results(out, kimg, name)
    return fmean(map(faults, results)) if results else float("inf")


def _score_real_images(out: Path, dataset: Dataset) -> None:
    """Train the features, and score real training images like samples: the best value possible."""
    path = out / "real.json"
    if path.exists():
        return
    trained, held_out = dataset.split(0.1)
    network = features.load_or_train(out / "features.safetensors", trained, mirror=True, device=CPU)
    scores = Scorer(held_out, network, (), trained).reference(trained).line()
    write_atomically(path, json.dumps(scores, indent=2) + "\n")


def _table(out: Path, kimg: int) -> Iterator[str]:
    """Lines of a Markdown table: means over the seeds, and the range of the Frechet distance."""
    yield f"| {kimg} kimg | seeds | {' | '.join(COLUMNS)} | images per CPU second |"
    yield "| --- |" + " --- |" * (len(COLUMNS) + 2)
    real = json.loads((out / "real.json").read_text())
    yield f"| (real images) | | {' | '.join(f'{real[c]:.3g}' for c in COLUMNS)} | |"
    for name in sorted(RECIPES, key=lambda name: _score(out, kimg, name)):
        if results := _results(out, kimg, name):
            cells = [f"{fmean(result[column] for result in results):.3g}" for column in COLUMNS]
            if len(results) > 1:
                distances = [result["frechet"] for result in results]
                cells[0] += f" ({min(distances):.3g} to {max(distances):.3g})"
            rate = fmean(result["speed"] for result in results)
            yield f"| {name} | {len(results)} | {' | '.join(cells)} | {rate:.0f} |"


if __name__ == "__main__":
    main()
