"""Scores how hard each training example is, from finished runs.

    python -m experiments.score --runs=runs/seed0,runs/seed1 --output=runs/scores.npz

A run whose config has `batch.scores` set to the file can take examples in from easy to hard, or
batches of the classes that it has yet to learn and the first of these runs had learnt.
"""

import pathlib

import numpy as np
from absl import flags

from experiments import command
from experiments.run import example_difficulty
from triplet_jax import errors
from triplet_jax.curricula import difficulty

RUNS = flags.DEFINE_list("runs", [], "Folders of the reference runs, with commas between.")
GROUPS = flags.DEFINE_integer("groups", 10, "Groups that confusable classes are put into.")


def main() -> None:
    output = command.file_to_write(command.OUTPUT, ".npz")
    if not RUNS.value:
        raise errors.InputError("--runs is missing: the folders of finished runs.")
    if GROUPS.value < 1:
        raise errors.InputError(f"--groups={GROUPS.value} must be at least 1.")
    workdirs = [pathlib.Path(folder).absolute() for folder in RUNS.value]
    scores, everything = example_difficulty.of_runs(
        workdirs, groups=GROUPS.value, moved_to=command.DATA.value
    )
    difficulty.write(output, scores, everything)
    quartiles = ", ".join(f"{q:.3f}" for q in np.quantile(scores.difficulty, (0.25, 0.5, 0.75)))
    by = "1 run" if len(workdirs) == 1 else f"{len(workdirs)} runs"
    print(
        f"{len(scores.difficulty):,} training examples by {by}; quartiles of"
        f" 1 - R-precision: {quartiles}; written to {output}"
    )


if __name__ == "__main__":
    command.run(main, takes=(command.DATA, command.OUTPUT))
