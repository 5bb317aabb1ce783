"""The nearest rows of every row of one array, on a CPU: half of the products, and no top-k.

There XLA's top-k takes as long as the product that it looks through. Both rows of every product
search, so that each tile of products serves the rows of both its sides. A threshold for each row,
guessed from a sample, lets some dozens of all values pass; these are few enough to sort. How many
passed says afterwards whether the guess was low enough, so that the result is exact for every row
that is not reported.
"""

import collections
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from triplet_jax import distances

# The products of this many rows with as many, 4 MB, stay in the cache until they are compared.
BLOCK = 1024
# The size of the groups of which only the largest value is sampled: the guess needs no more.
_GROUP = 8
# Tiles that XLA works on, while numpy looks through the one before them.
_AHEAD = 3
# The most values of the result, which with all that passes take some 50 bytes each.
_MOST_VALUES = 2**25


class Nearest(NamedTuple):
    """The nearest of all other rows of each row, nearest first."""

    values: Float[np.ndarray, "rows number"]
    positions: Int[np.ndarray, "rows number"]
    found: Bool[np.ndarray, "rows"]
    """False for a row whose threshold was guessed too high, so that places are left."""


def pays(rows: int, number: int) -> bool:
    """Whether `nearest_rows` is faster than a top-k of all values.

    An accelerator has a fast top-k, and a deep search lets too much pass.
    """
    enough = rows >= 4 * BLOCK and 64 * number <= rows
    return jax.default_backend() == "cpu" and enough and rows * number <= _MOST_VALUES


