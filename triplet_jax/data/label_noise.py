"""Label noise: plants wrong labels, to see how well training withstands them."""

import numpy as np
from jaxtyping import Int

from triplet_jax import errors

KINDS = ("symmetric", "class_conditional", "within_group")


def plant(
    labels: Int[np.ndarray, "examples"],
    fraction: float,
    *,
    kind: str,
    seed: int,
    groups: Int[np.ndarray, "classes"] | None = None,
) -> Int[np.ndarray, "examples"]:
    """Changes the labels of a fraction of every class to other classes that occur.

    >>> labels = np.repeat(np.arange(3), 10)
    >>> given = plant(labels, 0.2, kind="symmetric", seed=0)
    >>> int(np.sum(given != labels))
    6

    Args:
      labels: the right labels, as numbers of classes.
      fraction: the share of every class that is changed, in [0, 1); the count is rounded.
      kind: what a label becomes. "symmetric": any other class, with equal chances.
        "class_conditional": one fixed other class, as if the two were confused; the classes
        follow each other in a random circle. "within_group": any other class of the same group,
        with equal chances; a class alone in its group keeps its labels.
      seed: decides which labels change, and to what.
      groups: the group of every class, for "within_group".

    Returns:
      The noisy labels; they are wrong where they differ from `labels`.

    Raises:
      InputError: the kind is not known, the fraction is out of range, there is only one class, or
        "within_group" has no groups.
    """
    errors.check_known("kind", kind, KINDS)
    if not 0 <= fraction < 1:
        raise errors.InputError(f"fraction={fraction} must be at least 0 and below 1.")
    if not fraction:
        return labels
    classes = np.unique(labels)
    if len(classes) < 2:
        raise errors.InputError(f"fraction={fraction} needs at least two training classes.")
    if kind == "within_group" and groups is None:
        raise errors.InputError(
            "kind='within_group' needs groups of classes, such as alphabets, and this data set has"
            " none. Set it to 'symmetric' or 'class_conditional'."
        )
    random = np.random.default_rng(seed)
    circle = random.permutation(classes)
    follower = dict(zip(circle, np.roll(circle, -1), strict=True))
    given = labels.copy()
    for c in classes:
        members = np.flatnonzero(labels == c)
        wrong = random.choice(members, round(fraction * len(members)), replace=False)
        if kind == "class_conditional":
            others = np.array([follower[c]])
        elif kind == "within_group":
            others = classes[(groups[classes] == groups[c]) & (classes != c)]
        else:
            others = classes[classes != c]
        if len(others):
            given[wrong] = random.choice(others, len(wrong))
    return given
