"""PK batches: P classes and K images of each, as triplet mining wants them.

A batch is a function of the seed and the step, so that a run continues from its step
alone. The same function runs in numpy (in worker processes, which load the images of
a batch) and in jax (inside a compiled step, for data that live on the device), with the same
result: its random numbers come from a counter-based generator written for either.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from triplet_jax import errors
from triplet_jax.data.dataset import Dataset

CLASS_STREAM, IMAGE_STREAM, GROUP_STREAM, NEAR_STREAM, FILL_STREAM = range(5)
SMALL_CLASSES = ("refuse", "drop", "redraw")


class ClassIndex(NamedTuple):
    """Where the examples of each class are: `order[start[c] : start[c] + count[c]]`."""

    order: Int[Array | np.ndarray, "examples"]
    start: Int[Array | np.ndarray, "classes"]
    count: Int[Array | np.ndarray, "classes"]
    group: Int[Array | np.ndarray, "classes"]
    """Of each class, in [0, classes)."""
    class_of: Int[Array | np.ndarray, "examples"] | None = None
    """Of each example; with `near` alone."""
    near: Int[Array | np.ndarray, "examples neighbours"] | None = None
    """Of each example, examples of other classes (`curricula.offline_negatives`); -1 for none."""

    def beside(self, near: Int[np.ndarray, "examples neighbours"]) -> "ClassIndex":
        """The same with a table of near examples, to draw batches from."""
        class_of = np.zeros(len(self.order), np.int32)
        class_of[self.order] = np.repeat(np.arange(len(self.count)), self.count)
        return self._replace(class_of=class_of, near=near)


def class_index(
    labels: Int[np.ndarray, "examples"],
    *,
    rank: np.ndarray | None = None,
    groups: Int[np.ndarray, "all_classes"] | None = None,
) -> ClassIndex:
    """The index of the classes that occur in `labels`; other class numbers are passed over.

    Args:
      labels: of every example.
      rank: a number for every example; a class's examples stand in its order.
      groups: of every class number, such as an alphabet; None where there are none.
    """
    order = np.lexsort((labels,) if rank is None else (rank, labels)).astype(np.int32)
    present, start, count = np.unique(labels[order], return_index=True, return_counts=True)
    group = np.zeros(len(present), np.int32)
    if groups is not None:
        group = np.unique(groups[present], return_inverse=True)[1]
    return ClassIndex(order, *(x.astype(np.int32) for x in (start, count, group)))


def pk_batch(
    xp,
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
    """The examples of one batch, class after class.

    Classes are drawn without replacement, and so are the images of a class; a class with
    fewer than `per_class` images has its images drawn with replacement.

    Args:
      xp: `numpy` or `jax.numpy`; the result is the same.
      index: of the classes to draw from.
      seed: the run's seed, in [0, 2^32).
      step: the number of the step, in [0, 2^32).
      classes: P, at most the number of classes.
      per_class: K.
      pool: the share of each class's examples to draw from, the first in the index; at least
        K of them, or all.
      same_group: the share of batches for which groups are drawn one after another, and all
        classes of a group before those of the next.
      near: how many of the examples that the index has as near are drawn for one example of each
        class; they come into the batch with their classes, until these are P. 0 draws all classes
        at random.

    Returns:
      P * K positions in the data set.
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


