"""Wrong labels, planted on purpose and remembered: how well does training bear them?"""

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
    """Labels of which this fraction of every class is wrong.

    Args:
      labels: the right ones, numbers of classes.
      fraction: how many of every class are changed, in [0, 1), rounded.
      kind: what a label is changed to: "symmetric", any other class with equal chances;
        "class_conditional", one other class for each, as a confusing pair would do it (the
        classes follow each other in a random circle); "within_group", any other class of the same
        group. A class alone in its group keeps its labels.
      seed: of the choice.
      groups: of every class, for "within_group".

    Returns:
      The labels as they would be given; wrong is where they differ. Never a new class.

    Raises:
      InputError: the kind is not known, the fraction is out of range, there is only one class,
        or there are no groups.
    """
    errors.check_known("dataset.noise_kind", kind, KINDS)
    if not 0 <= fraction < 1:
        raise errors.InputError(f"dataset.label_noise={fraction} must be at least 0 and below 1.")
    if not fraction:
        return labels
    classes = np.unique(labels)
    if len(classes) < 2:
        raise errors.InputError(
            f"dataset.label_noise={fraction} needs at least two training classes."
        )
    if kind == "within_group" and groups is None:
        raise errors.InputError(
            "dataset.noise_kind='within_group' needs groups of classes, such as alphabets, and this"
            " data set has none. Set it to 'symmetric' or 'class_conditional'."
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
