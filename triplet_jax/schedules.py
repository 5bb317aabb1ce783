"""Schedules: pure functions of the step that return a number, for anything that a run may move.

A schedule is called as optax's are, `schedule(step) -> value`. It may be traced, so a number that
moves does not compile a program again. A curriculum has three parts:

    fraction = pacing("linear", total_steps=1000, a=0.8, b=0.1)            # how far, from 0 to 1
    fraction = ordered(fraction, "curriculum", total_steps=1000)           # in which direction
    hardness = between(fraction, start=0.2, end=0.9)                       # in its own units

The pacing functions and the orders are those of Wu, Dyer and Neyshabur 2021, "When Do Curricula
Work?", https://arxiv.org/abs/2012.03107. Steps count from 0 and may be arrays; values have their
shape.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from triplet_jax import errors

Schedule = Callable[[Int[Array, ""] | int], Float[Array, ""]]

# Each turns the share x of the pacing's length, in [0, 1], into the share of the way from b to 1.
_SHAPES: dict[str, Callable] = {
    "linear": lambda x: x,
    "quadratic": jnp.square,
    "root": jnp.sqrt,
    "step": jnp.floor,
    "exponential": lambda x: jnp.expm1(10.0 * x) / jnp.expm1(10.0),
    "logarithmic": lambda x: 1.0 + 0.1 * jnp.log(x + jnp.exp(-10.0)),
}
PACINGS = tuple(_SHAPES)
"""The kinds of `pacing`."""
ORDERS = ("curriculum", "anti_curriculum", "random", "standard")
"""The orders in which a schedule takes the values between its ends."""


def pacing(
    kind: str, *, total_steps: int, a: Float[Array, ""] | float, b: Float[Array, ""] | float
) -> Schedule:
    """A pacing function: from `b` at step 0 to 1 at step `a T`.

    With `x = t / (a T)`, clipped to [0, 1]:

        linear         b + (1 - b) x
        quadratic      b + (1 - b) x^2
        root           b + (1 - b) x^(1/2)
        step           b + floor(x)
        exponential    b + (1 - b) (e^(10 x) - 1) / (e^10 - 1)
        logarithmic    b + (1 - b) (1 + ln(x + e^-10) / 10)

    The value is clipped to [0, 1] too. Section 2 of Wu, Dyer and Neyshabur 2021,
    https://arxiv.org/abs/2012.03107.

    Args:
      kind: a name in `PACINGS`.
      total_steps: T, at least 1.
      a: the share of training after which the value is 1, above 0 and finite; above 1, training
        ends before the value reaches 1.
      b: the value at step 0, in [0, 1]; 1 is standard training.

    Raises:
      InputError: `kind` is not known, or a number that is not traced is out of its range.

    Example:
      The value at step 25 of 50, where x is 1/2.

      >>> from triplet_jax import schedules
      >>> for kind in ("linear", "quadratic", "root", "step", "exponential", "logarithmic"):
      ...     schedule = schedules.pacing(kind, total_steps=100, a=0.5, b=0.2)
      ...     print(f"{kind:12} {schedule(0):.2f} {schedule(25):.2f} {schedule(50):.2f}")
      linear       0.20 0.60 1.00
      quadratic    0.20 0.40 1.00
      root         0.20 0.77 1.00
      step         0.20 0.20 1.00
      exponential  0.20 0.21 1.00
      logarithmic  0.20 0.94 1.00
    """
    errors.check_known("kind", kind, PACINGS)
    if total_steps < 1:
        raise errors.InputError(f"total_steps={total_steps} must be at least 1.")
    _check("a", a, lambda a: 0 < a < float("inf"), "above 0 and finite")
    _check("b", b, lambda b: 0 <= b <= 1, "from 0 to 1")
    shape = _SHAPES[kind]

    def schedule(step):
        # Clipped first, because the exponential of a larger x would overflow.
        x = jnp.clip(_as_float(step) / (a * total_steps), 0.0, 1.0)
        rest = 1.0 if kind == "step" else 1.0 - b
        return jnp.clip(b + rest * shape(x), 0.0, 1.0)

    return schedule


def constant(value: Float[Array, ""] | float) -> Schedule:
    """The same value at every step.

    Example:
      >>> from triplet_jax import schedules
      >>> print(schedules.constant(0.5)(7))
      0.5
    """
    return lambda step: jnp.broadcast_to(jnp.float32(value), jnp.shape(step))


def warmup(*, steps: int) -> Schedule:
    """From 0 to 1 in equal parts over the first `steps` steps; 1 from the start if there are none.

    As learning rates warm up in Goyal et al. 2017, https://arxiv.org/abs/1706.02677.

    Raises:
      InputError: `steps` is below 0.

    Example:
      >>> from triplet_jax import schedules
      >>> schedule = schedules.warmup(steps=4)
      >>> print(schedule(0), schedule(1), schedule(9))
      0.0 0.25 1.0
    """
    if steps < 0:
        raise errors.InputError(f"steps={steps} must be at least 0.")
    return lambda step: (
        jnp.clip(_as_float(step) / steps, 0.0, 1.0) if steps else constant(1.0)(step)
    )


def cosine(*, total_steps: int, a: Float[Array, ""] | float = 1.0) -> Schedule:
    """From 0 to 1 along half a cosine over the first `a T` steps.

        (1 - cos(pi x)) / 2  with  x = t / (a T), clipped to [0, 1]

    The annealing of Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983, turned upward.

    Args:
      total_steps: T, at least 1.
      a: the share of training after which the value is 1, in (0, inf).

    Raises:
      InputError: `total_steps` or `a` is out of its range.

    Example:
      >>> from triplet_jax import schedules
      >>> schedule = schedules.cosine(total_steps=100)
      >>> print(f"{schedule(0):.2f} {schedule(25):.3f} {schedule(50):.2f} {schedule(100):.2f}")
      0.00 0.146 0.50 1.00
    """
    share = pacing("linear", total_steps=total_steps, a=a, b=0.0)
    return lambda step: 0.5 * (1.0 - jnp.cos(jnp.pi * share(step)))


def piecewise(*, boundaries: Sequence[float | int], values: Sequence[float | int]) -> Schedule:
    """`values[i]` from step `boundaries[i - 1]` on, until just before step `boundaries[i]`.

    Args:
      boundaries: steps, rising.
      values: one more than there are boundaries.

    Raises:
      InputError: the numbers do not match, or the boundaries do not rise.

    Example:
      >>> from triplet_jax import schedules
      >>> schedule = schedules.piecewise(boundaries=(10, 20), values=(0.0, 0.5, 1.0))
      >>> print(schedule(9), schedule(10), schedule(20))
      0.0 0.5 1.0
    """
    boundaries, values = tuple(boundaries), tuple(values)
    if len(values) != len(boundaries) + 1:
        raise errors.InputError(
            f"values={values} must be one more than boundaries={boundaries}: the value before the"
            " first boundary, and one from each boundary on."
        )
    if any(after <= before for before, after in zip(boundaries, boundaries[1:], strict=False)):
        raise errors.InputError(f"boundaries={boundaries} must rise: sort them, each once.")
    edges = jnp.asarray(boundaries, jnp.float32)

    def schedule(step):
        piece = jnp.searchsorted(edges, _as_float(step), side="right")
        return jnp.asarray(values, jnp.float32)[piece]

    return schedule


def between(
    fraction: Schedule, *, start: Float[Array, ""] | float, end: Float[Array, ""] | float
) -> Schedule:
    """`start` where the fraction is 0, `end` where it is 1, and in proportion between.

    Example:
      >>> from triplet_jax import schedules
      >>> fraction = schedules.pacing("linear", total_steps=100, a=1.0, b=0.0)
      >>> margin = schedules.between(fraction, start=0.5, end=0.1)
      >>> print(f"{margin(0):.1f} {margin(50):.1f} {margin(100):.1f}")
      0.5 0.3 0.1
    """

    def schedule(step):
        share = fraction(step)
        # This form gives both ends exactly.
        return (1.0 - share) * start + share * end

    return schedule


def geometric(
    fraction: Schedule, *, start: Float[Array, ""] | float, end: Float[Array, ""] | float
) -> Schedule:
    """`start` where the fraction is 0, `end` where it is 1, and by equal factors between.

        start^(1 - fraction) end^fraction

    This is the scale of temperatures, of learning rates, and of shares of the hardest negatives,
    such as 50%, 10%, 2%: half of the way from 0.5 to 0.005 is 0.05.

    Args:
      fraction: the pacing.
      start: above 0.
      end: above 0.

    Raises:
      InputError: an end that is not traced is not above 0 and finite.

    Example:
      >>> from triplet_jax import schedules
      >>> fraction = schedules.pacing("linear", total_steps=100, a=1.0, b=0.0)
      >>> share = schedules.geometric(fraction, start=0.5, end=0.005)
      >>> print(f"{share(0):.3f} {share(50):.3f} {share(100):.3f}")
      0.500 0.050 0.005
    """
    for name, value in (("start", start), ("end", end)):
        _check(name, value, lambda value: 0 < value < float("inf"), "above 0 and finite")
    logarithm = between(fraction, start=jnp.log(start), end=jnp.log(end))
    return lambda step: jnp.exp(logarithm(step))


SCALES = {"linear": between, "log": geometric}
"""How a number moves between its two ends."""


def ordered(
    fraction: Schedule, order: str, *, total_steps: int, key: PRNGKeyArray | None = None
) -> Schedule:
    """A pacing taken in one of four directions, after Wu, Dyer and Neyshabur 2021.

    They order examples, https://arxiv.org/abs/2012.03107; these orders are of the numbers of a
    pacing.

    Args:
      fraction: the pacing.
      order: "curriculum", the pacing itself; "anti_curriculum", `1 - fraction`; "random", the
        values of the curriculum at shuffled steps, each of them once; "standard", 1 throughout.
      total_steps: T. Steps in [0, T) are shuffled; a later step counts as the last.
      key: of the shuffling.

    Raises:
      InputError: the order is not known, or it is random and there is no key.

    Example:
      >>> import jax
      >>> from triplet_jax import schedules
      >>> fraction = schedules.pacing("linear", total_steps=4, a=1.0, b=0.0)
      >>> turned = schedules.ordered(fraction, "anti_curriculum", total_steps=4)
      >>> print([float(turned(step)) for step in range(4)])
      [1.0, 0.75, 0.5, 0.25]
      >>> mixed = schedules.ordered(fraction, "random", total_steps=4, key=jax.random.key(0))
      >>> print(sorted(float(mixed(step)) for step in range(4)))
      [0.0, 0.25, 0.5, 0.75]
    """
    errors.check_known("order", order, ORDERS)
    if order == "curriculum":
        return fraction
    if order == "anti_curriculum":
        return lambda step: 1.0 - fraction(step)
    if order == "standard":
        return constant(1.0)
    if key is None:
        raise errors.InputError("key=None, but order='random' draws: pass a jax.random.key.")
    shuffled = jax.random.permutation(key, total_steps)
    return lambda step: fraction(shuffled[jnp.minimum(step, total_steps - 1)])


class Pace(NamedTuple):
    """Where a self-paced fraction stands, as a part of a run's state."""

    active: Float[Array, ""]
    """The running average of the share that is held."""
    fraction: Float[Array, ""]


