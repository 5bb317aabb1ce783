"""Which examples are held out of training."""

import numpy as np
from jaxtyping import Bool, Int


def hold_out(
    labels: Int[np.ndarray, "examples"],
    fraction: float,
    *,
    by: str,
    seed: int,
    groups: Int[np.ndarray, "classes"] | None = None,
) -> Bool[np.ndarray, "examples"]:
    """Chooses examples to hold out.

    Args:
      labels: the class of every example.
      fraction: how much to hold out, in [0, 1).
      by: "image" holds out this fraction of every class's images, but never all, "class" whole
        classes, "group" whole groups of classes.
      seed: of the choice.
      groups: of every class, for `by="group"`.

    Returns:
      Which examples are held out.
    """
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


def at_random(labels, *, by, test_fraction, validation_fraction, seed):
    """The split of every example, where the test is held out as validation is."""
    held_test = hold_out(labels, test_fraction, by=by, seed=seed)
    of_rest = validation_fraction / (1 - test_fraction)
    return hold_out_of_rest(labels, held_test, of_rest, by=by, seed=seed + 1)


def hold_out_of_rest(labels, held_test, validation_fraction, *, by, seed, groups=None):
    """The split of every example; validation is held out of what is not for the test."""
    split = np.where(held_test, "test", "train").astype("<U10")
    rest = np.flatnonzero(~held_test)
    held = hold_out(labels[rest], validation_fraction, by=by, seed=seed, groups=groups)
    split[rest[held]] = "validation"
    return split


def of_groups(
    labels: Int[np.ndarray, "examples"],
    groups: np.ndarray,
    *,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
) -> np.ndarray:
    """The split of every example, where the examples of a group stand in one split together.

    Args:
      labels: the class of every example.
      groups: the group of every example, such as the session in which a photo was taken; a group
        may hold several classes.
      test_fraction: of the examples; a little more are held out where groups are large.
      validation_fraction: of the examples.
      seed: of the choice.
    """
    split = np.full(len(labels), "train", "<U10")
    parts = (("test", test_fraction), ("validation", validation_fraction / (1 - test_fraction)))
    for draw, (name, fraction) in enumerate(parts):
        rest = np.flatnonzero(split == "train")
        held = hold_out_groups(labels[rest], groups[rest], fraction, seed=seed + draw)
        split[rest[held]] = name
    return split


def hold_out_groups(
    labels: Int[np.ndarray, "examples"], groups: np.ndarray, fraction: float, *, seed: int
) -> Bool[np.ndarray, "examples"]:
    """Holds out whole groups, until the classes of each have given this fraction of their examples.

    A group that holds all that is left of a class is never held out.
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
