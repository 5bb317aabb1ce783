"""Which examples are for training, which for validation, and which for the test."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped

from triplet_jax import errors

Labels = Int[np.ndarray, "examples"]
Split = Shaped[np.ndarray, "examples"]
"""The split of every example, one of "train", "validation" and "test"."""


class HeldOut(NamedTuple):
    """How much of a data set is held out of training, in shares of all examples.

    What splits by other shares raises an `InputError`.

    >>> labels = np.repeat(np.arange(10), 10)
    >>> split = at_random(labels, HeldOut(test=0.2, validation=0.1, seed=0), by="image")
    >>> [int(np.sum(split == name)) for name in ("train", "validation", "test")]
    [70, 10, 20]
    """

    test: float
    """The share for the test, in [0, 1)."""
    validation: float
    """The share for validation; both together are below 1."""
    seed: int
    """Decides which examples these are."""


_UNITS = ("image", "class", "group")


def hold_out(
    labels: Labels,
    fraction: float,
    *,
    by: str,
    seed: int,
    groups: Int[np.ndarray, "classes"] | None = None,
) -> Bool[np.ndarray, "examples"]:
    """Chooses examples to hold out.

    >>> hold_out(np.array([0, 0, 1, 1, 2, 2, 3, 3]), 0.5, by="class", seed=0)
    array([ True,  True, False, False,  True,  True, False, False])

    Args:
      labels: the class of every example.
      fraction: how much to hold out, in [0, 1).
      by: "image" holds out this fraction of each class's examples, but never all of them; "class"
        holds out whole classes, and "group" whole groups of classes.
      seed: decides which.
      groups: the group of every class, for `by="group"`.

    Returns:
      Which examples are held out.

    Raises:
      InputError: the fraction is out of range, `by` is not known, or groups are missing.
    """
    if not 0 <= fraction < 1:
        raise errors.InputError(f"fraction={fraction} must be at least 0 and below 1.")
    errors.check_known("by", by, _UNITS)
    if by == "group" and groups is None:
        raise errors.InputError("by='group' needs groups: the group of every class.")
    random = np.random.default_rng(seed)
    if by == "image":
        held = np.zeros(len(labels), bool)
        for c in np.unique(labels):
            members = random.permutation(np.flatnonzero(labels == c))
            held[members[: min(round(fraction * len(members)), len(members) - 1)]] = True
        return held
    unit = labels if by == "class" else groups[labels]
    units = random.permutation(np.unique(unit))
    return np.isin(unit, units[: round(fraction * len(units))])


def _check_shares(held_out: HeldOut) -> None:
    for name, share in (("test", held_out.test), ("validation", held_out.validation)):
        if not 0 <= share < 1:
            raise errors.InputError(
                f"{name}={share} is no share of the examples to hold out of training: it must be at"
                " least 0 and below 1."
            )
    if held_out.test + held_out.validation >= 1:
        raise errors.InputError(
            f"test={held_out.test} and validation={held_out.validation} leave nothing to train on;"
            " together they must be below 1."
        )


def at_random(labels: Labels, held_out: HeldOut, *, by: str) -> Split:
    """Holds out the test, then validation, both by `hold_out`.

    Raises:
      InputError: a share is outside [0, 1), or both are 1 or more.
    """
    _check_shares(held_out)
    is_test = hold_out(labels, held_out.test, by=by, seed=held_out.seed)
    of_rest = held_out.validation / (1 - held_out.test)
    return _with_validation(labels, is_test, of_rest, by=by, seed=held_out.seed + 1)


def with_test(
    labels: Labels,
    is_test: Bool[np.ndarray, "examples"],
    held_out: HeldOut,
    *,
    groups: Int[np.ndarray, "classes"] | None = None,
) -> Split:
    """Holds out validation where the test is given.

    Validation is made as the test was: of examples where training and test share classes, else of
    whole groups of classes, or of whole classes where there are no groups.

    Args:
      labels: the class of every example.
      is_test: which examples are for the test.
      held_out: `validation` is the share of the other examples; `test` is not read.
      groups: the group of every class; None where classes have no groups.

    Raises:
      InputError: the share of validation is outside [0, 1).
    """
    _check_shares(held_out._replace(test=0.0))
    is_shared = np.intersect1d(labels[is_test], labels[~is_test]).size > 0
    by = "image" if is_shared else "class" if groups is None else "group"
    return _with_validation(
        labels, is_test, held_out.validation, by=by, seed=held_out.seed, groups=groups
    )


def _with_validation(
    labels: Labels,
    is_test: Bool[np.ndarray, "examples"],
    fraction: float,
    *,
    by: str,
    seed: int,
    groups: Int[np.ndarray, "classes"] | None = None,
) -> Split:
    """Holds out a fraction of what is not for the test."""
    split = np.where(is_test, "test", "train").astype("<U10")
    rest = np.flatnonzero(~is_test)
    held = hold_out(labels[rest], fraction, by=by, seed=seed, groups=groups)
    split[rest[held]] = "validation"
    return split


def of_groups(labels: Labels, groups: Shaped[np.ndarray, "examples"], held_out: HeldOut) -> Split:
    """Splits whole groups of examples, such as the sessions in which photographs were taken.

    Args:
      labels: the class of every example.
      groups: the group of every example; a group may hold several classes.
      held_out: the shares of the examples, which large groups may exceed a little.

    Raises:
      InputError: as in `at_random`.
    """
    _check_shares(held_out)
    split = np.full(len(labels), "train", "<U10")
    parts = (("test", held_out.test), ("validation", held_out.validation / (1 - held_out.test)))
    for draw, (name, fraction) in enumerate(parts):
        rest = np.flatnonzero(split == "train")
        held = hold_out_groups(labels[rest], groups[rest], fraction, seed=held_out.seed + draw)
        split[rest[held]] = name
    return split


def notes_on_groups(
    split: Split,
    labels: Labels,
    groups: Shaped[np.ndarray, "examples"],
    held_out: HeldOut,
    *,
    source: str,
) -> list[str]:
    """A note if some classes stay in training, since all their examples are of one group.

    Args:
      split: what `of_groups` made of the other arguments.
      labels: the class of every example.
      groups: the group of every example.
      held_out: the shares that were asked for.
      source: what is split, for the message.

    Raises:
      InputError: a test was asked for, and no group can be held out for it.
    """
    _, codes = np.unique(groups, return_inverse=True)
    if held_out.test and "test" not in split:
        raise errors.InputError(
            f"{source}: split_by='group' can hold out none of the {codes.max() + 1} groups,"
            " since each holds all examples of some class. Have two groups or more of every class,"
            " or split by image or class."
        )
    pairs = np.unique(np.stack([labels, codes]), axis=1)
    alone = int((np.bincount(pairs[0]) == 1).sum())
    return [f"{alone} classes have a single group, which stays in training"] if alone else []


def hold_out_groups(
    labels: Labels, groups: Shaped[np.ndarray, "examples"], fraction: float, *, seed: int
) -> Bool[np.ndarray, "examples"]:
    """Holds out whole groups, until each of their classes has given this fraction of its examples.

    A group that holds all remaining examples of a class is never held out.
    """
    held = np.zeros(len(labels), bool)
    total = np.bincount(labels, minlength=1)
    taken = np.zeros_like(total)
    order = np.argsort(groups, kind="stable")
    starts = np.unique(groups[order], return_index=True)[1][1:]
    members = np.split(order, starts)
    for g in np.random.default_rng(seed).permutation(len(members)):
        classes, counts = np.unique(labels[members[g]], return_counts=True)
        is_wanted = taken[classes].sum() < fraction * total[classes].sum()
        if is_wanted and (taken[classes] + counts < total[classes]).all():
            held[members[g]] = True
            taken[classes] += counts
    return held
