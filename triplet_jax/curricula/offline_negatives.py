"""Offline mining: for every training example the nearest of other classes, over the whole set.

Harwood et al. 2017, "Smart Mining for Deep Metric Learning", and the hard-class batches of the
field: a batch sees the hardest negatives of a handful of classes, the whole set has harder ones.
`sampling.pk_batch` draws from the table that is made here.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from triplet_jax import data, errors, evaluation
from triplet_jax.runs import files


def nearest_of_other_classes(
    embeddings: Float[np.ndarray, "examples dim"],
    labels: Int[np.ndarray, "examples"],
    *,
    neighbours: int,
) -> Int[np.ndarray, "examples neighbours"]:
    """The nearest examples of another class, nearest first; exact, a tile of examples at a time.

    Args:
      embeddings: of all examples.
      labels: their classes; any integers.
      neighbours: how many, at most the number of examples.

    Returns:
      Positions of examples by Euclidean distance, of equally near ones the smaller first; -1
      where there are not as many of other classes.
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
def _nearest(embeddings, labels, *, neighbours):
    rank = evaluation.make_ranking(embeddings, "euclidean").values

    def of_tile(rows, some):
        own = jnp.take(labels, rows, mode="clip")[:, None] == labels
        value, position = jax.lax.top_k(jnp.where(own, -jnp.inf, rank(some)), neighbours)
        return jnp.where(jnp.isfinite(value), position, -1)

    return evaluation.by_tiles(of_tile, embeddings)


def write(
    path: pathlib.Path,
    near: Int[np.ndarray, "examples neighbours"],
    *,
    examples: data.Dataset,
    model: dict,
) -> None:
    """Saves a table whole or not at all, with what it is of.

    Args:
      path: the file, .npz.
      near: the table.
      examples: the training examples, in their order.
      model: the fields of the model that embedded them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = data.fingerprint(examples)
    files.write_arrays(path, near=near, data=mark, model=json.dumps(model, sort_keys=True))


def read(
    path: str, *, examples: data.Dataset, model: dict, neighbours: int
) -> Int[np.ndarray, "examples neighbours"]:
    """What `write` saved.

    Args:
      path: the file.
      examples: the training examples it has to be of.
      model: the fields of the model it has to be by.
      neighbours: how many of each are wanted.

    Raises:
      InputError: it cannot be read, or is of other examples, by another model, or of fewer
        neighbours.
    """
    near, mark, by = data.read_arrays(path, ("near", "data", "model"))
    if str(mark) != data.fingerprint(examples):
        raise errors.InputError(
            f"path={path!r} is of other training examples. Take a file from a run on the same"
            " examples."
        )
    if str(by) != json.dumps(model, sort_keys=True):
        raise errors.InputError(
            f"path={path!r} is by another model, {by}, and this is"
            f" {json.dumps(model, sort_keys=True)}. Take a file from a run with the same"
            " model."
        )
    whole = near.ndim == 2 and np.issubdtype(near.dtype, np.integer) and len(near) == len(examples)
    if not whole or near.min(initial=0) < -1 or near.max(initial=-1) >= len(examples):
        raise errors.InputError(f"path={path!r} is damaged: its table is none of positions.")
    if near.shape[1] < neighbours:
        raise errors.InputError(
            f"path={path!r} has {near.shape[1]} neighbours of each example: set"
            f" neighbours={near.shape[1]}."
        )
    return near[:, :neighbours].astype(np.int32)
