"""Regularisers: terms that depend on the embeddings of a batch and are added to a loss.

Each is a pure function `(embeddings, labels, *, mask, axis_name) -> value`. The value is one number
over the global batch, the same on every device and for every number of devices.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from triplet_jax import arguments, distances
from triplet_jax.devices import collectives
from triplet_jax.engine import terms
from triplet_jax.engine.coding_rate import coding_rate

ANCHORS = 1024
"""The most rows of a device that are compared with all others at a time."""
SLACK = 0.01
"""The share of the mean cosine by which `pair_variance` lets the others differ from it."""
BINS = 100
"""The parts into which `histogram` divides the cosines."""
NEAR, FAR = 0.9, 0.5
"""The thresholds of `threshold_consistency`: cosines within a class should be above NEAR, and those
between classes below FAR."""


def norm(
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels,
    *,
    mask: Bool[Array | np.ndarray, "batch"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """The mean of `|e|^2`: keeps embeddings short where their length is free.

    A batch without rows that count has the value 0. The regulariser of Sohn 2016, "Improved Deep
    Metric Learning with Multi-class N-pair Loss Objective",
    https://papers.nips.cc/paper/2016/hash/6b180037abbebea991d8b1232f8a8ca9-Abstract.html.

    Args:
      embeddings: this device's rows, `[batch, dim]`.
      labels: not used.
      mask: which rows count; None for all.
      axis_name: the name of the device axis inside `pmap` or `shard_map`.

    Returns:
      The value, in squared units of the embeddings.

    Raises:
      InputError: an array has another shape or type than it should.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import regularisers
      >>> print(regularisers.norm(jnp.array([[3.0, 4.0], [1.0, 0.0]]), [0, 1]))  # (25 + 1) / 2
      13.0
    """
    embeddings = arguments.rows("embeddings", embeddings)
    counts = arguments.counted("mask", mask, len(embeddings))
    squares = jnp.sum(jnp.where(counts[:, None], embeddings, 0.0) ** 2, axis=1)
    total, rows = collectives.total((jnp.sum(squares), jnp.sum(counts)), axis_name)
    return total / jnp.maximum(rows, 1)


def spread(
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels,
    *,
    mask: Bool[Array | np.ndarray, "batch"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Spreads classes over the sphere, as if their directions were drawn at random.

        M1^2 + max(0, M2 - 1 / dim)

    M1 is the mean cosine over all pairs of different classes, and M2 the mean squared cosine. Of
    random directions they are 0 and 1 / dim. Global orthogonal regularisation of Zhang, Yu, Kumar
    and Chang 2017, "Learning Spread-out Local Feature Descriptors",
    https://arxiv.org/abs/1708.06320. There pairs are drawn; here all pairs of the global batch
    count. At most `ANCHORS` rows of a device are compared at a time, so memory is about `ANCHORS *
    global batch` numbers.

    Args:
      embeddings: this device's rows, `[batch, dim]`, of any length.
      labels: their classes.
      mask: which rows count; None for all.
      axis_name: the name of the device axis inside `pmap` or `shard_map`.

    Returns:
      The value; 0 where no two rows that count are of different classes.

    Raises:
      InputError: an array has another shape or type than it should.

    Example:
      The only cosine between the two classes is 1, so the value is 1^2 + (1 - 1/2).

      >>> import jax.numpy as jnp
      >>> from triplet_jax import regularisers
      >>> print(regularisers.spread(jnp.array([[1.0, 0.0], [2.0, 0.0]]), [0, 1]))
      1.5
    """
    pairs = _Pairs.of(embeddings, labels, mask, axis_name)

    def of_anchor(cosine, same, differ):
        del same
        cosine = jnp.where(differ, cosine, 0.0)
        return jnp.sum(cosine), jnp.sum(cosine**2), jnp.sum(differ, dtype=jnp.float32)

    first, second, number = pairs.sums(of_anchor)
    number = jnp.maximum(number, 1)
    return (first / number) ** 2 + jax.nn.relu(second / number - 1.0 / pairs.all_rows.shape[1])


