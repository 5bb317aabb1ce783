"""How hard each training example is, judged by reference runs; for curricula over examples."""

import dataclasses
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from triplet_jax import data, errors, evaluation
from triplet_jax.runs import files


class Scores(NamedTuple):
    """Of one data set's training split."""

    difficulty: Float[np.ndarray, "examples"]
    """1 minus the leave-one-out R-precision: 0 easy, 1 hard."""
    groups: Int[np.ndarray, "classes"]
    """Which classes the reference runs confuse, as groups of them."""


def r_precision(
    embeddings: Float[np.ndarray, "examples dim"], labels: Int[np.ndarray, "examples"]
) -> Float[np.ndarray, "examples"]:
    """The share of each example's R nearest others that have its label; R is how many do.

    0 for an example that is alone in its class.
    """
    return np.nan_to_num(evaluation.retrieval_of_queries(embeddings, labels)["r_precision"])


def confusable(
    embeddings: Float[np.ndarray, "examples dim"],
    labels: Int[np.ndarray, "examples"],
    *,
    groups: int,
) -> Int[np.ndarray, "classes"]:
    """Groups of classes whose mean embeddings lie near each other, by Ward's clustering.

    Args:
      embeddings: of all examples.
      labels: their classes, [0, classes).
      groups: how many, at most the number of classes that occur.

    Returns:
      The group of every class number up to the largest; 0 for those that do not occur.
    """
    import sklearn.cluster  # here, as it takes longer to import than all the rest

    present = np.unique(labels)
    centres = np.stack([embeddings[labels == c].mean(axis=0) for c in present])
    found = np.zeros(present.max() + 1, np.int32)
    clusters = sklearn.cluster.AgglomerativeClustering(min(groups, len(present)))
    found[present] = clusters.fit_predict(centres) if len(present) > 1 else 0
    return found


def write(path: pathlib.Path, scores: Scores, everything: data.Dataset) -> None:
    """Saves scores with the mark of the data set that they are of."""
    files.write_arrays(path, **scores._asdict(), data=data.fingerprint(everything))


def read(path: str, everything: data.Dataset) -> Scores:
    """What `write` saved.

    Raises:
      InputError: the file cannot be read, or is of another data set, or its arrays are no scores.
    """
    *arrays, mark = data.read_arrays(path, [*Scores._fields, "data"])
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


def _are_scores(scores, labels):
    difficulty, groups = scores
    return (
        np.issubdtype(difficulty.dtype, np.floating)
        and difficulty.shape == labels.shape
        and np.isfinite(difficulty).all()
        and np.issubdtype(groups.dtype, np.integer)
        and groups.ndim == 1
        and len(groups) > labels.max(initial=-1)
    )


def attach(train: data.Dataset, scores: Scores) -> data.Dataset:
    """The training split with its scores; its own groups of classes are kept if it has some."""
    groups = scores.groups if train.groups is None else train.groups
    return dataclasses.replace(train, difficulty=scores.difficulty, groups=groups)
