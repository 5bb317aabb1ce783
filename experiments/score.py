"""Scores how hard each training example is, from finished runs.

python -m experiments.score --runs=runs/seed0,runs/seed1 --output=runs/scores.npz

A run whose config has `batch.scores` set to the file can take examples in from easy to hard.
"""

import pathlib

import numpy as np
from absl import flags

from experiments import command
from experiments.config import settings
from experiments.config.datasets import given_labels
from experiments.run import changes, config_json, data_json
from triplet_jax import data, errors
from triplet_jax.curricula import difficulty

RUNS = flags.DEFINE_list("runs", [], "Folders of the reference runs, with commas between.")
GROUPS = flags.DEFINE_integer("groups", 10, "Groups that confusable classes are put into.")


def main() -> None:
    output = command.file_to_write(command.OUTPUT, ".npz")
    if not RUNS.value:
        raise errors.InputError("--runs is missing: the folders of finished runs.")
    if GROUPS.value < 1:
        raise errors.InputError(f"--groups={GROUPS.value} must be at least 1.")
    scored, datasets = [], set()
    for folder in RUNS.value:
        workdir = pathlib.Path(folder).absolute()
        config = config_json.read(workdir)
        everything = data_json.open_data(workdir, config, command.DATA.value)
        fields = {n: v for n, v in settings.flat(config).items() if n.startswith("dataset.")}
        fixed = [(n, v) for n, v in fields.items() if changes.kind(n) == changes.TRAINING]
        datasets.add((str(fixed), data.fingerprint(everything)))
        if len(datasets) > 1:
            raise errors.InputError(
                f"--runs={','.join(RUNS.value)} are of different data sets, or splits, or label"
                " noise: their dataset.* fields differ."
            )
        scored.append(score(workdir, config, everything))
    together = difficulty.Scores(
        np.mean([s.difficulty for s in scored], axis=0).astype(np.float32), scored[0].groups
    )
    difficulty.write(output, together, everything)
    quartiles = ", ".join(f"{q:.3f}" for q in np.quantile(together.difficulty, (0.25, 0.5, 0.75)))
    print(
        f"{len(together.difficulty):,} training examples by {len(scored)} runs; quartiles of"
        f" 1 - R-precision: {quartiles}; written to {output}"
    )


def score(workdir: pathlib.Path, config, everything: data.Dataset) -> difficulty.Scores:
    """Of one run: its training examples among each other, with the labels it was given.

    Raises:
      InputError: the run has no embeddings.
    """
    embeddings = data_json.embeddings(workdir, everything)[everything.split == "train"]
    labels = given_labels(config, everything.only("train"))
    return difficulty.Scores(
        1.0 - difficulty.r_precision(embeddings, labels),
        difficulty.confusable(embeddings, labels, groups=GROUPS.value),
    )


if __name__ == "__main__":
    command.run(main)