def _with_near_ones(xp, key, index, drawn, near, most):
    """As many classes, and of each up to `most` examples that are to be in the batch; -1 for none.

    Class after class of the drawn ones brings an example and some that are near it, until there are
    enough classes.
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
    # What was brought, class by class, in the order in which it was brought.
    by_class = xp.lexsort((xp.arange(len(brought)), of_class))
    begin = xp.searchsorted(of_class[by_class], xp.arange(none + 1))
    count = begin[1:] - begin[:-1]
    first = xp.where(count > 0, by_class[xp.minimum(begin[:-1], len(brought) - 1)], len(brought))
    taken = xp.argsort(first)[: len(drawn)]
    at = by_class[xp.minimum(begin[taken][:, None] + xp.arange(most), len(brought) - 1)]
    is_one = (xp.arange(most) < count[taken][:, None]) & (at <= first[taken[-1]])
    return taken, xp.where(is_one, brought[at], -1)


def _filled_up(xp, key, wanted, picked):
    """In every row what is wanted, then some of the picked, none twice as far as they go."""
    row = xp.concatenate([wanted, picked], axis=1)
    earlier = xp.tril(xp.ones((row.shape[1], row.shape[1]), bool), -1)
    again = ((row[:, :, None] == row[:, None, :]) & earlier).any(axis=2)
    is_picked = xp.arange(row.shape[1]) >= wanted.shape[1]
    turn = xp.where(row < 0, 3, xp.where(again, 2, is_picked.astype(xp.int32)))
    # The order in which a subset was drawn is no random one.
    ticket = random_bits(xp, key, FILL_STREAM, picked.size).reshape(picked.shape)
    place = xp.broadcast_to(xp.arange(wanted.shape[1], dtype=xp.uint32), wanted.shape)
    order = xp.lexsort((xp.concatenate([place, ticket], axis=1), turn), axis=1)
    return xp.take_along_axis(row, order[:, : picked.shape[1]], axis=1)


def _group_ticket(xp, key, index, share):
    """What classes are drawn by first; the same for all where groups do not matter."""
    bits = random_bits(xp, key, GROUP_STREAM, index.count.shape[0] + 1)
    coin = (bits[-1] >> xp.uint32(8)).astype(xp.float32) / xp.float32(2**24)
    return xp.where(coin < xp.float32(share), bits[index.group], xp.uint32(0))


def _in_pool(xp, count, pool, per_class):
    size = xp.ceil(xp.float32(pool) * count.astype(xp.float32)).astype(xp.int32)
    return xp.minimum(xp.maximum(size, per_class), count)


def _choose(xp, bits, count):
    """A uniform subset of `range(count)` in every row, by Floyd's algorithm.

    Its cost does not depend on the size of the classes. The modulo favours small numbers
    by less than count / 2^32.
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


def random_bits(xp, key, stream: int, size: int) -> UInt32[Array | np.ndarray, "size"]:
    """`size` random words of the generator Threefry-2x32 with 20 rounds.

    Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"; the generator that
    jax.random uses too. Word i is the first half of the block with counter (stream, i).
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
    """The training examples that PK batches can be drawn from.

    Args:
      dataset: the training split.
      classes: P.
      per_class: K.
      small_classes: what to do with classes of fewer than K images: "refuse" them, "drop"
        them, or "redraw" an image more than once in a batch.

    Raises:
      InputError: P or K is below 2, a class is small and that is refused, or P exceeds the
        number of classes.
    """
    errors.check_known("batch.small_classes", small_classes, SMALL_CLASSES)
    for field, value in (("batch.classes", classes), ("batch.per_class", per_class)):
        if value < 2:
            raise errors.InputError(
                f"{field}={value} must be at least 2: a triplet needs two classes and two images"
                " of one of them."
            )
    present, count = np.unique(dataset.labels, return_counts=True)
    small = present[count < per_class]
    if len(small) and small_classes == "refuse":
        sizes = dict(zip(present, count, strict=True))
        named = ", ".join(f"{dataset.class_names[c]!r} ({sizes[c]})" for c in small[:5])
        raise errors.InputError(
            f"batch.per_class={per_class}, but {len(small)} of {len(present)} training classes"
            f" have fewer images: {named}{', ...' if len(small) > 5 else ''}. Set"
            f" batch.per_class={max(2, count.min())}, or batch.small_classes='drop' to leave these"
            " classes out, or 'redraw' to use their images more than once a batch."
        )
    if len(small) and small_classes == "drop":
        dataset = dataset.take(np.flatnonzero(~np.isin(dataset.labels, small)))
        present = np.setdiff1d(present, small)
    if classes > len(present):
        raise errors.InputError(
            f"batch.classes={classes} is more than the {len(present)} training classes. Set"
            f" batch.classes to at most {len(present)}."
        )
    return dataset