def first_pace(*, target: float, b: float) -> Pace:
    """Where self-pacing starts: at the fraction `b`, as if the target had been met so far.

    Self-paced learning is due to Kumar, Packer and Koller 2010,
    https://papers.nips.cc/paper/2010/hash/e57c6b956a6521b28495f2886ca0977a-Abstract.html.

    Args:
      target: the share that self-pacing holds, in [0, 1].
      b: the fraction at step 0, in [0, 1].

    Example:
      >>> from triplet_jax import schedules
      >>> pace = schedules.first_pace(target=0.5, b=0.25)
      >>> print(pace.active, pace.fraction)
      0.5 0.25
    """
    return Pace(jnp.float32(target), jnp.float32(b))


def next_pace(
    pace: Pace,
    share: Float[Array, ""],
    *,
    target: Float[Array, ""] | float,
    rate: Float[Array, ""] | float,
    decay: Float[Array, ""] | float,
) -> Pace:
    """Moves the fraction up while a measured share is below the target, and down while above.

        active   <- decay * active + (1 - decay) * share
        fraction <- clip(fraction + rate * (target - active), 0, 1)

    The share may be the active fraction: while too few triplets are active, harder ones are taken.
    For losses without triplets, and for penalties that are never 0, it may be `gradient_share`.
    The rule is ours. The running averages are in the manner of Harwood et al. 2017,
    https://arxiv.org/abs/1704.01285, and of CurricularFace (Huang et al. 2020,
    https://arxiv.org/abs/2004.00288).

    Args:
      pace: the pace after the last step.
      share: what was measured in this step, in [0, 1].
      target: the share to hold.
      rate: how far the fraction moves at most in one step.
      decay: of the running average, in [0, 1).

    Example:
      Half of the triplets were active, and a quarter of this step's are: the average falls to 3/8,
      which is 1/8 below the target, so the fraction rises by 1/8.

      >>> import jax.numpy as jnp
      >>> from triplet_jax import schedules
      >>> pace = schedules.first_pace(target=0.5, b=0.25)
      >>> pace = schedules.next_pace(pace, jnp.float32(0.25), target=0.5, rate=1.0, decay=0.5)
      >>> print(pace.active, pace.fraction)
      0.375 0.375
    """
    active = decay * pace.active + (1.0 - decay) * share
    return Pace(active, jnp.clip(pace.fraction + rate * (target - active), 0.0, 1.0))


