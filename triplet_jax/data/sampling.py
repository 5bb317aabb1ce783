"""The sampler of PK batches: P classes and K examples of each, as triplet mining needs them.

A batch is a function of the seed and the step, so that a run continues from the number of its step
alone. The function runs in numpy, for worker processes that load the images of a batch, and in jax,
inside a compiled step for data that live on the device. Both give the same batch, since its random
numbers come from a counter-based generator that is written for either.
"""

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from triplet_jax import errors
from triplet_jax.data.dataset import Dataset

CLASS_STREAM, IMAGE_STREAM, GROUP_STREAM, NEAR_STREAM, FILL_STREAM = range(5)
SMALL_CLASSES = ("refuse", "drop", "redraw")

Ints = Int[Array | np.ndarray, "..."]
Key = tuple[Any, Any] | UInt32[Array | np.ndarray, "2"]
"""Two words of 32 bits: the seed and the step."""


class ClassIndex(NamedTuple):
    """The examples of each class: those of class c are `order[start[c] : start[c] + count[c]]`."""

    order: Int[Array | np.ndarray, "examples"]
    start: Int[Array | np.ndarray, "classes"]
    count: Int[Array | np.ndarray, "classes"]
    group: Int[Array | np.ndarray, "classes"]
    """The group of each class, in [0, classes)."""
    class_of: Int[Array | np.ndarray, "examples"] | None = None
    """The class of each example; None without `near`."""
    near: Int[Array | np.ndarray, "examples neighbours"] | None = None
    """For each example, hard negatives from `curricula.offline_negatives`; -1 for none."""
    reference: Float[Array | np.ndarray, "examples dim"] | None = None
    """What a reference run makes of each example, for `curricula.learnability`."""

    def beside(self, near: Int[np.ndarray, "examples neighbours"]) -> "ClassIndex":
        """The same index with a table of near examples of other classes."""
        class_of = np.zeros(len(self.order), np.int32)
        class_of[self.order] = np.repeat(np.arange(len(self.count)), self.count)
        return self._replace(class_of=class_of, near=near)


def class_index(
    labels: Int[np.ndarray, "examples"],
    *,
    rank: np.ndarray | None = None,
    groups: Int[np.ndarray, "all_classes"] | None = None,
) -> ClassIndex:
    """Makes the index of the classes that occur in `labels`, renumbered from 0.

    Args:
      labels: the class of every example.
      rank: a number for every example, by which the examples of a class are sorted; None keeps
        their order.
      groups: the group of every class number, such as an alphabet; None where there are none.
    """
    order = np.lexsort((labels,) if rank is None else (rank, labels)).astype(np.int32)
    present, start, count = np.unique(labels[order], return_index=True, return_counts=True)
    group = np.zeros(len(present), np.int32)
    if groups is not None:
        group = np.unique(groups[present], return_inverse=True)[1]
    return ClassIndex(order, *(x.astype(np.int32) for x in (start, count, group)))


def pk_batch(
    xp: ModuleType,
    index: ClassIndex,
    seed: int | np.integer | Int[Array, ""],
    step: int | np.integer | Int[Array, ""],
    *,
    classes: int,
    per_class: int,
    pool: float | np.floating | Float[Array, ""] = 1.0,
    same_group: float | np.floating | Float[Array, ""] = 0.0,
    near: int = 0,
) -> Int[Array | np.ndarray, "batch"]:
    """Draws the examples of one batch, class after class.

    Classes are drawn without replacement, and so are the examples of a class, unless it has fewer
    than K: then its examples are drawn with replacement.

    >>> index = class_index(np.repeat(np.arange(5), 4))
    >>> pk_batch(np, index, seed=0, step=0, classes=2, per_class=3).shape
    (6,)

    Args:
      xp: `numpy` or `jax.numpy`; the result is the same.
      index: the classes to draw from.
      seed: the run's seed, in [0, 2^32).
      step: the number of the step, in [0, 2^32).
      classes: P, at most the number of classes in the index.
      per_class: K.
      pool: the share of each class's examples to draw from, the first in the index's order; at
        least K of them, or all if there are fewer.
      same_group: the share of batches whose classes are drawn group by group: all classes of one
        group before those of the next.
      near: how many near examples are drawn for one example of each drawn class. They enter the
        batch with their classes, until it has P classes. 0 draws all classes at random.

    Returns:
      The positions of P * K examples.
    """
    key = (xp.asarray(seed).astype(xp.uint32), xp.asarray(step).astype(xp.uint32))
    ticket = random_bits(xp, key, CLASS_STREAM, index.count.shape[0])
    group = _group_ticket(xp, key, index, same_group)
    drawn = xp.lexsort((ticket, group))[:classes]
    wanted = None
    if near:
        drawn, wanted = _with_near_ones(xp, key, index, drawn, near, per_class)
    bits = random_bits(xp, key, IMAGE_STREAM, classes * per_class).reshape(classes, per_class)
    member = _choose(xp, bits, _in_pool(xp, index.count[drawn], pool, per_class))
    picked = index.order[index.start[drawn][:, None] + member]
    if near:
        picked = _filled_up(xp, key, wanted, picked)
    return picked.reshape(-1)


