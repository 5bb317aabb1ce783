"""Which classes a batch learns most from: those a reference run tells apart and this one does not.

Evans, Parthasarathy, Merzic and Hénaff 2024, "Data curation via joint example selection further
accelerates multimodal learning" (JEST), https://arxiv.org/abs/2406.17711. A batch is chosen out of
a larger one by the learner's loss minus that of a reference: what is hard for both is noise, and
what is easy for both is known. Theirs is of examples and a contrastive loss. Ours is of classes and
triplets, since a batch for triplets has whole classes.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from triplet_jax import distances, penalties


def confusion(
    embeddings: Float[Array, "batch dim"],
    *,
    per_class: int,
    metric: str | Callable[..., distances.Metric] = "euclidean",
    margin: Float[Array, ""] | float = 0.2,
    **params: float,
) -> Float[Array, "classes classes"]:
    """How much each class is confused with each other class.

        h_ab = mean over anchors i and positives p of class a, and negatives n of class b, of
               max(0, d_ip - d_in + margin)

    Args:
      embeddings: `per_class` rows of each class, class after class.
      per_class: K, at least 2.
      metric: as `distances.pairwise` takes it, with its `params`.
      margin: of the hinge, in the units of the metric.

    Returns:
      h, whose diagonal is 0.

    Example:
      Two classes of two points stand on a line, at 0 and 1, and at 3 and 4.

      >>> import jax.numpy as jnp
      >>> from triplet_jax.curricula import learnability
      >>> x = jnp.array([[0.0], [1.0], [3.0], [4.0]])
      >>> print(learnability.confusion(x, per_class=2, margin=2.0))
      [[0.   0.25]
       [0.25 0.  ]]
    """
    classes = len(embeddings) // per_class
    d = distances.pairwise(embeddings, embeddings, metric=metric, **params)
    d = d.reshape(classes, per_class, classes, per_class)
    own = d[jnp.arange(classes), :, jnp.arange(classes)]
    is_other = ~jnp.eye(per_class, dtype=bool)

    def of_class(to_own, to_all):
        """The row of one class, of distances to its own examples and to all."""
        cost = penalties.hinge(to_own[:, :, None, None], to_all[:, None], margin)
        return jnp.mean(cost, axis=(0, 1, 3), where=is_other[:, :, None, None])

    # A class at a time, since all triplets at once would take memory.
    rows = jax.lax.map(lambda row: of_class(*row), (own, d))
    return jnp.where(jnp.eye(classes, dtype=bool), 0.0, rows)


def chosen(
    learner: Float[Array, "offered offered"],
    reference: Float[Array, "offered offered"],
    *,
    classes: int,
    strictness: Float[Array, ""] | float,
    key: PRNGKeyArray,
) -> Int[Array, "classes"]:
    """Draws the classes of a batch one after the other, each by what it adds to those before.

        l_ab = learner_ab + learner_ba - reference_ab - reference_ba
        score of c = mean over the classes b drawn so far of l_cb

    The next class is drawn by a softmax over the classes that are left, of `strictness` times their
    score divided by the standard deviation of l. For the first class, the mean is over all others.

    Args:
      learner: `confusion` of the offered classes by the run that learns.
      reference: `confusion` of the same classes, in the same order, by a run that has learnt.
      classes: how many are drawn, at most as many as are offered.
      strictness: 0 draws at random; the larger it is, the surer the most learnable are drawn.
      key: of the draw.

    Returns:
      The places of the drawn classes among the offered ones, in the order of the draw.

    Example:
      Only the first two of three classes are still confused, and can be told apart.

      >>> import jax
      >>> import jax.numpy as jnp
      >>> from triplet_jax.curricula import learnability
      >>> learner = jnp.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
      >>> drawn = learnability.chosen(
      ...     learner, 0.0 * learner, classes=2, strictness=100.0, key=jax.random.key(0)
      ... )
      >>> print(sorted(map(int, drawn)))
      [0, 1]
    """
    count = len(learner)
    of_pairs = learner + learner.T - reference - reference.T
    apart = ~jnp.eye(count, dtype=bool)
    deviation = jnp.std(of_pairs, where=apart)
    of_pairs = jnp.where(apart, of_pairs, 0.0) / jnp.where(deviation > 0, deviation, 1.0)
    to_all = jnp.sum(of_pairs, axis=1) / max(count - 1, 1)

    def draw(so_far, key):
        is_left, total, drawn = so_far
        score = jnp.where(drawn > 0, total / jnp.maximum(drawn, 1), to_all)
        # The largest of scores with Gumbel noise is a draw from their softmax.
        ticket = strictness * score + jax.random.gumbel(key, (count,))
        one = jnp.argmax(jnp.where(is_left, ticket, -jnp.inf))
        return (is_left.at[one].set(False), total + of_pairs[one], drawn + 1), one

    nothing = jnp.ones(count, bool), jnp.zeros(count, of_pairs.dtype), jnp.int32(0)
    _, places = jax.lax.scan(draw, nothing, jax.random.split(key, classes))
    return places
