"""Miners: which triplets of one anchor count, and how much.

A miner is a pure function of one anchor:

    miner(to_positives, is_positive, to_negatives, is_negative) -> Triplets

`to_positives` are distances `[positives]`, of which those where `is_positive` is false
are padding; `to_negatives` likewise `[negatives]`. Its answer takes one of two forms:

* picks, of no dimension or of one: every distance is one of those it was given, and names
  the candidate that it belongs to. Which is picked is not differentiated.
* all pairs `[positives, negatives]`, of shapes that broadcast. The gradient runs through
  the miner, so that here distances may also be computed, such as a mean of several.

A miner may name what else it needs by keyword and is given it: `key`, for random draws;
`dim`, of the embedding; `positives_to_negatives`, the distances `[positives, negatives]`
between candidates. Other keywords are knobs, set by `functools.partial`, and may be traced.

`losses.triplet_loss` lifts a miner over a batch, over tiles of anchors and over devices.
The rules are those of the papers named in each docstring. "Semi-hard" is used for several
of them in the field; see `semi_hard` for what it means here.

Ties: of several candidates equally far, a pick is the first in order of label and place.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from triplet_jax import errors

MANY = 512
"""Positives from which on sorting a row is faster than comparing all of it with each."""

# What a miner sees of one anchor.
ToPositives = Float[Array, "positives"]
"""Distances from the anchor to its positives, in places of a fixed number."""
IsPositive = Bool[Array, "positives"]
"""Which of these places hold a positive; the others are padding."""
ToNegatives = Float[Array, "negatives"]
"""Distances from the anchor to all candidates."""
IsNegative = Bool[Array, "negatives"]
"""Which candidates are negatives."""

Number = Float[Array, ""] | Int[Array, ""] | float | int


class Triplets(NamedTuple):
    """The triplets of one anchor. The three broadcast against each other.

    A rule that picks one triplet returns three scalars, one that picks a negative for
    every positive three arrays `[positives]`, and one that takes all of them
    `[positives, 1]`, `[1, negatives]` and a weight `[positives, negatives]`.
    """

    d_ap: Float[Array, "..."]
    """Distance from the anchor to the positive."""
    d_an: Float[Array, "..."]
    """Distance from the anchor to the negative. Finite also where the weight is 0."""
    weight: Float[Array, "..."] | Bool[Array, "..."]
    """How much the triplet counts; 0 or False where there is none."""


def separable(miner: Callable[..., Triplets]) -> Callable[..., Triplets]:
    """Marks a miner of all pairs that judges a triplet by its own two distances.

    Neither the other distances nor whether these two are equal may matter, nor anything that is
    given by keyword. `engine.half_matrix` then mines large batches in less time.
    """
    miner.is_separable = True
    return miner


def is_separable(miner: Callable[..., Triplets]) -> bool:
    """Whether the miner, or that of which it is a partial, is marked as `separable`."""
    return getattr(getattr(miner, "func", miner), "is_separable", False)


def random(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    key: PRNGKeyArray,
) -> Triplets:
    """For every positive, one negative drawn uniformly: no mining, the baseline.

    "Triplet (L_tri)" of Hermans et al. 2017, table 1.
    """
    chosen = _draw(key, 1.0 * is_negative, to_positives.shape)
    return Triplets(to_positives, to_negatives[chosen], is_positive & jnp.any(is_negative))


@separable
def batch_all(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
) -> Triplets:
    """Every positive with every negative.

    Equation 6 of Hermans et al. 2017, "In Defense of the Triplet Loss for Person
    Re-Identification". With `average="active"` it is their "batch all, != 0".
    """
    return _all_where(to_positives, is_positive, to_negatives, is_negative, True)


def batch_hard(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
) -> Triplets:
    """The farthest positive with the nearest negative: one triplet an anchor.

    `max_p d(a, p)` and `min_n d(a, n)`: equation 5 of Hermans et al. 2017. An anchor
    without a positive or without a negative has no triplet.
    """
    d_ap, any_positive = _farthest(to_positives, is_positive)
    d_an, any_negative = _nearest(to_negatives, is_negative)
    return Triplets(d_ap, d_an, any_positive & any_negative)


def semi_hard(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
) -> Triplets:
    """For every positive, the nearest negative that is farther away than it.

    `min {d(a, n) : d(a, n) > d(a, p)}`, and no triplet where no negative is farther.
    After Schroff et al. 2015, "FaceNet", equation 4, who leave the choice among such
    negatives open. There is no upper bound: a negative beyond the margin has a hinge of
    zero, so that the margin acts through the penalty alone.
    """
    d_an, found = _nearest_beyond(to_positives, to_negatives, is_negative)
    return Triplets(to_positives, d_an, is_positive & found)


def semi_hard_facenet(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    width: Number = 0.2,
    key: PRNGKeyArray,
) -> Triplets:
    """For every positive, a random negative in the band `d(a, p) < d(a, n) < d(a, p) + width`.

    Schroff et al. 2015 say in the text that semi-hard negatives "lie inside the margin";
    drawing one is how Face-recognition code reads it (insightface). No triplet where the
    band is empty. FaceNet's distances are squared: `metric="squared_euclidean"`.
    """
    gap = to_negatives - to_positives[:, None]
    inside = is_negative & (gap > 0) & (gap < width)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(len(to_positives)))
    chosen = jax.vmap(lambda key, inside: _draw(key, 1.0 * inside, ()))(keys, inside)
    return Triplets(to_positives, to_negatives[chosen], is_positive & jnp.any(inside, axis=1))


def semi_hard_tfa(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
) -> Triplets:
    """For every positive, the nearest negative farther than it, else the farthest negative.

    The rule of `triplet_semihard_loss` in TensorFlow Addons and of BatchSemiHardTripletLoss
    in sentence-transformers, both of which average over all positive pairs:
    `average="valid"`. Where every negative is nearer than the positive, the easiest stands in.
    """
    d_an, found = _nearest_beyond(to_positives, to_negatives, is_negative)
    farthest, any_negative = _farthest(to_negatives, is_negative)
    return Triplets(to_positives, jnp.where(found, d_an, farthest), is_positive & any_negative)


def semi_hard_band(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    width: Number = 0.2,
) -> Triplets:
    """All triplets with `0 < d(a, n) - d(a, p) <= width`.

    TripletMarginMiner of PyTorch Metric Learning with `type_of_triplets="semihard"`.
    """
    gap = to_negatives - to_positives[:, None]
    inside = (gap > 0) & (gap <= width)
    return _all_where(to_positives, is_positive, to_negatives, is_negative, inside)


def easy_positive_semi_hard(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
) -> Triplets:
    """The nearest positive with the nearest negative that is farther: one triplet an anchor.

    EPSHN of Xuan et al. 2020, "Improved Embeddings with Easy Positive Triplet Mining", and
    the default of BatchEasyHardMiner in PyTorch Metric Learning, so that it goes by the name
    `semi_hard_hardest_beyond` too. No triplet where no negative is farther. Their loss is
    `penalty="soft_margin"` of distances divided by a temperature.
    """
    d_ap, any_positive = _nearest(to_positives, is_positive)
    d_an, found = _nearest(to_negatives, is_negative & (to_negatives > d_ap))
    return Triplets(d_ap, d_an, any_positive & found)


def easy_positive_hard(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
) -> Triplets:
    """The nearest positive with the nearest negative: one triplet an anchor.

    EPHN of Xuan et al. 2020: an anchor need not be near all of its class.
    """
    d_ap, any_positive = _nearest(to_positives, is_positive)
    d_an, any_negative = _nearest(to_negatives, is_negative)
    return Triplets(d_ap, d_an, any_positive & any_negative)


def semi_hard_tfsim(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
) -> Triplets:
    """The farthest positive with the nearest negative beyond it, else with the farthest negative.

    One triplet an anchor: TripletLoss of TensorFlow Similarity with hard positives and
    semi-hard negatives, whose threshold is the farthest positive. (There an anchor without
    positives counts too, with a distance of 0; here it has no triplet.)
    """
    d_ap, any_positive = _farthest(to_positives, is_positive)
    d_an, found = _nearest(to_negatives, is_negative & (to_negatives > d_ap))
    farthest, any_negative = _farthest(to_negatives, is_negative)
    return Triplets(d_ap, jnp.where(found, d_an, farthest), any_positive & any_negative)


@separable
def easy(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    margin: Number = 0.2,
) -> Triplets:
    """All triplets with `d(a, n) - d(a, p) > margin`: those that a hinge has done with.

    TripletMarginMiner of PyTorch Metric Learning with `type_of_triplets="easy"`. With a
    hinge of the same margin the loss is zero; with the soft margin it is not.
    """
    inside = to_negatives - to_positives[:, None] > margin
    return _all_where(to_positives, is_positive, to_negatives, is_negative, inside)


def hard(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
) -> Triplets:
    """All triplets with `d(a, n) <= d(a, p)`: those that are ranked wrongly.

    TripletMarginMiner of PyTorch Metric Learning with `type_of_triplets="hard"`. A tie is hard.
    """
    inside = to_negatives <= to_positives[:, None]
    return _all_where(to_positives, is_positive, to_negatives, is_negative, inside)


def band(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    low: Number = 0.0,
    high: Number = 0.2,
) -> Triplets:
    """All triplets with `low <= d(a, n) - d(a, p) <= high`.

    The general form of easy, semi-hard and hard; moving the edges is a curriculum.
    """
    gap = to_negatives - to_positives[:, None]
    inside = (gap >= low) & (gap <= high)
    return _all_where(to_positives, is_positive, to_negatives, is_negative, inside)


def rank(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    n: Number = 1,
) -> Triplets:
    """For every positive, the n-th nearest negative; n = 1 is the hardest.

    No triplet for an anchor with fewer than n negatives, or for n below 1. NHardTripletsMiner
    of Open Metric Learning counts positives likewise; here all of them take part.
    """
    d_an, found = at_rank(to_negatives, is_negative, n)
    return Triplets(to_positives, jnp.broadcast_to(d_an, to_positives.shape), is_positive & found)


def rank_range(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    first: Number = 1,
    last: Number = 5,
) -> Triplets:
    """Every positive with every negative from the `first`-th to the `last`-th nearest.

    Negatives as far as the one at either end belong to the range too. A range that goes past
    the farthest negative ends there.
    """
    count = jnp.sum(is_negative)
    nearest, found = at_rank(to_negatives, is_negative, first)
    farthest, _ = at_rank(to_negatives, is_negative, jnp.clip(last, 1, count))
    inside = found & (last >= first) & (to_negatives >= nearest) & (to_negatives <= farthest)
    return _all_where(to_positives, is_positive, to_negatives, is_negative, inside[None, :])


def quantile(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    hardness: Number = 1.0,
) -> Triplets:
    """For every positive, the negative at a quantile of hardness: 1 the nearest, 0 the farthest.

    Of m negatives in order of distance the one with rank `1 + round((1 - hardness)(m - 1))`.
    It depends on the size of the batch: the nearest of many is harder than of few.
    """
    count = jnp.sum(is_negative)
    share = jnp.clip(1.0 - jnp.asarray(hardness, jnp.float32), 0.0, 1.0)
    n = 1 + jnp.round(share * (count - 1)).astype(jnp.int32)
    d_an, found = at_rank(to_negatives, is_negative, n)
    return Triplets(to_positives, jnp.broadcast_to(d_an, to_positives.shape), is_positive & found)


def batch_hard_skip(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    fraction: Number = 0.05,
) -> Triplets:
    """Batch-hard after leaving out the hardest share of each anchor's candidates.

    Of m negatives the nearest `floor(fraction m)` are skipped, and of the positives likewise
    the farthest: with wrong labels, the extremes are most often the wrong ones (Schroff et
    al. 2015, section 3.2; Hermans et al. 2017). `fraction=0` is batch-hard.
    """

    # A share of 0.3 of 10 is 3 in spite of rounding.
    def skipped(where):
        return jnp.floor(fraction * jnp.sum(where) + 1e-4).astype(jnp.int32)

    kept = jnp.sum(is_positive) - skipped(is_positive)
    d_ap, any_positive = at_rank(to_positives, is_positive, kept)
    d_an, any_negative = at_rank(to_negatives, is_negative, 1 + skipped(is_negative))
    return Triplets(d_ap, d_an, any_positive & any_negative)


def distance_weighted(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    dim: int,
    cutoff: Number = 0.5,
    farthest: Number = 1.4,
    key: PRNGKeyArray,
) -> Triplets:
    """For every positive, a negative drawn so that all distances come up alike.

    `P(n) ~ 1 / q(max(d, cutoff))` for `d < farthest`, and 0 beyond, where
    `q(d) ~ d^(dim - 2) (1 - d^2 / 4)^((dim - 3) / 2)` is the density of distances between
    random points of the unit sphere: Wu et al. 2017, "Sampling Matters in Deep Embedding
    Learning", section 4. For euclidean distances of unit vectors. The weights are taken
    relative to the anchor's largest, so that they do not vanish in high dimensions. An anchor
    with no negative nearer than `farthest` has no triplet.

    Raises:
      InputError: `cutoff` is 0 or less, at which a negative at distance 0 would weigh infinitely.
        A traced one counts as 1e-6 at least.
    """
    if not isinstance(cutoff, jax.Array) and not cutoff > 0:
        raise errors.InputError(
            f"cutoff={cutoff} must be above 0, or a negative at distance 0 weighs infinitely: the"
            " paper has 0.5."
        )
    within = is_negative & (to_negatives < farthest)
    d = jnp.clip(to_negatives, jnp.maximum(cutoff, 1e-6), 1.999)
    log_q = (dim - 2) * jnp.log(d) + 0.5 * (dim - 3) * jnp.log1p(-0.25 * d * d)
    relative = -log_q - jnp.max(-log_q, where=within, initial=-jnp.inf)
    weights = jnp.where(within, jnp.exp(jnp.where(within, relative, 0.0)), 0.0)
    chosen = _draw(key, weights, to_positives.shape)
    return Triplets(to_positives, to_negatives[chosen], is_positive & jnp.any(within))


def boltzmann(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    beta: Number = 1.0,
    key: PRNGKeyArray,
) -> Triplets:
    """One positive drawn from `exp(beta d)` and one negative from `exp(-beta d)` an anchor.

    beta = 0 draws uniformly, beta = infinity is batch-hard. Beyer's "batch sample", with
    beta = 1, in the code of Hermans et al. 2017 (triplet-reid, branch sampling).
    """
    positive_key, negative_key = jax.random.split(key)
    p = _draw(positive_key, _boltzmann(-to_positives, is_positive, beta), ())
    n = _draw(negative_key, _boltzmann(to_negatives, is_negative, beta), ())
    found = jnp.any(is_positive) & jnp.any(is_negative)
    return Triplets(to_positives[p], to_negatives[n], found)


def multi_similarity(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    epsilon: Number = 0.1,
) -> Triplets:
    """Every positive farther than some negative, with every negative nearer than some positive.

    Positives with `d(a, p) + epsilon > min_n d(a, n)` and negatives with
    `d(a, n) - epsilon < max_p d(a, p)`, each of the one with each of the other: equations 12
    and 13 of Wang et al. 2019, "Multi-Similarity Loss", in distances; theirs is the cosine.
    """
    farthest, _ = _farthest(to_positives, is_positive)
    nearest, _ = _nearest(to_negatives, is_negative)
    inside = (to_positives + epsilon > nearest)[:, None] & (to_negatives - epsilon < farthest)
    return _all_where(to_positives, is_positive, to_negatives, is_negative, inside)


def angular(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    positives_to_negatives: Float[Array, "positives negatives"],
    degrees: Number = 20.0,
) -> Triplets:
    """All triplets in which the negative sees anchor and positive under a wide angle.

    `atan(d(a, p) / (2 d(n, c))) > degrees` with c half way between anchor and positive: the
    angle bounded by Wang et al. 2017, "Deep Metric Learning with Angular Loss", and
    AngularMiner of PyTorch Metric Learning. `d(n, c)` follows from the three sides, so the
    metric has to be euclidean.
    """
    a, b, c = to_positives[:, None], to_negatives[None, :], positives_to_negatives
    to_centre = jnp.maximum(0.5 * (b * b + c * c) - 0.25 * a * a, 0.0)
    inside = a * a > 4.0 * to_centre * jnp.tan(jnp.deg2rad(jnp.float32(degrees))) ** 2
    return _all_where(to_positives, is_positive, to_negatives, is_negative, inside)


def _all_where(to_positives, is_positive, to_negatives, is_negative, inside):
    weight = is_positive[:, None] & is_negative[None, :] & inside
    return Triplets(to_positives[:, None], to_negatives[None, :], weight)


def _nearest(distances, where):
    """The least distance of a row, and whether there is one; 0 where there is none."""
    distances = jnp.broadcast_to(distances, where.shape)
    least = jnp.min(distances, where=where, initial=jnp.inf, axis=-1)
    found = jnp.any(where, axis=-1)
    return jnp.where(found, least, 0.0), found


def _nearest_beyond(to_positives, to_negatives, is_negative):
    """For every positive the nearest negative farther than it, and whether there is one."""
    # Or the mask is worked out again for every positive.
    negatives = written_once(jnp.where(is_negative, to_negatives, jnp.inf))
    if len(to_positives) <= MANY:
        beyond = negatives > to_positives[:, None]
        nearest = jnp.min(jnp.where(beyond, negatives, jnp.inf), axis=1)
        nearest = written_once(nearest)
    else:
        ordered = jnp.sort(negatives)
        nearest = ordered.at[jnp.searchsorted(ordered, to_positives, side="right")].get(
            mode="fill", fill_value=jnp.inf
        )
    found = nearest < jnp.inf
    return jnp.where(found, nearest, 0.0), found


def written_once(x):
    """`x`, which a CPU keeps instead of working it out wherever it is used.

    Elsewhere memory is slower than arithmetic, and `x` is what the compiler makes of it.
    """
    return jax.lax.optimization_barrier(x) if jax.default_backend() == "cpu" else x


def _farthest(distances, where):
    least, found = _nearest(-distances, where)
    return -least, found


def at_rank(distances, where, n):
    """The n-th least distance of a row, counted from 1, and whether there is one.

    Found bit by bit from the highest, by counting how many are less: 32 passes over the row,
    which takes a fortieth of the time of XLA's sort on a CPU.
    """
    bits = jax.lax.bitcast_convert_type(distances, jnp.int32)
    # Integers in the order of the floats; those of negative floats run backwards.
    order = jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    found = (n >= 1) & (n <= jnp.sum(where))

    def add_bit(i, least):
        trial = least + jnp.left_shift(jnp.int32(1), 31 - i)  # wraps around for the sign
        less = jnp.sum(jnp.where(where & (order < trial), 1.0, 0.0))
        return jnp.where(less < n, trial, least)

    # Of the row, since in `jax.shard_map` a number that is the same on all devices stays so.
    lowest = jnp.full_like(order, -(2**31), shape=())
    least = jax.lax.fori_loop(0, 32, add_bit, lowest)
    # Of no such rank it is all ones, which read as a float is NaN.
    least = jnp.where(found, least, 0)
    bits = jnp.where(least < 0, least ^ 0x7FFFFFFF, least)
    distance = jax.lax.bitcast_convert_type(bits, jnp.float32)
    return jnp.where(found, distance, 0.0), found


def _boltzmann(energies, where, beta):
    """`exp(-beta e)` relative to the largest; for an infinite beta 1 at the least energy."""
    above = energies - jnp.min(energies, where=where, initial=jnp.inf)
    exponent = jnp.where(where & (above > 0), beta * above, 0.0)
    return jnp.where(where, jnp.exp(-exponent), 0.0)


def _draw(key, weights, shape):
    """Places drawn in proportion to their weights; some place where all weights are 0."""
    upto = jnp.cumsum(weights)
    target = jax.random.uniform(key, shape) * upto[-1]
    # Rounding must not carry a draw past the last place with a weight.
    last = jnp.searchsorted(upto, upto[-1], side="left")
    return jnp.minimum(jnp.searchsorted(upto, target, side="right"), last)


MINERS: dict[str, Callable[..., Triplets]] = {
    "angular": angular,
    "band": band,
    "batch_all": batch_all,
    "batch_hard": batch_hard,
    "batch_hard_skip": batch_hard_skip,
    "boltzmann": boltzmann,
    "distance_weighted": distance_weighted,
    "easy": easy,
    "easy_positive_hard": easy_positive_hard,
    "easy_positive_semi_hard": easy_positive_semi_hard,
    "hard": hard,
    "multi_similarity": multi_similarity,
    "quantile": quantile,
    "random": random,
    "rank": rank,
    "rank_range": rank_range,
    "semi_hard": semi_hard,
    "semi_hard_band": semi_hard_band,
    "semi_hard_facenet": semi_hard_facenet,
    "semi_hard_hardest_beyond": easy_positive_semi_hard,
    "semi_hard_tfa": semi_hard_tfa,
    "semi_hard_tfsim": semi_hard_tfsim,
}
