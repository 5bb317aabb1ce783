"""Offline mining: finds the hardest negatives of every example among the whole training set.

A batch holds the hardest negatives of a few classes only; the whole set has harder ones (Harwood
et al. 2017, "Smart Mining for Deep Metric Learning", https://arxiv.org/abs/1704.01285).
`sampling.pk_batch` draws from the table that is made here.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from triplet_jax import data, errors, evaluation
from triplet_jax.runs import files


def nearest_of_other_classes(
    embeddings: Float[np.ndarray, "examples dim"],
    labels: Int[np.ndarray, "examples"],
    *,
    neighbours: int,
) -> Int[np.ndarray, "examples neighbours"]:
    """Finds the nearest examples of other classes for every example, tile by tile.

    Examples whose distances float32 cannot tell apart may change places. One that is not finite is
    nobody's neighbour.

    >>> nearest_of_other_classes(np.array([[0.0], [1.0], [3.0]]), np.array([0, 0, 1]), neighbours=2)
    array([[ 2, -1],
           [ 2, -1],
           [ 1,  0]], dtype=int32)

    Args:
      embeddings: the embedding of every example.
      labels: the class of every example, any integer.
      neighbours: how many to find for each example; at most the number of examples.

    Returns:
      Their positions, by rising Euclidean distance; among equal distances the smaller position
      comes first. -1 fills the row of an example that has fewer.

    Raises:
      InputError: `neighbours` is out of range.
    """
    if not 1 <= neighbours <= len(labels):
        raise errors.InputError(
            f"neighbours={neighbours} must be in [1, {len(labels)}]: there are no more examples."
        )
    _, code = np.unique(labels, return_inverse=True)
    found = _nearest(
        jnp.asarray(embeddings, jnp.float32), jnp.asarray(code, jnp.int32), neighbours=neighbours
    )
    return np.asarray(found)


@functools.partial(jax.jit, static_argnames="neighbours")
def _nearest(
    embeddings: Float[Array, "examples dim"], labels: Int[Array, "examples"], *, neighbours: int
) -> Int[Array, "examples neighbours"]:
    rank = evaluation.make_ranking(embeddings, "euclidean").values
    finite = jnp.all(jnp.isfinite(embeddings), axis=1)

    def of_tile(
        rows: Int[Array, "tile"], some: Float[Array, "tile dim"]
    ) -> Int[Array, "tile neighbours"]:
        own = jnp.take(labels, rows, mode="clip")[:, None] == labels
        hidden = own | ~finite
        value, position = jax.lax.top_k(jnp.where(hidden, -jnp.inf, rank(some)), neighbours)
        return jnp.where(jnp.isfinite(value), position, -1)

    return evaluation.by_tiles(of_tile, embeddings)


def write(
    path: pathlib.Path,
    near: Int[np.ndarray, "examples neighbours"],
    *,
    examples: data.Dataset,
    model: dict,
) -> None:
    """Saves a table with what it belongs to, whole or not at all.

    Args:
      path: the .npz file.
      near: the table, from `nearest_of_other_classes`.
      examples: the training examples, in the order of the table.
      model: the description of the model that embedded them, as JSON can hold it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = data.fingerprint(examples)
    files.write_arrays(path, near=near, data=mark, model=json.dumps(model, sort_keys=True))


def read(
    path: str, *, examples: data.Dataset, model: dict, neighbours: int
) -> Int[np.ndarray, "examples neighbours"]:
    """Reads what `write` saved.

    Args:
      path: the file.
      examples: the training examples that the table must belong to.
      model: the description of the model that must have embedded them.
      neighbours: how many neighbours of each example are wanted.

    Raises:
      InputError: the file cannot be read, belongs to other examples or another model, or has
        fewer neighbours.
    """
    near, mark, by = files.read_arrays(path, ("near", "data", "model"))
    if str(mark) != data.fingerprint(examples):
        raise errors.InputError(
            f"path={path!r} belongs to other training examples. Take a file from a run on the same"
            " examples."
        )
    if str(by) != json.dumps(model, sort_keys=True):
        raise errors.InputError(
            f"path={path!r} is by another model, {by}, and this is"
            f" {json.dumps(model, sort_keys=True)}. Take a file from a run with the same model."
        )
    whole = near.ndim == 2 and np.issubdtype(near.dtype, np.integer) and len(near) == len(examples)
    if not whole or near.min(initial=0) < -1 or near.max(initial=-1) >= len(examples):
        raise errors.InputError(f"path={path!r} is damaged: its table does not hold positions.")
    if near.shape[1] < neighbours:
        raise errors.InputError(
            f"path={path!r} has {near.shape[1]} neighbours of each example: set"
            f" neighbours={near.shape[1]}."
        )
    return near[:, :neighbours].astype(np.int32)
