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