def _with_near_ones(
    xp: ModuleType, key: Key, index: ClassIndex, drawn: Ints, near: int, most: int
) -> tuple[Ints, Ints]:
    """Replaces the last drawn classes by classes of near examples.

    Each drawn class in turn brings one example and some that are near it, until there are as many
    classes as were drawn.

    Returns:
      The classes, and up to `most` examples of each that must be in the batch; -1 for none.
    """
    bits = random_bits(xp, key, NEAR_STREAM, len(drawn) * (1 + near)).reshape(len(drawn), -1)
    place = (bits[:, 0] % index.count[drawn].astype(xp.uint32)).astype(xp.int32)
    anchor = index.order[index.start[drawn] + place]
    offered = index.near[anchor]
    which = _choose(xp, bits[:, 1:], xp.full(len(drawn), offered.shape[1], xp.int32))
    beside = xp.take_along_axis(offered, which, axis=1)
    brought = xp.concatenate([anchor[:, None], beside], axis=1).reshape(-1)
    none = index.count.shape[0]
    of_class = xp.where(brought >= 0, index.class_of[brought], none)
    # The brought examples by class; within a class, in the order in which they were brought.
    by_class = xp.lexsort((xp.arange(len(brought)), of_class))
    begin = xp.searchsorted(of_class[by_class], xp.arange(none + 1))
    count = begin[1:] - begin[:-1]
    first = xp.where(count > 0, by_class[xp.minimum(begin[:-1], len(brought) - 1)], len(brought))
    taken = xp.argsort(first)[: len(drawn)]
    at = by_class[xp.minimum(begin[taken][:, None] + xp.arange(most), len(brought) - 1)]
    is_one = (xp.arange(most) < count[taken][:, None]) & (at <= first[taken[-1]])
    return taken, xp.where(is_one, brought[at], -1)


def _filled_up(xp: ModuleType, key: Key, wanted: Ints, picked: Ints) -> Ints:
    """Fills each row with its wanted examples, then with picked ones, and at last with repeats."""
    row = xp.concatenate([wanted, picked], axis=1)
    earlier = xp.tril(xp.ones((row.shape[1], row.shape[1]), bool), -1)
    again = ((row[:, :, None] == row[:, None, :]) & earlier).any(axis=2)
    is_picked = xp.arange(row.shape[1]) >= wanted.shape[1]
    turn = xp.where(row < 0, 3, xp.where(again, 2, is_picked.astype(xp.int32)))
    # Floyd's algorithm draws a random subset, but not in a random order.
    ticket = random_bits(xp, key, FILL_STREAM, picked.size).reshape(picked.shape)
    place = xp.broadcast_to(xp.arange(wanted.shape[1], dtype=xp.uint32), wanted.shape)
    order = xp.lexsort((xp.concatenate([place, ticket], axis=1), turn), axis=1)
    return xp.take_along_axis(row, order[:, : picked.shape[1]], axis=1)


def _group_ticket(
    xp: ModuleType, key: Key, index: ClassIndex, share: float | np.floating | Float[Array, ""]
) -> UInt32[Array | np.ndarray, "classes"]:
    """The first key that classes are sorted by; 0 for all of them where groups do not count."""
    bits = random_bits(xp, key, GROUP_STREAM, index.count.shape[0] + 1)
    coin = (bits[-1] >> xp.uint32(8)).astype(xp.float32) / xp.float32(2**24)
    return xp.where(coin < xp.float32(share), bits[index.group], xp.uint32(0))