def nearest_rows(
    columns: Float[np.ndarray, "rows dim"],
    bias: Float[np.ndarray, "rows"],
    number: int,
    *,
    block: int = BLOCK,
) -> Nearest:
    """The `number` largest of `columns[i] . columns[j] + bias[j]`, j != i, for each row i.

    Args:
      columns: finite rows.
      bias: a number for each; about -1e37 for a row that is never found.
      number: how many to find, some times fewer than rows.
      block: the rows on either side of a tile, at most 2^16 and at most the number of rows.
    """
    rows = len(columns)
    # In random order the rows of any block are a sample of all.
    order = np.random.default_rng(0).permutation(rows)
    count = -(-rows // block)
    x = np.zeros((count, block, columns.shape[1]), np.float32)
    b = np.full((count, block), -1e37, np.float32)
    x.reshape(count * block, -1)[:rows], b.reshape(-1)[:rows] = columns[order], bias[order]
    tiles = _Tiles(jnp.asarray(x), jnp.asarray(b))
    depth = _depth(number, block / rows)
    blocks = [
        _Block(at * block, _guess(np.asarray(_sampled(*tiles, at)), depth)) for at in range(count)
    ]
    start = 0
    while start < count:
        # What is found by now is a larger sample than the first.
        for some in blocks[start:] if start else ():
            some.keep(_depth(number, start * block / rows))
        end = min(max(2 * start, 2), count)
        pairs = ((i, j) for j in range(start, end) for i in range(j, count))
        limits = jnp.array([some.limit for some in blocks])
        for (i, j), found in _ahead(((i, j), _tile(*tiles, limits, i, j)) for i, j in pairs):
            _collect(blocks, b, i, j, *(np.asarray(part) for part in found))
        start = end
    return _joined(blocks, order, number)


class _Tiles(NamedTuple):
    """The rows in blocks, and their biases."""

    columns: Float[Array, "blocks block dim"]
    bias: Float[Array, "blocks block"]


@jax.jit
def _sampled(columns, bias, at):
    """The largest values of each group of the first block, for the rows of a block."""
    value = distances.product(columns[at], columns[0].T) + bias[0]
    return jnp.max(value.reshape(len(value), _GROUP, -1), axis=1)


def _guess(sampled, depth):
    # XLA's top-k takes 70 times as long as this.
    return np.sort(sampled, axis=1)[:, -min(depth, sampled.shape[1])]


def _depth(number, share):
    """A rank in a share of the rows that is most likely beyond rank `number` in all of them.

    It is the expected number of those rows in the share, plus three of its standard deviations,
    plus two for a small share.
    """
    mean = number * share
    return math.ceil(mean + 3 * math.sqrt(mean) + 2)


@jax.jit
def _tile(columns, bias, limits, i, j):
    """The products of two blocks, and which of them pass a threshold of either side."""
    found = distances.product(columns[i], columns[j].T)
    first, second = found + bias[j], found + bias[i][:, None]
    return found, (first > limits[i][:, None]) | (second > limits[j])


def _ahead(started: Iterator[Any]) -> Iterator[Any]:
    """The items of an iterator that starts work for each, some of them started ahead of use."""
    waiting = collections.deque(itertools.islice(started, _AHEAD))
    while waiting:
        waiting.extend(itertools.islice(started, 1))
        yield waiting.popleft()


def _collect(blocks, bias, i, j, product, passed):
    """Gives both sides of a tile what passed."""
    at = np.flatnonzero(passed)
    product = product.reshape(-1)[at]
    of_first, of_second = np.divmod(at.astype(np.uint32), np.uint32(passed.shape[1]))
    blocks[i].add(of_first, j, of_second, product + bias[j][of_second])
    if i != j:
        blocks[j].add(of_second, i, of_first, product + bias[i][of_first])


class _Block:
    """The rows of a block, their thresholds, and what passed these."""

    def __init__(self, start, limit):
        self.start, self.limit = start, limit
        self._rows = [np.zeros(0, np.uint16)]
        self._others = [np.zeros(0, np.uint32)]
        self._values = [np.zeros(0, np.float32)]

    def add(self, rows, block, others, values):
        others = others + np.uint32(block * len(self.limit))
        keep = np.flatnonzero((values > self.limit[rows]) & (others != rows + self.start))
        self._rows.append(rows[keep].astype(np.uint16))
        self._others.append(others[keep])
        self._values.append(values[keep])

    def keep(self, number):
        """Keeps the nearest `number` of each row, and lets only nearer ones pass from now on.

        So what is kept is never farther than what is dropped. If fewer have passed for a row, the
        places that are left have the value minus infinity.

        Returns:
          Values and positions, nearest last.
        """
        rows, others, values = (
            np.concatenate(parts) for parts in (self._rows, self._others, self._values)
        )
        order = np.argsort(rows, kind="stable")  # by counting, since there are only 16 bits
        count = np.bincount(rows, minlength=len(self.limit))
        place = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
        rows = rows[order]
        packed = np.full((len(count), max(count.max(), number)), _pack(-np.inf, 0))
        packed[rows, place] = _pack(values[order], others[order])
        packed.sort(axis=1)
        values, others = _unpack(packed[:, -number:])
        self.limit = np.maximum(self.limit, values[:, 0])
        held = np.flatnonzero(values > -np.inf)
        self._rows = [(held // number).astype(np.uint16)]
        self._others, self._values = [others.ravel()[held]], [values.ravel()[held]]
        return values, others


def _pack(values, others):
    """Numbers that sort as the values do: a sort of these takes half the time of an argsort."""
    bits = np.asarray(values, np.float32).view(np.int32)
    # The bits of negative floats fall where the floats rise.
    bits = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits).astype(np.int64)
    return bits << 32 | others


def _unpack(packed):
    bits = (packed >> 32).astype(np.int32)
    values = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits).view(np.float32)
    return values, (packed & 0xFFFFFFFF).astype(np.uint32)


def _joined(blocks, order, number):
    """What all blocks have found, for the rows in the order that they came in."""
    result = Nearest(
        np.empty((len(order), number), np.float32),
        np.empty((len(order), number), np.int32),
        np.empty(len(order), bool),
    )
    for some in blocks:
        rows = order[some.start : some.start + len(some.limit)]
        values, others = (part[: len(rows)] for part in some.keep(number))
        result.values[rows] = values[:, ::-1]
        result.positions[rows] = order[np.minimum(others, len(order) - 1)][:, ::-1]
        result.found[rows] = values[:, 0] > -np.inf
    return result
