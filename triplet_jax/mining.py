"""Miners choose which triplets of one anchor count, and how much each of them counts.

A miner is a pure function of one anchor:

    miner(to_positives, is_positive, to_negatives, is_negative) -> Triplets

`to_positives` holds the anchor's distances `[positives]` to the candidates of its own class, in the
units of the metric; where `is_positive` is False they are padding. `to_negatives` holds its
distances `[negatives]` to all candidates; `is_negative` is True where these are of other classes.
The answer takes one of two forms:

* Picks, scalars or arrays of one dimension. Each distance is one that the miner was given, and so
  names its candidate. Which candidate is picked has no gradient.
* All pairs `[positives, negatives]`, as arrays that broadcast to this shape. The gradient runs
  through the miner, so it may also compute distances, such as a mean of several.

A miner is given what it names by keyword: `key`, for random draws; `dim`, the number of values of
an embedding; `positives_to_negatives`, the distances `[positives, negatives]` between candidates.
All other keywords are knobs: `functools.partial` sets them, and they may be traced numbers.

An anchor without a positive or without a negative has no triplet: its weights are 0. Where several
candidates are equally far, a pick is the one with the smallest label, and among those the first in
the batch.

`losses.triplet_loss` applies a miner to a batch, in tiles of anchors and over devices. Each
docstring names the paper or the library that a rule comes from. The field uses "semi-hard" for
several rules: `semi_hard` says what it means here.
"""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from triplet_jax import errors
from triplet_jax.xla import storing

MANY = 512
"""With more positives than this, sorting the negatives is faster than comparing each pair."""

# What a miner sees of one anchor.
ToPositives = Float[Array, "positives"]
"""The anchor's distances to the candidates of its own class, among padding."""
IsPositive = Bool[Array, "positives"]
"""Which of these are positives; the others are padding."""
ToNegatives = Float[Array, "negatives"]
"""The anchor's distances to all candidates."""
IsNegative = Bool[Array, "negatives"]
"""Which of these are negatives, candidates of other classes."""

Number = Float[Array, ""] | Int[Array, ""] | float | int
"""A knob of a miner or of a loss; it may be traced."""


class Triplets(NamedTuple):
    """The triplets of one anchor, in three arrays that broadcast against each other.

    A miner that picks one triplet returns three scalars. One that picks a negative for every
    positive returns three arrays `[positives]`. One that takes all pairs returns `[positives, 1]`,
    `[1, negatives]` and a weight `[positives, negatives]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> one = mining.Triplets(jnp.float32(1.0), jnp.float32(1.5), jnp.bool_(True))
      >>> print(one.d_ap, one.d_an, one.weight)
      1.0 1.5 True
    """

    d_ap: Float[Array, "..."]
    """Distance from the anchor to the positive."""
    d_an: Float[Array, "..."]
    """Distance from the anchor to the negative. Finite also where the weight is 0."""
    weight: Float[Array, "..."] | Bool[Array, "..."]
    """How much the triplet counts; 0 or False where there is no triplet."""


def by_triplet(miner: Callable[..., Triplets]) -> Callable[..., Triplets]:
    """Marks a miner of all pairs that judges each triplet by its own two distances alone.

    It may not name `key`, `dim` or `positives_to_negatives`. With the hinge and on a CPU, the loss
    then follows from numbers of triplets, in `engine.counts`, in half the time.

    Example:
      >>> from triplet_jax import mining
      >>> @mining.by_triplet
      ... def nearer(to_positives, is_positive, to_negatives, is_negative):
      ...     pair = is_positive[:, None] & is_negative
      ...     pair &= to_negatives <= to_positives[:, None]
      ...     return mining.Triplets(to_positives[:, None], to_negatives[None, :], pair)
      >>> mining.judges_triplets(nearer)
      True
    """
    miner.judges_triplets = miner
    return miner


def judges_triplets(miner: Callable[..., Triplets]) -> bool:
    """Whether a miner, or the function of which it is a partial, is marked as `by_triplet`."""
    return _is_marked(miner, "judges_triplets")