def gradient_share(slopes: Float[Array, "batch dim"]) -> Float[Array, ""]:
    """The share of a batch's embeddings among which the gradient of a loss is spread.

        (sum_i g_i)^2 / (n sum_i g_i^2)  with  g_i = |dL / dx_i|

    It is k / n where k of n embeddings have gradients of one length and the others have none, and
    does not change with the scale of the loss. Kish's effective sample size ("Survey Sampling",
    1965, https://www.wiley.com/en-us/Survey+Sampling-p-9780471109495) as a share, of lengths of
    gradients. A gradient of 0 everywhere has the share 0.

    Args:
      slopes: the gradient in each embedding of the global batch.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import schedules
      >>> slopes = jnp.array([[3.0, 0.0], [0.0, 3.0], [0.0, 0.0], [0.0, 0.0]])
      >>> print(schedules.gradient_share(slopes))
      0.5
    """
    # Relative to the largest, since squares of small numbers underflow.
    largest = jnp.max(jnp.abs(slopes), initial=0.0)
    lengths = jnp.linalg.norm(slopes / jnp.where(largest > 0, largest, 1.0), axis=1)
    squares = jnp.sum(lengths**2)
    share = jnp.sum(lengths) ** 2 / (len(slopes) * jnp.where(squares > 0, squares, 1.0))
    return jnp.float32(share)


def _as_float(step):
    return jnp.asarray(step, jnp.float32)


def _check(name, value, allowed, range_in_words):
    if not isinstance(value, jax.core.Tracer) and not allowed(float(value)):
        raise errors.InputError(f"{name}={value} must be {range_in_words}.")
