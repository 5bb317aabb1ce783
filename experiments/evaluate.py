"""Evaluates a run on its test split, or embeddings that are in files.

    python -m experiments.evaluate --workdir=runs/digits
    python -m experiments.evaluate --embeddings=ours.npz,theirs.npz --output=scores.json

A run is evaluated by its best checkpoint or, as its config says, its last. Several processes share
the work where each can read the folder; start them as those of `experiments.train`.

A file of embeddings is an .npz with `embeddings` and `labels`, of any library, and may say which
rows are queries and which are references: see `triplet_jax.evaluation.embedding_files.read`.
"""

import pathlib

from absl import flags

from experiments import command
from experiments.run import evaluating, file_scores
from triplet_jax import errors

EMBEDDINGS = flags.DEFINE_list(
    "embeddings", None, "Files of embeddings to evaluate, each beside the first: A.npz,B.npz."
)
SPLIT = flags.DEFINE_string("split", "test", "The rows to evaluate, where a file has splits.")


def main() -> None:
    if EMBEDDINGS.value:
        _evaluate_files()
        return
    workdir = command.required(
        command.WORKDIR, "the folder of a trained run, or give --embeddings=FILE.npz"
    )
    if command.OUTPUT.value:
        raise errors.InputError("--output goes with --embeddings: a run has its result.json.")
    command.start_processes()
    evaluating.evaluate_folder(pathlib.Path(workdir).absolute(), command.DATA.value)


def _evaluate_files():
    if command.WORKDIR.value or command.DATA.value or command.COORDINATOR.value:
        raise errors.InputError(
            "--embeddings evaluates files, in one process: leave out --workdir, --data and"
            " --coordinator."
        )
    output = command.file_to_write(command.OUTPUT, ".json") if command.OUTPUT.value else None
    file_scores.evaluate_files(EMBEDDINGS.value, SPLIT.value, output)


if __name__ == "__main__":
    command.run(main, of_several=True)