def separable(miner: Callable[..., Triplets]) -> Callable[..., Triplets]:
    """Marks a miner as `by_triplet` whose answer does not hinge on two distances being equal.

    The loss of a large batch then measures each distance once for both of its ends, in
    `engine.half_matrix`. The two distances of a triplet are then measured in different ways, and
    rounding may break a tie.

    Example:
      >>> from triplet_jax import mining
      >>> @mining.separable
      ... def nearby(to_positives, is_positive, to_negatives, is_negative):
      ...     near = to_negatives - to_positives[:, None] < 1.0
      ...     pair = is_positive[:, None] & is_negative & near
      ...     return mining.Triplets(to_positives[:, None], to_negatives[None, :], pair)
      >>> mining.is_separable(nearby)
      True
    """
    miner.is_separable = miner
    return by_triplet(miner)


def is_separable(miner: Callable[..., Triplets]) -> bool:
    """Whether a miner, or the function of which it is a partial, is marked as `separable`."""
    return _is_marked(miner, "is_separable")


def _is_marked(miner, mark):
    """Whether a miner bears a mark of its own: `functools.wraps` copies that of another miner."""
    function = getattr(miner, "func", miner)
    return getattr(function, mark, None) is function


Chosen = tuple[IsPositive, IsNegative]
"""Which positives and which negatives of an anchor form its triplets."""


def by_candidate(choose: Callable[..., Chosen]) -> Callable[..., Triplets]:
    """Makes a miner of all pairs from a rule that chooses positives and negatives.

    `choose` takes the four arrays of a miner, and knobs, and returns two masks: which positives
    stay, and which negatives. Each positive that stays forms a triplet with each negative that
    stays; padding never does. `choose` may not name `key`, `dim` or `positives_to_negatives`. As
    for `by_triplet`, the hinge then takes about half the time on a CPU.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> @mining.by_candidate
      ... def far(to_positives, is_positive, to_negatives, is_negative):
      ...     return to_positives > 1.0, to_negatives > 2.0
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([1.5, 3.0])
      >>> all_count = jnp.array([True, True])
      >>> far(positives, all_count, negatives, all_count).weight.tolist()
      [[False, False], [False, True]]
    """

    def chosen(to_positives, is_positive, to_negatives, is_negative, **knobs):
        stay = choose(to_positives, is_positive, to_negatives, is_negative, **knobs)
        return is_positive & stay[0], is_negative & stay[1]

    @functools.wraps(choose)
    def miner(to_positives, is_positive, to_negatives, is_negative, **knobs):
        stay = chosen(to_positives, is_positive, to_negatives, is_negative, **knobs)
        return batch_all(to_positives, stay[0], to_negatives, stay[1])

    miner.chosen, miner.judges_candidates = chosen, miner
    # What is called and documented is the miner.
    miner.__annotations__ = {**choose.__annotations__, "return": Triplets}
    miner.__signature__ = inspect.signature(choose).replace(return_annotation=Triplets)
    return miner


def choice(miner: Callable[..., Triplets]) -> Callable[..., Chosen] | None:
    """How a miner made by `by_candidate` chooses, with the knobs of a partial; None for any other.

    Example:
      >>> import functools
      >>> from triplet_jax import mining
      >>> mining.choice(functools.partial(mining.rank_range, last=9)).keywords
      {'last': 9}
      >>> mining.choice(mining.batch_all) is None
      True
    """
    if not _is_marked(miner, "judges_candidates"):
        return None
    if not isinstance(miner, functools.partial):
        return miner.chosen
    return functools.partial(miner.func.chosen, *miner.args, **miner.keywords)


