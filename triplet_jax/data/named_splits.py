"""What a data set says of its examples by names: their splits, and the categories of classes."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int, Shaped

from triplet_jax import errors
from triplet_jax.data import splits
from triplet_jax.data.file_names import some
from triplet_jax.data.splits import HeldOut, Labels, Split

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    # Queries search a gallery: both are for the test.
    **dict.fromkeys(("test", "testing", "query", "gallery"), "test"),
}
"""What the splits of published data sets are called, in lower case."""


def official(
    source: str, names: Shaped[np.ndarray, "examples"], labels: Labels, held_out: HeldOut
) -> Split:
    """The splits by their names; validation is held out by `splits.with_test` where none is for it.

    >>> names = np.array(["Train", "val", "gallery"])
    >>> official("table.csv", names, np.arange(3), HeldOut(0, 0, seed=0)).tolist()
    ['train', 'validation', 'test']

    Raises:
      InputError: a name is none of `SPLITS`, nothing is for training or for the test, or as in
        `splits.with_test`.
    """
    names = np.char.lower(names)
    unknown = sorted(set(names.tolist()) - set(SPLITS))
    if unknown:
        raise errors.InputError(
            f"{source}: there are examples of the splits {some(unknown)}; splits are called"
            f" {', '.join(SPLITS)}."
        )
    split = np.array([SPLITS[name] for name in names.tolist()], "<U10")
    for needed in ("train", "test"):
        if needed not in split:
            raise errors.InputError(
                f"{source}: there is nothing for the split {needed!r}, only for"
                f" {some(sorted(set(names.tolist())))}. Add it, or set split_by='image' or 'class'."
            )
    if "validation" in split:
        return split
    return splits.with_test(labels, split == "test", held_out)


def roles(
    source: str, there: Sequence[str], wanted: Mapping[str, str], *, needs_all: bool
) -> dict[str, str]:
    """The role of each split of a data set that is used: train, validation or test.

    Args:
      source: the data set, for messages.
      there: the splits that it has.
      wanted: the splits for each role, joined by "+".
      needs_all: whether every named split must exist, and some be for training and for the test.

    Raises:
      InputError: a split is named twice or does not exist, or none is left.
    """
    found = {}
    for role, joined in wanted.items():
        for split in filter(None, joined.split("+")):
            if split in found:
                raise errors.InputError(
                    f"{role}_split={joined!r}: {split!r} is used for {found[split]} too."
                    " Name each split once."
                )
            if split in there:
                found[split] = role
            elif needs_all or split != role:
                raise errors.InputError(
                    f"{role}_split={joined!r}: {source} has no split"
                    f" {split!r}, but {', '.join(there)}. Name some of these, or set"
                    " split_by='class' or split_by='image'."
                )
    for role in ("train", "test") if needs_all else ():
        if role not in found.values():
            raise errors.InputError(
                f"{role}_split={wanted[role]!r} must name one of the splits of {source},"
                f" {', '.join(there)}, for split_by='official'."
            )
    if not found:
        raise errors.InputError(
            f"{source} has neither of the splits train and test, but"
            f" {', '.join(there)}. Name those to train on: train_split={'+'.join(there)!r}"
            " joins all of them."
        )
    return found


def queries_of(names: Shaped[np.ndarray, "examples"]) -> Bool[np.ndarray, "examples"] | None:
    """Which examples are queries, by the names of their splits.

    None where there are no queries with a gallery: then all test examples search each other.

    >>> queries_of(np.array(["train", "query", "gallery"])).tolist()
    [False, True, False]

    Raises:
      InputError: there are other test examples beside queries and gallery.
    """
    names = np.char.lower(names)
    present = set(names.tolist())
    if not {"query", "gallery"} <= present:
        return None
    others = [n for n in present - {"query", "gallery"} if SPLITS[n] == "test"]
    if others:
        raise errors.InputError(
            f"there are queries, a gallery and {sorted(others)}: call the images that are searched"
            " gallery, too, or leave them out."
        )
    return names == "query"


def categories(
    source: str,
    names: Shaped[np.ndarray, "examples"] | None,
    labels: Labels,
    class_names: Shaped[np.ndarray, "classes"],
) -> Int[np.ndarray, "classes"] | None:
    """The category of every class, as a number; None without names.

    Raises:
      InputError: a class has examples of two categories.
    """
    if names is None:
        return None
    known, of_row = np.unique(names, return_inverse=True)
    pairs = np.unique(np.stack([labels, of_row]), axis=1)
    several = np.flatnonzero(np.bincount(pairs[0]) > 1)
    if len(several):
        its = known[pairs[1][pairs[0] == several[0]]].astype(str).tolist()
        raise errors.InputError(
            f"{source}: {len(several)} classes have more than one category, such as"
            f" {str(class_names[several[0]])!r} with {some(its)}. Give each class one."
        )
    return pairs[1]