def pair_variance(
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels,
    *,
    mask: Bool[Array | np.ndarray, "batch"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Makes the cosines within classes alike, and those between classes.

        mean_p max(0, (1 - SLACK) mean(s_p) - s_p)^2 + mean_n max(0, s_n - (1 + SLACK) mean(s_n))^2

    p runs over all pairs of one class of the global batch, and n over those of two. Only positives
    that are less alike than the mean cost, and negatives that are more alike. The gradient runs
    through the means. Intra-pair variance of Yu and Tao 2019, "Deep Metric Learning with Tuplet
    Margin Loss", https://doi.org/10.1109/ICCV.2019.00659, who add it to `tuplet_margin`. Memory is
    that of `spread`.

    Args:
      embeddings: this device's rows, `[batch, dim]`, of any length.
      labels: their classes.
      mask: which rows count; None for all.
      axis_name: the name of the device axis inside `pmap` or `shard_map`.

    Returns:
      The value; a mean over no pairs is 0.

    Raises:
      InputError: an array has another shape or type than it should.

    Example:
      The cosines within the class are 0, 0 and 1 in either direction. Their mean is 1/3.

      >>> import jax.numpy as jnp
      >>> from triplet_jax import regularisers
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> print(f"{regularisers.pair_variance(x, [0, 0, 0]):.4f}")  # 2/3 (0.99 / 3)^2
      0.0726
    """
    pairs = _Pairs.of(embeddings, labels, mask, axis_name)

    def totals(cosine, same, differ):
        return _of_both(cosine, cosine, same, differ), _of_both(1.0, 1.0, same, differ)

    total, number = pairs.sums(totals)
    number = jnp.maximum(number, 1)
    near, far = total / number

    def squares(cosine, same, differ):
        below = jax.nn.relu((1.0 - SLACK) * near - cosine) ** 2
        above = jax.nn.relu(cosine - (1.0 + SLACK) * far) ** 2
        return _of_both(below, above, same, differ)

    return jnp.sum(pairs.sums(squares) / number)


def threshold_consistency(
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels,
    *,
    mask: Bool[Array | np.ndarray, "batch"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Holds the cosines within and between classes beyond two thresholds that all classes share.

        mean over s_p <= NEAR of (NEAR - s_p) + mean over s_n >= FAR of (s_n - FAR)

    p runs over all pairs of one class of the global batch, and n over those of two. One threshold
    then suits every class of a verification. Threshold-consistent margin of Zhang et al. 2024,
    https://arxiv.org/abs/2307.04047, with equal weights of both. Memory is that of `spread`.

    Args:
      embeddings: this device's rows, `[batch, dim]`, of any length.
      labels: their classes.
      mask: which rows count; None for all.
      axis_name: the name of the device axis inside `pmap` or `shard_map`.

    Returns:
      The value; a mean over no pairs is 0.

    Raises:
      InputError: an array has another shape or type than it should.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import regularisers
      >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> print(f"{regularisers.threshold_consistency(x, [0, 0]):.1f}")  # 0.9 - 0
      0.9
    """
    pairs = _Pairs.of(embeddings, labels, mask, axis_name)

    def of_anchor(cosine, same, differ):
        below, above = same & (cosine <= NEAR), differ & (cosine >= FAR)
        cost = _of_both(NEAR - cosine, cosine - FAR, below, above)
        return cost, _of_both(1.0, 1.0, below, above)

    cost, number = pairs.sums(of_anchor)
    return jnp.sum(cost / jnp.maximum(number, 1))


def histogram(
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels,
    *,
    mask: Bool[Array | np.ndarray, "batch"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """The chance that a pair of two classes is more alike than a pair of one class.

        sum_j h_j- (h_0+ + ... + h_j+)

    h_j+ is the share of the cosines at edge j of `BINS` equal parts of [-1, 1], over all pairs of
    one class of the global batch, and h_j- that over the pairs of two; each cosine is shared by the
    two edges around it. Histogram loss of Ustinova and Lempitsky 2016,
    https://arxiv.org/abs/1611.00822. Memory is that of `spread`.

    Args:
      embeddings: this device's rows, `[batch, dim]`, of any length.
      labels: their classes.
      mask: which rows count; None for all.
      axis_name: the name of the device axis inside `pmap` or `shard_map`.

    Returns:
      The value, from 0 to 1; 0 where no two rows are of one class, or of two.

    Raises:
      InputError: an array has another shape or type than it should.

    Example:
      The cosine within the class is 0. One of the cosines to the other class is 0, and one is -1.

      >>> import jax.numpy as jnp
      >>> from triplet_jax import regularisers
      >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
      >>> print(regularisers.histogram(x, [0, 0, 1]))
      0.5
    """

    def counts(cosine, where):
        at = (jnp.clip(cosine, -1.0, 1.0) + 1.0) * (BINS / 2)
        edge = jnp.minimum(jax.lax.stop_gradient(at).astype(jnp.int32), BINS - 1)
        beyond = jnp.where(where, at - edge, 0.0)
        below = jnp.where(where, 1.0, 0.0) - beyond
        return jnp.zeros(BINS + 1).at[edge].add(below).at[edge + 1].add(beyond)

    def of_anchor(cosine, same, differ):
        found = jnp.stack([counts(cosine, same), counts(cosine, differ)])
        return found, _of_both(1.0, 1.0, same, differ)

    found, number = _Pairs.of(embeddings, labels, mask, axis_name).sums(of_anchor)
    near, far = found / jnp.maximum(number, 1)[:, None]
    return jnp.sum(far * jnp.cumsum(near))


def variance(
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels,
    *,
    mask: Bool[Array | np.ndarray, "batch"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Keeps every value of the embeddings spread out over the batch, so that they can't collapse.

        mean over values j of max(0, 1 - sqrt(var_j + 0.0001))

    var_j is the variance of value j over the rows of the global batch, whose length has to be
    free. The second term of VICReg, Bardes, Ponce and LeCun 2022, https://arxiv.org/abs/2105.04906.
    There each of two views has its own variance; here a batch has one.

    Args:
      embeddings: this device's rows, `[batch, dim]`.
      labels: not used.
      mask: which rows count; None for all.
      axis_name: the name of the device axis inside `pmap` or `shard_map`.

    Returns:
      The value, from 0 to 1; 0 for fewer than two rows.

    Raises:
      InputError: an array has another shape or type than it should.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import regularisers
      >>> x = jnp.array([[2.0, 0.0], [-2.0, 0.0]])
      >>> print(f"{regularisers.variance(x, [0, 1]):.3f}")  # (0 + 1 - 0.01) / 2
      0.495
    """
    del labels
    centred, rows = _centred(embeddings, mask, axis_name)
    squares = collectives.total(jnp.sum(centred**2, axis=0), axis_name)
    deviation = jnp.sqrt(squares / jnp.maximum(rows - 1, 1) + 1e-4)
    return jnp.where(rows > 1, jnp.mean(jax.nn.relu(1.0 - deviation)), 0.0)


def covariance(
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels,
    *,
    mask: Bool[Array | np.ndarray, "batch"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Makes the values of the embeddings independent of each other.

        sum over values i != j of cov_ij^2 / dim

    cov_ij is the covariance over the rows of the global batch. The third term of VICReg, Bardes,
    Ponce and LeCun 2022, https://arxiv.org/abs/2105.04906, here of all rows, as in `variance`.

    Args:
      embeddings: this device's rows, `[batch, dim]`.
      labels: not used.
      mask: which rows count; None for all.
      axis_name: the name of the device axis inside `pmap` or `shard_map`.

    Returns:
      The value; 0 for fewer than two rows.

    Raises:
      InputError: an array has another shape or type than it should.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import regularisers
      >>> x = jnp.array([[1.0, 1.0], [-1.0, -1.0]])
      >>> print(regularisers.covariance(x, [0, 1]))  # 2^2, twice, over 2
      4.0
    """
    del labels
    centred, rows = _centred(embeddings, mask, axis_name)
    products = collectives.total(distances.product(centred.T, centred), axis_name)
    of_others = products / jnp.maximum(rows - 1, 1) * (1.0 - jnp.eye(len(products)))
    return jnp.sum(of_others**2) / len(products)


class _Pairs(NamedTuple):
    """This device's rows, and those of all devices that they are paired with."""

    own: tuple[Array, ...]
    """Of each row its direction, its label, whether it counts, and its place in the batch."""
    all_rows: Float[Array, "rows dim"]
    all_labels: Int[Array, "rows"]
    all_counts: Bool[Array, "rows"]
    axis_name: str | None

    @classmethod
    def of(cls, embeddings, labels, mask, axis_name):
        """The pairs of a batch."""
        embeddings = arguments.rows("embeddings", embeddings)
        labels = arguments.class_numbers("labels", labels, len(embeddings))
        counts = jnp.asarray(arguments.counted("mask", mask, len(embeddings)))
        embeddings, labels, counts = collectives.whole((embeddings, labels, counts))
        kept = jnp.where(counts[:, None], embeddings, 0.0)
        mine = distances.unit(kept), labels, counts
        places = collectives.own_rows(len(labels), axis_name)
        return cls((*mine, places), *collectives.gather(mine, axis_name), axis_name)

    def sums(self, of_anchor: Callable) -> PyTree:
        """The sums over all pairs of what `of_anchor(cosine, same, differ)` gives of a row.

        It is given the cosines to all rows, and which of them are other rows of the same class, and
        which are of another class.
        """

        def of_row(anchor):
            row, label, counts, place = anchor
            counted = counts & self.all_counts
            cosine = distances.product(self.all_rows, row[:, None])[:, 0]
            itself = jnp.arange(len(cosine)) == place
            same = (label == self.all_labels) & counted & ~itself
            return of_anchor(cosine, same, (label != self.all_labels) & counted)

        of_rows = terms.in_parts(of_row, self.own, ANCHORS)
        sums = jax.tree.map(lambda x: jnp.sum(x, axis=0), of_rows)
        return collectives.total(sums, self.axis_name)


def _of_both(near, far, same, differ):
    """The sums of one value over the pairs of a class, and of another over those of two."""
    return jnp.stack([jnp.sum(jnp.where(same, near, 0.0)), jnp.sum(jnp.where(differ, far, 0.0))])


def _centred(embeddings, mask, axis_name):
    """This device's rows less the mean of all, those that do not count as 0; and how many count."""
    embeddings = arguments.rows("embeddings", embeddings)
    counts = arguments.counted("mask", mask, len(embeddings))
    kept = jnp.where(counts[:, None], embeddings, 0.0)
    total, rows = collectives.total((jnp.sum(kept, axis=0), jnp.sum(1.0 * counts)), axis_name)
    mean = total / jnp.maximum(rows, 1)
    return jnp.where(counts[:, None], embeddings - mean, 0.0), rows


REGULARISERS: dict[str, Callable[..., Float[Array, ""]]] = {
    "coding_rate": coding_rate,
    "covariance": covariance,
    "histogram": histogram,
    "norm": norm,
    "pair_variance": pair_variance,
    "spread": spread,
    "threshold_consistency": threshold_consistency,
    "variance": variance,
}