def random(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    key: PRNGKeyArray,
) -> Triplets:
    """Pairs every positive with one negative drawn uniformly: no mining, the baseline.

    An anchor without a negative has no triplet. "Triplet (L_tri)" in table 1 of Hermans, Beyer and
    Leibe 2017, https://arxiv.org/abs/1703.07737.

    Example:
      One negative is padding, so the draw has no choice.

      >>> import jax
      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([1.5, 3.0])
      >>> is_positive, is_negative = jnp.array([True, True]), jnp.array([True, False])
      >>> found = mining.random(
      ...     positives, is_positive, negatives, is_negative, key=jax.random.key(0)
      ... )
      >>> print(found.d_ap, found.d_an, found.weight)
      [1. 2.] [1.5 1.5] [ True  True]
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
    """Takes every positive with every negative.

    Equation 6 of Hermans, Beyer and Leibe 2017, "In Defense of the Triplet Loss for Person
    Re-Identification", https://arxiv.org/abs/1703.07737. With `average="active"` the loss is their
    "batch all, != 0".

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([1.5, 3.0])
      >>> all_count = jnp.array([True, True])
      >>> mining.batch_all(positives, all_count, negatives, all_count).weight.tolist()
      [[True, True], [True, True]]
    """
    return _all_where(to_positives, is_positive, to_negatives, is_negative, True)


def batch_hard(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
) -> Triplets:
    """Picks the farthest positive and the nearest negative: one triplet an anchor.

        max_p d(a, p)  with  min_n d(a, n)

    Equation 5 of Hermans, Beyer and Leibe 2017, https://arxiv.org/abs/1703.07737. An anchor without
    a positive or without a negative has no triplet.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([1.5, 3.0])
      >>> all_count = jnp.array([True, True])
      >>> found = mining.batch_hard(positives, all_count, negatives, all_count)
      >>> print(found.d_ap, found.d_an, found.weight)
      2.0 1.5 True
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
    """Picks for every positive the nearest negative that is farther away than it.

        min {d(a, n) : d(a, n) > d(a, p)}

    A positive beyond which there is no negative has no triplet; a negative exactly as far away does
    not count as beyond. After Schroff, Kalenichenko and Philbin 2015, "FaceNet", equation 4,
    https://arxiv.org/abs/1503.03832, who leave the choice among such negatives open. There is no
    upper bound: a negative beyond the margin has a hinge of 0, so the margin acts through the
    penalty alone.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([1.5, 3.0])
      >>> all_count = jnp.array([True, True])
      >>> found = mining.semi_hard(positives, all_count, negatives, all_count)
      >>> print(found.d_ap, found.d_an, found.weight)
      [1. 2.] [1.5 3. ] [ True  True]
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
    """Draws for every positive a negative in the band `d(a, p) < d(a, n) < d(a, p) + width`.

    A positive whose band is empty has no triplet; both ends of the band are left out. Schroff,
    Kalenichenko and Philbin 2015, https://arxiv.org/abs/1503.03832, say in the text that semi-hard
    negatives "lie inside the margin". Face recognition code, such as insightface, draws one of
    them. FaceNet's distances are squared: `metric="squared_euclidean"`.

    Example:
      Here 1.5 lies in the band of 1 and nothing lies in the band of 2.

      >>> import jax
      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([1.5, 3.0])
      >>> all_count = jnp.array([True, True])
      >>> found = mining.semi_hard_facenet(
      ...     positives, all_count, negatives, all_count, width=0.6, key=jax.random.key(0)
      ... )
      >>> print(found.d_an[0], found.weight)
      1.5 [ True False]
    """
    gap = to_negatives - to_positives[:, None]
    chosen, found = _draw_of_each(key, is_negative & (gap > 0) & (gap < width))
    return Triplets(to_positives, to_negatives[chosen], is_positive & found)


def semi_hard_tfa(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
) -> Triplets:
    """Picks for every positive the nearest negative farther than it, else the farthest negative.

    Where every negative is at most as far as the positive, the easiest negative stands in, so only
    an anchor without a negative has no triplet. The rule of `triplet_semihard_loss` in TensorFlow
    Addons (https://github.com/tensorflow/addons) and of BatchSemiHardTripletLoss in
    sentence-transformers, after Schroff, Kalenichenko and Philbin 2015,
    https://arxiv.org/abs/1503.03832. Both libraries average over all positive pairs:
    `average="valid"`.

    Example:
      Here no negative is farther than 2.

      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([0.5, 1.5])
      >>> all_count = jnp.array([True, True])
      >>> mining.semi_hard_tfa(positives, all_count, negatives, all_count).d_an.tolist()
      [1.5, 1.5]
    """
    d_an, found = _nearest_beyond(to_positives, to_negatives, is_negative)
    farthest, any_negative = _farthest(to_negatives, is_negative)
    return Triplets(to_positives, jnp.where(found, d_an, farthest), is_positive & any_negative)


@by_triplet
def semi_hard_band(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    width: Number = 0.2,
) -> Triplets:
    """Takes all triplets with `0 < d(a, n) - d(a, p) <= width`.

    TripletMarginMiner of PyTorch Metric Learning with `type_of_triplets="semihard"`
    (https://github.com/KevinMusgrave/pytorch-metric-learning).

    Example:
      The differences are 0.5 and 2 for the first positive, -0.5 and 1 for the second.

      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([1.5, 3.0])
      >>> all_count = jnp.array([True, True])
      >>> found = mining.semi_hard_band(positives, all_count, negatives, all_count, width=1.0)
      >>> found.weight.tolist()
      [[True, False], [False, True]]
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
    """Picks the nearest positive and the nearest negative that is farther: one triplet an anchor.

    An anchor has no triplet where no negative is farther than its nearest positive. EPSHN of Xuan,
    Stylianou and Pless 2020, "Improved Embeddings with Easy Positive Triplet Mining",
    https://arxiv.org/abs/1904.04370; their loss is `penalty="soft_margin"` of distances divided by
    a temperature. It is also the default of BatchEasyHardMiner in PyTorch Metric Learning, and so
    has a second name, `semi_hard_hardest_beyond`.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([1.5, 3.0])
      >>> all_count = jnp.array([True, True])
      >>> found = mining.easy_positive_semi_hard(positives, all_count, negatives, all_count)
      >>> print(found.d_ap, found.d_an, found.weight)
      1.0 1.5 True
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
    """Picks the nearest positive and the nearest negative: one triplet an anchor.

        min_p d(a, p)  with  min_n d(a, n)

    An anchor then need not come near all of its class. An anchor without a positive or without a
    negative has no triplet. EPHN of Xuan, Stylianou and Pless 2020,
    https://arxiv.org/abs/1904.04370.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([0.5, 3.0])
      >>> all_count = jnp.array([True, True])
      >>> found = mining.easy_positive_hard(positives, all_count, negatives, all_count)
      >>> print(found.d_ap, found.d_an, found.weight)
      1.0 0.5 True
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
    """Picks the farthest positive and the nearest negative beyond it, else the farthest negative.

    One triplet an anchor: TripletLoss of TensorFlow Similarity
    (https://github.com/tensorflow/similarity) with hard positives and semi-hard negatives. There an
    anchor without a positive counts too, with a distance of 0; here it has no triplet.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([1.5, 3.0])
      >>> all_count = jnp.array([True, True])
      >>> found = mining.semi_hard_tfsim(positives, all_count, negatives, all_count)
      >>> print(found.d_ap, found.d_an, found.weight)
      2.0 3.0 True
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
    """Takes all triplets with `d(a, n) - d(a, p) > margin`, which satisfy the margin already.

    TripletMarginMiner of PyTorch Metric Learning with `type_of_triplets="easy"`
    (https://github.com/KevinMusgrave/pytorch-metric-learning). With a hinge of the same margin the
    loss is 0; with the soft margin it is not.

    Example:
      The differences are 0.5 and 2 for the first positive, -0.5 and 1 for the second.

      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([1.5, 3.0])
      >>> all_count = jnp.array([True, True])
      >>> found = mining.easy(positives, all_count, negatives, all_count, margin=0.6)
      >>> found.weight.tolist()
      [[False, True], [False, True]]
    """
    inside = to_negatives - to_positives[:, None] > margin
    return _all_where(to_positives, is_positive, to_negatives, is_negative, inside)


@by_triplet
def hard(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
) -> Triplets:
    """Takes all triplets with `d(a, n) <= d(a, p)`, which are ranked wrongly.

    A tie counts as hard. TripletMarginMiner of PyTorch Metric Learning with
    `type_of_triplets="hard"` (https://github.com/KevinMusgrave/pytorch-metric-learning).

    Example:
      Here only the negative at 1.5 is nearer than the positive at 2.

      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([1.5, 3.0])
      >>> all_count = jnp.array([True, True])
      >>> mining.hard(positives, all_count, negatives, all_count).weight.tolist()
      [[False, False], [True, False]]
    """
    inside = to_negatives <= to_positives[:, None]
    return _all_where(to_positives, is_positive, to_negatives, is_negative, inside)


@by_triplet
def band(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    low: Number = 0.0,
    high: Number = 0.2,
) -> Triplets:
    """Takes all triplets with `low <= d(a, n) - d(a, p) <= high`.

    The general form of `easy`, `semi_hard_band` and `hard`. A schedule that moves the two ends is a
    curriculum. Where `low` is above `high` there is no triplet.

    Example:
      The differences are 0.5 and 2 for the first positive, -0.5 and 1 for the second.

      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([1.5, 3.0])
      >>> all_count = jnp.array([True, True])
      >>> found = mining.band(positives, all_count, negatives, all_count, low=-0.5, high=0.5)
      >>> found.weight.tolist()
      [[True, False], [True, False]]
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
    """Picks for every positive the n-th nearest negative; n = 1 is the hardest.

    An anchor with fewer than n negatives has no triplet, and none has one where n is below 1.
    NHardTripletsMiner of Open Metric Learning (https://github.com/OML-Team/open-metric-learning)
    also ranks positives; here all of them take part.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([1.5, 3.0])
      >>> all_count = jnp.array([True, True])
      >>> mining.rank(positives, all_count, negatives, all_count, n=2).d_an.tolist()
      [3.0, 3.0]
    """
    d_an, found = at_rank(to_negatives, is_negative, n)
    return Triplets(to_positives, jnp.broadcast_to(d_an, to_positives.shape), is_positive & found)


@by_candidate
def rank_range(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    first: Number = 1,
    last: Number = 5,
) -> Chosen:
    """Takes every positive with every negative from the `first`-th to the `last`-th nearest.

    Negatives as far as the one at either end belong to the range too. A range that goes past the
    farthest negative ends there. An anchor with fewer than `first` negatives has no triplet.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([1.5, 3.0])
      >>> all_count = jnp.array([True, True])
      >>> found = mining.rank_range(positives, all_count, negatives, all_count, first=2, last=9)
      >>> found.weight.tolist()
      [[False, True], [False, True]]
    """
    count = jnp.sum(is_negative)
    nearest, found = at_rank(to_negatives, is_negative, first)
    farthest, _ = at_rank(to_negatives, is_negative, jnp.clip(last, 1, count))
    inside = found & (last >= first) & (to_negatives >= nearest) & (to_negatives <= farthest)
    return is_positive, inside


def quantile(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    hardness: Number = 1.0,
) -> Triplets:
    """Picks for every positive the negative at a quantile of hardness.

    Hardness 1 is the nearest negative, and 0 the farthest.

    Of m negatives in order of distance it is the one with the rank

        1 + round((1 - hardness) (m - 1))

    A hardness outside of [0, 1] counts as the nearer of the two ends. The pick depends on the size
    of the batch: the nearest of many negatives is harder than the nearest of few.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([1.5, 3.0])
      >>> all_count = jnp.array([True, True])
      >>> mining.quantile(positives, all_count, negatives, all_count, hardness=0.0).d_an.tolist()
      [3.0, 3.0]
    """
    count = jnp.sum(is_negative)
    share = jnp.clip(1.0 - jnp.asarray(hardness, jnp.float32), 0.0, 1.0)
    n = 1 + jnp.round(share * (count - 1)).astype(jnp.int32)
    d_an, found = at_rank(to_negatives, is_negative, n)
    return Triplets(to_positives, jnp.broadcast_to(d_an, to_positives.shape), is_positive & found)


def hardest_share(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    share: Number = 0.1,
) -> Triplets:
    """Picks for every positive the negative at which the hardest share of the negatives ends.

    Of m negatives in order of distance it is the one with the rank

        round(share m), at least 1 and at most m

    This is `quantile` counted from its hard end, where a factor of the share means as much as a
    step of the quantile: a curriculum over the hardest 50%, 10%, 2%, 0.5% moves evenly on the scale
    of `schedules.geometric`.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0]), jnp.array([1.5, 3.0, 2.0, 4.0])
      >>> some, all_count = jnp.array([True]), jnp.array([True, True, True, True])
      >>> for share in (0.01, 0.5, 1.0):
      ...     picked = mining.hardest_share(positives, some, negatives, all_count, share=share)
      ...     print(picked.d_an[0])
      1.5
      2.0
      4.0
    """
    count = jnp.sum(is_negative)
    n = jnp.round(jnp.asarray(share, jnp.float32) * count).astype(jnp.int32)
    d_an, found = at_rank(to_negatives, is_negative, jnp.clip(n, 1, count))
    return Triplets(to_positives, jnp.broadcast_to(d_an, to_positives.shape), is_positive & found)


def batch_hard_skip(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    fraction: Number = 0.05,
) -> Triplets:
    """Picks as `batch_hard` does, after leaving out the hardest share of each anchor's candidates.

    The nearest `floor(fraction m)` of m negatives are left out, and the farthest `floor(fraction
    m)` of m positives. Where labels are wrong, the extremes are most often the wrong ones: section
    3.2 of Schroff, Kalenichenko and Philbin 2015, https://arxiv.org/abs/1503.03832, and Hermans,
    Beyer and Leibe 2017, https://arxiv.org/abs/1703.07737. `fraction=0` is `batch_hard`. With
    `fraction=1` nothing is left, and there is no triplet.

    Example:
      This leaves out the positive at 2 and the negative at 1.5.

      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([1.5, 3.0])
      >>> all_count = jnp.array([True, True])
      >>> found = mining.batch_hard_skip(positives, all_count, negatives, all_count, fraction=0.5)
      >>> print(found.d_ap, found.d_an, found.weight)
      1.0 3.0 True
    """

    # The summand makes a share of 0.3 of 10 candidates 3, in spite of rounding.
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
    """Draws for every positive a negative so that all distances are about equally likely.

        P(n) ~ 1 / q(max(d, cutoff))  for d < farthest, else 0
        q(d) ~ d^(dim - 2) (1 - d^2 / 4)^((dim - 3) / 2)

    q is the density of distances between random points of the unit sphere, so embeddings must have
    length 1 and distances must be Euclidean. Weights are taken relative to the anchor's largest, or
    they would vanish in high dimensions. An anchor with no negative nearer than `farthest` has no
    triplet. Section 4 of Wu, Manmatha, Smola and Krähenbühl 2017, "Sampling Matters in Deep
    Embedding Learning", https://arxiv.org/abs/1706.07567.

    Raises:
      InputError: `cutoff` is 0 or less: a negative at distance 0 would weigh infinitely. A traced
        cutoff is not checked; below 1e-6 it counts as 1e-6.

    Example:
      Here only the negative at 1 is nearer than 1.4.

      >>> import jax
      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([0.5, 1.0]), jnp.array([1.0, 1.5])
      >>> all_count = jnp.array([True, True])
      >>> found = mining.distance_weighted(
      ...     positives, all_count, negatives, all_count, dim=64, key=jax.random.key(0)
      ... )
      >>> print(found.d_an, found.weight)
      [1. 1.] [ True  True]
    """
    if not isinstance(cutoff, jax.core.Tracer) and not cutoff > 0:
        raise errors.InputError(
            f"cutoff={cutoff} must be above 0, or a negative at distance 0 weighs infinitely. Use"
            " 0.5, as the paper does."
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
    """Draws one positive by the weights `exp(beta d)` and one negative by `exp(-beta d)`.

    `beta` is at least 0: 0 draws uniformly, and `beta=inf` is `batch_hard`. An anchor without a
    positive or without a negative has no triplet. Beyer's "batch sample" has `beta=1`: branch
    `sampling` of the code of Hermans, Beyer and Leibe 2017, https://arxiv.org/abs/1703.07737.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([1.5, 3.0])
      >>> all_count = jnp.array([True, True])
      >>> found = mining.boltzmann(
      ...     positives, all_count, negatives, all_count, beta=jnp.inf, key=jax.random.key(0)
      ... )
      >>> print(found.d_ap, found.d_an, found.weight)
      2.0 1.5 True
    """
    positive_key, negative_key = jax.random.split(key)
    p = _draw(positive_key, _boltzmann(-to_positives, is_positive, beta), ())
    n = _draw(negative_key, _boltzmann(to_negatives, is_negative, beta), ())
    found = jnp.any(is_positive) & jnp.any(is_negative)
    return Triplets(to_positives[p], to_negatives[n], found)


@by_candidate
def multi_similarity(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    epsilon: Number = 0.1,
) -> Chosen:
    """Takes positives farther than some negative with negatives nearer than some positive.

        positives with  d(a, p) + epsilon > min_n d(a, n)
        negatives with  d(a, n) - epsilon < max_p d(a, p)

    Each of these positives forms a triplet with each of these negatives. Equations 12 and 13 of
    Wang, Han, Huang, Dong and Scott 2019, "Multi-Similarity Loss",
    https://arxiv.org/abs/1904.06627, written in distances instead of their cosine similarities.

    Example:
      Here only the positive at 2 and the negative at 1.5 pass.

      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> positives, negatives = jnp.array([1.0, 2.0]), jnp.array([1.5, 3.0])
      >>> all_count = jnp.array([True, True])
      >>> mining.multi_similarity(positives, all_count, negatives, all_count).weight.tolist()
      [[False, False], [True, False]]
    """
    farthest, _ = _farthest(to_positives, is_positive)
    nearest, _ = _nearest(to_negatives, is_negative)
    return to_positives + epsilon > nearest, to_negatives - epsilon < farthest


def angular(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    positives_to_negatives: Float[Array, "positives negatives"],
    degrees: Number = 20.0,
) -> Triplets:
    """Takes all triplets in which the negative sees the anchor and the positive under a wide angle.

        atan(d(a, p) / (2 d(n, c))) > degrees

    `degrees` is above 0 and below 90. c is the midpoint of anchor and positive. `d(n, c)` follows
    from the three sides, so the metric has to be Euclidean. Wang, Zhou, Wen, Liu and Lin 2017,
    "Deep Metric Learning with Angular Loss", https://arxiv.org/abs/1708.01682, bound this angle;
    AngularMiner of PyTorch Metric Learning mines by it.

    Example:
      The anchor is at (-1, 0) and the positive at (1, 0). The negatives at (0, 1) and (0, 4) see
      them under atan(2 / 2) = 45 and atan(2 / 8) = 14 degrees.

      >>> import jax.numpy as jnp
      >>> from triplet_jax import mining
      >>> to_positive, to_negatives = jnp.array([2.0]), jnp.sqrt(jnp.array([2.0, 17.0]))
      >>> found = mining.angular(
      ...     to_positive, jnp.array([True]), to_negatives, jnp.array([True, True]),
      ...     positives_to_negatives=to_negatives[None, :], degrees=20.0,
      ... )
      >>> found.weight.tolist()
      [[True, False]]
    """
    a, b, c = to_positives[:, None], to_negatives[None, :], positives_to_negatives
    to_centre = jnp.maximum(0.5 * (b * b + c * c) - 0.25 * a * a, 0.0)
    inside = a * a > 4.0 * to_centre * jnp.tan(jnp.deg2rad(jnp.float32(degrees))) ** 2
    return _all_where(to_positives, is_positive, to_negatives, is_negative, inside)


def _all_where(to_positives, is_positive, to_negatives, is_negative, inside):
    weight = is_positive[:, None] & is_negative[None, :] & inside
    return Triplets(to_positives[:, None], to_negatives[None, :], weight)


def _nearest(distances, where):
    """The least distance of a row and whether there is one; 0 where there is none."""
    distances = jnp.broadcast_to(distances, where.shape)
    least = jnp.min(distances, where=where, initial=jnp.inf, axis=-1)
    found = jnp.any(where, axis=-1)
    return jnp.where(found, least, 0.0), found


def _nearest_beyond(to_positives, to_negatives, is_negative):
    """The nearest negative farther than each positive, and whether there is one."""
    negatives = storing.behind_a_barrier(jnp.where(is_negative, to_negatives, jnp.inf))
    if len(to_positives) <= MANY:
        beyond = negatives > to_positives[:, None]
        nearest = jnp.min(jnp.where(beyond, negatives, jnp.inf), axis=1)
        nearest = storing.behind_a_barrier(nearest)
    else:
        ordered = jnp.sort(negatives)
        nearest = ordered.at[jnp.searchsorted(ordered, to_positives, side="right")].get(
            mode="fill", fill_value=jnp.inf
        )
    found = nearest < jnp.inf
    return jnp.where(found, nearest, 0.0), found


def _farthest(distances, where):
    least, found = _nearest(-distances, where)
    return -least, found


def at_rank(distances, where, n):
    """The n-th least distance of a row, counted from 1, and whether there is one.

    The result is found bit by bit from the highest, by counting how many distances are less. These
    32 passes over a row of float32 take a fortieth of the time of XLA's sort on a CPU.
    """
    whole = jnp.int64 if distances.dtype == jnp.float64 else jnp.int32
    highest, lowest, most = jnp.iinfo(whole).bits - 1, jnp.iinfo(whole).min, jnp.iinfo(whole).max
    bits = jax.lax.bitcast_convert_type(distances, whole)
    # Integers in the order of the floats: the bits of negative floats run backwards.
    order = jnp.where(bits < 0, bits ^ most, bits)
    found = (n >= 1) & (n <= jnp.sum(where))

    def add_bit(i, least):
        trial = least + jnp.left_shift(whole(1), (highest - i).astype(whole))  # the sign wraps
        less = jnp.sum(jnp.where(where & (order < trial), 1.0, 0.0))
        return jnp.where(less < n, trial, least)

    # Made from the row, because `jax.shard_map` treats a plain constant as equal on all devices
    # and refuses a loop that starts there and ends with a number of one device.
    start = jnp.full_like(order, lowest, shape=())
    least = jax.lax.fori_loop(0, highest + 1, add_bit, start)
    # Without such a rank all bits are ones, which read as a float are NaN.
    least = jnp.where(found, least, 0)
    bits = jnp.where(least < 0, least ^ most, least)
    distance = jax.lax.bitcast_convert_type(bits, distances.dtype)
    return jnp.where(found, distance, 0.0), found


def _boltzmann(energies, where, beta):
    """`exp(-beta e)` relative to the largest; where beta is infinite, 1 at the least energy."""
    above = energies - jnp.min(energies, where=where, initial=jnp.inf)
    exponent = jnp.where(where & (above > 0), beta * above, 0.0)
    return jnp.where(where, jnp.exp(-exponent), 0.0)


def _draw(key, weights, shape):
    """Positions drawn in proportion to their weights; where all weights are 0, some position."""
    upto = jnp.cumsum(weights)
    target = jax.random.uniform(key, shape) * upto[-1]
    # Rounding must not carry a draw past the last position with a weight.
    last = jnp.searchsorted(upto, upto[-1], side="left")
    return jnp.minimum(jnp.searchsorted(upto, target, side="right"), last)


def _draw_of_each(key, allowed):
    """For every row, one of its allowed positions, all equally likely, and whether it has one.

    Each position has a random number, which each row scrambles in its own way. A row takes its
    allowed position with the least number. A CPU finds such a minimum over many numbers at a time,
    but adds up a running sum of weights one by one.
    """
    rows, positions = allowed.shape
    of_positions, of_rows = jax.random.split(key)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(of_rows, jnp.arange(rows))
    bits = functools.partial(jax.random.bits, dtype=jnp.uint32)
    flips, factors = jax.vmap(lambda key: bits(key, (2,)))(keys).T[:, :, None]
    scrambled = (bits(of_positions, (positions,)) ^ flips) * (factors | 1)
    # The upper bits, as floats from 1 to 2: minima of floats are faster than those of integers.
    numbers = jax.lax.bitcast_convert_type((scrambled >> 9) | 0x3F800000, jnp.float32)
    numbers = jnp.where(allowed, numbers, 2.0)
    least = storing.behind_a_barrier(jnp.min(numbers, axis=1, keepdims=True))
    places = storing.behind_a_barrier(jnp.arange(positions, dtype=jnp.float32))
    first = jnp.min(jnp.where(numbers == least, places, jnp.inf), axis=1)
    return storing.behind_a_barrier(first).astype(jnp.int32), least[:, 0] < 2.0


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
    "hardest_share": hardest_share,
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
"""The miners that `losses.triplet_loss` takes by name."""
