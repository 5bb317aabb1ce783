"""Few-shot classification, in episodes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from triplet_jax import arguments, errors


def few_shot(
    embeddings: arguments.Embeddings,
    labels: arguments.Labels,
    *,
    ways: int,
    shots: int,
    episodes: int,
    seed: int,
    queries: int = 5,
    groups: arguments.Labels | None = None,
) -> dict[str, int | float]:
    """The accuracy of classification by the nearest prototype, the mean of a class's shots.

    An episode draws `ways` classes, and from each, without replacement, `shots` examples for the
    prototype and `queries` examples to classify by the Euclidean distance. A query that is as near
    to the prototype of another class counts as wrong, and so does one that is not finite, or whose
    prototype is not. Prototypical networks of Snell, Swersky and Zemel 2017,
    https://arxiv.org/abs/1703.05175.

    Args:
      embeddings: the examples, `[examples, dim]` of any number type, taken as float32.
      labels: their classes, a list or an array of shape `[examples]`, of whole numbers or strings.
      ways: classes in an episode.
      shots: examples of a prototype.
      episodes: how many episodes.
      seed: of the draws.
      queries: examples to classify from each class.
      groups: the group of every example, or None. The classes of an episode then share a group,
        which is drawn first. A class is in the group of its first example. With Omniglot's
        alphabets as groups this is the harder task of Lake, Salakhutdinov and Tenenbaum 2015,
        https://doi.org/10.1126/science.aab3050.

    Returns:
      `accuracy`, the mean over episodes; `ci95`, half the width of its 95% interval, 1.96 standard
      errors, NaN for one episode; `examples_not_finite`, the number of rows with NaN or infinite
      values; and `episodes`, `ways`, `shots` and `queries`.

    Raises:
      InputError: there are too few classes with `shots + queries` examples, `shots`, `queries` or
        `episodes` is below 1, `ways` is below 2, or an array has another shape or type.

    Example:
      >>> from triplet_jax import evaluation
      >>> x, labels = [[0.0], [0.1], [5.0], [5.1]], ["a", "a", "b", "b"]
      >>> found = evaluation.few_shot(x, labels, ways=2, shots=1, queries=1, episodes=10, seed=0)
      >>> print(found["accuracy"])
      1.0
    """
    embeddings = arguments.embeddings(embeddings)
    _, labels = arguments.codes(labels, embeddings.shape)
    if groups is not None:
        _, groups = arguments.codes(groups, embeddings.shape, name="groups")
    if min(shots, queries, episodes) < 1:
        raise errors.InputError(
            f"shots={shots}, queries={queries} and episodes={episodes} must be at least 1 each."
        )
    if ways < 2:
        raise errors.InputError(f"ways={ways} must be at least 2, or no query can be wrong.")
    pools = _episode_pools(labels, groups, ways, shots + queries)
    random = np.random.default_rng(seed)
    chosen = np.empty((episodes, ways, shots + queries), np.int64)
    for episode in range(episodes):
        pool = pools[random.integers(len(pools))]
        for way, c in enumerate(random.choice(len(pool), ways, replace=False)):
            chosen[episode, way] = random.choice(pool[c], shots + queries, replace=False)
    accuracy = np.asarray(_episode_accuracy(jnp.asarray(embeddings), jnp.asarray(chosen), shots))
    return {
        "accuracy": float(accuracy.mean()),
        "ci95": 1.96 * float(accuracy.std(ddof=1)) / math.sqrt(episodes)
        if episodes > 1
        else math.nan,
        "examples_not_finite": int((~np.isfinite(embeddings).all(axis=1)).sum()),
        "episodes": episodes,
        "ways": ways,
        "shots": shots,
        "queries": queries,
    }


def _episode_pools(labels, groups, ways, needed):
    """The pools of classes that an episode draws from: one, or one for every group."""
    members = {c: np.flatnonzero(labels == c) for c in np.unique(labels)}
    members = {c: m for c, m in members.items() if len(m) >= needed}
    if groups is None:
        pools = [list(members.values())]
    else:
        of_group: dict[int, list] = {}
        for m in members.values():
            of_group.setdefault(int(groups[m[0]]), []).append(m)
        pools = [of_group[g] for g in sorted(of_group)]
    most = max(map(len, pools), default=0)
    if most < ways:
        where = "there are only" if groups is None else "no group has more than"
        raise errors.InputError(
            f"ways={ways} with {needed} examples each: {where} {most} classes with that many"
            " examples. Use fewer ways, shots or queries."
        )
    return [pool for pool in pools if len(pool) >= ways]


@functools.partial(jax.jit, static_argnames="shots")
def _episode_accuracy(
    embeddings: Float[Array, "examples dim"],
    chosen: Int[Array, "episodes ways per_way"],
    shots: int,
) -> Float[Array, "episodes"]:
    def of_episode(positions):
        examples = embeddings[positions]
        prototypes = examples[:, :shots].mean(axis=1)
        questions = examples[:, shots:].reshape(-1, examples.shape[-1])
        # Measured as differences, so that equal distances come out equal.
        squared = jnp.sum((questions[:, None] - prototypes) ** 2, axis=2)
        squared = jnp.where(jnp.isnan(squared), jnp.inf, squared)
        of_query = jnp.arange(len(questions)) // (positions.shape[1] - shots)
        is_own = of_query[:, None] == jnp.arange(len(prototypes))
        to_own = jnp.min(jnp.where(is_own, squared, jnp.inf), axis=1)
        to_others = jnp.min(jnp.where(is_own, jnp.inf, squared), axis=1)
        return jnp.mean(to_own < to_others)

    return jax.lax.map(of_episode, chosen)
