"""Scores a run, or files of embeddings, by the pairs of Labeled Faces in the Wild."""

import pathlib

import numpy as np
import rich.console
import rich.table

from experiments.config import naming
from experiments.run import embedders, evaluating
from triplet_jax import arguments, data, errors, evaluation
from triplet_jax.data.file_names import some
from triplet_jax.evaluation import embedding_arrays
from triplet_jax.runs import files

SHOWN = {
    "accuracy": "accuracy",
    "its standard error": "accuracy_error",
    "ROC AUC": "roc_auc",
    "EER": "eer",
    "TAR at FAR 1e-2": "tar_at_far_1e-2",
    "TAR at FAR 1e-3": "tar_at_far_1e-3",
}
# Of 3,000 pairs of two people a smaller share cannot be counted.
RATES = (1e-1, 1e-2, 1e-3)


def evaluate_run(
    workdir: pathlib.Path, pairs_file: str, root: str, output: pathlib.Path | None
) -> dict:
    """Embeds the images of a file of pairs with the encoder of a run, and scores the pairs.

    Args:
      workdir: of the run.
      pairs_file: LFW's pairs.txt.
      root: the folder of the images.
      output: a .json file; None for none.

    Raises:
      InputError: the pairs or the images are not those of LFW, or the run embeds no images.
    """
    pairs = _read(pairs_file, root)
    embedder = embedders.load_embedder(workdir)
    embeddings = embedder([pathlib.Path(root, image) for image in pairs.images])
    of_run = {"checkpoint": f"step {embedder.step}"} | evaluating.copies(embedder.augment)
    return _score({str(workdir): embeddings}, pairs, pairs_file, output, of_run)


def evaluate_files(paths: list[str], pairs_file: str, output: pathlib.Path | None) -> dict:
    """Scores the pairs by embeddings that are in files.

    Args:
      paths: of .npz and .parquet files whose rows have names or paths. An image of the pairs is
        the row whose name ends as that of the image does, such as Ann_0001.jpg; other rows are not
        used.
      pairs_file: LFW's pairs.txt.
      output: a .json file; None for none.

    Raises:
      InputError: a file cannot be read, has no names, or lacks an image of the pairs.
    """
    pairs = _read(pairs_file, "")
    with naming.rewriting(lambda message: errors.renamed(message, {"path": "--embeddings"})):
        found = {path: _of_file(path, pairs.images) for path in paths}
    return _score(found, pairs, pairs_file, output)


def _read(pairs_file, root):
    names = {"path": "--pairs", "root": "--pairs_root"}
    with naming.rewriting(lambda message: errors.renamed(message, names)):
        return data.lfw_pairs(pairs_file, root=root)


def _of_file(path, images):
    """The embeddings of the images, in their order."""
    arrays = embedding_arrays.read(path)
    rows = arguments.embeddings(arrays["embeddings"], name=f"path={path!r}: embeddings")
    if "names" not in arrays:
        raise errors.InputError(
            f"path={path!r} has no names or paths: they say which row is which image of the pairs."
        )
    at: dict[str, list[int]] = {}
    for row, name in enumerate(arrays["names"].tolist()):
        at.setdefault(pathlib.PurePath(str(name)).stem, []).append(row)
    stems = [pathlib.PurePath(image).stem for image in images]
    for many, said in ((0, "lacks"), (2, "has more than one row for")):
        wrong = [stem for stem in stems if min(len(at.get(stem, [])), 2) == many]
        if wrong:
            raise errors.InputError(
                f"path={path!r} {said} {len(wrong)} of {len(stems)} images of the pairs:"
                f" {some(wrong)}."
            )
    return rows[[at[stem][0] for stem in stems]]


def _score(embeddings, pairs, pairs_file, output, more=None):
    scores = {
        name: evaluation.verification_of_pairs(
            x, pairs.pairs, pairs.is_same, folds=pairs.folds, false_accept_rates=RATES
        )
        for name, x in embeddings.items()
    }
    folds = len(np.unique(pairs.folds))
    result = {
        "protocol": {
            "pairs": f"{len(pairs.pairs)} of {pairs_file}, half of them of one person",
            "accuracy": f"of each of {folds} folds, by the threshold that suits the others;"
            " Euclidean",
            "images": f"{len(pairs.images)}",
            **(more or {}),
        },
        "scores": scores,
    }
    if output is not None:
        files.write_json(output, result)
    table = rich.table.Table("", *scores, title=result["protocol"]["pairs"])
    for said, name in SHOWN.items():
        table.add_row(said, *(f"{found[name]:.4f}" for found in scores.values()))
    rich.console.Console().print(table)
    if output is not None:
        print(f"written to {output}")
    return result