def _in_pool(
    xp: ModuleType, count: Ints, pool: float | np.floating | Float[Array, ""], per_class: int
) -> Ints:
    """The size of the pool that the examples of each class are drawn from."""
    size = xp.ceil(xp.float32(pool) * count.astype(xp.float32)).astype(xp.int32)
    return xp.minimum(xp.maximum(size, per_class), count)


def _choose(xp: ModuleType, bits: UInt32[Array | np.ndarray, "rows k"], count: Ints) -> Ints:
    """Draws k numbers below `count` in every row: a uniform subset, by Floyd's algorithm.

    A row with `count` below k is drawn with replacement. The cost does not depend on `count`. The
    modulo favours small numbers by less than count / 2^32.
    """
    per_class = bits.shape[1]
    chosen = xp.zeros((bits.shape[0], 0), xp.int32)
    for i in range(per_class):
        last = count - per_class + i
        draw = (bits[:, i] % xp.maximum(last + 1, 1).astype(xp.uint32)).astype(xp.int32)
        taken = (chosen == draw[:, None]).any(axis=1)
        chosen = xp.concatenate([chosen, xp.where(taken, last, draw)[:, None]], axis=1)
    redrawn = (bits % count[:, None].astype(xp.uint32)).astype(xp.int32)
    return xp.where(count[:, None] < per_class, redrawn, chosen)


def random_bits(
    xp: ModuleType, key: Key, stream: int, size: int
) -> UInt32[Array | np.ndarray, "size"]:
    """`size` random words of the generator Threefry-2x32 with 20 rounds, as in jax.random.

    Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3",
    https://doi.org/10.1145/2063384.2063405. Word i is the first half of the block with the counter
    `(stream, i)`.

    Args:
      xp: `numpy` or `jax.numpy`.
      key: two words of 32 bits.
      stream: tells independent draws of one key apart.
      size: the number of words.
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ xp.uint32(0x1BD11BDA))
    x = xp.full((size,), stream, xp.uint32) + keys[0]
    y = xp.arange(size, dtype=xp.uint32) + keys[1]
    for group in range(5):
        for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            x = x + y
            y = (y << xp.uint32(rotation)) | (y >> xp.uint32(32 - rotation))
            y = y ^ x
        x = x + keys[(group + 1) % 3]
        y = y + keys[(group + 2) % 3] + xp.uint32(group + 1)
    return x


def fit_classes(dataset: Dataset, *, classes: int, per_class: int, small_classes: str) -> Dataset:
    """Keeps the training examples that PK batches can be drawn from.

    Args:
      dataset: the training split.
      classes: P.
      per_class: K.
      small_classes: what becomes of classes with fewer than K examples: "refuse" raises an error,
        "drop" leaves them out, "redraw" lets a batch hold an example more than once.

    Raises:
      InputError: P or K is below 2, a small class is refused, or P exceeds the number of classes.
    """
    errors.check_known("small_classes", small_classes, SMALL_CLASSES)
    for name, value in (("classes", classes), ("per_class", per_class)):
        if value < 2:
            raise errors.InputError(
                f"{name}={value} must be at least 2: a triplet needs two classes and two examples"
                " of one of them."
            )
    present, count = np.unique(dataset.labels, return_counts=True)
    small = present[count < per_class]
    if len(small) and small_classes == "refuse":
        sizes = dict(zip(present, count, strict=True))
        named = ", ".join(f"{dataset.class_names[c]!r} ({sizes[c]})" for c in small[:5])
        fewer = f"per_class={count.min()}, or " if count.min() >= 2 else ""
        raise errors.InputError(
            f"per_class={per_class}, but {len(small)} of {len(present)} training classes"
            f" have fewer examples: {named}{', ...' if len(small) > 5 else ''}. Set"
            f" {fewer}small_classes='drop' to leave these classes out, or 'redraw' to use their"
            " examples more than once a batch."
        )
    if len(small) and small_classes == "drop":
        dataset = dataset.take(np.flatnonzero(~np.isin(dataset.labels, small)))
        present = np.setdiff1d(present, small)
    if classes > len(present):
        raise errors.InputError(
            f"classes={classes} is more than the {len(present)} training classes. Set it to at most"
            f" {len(present)}."
        )
    return dataset
