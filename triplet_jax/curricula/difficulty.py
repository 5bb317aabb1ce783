"""The difficulty of training examples, as reference runs see it, for curricula over examples."""

import dataclasses
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from triplet_jax import data, errors, evaluation
from triplet_jax.runs import files


class Scores(NamedTuple):
    """What reference runs say of the training split of a data set."""

    difficulty: Float[np.ndarray, "examples"]
    """1 minus the R-precision of each example: 0 is easy, 1 is hard."""
    groups: Int[np.ndarray, "classes"]
    """The group of each class; the runs confuse classes of one group."""
    embeddings: Float[np.ndarray, "examples dim"] | None = None
    """What the first run makes of each example, for `learnability`; None in older files."""


def r_precision(
    embeddings: Float[np.ndarray, "examples dim"], labels: Int[np.ndarray, "examples"]
) -> Float[np.ndarray, "examples"]:
    """The share of an example's R nearest others that have its label, where R others have it.

    An example that is alone in its class gets 0.
    """
    return np.nan_to_num(evaluation.retrieval_of_queries(embeddings, labels)["r_precision"])


def confusable(
    embeddings: Float[np.ndarray, "examples dim"],
    labels: Int[np.ndarray, "examples"],
    *,
    groups: int,
) -> Int[np.ndarray, "classes"]:
    """Groups classes whose mean embeddings lie near each other, by Ward's clustering.

    Args:
      embeddings: the embedding of every example.
      labels: the class of every example, a number from 0.
      groups: how many groups to make; at most as many as there are classes.

    Returns:
      The group of every class number up to the largest; 0 for numbers that do not occur.
    """
    import sklearn.cluster  # it takes longer to import than all the rest

    present = np.unique(labels)
    centres = np.stack([embeddings[labels == c].mean(axis=0) for c in present])
    found = np.zeros(present.max() + 1, np.int32)
    clusters = sklearn.cluster.AgglomerativeClustering(min(groups, len(present)))
    found[present] = clusters.fit_predict(centres) if len(present) > 1 else 0
    return found


def write(path: pathlib.Path, scores: Scores, everything: data.Dataset) -> None:
    """Saves scores with the fingerprint of their data set."""
    arrays = {name: array for name, array in scores._asdict().items() if array is not None}
    files.write_arrays(path, **arrays, data=data.fingerprint(everything))


def read(path: str, everything: data.Dataset) -> Scores:
    """Reads what `write` saved.

    Args:
      path: the file.
      everything: the data set that the scores must belong to.

    Raises:
      InputError: the file cannot be read, belongs to another data set, or holds no scores.
    """
    names = [name for name in Scores._fields if name not in Scores._field_defaults]
    names += [name for name in Scores._field_defaults if name in files.names_of_arrays(path)]
    *arrays, mark = files.read_arrays(path, [*names, "data"])
    if str(mark) != data.fingerprint(everything):
        raise errors.InputError(
            f"path={path!r} holds the scores of another data set, or of another split of it. Score"
            " the examples anew, by runs on this data set."
        )
    labels = everything.labels[everything.split == "train"]
    scores = Scores(*arrays)
    if not _are_scores(scores, labels):
        raise errors.InputError(
            f"path={path!r} is damaged: it lacks the score of some of the {len(labels)} training"
            " examples, or the group of a class. Score the examples anew."
        )
    return scores


def _are_scores(scores: Scores, labels: Int[np.ndarray, "examples"]) -> bool:
    """Whether there is a finite score of each example, and a group of each class.

    If there are embeddings, each example must have one.
    """
    difficulty, groups, embeddings = scores
    are_whole = embeddings is None or _are_embeddings(embeddings, len(labels))
    return are_whole and bool(
        np.issubdtype(difficulty.dtype, np.floating)
        and difficulty.shape == labels.shape
        and np.isfinite(difficulty).all()
        and np.issubdtype(groups.dtype, np.integer)
        and groups.ndim == 1
        and len(groups) > labels.max(initial=-1)
    )


def _are_embeddings(embeddings: np.ndarray, examples: int) -> bool:
    return bool(
        np.issubdtype(embeddings.dtype, np.floating)
        and embeddings.ndim == 2
        and len(embeddings) == examples
        and np.isfinite(embeddings).all()
    )


def attach(train: data.Dataset, scores: Scores) -> data.Dataset:
    """Adds scores to the training split, which keeps its own groups of classes if it has some."""
    return dataclasses.replace(
        train,
        difficulty=scores.difficulty,
        groups=scores.groups if train.groups is None else train.groups,
        reference=scores.embeddings,
    )
