"""The exact gradient of a loss over a batch whose activations do not fit into memory.

Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"
(GradCache), https://arxiv.org/abs/2101.06983. A loss over a batch needs all embeddings at once, but
not all activations. The batch is embedded part by part, the loss gives the gradient of every
embedding, and the parts are embedded a second time, each with its own backward pass.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


class Found(NamedTuple):
    """What was found of a batch, beside the gradient in the parameters."""

    # Any, since jax also puts shapes, shardings and None in place of arrays.
    value: Any
    aux: Any
    """What the loss gives beside its value."""
    embeddings: Any
    of_embeddings: Any
    """The gradient in the embeddings."""
    statistics: Any
    """Those of the encoder after the batch."""


def value_and_grad(
    embed: Callable[[PyTree, PyTree, Any], tuple[Float[Array, "part dim"], PyTree]],
    loss: Callable[[Float[Array, "batch dim"], PyTree], tuple[Float[Array, ""], Any]],
    parameters: tuple[PyTree, PyTree],
    statistics: PyTree,
    parts: Sequence[Any],
) -> tuple[Found, tuple[PyTree, PyTree]]:
    """The loss of a batch in parts, and its gradient.

    One part is embedded once; of several, each is embedded twice. The gradient is that of the whole
    batch, except where batch normalisation takes its statistics from a part.

    Args:
      embed: `(params, statistics, part) -> (embeddings, statistics)`.
      loss: `(embeddings, learned) -> (value, aux)`.
      parameters: `params` of the encoder, and what the loss learns.
      statistics: of the encoder, such as running means; each part gets those after the one before.
      parts: the batch, cut into parts of one size.

    Returns:
      What was found, and the gradient in `parameters`.
    """
    params, learned = parameters
    both = jax.value_and_grad(loss, (0, 1), has_aux=True)
    if len(parts) == 1:

        def whole(params):
            return embed(params, statistics, parts[0])

        embeddings, pull, after = jax.vjp(whole, params, has_aux=True)
        (value, aux), (of_embeddings, of_learned) = both(embeddings, learned)
        found = Found(value, aux, embeddings, of_embeddings, after)
        return found, (pull(of_embeddings)[0], of_learned)

    embedded, after = [], statistics
    for part in parts:
        found, after = embed(params, after, part)
        embedded.append(found)
    embeddings = jnp.concatenate(embedded)
    (value, aux), (of_embeddings, of_learned) = both(embeddings, learned)
    of_params = jax.tree.map(jnp.zeros_like, params)
    for part, slopes in zip(parts, jnp.split(of_embeddings, len(parts)), strict=True):
        # The parameters of a part depend on the gradient so far, so that parts are embedded one
        # after the other. Without that the compiler merges both embeddings of a part, and keeps its
        # activations. (On a CPU an optimization_barrier is removed before the compiler merges.)
        wait = 0.0 * (slopes[0, 0] + sum(x.reshape(-1)[0] for x in jax.tree.leaves(of_params)))
        again = jax.tree.map(lambda p, wait=wait: p + wait, params)
        _, pull = jax.vjp(lambda p, part=part: embed(p, statistics, part)[0], again)
        of_params = jax.tree.map(jnp.add, of_params, pull(slopes)[0])
    return Found(value, aux, embeddings, of_embeddings, after), (of_params, of_learned)
