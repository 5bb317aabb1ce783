"""Evaluates a run on its test split, or embeddings that are in files.

    python -m experiments.evaluate --workdir=runs/digits
    python -m experiments.evaluate --embeddings=ours.npz,theirs.npz --output=scores.json

A run is evaluated by its best checkpoint or, as its config says, its last. Several processes share
the work where each can read the folder; start them as those of `experiments.train`.

A file of embeddings is an .npz with `embeddings` and `labels`, or a .parquet file, of any library,
and may say which rows are queries and which are references: docs/experiments.md has their form. A
table says it of files that hold embeddings alone:

    python -m experiments.evaluate --embeddings=ours.npz --table=labels.csv --rerank=20,6,0.3

The pairs of Labeled Faces in the Wild judge a run on its images, or files whose rows have names:

    python -m experiments.evaluate --workdir=runs/faces --pairs=pairs.txt --pairs_root=lfw
"""

import pathlib

from absl import flags

from experiments import command
from experiments.run import evaluating, file_scores, pair_scores, rankings
from triplet_jax import errors

EMBEDDINGS = flags.DEFINE_list(
    "embeddings", None, "Files of embeddings to evaluate, each beside the first: A.npz,B.npz."
)
TABLE = flags.DEFINE_string(
    "table", None, "A .csv, .tsv or .parquet file with labels, groups or roles of the rows."
)
SPLIT = flags.DEFINE_string("split", "test", "The rows to evaluate, where a file has splits.")


IGNORE = flags.DEFINE_list(
    "ignore",
    None,
    "Columns of --table: a query leaves out the references of its label that agree with it in each;"
    " A=B compares column A of the query with column B of the reference.",
)
ITEMS = flags.DEFINE_enum(
    "items", None, rankings.ITEMS, "Ranks items of several rows: by their mean or nearest rows."
)
EXPAND = flags.DEFINE_list(
    "expand_queries",
    None,
    "Moves queries towards their COUNT nearest references: COUNT, or COUNT,ALPHA to weigh them.",
)
RERANK = flags.DEFINE_list(
    "rerank", None, "Re-ranks by k-reciprocal neighbours: K1,K2,WEIGHT, in the paper 20,6,0.3."
)
PAIRS = flags.DEFINE_string(
    "pairs", None, "The file pairs.txt of Labeled Faces in the Wild, by which pairs are judged."
)
PAIRS_ROOT = flags.DEFINE_string("pairs_root", None, "The folder of the images of --pairs.")
OF_FILES = (TABLE, IGNORE, ITEMS, EXPAND, RERANK)


def main() -> None:
    if PAIRS.value:
        _evaluate_pairs()
        return
    if PAIRS_ROOT.value:
        raise errors.InputError("--pairs_root goes with --pairs.")
    if EMBEDDINGS.value:
        _evaluate_files()
        return
    workdir = command.required(
        command.WORKDIR, "the folder of a trained run, or give --embeddings=FILE.npz"
    )
    if command.OUTPUT.value:
        raise errors.InputError("--output goes with --embeddings: a run has its result.json.")
    for flag in (*OF_FILES, SPLIT):
        if flag.present:
            raise errors.InputError(
                f"--{flag.name} goes with --embeddings: evaluate the run's embeddings.npz."
            )
    command.start_processes()
    evaluating.evaluate_folder(pathlib.Path(workdir).absolute(), command.DATA.value)


def _evaluate_pairs():
    for flag in (*OF_FILES, SPLIT, command.DATA, command.COORDINATOR):
        if flag.present:
            raise errors.InputError(f"--{flag.name} does not go with --pairs: leave it out.")
    output = command.file_to_write(command.OUTPUT, ".json") if command.OUTPUT.value else None
    if EMBEDDINGS.value and not (command.WORKDIR.value or PAIRS_ROOT.value):
        pair_scores.evaluate_files(EMBEDDINGS.value, PAIRS.value, output)
        return
    if EMBEDDINGS.value:
        raise errors.InputError("--embeddings with --pairs: leave out --workdir and --pairs_root.")
    workdir = command.required(
        command.WORKDIR, "the folder of a trained run, or give --embeddings=FILE.npz"
    )
    root = command.required(PAIRS_ROOT, "the folder of the images of --pairs")
    pair_scores.evaluate_run(pathlib.Path(workdir).absolute(), PAIRS.value, root, output)


def _evaluate_files():
    if command.WORKDIR.value or command.DATA.value or command.COORDINATOR.value:
        raise errors.InputError(
            "--embeddings evaluates files, in one process: leave out --workdir, --data and"
            " --coordinator."
        )
    output = command.file_to_write(command.OUTPUT, ".json") if command.OUTPUT.value else None
    ranking = rankings.of_flags(ITEMS.value, EXPAND.value, RERANK.value)
    file_scores.evaluate_files(
        EMBEDDINGS.value,
        SPLIT.value,
        output,
        table=TABLE.value or "",
        ignore=IGNORE.value or (),
        ranking=ranking,
    )


if __name__ == "__main__":
    command.run(main, of_several=True, takes=(command.DATA, command.OUTPUT))
