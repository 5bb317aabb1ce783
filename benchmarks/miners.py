"""Every miner and penalty on handwritten digits: MAP@R over paired seeds.

    python -m benchmarks.miners --workdir=runs/miners

Trains each variant of configs/digits.py with the same seeds, hence the same initial weights
and the same batches, and writes the table of docs/miners.md. Runs that are done are kept, so
the same command goes on where it was stopped.
"""

import argparse
import json
import math
import pathlib

import jax
import ml_collections
import numpy as np
import scipy.stats

from configs import base, digits
from experiments import build, command, train
from triplet_jax import health, logging

METRICS = {"map_at_r": "MAP@R", "precision_at_1": "P@1"}


def run(variant: str, seed: int, steps: int, workdir: pathlib.Path) -> dict:
    """The scores of one run on the test split, and whether the embedding collapsed."""
    config = digits.get_config(variant)
    config.seed, config.train.steps, config.evaluate.every = seed, steps, steps
    workdir = command.make_workdir(str(workdir / f"{variant}-{seed}"))
    if not (workdir / "result.json").exists():
        train.train(ml_collections.FrozenConfigDict(config), workdir)
        jax.clear_caches()  # programs of many variants would fill the memory
    scores = json.loads((workdir / "result.json").read_text())["embedding"]["retrieval"]
    rows = [row for row in logging.read_rows(workdir / "metrics.jsonl") if "loss" in row]
    collapsed = health.collapse(rows, level=build.collapsed_loss(config)) is not None
    return {name: scores[name] for name in METRICS} | {"collapsed": collapsed}


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of the 95% interval, by Student's t."""
    spread = np.std(values, ddof=1) / math.sqrt(len(values))
    return float(np.mean(values)), float(spread * scipy.stats.t.ppf(0.975, len(values) - 1))


def table(found: dict[str, list[dict]], reference: str) -> str:
    """Markdown, best first, with the paired difference to the reference."""
    lines = [
        f"| variant | MAP@R | minus {reference} | P@1 | collapsed |",
        "| --- | --- | --- | --- | --- |",
    ]
    order = sorted(found, key=lambda v: -np.mean([r["map_at_r"] for r in found[v]]))
    for variant in order:
        runs = found[variant]
        cells = [interval([r[name] for r in runs]) for name in METRICS]
        pairs = zip(runs, found[reference], strict=True)
        difference = interval([a["map_at_r"] - b["map_at_r"] for a, b in pairs])
        collapsed = sum(r["collapsed"] for r in runs)
        lines.append(
            f"| {variant} | {cells[0][0]:.3f} ± {cells[0][1]:.3f} |"
            f" {'' if variant == reference else f'{difference[0]:+.3f} ± {difference[1]:.3f}'} |"
            f" {cells[1][0]:.3f} ± {cells[1][1]:.3f} |"
            f" {f'{collapsed} of {len(runs)}' if collapsed else ''} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--variants", nargs="*", default=sorted(base.VARIANTS))
    parser.add_argument("--reference", default="semi_hard")
    options = parser.parse_args()
    command.use_compilation_cache()
    found = {
        variant: [
            run(variant, seed, options.steps, options.workdir) for seed in range(options.seeds)
        ]
        for variant in options.variants
    }
    print(table(found, options.reference))


if __name__ == "__main__":
    main()
